"""What a rule finds out about a network when it is built: which error teaches which parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from threefactor.clocked import graph
from threefactor.clocked.checks import check_layers
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.kept_state import attributes_kept, refuse_unknown_state
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.probe import Probe
from threefactor.clocked.recurrent import Recurrent
from threefactor.clocked.session import Session
from threefactor.errors import InputError

__all__ = ["Outline", "outline"]

OUTPUT = "output"


@dataclass(frozen=True)
class Outline:
    """The layers of a network and the way of errors in it.

    Attributes:
        hidden: shape of the activity of each hidden layer, by name, without the batch.
        output_neurons: names of neuron layers whose activity is the output.
        outputs: number m of outputs.
        sample_shape: shape of one sample at one time step.
        trace_decay: lambda of the presynaptic traces.
        teachers: for each parameter of the network by name, the hidden layers whose error reaches
            it, and "output" for the error of the output.
        synaptic: names of the parameters that belong to synapse layers.
        unreached: names of parameters that no error reaches, trainable or not.
    """

    hidden: dict[str, torch.Size]
    output_neurons: tuple[str, ...]
    outputs: int
    sample_shape: torch.Size
    trace_decay: float
    teachers: dict[str, tuple[str, ...]]
    synaptic: frozenset[str]
    unreached: frozenset[str]

    def describe(
        self,
        rule: nn.Module,
        signals: dict[str, str],
        moves: Callable[[str], bool],
        trace_decay: float,
        untraced: Sequence[str],
    ) -> str:
        """Say in a table what learns from what.

        Args:
            rule: the rule, whose own parameters and buffers are listed, too.
            signals: what each hidden layer learns from, in words.
            moves: whether the rule itself changes one of its buffers, by name.
            trace_decay: of the presynaptic traces now.
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
            (name, self._lesson(name, p.requires_grad, untraced, back))
            for name, p in network.named_parameters()
        ]
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
            (f"parameters, traces decay by {trace_decay:g} a step", parameters),
            ("the rule's own", own),
        ]
        return "\n".join(line for title, rows in parts if rows for line in _block(title, rows))

    def _lesson(
        self, name: str, trainable: bool, untraced: Sequence[str], back: tuple[str, ...]
    ) -> str:
        if not trainable:
            return "never: it is frozen, requires_grad is False"
        teachers = self.teachers.get(name, ())
        if not teachers:
            return "never: no error reaches it"
        how, traced = "input of the time step, no trace", "trace of the input"
        if name.startswith(back):
            how, traced = "activity of the step before, no trace", "trace of the layer's activity"
        if name.rpartition(".")[2] == "bias" and name in self.synaptic:
            how = "no trace, a bias has no input"
        elif name in self.synaptic and not name.startswith(tuple(f"{n}." for n in untraced)):
            how = traced
        return f"error of {', '.join(teachers)}; {how}"


def _block(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    yield title
    for name, text in rows:
        yield f"  {name:<{width}}  {text}"


def outline(
    network: nn.Module,
    *,
    trace_decay: float | None,
    input_shape: Sequence[int] | None,
    couples: bool,
    chain: str,
) -> Outline:
    """Run a network on one zero, in evaluation mode, and follow its graph.

    Args:
        network: module made of `Synapse` and `Neuron` layers.
        trace_decay: as given to the rule.
        input_shape: shape of one sample; None for the network's own.
        couples: whether the chain rule passes the neurons.
        chain: "none" or "within-layers".

    Raises:
        InputError: if the network does not run, has weights outside of synapse layers, or needs
            `chain="within-layers"`.
    """
    check_layers(network)
    if torch.is_inference_mode_enabled():
        raise InputError("a rule cannot be built in torch.inference_mode, where nothing can learn")
    shape = getattr(network, "input_shape", None) if input_shape is None else input_shape
    if shape is None:
        raise InputError(
            "the network has no attribute input_shape; give input_shape=, "
            "the shape of one sample at one time step"
        )
    shape = torch.Size(shape)

    def make_probe(name: str, neuron: Neuron) -> Probe:
        return Probe(name, neuron, couple=True)

    session = Session(network, trace_decay=trace_decay, chain=chain, make_probe=make_probe)
    weight = next(network.parameters())
    modes = [(module, module.training) for module in network.modules()]
    frozen = [p for p in network.parameters() if not p.requires_grad]
    with session.alone(), session.buffers_kept(always=True), attributes_kept(session):
        try:
            with session.attached(), torch.enable_grad():
                network.eval()
                # The way of errors is that of the weights, whether or not they learn at present.
                session.ignored.update(id(p) for p in frozen)
                for parameter in frozen:
                    parameter.requires_grad_(True)
                output = session.forward(weight.new_zeros((1, *shape)))
                unused = [p.name for p in session.probes if p.activity is None]
                if unused:
                    raise InputError(
                        f"the network's forward pass leaves out its layers {unused}, at least in "
                        "evaluation mode, in which it is tried"
                    )
                found = _follow(session, output, shape, couples, chain)
                moved = torch.linspace(0.0, 3.0, shape.numel()).view(1, *shape).to(weight)
                refuse_unknown_state(session, moved)
                return found
        except RuntimeError as problem:
            raise InputError(
                f"the network does not run on one sample of shape {tuple(shape)}: {problem}"
            ) from problem
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for module, mode in modes:
                module.training = mode
            session.reset()


def _follow(
    session: Session, output: Tensor, shape: torch.Size, couples: bool, chain: str
) -> Outline:
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
    output_neurons = tuple(p.name for p in session.probes if p.neuron in last)
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
    unreached = frozenset(n for n in names.values() if n not in teachers)
    return Outline(
        hidden,
        output_neurons,
        output.shape[1],
        shape,
        session.trace_decay,
        {name: tuple(found) for name, found in teachers.items()},
        frozenset(synaptic),
        unreached,
    )


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
        if not graph.is_product(node):
            continue
        used = sorted({names[id(p)] for p in graph.product_operands(node) if id(p) in names})
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
