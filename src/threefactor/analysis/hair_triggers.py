"""Hair triggers: spikes that only just reach the threshold (SFDFA, figures 1 to 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from threefactor import events
from threefactor.analysis.batches import Batch
from threefactor.analysis.records import Record
from threefactor.errors import InputError
from threefactor.events.layer import Activity
from threefactor.events.parallel import over

__all__ = [
    "FactorCurves",
    "HairTriggers",
    "LayerHairTriggers",
    "hair_trigger_factors",
    "hair_triggers",
    "spike_factors",
    "time_gradients",
]


@dataclass(frozen=True)
class FactorCurves(Record):
    """The factor of the local gradient against the slope of the potential at the spike.

    Attributes:
        slopes: du/dt where the potential crosses the threshold, potential per second.
        exact: 1 / slope, seconds per potential; diverges at slope 0.
        modified: 1 / (slope + theta / tau), at most tau / theta.
        bound: tau / theta.
    """

    slopes: list[float]
    exact: list[float]
    modified: list[float]
    bound: float


def hair_trigger_factors(slopes: ArrayLike, *, tau_s: float, threshold: float) -> FactorCurves:
    r"""Return F_k / y_k, exact and modified, against the slope of the potential (figure 1).

    At a spike :math:`du/dt = (I_k - \theta) / \tau`, so that

    .. math:: \frac{F_k}{y_k} = \frac{\tau}{I_k - \theta} = \frac{1}{du/dt}
              \quad\text{or}\quad
              \frac{\tau}{I_k} = \frac{1}{du/dt + \theta/\tau}

    Args:
        slopes: du/dt, above 0.
        tau_s: synaptic time constant in seconds.
        threshold: theta_hat, as `events.fc` takes it.

    Raises:
        InputError: if a slope is not above 0, or a constant out of its range.

    Example:
        >>> curves = hair_trigger_factors([0.5, 4.0], tau_s=0.5, threshold=1.0)
        >>> curves.exact, curves.modified, curves.bound
        ([2.0, 0.25], [0.6666666666666666, 0.2], 1.0)

    Source: Bacho & Chu (SFDFA), equations 14 and 18, figure 1.
    """
    given = np.asarray(slopes, np.float64).reshape(-1)
    if not (np.isfinite(given) & (given > 0)).all() or not len(given):
        raise InputError(
            f"slopes are {given.tolist()}; give numbers above 0: a spike has du/dt > 0"
        )
    layer = events.Layer(1, 1, tau_s=tau_s, threshold=threshold, duration=1.0)
    currents = layer.theta + given * layer.tau
    return FactorCurves(
        given.tolist(),
        spike_factors(layer, currents, exact=True).tolist(),
        spike_factors(layer, currents, exact=False).tolist(),
        layer.tau / layer.theta,
    )


def spike_factors(
    layer: events.Layer, currents: NDArray[Any], *, exact: bool
) -> NDArray[np.float64]:
    """Return F_k / y_k of spikes whose synaptic current is I_k, as the rules use it."""
    from threefactor.events.dynamics import factor  # needs Numba, which the layer has imported

    found = [factor(float(i), layer.theta, layer.tau, exact) for i in currents]
    return np.array(found, np.float64)


def time_gradients(layer: events.Layer, activity: Activity, *, exact: bool) -> NDArray[np.float64]:
    r"""Return :math:`\sum_k dt_k / dw_{ij}` over all spikes and samples, (inputs, neurons).

    Seconds per weight, the neurons' own earlier spikes taken into account (equations 13 to 18).
    """
    gradient, raw = np.zeros((layer.in_features, layer.neurons)), activity._raw
    over(
        "eligibility_gradient", layer.neurons, *activity.inputs._raw, *activity.spikes._raw,
        raw.parents, raw.currents.astype(np.float64), raw.ys.astype(np.float64),
        np.ones((len(activity.inputs), layer.neurons)), activity.theta, activity.tau, exact,
        gradient,
    )  # fmt: skip
    return gradient


@dataclass(frozen=True)
class LayerHairTriggers(Record):
    """How near to the threshold the spikes of one layer pass.

    Attributes:
        spikes: how many spikes there were.
        share: of them with (I - theta) / theta below `below`; None without spikes.
        nearest: the smallest (I - theta) / theta; None without spikes.
        largest_ratio: the largest ratio of the exact factor to the modified one, as the rules
            use it; None without spikes.
        gradient_ratio: norm of the layer's summed local gradient (all spikes with equal errors),
            exact over modified; None without spikes.
    """

    spikes: int
    share: float | None
    nearest: float | None
    largest_ratio: float | None
    gradient_ratio: float | None


@dataclass(frozen=True)
class HairTriggers(Record):
    """Hair triggers by layer; `below` is the margin under which a spike counts as one."""

    layers: dict[str, LayerHairTriggers]
    below: float


def hair_triggers(
    network: events.Network, batches: Iterable[Batch], *, below: float = 0.01
) -> HairTriggers:
    """Find the spikes of a network whose potential only just reaches the threshold.

    Args:
        network: of exact spike times.
        batches: pairs of inputs and targets; the targets are not used.
        below: (I - theta) / theta under which a spike counts as a hair trigger.

    Raises:
        InputError: if the network is of another kind, `below` is not above 0, or there is no
            batch.

    Example:
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.2, duration=0.2)
        >>> found = hair_triggers(net, [(events.latency_code(torch.rand(2, 4)), torch.zeros(2))])
        >>> sorted(found.layers)
        ['lif1', 'readout']

    Source: Bacho & Chu (SFDFA), sections 2.4 and 3.1.
    """
    if not isinstance(network, events.Network):
        raise InputError(
            f"the network is a {type(network).__name__}; hair triggers are of exact spike times: "
            "give one of threefactor.events"
        )
    if not 0.0 < below < np.inf:
        raise InputError(f"below is {below}; give a share of the threshold above 0")
    currents: dict[str, list[NDArray[Any]]] = {name: [] for name in network.layers}
    sums: dict[str, list[NDArray[np.float64]]] = {}
    for inputs, _ in batches:
        for (name, layer), activity in zip(
            network.layers.items(), network.run(inputs), strict=True
        ):
            currents[name].append(activity.currents.astype(np.float64))
            both = [time_gradients(layer, activity, exact=exact) for exact in (True, False)]
            if name in sums:
                both = [old + new for old, new in zip(sums[name], both, strict=True)]
            sums[name] = both
    if not sums:
        raise InputError("there was no batch; give at least one pair of inputs and targets")
    return HairTriggers(
        {
            name: _summary(layer, np.concatenate(currents[name]), sums[name], below)
            for name, layer in network.layers.items()
        },
        below,
    )


def _summary(
    layer: events.Layer,
    currents: NDArray[Any],
    gradients: Sequence[NDArray[np.float64]],
    below: float,
) -> LayerHairTriggers:
    if not len(currents):
        return LayerHairTriggers(0, None, None, None, None)
    margins = currents / layer.theta - 1.0
    lowest = currents[[int(currents.argmin())]]
    factors = [float(spike_factors(layer, lowest, exact=exact)[0]) for exact in (True, False)]
    exact, modified = (float(torch.from_numpy(g).norm()) for g in gradients)
    return LayerHairTriggers(
        len(currents),
        float((margins < below).mean()),
        max(float(margins.min()), 0.0),
        factors[0] / factors[1],
        exact / modified if modified else None,
    )
