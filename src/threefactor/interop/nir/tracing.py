"""What the forward pass of a network does with its layers: which gets what from which."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.prune import BasePruningMethod

from threefactor import clocked
from threefactor.clocked.foreign import layers_of
from threefactor.errors import InputError
from threefactor.interop.nir.network import INPUT

__all__ = ["Placed", "Terms", "refuse_hooks", "traced"]

Terms = dict[str, float]
"""A sum: a factor for the output of each layer in it, by name; `INPUT` is the network's input."""


@dataclass(frozen=True)
class Placed:
    """A layer at its place in a network.

    Attributes:
        name: in the network; one of its own for what is no module, such as `torch.flatten`.
        layer: the module.
        given: what it gets.
    """

    name: str
    layer: nn.Module
    given: Terms


def traced(network: nn.Module, shape: tuple[int, ...]) -> tuple[list[Placed], Terms]:
    """Follow a network's forward pass; return its layers in order, and what the output is.

    The forward pass may call layers, add and subtract what they give, multiply it by numbers, and
    flatten it. What it does with other things, such as a state of its own, is noticed: the network
    is run beside what was found, for a few time steps.

    Args:
        network: in evaluation mode; left as it is.
        shape: of one sample at one time step.

    Raises:
        InputError: naming what cannot be followed.
    """
    for name, module in network.named_modules():
        refuse_hooks(name, module)
    whole = _Whole(_copied(network))
    where = f"the network is a {type(network).__name__}, whose forward pass"
    try:
        graph = _Tracer().trace(whole)
    except Exception as problem:  # the user's forward pass may raise anything
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise InputError(f"{where} cannot be followed: {reason}. {EXPECTED}") from problem
    placed, output = _Follower(network, where).follow(graph)
    _compare(network, placed, output, shape, where)
    return placed, output


EXPECTED = (
    "Give a row of layers, or a forward pass that calls each layer once, adds what they give, and "
    "multiplies by numbers"
)
STEPS = 4


class _Whole(nn.Module):
    """Stands around the network, so that its own forward pass is called like a layer's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Any:
        return self.network(x)


class _Tracer(fx.Tracer):
    """Goes into containers, and takes layers as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential | _Whole):
            return False
        if isinstance(m, clocked.Neuron | clocked.Synapse | clocked.Recurrent):
            return True
        if type(m).__module__.startswith("torch.nn."):
            return True
        try:
            return any(not name for name, _ in layers_of(m))
        except InputError:
            return True

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        plain = (nn.Sequential.forward, clocked.Network.forward)
        if isinstance(m, nn.Sequential) and type(m).forward in plain and len(args) == 1:
            (x,) = args
            for layer in m:  # clocked.Network also checks the shape of its input
                x = layer(x)
            return x
        return super().call_module(m, forward, args, kwargs)


class _Follower:
    """Reads the trace: which value is which sum of layers' outputs."""

    def __init__(self, network: nn.Module, where: str) -> None:
        self.network, self.where = network, where
        self.placed: dict[str, Placed] = {}
        self.values: dict[fx.Node, Terms | float] = {}

    def follow(self, graph: fx.Graph) -> tuple[list[Placed], Terms]:
        for node in graph.nodes:
            if node.op == "output":
                return list(self.placed.values()), self.terms(node.args[0])
            self.values[node] = self.value(node)
        raise AssertionError("a trace ends with its output")

    def value(self, node: fx.Node) -> Terms | float:
        if node.op == "placeholder":
            return {INPUT: 1.0}
        if node.op == "get_attr":
            return self.number(node)
        if node.op == "call_module":
            name = str(node.target).removeprefix("network").removeprefix(".")
            layer = self.network.get_submodule(name)
            given = self.terms(node.args[0])
            if isinstance(layer, nn.Identity | _DropoutNd):
                return given
            return self.place(name, layer, given)
        if node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            return self.added(node, 1.0)
        if node.target in (operator.sub, operator.isub, torch.sub, "sub", "sub_"):
            return self.added(node, -1.0)
        if node.target in (operator.mul, operator.imul, torch.mul, "mul", "mul_"):
            return self.scaled(*node.args)
        if node.target in (operator.neg, torch.neg, "neg"):
            return self.scaled(node.args[0], -1.0)
        if node.target in (operator.truediv, operator.itruediv, torch.div, "div", "div_"):
            over = self.factor(node.args[1])
            if not over:
                self.refuse(node)
            return self.scaled(node.args[0], 1.0 / over)
        if node.target in (torch.flatten, "flatten"):
            start, end = self.ends(node)
            return self.place(node.name, nn.Flatten(start, end), self.terms(node.args[0]))
        self.refuse(node)

    def place(self, name: str, layer: nn.Module, given: Terms) -> Terms:
        if name in self.placed:
            raise InputError(
                f"layer {name!r} stands in several places; a NIR node stands in one: give each use "
                "a layer of its own"
            )
        self.placed[name] = Placed(name, layer, given)
        return {name: 1.0}

    def ends(self, node: fx.Node) -> tuple[int, int]:
        """Return the first and last dimension that are flattened."""
        rest = [*node.args[1:], *[None] * 2]
        start = node.kwargs.get("start_dim", 0 if rest[0] is None else rest[0])
        end = node.kwargs.get("end_dim", -1 if rest[1] is None else rest[1])
        if not isinstance(start, int) or not isinstance(end, int):
            self.refuse(node)
        return start, end

    def added(self, node: fx.Node, sign: float) -> Terms:
        share = sign * self.factor(node.kwargs.get("alpha", 1.0))
        total = dict(self.terms(node.args[0]))
        for name, factor in self.terms(node.args[1]).items():
            total[name] = total.get(name, 0.0) + share * factor
        return total

    def scaled(self, one: Any, other: Any) -> Terms:
        if not isinstance(self.known(one), dict):
            one, other = other, one
        factor = self.factor(other)
        return {name: factor * share for name, share in self.terms(one).items()}

    def known(self, value: Any) -> Any:
        return self.values[value] if isinstance(value, fx.Node) else value

    def terms(self, value: Any) -> Terms:
        found = self.known(value)
        if not isinstance(found, dict):
            self.refuse(value)
        return found

    def factor(self, value: Any) -> float:
        found = self.known(value)
        if isinstance(found, bool) or not isinstance(found, int | float):
            self.refuse(value)
        return float(found)

    def number(self, node: fx.Node) -> float:
        """Return the one value of a parameter or buffer."""
        place: Any = self.network
        for part in str(node.target).removeprefix("network.").split("."):
            place = getattr(place, part, None)
        if not isinstance(place, Tensor) or place.numel() != 1:
            self.refuse(node)
        return float(place.item())

    def refuse(self, what: Any) -> NoReturn:
        told = what.format_node() if isinstance(what, fx.Node) else repr(what)
        told = str(told).replace("network_", "").replace("network.", "")  # of _Whole
        raise InputError(f"{self.where} has {told:.200}, which NIR cannot express. {EXPECTED}")


@torch.no_grad()
def _compare(
    network: nn.Module,
    placed: list[Placed],
    output: Terms,
    shape: tuple[int, ...],
    where: str,
) -> None:
    """Run a copy of the network beside what was found; they have to agree.

    Raises:
        InputError: if they do not, as where the forward pass keeps a state, or if the network does
            not run.
    """
    weight = next(network.parameters(), None)
    if weight is None or not weight.is_floating_point():
        return
    # In double precision, where rounding does not decide over spikes.
    one, other = _copied(network).double(), _copied(network).double()
    for neuron in (m for copied in (one, other) for m in copied.modules()):
        if isinstance(neuron, clocked.LIF) and isinstance(neuron.threshold, float):
            neuron.threshold *= 1e-3  # so that there is activity in every layer
    names = {layer: name for name, layer in network.named_modules()}
    layers = [
        (p, other.get_submodule(names[p.layer]) if p.layer in names else p.layer) for p in placed
    ]
    generator = torch.Generator().manual_seed(0)
    clocked.reset_state(one)
    clocked.reset_state(other)
    for _ in range(STEPS):
        x = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
        x = x.to(weight.device)
        try:
            expected = one(x.clone())
        except (RuntimeError, ValueError, IndexError) as problem:
            raise InputError(
                f"{where} does not run on samples of its input_shape, {shape}: {problem}"
            ) from problem
        values = {INPUT: x}
        for place, layer in layers:
            values[place.name] = layer(_sum_of(values, place.given))
        found = _sum_of(values, output)
        same = isinstance(expected, Tensor) and expected.shape == found.shape
        if not same or not torch.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise InputError(
                f"{where} does more than its layers and sums say: over some time steps it gives "
                f"other values, as with a state of its own. {EXPECTED}"
            )


def _copied(network: nn.Module) -> nn.Module:
    """Copy a network, pruned weights and other tensors with a graph included."""
    tensors = [t for m in network.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    memo = {id(t): t.detach().clone() for t in tensors if t.grad_fn is not None}
    return copy.deepcopy(network, memo)


def _sum_of(values: dict[str, Tensor], terms: Terms) -> Tensor:
    parts = [factor * values[name] for name, factor in terms.items()]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def refuse_hooks(name: str, layer: nn.Module) -> None:
    """Refuse a layer with forward hooks, but for those of pruning, or with another forward pass.

    Raises:
        InputError: naming it.
    """
    if "forward" in vars(layer):
        raise InputError(
            f"the forward pass of layer {name!r} was replaced on the object, so that its class "
            "does not say what it does; give the plain layer"
        )
    before = [h for h in layer._forward_pre_hooks.values() if not isinstance(h, BasePruningMethod)]
    if before or layer._forward_hooks:
        raise InputError(
            f"layer {name!r} has forward hooks, which may change what it does and which NIR cannot "
            "express; remove them"
        )
