"""A network with its pathways and probes in place: one pass over time, with or without learning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode

from threefactor.clocked import graph, verdicts
from threefactor.clocked.checks import (
    check_layers,
    refuse_chain,
    refuse_not_finite,
)
from threefactor.clocked.decays import (
    Decay,
    TraceDecay,
    Wiring,
    activity_decay,
    checked_decay,
    decays,
)
from threefactor.clocked.eligibility import PerNeuronPathway
from threefactor.clocked.foreign import layers_of, refuse_compiled, single_step
from threefactor.clocked.inputs import (
    InputReader,
    Inputs,
    InputShape,
    Shapes,
    StepInput,
    batch_size,
    call,
    shapes_of,
    tensors_of,
)
from threefactor.clocked.kept_state import KeptState, kept_states
from threefactor.clocked.losses import CrossEntropyMSE, Loss, check_targets, loss_of
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.noise import Perturbation, check_perturbation
from threefactor.clocked.pathway import Pathway, refuse_autocast
from threefactor.clocked.probe import Probe
from threefactor.clocked.synapse import Linear, Synapse
from threefactor.clocked.torch_losses import checked_loss
from threefactor.clocked.turns import Alone, Turn, uncompiled
from threefactor.errors import InputError, unknown_name
from threefactor.processes import Share

__all__ = ["Result", "Session", "run"]

IN_THE_MIDDLE = (
    "a rule is called in the middle of its own step; finish the step first, or build another rule "
    "on the network"
)


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

    Several sessions may take turns on one network: each puts its own pathways, probes and neuron
    states in place for the time of a call, and puts back what it found. Threads wait for each
    other. Between the calls of a stream, the neurons show the state of the session that ran last
    on a network at rest.

    Args:
        network: any module made of synapse and neuron layers, see `Rule`.
        trace_decay: decay of the presynaptic traces, one number or numbers by the name of a layer;
            by default the leak of the neurons behind, as `wiring` has it.
        wiring: which neurons each synapse layer meets.
        untraced: names of synapse layers whose trace is the input itself.
        learning: whether to keep traces and graphs.
        chain: "none" if no error may pass through another layer's weights, "within-layers" if it
            may.
        make_probe: builds the probe of a named hidden layer.

    Raises:
        InputError: if the network has a layer that cannot be traced, or whose trace has no decay.
        ConfigurationError: if a named layer is no layer of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        trace_decay: TraceDecay = None,
        wiring: Wiring | None = None,
        untraced: Sequence[str] = (),
        learning: bool = True,
        chain: str = "within-layers",
        make_probe: Callable[[str, Neuron], Probe] = Probe,
    ) -> None:
        check_layers(network)
        self.network = network
        self._modules = modules_of(network)
        self.layers = layers_of(network)
        self._alone = Alone(layer for _, layer in self.layers)
        self.neurons = [(name, m) for name, m in self.layers if isinstance(m, Neuron)]
        self.given_decay = checked_decay(trace_decay, [name for name, _ in self.layers])
        self._wiring = Wiring() if wiring is None else wiring
        self.turn = Turn()
        self.ignored: set[int] = set()
        """Identities of parameters that do not count as trainable while a network is tried."""
        refuse = partial(refuse_chain, network, self.ignored) if chain == "none" else None
        self.chain = chain
        synapses = [(name, layer) for name, layer in self.layers if isinstance(layer, Synapse)]
        names = [name for name, _ in synapses]
        self.untraced = _checked_names(untraced, names)
        self.decays = decays(self.given_decay, names, self.neurons, self._wiring)
        self._foreign = any(neuron.foreign for _, neuron in self.neurons)
        self._multi: list[nn.Module] = []
        """Layers of SpikingJelly that are in step mode 'm' outside of this session."""
        one_by_one = {
            name
            for name, decay in self.decays.items()
            if decay.each == "weight" and name not in self.untraced
        }
        self.pathways = [
            (PerNeuronPathway if name in one_by_one else Pathway)(
                layer,
                0.0,  # _set_decays has the decay
                learning,
                name=name,
                check_chain=refuse,
                turn=self.turn,
            )
            for name, layer in synapses
        ]
        self.probes = [make_probe(name, neuron) for name, neuron in self.neurons]
        for probe in self.probes:
            probe.turn = self.turn
        self.share: Share | None = None
        self._set_decays()
        self.kept = kept_states(network)
        self._parts: list[Pathway | Probe] = [*self.pathways, *self.probes]
        self._returned: list[tuple[nn.Module, str, object, object]] = []
        """What the network kept of returned states in the last call of a stream: module,
        attribute, what was put back there, and what it was."""
        self.batch: int | None = None
        self.sample_shape: Shapes | None = None
        self.busy = False
        self.broken = False
        self.unchecked = True
        self._drew_nothing: set[tuple[bool, ...]] = set()
        """Modes of the modules, training or not, in which a second pass draws no numbers."""
        self._began_with: tuple[torch.dtype, torch.device] | None = None
        self._dropouts = [
            (name, m) for name, m in network.named_modules() if isinstance(m, _DropoutNd)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """A copy made in the middle of a step has to be reset before it goes on."""
        return {**self.__dict__, "busy": False, "broken": self.broken or self.busy}

    def reset(self) -> None:
        """Forget neuron states, traces, noise and statistics."""
        with self.alone():
            if self.busy:
                raise InputError(IN_THE_MIDDLE)
            for probe in self.probes:
                probe.take_off()
            for part in (*self._parts, *self.kept):
                part.reset()
            self.set_constant_inputs(())
            self.take_share(None)
            self._returned = []
            self.batch = None
            self.broken = False
            self.unchecked = True
            self._began_with = None

    def alone(self) -> Alone:
        """Keep other threads from working on the network."""
        return self._alone

    def take_share(self, share: Share | None) -> None:
        """Note which rows of a batch this stream has, if several processes share batches."""
        self.share = share
        for probe in self.probes:
            probe.share = share

    def set_constant_inputs(self, inputs: tuple[Tensor, ...]) -> None:
        """Tell the pathways which tensors stay the same at every step."""
        for pathway in self.pathways:
            pathway.constant_inputs = inputs

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the pathways and probes into the network, and take them out whatever happens.

        Raises:
            InputError: if the network changed since the session was made, or this session is
                at work already.
        """
        with self.alone():
            if self.busy:
                raise InputError(IN_THE_MIDDLE)
            self._follow_network()
            before = [(pathway.synapse, pathway.synapse.pathway) for pathway in self.pathways]
            placed: list[Probe] = []
            shown: list[KeptState] = []
            self.busy = True
            try:
                for pathway in self.pathways:
                    pathway.synapse.put(pathway)
                for probe in self.probes:
                    placed.append(probe)
                    probe.put_in_place()
                others_work = any(pathway is not None for _, pathway in before)
                for state in self.kept:
                    shown.append(state)
                    state.put_in_place(others_work=others_work)
                kept = self._attributes_kept() if self._foreign else nullcontext()
                with single_step(self._modules) as self._multi, kept:
                    yield
            finally:
                self.busy = False
                for synapse, pathway_before in before:
                    synapse.put(pathway_before)
                for pathway in self.pathways:
                    pathway.forget()
                for probe in placed:
                    probe.put_back()
                for state in shown:
                    state.put_back()

    def _follow_network(self) -> None:
        """Take up what may change in a network between two calls, and refuse the rest."""
        modules = modules_of(self.network)
        if modules != self._modules:
            self._refuse_other_layers()
            check_layers(self.network)
            self._modules, self.unchecked = modules, True
            self._drew_nothing.clear()
            known = {state.module: state for state in self.kept}
            self.kept = [known.get(s.module, s) for s in kept_states(self.network)]
            self._dropouts = [
                (n, m) for n, m in self.network.named_modules() if isinstance(m, _DropoutNd)
            ]
        for module in modules:
            own = module.__dict__
            if "_compiled_call_impl" in own or "forward" in own:
                refuse_compiled(
                    next(n for n, m in self.network.named_modules() if m is module), module
                )
        for name, neuron in self.neurons:
            neuron.check(name)
        tensors = self.parameters()
        if any(p.dtype != tensors[0].dtype or p.device != tensors[0].device for p in tensors):
            check_layers(self.network)  # names the one
        self._set_decays()

    def parameters(self) -> list[Tensor]:
        """The network's parameters, each once."""
        found = (p for module in self._modules for p in module._parameters.values())
        return list({id(p): p for p in found if p is not None}.values())

    @property
    def first_parameter(self) -> Tensor:
        """One parameter, which has the network's dtype and device."""
        # Found by the modules that `attached` has looked through: a walk takes its time.
        # Plain loops: a stream asks for it several times in a step.
        for module in self._modules:
            for parameter in module._parameters.values():
                if parameter is not None:
                    return parameter
        raise InputError("the network has no parameters; a rule has nothing to teach in it")

    @contextmanager
    def buffers_kept(self, *, always: bool = False) -> Iterator[None]:
        """Put the network's buffers back, objects and values, after an error or `always`.

        Neurons that keep their state in buffers have it put back by their probes.
        """
        neurons = {getattr(neuron, "module", neuron) for _, neuron in self.neurons}
        kept = [
            (module, name, buffer, buffer.clone())
            for module in self._modules
            if module not in neurons
            for name, buffer in module._buffers.items()
            if buffer is not None and not buffer.is_inference()
        ]
        failed = True
        try:
            yield
            failed = False
        finally:
            if failed or always:
                with torch.no_grad():
                    for module, name, buffer, value in kept:
                        # Norms write without a trace in the version, and so is it put back: the
                        # graph of the step has these tensors and does not need their values.
                        if not buffer.is_cpu or not torch.equal(buffer, value):
                            buffer.data.copy_(value)
                        module._buffers[name] = buffer

    def _refuse_other_layers(self) -> None:
        found = layers_of(self.network)
        if found != self.layers:
            names = sorted(
                {name or "(the network itself)" for name, _ in set(found) ^ set(self.layers)}
            )
            raise InputError(
                f"the layers {names} were replaced, added or removed since the rule was built on "
                "the network; build the rule again (rule.state_dict() keeps what it learned of "
                "layers that did not change)"
            )

    def _set_decays(self) -> None:
        """Let every trace decay as the neurons have it now."""
        names = [pathway.name for pathway in self.pathways]
        self.decays = decays(self.given_decay, names, self.neurons, self._wiring)
        for pathway in self.pathways:
            traced = pathway.name not in self.untraced
            decay = self.decays[pathway.name] if traced else Decay(0.0)
            if decay.each == "weight" and not isinstance(pathway, PerNeuronPathway):
                raise InputError(
                    f"the neurons behind layer {pathway.name!r} did not differ in their leaks when "
                    "the rule was built, and do now; build the rule again"
                )
            pathway.decay, pathway.synaptic_decay, _ = decay
        for probe in self.probes:
            if probe.keeps_trace:
                probe.decay = activity_decay(self.given_decay, probe.name, self.neurons)

    @contextmanager
    def _attributes_kept(self) -> Iterator[None]:
        """Put back what a network keeps of states that the neurons of other libraries return.

        In the next call of a stream the network has them again, unless its user set others.
        """
        layers = {getattr(layer, "module", layer) for _, layer in self.layers}
        layers.update(state.module for state in self.kept)
        holders = [m for m in self._modules if m not in layers]
        before = [(m, {k: v for k, v in vars(m).items() if _is_state(v)}) for m in holders]
        for module, name, put_back, mine in self._returned:
            if vars(module).get(name, _ABSENT) is put_back:
                vars(module)[name] = mine
        self._returned = []
        try:
            yield
        finally:
            for module, kept in before:
                now = {k: v for k, v in vars(module).items() if _is_state(v)}
                for name, value in now.items():
                    if value is not kept.get(name, _ABSENT) and _is_detached(value):
                        self._returned.append((module, name, kept.get(name, _ABSENT), value))
                for name in now.keys() - kept.keys():
                    if now[name] is not None:
                        del module.__dict__[name]
                module.__dict__.update(kept)

    def check_state(self) -> None:
        """Refuse to continue a stream that was reset or run from outside, or that failed."""
        if self.broken:
            raise InputError(
                "the last time step of this stream failed half-way; call rule.reset() and begin "
                "the stream again"
            )
        weight = self.first_parameter
        if self._began_with is not None and self._began_with != (weight.dtype, weight.device):
            raise InputError(
                f"the network was moved from {self._began_with} to {weight.dtype} on "
                f"{weight.device} in the middle of a stream; call rule.reset() to begin a new one"
            )
        for probe in self.probes:
            if probe.disturbed:
                raise InputError(
                    f"hidden layer {probe.name!r} was reset or run from outside in the middle of "
                    "a stream; call rule.reset() to begin a new stream, and use clocked.run to "
                    "evaluate in mid-stream, which leaves the stream alone"
                )

    def check_batch(self, x_t: StepInput) -> None:
        """Refuse a batch of another size than the one of the step before."""
        samples = batch_size(x_t)
        if self.batch is not None and samples != self.batch:
            raise InputError(
                f"{samples} samples follow a stream of {self.batch}; "
                "call reset() before a batch of another size"
            )

    def forward(self, x_t: StepInput) -> Tensor:
        """Run one time step of the attached network."""
        self.check_batch(x_t)
        given = tensors_of(x_t)
        self.batch, self._began_with = len(given[0]), (given[0].dtype, given[0].device)
        for part in self._parts:
            part.used = False
        versions = [(x, x._version) for x in given if not x.is_inference()]
        share = self.share
        self.turn.thread = threading.get_ident()
        try:
            with nullcontext() if share is None else share.only_whole_draws(given[0].device):
                output = call(self.network, x_t)
        finally:
            self.turn.thread = None
        if any(x._version != version for x, version in versions):
            raise InputError(
                "the network changes its input in place, and with it the caller's data; let its "
                "forward work on a new tensor, as in x = x * 2 instead of x *= 2"
            )
        output = self._without_states(output)
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != self.batch:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"the network returned {found}; expected a (batch, outputs) tensor")
        for pathway in self.pathways:
            pathway.check_use()
        if self._foreign:
            self._refuse_time_inside()
        return output

    def check_precision(self, output: Tensor) -> None:
        """Refuse a time step whose numbers are not all of the network's precision.

        Raises:
            InputError: naming the layer, or the output.
        """
        dtype = self.first_parameter.dtype
        found = output.dtype
        what = "returns an output in"
        for probe in self.probes:
            if probe.used and probe.current is not None and probe.current.dtype is not dtype:
                found, what = probe.current.dtype, f"gives hidden layer {probe.name!r} a current in"
        if found is not dtype:
            raise InputError(
                f"the network {what} {found}, and its parameters are {dtype}; a rule works in one "
                "precision: leave out what converts between them, as .half() and .double() do, or "
                f"go back with .to({dtype})"
            )

    def _refuse_time_inside(self) -> None:
        """Refuse neurons that get all time steps in one tensor, of which they would see no order.

        Raises:
            InputError: naming the layer.
        """
        for probe in self.probes:
            given = probe.activity if probe.main_pass else probe.second_activity
            layout = getattr(probe.neuron, "time_first", None)
            if layout is None or not probe.used or given is None or len(given) == self.batch:
                continue
            module: Any = probe.neuron.module
            if hasattr(module, "step_mode") and module not in self._multi:
                continue  # it is written for single steps, and may fold positions into the batch
            raise InputError(
                f"neuron layer {probe.name!r} gets a current of shape {tuple(given.shape)} in a "
                f"batch of {self.batch}, as in a network whose forward pass takes all time steps "
                f"at once, {layout}. Write the forward pass for one time step, (batch, ...) in and "
                "(batch, outputs) out: the rule makes the loop over time"
            )

    def check_values(self, output: Tensor) -> None:
        """Refuse a time step in which a potential or the output is NaN or infinite.

        Whatever parameter holds such a value, it is in them: a current sums over all weights. The
        output may be -infinity, by which networks leave classes out.

        Raises:
            DivergenceError: naming the layer, and the parameters that hold such values.
        """
        for probe in self.probes:
            if probe.known_finite or not probe.used or probe.current is None:
                continue
            what = f"hidden layer {probe.name!r}"
            finite, state = probe.neuron.watched(probe.current.detach())
            for i, values in enumerate(finite):
                verdicts.finite((what, i), values, self._finding(f"the input of {what}", values))
            for i, values in enumerate(state):
                finding = partial(
                    verdicts.refuse_tensor, f"the state of {what}", values, infinite=True
                )
                verdicts.finite((what, "state", i), values, finding)
        output = output.detach()
        verdicts.finite("output", output, self._finding("the output", output))

    def _finding(self, what: str, values: Tensor) -> verdicts.Complain:
        return partial(refuse_not_finite, what, values, self.network)

    def _without_states(self, output: Any) -> Any:
        """Return the output alone of a network that returns the states of its neurons, too."""
        if not isinstance(output, tuple | list) or not output or not self.neurons:
            return output
        first, *rest = output
        waiting, states = list(rest), True
        while waiting:
            part = waiting.pop()
            if isinstance(part, tuple | list):
                waiting.extend(part)
            elif isinstance(part, Tensor):
                shown = graph.shown_by(part.grad_fn) is not None
                states = states and (shown or not part.requires_grad)
            else:
                states = states and part is None
        return first if self._foreign and states else output

    def second_pass(self, x_t: StepInput, noise_factor: float) -> Tensor:
        """Run the time step once more, without learning, and return the output.

        The neurons have a second state for it, and the dropout masks of the first.

        Args:
            x_t: the input of the step.
            noise_factor: factor of the noise of the first pass.

        Raises:
            InputError: if a dropout layer, or anything else, would draw other random numbers.
        """
        for name, module in self._dropouts:
            if module.training and module.p > 0:
                raise InputError(
                    f"layer {name!r} is a {type(module).__name__}, which draws another mask in the "
                    "second forward pass of this rule; use the dropout of clocked.LIF, which both "
                    "passes share, or a one-point rule"
                )

        def switch(main: bool) -> None:
            for probe in self.probes:
                probe.swap_state()
                probe.noise_factor, probe.main_pass = noise_factor, main
            for state in self.kept:
                state.swap()
            for pathway in self.pathways:
                pathway.learning = main

        # Looked at once for the modes of the modules: it takes longer than the pass.
        modes = tuple(module.training for module in self._modules)
        draws = None if modes in self._drew_nothing else _Draws()  # type: ignore[no-untyped-call]
        switch(main=False)
        try:
            # What the network counts, as norms do, it counts once a step.
            with torch.no_grad(), self.buffers_kept(always=True), draws or nullcontext():
                output = self.forward(x_t)
        finally:
            switch(main=True)
        if draws is not None and draws.found:
            raise InputError(
                f"the network draws random numbers of its own ({draws.found}), as functional "
                "dropout, nn.RReLU or torch.randn do, and other ones in the second forward pass "
                "of this rule; use the dropout of clocked.LIF and the noise of rules, which both "
                "passes share, or a one-point rule"
            )
        self._drew_nothing.add(modes)
        return output

    def flush(self) -> None:
        """Put gradients that were gathered over the steps into `.grad`."""
        with torch.no_grad():  # the compiled products make no graph
            for pathway in self.pathways:
                pathway.flush()

    def firing_rates(self) -> dict[str, Tensor]:
        """Spikes per neuron and step since the reset, by layer that ran."""
        ran = (probe for probe in self.probes if probe.activity is not None)
        return {probe.name: probe.firing_rate for probe in ran}

    def reader(self) -> InputReader:
        """Return what reads inputs for the network as it is now."""
        first = self.pathways[0].synapse if self.pathways else None
        features = first.in_features if isinstance(first, Linear) else None
        return InputReader(self.sample_shape, self.first_parameter, self.chain == "none", features)

    def time_steps(self, inputs: Inputs, steps: int | None) -> tuple[int, Iterator[StepInput]]:
        """Return T and the checked input of each step.

        Raises:
            InputError: if shape, dtype, T or a value has no meaning.
        """
        count, sequence, constant = self.reader().read(inputs, steps)
        self.set_constant_inputs(constant)
        return count, sequence


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes an operation of this thread that draws random numbers, from whichever generator."""

    found = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **named)
        before = _random_states()
        result = func(*args, **named)
        # Some draw in training mode alone.
        moved = not all(map(torch.equal, before, _random_states()))
        if moved or named.get("generator") is not None:
            self.found = func.name().removeprefix("aten::")
        return result


def _random_states() -> list[Tensor]:
    """Return the states of PyTorch's global generators."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if used else [])]


@uncompiled
def run(
    network: nn.Module,
    inputs: Inputs,
    *,
    steps: int | None = None,
    targets: Tensor | None = None,
    loss: Loss | None = None,
    perturbation: Perturbation | None = None,
    input_shape: InputShape | None = None,
) -> Result:
    """Run a network over time without learning, from a state of rest.

    Call `network.eval()` first to switch dropout off. A constant input's product with the first
    weights is made once.

    Args:
        network: module made of synapse and neuron layers, see `Rule`.
        inputs: constant current (B, ...) together with `steps`; sequence (T, B, ...); or iterable.
            A network with several inputs takes a tuple or dict of them, as for `Rule.step`.
        steps: T, for a constant input or an iterable without length.
        targets: (B,) what the loss expects; with them, the result has a loss.
        loss: as given to a rule; `CrossEntropyMSE()` by default.
        perturbation: noise on the hidden layers, as on imprecise hardware; None for none.
        input_shape: shape of one sample at one step, as for a rule; `network.input_shape` by
            default. Without either, the network has one input of any shape.

    Raises:
        InputError: if the input does not fit the network.
        DivergenceError: if a potential or the output is NaN or infinite.

    Example:
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> clocked.run(net, torch.rand(2, 4), steps=6).output.shape
        torch.Size([2, 3])
    """

    def make_probe(name: str, neuron: Neuron) -> Probe:
        return Probe(name, neuron, perturbation=perturbation)

    check_perturbation(perturbation)
    session = Session(network, trace_decay=0.0, learning=False, make_probe=make_probe)
    session.sample_shape = shapes_of(network, input_shape)
    loss = CrossEntropyMSE() if loss is None else checked_loss(loss)
    refuse_autocast(session.first_parameter)
    output: Tensor | None = None
    losses: list[Tensor] = []
    try:
        device = session.first_parameter.device
        with torch.no_grad(), verdicts.gathered(device), session.attached():
            count, sequence = session.time_steps(inputs, steps)
            for x_t in sequence:
                o_t = session.forward(x_t)
                session.check_values(o_t)
                # A sum in half precision would lose spikes.
                wide = torch.promote_types(o_t.dtype, torch.float32)
                output = o_t.to(wide, copy=True) if output is None else output.add_(o_t)
                if targets is not None:
                    if not losses:
                        check_targets(loss, targets, *o_t.shape)
                    losses.append(loss_of(loss, o_t, targets)[0].mean() / count)
        assert output is not None
        total = torch.stack(losses).sum() if losses else None
        return Result(output, session.firing_rates(), count, total)
    finally:
        session.reset()


def modules_of(network: nn.Module) -> list[nn.Module]:
    """Return all modules, as `network.modules()`, in a fraction of its time."""
    found = {network: None}

    def look(module: nn.Module) -> None:
        for inner in module._modules.values():
            if inner is not None and inner not in found:
                found[inner] = None
                look(inner)

    look(network)
    return list(found)


def _checked_names(untraced: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the names of layers without a trace, once each is known."""
    if isinstance(untraced, str) or not isinstance(untraced, Sequence):
        raise InputError(f"untraced is {untraced!r:.100}; give a list of names, as ['conv1']")
    for name in untraced:
        if name not in known:
            raise unknown_name("synapse layer in untraced:", name, known)
    return tuple(untraced)


_ABSENT = ...  # which a copy of a session has, too


def _is_detached(value: object) -> bool:
    """Return whether no graph hangs on a state."""
    if isinstance(value, tuple | list):
        return all(map(_is_detached, value))
    return not (isinstance(value, Tensor) and value.requires_grad)


def _is_state(value: object) -> bool:
    """Return whether an attribute may hold the state of neurons: tensors, alone or in a tuple."""
    if value is None or (isinstance(value, Tensor) and not isinstance(value, nn.Parameter)):
        return True
    return isinstance(value, tuple | list) and all(_is_state(v) for v in value) and len(value) > 0
