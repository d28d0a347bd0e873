"""From a network to a NIR graph."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.errors import InputError, warn_user
from threefactor.interop.nir.dialects import TIME_STEP, Dialect, dialect_of, library, time_step
from threefactor.interop.nir.network import INPUT
from threefactor.interop.nir.tracing import Placed, Terms, refuse_hooks, traced
from threefactor.modes import evaluating
from threefactor.readable import clipped

__all__ = ["to_nir"]

Array = NDArray[Any]
ENDLESS = 2.0**60
"""Time steps of a time constant that forgets nothing in double precision."""


def to_nir(
    network: nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    dialect: str = "euler",
    dt: float = 1e-4,
    approximate: bool = False,
    inputs: Tensor | Iterable[Tensor] | None = None,
    steps: int | None = None,
) -> Any:
    r"""Describe a network as a NIR graph, as it runs in evaluation: without dropout.

    The scale of an activity, standardised weights and the factors of a dialect are folded into the
    weights; pooling becomes a node of its own, a branch an edge of its own. A recurrent layer
    becomes its neurons and a synapse from them back to themselves, whose bias goes into the weights
    before. Write the graph with `nir.write(path, graph)`.

    A network of exact spike times becomes `Linear` and `CubaLIF` nodes with tau_syn = tau_s,
    tau_mem = 2 tau_s, r = 1 and w_in = tau_s, where a spike is a Dirac pulse: these are the same
    equations in continuous time. NIR has no place for `duration` and `max_spikes`.

    Args:
        network: a module whose forward pass calls each layer once, adds what the layers give,
            multiplies it by numbers and flattens it, such as `clocked.fc`, `conv5`, any
            `nn.Sequential`, or what `from_nir` returns. The layers are `clocked.Linear`,
            `clocked.Conv2d`, their PyTorch counterparts, `clocked.LIF`, `clocked.Recurrent`,
            average pooling, `nn.Flatten` and dropout. Or an `events.Network`.
        input_shape: of one sample at one time step; `network.input_shape` by default.
        dialect: whose reading of the graph is to give the same spikes, see `DIALECTS`.
        dt: the reader's time step in seconds; 1e-4 is what snnTorch and SpikingJelly assume. Norse
            has to be told: `norse.torch.from_nir(graph, dt=1e-4)`. Of no matter to exact times.
        approximate: write neurons with the reset "subtract", which NIR does not have, as neurons
            with the reset "zero". The share of spikes that differ on `inputs` is measured, warned
            of and kept in `graph.metadata["spikes_that_differ"]`.
        inputs: for the measurement, as `clocked.run` takes them; used only with `approximate`.
        steps: T, for constant inputs.

    Returns:
        A `nir.NIRGraph` from "input" to "output", its nodes named like the layers, with dt in
        `graph.metadata["dt"]`.

    Raises:
        InputError: naming the layer that NIR or the dialect cannot express, and why.
        ConfigurationError: if nir is not installed, or the dialect is not known.

    Warns:
        UserWarning: with the share of spikes that differ, if the graph is an approximation.

    Examples for each reader are in docs/leaving.md.

    Source: Pedersen et al. 2024 (NIR).
    """
    nir, conventions, dt = library(), dialect_of(dialect), time_step(dt)
    if isinstance(network, events.Network):
        return _of_events(nir, network, dialect)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"the network is a {type(network).__name__}; expected a torch.nn.Module or an "
            "events.Network"
        )
    shape = _shape(network, input_shape)
    with evaluating(network):
        placed, output = traced(network, shape)
        for place in placed:
            _check(place.name, place.layer)
        neurons = [(p.name, lif) for p in placed if (lif := _neurons_of(p.layer)) is not None]
        soft = [n for n, lif in neurons if lif.reset_mode == "subtract" and lif.leak > 0.0]
        if soft and not approximate:
            raise InputError(
                f"a spike of {', '.join(soft)} takes the threshold off the potential, which NIR "
                'cannot express: train with LIF(reset="zero"), or give approximate=True and '
                "inputs=, on which the share of spikes that differ is measured"
            )
        if soft and inputs is None:
            raise InputError(
                "approximate=True needs inputs=, such as a batch of the test set, on which the "
                "share of spikes that differ is measured"
            )
        graph = _Writer(nir, dialect, conventions, dt, network).write(placed, output, shape)
        graph.metadata[TIME_STEP] = dt
        if soft:
            assert inputs is not None
            graph.metadata.update(_measured(network, [lif for _, lif in neurons], inputs, steps))
    return graph


@dataclass(frozen=True)
class _Term:
    """One of the values that reach a layer.

    Attributes:
        node: the node that gives it.
        factor: what it is to be multiplied by.
        synapses: the nodes with weights behind it, if nothing but pooling came after them and no
            other layer gets what they give.
    """

    node: str
    factor: float
    synapses: tuple[str, ...] = ()


class _Writer:
    """Writes layer after layer.

    Attributes:
        found: what each layer gives, the factor still to come.
        samples: the shape of that, without the batch.
    """

    def __init__(
        self, nir: Any, name: str, dialect: Dialect, dt: float, network: nn.Module
    ) -> None:
        self.nir, self.name, self.dialect, self.dt = nir, name, dialect, dt
        weights = next(network.parameters(), None)
        if weights is None or weights.dtype not in (torch.float32, torch.float64):
            kind = "none" if weights is None else weights.dtype
            raise InputError(f"the network's weights are {kind}; expected float32 or float64")
        self.dtype = np.dtype(str(weights.dtype).removeprefix("torch."))
        self.blank = weights.detach().new_zeros(())
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.found: dict[str, _Term] = {}
        self.samples: dict[str, tuple[int, ...]] = {}
        self.given: tuple[int, ...] = ()

    def write(self, placed: Sequence[Placed], output: Terms, shape: tuple[int, ...]) -> Any:
        uses = Counter(name for p in placed for name in p.given) + Counter(output)
        for name, given in [*((p.name, p.given) for p in placed), ("output", output)]:
            shared = [source for source in given if uses[source] > 1]
            if not self.dialect.branches and (len(given) > 1 or shared):
                raise InputError(
                    f"what reaches {name!r} comes from {sorted(given)}, in a network with "
                    f"branches; {self.name} runs such a graph in an order in which parts of a sum "
                    "come a step late"
                )
        self.found[INPUT] = _Term(self.node("input", self.nir.Input(np.array(shape))), 1.0)
        self.samples[INPUT] = shape
        for place in placed:
            terms = self.reach(place.name, place.given)
            name = place.name.replace(".", "_")
            term = self.layer(name, place.layer, terms, self.made(place.layer))
            if uses[place.name] > 1:
                term = replace(term, synapses=())
            self.found[place.name] = term
            self.samples[place.name] = self.made(place.layer)
        terms = [self.settled("output", term) for term in self.reach("output", output)]
        self.connect(terms, self.node("output", self.nir.Output(np.array(self.given))))
        return self.nir.NIRGraph(self.nodes, self.edges)

    def reach(self, name: str, given: Terms) -> list[_Term]:
        """Return what reaches a layer, and keep its shape in `given`."""
        shapes = {self.samples[source] for source in given}
        if len(shapes) > 1:
            raise InputError(
                f"{name!r} gets a sum of the shapes {sorted(shapes)}, which NIR cannot express; "
                "add values of one shape"
            )
        (self.given,) = shapes
        terms = [(self.found[source], factor) for source, factor in given.items()]
        return [replace(term, factor=term.factor * factor) for term, factor in terms]

    def made(self, layer: nn.Module) -> tuple[int, ...]:
        """Return the shape of what a layer gives."""
        if _neurons_of(layer) is not None:
            return self.given
        with torch.no_grad():
            return tuple(layer(self.blank.expand(1, *self.given)).shape[1:])

    def node(self, name: str, node: Any) -> str:
        while name in self.nodes or (name == "output" and not isinstance(node, self.nir.Output)):
            name = f"{name}_"
        self.nodes[name] = node
        return name

    def connect(self, terms: Sequence[_Term], name: str) -> None:
        for term in terms:
            if (term.node, name) in self.edges:
                raise InputError(
                    f"node {name!r} gets what {term.node!r} gives twice, which NIR cannot express"
                )
            self.edges.append((term.node, name))

    def layer(
        self, name: str, layer: nn.Module, terms: list[_Term], made: tuple[int, ...]
    ) -> _Term:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            return self.weights(name, layer, terms)
        if isinstance(layer, clocked.Recurrent):
            return self.recurrent(name, layer, terms)
        if isinstance(layer, clocked.LIF):
            return self.neurons(name, layer, terms)
        if isinstance(layer, nn.Flatten):
            return self.flatten(name, terms)
        if isinstance(layer, nn.AvgPool2d):
            return self.pool(name, _pair(layer.kernel_size), _pair(layer.stride), terms)
        sides = [n // m for n, m in zip(self.given[1:], made[1:], strict=True)]
        if [m * side for m, side in zip(made[1:], sides, strict=True)] != list(self.given[1:]):
            raise InputError(
                f"layer {name!r} pools {self.given[1:]} to {made[1:]}, with squares of several "
                "sizes, which NIR cannot express"
            )
        return self.pool(name, (sides[0], sides[1]), (sides[0], sides[1]), terms)

    def weights(self, name: str, layer: nn.Linear | nn.Conv2d, terms: list[_Term]) -> _Term:
        side = getattr(layer, "pool", 1)
        given = self.given
        if side > 1:
            terms = [self.pool(f"{name}_pool", (side, side), (side, side), terms)]
            given = (given[0], given[1] // side, given[2] // side)
        factor, terms = self.common(name, terms)
        # A convolution's kernel is its weight, or what standardisation makes of it.
        weight = layer.kernel() if isinstance(layer, clocked.Conv2d) else layer.weight
        values = self.array(weight, factor)
        bias = None if layer.bias is None else self.array(layer.bias)
        if isinstance(layer, nn.Linear):
            if len(given) > 1:
                if type(layer) is nn.Linear or np.prod(given) != layer.in_features:
                    raise InputError(
                        f"layer {name!r} has weights for {layer.in_features} values, and gets "
                        f"{given}; put nn.Flatten() before it"
                    )
                terms = [self.flatten(f"{name}_flatten", terms, given)]
            node = self.nir.Linear(values) if bias is None else self.nir.Affine(values, bias)
        else:
            if layer.groups > 1 or layer.kernel_size[0] != layer.kernel_size[1]:
                raise InputError(
                    f"layer {name!r} is {layer}: of convolutions in groups, or whose kernel is no "
                    "square, the package nir infers a wrong shape, and readers refuse the graph"
                )
            if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
                raise InputError(
                    f"layer {name!r} pads with {layer.padding_mode}, {layer.padding!r}; NIR needs "
                    "a number of zeros"
                )
            zeros = np.zeros(len(values), self.dtype)
            node = self.nir.Conv2d(
                given[1:], values, layer.stride, layer.padding, layer.dilation, layer.groups,
                zeros if bias is None else bias,
            )  # fmt: skip
        key = self.node(name, node)
        self.connect(terms, key)
        return _Term(key, 1.0, (key,))

    def neurons(self, name: str, layer: clocked.LIF, terms: list[_Term]) -> _Term:
        nir, leak, shape = self.nir, layer.leak, self.given
        constant = ENDLESS if leak == 1.0 else 1.0 / (1.0 - leak) if leak else 1.0
        as_if = leak == 1.0 and self.dialect.reads_if
        if not as_if and not self.dialect.uses_r:
            terms = [self.amplified(name, replace(t, factor=t.factor * constant)) for t in terms]
        terms = [self.settled(name, term) for term in terms]
        threshold = self.dtype.type(layer.threshold)
        if self.dialect.strict:
            threshold = np.nextafter(threshold, self.dtype.type(0))
        zeros, level = np.zeros(shape), np.full(shape, float(threshold))
        if as_if:
            r = 1.0 if self.dialect.if_per_step else 1.0 / self.dt
            node = nir.IF(np.full(shape, r), level, zeros)
        else:
            if leak == 0.0 and not self.dialect.zero_leak:
                raise InputError(
                    f"layer {name!r} has leak 0, tau = dt, which {self.name} refuses to read"
                )
            r = constant if self.dialect.uses_r else 1.0
            node = nir.LIF(
                np.full(shape, constant * self.dt), np.full(shape, r), zeros, level, zeros
            )
        key = self.node(name, node)
        self.connect(terms, key)
        return _Term(key, layer.scale)

    def recurrent(self, name: str, layer: clocked.Recurrent, terms: list[_Term]) -> _Term:
        """Write the neurons, and the synapse through which their activity comes back."""
        neuron, synapse = layer.neuron, layer.synapse
        assert isinstance(neuron, clocked.LIF) and isinstance(synapse, nn.Linear | nn.Conv2d)
        term = self.neurons(name, neuron, terms)
        back = self.weights(f"{name}_synapse", synapse, [term])
        if not self.dialect.uses_r and neuron.leak < 1.0:
            constant = 1.0 / (1.0 - neuron.leak)
            back = self.amplified(name, replace(back, factor=constant))
        self.move_bias(name, back.node, terms)
        self.connect([back], term.node)
        if self.dialect.nests:
            self.nest(term.node, back.node)
        return term

    def move_bias(self, name: str, synapse: str, terms: Sequence[_Term]) -> None:
        """Move the bias of a recurrent synapse into the weights before the neurons.

        Readers give no bias in the first step, in which no spikes have come back yet.
        """
        nir, back = self.nir, self.nodes[synapse]
        bias = getattr(back, "bias", None)
        if bias is None:
            return
        if isinstance(back, nir.Affine):
            self.nodes[synapse] = nir.Linear(back.weight)
        else:
            back.bias = np.zeros_like(bias)
        if not bias.any():
            return
        host = next((term.node for term in terms if term.synapses == (term.node,)), None)
        if host is None:
            raise InputError(
                f"the recurrent synapse of layer {name!r} has a bias, which readers leave out in "
                "the first time step, and no weights before the layer could take it; give it "
                "bias=False"
            )
        into = self.nodes[host]
        if isinstance(into, nir.Linear):
            self.nodes[host] = nir.Affine(into.weight, bias)
        else:
            into.bias = into.bias + bias

    def nest(self, neurons: str, synapse: str) -> None:
        """Put a recurrent layer into a graph of its own, in the place of its neurons."""
        nir, shape = self.nir, np.array(self.given)
        nodes = {
            "input": nir.Input(shape),
            "lif": self.nodes[neurons],
            "w_rec": self.nodes.pop(synapse),
            "output": nir.Output(shape),
        }
        wires = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        self.nodes[neurons] = nir.NIRGraph(nodes, wires)
        self.edges = [edge for edge in self.edges if synapse not in edge]

    def amplified(self, name: str, term: _Term) -> _Term:
        """Multiply what reaches a neuron by its factor, in the weights that it comes from."""
        if term.factor == 1.0:
            return term
        if not term.synapses:
            raise InputError(
                f"layer {name!r} has no weights before it that could take the factor "
                f"{term.factor} of its current; {self.name} ignores r"
            )
        self.multiply(term)
        return replace(term, factor=1.0)

    def multiply(self, term: _Term) -> None:
        for synapse in term.synapses:
            for part in ("weight", "bias"):
                if hasattr(self.nodes[synapse], part):
                    grown = getattr(self.nodes[synapse], part).astype(np.float64) * term.factor
                    setattr(self.nodes[synapse], part, grown.astype(self.dtype))

    def settled(self, name: str, term: _Term) -> _Term:
        """Put the factor into the weights, or into a node of its own."""
        if term.factor == 1.0:
            return term
        if term.synapses:
            self.multiply(term)
            return replace(term, factor=1.0)
        if not self.dialect.scales:
            raise InputError(
                f"the factor {term.factor} of what reaches {name!r} meets no weights before it "
                f"that feed it alone, and {self.name} reads no Scale node; use scale=1 there"
            )
        scale = self.nir.Scale(np.full(self.given, term.factor))
        key = self.node(f"{term.node}_scale", scale)
        self.connect([term], key)
        return _Term(key, 1.0)

    def common(self, name: str, terms: list[_Term]) -> tuple[float, list[_Term]]:
        """Return the factor that all terms have; where they differ, each is settled."""
        factors = {term.factor for term in terms}
        if len(factors) == 1:
            return factors.pop(), terms
        return 1.0, [self.settled(name, term) for term in terms]

    def pool(
        self, name: str, size: tuple[int, int], stride: tuple[int, int], terms: list[_Term]
    ) -> _Term:
        factor, terms = self.common(name, terms)
        kind = self.nir.AvgPool2d
        if self.dialect.sums:
            kind = self.nir.SumPool2d
            factor /= size[0] * size[1]
        key = self.node(name, kind(np.array(size), np.array(stride), np.array([0, 0])))
        self.connect(terms, key)
        return _Term(key, factor, self.behind(terms))

    def flatten(self, name: str, terms: list[_Term], given: tuple[int, ...] | None = None) -> _Term:
        given = self.given if given is None else given
        factor, terms = self.common(name, terms)
        # Counted from the end: some readers count the batch as a dimension, and others do not.
        key = self.node(name, self.nir.Flatten(np.array(given), -len(given), -1))
        self.connect(terms, key)
        return _Term(key, factor, self.behind(terms))

    def behind(self, terms: Sequence[_Term]) -> tuple[str, ...]:
        """Return the nodes with weights that all of a sum comes from; none if a part has none."""
        if not all(term.synapses for term in terms):
            return ()
        return tuple(synapse for term in terms for synapse in term.synapses)

    def array(self, tensor: Tensor, factor: float = 1.0) -> Array:
        values: Array = tensor.detach().cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError("the weights hold NaN or infinite values")
        return (values.astype(np.float64) * factor).astype(self.dtype)


KNOWN = (
    clocked.Linear, clocked.Conv2d, nn.Linear, nn.Conv2d, clocked.LIF, clocked.Recurrent,
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten,
)  # fmt: skip
SYNAPSES = (clocked.Linear, clocked.Conv2d, nn.Linear, nn.Conv2d)


def _neurons_of(layer: nn.Module) -> clocked.LIF | None:
    """Return the LIF neurons of a layer, if it is one of neurons."""
    neuron = layer.neuron if isinstance(layer, clocked.Recurrent) else layer
    return neuron if isinstance(neuron, clocked.LIF) else None


def _check(name: str, layer: nn.Module) -> None:
    """Refuse a layer that has no node.

    Raises:
        InputError: naming it.
    """
    kind = _kind(layer)
    if kind not in KNOWN:
        raise InputError(
            f"layer {name!r} is a {kind.__module__}.{kind.__name__}, which has no NIR node; known "
            "are " + ", ".join(sorted({k.__name__ for k in KNOWN}))
        )
    if isinstance(layer, clocked.Recurrent):
        if _kind(layer.neuron) is not clocked.LIF or _kind(layer.synapse) not in SYNAPSES:
            raise InputError(
                f"recurrent layer {name!r} has {layer.neuron} and the synapse {layer.synapse}; "
                "one of clocked.LIF neurons and of one linear or convolutional layer has NIR nodes"
            )
        _check(f"{name}.neuron", layer.neuron)
    if isinstance(layer, clocked.LIF):
        layer.check(name)
        each = [n for n in ("leak", "threshold") if isinstance(getattr(layer, n), Tensor)]
        if each:
            raise InputError(
                f"layer {name!r} has a {' and a '.join(each)} for each neuron; only one for the "
                "whole layer is written"
            )
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        raise InputError(f"layer {name!r} flattens a part of its input; NIR readers take all of it")
    if isinstance(layer, nn.AvgPool2d):
        padded = any(_pair(layer.padding))  # NIR does not say whether the zeros count
        if layer.ceil_mode or padded or layer.divisor_override is not None:
            raise InputError(
                f"layer {name!r} is {layer}, with padding, ceil_mode or divisor_override, which "
                "NIR cannot express"
            )


def _kind(layer: nn.Module) -> type[nn.Module]:
    kind = type(layer)
    if hasattr(layer, "parametrizations"):  # weights that are computed from others
        kind = kind.__mro__[1]
    return kind


def _pair(size: Any) -> tuple[int, int]:
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def _shape(network: nn.Module, given: Sequence[int] | None) -> tuple[int, ...]:
    shape = getattr(network, "input_shape", None) if given is None else given
    if shape is None:
        raise InputError(
            "the network has no attribute input_shape; give input_shape=, the shape of one sample "
            "at one time step"
        )
    whole = isinstance(shape, Sequence) and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or not shape:
        raise InputError(
            f"input_shape is {clipped(shape)}; give the sizes of one sample at one time step, "
            "whole numbers of at least 1, as in (784,)"
        )
    return tuple(shape)


def _measured(
    network: nn.Module,
    neurons: Sequence[clocked.LIF],
    inputs: Tensor | Iterable[Tensor],
    steps: int | None,
) -> dict[str, float]:
    """Measure how far spikes differ between the two resets, and warn."""
    if not isinstance(inputs, Tensor):
        inputs = list(inputs)  # read twice
    modes = [layer.reset_mode for layer in neurons]
    before, output = _spikes(network, neurons, inputs, steps)
    try:
        for layer in neurons:
            layer.reset_mode = "zero"
        after, other = _spikes(network, neurons, inputs, steps)
    finally:
        for layer, mode in zip(neurons, modes, strict=True):
            layer.reset_mode = mode
    total = sum(int(spikes.sum()) for spikes in before)
    differ = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    share = differ / max(total, 1)
    classes = float((output.argmax(1) != other.argmax(1)).double().mean())
    warn_user(
        "this graph is an approximation: its neurons forget their potential at a spike. On the "
        f"given inputs, {differ} spikes came or went, {share:.2%} of the {total} that there were, "
        f"and the predicted class of {classes:.2%} of the samples changed"
    )
    return {"spikes_that_differ": share, "classes_that_differ": classes}


def _spikes(
    network: nn.Module,
    neurons: Sequence[clocked.LIF],
    inputs: Tensor | Sequence[Tensor],
    steps: int | None,
) -> tuple[list[Tensor], Tensor]:
    """Run a network; return all spikes, of every layer and time step in turn, and the output."""
    found: list[Tensor] = []

    def keep(layer: nn.Module, given: Any, activity: Tensor) -> None:
        found.append(activity != 0)

    hooks = [layer.register_forward_hook(keep) for layer in neurons]
    try:
        return found, clocked.run(network, inputs, steps=steps).output
    finally:
        for hook in hooks:
            hook.remove()


def _of_events(nir: Any, network: events.Network, dialect: str) -> Any:
    """Write a network of exact spike times, whose equations are NIR's in continuous time."""
    if dialect != "euler":
        raise InputError(
            f"dialect is {dialect!r}, a reading on a time grid; a network of exact spike times is "
            "written in NIR's own equations only: leave it out"
        )
    layers = network.layers
    nodes: dict[str, Any] = {
        "input": nir.Input(np.array([next(iter(layers.values())).in_features]))
    }
    for name, layer in layers.items():
        refuse_hooks(name, layer)
        shape = (layer.neurons,)
        weight = layer.weight.detach().cpu().numpy().T
        if not np.isfinite(weight).all():
            raise InputError(f"the weights of layer {name!r} hold NaN or infinite values")
        zeros = np.zeros(shape)
        nodes[f"{name}_weights"] = nir.Linear(np.ascontiguousarray(weight))
        nodes[name] = nir.CubaLIF(
            tau_syn=np.full(shape, layer.tau_s),
            tau_mem=np.full(shape, layer.tau),
            r=np.ones(shape),
            v_leak=zeros,
            v_threshold=np.full(shape, layer.theta),
            v_reset=zeros,
            w_in=np.full(shape, layer.tau_s),
        )
    nodes["output"] = nir.Output(np.array(shape))
    names = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)))
