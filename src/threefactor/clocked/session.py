"""A network with its pathways and probes in place: one pass over time, with or without learning."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threefactor.clocked.losses import CrossEntropyMSE, Loss, check_targets
from threefactor.clocked.neuron import Neuron, reset_state
from threefactor.clocked.noise import Perturbation
from threefactor.clocked.probe import Probe
from threefactor.clocked.synapse import Pathway, Synapse
from threefactor.errors import InputError

__all__ = ["Inputs", "Result", "Session", "run"]

Inputs = Tensor | Iterable[Tensor]
"""A constant current (B, ...), a sequence (T, B, ...), or an iterable of T tensors (B, ...)."""

_UNTRACED = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase)


@dataclass
class Result:
    """What came of running a network over time.

    Attributes:
        output: (B, m) read-out summed over the time steps; its argmax is the predicted class.
        firing_rates: spikes per neuron and time step of each hidden layer, by its name; counted
            before dropout silences neurons.
        steps: number of time steps T.
        loss: mean over batch and steps of the instantaneous loss; None without targets.
    """

    output: Tensor
    firing_rates: dict[str, Tensor]
    steps: int
    loss: Tensor | None = None


class Session:
    """Holds the pathway of every synapse layer and the probe of every hidden layer.

    Args:
        network: any module made of `Synapse` and `Neuron` layers.
        trace_decay: lambda of the presynaptic traces; by default the neurons' common leak.
        learning: whether to keep traces and graphs.
        make_probe: builds the probe of a named hidden layer.

    Raises:
        InputError: if the network has a layer that cannot be traced, or the leaks differ.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        trace_decay: float | None = None,
        learning: bool = True,
        make_probe: Callable[[str, Neuron], Probe] = Probe,
    ) -> None:
        _check_layers(network)
        self.network = network
        decay = _common_leak(network) if trace_decay is None else trace_decay
        if not 0.0 <= decay <= 1.0:
            raise InputError(f"trace_decay is {decay}; give a number between 0 and 1")
        self.trace_decay = decay
        self.pathways = [
            Pathway(module, decay, learning)
            for module in network.modules()
            if isinstance(module, Synapse)
        ]
        self.probes = [
            make_probe(name, module)
            for name, module in network.named_modules()
            if isinstance(module, Neuron)
        ]
        self._parts: list[Pathway | Probe] = [*self.pathways, *self.probes]
        self.batch: int | None = None
        self.sample_shape: torch.Size | None = None

    def reset(self) -> None:
        """Forget neuron states, traces, noise and statistics."""
        reset_state(self.network)
        for part in self._parts:
            part.reset()
        self.set_constant_input(None)
        self.batch = None

    def set_constant_input(self, inputs: Tensor | None) -> None:
        """Tell the pathways which tensor stays the same at every step."""
        for pathway in self.pathways:
            pathway.constant_input = inputs

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the pathways and probes into the network, and take them out whatever happens."""
        try:
            for pathway in self.pathways:
                pathway.synapse.pathway = pathway
            for probe in self.probes:
                probe.neuron.probe = probe
            yield
        finally:
            for pathway in self.pathways:
                pathway.synapse.pathway = None
                pathway.synapse.forget()
            for probe in self.probes:
                probe.neuron.probe = None

    def forward(self, x_t: Tensor) -> Tensor:
        """Run one time step of the attached network."""
        if self.batch is None:
            self.batch = len(x_t)
        elif len(x_t) != self.batch:
            raise InputError(
                f"{len(x_t)} samples follow a stream of {self.batch}; "
                "call reset() before a batch of another size"
            )
        for part in self._parts:
            part.used = False
        output = self.network(x_t)
        if not isinstance(output, Tensor) or output.dim() != 2:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"the network returned {given}; expected a (batch, outputs) tensor")
        return output

    def flush(self) -> None:
        """Put gradients that were gathered over the steps into `.grad`."""
        for pathway in self.pathways:
            pathway.flush()

    def firing_rates(self) -> dict[str, Tensor]:
        """Spikes per neuron and step since the reset, by layer."""
        return {probe.name: probe.firing_rate for probe in self.probes}

    def time_steps(self, inputs: Inputs, steps: int | None) -> tuple[int, Iterator[Tensor]]:
        """Return T and the checked input of each step.

        Raises:
            InputError: if shape, dtype, T or a value has no meaning.
        """
        if steps is not None:
            steps = whole_steps(steps)
        if isinstance(inputs, Tensor) and inputs.dim() == 0:
            self.check_input(inputs)
        if isinstance(inputs, Tensor) and steps is not None:
            self.check_input(inputs)
            inputs = inputs.contiguous()
            self.set_constant_input(inputs)
            return steps, (inputs for _ in range(steps))
        if steps is None:
            if not isinstance(inputs, Sized):
                raise InputError(f"a {type(inputs).__name__} has no length; give steps=T")
            steps = len(inputs)
            if steps < 1:
                raise InputError("the sequence has no time step; its first dimension is time")
        return steps, self._read(inputs, steps)

    def _read(self, inputs: Inputs, steps: int) -> Iterator[Tensor]:
        count = 0
        for x_t in inputs:
            self.check_input(x_t)
            count += 1
            yield x_t
            if count == steps:
                return
        raise InputError(f"the sequence ended after {count} time steps; expected {steps}")

    def check_input(self, x_t: Tensor) -> None:
        """Refuse one time step of input that has no meaning."""
        weight = next(self.network.parameters())
        if not isinstance(x_t, Tensor):
            raise InputError(
                f"one time step of input is a {type(x_t).__name__}; expected a torch.Tensor "
                "(batch, ...), use torch.as_tensor(inputs)"
            )
        if x_t.dim() < 2 or x_t.numel() == 0:
            raise InputError(
                f"one time step of input has shape {tuple(x_t.shape)}; expected (batch, ...) with "
                "at least one sample and one value. A constant input needs steps=T, "
                "a sequence (T, batch, ...) goes without"
            )
        if self.sample_shape is not None and x_t[0].numel() != self.sample_shape.numel():
            raise InputError(
                f"one time step of input has shape {tuple(x_t.shape)}; expected (batch, "
                f"{', '.join(map(str, self.sample_shape))}), or as many values per sample. "
                "A constant input needs steps=T, a sequence (T, batch, ...) goes without"
            )
        if x_t.dtype != weight.dtype:
            raise InputError(
                f"inputs are {x_t.dtype} and the network is {weight.dtype}; "
                f"use inputs.to({weight.dtype}) or network.to({x_t.dtype})"
            )
        if x_t.device != weight.device:
            raise InputError(
                f"inputs are on {x_t.device} and the network is on {weight.device}; "
                "move one of them with .to(device)"
            )
        # The sum is quick, and finite unless a value is not (or the sum itself overflows).
        if not torch.isfinite(x_t.sum()) and not torch.isfinite(x_t).all():
            bad = int((~torch.isfinite(x_t)).sum())
            raise InputError(f"inputs hold {bad} NaN or infinite values; clean the data first")


def run(
    network: nn.Module,
    inputs: Inputs,
    *,
    steps: int | None = None,
    targets: Tensor | None = None,
    loss: Loss | None = None,
    perturbation: Perturbation | None = None,
) -> Result:
    """Run a network over time without learning, from a state of rest.

    Call `network.eval()` first to switch dropout off. A constant input's product with the first
    weights is made once.

    Args:
        network: module made of this package's synapse and neuron layers.
        inputs: constant current (B, ...) together with `steps`; sequence (T, B, ...); or iterable.
        steps: T, for a constant input or an iterable without length.
        targets: (B,) what the loss expects; with them, the result has a loss.
        loss: as given to a rule; `CrossEntropyMSE()` by default.
        perturbation: noise on the hidden layers, as on imprecise hardware; None for none.

    Raises:
        InputError: if the input does not fit the network.

    Example:
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> clocked.run(net, torch.rand(2, 4), steps=6).output.shape
        torch.Size([2, 3])
    """

    def make_probe(name: str, neuron: Neuron) -> Probe:
        return Probe(name, neuron, perturbation=perturbation)

    session = Session(network, trace_decay=0.0, learning=False, make_probe=make_probe)
    session.reset()
    count, sequence = session.time_steps(inputs, steps)
    loss = CrossEntropyMSE() if loss is None else loss
    output: Tensor | None = None
    losses: list[Tensor] = []
    try:
        with torch.no_grad(), session.attached():
            for x_t in sequence:
                o_t = session.forward(x_t)
                output = o_t.clone() if output is None else output.add_(o_t)
                if targets is not None:
                    if not losses:
                        check_targets(loss, targets, *o_t.shape)
                    losses.append(loss(o_t, targets)[0].mean() / count)
        assert output is not None
        total = torch.stack(losses).sum() if losses else None
        return Result(output, session.firing_rates(), count, total)
    finally:
        session.reset()


def whole_steps(steps: int) -> int:
    """Return a number of time steps as an int, or refuse it."""
    whole = isinstance(steps, (int, float, numbers.Integral)) and not isinstance(steps, bool)
    if not whole or not math.isfinite(steps) or int(steps) != steps or steps < 1:
        raise InputError(f"steps is {steps}; give a whole number of time steps of at least 1")
    return int(steps)


def _check_layers(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, _UNTRACED) and not isinstance(module, Synapse):
            raise InputError(
                f"layer {name!r} is a {type(module).__module__}.{type(module).__name__}, which "
                "keeps no presynaptic trace; use threefactor.clocked.Linear for torch.nn.Linear "
                "and threefactor.clocked.Conv2d for torch.nn.Conv2d"
            )
    if next(network.parameters(), None) is None:
        raise InputError("the network has no parameters")


def _common_leak(network: nn.Module) -> float:
    leaks = {m.leak for m in network.modules() if isinstance(getattr(m, "leak", None), float)}
    if len(leaks) > 1:
        raise InputError(
            f"the neurons have different leaks, {sorted(leaks)}; "  # type: ignore[type-var]
            "give trace_decay=, the decay of the presynaptic traces"
        )
    return leaks.pop() if leaks else 0.0  # type: ignore[return-value]
