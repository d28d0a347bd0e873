"""The whole contract of a learning rule for clocked networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Never, TypedDict

from threefactor import processes
from threefactor.clocked import kernels, verdicts
from threefactor.clocked.checks import refuse_not_finite, whole_steps
from threefactor.clocked.decays import TraceDecay
from threefactor.clocked.foreign import ForeignNeuron, layers_of
from threefactor.clocked.inputs import Inputs, InputShape, Shapes, StepInput, batch_size
from threefactor.clocked.losses import CrossEntropyMSE, Loss, check_targets, loss_of
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.noise import Perturbation, check_perturbation
from threefactor.clocked.outline import check_products, check_wiring, outline
from threefactor.clocked.pathway import deliver, refuse_autocast
from threefactor.clocked.probe import Probe
from threefactor.clocked.rules.late import KeptEligibility, Late, Moment, checked_delay
from threefactor.clocked.rules.time_step import ErrorOf, TimeStep
from threefactor.clocked.session import Result, Session
from threefactor.clocked.torch_losses import checked_loss
from threefactor.clocked.turns import uncompiled
from threefactor.errors import DivergenceError, InputError, unknown_name, warn_user
from threefactor.options import as_number, refuse_unknown
from threefactor.processes import Share, World

__all__ = ["CHAINS", "Rule", "RuleOptions", "TimeStep"]

CHAINS = ("none", "within-layers")
Targets = Tensor | list[Tensor | None] | tuple[Tensor | None, ...]
"""One for all time steps, or one for each; None for a step without a label."""
MAX_KEPT_BYTES = 256 * 2**20


class RuleOptions(TypedDict, total=False):
    """Options that all rules share; see `Rule`."""

    loss: Loss | None
    trace_decay: TraceDecay
    untraced: Sequence[str]
    input_shape: InputShape | None
    chain: str
    label_delay: int


class Rule(nn.Module, ABC):
    """A learning rule: a way to obtain the error that reaches the activity of each hidden layer.

    Everything else is common to all rules: the forward pass, the presynaptic traces (OTTT), the
    local surrogate derivative, the read-out's gradient. Your own rule subclasses this and
    implements `layer_errors`; see the page on adding a rule.

    The network is not a submodule: `rule.state_dict()` holds what the rule itself learns (feedback
    connections, if any), and `rule.parameters()` what the optimiser should also train.

    A rule of direct feedback gives every hidden layer its error straight from the output. The
    chain rule then runs from a layer's neurons to its own weights and no further: a network in
    which it would pass through the weights of another layer, because no neurons lie between the
    two, is refused. `chain="within-layers"` allows it, and the layers in between then learn by
    backpropagation. `describe` says which parameter learns from what.

    Neurons whose activity is the network's output, with no weights behind them, learn from the
    output's own error under every rule; they get no feedback and no noise.

    Args:
        network: module made of synapse and neuron layers, its forward pass one step. They may be
            this package's, or layers of PyTorch and of other libraries, which are seen as such.
        loss: (output, targets) -> (losses, errors), or one of `torch.nn`, see `from_torch`;
            `CrossEntropyMSE()` by default.
        trace_decay: decay of the presynaptic traces. By default the trace of each synapse layer
            decays with the leak of the neurons behind it, that of a read-out with the leak of those
            before it. One number for all, or numbers by the names of layers: synapse layers, and
            hidden layers for the trace of their own activity, which DKP and local read-outs keep.
            "per-neuron", for all or some, where the neurons of a layer differ in their leaks: each
            weight of the linear layer before them has an eligibility of its own, (B, n_out, n_in)
            numbers of memory. Without it, or a number, such neurons are refused.
        untraced: names of synapse layers that learn from their input at the step, without a trace.
            The OTTT authors' code has none in the first layer, nor in NF-ResNet's read-out.
        perturbation: noise on the hidden layers, or None.
        input_shape: shape of one sample at one step; by default `network.input_shape`. For a
            network with several inputs a tuple of shapes, as in `((1, 28, 28), (40,))`, for the
            arguments of its forward by position; or a dict of shapes for arguments by name.
        chain: "none", or "within-layers" to let the chain rule run through weights between which
            no neurons lie. `SpatialBP` runs it through all layers anyway.
        label_delay: k, for streams whose labels come late: the targets given to `observe` are those
            of the time step k before. Every layer keeps its traces, derivatives and noise of k
            steps, so that gradients are those of labels in time. Errors that pass through weights
            (`SpatialBP`, or `chain`) meet them as they are when the label comes.

    Raises:
        InputError: if the network cannot be trained by a rule, or not without `chain`; if
            `label_delay` is no whole number of at least 0.
        ConfigurationError: if an option, `chain`, or a layer in `untraced`, is not known.

    Warns:
        UserWarning: if no error reaches some of the trainable parameters; it names them.
    """

    couples_layers = False
    """Whether the graph runs through the hidden layers within a step (spatial BP only)."""
    second_pass: float | None = None
    """Factor of the noise in a second forward pass per step; None for a single pass."""
    keeps_layer_traces = False
    """Whether `layers[i].trace`, the trace of each layer's own activity, is needed."""
    feedback_delay = 0
    """How many steps after its time step an error reaches the hidden layers."""
    late_errors = "lost"
    """What becomes of errors that are under way when a sequence ends."""
    signal = "the error that the rule's layer_errors gives it"
    """What a hidden layer learns from, in words, for `describe`."""
    world: World | None = None
    """The processes that share the batches of this rule; see `join`."""

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Loss | None = None,
        trace_decay: TraceDecay = None,
        untraced: Sequence[str] = (),
        perturbation: Perturbation | None = None,
        input_shape: InputShape | None = None,
        chain: str = "none",
        label_delay: int = 0,
        **unknown: Never,
    ) -> None:
        super().__init__()
        refuse_unknown(type(self), unknown)
        self.label_delay = checked_delay("label_delay", label_delay)
        if chain not in CHAINS:
            raise unknown_name("chain", chain, CHAINS)
        self.loss = CrossEntropyMSE() if loss is None else checked_loss(loss)
        check_perturbation(perturbation)
        self.perturbation = perturbation
        self.chain = chain
        self.network: nn.Module
        # Registered modules would enter state_dict and parameters.
        object.__setattr__(self, "network", network)
        found = outline(
            network,
            input_shape=input_shape,
            couples=self.couples_layers,
            chain="within-layers" if self.couples_layers else chain,
        )
        self._outline = found
        self._said: list[str] = []
        self._say_what_never_learns()

        def make_probe(name: str, neuron: Neuron) -> Probe:
            hidden = name in found.hidden
            return Probe(
                name,
                neuron,
                perturbation=perturbation if hidden else None,
                couple=self.couples_layers or not hidden,
                keeps_trace=hidden and self.keeps_layer_traces,
            )

        if perturbation is not None:
            perturbation.refuse_lost(next(network.parameters()).dtype)
        kernels.keep_freed_memory()
        self._session = Session(
            network,
            trace_decay=trace_decay,
            wiring=found.wiring,
            untraced=untraced,
            chain="within-layers" if self.couples_layers else chain,
            make_probe=make_probe,
        )
        self._session.sample_shape = found.sample_shape
        self._hidden = [p for p in self._session.probes if p.name in found.hidden]
        self.layer_shapes, self.outputs = dict(found.hidden), found.outputs
        self.layer_sizes = {name: shape.numel() for name, shape in self.layer_shapes.items()}
        self._late: Late | None = None
        if label_delay:
            self._late = KeptEligibility(self._session, label_delay)

    @property
    def sample_shape(self) -> Shapes:
        """Shape of one sample at one time step, without the batch; for several inputs, of each."""
        return self._outline.sample_shape

    @property
    def trace_decay(self) -> TraceDecay:
        """Decay of the presynaptic traces as it was given; None for the neurons' leaks."""
        return self._session.given_decay

    @property
    def trace_decays(self) -> dict[str, float | Tensor]:
        """Decay of the trace of each synapse layer, lambda, as of the last step.

        A tensor has a value for each neuron behind, or, of a read-out, for each neuron before; one
        number that is learned on a GPU is a tensor ().
        """
        return {name: decay.leak for name, decay in self._session.decays.items()}

    def moves(self, buffer: str) -> bool:
        """Return whether learning changes a buffer of the rule, by name, without an optimiser."""
        return True

    def join(self, world: World) -> None:
        """Train together with the same rule in other processes from now on.

        Network, rule and random generators become those of the first process. `step` and `observe`
        are then called in all processes at the same time, each with its own rows of a batch, and
        do what one process does with all rows, in the order of the processes: gradients, feedback,
        loss and firing rates of the result are those of the whole batch, noise and dropout too.
        The output is that of the own rows. Hooks of parameters see the gradients of the own rows.

        Args:
            world: the processes. With one alone nothing changes.

        Raises:
            ConfigurationError: if network or rule are others in another process.
            ProcessError: if another process does not answer.
        """
        processes.join(self, world)

    def synchronise(self, share: Share) -> None:
        """Make what the rule learned without the optimiser the same in all processes.

        Called at the end of a step. A rule that writes to its buffers in a step overrides this, or
        the step is refused where several processes share the batch: each has learned from its own
        rows. `share.average(buffers)` is exact for what is linear in means over the rows and not
        used before the step ends. Losses and errors are divided by the whole batch, so that sums
        of them are added up instead, where they arise: `share.world.add([change])`.

        Args:
            share: the rows of this process.
        """

    @property
    def batch_share(self) -> Share | None:
        """The rows that this process has in the step under way, if several share the batch."""
        return self._session.share

    @abstractmethod
    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        """Return g_l[t], (B, n_l), the error that reaches the activity of each hidden layer."""

    def local_errors(self, step: TimeStep) -> Sequence[Tensor | None]:
        """Return the errors, (B, n_l), that hidden layers have from themselves; None for none.

        Asked only if feedback is delayed, at the step itself; `layer_errors` then leaves them out.
        """
        return [None] * len(step.layers)

    def signal_of(self, layer: str) -> str:
        """Say in words what a hidden layer learns from."""
        return self.signal

    def describe(self) -> str:
        """Print which signal every layer and parameter gets, from where, and what never learns.

        Returns:
            What it printed.
        """
        signals = {name: self.signal_of(name) for name in self.layer_sizes}
        session = self._session
        text = self._outline.describe(self, signals, self.moves, session.decays, session.untraced)
        if self.label_delay:
            text += (
                f"\nlabels\n  of the time step {self.label_delay} before; until then all layers "
                "keep what they need to learn from it"
            )
        print(text)
        return text

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, 0 to 1; moves the scale of the noise."""
        if not 0.0 <= as_number("progress", progress) <= 1.0:
            raise InputError(f"progress is {progress}; give a share between 0 and 1")
        if self.perturbation is not None:
            self.perturbation.set_progress(progress)

    def reset(self) -> None:
        """Forget the state of the stream: neurons, traces, noise, errors and steps under way.

        What was learned stays.
        """
        self._session.reset()
        if self._late is not None:
            self._late.clear()

    @uncompiled
    def step(
        self,
        inputs: Inputs,
        targets: Targets,
        *,
        steps: int | None = None,
        after_step: Callable[[], object] | None = None,
    ) -> Result:
        """Run T time steps from rest and add the gradients to `.grad`, as `backward` would.

        A stream that `observe` began ends. Other threads that work on the network wait.

        Args:
            inputs: constant current (B, ...) together with `steps`; sequence (T, B, ...); or an
                iterable of T tensors (B, ...), read one by one. If `input_shape` is a tuple or
                dict of shapes, a tuple or dict of such inputs, all of them constant or all
                sequences of one length; or an iterable of T tuples or dicts.
            targets: (B,) class labels as int64, or what the loss expects. A list or tuple has one
                for each of the T steps, and None for a step without a label, in which nothing
                learns and the state and the traces advance.
            steps: T, for a constant input or an iterable without length. The loss is divided by
                it, whether or not all steps have a label.
            after_step: called after every time step, when `.grad` is up to date; give it an
                optimiser step to learn at every time step (OTTT_O).

        Returns:
            Result with loss, output summed over time, and firing rates. The loss is None if no
            step has a label.

        Raises:
            InputError: if inputs or targets do not fit the network, or the network changed since
                the rule was built. After any error, `.grad`, feedback and buffers are as before.
                With `after_step`, gradients of the steps before it, and what it did, stay.
            DivergenceError: if a potential, the output, an error or a gradient is NaN or infinite;
                it names the parameters that hold such values, or the largest numbers at work.
        """
        session = self._session
        with session.alone():
            self.reset()
            try:
                with processes.step_of(self.world), self._verdicts(), session.attached():
                    return self._run(inputs, targets, steps, after_step)
            finally:
                self.reset()

    def _verdicts(self) -> AbstractContextManager[None]:
        return verdicts.gathered(self._session.first_parameter.device)

    def _take_share(self, world: World, samples: int, plan: object) -> None:
        """Agree with the other processes on what to do, and once in a stream who has which rows."""
        session = self._session
        verdicts.read()  # while the others can still be told
        if session.share is None:
            session.take_share(world.share(self, samples, plan))
        else:
            world.share_again(self, plan)

    def _run(
        self,
        inputs: Inputs,
        targets: Targets,
        steps: int | None,
        after_step: Callable[[], object] | None,
    ) -> Result:
        session = self._session
        self._check_precision()
        count, sequence = session.time_steps(inputs, steps)
        if targets is None:
            raise InputError(
                "targets are None, with which no step would learn; give class labels, or a list "
                "with None for the steps without a label"
            )
        in_time = targets if isinstance(targets, list | tuple) else [targets] * count
        if len(in_time) != count:
            raise InputError(
                f"targets are a list of {len(in_time)} for {count} time steps; expected one tensor "
                "for each step, with None for steps without a label, or one tensor for all steps"
            )
        total: Tensor | None = None
        loss: Tensor | None = None
        self._check_arrival(in_time, count)
        world = self.world
        if after_step is not None:
            verdicts.read()
        with self._all_or_nothing(apart=after_step is None) as learners:
            checked: Tensor | None = None
            last = count - 1
            for t, (x_t, target) in enumerate(zip(sequence, in_time, strict=True)):
                if target is not None and target is not checked:
                    check_targets(self.loss, target, batch_size(x_t), self.outputs)
                    checked = target
                if world is not None and session.share is None:
                    labelled = [one is not None for one in in_time]
                    plan = ("step", labelled, after_step is not None)
                    self._take_share(world, batch_size(x_t), plan)
                apart = nullcontext(learners) if after_step is None else self._one_step_apart()
                with apart as learners:
                    output, record = self._advance(x_t, target, count)
                    delivers = t == last and self.late_errors == "delivered"
                    if delivers and isinstance(self._late, KeptEligibility):
                        self._late.deliver_all(self)
                    if after_step is not None:
                        session.flush()
                        self._check_gradients(learners)
                        verdicts.read()
                if record is not None:
                    fresh = record.losses.sum()
                    loss = fresh if loss is None else loss.add_(fresh)
                total = output.clone() if total is None else total.add_(output)
                if after_step is not None:
                    after_step()
            session.flush()
            if after_step is None:
                self._check_gradients(learners)
            verdicts.read()
            rates, loss = self._of_all(loss)
        assert total is not None
        return Result(total, rates, count, loss)

    def _check_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Refuse gradients of the step that are NaN or infinite, before anybody has them."""
        given = [(p, p.grad) for p in parameters if p.grad is not None]
        # Each sum is quick, and finite unless a value is not (or the sum itself overflows).
        if not verdicts.gathering() and math.isfinite(sum(g.sum().item() for _, g in given)):
            return
        for parameter, grad in given:
            finding = partial(self._refuse_gradient, parameter, grad)
            verdicts.finite((id(parameter), "gradient"), grad, finding)

    def _refuse_gradient(self, parameter: Tensor, grad: Tensor) -> None:
        """Refuse a gradient, if a value of it is bad, and name the largest number at work."""
        bad = int((~torch.isfinite(grad)).sum())
        if not bad:
            return  # their sum alone was not finite
        named = [*self.network.named_parameters(), *self.named_parameters(prefix="the rule's ")]
        name = next((name for name, p in named if p is parameter), "a parameter")
        own = [(f"the rule's {n}", t) for n, t in (*self.named_parameters(), *self.named_buffers())]
        given = _sizes([*self.network.named_parameters(), *own])
        for layer, neuron in self._session.neurons:
            width = getattr(neuron, "surrogate_width", None)
            if isinstance(width, float):
                given.append((1.0 / width, f"1 / surrogate_width of layer {layer!r}"))
            given.append((neuron.scale, f"the scale of layer {layer!r}"))
        if self.perturbation is not None:
            given.append((self.perturbation.scale, "the noise scale"))
        seen = [(f"the activity of layer {p.name!r}", p.activity) for p in self._session.probes]
        seen += [(f"the trace in front of {p.name!r}", p.trace) for p in self._session.pathways]
        # What is given first: the other sizes follow from it.
        largest = [*sorted(given, reverse=True)[:2], *sorted(_sizes(seen), reverse=True)[:2]]
        at_work = ", ".join(f"{size:.3g} ({what})" for size, what in largest)
        raise DivergenceError(
            f"the gradient of {name!r} holds NaN or infinity ({bad} of {grad.numel()} values), and "
            f"was not added to .grad: the numbers outgrew {grad.dtype}, or an operation between "
            "the layers has no finite derivative there, as the root of 0. The largest numbers at "
            f"work are {at_work}"
        )

    def _of_all(self, loss: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return firing rates and loss of the whole batch; the loss comes as this process's part.

        All processes then have the same feedback, too.
        """
        rates, share = self._session.firing_rates(), self._session.share
        if share is None:
            return rates, loss
        self.synchronise(share)
        rates = dict(zip(rates, share.mean(list(rates.values())), strict=True))
        if loss is not None:
            loss = loss.clone()
            share.world.add([loss])
        return rates, loss

    @contextmanager
    def _one_step_apart(self) -> Iterator[Sequence[Tensor]]:
        """Gather the gradients of one time step apart: an update is to follow.

        Yields:
            All that learns.
        """
        parameters = [*self._session.parameters(), *self._own_tensors()[0].values()]
        before = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            yield parameters
            if self.world is not None:
                self.world.add_gradients(parameters)
        except BaseException:
            for parameter, grad in zip(parameters, before, strict=True):
                parameter.grad = grad
            raise
        _add_grads(parameters, before)

    @uncompiled
    def observe(self, x_t: StepInput, targets: Tensor | None, *, steps: int = 1) -> Result:
        """Learn from one time step of an endless stream; the state is kept until `reset`.

        T calls with `steps=T` add the same gradients as one call of `step`. `clocked.run`, other
        rules and copies may use the network between two calls and leave the stream as it is.

        Args:
            x_t: (B, ...) input of this step; a tuple or dict for a network with several inputs.
            targets: (B,) class labels as int64, or what the loss expects. None for a step without
                a label: nothing learns from it, and the state and the traces advance. With
                `label_delay=k` they are those of the time step k before.
            steps: number that the loss is divided by.

        Returns:
            Result with the loss and output of this step, and firing rates since the reset. The
            loss is None without targets; with `label_delay=k` it is that of the step k before.

        Raises:
            InputError: if inputs or targets do not fit the network or the stream; if the network
                changed since the rule was built, or was reset or run from outside. The stream goes
                on after a refused input; after an error in the network it has to be `reset`.
            DivergenceError: as for `step`.
        """
        steps = whole_steps(steps)
        session = self._session
        with processes.step_of(self.world), self._verdicts(), session.attached():
            session.check_state()
            self._check_precision()
            x_t = session.reader().checked(x_t)
            if targets is not None:
                check_targets(self.loss, targets, batch_size(x_t), self.outputs)
                if self._late is not None and self._late.awaits_label:
                    raise InputError(
                        f"label_delay is {self.label_delay}: targets are those of the time step "
                        f"{self.label_delay} before, and the stream has not run so long; give None "
                        f"in its first {self.label_delay} steps"
                    )
            session.check_batch(x_t)
            if self.world is not None:
                plan = ("observe", steps, targets is not None)
                self._take_share(self.world, batch_size(x_t), plan)
            session.broken = True  # until the step is whole
            with self._all_or_nothing() as learners:
                output, record = self._advance(x_t, targets, steps)
                session.flush()
                self._check_gradients(learners)
                verdicts.read()
                rates, loss = self._of_all(None if record is None else record.losses.sum())
            session.broken = False
        return Result(output, rates, 1, loss)

    def _advance(
        self, x_t: StepInput, targets: Tensor | None, steps: int
    ) -> tuple[Tensor, TimeStep | None]:
        """Run one time step of the attached network, and learn if there are targets.

        Returns:
            The output of the step, and the labelled step, which is another with `label_delay`;
            None without targets.
        """
        session, late = self._session, self._late
        with torch.enable_grad(), nullcontext() if late is None else late.graph_kept():
            output = session.forward(x_t)
        session.check_precision(output)
        session.check_values(output)
        if session.unchecked:
            session.unchecked = False
            self._say_what_never_learns()
            self._refuse_hooks()
            check_products(session, output, refuse_chain=session.chain == "none")
            check_wiring(session, self._outline.wiring)
        # A copy, since a loss may write to what it is given.
        moment = Moment(output.detach().clone(), self._weight(x_t, steps), self._hidden)
        if self.second_pass is not None:  # whose neurons have a state of their own
            moment.second_output = session.second_pass(x_t, self.second_pass)
        record: TimeStep | None = None
        if late is not None:
            if not self.couples_layers:
                self._check_use(self._hidden)
            with torch.no_grad():
                record = late.learn(self, moment, output, targets)
        elif targets is not None:
            record = self.judge(moment, targets)
            heads, errors = [output], [record.error]
            if not self.couples_layers:
                with torch.no_grad():
                    for probe, g in zip(self._hidden, self.answers(record), strict=True):
                        assert probe.current is not None
                        heads.append(probe.current)
                        errors.append(probe.teach(g))
            pairs = [(h, e) for h, e in zip(heads, errors, strict=True) if h.requires_grad]
            if pairs:
                deliver([h for h, _ in pairs], [e for _, e in pairs])
        for probe in session.probes:
            probe.current = None  # releases the graph of this step
        return moment.output, record

    def _weight(self, x_t: StepInput, steps: int) -> float:
        """Return what losses and errors of a time step are multiplied by, 1 / (B T)."""
        share = self._session.share
        if share is None:
            return 1.0 / (batch_size(x_t) * steps)
        return 1.0 / (share.total * steps) if share.counts else 0.0

    def judge(self, moment: Moment, targets: Tensor) -> TimeStep:
        """Return the losses and the error of a time step, and what the rule may read besides."""
        losses, error = loss_of(self.loss, moment.output, targets)
        record = TimeStep(moment.output, losses * moment.share, error * moment.share, moment.layers)
        if type(self.loss) is not CrossEntropyMSE:  # whose error is finite if the output is
            what = "the error of the loss"
            finding = partial(refuse_not_finite, what, error, self.network, masks=False)
            verdicts.finite(what, error, finding)
        record.error_of = ErrorOf(self.loss, targets, moment.share)
        if moment.second_output is not None:
            record.second_output = moment.second_output
            losses, _ = loss_of(self.loss, moment.second_output, targets)
            record.second_losses = losses * moment.share
        return record

    def answers(self, step: TimeStep) -> Sequence[Tensor]:
        """Return what `layer_errors` gives, checked."""
        self._check_use(step.layers)
        given = self.layer_errors(step)
        self._check_count(given)
        return given

    def _check_arrival(self, targets: Sequence[Tensor | None], steps: int) -> None:
        """Refuse a sequence that ends before any error has reached the hidden layers."""
        if self.label_delay:
            raise InputError(
                f"label_delay is {self.label_delay}, which is for streams: observe takes the "
                "targets of an earlier time step. A sequence has the targets of all of its steps "
                "from the start; give them to the step of a rule without label_delay"
            )
        first = next((t for t, target in enumerate(targets) if target is not None), steps)
        if self.late_errors == "lost" and steps > first >= steps - self.feedback_delay:
            raise InputError(
                f"feedback_delay is {self.feedback_delay}, and the sequence ends "
                f"{steps - first} time steps after its first label (T = {steps}): all errors would "
                "be lost before they reach the hidden layers. Give more time steps, a smaller "
                'delay, or feedback_meets="kept-eligibility" with late_errors="delivered"'
            )

    def _check_use(self, layers: Sequence[Probe]) -> None:
        for probe in layers:
            if not probe.used:
                raise InputError(
                    f"the network's forward pass leaves out hidden layer {probe.name!r} in this "
                    "time step; a rule of direct feedback needs every hidden layer in every step"
                )

    def _refuse_hooks(self) -> None:
        """Refuse backward hooks of hidden layers that get their error straight from the output."""
        for probe in () if self.couples_layers else self._hidden:
            layer: nn.Module = getattr(probe.neuron, "module", probe.neuron)
            if layer._backward_hooks or layer._backward_pre_hooks:
                raise InputError(
                    f"hidden layer {probe.name!r} has a backward hook, which {type(self).__name__} "
                    "never calls: it gives each hidden layer its error without autograd. Change "
                    "errors in a rule of your own, by its layer_errors, or gradients by a hook of "
                    "the parameter"
                )

    def _check_count(self, given: Sequence[Tensor]) -> None:
        if len(given) != len(self._hidden):
            raise InputError(
                f"{type(self).__name__}.layer_errors gave {len(given)} errors; "
                f"expected one for each of the {len(self._hidden)} hidden layers"
            )

    def _check_precision(self) -> None:
        """Refuse precisions and devices with which learning would go wrong or fail half-way."""
        weight = self._session.first_parameter
        refuse_autocast(weight)
        if torch.is_inference_mode_enabled():
            raise InputError(
                "torch.inference_mode is on, in which nothing can learn; leave it for rule.step "
                "and rule.observe, or evaluate with clocked.run"
            )
        if getattr(parametrize, "_cache_enabled", 0):
            raise InputError(
                "torch.nn.utils.parametrize.cached() is on, which keeps weights, with their graph, "
                "longer than a step; leave it for this call: a rule computes them once by itself"
            )
        if weight.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"the network is {weight.dtype}; feedback, traces and averages need at least "
                "float32: train network.float(), and convert it afterwards. "
                "torch.set_float32_matmul_precision('medium') makes products in bfloat16, or in "
                "TF32, and keeps all else in float32"
            )
        parameters, buffers = self._own_tensors()
        for name, tensor in (*parameters.items(), *buffers.items()):
            if tensor.is_floating_point() and (
                tensor.dtype != weight.dtype or tensor.device != weight.device
            ):
                raise InputError(
                    f"the rule's {name} is {tensor.dtype} on {tensor.device}, and the network is "
                    f"{weight.dtype} on {weight.device}; move the rule along with "
                    f"rule.to({str(weight.device)!r}, {weight.dtype})"
                )
            if tensor.is_floating_point():
                may = name in self._buffers  # such as the best loss of a rule of one's own
                finding = partial(
                    verdicts.refuse_tensor, f"the rule's {name}", tensor, infinite=may
                )
                verdicts.finite((name, "rule"), tensor.detach(), finding)

    def _own_tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the rule's own parameters and buffers by name, each once, in one walk."""
        parameters: dict[str, Tensor] = {}
        buffers: dict[str, Tensor] = {}
        seen: set[int] = set()
        modules: list[tuple[str, nn.Module]] = [("", self)]
        known: set[nn.Module] = {self}
        for start, module in modules:
            for key, inner in module._modules.items():
                if inner is not None and inner not in known:
                    known.add(inner)
                    modules.append((f"{start}{key}.", inner))
            for found, own in ((parameters, module._parameters), (buffers, module._buffers)):
                for key, tensor in own.items():
                    if tensor is not None and id(tensor) not in seen:
                        seen.add(id(tensor))
                        found[start + key] = tensor
        return parameters, buffers

    def _say_what_never_learns(self) -> None:
        """Refuse neurons with parameters that no rule teaches; name all others in a warning."""
        untaught = [
            name
            for name, p in self.network.named_parameters()
            if p.requires_grad and name in self._outline.unreached
        ]
        if untaught == self._said:
            return
        for name, neuron in self.network.named_modules():
            own = [n for n, _ in neuron.named_parameters(name) if n in untaught]
            if isinstance(neuron, Neuron) and own:
                raise InputError(
                    f"neuron layer {name!r} has the trainable parameters {own}, which no error "
                    "reaches, since neurons advance without autograd; freeze them with "
                    "requires_grad_(False), or name them in `learned` and say in `eligibilities` "
                    "how they act"
                )
        self._said = untaught
        if untaught:
            foreign = [n for _, n in layers_of(self.network) if isinstance(n, ForeignNeuron)]
            inside = {id(p) for neuron in foreign for p in neuron.module.parameters()}
            named = dict(self.network.named_parameters())
            of_neurons = [name for name in untaught if id(named[name]) in inside]
            advice = (
                f" No eligibility is known of the neurons' own, {of_neurons}: "
                "clocked.LIF(learn_leak=True, learn_threshold=True) has neurons that learn theirs"
            )
            warn_user(
                f"{type(self).__name__} teaches the parameters {untaught} nothing, since no "
                "error reaches them; rule.describe() says what learns from what."
                + advice
                * bool(of_neurons)
            )

    @contextmanager
    def _all_or_nothing(self, *, apart: bool = True) -> Iterator[Sequence[Tensor]]:
        """Undo what a step did to `.grad`, feedback and buffers if it fails.

        Args:
            apart: whether to gather the gradients of the step apart, so that those of before can
                be put back. An optimiser that works during the step needs them in `.grad`.

        Yields:
            All that learns: the parameters of the network and the rule's own.
        """
        own, buffers = self._own_tensors()
        parameters = [*self._session.parameters(), *own.values()]
        before = [p.grad for p in parameters] if apart else []
        moving = [b for name, b in buffers.items() if self.moves(name)]
        # Feedback with many outputs may be too large to exist twice.
        fits = sum(b.nbytes for b in moving) <= MAX_KEPT_BYTES
        kept = [(b, b.clone()) for b in moving] if fits else []
        versions = [b._version for b in moving]
        if apart:
            for parameter in parameters:
                parameter.grad = None
        try:
            with self._session.buffers_kept():
                yield parameters
                if self.world is not None:
                    if versions != [b._version for b in moving]:
                        processes.check_synchronised(self, Rule)
                    if apart:
                        self.world.add_gradients(parameters)
        except BaseException:
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)
            if not fits and versions != [b._version for b in moving]:
                warn_user(
                    "the step failed after feedback had moved; it is too large to be kept twice, "
                    "so that what it learned from the first time steps stays"
                )
            for parameter, grad in zip(parameters, before, strict=False):
                parameter.grad = grad
            raise
        if apart:
            _add_grads(parameters, before)


def _sizes(named: Iterable[tuple[str, Tensor | None]]) -> list[tuple[float, str]]:
    """Return the largest absolute value of each tensor of floating point, and its name."""
    return [
        (float(t.detach().abs().max()), what)
        for what, t in named
        if t is not None and t.is_floating_point() and t.numel()
    ]


def _add_grads(parameters: Sequence[Tensor], before: Sequence[Tensor | None]) -> None:
    """Add to the gradients that were there before what was gathered apart from them."""
    for parameter, grad in zip(parameters, before, strict=True):
        if grad is not None:
            parameter.grad = grad if parameter.grad is None else grad.add_(parameter.grad)
