"""The whole contract of a learning rule for clocked networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threefactor.clocked import kernels
from threefactor.clocked.losses import CrossEntropyMSE, Loss, check_targets
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.noise import Perturbation
from threefactor.clocked.probe import Probe
from threefactor.clocked.session import Inputs, Result, Session, whole_steps
from threefactor.clocked.synapse import deliver
from threefactor.errors import InputError

__all__ = ["Rule", "TimeStep"]


@dataclass
class TimeStep:
    """What a rule may use to answer which error reaches each hidden layer.

    B samples, m outputs. Losses and errors are already divided by B and by the number of steps T,
    so that gradients summed over batch and steps are those of the mean loss.

    Attributes:
        output: (B, m) read-out of this step.
        losses: (B,) loss of each sample.
        error: (B, m) gradient of the loss by the output.
        layers: the hidden layers, first to last: activity, noise, trace, size.
        second_output: (B, m) read-out of the second forward pass, if the rule has one.
        second_losses: (B,) its losses.
        error_of: turns any read-out (B, m) into its error (B, m), by the loss and targets of the
            step and divided alike; for read-outs of the rule's own.
    """

    output: Tensor
    losses: Tensor
    error: Tensor
    layers: Sequence[Probe]
    second_output: Tensor | None = None
    second_losses: Tensor | None = None
    error_of: Callable[[Tensor], Tensor] | None = None


class Rule(nn.Module, ABC):
    """A learning rule: a way to obtain the error that reaches the activity of each hidden layer.

    Everything else is common to all rules: the forward pass, the presynaptic traces (OTTT), the
    local surrogate derivative, the read-out's gradient. A rule of one's own subclasses this and
    implements `layer_errors`; see the page on adding a rule.

    The network is no submodule: `rule.state_dict()` holds what the rule itself learns (feedback
    connections, if any), and `rule.parameters()` what the optimiser should also train.

    Args:
        network: module made of `clocked` synapse and neuron layers, its forward pass one step.
        loss: (output, targets) -> (losses, errors); `CrossEntropyMSE()` by default.
        trace_decay: decay of the presynaptic traces; by default the neurons' leak.
        perturbation: noise on the hidden layers, or None.
        input_shape: shape of one sample at one step; by default `network.input_shape`.

    Raises:
        InputError: if the network cannot be trained by a rule.
    """

    couples_layers = False
    """Whether the graph runs through the hidden layers within a step (spatial BP only)."""
    second_pass: float | None = None
    """Factor of the noise in a second forward pass per step; None for a single pass."""
    keeps_layer_traces = False
    """Whether `layers[i].trace`, the trace of each layer's own activity, is needed."""

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Loss | None = None,
        trace_decay: float | None = None,
        perturbation: Perturbation | None = None,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.loss = CrossEntropyMSE() if loss is None else loss
        self.perturbation = perturbation
        self.network: nn.Module
        # Registered modules would enter state_dict and parameters.
        object.__setattr__(self, "network", network)
        decay = Session(network, trace_decay=trace_decay).trace_decay

        def make_probe(name: str, neuron: Neuron) -> Probe:
            return Probe(
                name,
                neuron,
                perturbation=perturbation,
                couple=self.couples_layers,
                trace_decay=decay if self.keeps_layer_traces else None,
            )

        kernels.keep_freed_memory()
        self._session = Session(network, trace_decay=decay, make_probe=make_probe)
        self.layer_shapes, self.outputs = self._measure(network, input_shape)
        self.layer_sizes = {name: shape.numel() for name, shape in self.layer_shapes.items()}

    @abstractmethod
    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        """Return g_l[t], (B, n_l), the error that reaches the activity of each hidden layer."""

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, 0 to 1; moves the scale of the noise."""
        if not 0.0 <= progress <= 1.0:
            raise InputError(f"progress is {progress}; give a share between 0 and 1")
        if self.perturbation is not None:
            self.perturbation.set_progress(progress)

    def reset(self) -> None:
        """Forget the state of the stream: neurons, traces, noise. What was learned stays."""
        self._session.reset()

    def step(
        self,
        inputs: Inputs,
        targets: Tensor,
        *,
        steps: int | None = None,
        after_step: Callable[[], object] | None = None,
    ) -> Result:
        """Run T time steps from rest and add the gradients to `.grad`, as `backward` would.

        Args:
            inputs: constant current (B, ...) together with `steps`; sequence (T, B, ...); or an
                iterable of T tensors (B, ...), read one by one.
            targets: (B,) class labels as int64, or what the loss expects.
            steps: T, for a constant input or an iterable without length.
            after_step: called after every time step, when `.grad` is up to date; give it an
                optimiser step to learn at every time step (OTTT_O).

        Returns:
            Result with loss, output summed over time, and firing rates.

        Raises:
            InputError: if inputs or targets do not fit the network; `.grad` is then untouched
                unless a later element of a sequence was at fault.
        """
        session = self._session
        self.reset()
        try:
            count, sequence = session.time_steps(inputs, steps)
            total: Tensor | None = None
            loss: Tensor | None = None
            with session.attached():
                for x_t in sequence:
                    if total is None:
                        check_targets(self.loss, targets, len(x_t), self.outputs)
                    record = self._advance(x_t, targets, count)
                    fresh = record.losses.sum()
                    loss = fresh if loss is None else loss.add_(fresh)
                    total = record.output.clone() if total is None else total.add_(record.output)
                    if after_step is not None:
                        session.flush()
                        after_step()
            session.flush()
            assert total is not None
            return Result(total, session.firing_rates(), count, loss)
        finally:
            self.reset()

    def observe(self, x_t: Tensor, targets: Tensor, *, steps: int = 1) -> Result:
        """Learn from one time step of an endless stream; the state is kept until `reset`.

        T calls with `steps=T` add the same gradients as one call of `step`.

        Args:
            x_t: (B, ...) input of this step.
            targets: (B,) class labels as int64, or what the loss expects.
            steps: number that the loss is divided by.

        Returns:
            Result with the loss and output of this step, and firing rates since the reset.

        Raises:
            InputError: if inputs or targets do not fit the network or the stream.
        """
        steps = whole_steps(steps)
        self._session.check_input(x_t)
        check_targets(self.loss, targets, len(x_t), self.outputs)
        with self._session.attached():
            record = self._advance(x_t, targets, steps)
        self._session.flush()
        return Result(record.output, self._session.firing_rates(), 1, record.losses.sum())

    def _advance(self, x_t: Tensor, targets: Tensor, steps: int) -> TimeStep:
        """Run and learn one time step of the attached network."""
        session = self._session
        with torch.enable_grad():
            output = session.forward(x_t)
        share = 1.0 / (len(x_t) * steps)
        # A copy, since the read-out's buffer is overwritten by the next pass.
        values = output.detach().clone()
        losses, error = self.loss(values, targets)
        record = TimeStep(values, losses * share, error * share, session.probes)
        record.error_of = lambda readout: self.loss(readout, targets)[1] * share
        if self.second_pass is not None:
            record.second_output = self._run_second_pass(x_t, self.second_pass)
            record.second_losses = self.loss(record.second_output, targets)[0] * share
        heads, errors = [output], [record.error]
        if not self.couples_layers:
            with torch.no_grad():
                given = self.layer_errors(record)
                self._check_count(given)
                for probe, g in zip(session.probes, given, strict=True):
                    assert probe.current is not None
                    heads.append(probe.current)
                    errors.append(probe.delta(g))
        pairs = [(h, e) for h, e in zip(heads, errors, strict=True) if h.requires_grad]
        if pairs:
            deliver([h for h, _ in pairs], [e for _, e in pairs])
        for probe in session.probes:
            probe.current = None  # releases the graph of this step
        return record

    def _check_count(self, given: Sequence[Tensor]) -> None:
        if len(given) != len(self._session.probes):
            raise InputError(
                f"{type(self).__name__}.layer_errors gave {len(given)} errors; "
                f"expected one for each of the {len(self._session.probes)} hidden layers"
            )

    def _run_second_pass(self, x_t: Tensor, noise_factor: float) -> Tensor:
        """Run the step again on a state of its own, with the same noise times a factor."""
        session = self._session

        def switch(main: bool) -> None:
            for probe in session.probes:
                probe.swap_state()
                probe.noise_factor, probe.main_pass = noise_factor, main
            for pathway in session.pathways:
                pathway.learning = main

        switch(main=False)
        try:
            with torch.no_grad():
                return session.forward(x_t)
        finally:
            switch(main=True)

    def _measure(
        self, network: nn.Module, input_shape: Sequence[int] | None
    ) -> tuple[dict[str, torch.Size], int]:
        """Find the shape of each hidden layer and the number of outputs by running one zero."""
        shape = getattr(network, "input_shape", None) if input_shape is None else input_shape
        if shape is None:
            raise InputError(
                "the network has no attribute input_shape; give input_shape=, "
                "the shape of one sample at one time step"
            )
        self._session.sample_shape = torch.Size(shape)
        weight = next(network.parameters())
        session = Session(network, trace_decay=0.0, learning=False)
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            session.reset()
            with torch.no_grad(), session.attached():
                output = session.forward(weight.new_zeros((1, *shape)))
            shapes: dict[str, torch.Size] = {}
            for probe in session.probes:
                if probe.activity is not None:
                    shapes[probe.name] = probe.activity.shape[1:]
            unused = [probe.name for probe in session.probes if probe.name not in shapes]
            if unused:
                raise InputError(f"the network's forward pass leaves out its layers {unused}")
        except RuntimeError as problem:
            raise InputError(
                f"the network does not run on one sample of shape {tuple(shape)}: {problem}"
            ) from problem
        finally:
            session.reset()
            for module, mode in modes:
                module.training = mode
        return shapes, output.shape[1]
