"""One neuron and a few input spikes: where its local gradient diverges (SFDFA, figures 1 to 3)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from threefactor import events
from threefactor.analysis.hair_triggers import spike_factors, time_gradients
from threefactor.analysis.recording import potential_and_current
from threefactor.analysis.records import Record
from threefactor.errors import InputError
from threefactor.readable import clipped

__all__ = [
    "FOUR_SPIKES",
    "FactorCurves",
    "GradientField",
    "NeuronTrace",
    "gradient_field",
    "hair_trigger_factors",
    "neuron_trace",
]

MOST_SPIKES = 1000
"""Spikes of one neuron that are followed: it has no cap, as one in a network."""
FOUR_SPIKES = ((0.010, 0), (0.025, 1), (0.060, 0), (0.075, 1))
"""Input spikes, (seconds, input 0 or 1). They are ours: the paper does not state its own."""


@dataclass(frozen=True)
class FactorCurves(Record):
    """The factor of the local gradient by the slope of the potential at the spike.

    Attributes:
        slopes: du/dt where the potential crosses the threshold, potential per second.
        exact: 1 / slope, seconds per potential; it diverges at slope 0.
        modified: 1 / (slope + theta / tau), at most tau / theta.
        bound: tau / theta.
    """

    slopes: list[float]
    exact: list[float]
    modified: list[float]
    bound: float


def hair_trigger_factors(slopes: ArrayLike, *, tau_s: float, threshold: float) -> FactorCurves:
    r"""Return F_k / y_k, exact and modified, by the slope of the potential (figure 1).

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
    given = _numbers("slopes", slopes)
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


@dataclass(frozen=True)
class GradientField(Record):
    """Local gradients of one neuron on a grid of its two weights.

    Attributes:
        weights: the values of both weights. In the other attributes row i, column j is for the
            weights (weights[i], weights[j]).
        spikes: number of the neuron's spikes.
        exact: the sum of dt_k / dw over its spikes, two numbers, seconds per weight.
        modified: the same with the modified factor.
        nearest: the smallest (I - theta) / theta of its spikes; None where it is silent.
    """

    weights: list[float]
    spikes: list[list[int]]
    exact: list[list[list[float]]]
    modified: list[list[list[float]]]
    nearest: list[list[float | None]]


def gradient_field(
    weights: ArrayLike,
    *,
    train: Sequence[tuple[float, int]] = FOUR_SPIKES,
    tau_s: float = 0.020,
    threshold: float = 0.010,
    duration: float = 0.200,
) -> GradientField:
    """Return the local gradient, exact and modified, over a grid of two weights (figure 2).

    Args:
        weights: the values that each of the two weights takes.
        train: input spikes, (seconds, input 0 or 1).
        tau_s, threshold, duration: see `events.fc`.

    Raises:
        InputError: if there is no weight, a time or input of a spike is not valid, or a neuron
            spikes more than 1000 times.

    Example:
        >>> field = gradient_field([0.0, 1.0, 2.0])
        >>> field.spikes[0][0], field.nearest[0][0] is None
        (0, True)

    Source: Bacho & Chu (SFDFA), section 3.1, figure 2.
    """
    values = _numbers("weights", weights)
    if not len(values):
        raise InputError("weights are empty; give the values of the grid")
    # All points of the grid are neurons of one layer.
    first, second = np.meshgrid(values, values, indexing="ij")
    layer = _layer(np.stack([first.ravel(), second.ravel()]), tau_s, threshold, duration)
    activity = _whole(layer, _batch(train, 2))
    side = (len(values), len(values))
    found = [time_gradients(layer, activity, exact=exact) for exact in (True, False)]
    exact, modified = (g.T.reshape(*side, 2).tolist() for g in found)
    spikes = activity.spikes.counts()[0].reshape(side).tolist()
    nearest = np.full(layer.neurons, np.inf)
    np.minimum.at(nearest, activity.spikes.addresses, activity.currents / layer.theta - 1.0)
    margins = [None if np.isinf(m) else max(float(m), 0.0) for m in nearest]
    rows = [margins[i * side[1] : (i + 1) * side[1]] for i in range(side[0])]
    return GradientField(values.tolist(), spikes, exact, modified, rows)


@dataclass(frozen=True)
class NeuronTrace(Record):
    """One neuron over time.

    Attributes:
        times: seconds.
        potential: u(t).
        current: synaptic current I(t), in the unit of the potential.
        theta: threshold of the potential.
        spike_times: seconds.
        spike_currents: I_k.
        exact_factors, modified_factors: F_k / y_k at each spike, seconds per potential.
        exact_gradients, modified_gradients: dt_k / dw of each spike, one number per input, seconds
            per weight.
    """

    times: list[float]
    potential: list[float]
    current: list[float]
    theta: float
    spike_times: list[float]
    spike_currents: list[float]
    exact_factors: list[float]
    modified_factors: list[float]
    exact_gradients: list[list[float]]
    modified_gradients: list[list[float]]


def neuron_trace(
    weights: ArrayLike,
    *,
    train: Sequence[tuple[float, int]] = FOUR_SPIKES,
    tau_s: float = 0.020,
    threshold: float = 0.010,
    duration: float = 0.200,
    points: int = 400,
) -> NeuronTrace:
    """Return potential, current, factors and local gradients of one neuron (figure 3).

    Args:
        weights: one per input.
        train: input spikes, (seconds, input).
        tau_s, threshold, duration: see `events.fc`.
        points: number of points in time, from 0 to `duration`.

    Raises:
        InputError: if there is no weight, a time or input of a spike is not valid, or the neuron
            spikes more than 1000 times.

    Example:
        >>> trace = neuron_trace([1.0, 1.0])
        >>> len(trace.spike_times) == len(trace.exact_gradients)
        True

    Source: Bacho & Chu (SFDFA), section 3.1, figure 3; equation 1.
    """
    values = _numbers("weights", weights).reshape(-1, 1)
    if type(points) is not int or points < 2:
        raise InputError(f"points is {clipped(points)}; give a whole number of at least 2")
    layer = _layer(values, tau_s, threshold, duration)
    inputs = _batch(train, len(values))
    activity = _whole(layer, inputs)
    times = np.linspace(0.0, duration, points)
    weight = layer.weight.detach().numpy()[inputs.addresses, 0]
    potential, current = potential_and_current(
        times, inputs.times, weight, activity.spikes.times, layer.theta, layer.tau
    )
    spikes = activity.currents
    return NeuronTrace(
        times.tolist(),
        potential.tolist(),
        current.tolist(),
        layer.theta,
        activity.spikes.times.tolist(),
        spikes.tolist(),
        spike_factors(layer, spikes, exact=True).tolist(),
        spike_factors(layer, spikes, exact=False).tolist(),
        _single_gradients(layer, inputs, exact=True),
        _single_gradients(layer, inputs, exact=False),
    )


def _layer(
    weights: NDArray[np.float64], tau_s: float, threshold: float, duration: float
) -> events.Layer:
    inputs, neurons = weights.shape
    layer = events.Layer(
        inputs,
        neurons,
        tau_s=tau_s,
        threshold=threshold,
        duration=duration,
        max_spikes=MOST_SPIKES,
    )
    layer.double().weight.data = torch.from_numpy(weights.copy())
    return layer


def _whole(layer: events.Layer, inputs: events.SpikeBatch) -> events.Activity:
    """Run a layer, and refuse neurons whose last spikes are left out."""
    activity = layer.run(inputs)
    if activity.capped:
        raise InputError(
            f"{activity.capped} of {layer.neurons} neurons spike more than {MOST_SPIKES} times; "
            "give smaller weights, a higher threshold or a shorter duration"
        )
    return activity


def _batch(train: Sequence[tuple[float, int]], size: int) -> events.SpikeBatch:
    try:
        times, addresses = [t for t, _ in train], [j for _, j in train]
    except (TypeError, ValueError):
        raise InputError(
            f"train is {clipped(train)}; give pairs of time and input, as in [(0.01, 0)]"
        ) from None
    return events.SpikeBatch.from_lists([times], [addresses], size)


def _numbers(name: str, given: ArrayLike) -> NDArray[np.float64]:
    """Return real numbers as a flat array."""
    try:
        found = np.asarray(given)
        if found.dtype.kind not in "fiu":
            raise TypeError
        return found.astype(np.float64).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} are {clipped(given)}; give real numbers") from None


def _single_gradients(
    layer: events.Layer, inputs: events.SpikeBatch, *, exact: bool
) -> list[list[float]]:
    """Return dt_k / dw of every spike: what one more spike adds to the sum over the spikes."""
    sums, cap = [np.zeros(layer.in_features)], layer.max_spikes
    total = len(layer.run(inputs).spikes.times)
    try:
        for layer.max_spikes in range(1, total + 1):
            sums.append(time_gradients(layer, layer.run(inputs), exact=exact)[:, 0])
    finally:
        layer.max_spikes = cap
    return [(now - before).tolist() for before, now in itertools.pairwise(sums)]
