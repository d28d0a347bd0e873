"""Eligibility traces that run forward in time, by neuron."""

from __future__ import annotations

import math

import numpy as np

from threefactor.events.compiling import compiled
from threefactor.events.dynamics import factor

__all__ = ["eligibility_gradient"]


@compiled
def eligibility_gradient(
    first, last, in_offsets, in_times, in_addresses, offsets, times, neurons, parents, currents,
    ys, errors, theta, tau, exact, grad,
):  # fmt: skip
    r"""Add to the gradient of neurons first to last - 1 by traces that run forward in time.

    The presynaptic traces A_j and B_j grow by 1 at each input spike and decay with tau_s and tau.
    At spike k of neuron i the eligibility of its synapses grows by (equations 13 to 21)

    .. math:: \frac{dt_k}{dw_{ij}} = \frac{F_k}{y_k} \left( A_j(t_k) - B_j(t_k) + R_{ij}(t_k)
              \right), \qquad R_{ij}(t) = \frac{\theta}{\tau} \sum_{t_l < t} e^{(t_l - t)/\tau}
              \frac{dt_l}{dw_{ij}}

    and when the sample is over, the error of the neuron meets its eligibilities. Nothing is kept
    of the past but the traces. `errors` is (B, neurons): one error for all spikes of a neuron.
    """
    inputs = grad.shape[0]
    fast, slow = np.empty(inputs, grad.dtype), np.empty(inputs, grad.dtype)
    size = last - first
    own = np.zeros((size, inputs), grad.dtype)
    eligibility = np.zeros((size, inputs), grad.dtype)
    since = np.empty(size, np.float64)
    real = grad.dtype.type
    ratio = real(theta / tau)
    for b in range(len(in_offsets) - 1):
        fast[:] = 0
        slow[:] = 0
        since[:] = -1.0
        k = offsets[b]
        at = 0.0  # the time to which the presynaptic traces have decayed
        for z in range(in_offsets[b], in_offsets[b + 1]):
            decay = real(math.exp((at - in_times[z]) / tau))
            at = in_times[z]
            fast *= decay * decay
            slow *= decay
            fast[in_addresses[z]] += real(1)
            slow[in_addresses[z]] += real(1)
            while k < offsets[b + 1] and parents[k] == z - in_offsets[b]:
                i = neurons[k] - first
                if 0 <= i < size:
                    y = ys[k]
                    f = real(factor(currents[k], theta, tau, exact))
                    if since[i] < 0:
                        own[i] = 0
                        eligibility[i] = 0
                    held = real(math.exp((since[i] - times[k]) / tau))
                    for j in range(inputs):
                        own[i, j] *= held
                        change = f * (fast[j] * y * y - slow[j] * y + own[i, j])
                        own[i, j] += ratio * change
                        eligibility[i, j] += change
                    since[i] = times[k]
                k += 1
        for i in range(size):
            if since[i] >= 0:
                error = errors[b, first + i]
                for j in range(inputs):
                    grad[j, first + i] += error * eligibility[i, j]
