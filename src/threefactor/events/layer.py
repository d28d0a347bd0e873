"""One layer of LIF neurons with closed-form spike times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefactor.errors import InputError
from threefactor.events.arrays import offsets_of, whole
from threefactor.events.parallel import kernels, over
from threefactor.events.spikes import SpikeBatch

__all__ = ["Activity", "Layer"]

Reals = NDArray[Any]
SMALLEST = 1e-15  # theta


@dataclass(frozen=True, eq=False)
class Activity:
    """What one layer did in one batch.

    Attributes:
        inputs: the spikes that reached the layer.
        decays: (input spikes,) exp(-dt / tau), dt the time to the sample's next input spike or
            the end of the simulation.
        spikes: the spikes of the layer's neurons.
        counts: (B, neurons) spike counts, in the precision of the weights.
        parents: (spikes,) the number, within its sample, of the last input spike before each.
        currents: (spikes,) synaptic current I_k at each spike.
        ys: (spikes,) exp(-(t_k - t_z) / tau), t_z the time of the spike's parent.
        capped: how many neurons, summed over the samples, reached the threshold once more after
            their last permitted spike.
    """

    inputs: SpikeBatch
    decays: Reals
    spikes: SpikeBatch
    counts: Reals
    parents: NDArray[np.int32]
    currents: Reals
    ys: Reals
    capped: int


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
            `torch.nn.Linear.weight`); starts uniform in `weight_range`.

    Raises:
        InputError: if a size, time, threshold or cap has no meaning.
        ConfigurationError: if Numba is not installed.

    Source: Bacho & Chu (SFDFA), equations 1 to 4; see `dynamics` for the closed form.
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
    ) -> None:
        super().__init__()
        kernels()
        self.in_features = whole("in_features", in_features)
        self.neurons = whole("neurons", neurons)
        self.tau_s = _positive("tau_s", tau_s, "seconds")
        self.threshold = _positive("threshold", threshold, "a potential times seconds")
        if not SMALLEST <= self.theta <= 1.0 / SMALLEST:
            raise InputError(
                f"threshold is {threshold} at tau_s={tau_s}, so theta is {self.theta}; scale "
                f"weights and threshold, so that theta lies between {SMALLEST} and "
                f"{1.0 / SMALLEST} and single precision holds its square"
            )
        self.duration = _positive("duration", duration, "seconds")
        self.max_spikes = whole("max_spikes", max_spikes)
        low, high = _range(weight_range)
        self.weight = nn.Parameter(torch.empty(in_features, neurons).uniform_(low, high))
        self._raw: tuple[Reals, ...] = ()

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
        return {**self.__dict__, "_raw": ()}  # copies need no working memory

    def forward(self, inputs: SpikeBatch) -> SpikeBatch:
        """Return the spikes of the layer's neurons."""
        return self.run(inputs).spikes

    def run(self, inputs: SpikeBatch) -> Activity:
        """Return the spikes of the layer's neurons with what learning needs of them.

        Raises:
            InputError: if the inputs are no SpikeBatch of `in_features` addresses, or the weights
                are not float32 or float64 on the CPU.
        """
        weight = self.weight_array()
        if not isinstance(inputs, SpikeBatch):
            raise InputError(
                f"the input is a {type(inputs).__name__}; expected a threefactor.events.SpikeBatch "
                "(for images, use latency_code)"
            )
        if inputs.size != self.in_features:
            raise InputError(
                f"the input has {inputs.size} addresses; this layer expects {self.in_features}"
            )
        decays = np.empty(len(inputs.times), weight.dtype)
        counts = np.empty((len(inputs), self.neurons), weight.dtype)
        totals, capped = self._integrate(inputs, weight, decays, counts)
        offsets = offsets_of(totals)
        total = int(offsets[-1])
        times, neurons = np.empty(total), np.empty(total, np.int32)
        parents, currents = np.empty(total, np.int32), np.empty(total, weight.dtype)
        ys = np.empty_like(currents)
        over("pack", len(inputs), offsets, *self._raw, times, neurons, parents, currents, ys)
        spikes = SpikeBatch._trusted(offsets, times, neurons, self.neurons)
        return Activity(inputs, decays, spikes, counts, parents, currents, ys, capped)

    def weight_array(self) -> Reals:
        """The weights as the array that the kernels read, sharing memory."""
        return _array("weight", self.weight)

    def grad_array(self) -> tuple[Reals, bool]:
        """`weight.grad` as the array that the kernels write, and whether it holds nothing yet.

        It is made if there is none, and then has no values.
        """
        grad = self.weight.grad
        if grad is not None:
            return _array("weight.grad", grad), False
        grad = self.weight.grad = torch.empty_like(self.weight, requires_grad=False)
        return _array("weight.grad", grad), True

    def _integrate(
        self, inputs: SpikeBatch, weight: Reals, decays: Reals, counts: Reals
    ) -> tuple[NDArray[np.int64], int]:
        """Fill the working memory; enlarge it until the spikes of every sample have room.

        Returns:
            How many spikes each sample has, and how many neurons reached their last.
        """
        batch = len(inputs)
        room = self._raw[0].shape[1] if self._raw else 2 * self.neurons
        while True:
            self._make_room(batch, room, weight.dtype)
            totals, capped = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
            finite = np.empty(batch, np.bool_)
            over(
                "integrate", batch, inputs.offsets, inputs.times, inputs.addresses, weight,
                weight.dtype.type(self.theta), self.tau, self.duration, self.max_spikes,
                decays, counts, totals, capped, finite, *self._raw,
            )  # fmt: skip
            if not finite.all():
                raise InputError("the weights hold NaN or infinite values; lower the learning rate")
            most = int(totals.max(initial=0))
            if most <= room:
                return totals, int(capped.sum())
            room = most + most // 4

    def _make_room(self, batch: int, room: int, dtype: np.dtype[Any]) -> None:
        """Get working memory for so many samples and spikes of each, unless it is there."""
        if self._raw:
            rows, columns = self._raw[0].shape
            if rows >= batch and columns >= room and self._raw[3].dtype == dtype:
                return
        shape = (batch, room)
        kinds = (np.float64, np.int32, np.int32, dtype, dtype, np.int32)
        self._raw = tuple(np.empty(shape, kind) for kind in kinds)


def _array(name: str, tensor: Tensor) -> Reals:
    if tensor.device.type != "cpu":
        raise InputError(
            f"{name} is on {tensor.device}; event-driven networks run on the CPU: "
            "use network.to('cpu')"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} is {tensor.dtype}; expected float32 or float64")
    if not tensor.is_contiguous():
        raise InputError(f"{name} has the strides {tensor.stride()}; use .contiguous()")
    return tensor.detach().numpy()


def _positive(name: str, value: Any, unit: str) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value!r}; give {unit}, above 0 and finite")
    return float(value)


def _range(given: Any) -> tuple[float, float]:
    pair = isinstance(given, Sequence) and len(given) == 2
    if not pair or not (math.isfinite(given[0]) and math.isfinite(given[1])) or given[0] > given[1]:
        raise InputError(f"weight_range is {given}; give the lowest and the highest weight")
    return float(given[0]), float(given[1])
