"""What a network must be so that it can be run and trained layer by layer."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from threefactor.clocked import graph
from threefactor.clocked.foreign import layers_of, refuse_compiled, refuse_hidden_modules
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.pathway import Pathway
from threefactor.clocked.synapse import Synapse
from threefactor.errors import DivergenceError, InputError

__all__ = [
    "check_layers",
    "refuse_chain",
    "refuse_not_finite",
    "whole_steps",
]

_WRAPPERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def whole_steps(steps: int) -> int:
    """Return a number of time steps as an int, or refuse it."""
    whole = isinstance(steps, (int, float, numbers.Integral)) and not isinstance(steps, bool)
    if not whole or not math.isfinite(steps) or int(steps) != steps or steps < 1:
        raise InputError(f"steps is {steps}; give a whole number of time steps of at least 1")
    return int(steps)


def check_layers(network: nn.Module) -> None:
    """Refuse a network that cannot be run or trained layer by layer.

    Raises:
        InputError: naming the layer or setting, and what to do.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}; expected a torch.nn.Module")
    for name, module in network.named_modules():
        refuse_compiled(name, module)
        wrapper, inside = type(module).__name__, f"{name}.module" if name else "network.module"
        if wrapper in _WRAPPERS:
            raise InputError(
                f"{f'layer {name!r}' if name else 'the network'} is wrapped in {wrapper}, which "
                "waits for a backward pass that rules do not make. Build the rule on the module "
                f"inside ({inside}) and let it share the batches: rule.join(threefactor.World())"
            )
    refuse_hidden_modules(network)
    for name, layer in layers_of(network):
        if isinstance(layer, Neuron):
            layer.check(name)
    first = next(iter(network.named_parameters()), None)
    if first is None:
        raise InputError("the network has no parameters")
    for name, parameter in network.named_parameters():
        if parameter.dtype != first[1].dtype or parameter.device != first[1].device:
            raise InputError(
                f"parameter {name!r} is {parameter.dtype} on {parameter.device}, and {first[0]!r} "
                f"is {first[1].dtype} on {first[1].device}; a network needs one dtype and one "
                "device, use network.to(...)"
            )
    if not first[1].is_floating_point() or first[1].is_meta:
        raise InputError(
            f"the network's parameters are {first[1].dtype} on {first[1].device}; "
            "expected real floating-point numbers on a device that holds them"
        )


def refuse_not_finite(what: str, values: Tensor, network: nn.Module, *, masks: bool = True) -> None:
    """Refuse values of a time step that are NaN or infinite, and say where they come from.

    Args:
        what: the values, in words.
        values: any shape.
        network: whose parameters or buffers may be the reason.
        masks: whether the values may be -infinity while all parameters are finite: networks switch
            classes and neurons off by it.

    Raises:
        DivergenceError: naming the parameters that hold NaN or infinity.
    """
    wrong = ~torch.isfinite(values)
    if not wrong.any():
        return  # their sum alone was not finite
    kind, found = "parameters", _not_finite(network.named_parameters())
    if masks and not found:
        wrong &= values != -math.inf
        if not wrong.any():
            return
    if not found:
        kind, found = "buffers", _not_finite(network.named_buffers())
    reason = (
        f"so do the {kind} {', '.join(found)}: load others, or lower the learning rate, if "
        "learning made them so"
        if found
        else f"all parameters are finite: the numbers outgrew {values.dtype}, or an operation "
        "between the layers made them, as a division by zero does"
    )
    raise DivergenceError(
        f"{what} holds NaN or infinity ({int(wrong.sum())} of {values.numel()} values); {reason}"
    )


def _not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Name the tensors that hold NaN or infinity, with how many of them."""
    counts = [(name, int((~torch.isfinite(x)).sum()), x.numel()) for name, x in named]
    return [f"{name!r} ({bad} of {size} values)" for name, bad, size in counts if bad]


def refuse_chain(network: nn.Module, ignored: set[int], pathway: Pathway, x: Tensor) -> None:
    """Refuse an input that depends on other weights with no hidden neuron between."""
    nodes = list(graph.behind([graph.node_of(x)]))
    names = {id(p): name for name, p in network.named_parameters() if id(p) not in ignored}
    sources = [n.pathway.name for n in nodes if hasattr(n, "pathway")]
    leaves = [names.get(id(graph.parameter_of(n)), "") for n in nodes]
    parameters = sorted(filter(None, leaves))
    if not sources and not parameters:
        return  # the user's own input, of which a gradient is wanted
    way = _between(network, sources, pathway.name) or ", ".join(
        sorted({graph.name_of(n) for n in nodes if n.next_functions and not graph.is_layer(n)})
    )
    if sources:
        raise InputError(
            f"layer {pathway.name!r} gets its input from layer {sources[0]!r} with no hidden "
            f"neuron between them (only {way or 'nothing at all'}), so that the error of "
            f"{pathway.name!r} would be backpropagated through its weights. "
            "A rule of direct feedback does not do that: put neurons such as clocked.LIF "
            'between the two, train with SpatialBP, or allow it with chain="within-layers"'
        )
    raise InputError(
        f"the parameters {parameters} lie between the neurons or the input and layer "
        f"{pathway.name!r}, so that they would learn by backpropagation through its weights. "
        "A rule of direct feedback does not do that: freeze them with requires_grad_(False), "
        'train with SpatialBP, or allow it with chain="within-layers"'
    )


def _between(network: nn.Module, sources: list[str], name: str) -> str:
    """Describe the modules that stand between two layers of a network, by its order."""
    modules = list(network.named_modules())
    names = [n for n, _ in modules]
    if not sources or names.index(sources[0]) > names.index(name):
        return ""
    within = modules[names.index(sources[0]) + 1 : names.index(name)]
    return ", ".join(
        f"{n!r}, a {type(m).__name__}"
        for n, m in within
        if not isinstance(m, Synapse | Neuron) and not any(True for _ in m.children())
    )
