"""One layer of LIF neurons with closed-form spike times."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Never, TypedDict

from threefactor.errors import DivergenceError, InputError
from threefactor.events.arrays import number, offsets_of, read_only, whole
from threefactor.events.parallel import kernels, over
from threefactor.events.spikes import SpikeBatch
from threefactor.options import refuse_unknown

__all__ = ["Activity", "Layer", "LayerOptions", "array_of", "recorded"]

Reals = NDArray[Any]
SMALLEST = 1e-15
"""Of theta; its inverse is the largest."""


class Arrays(NamedTuple):
    """What a layer did, as the kernels take it; the attributes of `Activity` show it."""

    decays: Reals
    counts: Reals
    parents: NDArray[np.int32]
    currents: Reals
    ys: Reals


@dataclass(frozen=True, eq=False)
class Activity:
    """What one layer did in one batch; it does not change when the layer does.

    Attributes:
        layer: the layer.
        theta, tau: its threshold and membrane time constant at the time.
        inputs: the spikes that reached the layer.
        spikes: the spikes of the layer's neurons.
        capped: how many neurons, summed over the samples, reached the threshold once more after
            their last permitted spike.
    """

    layer: Layer
    theta: float
    tau: float
    inputs: SpikeBatch
    spikes: SpikeBatch
    capped: int
    _raw: Arrays
    _weight: Tensor
    _weights: Reals
    _seen: int | None

    @property
    def weights(self) -> Reals:
        """(in_features, neurons) the weights that the spikes met; read-only.

        This is the layer's own memory. An optimiser's step changes it: copy what has to last.

        Raises:
            InputError: if they were changed since; what is written to `weight.data` goes unnoticed.
        """
        if _version(self._weight) != self._seen:
            raise InputError(
                "the weights were changed after the layer ran, so those that the spikes met are "
                "gone; read them before the optimiser's step, or run the network again"
            )
        return read_only(self._weights)

    @property
    def decays(self) -> Reals:
        """(input spikes,) exp(-dt / tau), dt the time to the sample's next input spike or the end.

        Read-only, as all arrays here.
        """
        return read_only(self._raw.decays)

    @property
    def counts(self) -> Reals:
        """(B, neurons) spike counts, in the precision of the weights."""
        return read_only(self._raw.counts)

    @property
    def parents(self) -> NDArray[np.int32]:
        """(spikes,) the number, within its sample, of the last input spike before each."""
        return read_only(self._raw.parents)

    @property
    def currents(self) -> Reals:
        """(spikes,) synaptic current I_k at each spike."""
        return read_only(self._raw.currents)

    @property
    def ys(self) -> Reals:
        """(spikes,) exp(-(t_k - t_z) / tau), t_z the time of the spike's parent."""
        return read_only(self._raw.ys)


class _Recorder(threading.local):
    made: list[Activity] | None = None


_RECORDER = _Recorder()


@contextmanager
def recorded() -> Iterator[list[Activity]]:
    """Collect what all layers do that this thread calls within."""
    before, made = _RECORDER.made, list[Activity]()
    _RECORDER.made = made
    try:
        yield made
    finally:
        _RECORDER.made = before


class LayerOptions(TypedDict):
    """Options that all layers of a network share; see `Layer`."""

    tau_s: float
    duration: float


class Layer(nn.Module):
    r"""Fully connected LIF neurons with exponential synapses and tau = 2 tau_s.

    .. math:: u_i(t) = \sum_j w_{ji} \sum_{t_j^z < t} \left( e^{(t_j^z - t)/\tau}
              - e^{(t_j^z - t)/\tau_s} \right) - \theta \sum_{t_i^l < t} e^{(t_i^l - t)/\tau}

    A neuron spikes where u reaches theta from below, and u returns to 0.

    Args:
        in_features: number of input addresses.
        neurons: number of neurons.
        tau_s: synaptic time constant in seconds.
        threshold: theta_hat, the published threshold; theta = theta_hat / tau, tau in seconds.
        duration: seconds that are simulated. Input spikes at or after it are not seen.
        max_spikes: the most spikes of one neuron in one sample.
        weight_range: lowest and highest initial weight.

    Attributes:
        weight: (in_features, neurons) parameter, one row per input address (the transpose of
            `torch.nn.Linear.weight`); starts uniform in `weight_range`, in single precision. One
            that is pruned or parametrised by `torch.nn.utils` runs, but rules refuse to train it.

    The settings may be changed later; each batch uses those of its moment. Several threads may call
    a layer at once.

    Raises:
        InputError: if a size, time, threshold or cap has no meaning.
        ConfigurationError: if the compiled kernels are missing.

    Source: Bacho & Chu (SFDFA), equations 1 to 4; see `kernels/dynamics.h` for the closed form.
    """

    def __init__(
        self,
        in_features: int,
        neurons: int,
        *,
        tau_s: float,
        threshold: float,
        duration: float,
        max_spikes: int = 30,
        weight_range: tuple[float, float] = (-1.0, 1.0),
        **unknown: Never,
    ) -> None:
        super().__init__()
        refuse_unknown(type(self), unknown)
        kernels()
        self.in_features = whole("in_features", in_features)
        self.neurons = whole("neurons", neurons)
        self.tau_s, self.threshold, self.duration = tau_s, threshold, duration
        self.max_spikes = max_spikes
        self._checked: tuple[Any, Any] = ((), ())
        _, tau, self.duration, self.max_spikes = self._constants()
        self.tau_s, self.threshold = 0.5 * tau, float(threshold)
        low, high = _range(weight_range)
        try:
            weight = torch.empty(self.in_features, self.neurons, dtype=torch.float32)
        except RuntimeError as problem:
            raise InputError(
                f"{self.in_features} x {self.neurons} weights do not fit into memory; give a "
                "smaller layer"
            ) from problem
        self.weight = nn.Parameter(weight.uniform_(low, high))
        # Working memory that no call is using.
        self._spare: list[NDArray[Any]] = []

    def _constants(self) -> tuple[float, float, float, int]:
        """Return theta, tau, duration and cap as they are now.

        Raises:
            InputError: if one of them has no meaning.
        """
        given = (self.tau_s, self.threshold, self.duration, self.max_spikes)
        known, constants = self._checked
        if len(known) and all(map(operator.is_, given, known)):
            return constants  # type: ignore[no-any-return]
        tau = 2.0 * number("tau_s", self.tau_s, "seconds, above 0 and finite")
        wanted = "a potential times seconds, above 0 and finite"
        theta = number("threshold", self.threshold, wanted) / tau
        if not SMALLEST <= theta <= 1.0 / SMALLEST:
            raise InputError(
                f"threshold is {self.threshold} at tau_s={self.tau_s}, so theta is {theta}; scale "
                f"weights and threshold, so that theta lies between {SMALLEST} and "
                f"{1.0 / SMALLEST} and single precision holds its square"
            )
        duration = number("duration", self.duration, "seconds, above 0 and finite")
        constants = theta, tau, duration, whole("max_spikes", self.max_spikes)
        self._checked = given, constants
        return constants

    @property
    def tau(self) -> float:
        """Membrane time constant in seconds."""
        return 2.0 * self.tau_s

    @property
    def theta(self) -> float:
        """Threshold of the membrane potential."""
        return self.threshold / self.tau

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.neurons}, tau_s={self.tau_s}, "
            f"threshold={self.threshold}, duration={self.duration}, max_spikes={self.max_spikes}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spare": []}  # copies need no working memory

    def forward(self, inputs: SpikeBatch) -> SpikeBatch:
        """Return the spikes of the layer's neurons.

        Raises:
            InputError: if the inputs are not a SpikeBatch of `in_features` addresses, the weights
                not (in_features, neurons), float32 or float64, on the CPU, finite and at most 1e16
                (1e150 in float64) in size, or a setting has been changed to what has no meaning.
        """
        activity = self._act(inputs)
        if _RECORDER.made is not None:
            _RECORDER.made.append(activity)
        return activity.spikes

    def run(self, inputs: SpikeBatch) -> Activity:
        """Return the spikes of the layer's neurons with what learning needs of them.

        Raises:
            InputError: as `forward` does, or if a hook replaces the spikes.
        """
        with recorded() as made:
            spikes = self(inputs)  # so that hooks, as those of torch.nn.utils.prune, do their work
        if not made or made[-1].spikes is not spikes:
            raise InputError("a hook of the layer replaced its spikes; remove it")
        return made[-1]

    def _act(self, inputs: SpikeBatch) -> Activity:
        theta, tau, duration, cap = self._constants()
        # Asked for once: what a parametrisation computes may differ from time to time.
        weight = getattr(self, "weight", None)
        weights = array_of("weight", weight, (self.in_features, self.neurons))
        assert weight is not None
        if not isinstance(inputs, SpikeBatch):
            raise InputError(
                f"the input is a {type(inputs).__name__}; expected a threefactor.events.SpikeBatch "
                "(for images, use latency_code; for one sample of a batch, batch[i : i + 1])"
            )
        size, neurons = weights.shape
        if inputs.size != size:
            raise InputError(f"the input has {inputs.size} addresses; this layer expects {size}")
        decays = _prepare(inputs, weights, tau, duration)
        batch, dtype = len(inputs), weights.dtype
        counts, totals = np.empty((batch, neurons), dtype), np.empty(batch, np.int64)
        capped = np.empty(batch, np.int64)
        room = self._take_room(batch, 2 * neurons, dtype)
        while True:
            over(
                "integrate", batch, *inputs._raw, weights, theta, duration, cap, decays,
                counts, totals, capped, room,
            )  # fmt: skip
            most = int(totals.max(initial=0))
            if most <= room.shape[1]:
                break
            room = kernels().room(batch, most + most // 4, dtype)
        offsets = offsets_of(totals)
        total = int(offsets[-1])
        times, addresses = np.empty(total), np.empty(total, np.int32)
        parents, currents = np.empty(total, np.int32), np.empty(total, dtype)
        ys = np.empty_like(currents)
        over(
            "pack", batch, inputs._raw.offsets, inputs._raw.times, tau, offsets, room,
            times, addresses, parents, currents, ys,
        )  # fmt: skip
        self._spare.append(room)
        return Activity(
            self, theta, tau, inputs, SpikeBatch._trusted(offsets, times, addresses, neurons),
            int(capped.sum()), Arrays(decays, counts, parents, currents, ys), weight, weights,
            _version(weight),
        )  # fmt: skip

    def _take_room(self, batch: int, spikes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Take working memory that no call is using, or get some."""
        try:
            room = self._spare.pop()
        except IndexError:
            return kernels().room(batch, spikes, dtype)  # type: ignore[no-any-return]
        rows, columns = room.shape
        if rows >= batch and columns >= spikes and room.dtype["y"] == dtype:
            return room
        return kernels().room(batch, max(spikes, columns), dtype)  # type: ignore[no-any-return]


def _version(weight: Tensor) -> int | None:
    """Return how often a weight was changed in place; None where PyTorch does not count it."""
    return None if weight.is_inference() else weight._version


def _prepare(inputs: SpikeBatch, weights: Reals, tau: float, duration: float) -> Reals:
    """Return the decays between the input spikes.

    Raises:
        InputError: if a spike is not what it should be.
        DivergenceError: if a weight is NaN or infinite.
    """
    decays = np.empty(len(inputs._raw.times), weights.dtype)
    wrong = np.full(2, -1)
    over("prepare", len(inputs), *inputs._raw, weights, tau, duration, decays, wrong)
    if wrong[0] >= 0:
        raise InputError(
            f"the spikes of sample {wrong[0]} were changed after the SpikeBatch was made, so that "
            "times fall or addresses lie outside of it; make a new one"
        )
    if wrong[1] >= 0:
        raise DivergenceError(
            "the weights hold NaN or infinite values, or some beyond 1e16 (1e150 in float64) whose "
            "squares may overflow; lower the learning rate"
        )
    return decays


def array_of(name: str, tensor: Any, shape: tuple[int, ...]) -> Reals:
    """Return a tensor's memory as an array that the kernels can use.

    Raises:
        InputError: if it is not a tensor of that shape, dense, float32 or float64 and on the CPU.
    """
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} is a {type(tensor).__name__}; expected a tensor of shape {shape}")
    if tensor.device.type != "cpu":
        raise InputError(
            f"{name} is on {tensor.device}; event-driven networks run on the CPU: "
            "use network.to('cpu')"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} is {tensor.dtype}; expected float32 or float64")
    if tensor.layout is not torch.strided:
        raise InputError(f"{name} is {tensor.layout}; use .to_dense()")
    if tensor.shape != shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}")
    if not tensor.is_contiguous():
        raise InputError(f"{name} has the strides {tensor.stride()}; use .contiguous()")
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as problem:  # as of torch.func and other wrappers
        raise InputError(f"{name} cannot be read as an array: {problem}") from problem


def _range(given: Any) -> tuple[float, float]:
    wrong = InputError(f"weight_range is {given}; give the lowest and the highest weight")
    if not isinstance(given, Sequence) or len(given) != 2:
        raise wrong
    largest = float(torch.finfo(torch.float32).max)
    for value in given:
        real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not real or not abs(value) <= largest:
            raise wrong
    low, high = float(given[0]), float(given[1])
    if low > high or high - low > largest:
        raise wrong
    return low, high
