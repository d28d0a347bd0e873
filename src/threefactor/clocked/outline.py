"""What a rule finds out about a network when it is built: which error teaches which parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from threefactor.clocked import graph
from threefactor.clocked.checks import check_layers
from threefactor.clocked.decays import Decay, Wiring, decays
from threefactor.clocked.foreign import ForeignNeuron, layers_of
from threefactor.clocked.inputs import InputShape, Shapes, mapped, shapes_of, zeros
from threefactor.clocked.kept_state import attributes_kept, refuse_unknown_state
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.probe import Probe
from threefactor.clocked.recurrent import Recurrent
from threefactor.clocked.session import Session
from threefactor.errors import InputError
from threefactor.modes import evaluating

__all__ = ["Outline", "check_products", "check_wiring", "outline"]

OUTPUT = "output"


@dataclass(frozen=True)
class Outline:
    """The layers of a network and the way of errors in it.

    Attributes:
        hidden: shape of the activity of each hidden layer, by name, without the batch.
        output_neurons: names of neuron layers whose activity is the output.
        outputs: number m of outputs.
        sample_shape: shape of one sample at one time step; of several inputs, of each.
        wiring: which neurons each synapse layer meets.
        teachers: for each parameter of the network by name, the hidden layers whose error reaches
            it, and "output" for the error of the output.
        synaptic: names of the parameters that belong to synapse layers.
        neural: names of the parameters of neuron layers.
        unreached: names of parameters that no error reaches, trainable or not.
    """

    hidden: dict[str, torch.Size]
    output_neurons: tuple[str, ...]
    outputs: int
    sample_shape: Shapes
    wiring: Wiring
    teachers: dict[str, tuple[str, ...]]
    synaptic: frozenset[str]
    neural: frozenset[str]
    unreached: frozenset[str]

    def describe(
        self,
        rule: nn.Module,
        signals: dict[str, str],
        moves: Callable[[str], bool],
        traces: dict[str, Decay],
        untraced: Sequence[str],
    ) -> str:
        """Say in a table what learns from what.

        Args:
            rule: the rule, whose own parameters and buffers are listed, too.
            signals: what each hidden layer learns from, in words.
            moves: whether the rule itself changes one of its buffers, by name.
            traces: decays of the presynaptic traces now, by synapse layer.
            untraced: names of the synapse layers that keep no trace.
        """
        network: nn.Module = rule.network  # type: ignore[assignment]
        sizes = {name: shape.numel() for name, shape in self.hidden.items()}
        recurrent = {n: m for n, m in network.named_modules() if isinstance(m, Recurrent)}
        again = tuple(f"{n}.neuron".removeprefix(".") for n in recurrent)
        back = tuple(
            f"{n}.synapse.".removeprefix(".")
            for n, m in recurrent.items()
            if len(layers_of(m.synapse)) == 1
        )
        layers = [
            (f"{n} ({sizes[n]} neurons{', recurrent' * n.startswith(again)})", signals[n])
            for n in self.hidden
        ]
        layers += [(f"{n} (output neurons)", "the output's own error") for n in self.output_neurons]
        layers += [(f"output ({self.outputs})", "its own error, the gradient of the loss")]
        parameters = [
            (name, self._lesson(name, p.requires_grad, traces, untraced, back))
            for name, p in network.named_parameters()
        ]
        shared = ""
        if len(set(traces.values())) == 1:
            shared = f", traces decay by {next(iter(traces.values()))}"
        own = [
            (name, "learns by the optimiser" if p.requires_grad else "never: it is frozen")
            for name, p in rule.named_parameters()
        ]
        own += [
            (name, "learns within the rule" if moves(name) else "fixed")
            for name, _ in rule.named_buffers()
        ]
        parts = [
            (f"{type(rule).__name__}: errors of the layers", layers),
            (f"parameters{shared}", parameters),
            ("the rule's own", own),
        ]
        return "\n".join(line for title, rows in parts if rows for line in _block(title, rows))

    def _lesson(
        self,
        name: str,
        trainable: bool,
        traces: dict[str, Decay],
        untraced: Sequence[str],
        back: tuple[str, ...],
    ) -> str:
        if not trainable:
            return "never: it is frozen, requires_grad is False"
        teachers = self.teachers.get(name, ())
        if not teachers and name in self.neural:
            return "never: it is the neurons' own, and they advance without autograd"
        if not teachers:
            return "never: no error reaches it"
        how, traced = "input of the time step, no trace", "trace of the input"
        if name.startswith(back):
            how, traced = "activity of the step before, no trace", "trace of the layer's activity"
        if name in self.neural:
            how = "eligibility of the neurons"
        elif name.rpartition(".")[2] == "bias" and name in self.synaptic:
            how = "no trace, a bias has no input"
        elif name in self.synaptic and not name.startswith(tuple(f"{n}." for n in untraced)):
            how = traced
            if len(set(traces.values())) > 1:
                layer = max((n for n in traces if name.startswith(f"{n}.")), key=len)
                how = f"{traced}, decays by {traces[layer]}"
        return f"error of {', '.join(teachers)}; {how}"


def _block(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    yield title
    for name, text in rows:
        yield f"  {name:<{width}}  {text}"


def outline(
    network: nn.Module,
    *,
    input_shape: InputShape | None,
    couples: bool,
    chain: str,
) -> Outline:
    """Run a network on one zero, in evaluation mode, and follow its graph.

    Args:
        network: module made of synapse and neuron layers, see `Rule`.
        input_shape: shape of one sample, or of each input; None for the network's own.
        couples: whether the chain rule passes the neurons.
        chain: "none" or "within-layers".

    Raises:
        InputError: if the network does not run, has weights outside of synapse layers, or needs
            `chain="within-layers"`.
    """
    check_layers(network)
    if torch.is_inference_mode_enabled():
        raise InputError("a rule cannot be built in torch.inference_mode, where nothing can learn")
    shape = shapes_of(network, input_shape)
    if shape is None:
        raise InputError(
            "the network has no attribute input_shape; give input_shape=, "
            "the shape of one sample at one time step"
        )

    def make_probe(name: str, neuron: Neuron) -> Probe:
        return Probe(name, neuron, couple=True)

    # One step from rest is the same for every decay.
    session = Session(network, trace_decay=0.0, chain=chain, make_probe=make_probe)
    weight = next(network.parameters())
    frozen = [p for p in network.parameters() if not p.requires_grad]
    with session.alone(), session.buffers_kept(always=True), attributes_kept(session):
        try:
            with evaluating(network), session.attached(), torch.enable_grad():
                # The way of errors is that of the weights, whether or not they learn at present.
                session.ignored.update(id(p) for p in frozen)
                for parameter in frozen:
                    parameter.requires_grad_(True)
                with _states_marked(session):
                    output = session.forward(zeros(shape, weight))
                unused = [p.name for p in session.probes if p.activity is None]
                if unused:
                    raise InputError(
                        f"the network's forward pass leaves out its layers {unused}, at least in "
                        "evaluation mode, in which it is tried"
                    )
                _refuse_potentials(session, output)
                found = _follow(session, output, shape, couples, chain)
                _refuse_time_second(session, found.wiring)
                moved = mapped(
                    shape,
                    lambda s: (
                        torch.linspace(0.0, 3.0, s.numel(), device="cpu").view(1, *s).to(weight)
                    ),
                )
                refuse_unknown_state(session, moved)
                return found
        except RuntimeError as problem:
            raise InputError(
                f"the network does not run on one sample of shape {mapped(shape, tuple)}: {problem}"
            ) from problem
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            session.reset()


@contextmanager
def _states_marked(session: Session) -> Iterator[None]:
    """Let autograd's graph say where the network uses states of neurons of other libraries."""
    neurons = [n for _, n in session.neurons if isinstance(n, ForeignNeuron)]
    for neuron in neurons:
        neuron.marks_state = True
    try:
        yield
    finally:
        for neuron in neurons:
            neuron.marks_state = False


def _refuse_potentials(session: Session, output: Tensor) -> None:
    """Refuse a network that computes with the new state of its neurons, which has no derivative.

    Raises:
        InputError: naming the layer.
    """
    for node in graph.behind_all(_heads(session, output).values()):
        name = graph.shown_by(node)
        if name is not None:
            raise InputError(
                f"the network computes with the state of neuron layer {name!r} after its step, "
                "such as the membrane potential that it returns. The activity of neurons is their "
                "spikes, and no error would pass the state. Let the network go on with the spikes; "
                "for potentials as the output, leave out the last neurons, since a rule sums the "
                "outputs over the time steps by itself; or detach the state, if nothing is to "
                "learn by it"
            )


def _refuse_time_second(session: Session, wiring: Wiring) -> None:
    """Refuse linear layers that give neurons, which expect time there, a second dimension.

    Raises:
        InputError: naming the layers.
    """
    linear = [p.name for p in session.pathways if isinstance(p.synapse, nn.Linear)]
    for name, neuron in session.neurons:
        shape = wiring.shapes.get(name, ())
        if not getattr(neuron, "time_second", False) or len(shape) < 2:
            continue
        for synapse in linear:
            if name in wiring.behind.get(synapse, ()) and (synapse, name) in wiring.aligned:
                raise InputError(
                    f"neuron layer {name!r} gets {tuple(shape)} numbers of each sample from the "
                    f"linear layer {synapse!r}. In the networks of its library, the second "
                    "dimension of (batch, T, ...) is time; a rule would take it for positions "
                    "without an order. Write the forward pass for one time step, (batch, ...) in "
                    "and (batch, outputs) out: the rule makes the loop over time"
                )


def _follow(session: Session, output: Tensor, shape: Shapes, couples: bool, chain: str) -> Outline:
    names = {id(p): name for name, p in session.network.named_parameters()}
    heads = _heads(session, output)
    check_products(session, output, refuse_chain=chain == "none")
    synapses = [n for n in graph.behind_all(heads.values()) if hasattr(n, "pathway")]
    inner = {
        node.neuron
        for synapse in synapses
        for node in graph.behind([synapse.next_functions[0][0]])
        if hasattr(node, "neuron")
    }
    last = {n.neuron for n in graph.behind([output.grad_fn]) if hasattr(n, "neuron")} - inner
    hidden = {
        p.name: p.activity.shape[1:]
        for p in session.probes
        if p.activity is not None and p.neuron not in last
    }
    by_name = {p.name: p.neuron for p in session.probes}
    output_neurons = tuple(p.name for p in session.probes if p.neuron in last)
    own = {
        names[id(leaf)]: node.neuron
        for node in graph.behind_all(heads.values())
        if hasattr(node, "neuron")
        for leaf in _own_leaves(node)
    }
    teachers: dict[str, list[str]] = {}
    synaptic: set[str] = set()
    for head, start in heads.items():
        if head in output_neurons or (couples and head != OUTPUT):
            continue
        for parameter, of_synapse, far in _reached(start, couples, chain, last):
            name = names.get(id(parameter))
            if name is not None:
                found, teacher = teachers.setdefault(name, []), head
                if far:
                    teacher = f"{head}, backpropagated through other weights"
                found.extend([teacher] * (teacher not in found))
                synaptic.update([name] * of_synapse)
        for name, neuron in own.items():  # what the head's own neurons learn
            if head != OUTPUT and neuron is by_name[head]:
                teachers[name] = [head]
    layers = [getattr(neuron, "module", neuron) for _, neuron in session.neurons]
    neural = frozenset(names[id(p)] for layer in layers for p in layer.parameters())
    unreached = frozenset(n for n in names.values() if n not in teachers)
    return Outline(
        hidden,
        output_neurons,
        output.shape[1],
        shape,
        _wiring(session, synapses),
        {name: tuple(found) for name, found in teachers.items()},
        frozenset(synaptic),
        neural,
        unreached,
    )


def _wiring(session: Session, synapses: Iterable[Any]) -> Wiring:
    """Find the neuron layers around each synapse layer in the graph of a time step."""
    names = {p.neuron: p.name for p in session.probes}
    behind: dict[str, tuple[str, ...]] = {}
    for probe in session.probes:
        if probe.current is not None:
            for node in _before(probe.current.grad_fn):
                if hasattr(node, "pathway"):
                    synapse = node.pathway.name
                    behind[synapse] = (*behind.get(synapse, ()), probe.name)
    before = {
        synapse.pathway.name: tuple(
            names[node.neuron]
            for node in _before(synapse.next_functions[0][0])
            if hasattr(node, "neuron")
        )
        for synapse in synapses
    }
    aligned = {
        (node.pathway.name, probe.name)
        for probe in session.probes
        if probe.current is not None
        for node in graph.aligned_with(probe.current.grad_fn)
        if hasattr(node, "pathway")
    } | {
        (synapse.pathway.name, names[node.neuron])
        for synapse in synapses
        for node in graph.aligned_with(synapse.next_functions[0][0])
        if hasattr(node, "neuron")
    }
    shapes = {p.name: p.activity.shape[1:] for p in session.probes if p.activity is not None}
    return Wiring(behind, before, frozenset(aligned), shapes)


def _before(start: Any) -> Iterator[Any]:
    """Walk the layers in front of a node: synapse layers, and the neurons that they meet first."""
    waiting, seen = [start], set()
    while waiting:
        for node in graph.behind([waiting.pop()]):
            if graph.is_layer(node) and node not in seen:
                seen.add(node)
                yield node
                if hasattr(node, "pathway"):
                    waiting.append(node.next_functions[0][0])


def check_wiring(session: Session, wiring: Wiring) -> None:
    """Refuse a synapse layer that feeds other neurons than in the trial, with another leak.

    Args:
        session: after a time step.
        wiring: what the trial found.

    Raises:
        InputError: naming the layers.
    """
    for name, met in _wiring(session, ()).behind.items():
        known = wiring.behind.get(name, ())
        new = tuple(neuron for neuron in met if neuron not in known)
        if not new:
            continue
        seen = replace(wiring, behind={name: (*known, *new)})
        now = decays(session.given_decay, [name], session.neurons, seen)[name]
        if now.each or session.decays[name].each or now != session.decays[name]:
            raise InputError(
                f"synapse layer {name!r} feeds the neurons {list(new)} in this time step and did "
                "not in evaluation mode, in which the rule looked at the network; give "
                f"trace_decay={{{name!r}: ...}}"
            )


def _own_leaves(node: Any) -> Iterator[Tensor]:
    """Walk the parameters of a layer of neurons that its node in the graph takes in."""
    for part in graph.behind([n for n, _ in node.next_functions[1:]]):
        leaf = graph.parameter_of(part)
        if leaf is not None:
            yield leaf


def _reached(
    start: Any, couples: bool, chain: str, last: set[Neuron]
) -> Iterator[tuple[Tensor, bool, bool]]:
    """Walk the parameters that an error at `start` reaches.

    Yields:
        Each with whether it belongs to a synapse layer, and whether the error passes the weights
        of another layer on the way.
    """
    waiting: list[tuple[Any, bool]] = [(start, False)]
    seen: set[Any] = set()
    while waiting:
        begin, far = waiting.pop()
        for node in graph.behind([begin]):
            if node in seen:
                continue
            seen.add(node)
            leaf = graph.parameter_of(node)
            if leaf is not None:
                yield leaf, False, far
            elif hasattr(node, "pathway"):
                for parameter in node.pathway.synapse.parameters():
                    yield parameter, True, far
                if chain != "none":
                    waiting.append((node.next_functions[0][0], True))
            elif hasattr(node, "neuron") and (couples or node.neuron in last):
                for parameter in _own_leaves(node):
                    yield parameter, False, far
                waiting.append((node.next_functions[0][0], far))


def _heads(session: Session, output: Tensor) -> dict[str, Any]:
    """Where errors enter the graph of a time step: at the output, and at each layer's current."""
    heads = {OUTPUT: output.grad_fn}
    return heads | {p.name: p.current.grad_fn for p in session.probes if p.current is not None}


def check_products(session: Session, output: Tensor, *, refuse_chain: bool) -> None:
    """Refuse products with weights that no synapse layer makes, and what may hide one.

    Args:
        session: after a time step.
        output: what the network returned.
        refuse_chain: whether errors may not pass through products at all.

    Raises:
        InputError: naming the parameters, or the layers behind the product.
    """
    heads = _heads(session, output)
    names = {
        id(p): name
        for name, p in session.network.named_parameters()
        if p.requires_grad and id(p) not in session.ignored
    }
    for node in graph.behind_all(heads.values()):
        operands = graph.product_operands if graph.is_product(node) else graph.summed_weights
        used = sorted({names[id(p)] for p in operands(node) if id(p) in names})
        if used:
            raise InputError(
                f"the network multiplies with its parameters {used} outside of a synapse layer "
                f"({graph.name_of(node)}), where they get no presynaptic trace; use "
                "threefactor.clocked.Linear or Conv2d, or a Synapse of your own"
            )
    for node in graph.behind(heads.values()) if refuse_chain else ():
        if graph.is_local(node):
            continue
        through = sorted({n.pathway.name for n in graph.behind([node]) if hasattr(n, "pathway")})
        if through:
            raise InputError(
                f"the output of layers {through} goes through a product or an unknown operation "
                f"({graph.name_of(node)}) before any hidden neuron, through which their error "
                "would be backpropagated. A rule of direct feedback does not do that: put neurons "
                "such as clocked.LIF between, train with SpatialBP, or allow it with "
                'chain="within-layers"'
            )
