"""From a NIR graph to a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from threefactor import clocked
from threefactor.errors import DataError, InputError, warn_user
from threefactor.interop.nir.dialects import TIME_STEP, Dialect, dialect_of, library, time_step
from threefactor.interop.nir.network import INPUT, GraphNetwork, Times
from threefactor.interop.nir.wiring import Wired, wired
from threefactor.readable import clipped

__all__ = ["from_nir"]

Array = NDArray[Any]
Network = clocked.Network | GraphNetwork
MOST = 2**31  # pixels to a side
USUAL_STEP = 1e-4  # s; what snnTorch and SpikingJelly assume
ROUNDING = 1e-6
"""What single precision may leave of a factor that is 1."""


def from_nir(graph: Any, *, dt: float | None = None, dialect: str = "euler") -> Network:
    """Build a network of a NIR graph, with the reset "zero", which is NIR's.

    The graph may have Affine, Linear, Conv2d, LIF, IF, Flatten, AvgPool2d, SumPool2d and Scale
    nodes, one Input and one Output. Branches are read: what several nodes send to one is summed.
    So are synapses from a layer's neurons back to themselves, which act one step late
    (`clocked.Recurrent`), and graphs within the graph. The neurons of a layer have to have the
    same parameters, v_leak and v_reset 0. A pooling in front of weights becomes a part of them;
    sums, scales and R go into the weights. The network has the precision of the graph's weights.

    Args:
        graph: a `nir.NIRGraph`, or the path of a file that `nir.write` has written.
        dt: the time step of the network in seconds; by default that of `graph.metadata["dt"]`,
            which `to_nir` writes, or 1e-4.
        dialect: in whose conventions the graph is meant, see `DIALECTS`.

    Returns:
        A `clocked.Network` of a graph that is a row, and a `GraphNetwork` of any other.

    Raises:
        InputError: naming the node that the network cannot hold, and why.
        ConfigurationError: if nir is not installed, or the dialect is not known.
        DataError: if the file is absent or cannot be read.

    Warns:
        UserWarning: if a graph with neurons is read as one of snnTorch's own, which may have had
            another reset.

    Source: Pedersen et al. 2024 (NIR).
    """
    nir, conventions = library(), dialect_of(dialect)
    given = None if dt is None else time_step(dt)
    if isinstance(graph, (str, Path)):
        graph = _read(nir, graph)
    if not isinstance(graph, nir.NIRGraph):
        raise InputError(f"the graph is a {type(graph).__name__}; give a nir.NIRGraph or a path")
    nodes = wired(nir, graph)
    if dialect == "snntorch" and TIME_STEP not in graph.metadata:  # not written by `to_nir`
        told = [n for n, node in nodes.nodes.items() if isinstance(node, nir.LIF | nir.IF)]
        if told:
            warn_user(
                f"the neurons {', '.join(told)} are read with the reset 'zero', since a graph does "
                "not tell the reset. snnTorch's exporter writes neurons with other resets in the "
                "same way, also with its default, 'subtract': only a network with "
                "reset_mechanism='zero' gives the same spikes here"
            )
    if given is None:
        given = time_step(graph.metadata.get(TIME_STEP, USUAL_STEP))
    return _Reader(nir, conventions, given).read(nodes)


def _read(nir: Any, path: str | Path) -> Any:
    try:
        return nir.read(path)
    except FileNotFoundError as problem:
        raise DataError(f"there is no file {path}") from problem
    except Exception as problem:  # h5py and nir raise many kinds
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise DataError(f"{path} cannot be read as a NIR graph: {reason}") from problem


@dataclass(frozen=True)
class _Value:
    """What a node gives.

    Attributes:
        sources: the layers whose outputs it is the sum of.
        shape: of one sample.
        factor: what it has to be multiplied by, until the next weights.
        pool: side of the squares that the next weights have to average over.
        picture: its shape before it was flattened, if the next weights may flatten it themselves.
        synapses: the layers with weights behind it, if nothing but pooling came after them and no
            other node gets what they give.
        alone: whether one node alone gets it.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    factor: float = 1.0
    pool: int = 1
    picture: tuple[int, ...] | None = None
    synapses: tuple[nn.Module, ...] = ()
    alone: bool = True


class _Reader:
    """Builds layer after layer.

    Attributes:
        now: what reaches the node that is read, and then what it gives.
    """

    now: _Value

    def __init__(self, nir: Any, dialect: Dialect, dt: float) -> None:
        self.nir, self.dialect, self.dt = nir, dialect, dt
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()
        self.sources: dict[str, tuple[str, ...]] = {}

    def read(self, graph: Wired) -> Network:
        nir, nodes = self.nir, graph.nodes
        weights = [
            _real(n, "weight", node.weight) for n, node in nodes.items() if hasattr(node, "weight")
        ]
        if not weights:
            raise InputError("the graph has no node with weights, so there is nothing to run")
        double = np.result_type(*weights) == np.float64
        self.dtype: Any = np.float64 if double else np.float32
        ways = {
            nir.Affine: self.weights, nir.Linear: self.weights, nir.Conv2d: self.weights,
            nir.LIF: self.neurons, nir.IF: self.neurons, nir.Flatten: self.flatten,
            nir.AvgPool2d: self.pooling, nir.SumPool2d: self.pooling, nir.Scale: self.scale,
        }  # fmt: skip
        self.back = {neuron: (name, nodes[name]) for neuron, name in graph.recurrent.items()}
        values: dict[str, _Value] = {}
        for name in graph.order:
            node = nodes[name]
            if isinstance(node, nir.Input):
                shape = input_shape = _shape(name, node.input_type)
                self.now = _Value((INPUT,), shape)
            else:
                self.now = self.merged(name, [values[source] for source in graph.before[name]])
            if isinstance(node, nir.Output):
                self.settle(name)
                self.check_shape(name, node.output_type)
            elif type(node) in ways:
                ways[type(node)](name, node)
            elif not isinstance(node, nir.Input):
                known = ", ".join(sorted(kind.__name__ for kind in ways))
                raise InputError(
                    f"node {name!r} is a nir.{type(node).__name__}, for which there is no layer; "
                    f"known are {known}"
                )
            alone = len(graph.after[name]) == 1
            synapses = self.now.synapses if alone else ()
            values[name] = replace(self.now, alone=alone, synapses=synapses)
        row = [(INPUT,), *((name,) for name in self.layers)]
        if [*self.sources.values(), self.now.sources] == row:
            return clocked.Network(self.layers, input_shape)
        return GraphNetwork(self.layers, self.sources, self.now.sources, input_shape)

    def merged(self, name: str, values: list[_Value]) -> _Value:
        """Return the sum of what several nodes give."""
        if len(values) == 1:
            return values[0]
        equal = len({value.factor for value in values}) == 1
        parts = []
        for self.now in values:
            self.place(name)
            if not equal:
                self.settle(name)
            parts.append(self.now)
        if len({part.shape for part in parts}) > 1:
            raise InputError(
                f"node {name!r} gets a sum of the shapes {sorted({part.shape for part in parts})}; "
                "expected one shape"
            )
        whole = all(part.synapses for part in parts)
        return replace(
            parts[0],
            sources=tuple(source for part in parts for source in part.sources),
            synapses=tuple(one for part in parts for one in part.synapses) if whole else (),
            alone=False,
        )

    def become(self, **changes: Any) -> None:
        self.now = replace(self.now, **changes)

    def add(self, name: str, layer: nn.Module) -> None:
        name = name.replace(".", "_") or "node"
        taken = {"input_shape", "sources", "output"}
        while name in self.layers or hasattr(clocked.Network, name) or name in taken:
            name = f"{name}_"
        self.layers[name] = layer.to(torch.float64 if self.dtype is np.float64 else torch.float32)
        self.sources[name] = self.now.sources
        self.become(sources=(name,), synapses=(), alone=True)

    def weights(self, name: str, node: Any) -> None:
        layer, made = self.made(name, node)
        self.add(name, layer)
        self.become(shape=made, factor=1.0, pool=1, picture=None, synapses=(layer,))

    def made(self, name: str, node: Any) -> tuple[nn.Module, tuple[int, ...]]:
        """Make the layer of a node with weights; return it with the shape of what it gives."""
        if isinstance(node, self.nir.Conv2d):
            return self.convolution(name, node)
        weight = self.array(name, "weight", node.weight, 2)
        if self.now.shape != weight.shape[1:]:
            raise InputError(
                f"node {name!r} has weights for {weight.shape[1]} values, and gets {self.now.shape}"
            )
        bias = getattr(node, "bias", None)
        pool = self.now.pool
        layer = clocked.Linear(weight.shape[1], weight.shape[0], bias is not None, pool=pool)
        # The layer flattens pictures itself.
        return self.filled(name, layer, weight, bias), (len(weight),)

    def convolution(self, name: str, node: Any) -> tuple[nn.Module, tuple[int, ...]]:
        weight = self.array(name, "weight", node.weight, 4)
        if isinstance(node.padding, str) and node.padding != "valid":
            raise InputError(
                f"node {name!r} has padding {node.padding!r}; give the number of zeros at each "
                "border"
            )
        padding = (0, 0) if isinstance(node.padding, str) else _pair(name, "padding", node.padding)
        groups = _whole(name, "groups", node.groups, 1)[0]
        units = weight.shape[0] % groups == 0
        if len(self.now.shape) != 3 or not units or self.now.shape[0] != weight.shape[1] * groups:
            raise InputError(
                f"node {name!r} has weights {weight.shape} in {groups} groups, and gets "
                f"{self.now.shape}"
            )
        if self.now.picture is not None:
            raise InputError(f"node {name!r} is a convolution of what was flattened before")
        if node.input_shape is not None:
            known = _pair(name, "input_shape", node.input_shape, 1)
            if known != self.now.shape[1:]:
                raise InputError(
                    f"node {name!r} is made for pictures of {known}, and gets {self.now.shape[1:]}"
                )
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        stride = _pair(name, "stride", node.stride, least=1)
        dilation = _pair(name, "dilation", node.dilation, least=1)
        sides = zip(self.now.shape[1:], padding, dilation, kernel, stride, strict=True)
        made = [(n + 2 * p - d * (k - 1) - 1) // st + 1 for n, p, d, k, st in sides]
        if min(made) < 1:
            raise InputError(
                f"the kernel of node {name!r} is larger than {self.now.shape}, its input"
            )
        layer = clocked.Conv2d(
            self.now.shape[0], weight.shape[0], kernel, stride, padding, dilation, groups,
            node.bias is not None, pool=self.now.pool,
        )  # fmt: skip
        return self.filled(name, layer, weight, node.bias), (len(weight), *made)

    def filled(self, name: str, layer: Any, weight: Array, bias: Any) -> nn.Module:
        """Give a layer its values."""
        with torch.no_grad():
            layer.to(torch.float64)
            layer.weight.copy_(torch.from_numpy(weight.astype(np.float64) * self.now.factor))
            if bias is not None:
                shift = self.array(name, "bias", bias, 1)
                if len(shift) != len(weight):
                    raise InputError(
                        f"node {name!r} has {len(weight)} units and {len(shift)} biases"
                    )
                layer.bias.copy_(torch.from_numpy(shift.astype(np.float64)))
        return layer  # type: ignore[no-any-return]

    def neurons(self, name: str, node: Any) -> None:
        self.place(name)
        spiking = isinstance(node, self.nir.IF)
        shape = _real(name, "v_threshold", node.v_threshold).shape
        if shape not in (self.now.shape, ()):
            raise InputError(
                f"node {name!r} has neurons of shape {shape}, and gets {self.now.shape}"
            )
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
        self.times(name, factor)
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
        layer: nn.Module = clocked.LIF(leak, float(level), reset="zero")
        if name in self.back:
            self.become(factor=1.0)
            synapse, made = self.made(*self.back[name])
            if made != self.now.shape:
                raise InputError(
                    f"node {self.back[name][0]!r} brings the spikes of {name!r} back in the shape "
                    f"{made}; expected {self.now.shape}"
                )
            _amplify((synapse,), factor)
            layer = clocked.Recurrent(layer, synapse)
        self.add(name, layer)

    def times(self, name: str, factor: float = 1.0) -> None:
        """Multiply what arrives by the factor that is due, in the weights if there are any."""
        factor *= self.now.factor
        self.become(factor=1.0)
        if abs(factor - 1.0) <= ROUNDING:
            return
        if self.now.synapses:
            _amplify(self.now.synapses, factor)
        else:
            self.add(f"{name}_times", Times(factor))

    def flatten(self, name: str, node: Any) -> None:
        shape = self.now.shape
        dims = len(shape)
        start = _whole(name, "start_dim", node.start_dim, -dims)[0]
        end = _whole(name, "end_dim", node.end_dim, -dims)[0]
        known = _shape(name, node.input_type, missing=True)
        if known not in (None, shape):
            raise InputError(f"node {name!r} is made for {known}, and gets {shape}")
        if start not in (0, -dims) or end not in (-1, dims - 1):
            raise InputError(
                f"node {name!r} flattens the dimensions {start} to {end} of {shape}; all of "
                f"them, 0 to -1 or {-dims} to -1, can be read (the batch does not count)"
            )
        if dims > 1:
            self.become(picture=shape, shape=(int(np.prod(shape)),))

    def pooling(self, name: str, node: Any) -> None:
        size = _pair(name, "kernel_size", node.kernel_size, least=1)
        stride = _pair(name, "stride", node.stride, least=1)
        if any(_pair(name, "padding", node.padding)):
            raise InputError(
                f"node {name!r} pads with zeros, of which NIR does not say whether they count"
            )
        self.place(name)
        shape = self.now.shape
        if len(shape) != 3 or any(n < k for n, k in zip(shape[1:], size, strict=True)):
            raise InputError(f"node {name!r} pools over {size}, and gets {shape}")
        if isinstance(node, self.nir.SumPool2d):
            self.become(factor=self.now.factor * size[0] * size[1])
        sides = [(n - k) // s + 1 for n, k, s in zip(shape[1:], size, stride, strict=True)]
        synapses = self.now.synapses
        if size == stride and size[0] == size[1] and not synapses:
            self.become(pool=size[0])  # a part of the weights that come next
        else:
            self.add(name, nn.AvgPool2d(size, stride))
            self.become(synapses=synapses)
        self.become(shape=(shape[0], *sides))

    def scale(self, name: str, node: Any) -> None:
        self.place(name)
        self.become(factor=self.now.factor * _one(name, "scale", node.scale))

    def place(self, name: str) -> None:
        """Add what was put off until weights come, where none do."""
        if self.now.pool > 1:
            self.add(f"{name}_pool", nn.AvgPool2d(self.now.pool))
            self.become(pool=1)
        if self.now.picture is not None:
            synapses = self.now.synapses
            self.add(f"{name}_flatten", nn.Flatten())
            self.become(picture=None, synapses=synapses)

    def settle(self, name: str) -> None:
        """Leave nothing to be done to what arrives."""
        self.place(name)
        last = self.layers.get(self.now.sources[0]) if self.now.alone else None
        if isinstance(last, clocked.LIF) and self.now.factor > 0.0:
            last.scale *= self.now.factor
            self.become(factor=1.0)
        self.times(name)

    def check_shape(self, name: str, types: Any) -> None:
        known = _shape(name, types, missing=True)
        if known not in (None, self.now.shape):
            raise InputError(f"node {name!r} expects {known}, and gets {self.now.shape}")

    def array(self, name: str, part: str, values: Any, dims: int) -> Array:
        found = _real(name, part, values)
        if found.ndim != dims:
            raise InputError(
                f"{part} of node {name!r} has shape {found.shape}; expected {dims} dimensions"
            )
        if not np.isfinite(found).all():
            raise InputError(f"{part} of node {name!r} holds NaN or infinite values")
        return found


def _amplify(layers: Sequence[nn.Module], factor: float) -> None:
    with torch.no_grad():
        for parameter in (p for layer in layers for p in layer.parameters()):
            parameter.copy_(parameter.double() * factor)


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
