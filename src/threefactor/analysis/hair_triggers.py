"""Hair triggers: spikes whose potential barely reaches the threshold (SFDFA, section 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefactor import events
from threefactor.analysis.batches import NO_BATCH, Batch, pairs
from threefactor.analysis.records import Record
from threefactor.errors import InputError
from threefactor.events.arrays import number
from threefactor.events.layer import Activity
from threefactor.events.parallel import over

__all__ = [
    "HairTriggers",
    "LayerHairTriggers",
    "hair_triggers",
    "spike_factors",
    "time_gradients",
]


def spike_factors(
    layer: events.Layer, currents: NDArray[Any], *, exact: bool
) -> NDArray[np.float64]:
    """Return F_k / y_k of spikes with synaptic currents I_k, as the rules use it."""
    given = np.array(currents, np.float64)
    found = np.empty_like(given)
    over("factors", len(given), given, layer.theta, layer.tau, exact, found)
    return found


def time_gradients(layer: events.Layer, activity: Activity, *, exact: bool) -> NDArray[np.float64]:
    r"""Return :math:`\sum_k dt_k / dw_{ij}` over all spikes and samples, (inputs, neurons).

    In seconds per weight, by equations 13 to 18. A neuron's own earlier spikes are included.
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
    """Hair triggers of one layer. All but `spikes` are None if there were no spikes.

    Attributes:
        spikes: number of spikes.
        share: share of the spikes with (I - theta) / theta below `below`, 0 to 1.
        nearest: the smallest (I - theta) / theta.
        largest_ratio: the largest ratio of the exact factor to the modified one, as the rules
            use them.
        gradient_ratio: norm of the layer's exact local gradient, summed over all spikes with equal
            errors, divided by that of the modified one.
    """

    spikes: int
    share: float | None
    nearest: float | None
    largest_ratio: float | None
    gradient_ratio: float | None


@dataclass(frozen=True)
class HairTriggers(Record):
    """Hair triggers by layer.

    Attributes:
        layers: by name.
        below: the (I - theta) / theta below which a spike counts as a hair trigger.
    """

    layers: dict[str, LayerHairTriggers]
    below: float


def hair_triggers(
    network: events.Network, batches: Iterable[Batch], *, below: float = 0.01
) -> HairTriggers:
    """Find the spikes of a network whose potential barely reaches the threshold.

    Args:
        network: of exact spike times.
        batches: pairs of inputs and targets; the targets are not used.
        below: a spike counts as a hair trigger if (I - theta) / theta is below this.

    Raises:
        InputError: if the network has no exact spike times, `below` is not above 0, or there is no
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
    below = number("below", below, "a share of the threshold above 0")
    currents: dict[str, list[NDArray[Any]]] = {name: [] for name in network.layers}
    sums: dict[str, list[NDArray[np.float64]]] = {}
    for inputs, _ in pairs(batches):
        for (name, layer), activity in zip(
            network.layers.items(), network.run(inputs), strict=True
        ):
            currents[name].append(activity.currents.astype(np.float64))
            both = [time_gradients(layer, activity, exact=exact) for exact in (True, False)]
            if name in sums:
                both = [old + new for old, new in zip(sums[name], both, strict=True)]
            sums[name] = both
    if not sums:
        raise InputError(NO_BATCH)
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
