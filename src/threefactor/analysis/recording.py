"""What every neuron of a network does for one sample: its spikes and its membrane potential."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.analysis.batches import check_no_steps
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.losses import Loss
from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError
from threefactor.modes import evaluating
from threefactor.readable import clipped

__all__ = ["INPUT", "LayerRecording", "Membranes", "Recording", "potential_and_current", "record"]

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]

INPUT = "input"
"""The name under which the spikes of the input stand."""
POINTS = 400
"""Moments between 0 and the end at which potentials of exact spike times are computed."""
ROUNDING = 1e-3
"""How far an activity may be from a whole number of spikes."""


@dataclass(frozen=True, eq=False)
class Membranes:
    """Membrane potentials of some neurons of a layer.

    Attributes:
        neurons: which ones.
        times: (P,) time steps from 1, or seconds.
        potentials: (P, k) one column for each neuron. At a spike, that from before its reset.
        thresholds: (P, k) the threshold at each moment; NaN where the layer has none.
        spikes: (P, k) whether the neuron spikes at the moment.
        foreign: whether a layer of another library shows what it keeps at the end of a step, which
            may be after the reset.
    """

    neurons: tuple[int, ...]
    times: Reals
    potentials: Reals
    thresholds: Reals
    spikes: NDArray[np.bool_]
    foreign: bool = False


@dataclass(frozen=True, eq=False)
class LayerRecording:
    """One layer.

    Attributes:
        name: of the layer in its network; "input" for the input.
        neurons: how many there are; those of a picture are numbered channel by channel, row by row.
        times: (S,) of the spikes: time steps from 1, or seconds.
        addresses: (S,) which neuron spiked.
        graded: the largest activity that is no whole number of spikes; None if there is none.
    """

    name: str
    neurons: int
    times: Reals
    addresses: Whole
    graded: float | None
    _membranes: Callable[[Sequence[int]], Membranes]

    def counts(self) -> Whole:
        """Return how often each neuron spiked, (n,)."""
        return np.bincount(self.addresses, minlength=self.neurons)

    def check_spikes(self) -> None:
        """Refuse a layer whose activity is no spikes.

        Raises:
            InputError: saying which activity it has.
        """
        if self.graded is not None:
            raise InputError(
                f"layer {self.name!r} has activities such as {self.graded:.4g}, which are no "
                "spikes, so there is no raster of it; look at its membrane potentials"
            )

    def membranes(self, neurons: Sequence[int]) -> Membranes:
        """Return the membrane potentials of some neurons.

        Raises:
            InputError: if the layer does not say what its potential is, or has no such neuron.
        """
        for i in neurons:
            if type(i) is not int or not 0 <= i < self.neurons:
                raise InputError(
                    f"neuron {clipped(i)} is not in layer {self.name!r}; give whole numbers from 0 "
                    f"to {self.neurons - 1}"
                )
        return self._membranes(neurons)


@dataclass(frozen=True, eq=False)
class Recording:
    """What the layers of a network did for one sample.

    Attributes:
        layers: by name, in the order of the network. First "input", if that is spikes; on a time
            grid a sequence of whole numbers is.
        unit: of the times, "time step" or "s".
        end: the last time step T, or the seconds that were simulated.
        output: (m,) of the network, summed over time; with exact spike times the counts, or what
            else the loss reads. The largest is the predicted class.
    """

    layers: dict[str, LayerRecording]
    unit: str
    end: float
    output: Reals

    def layer(self, name: str) -> LayerRecording:
        """Return a layer by name.

        Raises:
            InputError: if there is no such layer.
        """
        if not isinstance(name, str) or name not in self.layers:
            raise InputError(
                f"{clipped(name)} is no layer of neurons of the network; give one of "
                f"{', '.join(self.layers)}"
            )
        return self.layers[name]


def record(
    network: nn.Module,
    inputs: Any,
    *,
    steps: int | None = None,
    sample: int = 0,
    perturbation: clocked.Perturbation | None = None,
    loss: Loss | None = None,
) -> Recording:
    """Run a network, and keep what every neuron does for one sample.

    Dropout is off, and nothing learns. Afterwards the network is as it was.

    Args:
        network: of either engine.
        inputs: a batch, as `clocked.run` or `events.run` takes it.
        steps: T, for constant inputs of networks on a time grid.
        sample: which sample of the batch.
        perturbation: noise on the hidden layers, as of imprecise hardware.
        loss: of a network of exact spike times, which says what its output is: spike counts by
            default, minus the times of first spikes with `events.FirstSpike`.

    Raises:
        InputError: if the input does not fit the network, or has no such sample.

    Example:
        >>> net = clocked.fc(4, (8,), 3, threshold=0.1)
        >>> found = record(net, torch.ones(2, 4), steps=6)
        >>> list(found.layers), found.layers["lif1"].neurons
        (['lif1'], 8)
    """
    if isinstance(network, events.Network):
        check_no_steps(steps)
        return _of_events(network, inputs, sample, loss)
    return _on_grid(network, inputs, steps, sample, perturbation)


def _check_sample(sample: Any, batch: int) -> None:
    if type(sample) is not int or not 0 <= sample < batch:
        raise InputError(
            f"sample is {clipped(sample)}; the batch has {batch}: give a whole number from 0 to "
            f"{batch - 1}"
        )


class _Steps:
    """One layer on a time grid, as the time steps add to it."""

    def __init__(self, name: str, neuron: Neuron, sample: int) -> None:
        self.name, self.neuron, self.sample = name, neuron, sample
        self.activities: list[Tensor] = []
        self.potentials: list[Tensor] = []
        self.thresholds: list[Tensor] = []
        self.refused: InputError | None = None

    def hook(self, module: nn.Module, inputs: Any, given: Any) -> None:
        """Keep what the layer did in a step."""
        activity = given[0] if isinstance(given, tuple) else given  # beside its state
        _check_sample(self.sample, len(activity))
        self.activities.append(_copied(activity[self.sample]))
        if self.refused is not None:
            return
        try:
            potential, threshold = self.neuron.membrane()
        except InputError as problem:
            self.refused = InputError(f"of layer {self.name!r} there are no potentials: {problem}")
            return
        if potential.shape != activity.shape:
            self.refused = InputError(
                f"layer {self.name!r} keeps potentials of shape {tuple(potential.shape)}, and its "
                f"activity has {tuple(activity.shape)}, so it is not known which belongs to which "
                "neuron"
            )
            return
        given = float("nan") if threshold is None else threshold
        level = torch.as_tensor(given, dtype=torch.float64, device=potential.device)
        level = level.detach().expand_as(potential)
        self.potentials.append(_copied(potential[self.sample]))
        self.thresholds.append(_copied(level[self.sample]))

    def recording(self) -> LayerRecording:
        activity = torch.stack(self.activities).numpy() / self.neuron.scale
        graded = _graded(activity)
        times, addresses = _repeated(activity if graded is None else activity != 0)
        return LayerRecording(
            self.name, activity.shape[1], times, addresses, graded, self.membranes
        )

    def membranes(self, neurons: Sequence[int]) -> Membranes:
        if self.refused is not None:
            raise self.refused
        chosen = list(neurons)
        spikes = torch.stack(self.activities)[:, chosen].numpy() != 0
        potentials = torch.stack(self.potentials)[:, chosen].numpy()
        thresholds = torch.stack(self.thresholds)[:, chosen].numpy()
        times = np.arange(1.0, len(potentials) + 1)
        return Membranes(tuple(chosen), times, potentials, thresholds, spikes, self.neuron.foreign)


def _copied(values: Tensor) -> Tensor:
    """Return values in a tensor that the next time step leaves alone."""
    return values.detach().flatten().to("cpu", torch.float64, copy=True)


def _graded(activity: Reals) -> float | None:
    """Return the largest value that is no whole number."""
    wrong = np.abs(activity - np.round(activity)) > ROUNDING
    return float(np.abs(activity[wrong]).max()) if wrong.any() else None


def _repeated(activity: NDArray[Any]) -> tuple[Reals, Whole]:
    """Return time and neuron of each spike of an activity, (T, n); two at once are there twice."""
    number = np.abs(np.round(activity.astype(float))).astype(int)
    steps, addresses = np.nonzero(number)
    each = number[steps, addresses]
    return np.repeat(steps + 1.0, each), np.repeat(addresses, each)


def _on_grid(
    network: nn.Module,
    inputs: Any,
    steps: int | None,
    sample: int,
    perturbation: clocked.Perturbation | None,
) -> Recording:
    kept = [
        _Steps(name, layer, sample)
        for name, layer in layers_of(network)
        if isinstance(layer, Neuron)
    ]
    with _hooked(kept), evaluating(network):
        result = clocked.run(network, inputs, steps=steps, perturbation=perturbation)
    _check_sample(sample, len(result.output))
    layers: dict[str, LayerRecording] = {}
    if steps is None and isinstance(inputs, Tensor):
        shown = inputs[:, sample].flatten(1).double().cpu().numpy()
        if _graded(shown) is None and (shown >= 0).all():
            nothing = functools.partial(_no_membranes, INPUT)
            layers[INPUT] = LayerRecording(INPUT, shown.shape[1], *_repeated(shown), None, nothing)
    layers.update({one.name: one.recording() for one in kept if one.activities})
    output = result.output[sample].double().cpu().numpy()
    return Recording(layers, "time step", result.steps, output)


@contextmanager
def _hooked(kept: Sequence[_Steps]) -> Iterator[None]:
    hooks = [
        getattr(one.neuron, "module", one.neuron).register_forward_hook(one.hook) for one in kept
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _no_membranes(name: str, neurons: Sequence[int]) -> Membranes:
    raise InputError(f"{name!r} are spikes from outside, which have no membrane potential")


def _of_events(network: events.Network, inputs: Any, sample: int, loss: Loss | None) -> Recording:
    activities = network.run(inputs)
    _check_sample(sample, len(inputs))
    duration = max(layer.duration for layer in network.layers.values())
    times, addresses = inputs[sample]
    layers = {
        INPUT: LayerRecording(
            INPUT,
            inputs.size,
            np.array(times),
            addresses.astype(np.int64),
            None,
            functools.partial(_no_membranes, INPUT),
        )
    }
    for (name, layer), activity in zip(network.layers.items(), activities, strict=True):
        times, addresses = activity.spikes[sample]
        layers[name] = LayerRecording(
            name,
            layer.neurons,
            np.array(times),
            addresses.astype(np.int64),
            None,
            functools.partial(
                _closed_form, activity, activity.weights.copy(), sample, layer.duration
            ),
        )
    output = events.run(network, inputs[[sample]], loss=loss).output[0]
    return Recording(layers, "s", duration, output.double().numpy())


def _closed_form(
    activity: events.Activity,
    met: NDArray[Any],
    sample: int,
    duration: float,
    neurons: Sequence[int],
) -> Membranes:
    """Compute potentials at moments that are the same for all neurons, their spikes included.

    `met` are the weights that the spikes met: those of the layer may have changed since.
    At each spike there are two moments: when the potential reaches the threshold, and the next
    one that there is, after the reset.
    """
    given, addresses = activity.inputs[sample]
    seen = given < duration
    weights = met[addresses[seen]].astype(np.float64)
    times, owners = activity.spikes[sample]
    own = [times[owners == i] for i in neurons]
    reached = np.concatenate([*own, np.empty(0)])
    grid = np.linspace(0.0, duration, POINTS + 1)
    moments = np.unique(np.concatenate([grid, reached, np.nextafter(reached, np.inf)]))
    potentials = np.empty((len(moments), len(neurons)))
    spikes = np.zeros(potentials.shape, np.bool_)
    for k, (i, spiked) in enumerate(zip(neurons, own, strict=True)):
        potentials[:, k], _ = potential_and_current(
            moments, given[seen], weights[:, i], spiked, activity.theta, activity.tau
        )
        spikes[:, k] = np.isin(moments, spiked)
    thresholds = np.full_like(potentials, activity.theta)
    return Membranes(tuple(neurons), moments, potentials, thresholds, spikes)


def potential_and_current(
    moments: Reals, inputs: Reals, weights: Reals, spikes: Reals, theta: float, tau: float
) -> tuple[Reals, Reals]:
    r"""Return the potential and the synaptic current of a neuron of exact spike times.

    .. math:: u(t) = \sum_z w_z \left( e^{(t_z - t)/\tau} - e^{2 (t_z - t)/\tau} \right)
              - \theta \sum_{t_k < t} e^{(t_k - t)/\tau}

    over the input spikes z before t; the current is :math:`\sum_z w_z e^{2 (t_z - t)/\tau}`. At the
    time of a spike the potential is that before its reset.

    Args:
        moments: (P,) seconds.
        inputs, weights: (S,) time and weight of each input spike.
        spikes: times of the neuron's own spikes.
        theta, tau: threshold of the potential, membrane time constant in seconds.

    Source: Bacho & Chu (SFDFA), equation 1.
    """

    def decayed(since: Reals, constant: float) -> Reals:
        age = moments[:, None] - since
        return np.where(age > 0, np.exp(-np.maximum(age, 0.0) / constant), 0.0)

    current = decayed(inputs, tau / 2) @ weights
    slow = decayed(inputs, tau) @ weights
    return slow - current - theta * decayed(spikes, tau).sum(1), current
