"""From a NIR graph to a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from threefactor import clocked
from threefactor.errors import DataError, InputError
from threefactor.interop.nir.dialects import Dialect, dialect_of, library, time_step
from threefactor.readable import clipped

__all__ = ["from_nir"]

Array = NDArray[Any]
MOST = 2**31  # pixels to a side
ROUNDING = 1e-6
"""What single precision may leave of a factor that is 1."""


def from_nir(graph: Any, *, dt: float = 1e-4, dialect: str = "euler") -> clocked.Network:
    """Build a clocked network of a NIR graph, with the reset "zero", which is NIR's.

    The graph has to be a row from its one input to its one output, of Affine, Linear, Conv2d, LIF,
    IF, Flatten, AvgPool2d, SumPool2d and Scale nodes. The neurons of a layer have to have the same
    parameters, v_leak and v_reset 0. A pooling in front of weights becomes a part of them; sums,
    scales and R go into the weights. The network has the precision of the graph's weights.

    Args:
        graph: a `nir.NIRGraph`, or the path of a file that `nir.write` has written.
        dt: the time step of the network in seconds.
        dialect: in whose conventions the graph is meant, see `DIALECTS`.

    Raises:
        InputError: naming the node that a clocked network cannot hold, and why.
        ConfigurationError: if nir is not installed, or the dialect is not known.
        DataError: if the file is absent or cannot be read.

    Source: Pedersen et al. 2024 (NIR).
    """
    nir, conventions, dt = library(), dialect_of(dialect), time_step(dt)
    if isinstance(graph, (str, Path)):
        graph = _read(nir, graph)
    if not isinstance(graph, nir.NIRGraph):
        raise InputError(f"the graph is a {type(graph).__name__}; give a nir.NIRGraph or a path")
    return _Reader(nir, conventions, dt).read(_row(nir, graph))


def _read(nir: Any, path: str | Path) -> Any:
    try:
        return nir.read(path)
    except FileNotFoundError as problem:
        raise DataError(f"there is no file {path}") from problem
    except Exception as problem:  # h5py and nir raise many kinds
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise DataError(f"{path} cannot be read as a NIR graph: {reason}") from problem


def _row(nir: Any, graph: Any) -> list[tuple[str, Any]]:
    """Return the nodes in order, or refuse a graph that is not a row.

    Raises:
        InputError: naming the nodes of a cycle or branch.
    """
    if not isinstance(graph.nodes, dict) or not all(isinstance(n, str) for n in graph.nodes):
        raise InputError(f"the graph's nodes are {clipped(graph.nodes)}; expected nodes by name")
    pairs = graph.edges if isinstance(graph.edges, (list, tuple, set)) else [graph.edges]
    for edge in pairs:
        if not isinstance(edge, (list, tuple)) or len(edge) != 2:
            raise InputError(f"the graph has the edge {clipped(edge)}; expected two names of nodes")
    before: dict[str, set[str]] = {name: set() for name in graph.nodes}
    after: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in pairs:
        if source not in before or target not in before:
            raise InputError(f"the edge {source!r} -> {target!r} leads to a node that is not there")
        before[target].add(source)
        after[source].add(target)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as problem:
        raise InputError(
            f"the nodes {' -> '.join(map(repr, problem.args[1]))} form a cycle; recurrent graphs "
            "cannot be read"
        ) from None
    for kind in (nir.Input, nir.Output):
        found = [name for name in order if isinstance(graph.nodes[name], kind)]
        if len(found) != 1:
            raise InputError(
                f"the graph has the {kind.__name__} nodes {found}; expected one node of this kind"
            )
    for name in order:
        node = graph.nodes[name]
        for kind, ends, way in ((nir.Input, before, "from"), (nir.Output, after, "to")):
            wanted = 0 if isinstance(node, kind) else 1
            if len(ends[name]) != wanted:
                raise InputError(
                    f"node {name!r} has {len(ends[name])} edges {way} other nodes, "
                    f"{sorted(ends[name])}, expected {wanted}; only graphs without branches can be "
                    "read"
                )
    return [(name, graph.nodes[name]) for name in order]


class _Reader:
    """Builds layer after layer.

    Attributes:
        shape: of one sample at this place of the row.
        factor: what arrives here has to be multiplied by, until the next weights.
        pool: side of the squares that the next weights have to average over.
        synapse: the last layer with weights, if nothing but pooling came after it.
    """

    def __init__(self, nir: Any, dialect: Dialect, dt: float) -> None:
        self.nir, self.dialect, self.dt = nir, dialect, dt
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()
        self.shape: tuple[int, ...] = ()
        self.factor = 1.0
        self.pool = 1
        self.picture: tuple[int, ...] | None = None
        self.synapse: nn.Module | None = None

    def read(self, row: Sequence[tuple[str, Any]]) -> clocked.Network:
        nir = self.nir
        weights = [_real(n, "weight", node.weight) for n, node in row if hasattr(node, "weight")]
        if not weights:
            raise InputError("the graph has no node with weights, so there is nothing to run")
        double = np.result_type(*weights) == np.float64
        self.dtype: Any = np.float64 if double else np.float32
        ways = {
            nir.Affine: self.affine, nir.Linear: self.affine, nir.Conv2d: self.conv,
            nir.LIF: self.neurons, nir.IF: self.neurons, nir.Flatten: self.flatten,
            nir.AvgPool2d: self.pooling, nir.SumPool2d: self.pooling, nir.Scale: self.scale,
        }  # fmt: skip
        for name, node in row:
            if isinstance(node, nir.Input):
                self.shape = input_shape = _shape(name, node.input_type)
            elif isinstance(node, nir.Output):
                self.settle(name)
                self.check_shape(name, node.output_type)
            elif type(node) in ways:
                ways[type(node)](name, node)
            else:
                known = ", ".join(sorted(kind.__name__ for kind in ways))
                raise InputError(
                    f"node {name!r} is a nir.{type(node).__name__}, for which there is no layer; "
                    f"known are {known}"
                )
        return clocked.Network(self.layers, input_shape)

    def add(self, name: str, layer: nn.Module) -> None:
        name = name.replace(".", "_") or "node"
        while name in self.layers or hasattr(clocked.Network, name) or name == "input_shape":
            name = f"{name}_"
        self.layers[name] = layer.to(torch.float64 if self.dtype is np.float64 else torch.float32)

    def affine(self, name: str, node: Any) -> None:
        weight = self.array(name, "weight", node.weight, 2)
        if self.shape != weight.shape[1:]:
            raise InputError(
                f"node {name!r} has weights for {weight.shape[1]} values, and gets {self.shape}"
            )
        bias = getattr(node, "bias", None)
        layer = clocked.Linear(weight.shape[1], weight.shape[0], bias is not None, pool=self.pool)
        if self.picture is not None and self.pool == 1:
            self.picture = None  # the layer flattens pictures itself
        self.fill(name, layer, weight, bias)

    def conv(self, name: str, node: Any) -> None:
        weight = self.array(name, "weight", node.weight, 4)
        if isinstance(node.padding, str) and node.padding != "valid":
            raise InputError(
                f"node {name!r} has padding {node.padding!r}; give the number of zeros at each "
                "border"
            )
        padding = (0, 0) if isinstance(node.padding, str) else _pair(name, "padding", node.padding)
        groups = _whole(name, "groups", node.groups, 1)[0]
        units = weight.shape[0] % groups == 0
        if len(self.shape) != 3 or not units or self.shape[0] != weight.shape[1] * groups:
            raise InputError(
                f"node {name!r} has weights {weight.shape} in {groups} groups, and gets "
                f"{self.shape}"
            )
        if self.picture is not None:
            raise InputError(f"node {name!r} is a convolution of what was flattened before")
        if node.input_shape is not None:
            known = _pair(name, "input_shape", node.input_shape, 1)
            if known != self.shape[1:]:
                raise InputError(
                    f"node {name!r} is made for pictures of {known}, and gets {self.shape[1:]}"
                )
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        stride = _pair(name, "stride", node.stride, least=1)
        dilation = _pair(name, "dilation", node.dilation, least=1)
        sides = zip(self.shape[1:], padding, dilation, kernel, stride, strict=True)
        made = [(n + 2 * p - d * (k - 1) - 1) // st + 1 for n, p, d, k, st in sides]
        if min(made) < 1:
            raise InputError(f"the kernel of node {name!r} is larger than {self.shape}, its input")
        layer = clocked.Conv2d(
            self.shape[0], weight.shape[0], kernel, stride, padding, dilation, groups,
            node.bias is not None, pool=self.pool,
        )  # fmt: skip
        self.fill(name, layer, weight, node.bias, made)

    def fill(
        self, name: str, layer: Any, weight: Array, bias: Any, sides: Sequence[int] = ()
    ) -> None:
        """Give a layer its values, and put it behind the others."""
        with torch.no_grad():
            layer.to(torch.float64)
            layer.weight.copy_(torch.from_numpy(weight.astype(np.float64) * self.factor))
            if bias is not None:
                shift = self.array(name, "bias", bias, 1)
                if len(shift) != len(weight):
                    raise InputError(
                        f"node {name!r} has {len(weight)} units and {len(shift)} biases"
                    )
                layer.bias.copy_(torch.from_numpy(shift.astype(np.float64)))
        self.add(name, layer)
        self.shape = (len(weight), *sides)
        self.factor, self.pool, self.picture, self.synapse = 1.0, 1, None, layer

    def neurons(self, name: str, node: Any) -> None:
        self.place(name)
        spiking = isinstance(node, self.nir.IF)
        shape = _real(name, "v_threshold", node.v_threshold).shape
        if shape not in (self.shape, ()):
            raise InputError(f"node {name!r} has neurons of shape {shape}, and gets {self.shape}")
        for part in ("v_leak", "v_reset")[spiking:]:
            value = _one(name, part, getattr(node, part))
            if value != 0.0:
                raise InputError(f"node {name!r} has {part} {value}; our neurons have 0")
        r, threshold = _one(name, "r", node.r), _one(name, "v_threshold", node.v_threshold)
        if spiking:
            leak, factor = 1.0, r if self.dialect.if_per_step else r * self.dt
            if r == 1.0 and factor != 1.0:
                raise InputError(
                    f"node {name!r} is an IF neuron with r = 1, of which a step of {self.dt} s "
                    "takes in so small a share of the current that it is likely meant per step: "
                    'give dialect="norse", or dt=1'
                )
        else:
            tau = _one(name, "tau", node.tau)
            if not tau >= self.dt * (1.0 - ROUNDING):
                raise InputError(
                    f"node {name!r} has tau {tau}, below the time step dt={self.dt}; give a "
                    "smaller dt"
                )
            # tau is dt / (1 - leak), rounded.
            leak, factor = max(round(1.0 - self.dt / tau, 12), 0.0), self.dt / tau
            if self.dialect.uses_r:
                factor *= r
            elif r != 1.0:
                raise InputError(f"node {name!r} has r {r}, which the dialect ignores; give r = 1")
        factor, self.factor = factor * self.factor, 1.0
        if abs(factor - 1.0) > ROUNDING:
            self.amplify(name, factor)
        if not threshold > 0.0:
            raise InputError(
                f"node {name!r} has v_threshold {threshold}; expected a number above 0"
            )
        if not threshold < float(np.finfo(self.dtype).max):
            raise InputError(
                f"node {name!r} has v_threshold {threshold}, too large for its weights"
            )
        level = self.dtype(threshold)
        if self.dialect.strict and not float(level) > threshold:
            level = np.nextafter(level, self.dtype(np.inf))  # ours spike at the threshold, too
        self.add(name, clocked.LIF(leak, float(level), reset="zero"))
        self.synapse = None

    def amplify(self, name: str, factor: float) -> None:
        if self.synapse is None:
            raise InputError(
                f"node {name!r} takes its current times {factor}, and has no weights before it "
                "that could take the factor"
            )
        with torch.no_grad():
            for parameter in self.synapse.parameters():
                parameter.copy_(parameter.double() * factor)

    def flatten(self, name: str, node: Any) -> None:
        dims = len(self.shape)
        start = _whole(name, "start_dim", node.start_dim, -dims)[0]
        end = _whole(name, "end_dim", node.end_dim, -dims)[0]
        known = _shape(name, node.input_type, missing=True)
        if known not in (None, self.shape):
            raise InputError(f"node {name!r} is made for {known}, and gets {self.shape}")
        if start not in (0, -dims) or end not in (-1, dims - 1):
            raise InputError(
                f"node {name!r} flattens the dimensions {start} to {end} of {self.shape}; all of "
                f"them, 0 to -1 or {-dims} to -1, can be read (the batch does not count)"
            )
        if dims > 1:
            self.picture = self.shape
            self.shape = (int(np.prod(self.shape)),)

    def pooling(self, name: str, node: Any) -> None:
        size = _pair(name, "kernel_size", node.kernel_size, least=1)
        stride = _pair(name, "stride", node.stride, least=1)
        if any(_pair(name, "padding", node.padding)):
            raise InputError(
                f"node {name!r} pads with zeros, of which NIR does not say whether they count"
            )
        self.place(name)
        if len(self.shape) != 3 or any(n < k for n, k in zip(self.shape[1:], size, strict=True)):
            raise InputError(f"node {name!r} pools over {size}, and gets {self.shape}")
        if isinstance(node, self.nir.SumPool2d):
            self.factor *= size[0] * size[1]
        sides = [(n - k) // s + 1 for n, k, s in zip(self.shape[1:], size, stride, strict=True)]
        self.shape = (self.shape[0], *sides)
        if size == stride and size[0] == size[1] and self.synapse is None:
            self.pool = size[0]  # a part of the weights that come next
        else:
            self.add(name, nn.AvgPool2d(size, stride))

    def scale(self, name: str, node: Any) -> None:
        self.place(name)
        self.factor *= _one(name, "scale", node.scale)

    def place(self, name: str) -> None:
        """Add what was put off until weights come, where none do."""
        if self.pool > 1:
            self.add(f"{name}_pool", nn.AvgPool2d(self.pool))
            self.pool = 1
        if self.picture is not None:
            self.add(f"{name}_flatten", nn.Flatten())
            self.picture = None

    def settle(self, name: str) -> None:
        self.place(name)
        if self.factor == 1.0:
            return
        last = next(reversed(self.layers.values()), None)
        if not isinstance(last, clocked.LIF) or not self.factor > 0.0:
            raise InputError(
                f"what reaches node {name!r} is to be multiplied by {self.factor}, and no weights "
                "come that could take the factor"
            )
        last.scale, self.factor = self.factor, 1.0

    def check_shape(self, name: str, types: Any) -> None:
        known = _shape(name, types, missing=True)
        if known not in (None, self.shape):
            raise InputError(f"node {name!r} expects {known}, and gets {self.shape}")

    def array(self, name: str, part: str, values: Any, dims: int) -> Array:
        found = _real(name, part, values)
        if found.ndim != dims:
            raise InputError(
                f"{part} of node {name!r} has shape {found.shape}; expected {dims} dimensions"
            )
        if not np.isfinite(found).all():
            raise InputError(f"{part} of node {name!r} holds NaN or infinite values")
        return found


def _real(name: str, part: str, values: Any) -> Array:
    """Return real numbers, at least one, as an array.

    Raises:
        InputError: naming the part of the node that holds something else.
    """
    try:
        found = np.asarray(values)
    except Exception:  # ragged lists and objects raise many kinds
        found = np.asarray(None)
    if found.dtype.kind not in "fiu" or not found.size:
        raise InputError(f"{part} of node {name!r} is {clipped(values)}; expected real numbers")
    return found


def _whole(name: str, part: str, values: Any, least: int) -> list[int]:
    """Return whole numbers as a list."""
    found = np.atleast_1d(_real(name, part, values))
    flat = found.ravel().tolist()
    if found.ndim != 1 or not all(least <= n < MOST and int(n) == n for n in flat):
        raise InputError(
            f"{part} of node {name!r} is {clipped(flat)}; expected whole numbers of at least "
            f"{least}, below {MOST}"
        )
    return [int(n) for n in flat]


def _shape(name: str, types: Any, *, missing: bool = False) -> Any:
    """Return the one shape that an input or output type names; None if it may be missing."""
    values = list(types.values()) if isinstance(types, dict) else []
    if len(values) == 1 and values[0] is not None:
        return tuple(_whole(name, "the shape", values[0], 1))
    if missing:
        return None
    raise InputError(f"node {name!r} does not say the shape of the input: {clipped(types)}")


def _one(name: str, part: str, values: Any) -> float:
    """Return the one value that all neurons of a node have."""
    found = np.unique(_real(name, part, values))
    if len(found) > 1:
        raise InputError(
            f"{part} of node {name!r} has {len(found)} values, such as {found[0]} and {found[1]}; "
            "the neurons of a layer have one"
        )
    if not np.isfinite(found[0]):
        raise InputError(f"{part} of node {name!r} is {found[0]}; expected a finite number")
    return float(found[0])


def _pair(name: str, part: str, values: Any, least: int = 0) -> tuple[int, int]:
    found = _whole(name, part, values, least)
    if len(found) > 2:
        raise InputError(f"{part} of node {name!r} is {clipped(found)}; expected one number or two")
    return found[0], found[-1]
