"""From a network to a NIR graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from threefactor import clocked, events
from threefactor.clocked.session import from_rest
from threefactor.errors import InputError, warn_user
from threefactor.interop.nir.dialects import Dialect, dialect_of, library, time_step
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
    weights; pooling becomes a node of its own. Write the graph with `nir.write(path, graph)`.

    A network of exact spike times becomes `Linear` and `CubaLIF` nodes with tau_syn = tau_s,
    tau_mem = 2 tau_s, r = 1 and w_in = tau_s, where a spike is a Dirac pulse: these are the same
    equations in continuous time. NIR has no place for `duration` and `max_spikes`.

    Args:
        network: a row of layers: `clocked.fc`, `conv5`, or any `nn.Sequential` of `clocked.Linear`,
            `clocked.Conv2d`, their PyTorch counterparts, `clocked.LIF`, average pooling,
            `nn.Flatten` and dropout; or an `events.Network`.
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
        A `nir.NIRGraph` from "input" to "output", its nodes named like the layers.

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
    row = list(_row(network))
    for name, layer in row:
        if sum(layer is other for _, other in row) > 1:
            raise InputError(
                f"layer {name!r} stands in several places; a NIR node stands in one: give each use "
                "a layer of its own"
            )
    soft = [
        name
        for name, layer in row
        if type(layer) is clocked.LIF and layer.reset_mode == "subtract" and layer.leak > 0.0
    ]
    if soft and not approximate:
        raise InputError(
            f"a spike of {', '.join(soft)} takes the threshold off the potential, which NIR cannot "
            'express: train with LIF(reset="zero"), or give approximate=True and inputs=, on which '
            "the share of spikes that differ is measured"
        )
    if soft and inputs is None:
        raise InputError(
            "approximate=True needs inputs=, such as a batch of the test set, on which the share "
            "of spikes that differ is measured"
        )
    with evaluating(network):
        graph = _Writer(nir, dialect, conventions, dt).write(row, _shape(network, input_shape))
        if soft:
            assert inputs is not None
            neurons = [layer for _, layer in row if isinstance(layer, clocked.LIF)]
            graph.metadata.update(_measured(network, neurons, inputs, steps))
    return graph


class _Writer:
    """Writes layer after layer.

    Attributes:
        given: shape of what reaches the layer, without the batch.
        factor: what it is to be multiplied by, until the next weights.
        synapse: the last node with weights, if nothing but pooling came after it.
    """

    def __init__(self, nir: Any, name: str, dialect: Dialect, dt: float) -> None:
        self.nir, self.name, self.dialect, self.dt = nir, name, dialect, dt
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.last = ""
        self.given: tuple[int, ...] = ()
        self.factor = 1.0
        self.synapse: Any = None

    def write(self, row: Sequence[tuple[str, nn.Module]], shape: Sequence[int]) -> Any:
        weights = next((p for _, layer in row for p in layer.parameters()), None)
        if weights is None or weights.dtype not in (torch.float32, torch.float64):
            found = "none" if weights is None else weights.dtype
            raise InputError(f"the network's weights are {found}; expected float32 or float64")
        self.dtype = np.dtype(str(weights.dtype).removeprefix("torch."))
        self.add("input", self.nir.Input(np.array(shape)))
        x = weights.detach().new_zeros((1, *shape))
        for name, layer in row:
            with torch.no_grad(), from_rest(layer):
                self.given, x = tuple(x.shape[1:]), layer(x)
            self.layer(name.replace(".", "_"), layer, tuple(x.shape[1:]))
        self.given = tuple(x.shape[1:])
        self.settle("output")
        self.add("output", self.nir.Output(np.array(tuple(x.shape[1:]))))
        return self.nir.NIRGraph(self.nodes, self.edges)

    def add(self, name: str, node: Any) -> None:
        while name in self.nodes or (name == "output" and not isinstance(node, self.nir.Output)):
            name = f"{name}_"
        self.nodes[name] = node
        if self.last:
            self.edges.append((self.last, name))
        self.last = name

    def layer(self, name: str, layer: nn.Module, made: tuple[int, ...]) -> None:
        given = self.given
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            self.weights(name, layer, given)
        elif isinstance(layer, clocked.LIF):
            self.neurons(name, layer)
        elif isinstance(layer, nn.Flatten):
            self.flatten(name, given)
        elif isinstance(layer, nn.AvgPool2d):
            self.pool(name, _pair(layer.kernel_size), _pair(layer.stride))
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            sides = [n // m for n, m in zip(given[1:], made[1:], strict=True)]
            if [m * side for m, side in zip(made[1:], sides, strict=True)] != list(given[1:]):
                raise InputError(
                    f"layer {name!r} pools {given[1:]} to {made[1:]}, with squares of several "
                    "sizes, which NIR cannot express"
                )
            self.pool(name, (sides[0], sides[1]), (sides[0], sides[1]))

    def weights(self, name: str, layer: nn.Linear | nn.Conv2d, given: tuple[int, ...]) -> None:
        side = getattr(layer, "pool", 1)
        if side > 1:
            self.pool(f"{name}_pool", (side, side), (side, side))
            given = (given[0], given[1] // side, given[2] // side)
        # A convolution's kernel is its weight, or what standardisation makes of it.
        weight = layer.kernel() if isinstance(layer, clocked.Conv2d) else layer.weight
        values = self.array(weight, self.factor)
        bias = None if layer.bias is None else self.array(layer.bias)
        self.factor = 1.0
        if isinstance(layer, nn.Linear):
            if len(given) > 1:
                if type(layer) is nn.Linear or np.prod(given) != layer.in_features:
                    raise InputError(
                        f"layer {name!r} has weights for {layer.in_features} values, and gets "
                        f"{given}; put nn.Flatten() before it"
                    )
                self.flatten(f"{name}_flatten", given)
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
        self.add(name, node)
        self.synapse = node

    def neurons(self, name: str, layer: clocked.LIF) -> None:
        threshold = self.dtype.type(layer.threshold)
        if self.dialect.strict:
            threshold = np.nextafter(threshold, self.dtype.type(0))
        if self.factor != 1.0 and self.synapse is not None:  # pooling after the weights
            self.amplify(name, self.factor)
            self.factor = 1.0
        self.settle(name)
        nir, leak, shape = self.nir, layer.leak, self.given
        zeros = np.zeros(shape)
        level = np.full(shape, float(threshold))
        if leak == 1.0 and self.dialect.reads_if:
            r = 1.0 if self.dialect.if_per_step else 1.0 / self.dt
            node = nir.IF(np.full(shape, r), level, zeros)
        else:
            if leak == 0.0 and not self.dialect.zero_leak:
                raise InputError(
                    f"layer {name!r} has leak 0, tau = dt, which {self.name} refuses to read"
                )
            constant = ENDLESS if leak == 1.0 else 1.0 / (1.0 - leak)
            if not self.dialect.uses_r:
                self.amplify(name, constant)
            r = constant if self.dialect.uses_r else 1.0
            node = nir.LIF(
                np.full(shape, constant * self.dt), np.full(shape, r), zeros, level, zeros
            )
        self.add(name, node)
        self.factor, self.synapse = layer.scale, None

    def amplify(self, name: str, factor: float) -> None:
        """Multiply the current that reaches a neuron."""
        if self.synapse is None:
            raise InputError(
                f"layer {name!r} has no weights before it that could take the factor "
                f"{factor} of its current; {self.name} ignores r"
            )
        for part in ("weight", "bias"):
            if hasattr(self.synapse, part):
                grown = getattr(self.synapse, part).astype(np.float64) * factor
                setattr(self.synapse, part, grown.astype(self.dtype))

    def settle(self, name: str) -> None:
        """Write the pending factor as a node, where no weights come to take it."""
        if self.factor == 1.0:
            return
        if not self.dialect.scales:
            raise InputError(
                f"the factor {self.factor} of what reaches {name!r} meets no weights before it, "
                f"and {self.name} reads no Scale node; use scale=1 there"
            )
        self.add(f"{self.last}_scale", self.nir.Scale(np.full(self.given, self.factor)))
        self.factor = 1.0

    def pool(self, name: str, size: tuple[int, int], stride: tuple[int, int]) -> None:
        kind = self.nir.AvgPool2d
        if self.dialect.sums:
            kind = self.nir.SumPool2d
            self.factor /= size[0] * size[1]
        self.add(name, kind(np.array(size), np.array(stride), np.array([0, 0])))

    def flatten(self, name: str, given: tuple[int, ...]) -> None:
        # Counted from the end: some readers count the batch as a dimension, and others do not.
        self.add(name, self.nir.Flatten(np.array(given), -len(given), -1))

    def array(self, tensor: Tensor, factor: float = 1.0) -> Array:
        values: Array = tensor.detach().cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError("the weights hold NaN or infinite values")
        return (values.astype(np.float64) * factor).astype(self.dtype)


def _row(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Walk the layers in the order in which a network without branches calls them."""
    plain = (nn.Sequential.forward, clocked.Network.forward)
    if not isinstance(network, nn.Sequential) or type(network).forward not in plain:
        where = f"layer {prefix.rstrip('.')!r}" if prefix else "the network"
        raise InputError(
            f"{where} is a {type(network).__name__}, whose forward may do anything; give a row of "
            "layers: clocked.fc, conv5, conv9 or an nn.Sequential"
        )
    _refuse_hooks(prefix.rstrip("."), network)
    for name, layer in network._modules.items():  # named_children() leaves out what is used twice
        assert layer is not None
        _refuse_hooks(prefix + name, layer)
        if isinstance(layer, (nn.Identity, nn.modules.dropout._DropoutNd)):
            continue
        if _can_write(prefix + name, layer):
            yield prefix + name, layer
        else:
            yield from _row(layer, f"{prefix}{name}.")


def _can_write(name: str, layer: nn.Module) -> bool:
    """Return whether a layer is one of those that are known; False for a row of layers.

    Raises:
        InputError: if it is neither.
    """
    known = (
        clocked.Linear, clocked.Conv2d, nn.Linear, nn.Conv2d, clocked.LIF,
        nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten,
    )  # fmt: skip
    kind = type(layer)
    if hasattr(layer, "parametrizations"):  # weights that are computed from others
        kind = kind.__mro__[1]
    if kind in known:
        _check_options(name, layer)
        return True
    if isinstance(layer, nn.Sequential):
        return False
    raise InputError(
        f"layer {name!r} is a {kind.__module__}.{kind.__name__}, which has no NIR node; known are "
        + ", ".join(sorted({k.__name__ for k in known}))
    )


def _check_options(name: str, layer: nn.Module) -> None:
    if isinstance(layer, clocked.LIF):
        layer.check(name)
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        raise InputError(f"layer {name!r} flattens a part of its input; NIR readers take all of it")
    if isinstance(layer, nn.AvgPool2d):
        padded = any(_pair(layer.padding))  # NIR does not say whether the zeros count
        if layer.ceil_mode or padded or layer.divisor_override is not None:
            raise InputError(
                f"layer {name!r} is {layer}, with padding, ceil_mode or divisor_override, which "
                "NIR cannot express"
            )


def _refuse_hooks(name: str, layer: nn.Module) -> None:
    before = [h for h in layer._forward_pre_hooks.values() if not isinstance(h, BasePruningMethod)]
    if before or layer._forward_hooks:
        raise InputError(
            f"layer {name!r} has forward hooks, which may change what it does and which NIR cannot "
            "express; remove them"
        )


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
        _refuse_hooks(name, layer)
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
