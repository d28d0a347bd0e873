r"""Closed forms of one LIF neuron with membrane constant tau = 2 tau_s, as scalar functions.

Between two input spikes the state of a neuron is two numbers, both relative to the time t_0 of the
last event, so that nothing overflows however long the simulation is:

.. math:: s = \sum_z w_z e^{(t_z - t_0)/\tau_s}, \qquad
          c = \sum_z w_z e^{(t_z - t_0)/\tau} - \theta \sum_l e^{(t_l - t_0)/\tau}

the synaptic current, and the slow part with the resets. With y = exp(-(t - t_0)/tau), which falls
from 1 towards 0, the potential is a parabola: u = c y - s y^2.

Source: Bacho & Chu (SFDFA), equations 1 to 4 and 13 to 18.
"""

from __future__ import annotations

import math

from threefactor.events.compiling import inlined

__all__ = ["NEVER", "crossing", "factor"]

RESOLUTION = 1e-6
"""What rounding leaves of I_k - theta, as a share of theta."""
NEVER = -1.0
"""What `crossing` returns when the threshold is not reached."""


@inlined
def crossing(c, s, theta, y_end):
    """Return y of the first upward crossing of theta, between 1 and y_end, or `NEVER`.

    An upward crossing has s y^2 >= theta, so s >= theta at every earlier moment. With
    s >= theta and u(1) < theta no crossing can lie in the past. u(1) >= theta comes from rounding
    only, when a crossing at the very end of the interval before was missed: it counts now.
    """
    square = c * c - (theta + theta) * (s + s)
    if not (s >= theta and square >= 0.0):
        return NEVER
    y = (c + math.sqrt(square)) / (s + s)
    if not y >= y_end:  # or a state is infinite
        return NEVER
    if y > 1.0:
        return 1.0 if c - s >= theta else NEVER
    return y


@inlined
def factor(current, theta, tau, exact):
    r"""Return F_k / y_k in seconds per potential.

    .. math:: \frac{F_k}{y_k} = \frac{\tau}{I_k - \theta} \;\text{(exact)}, \qquad
              \frac{\tau}{I_k} \;\text{(modified)}

    I_k is the current at the spike, at least theta. The exact factor diverges at a hair trigger;
    I_k - theta is taken to be at least theta times `RESOLUTION`, which is what rounding leaves of
    it. The modified factor is at most tau / theta (equation 18).
    """
    if exact:
        return tau / max(current - theta, theta * RESOLUTION)
    return tau / max(current, theta)
