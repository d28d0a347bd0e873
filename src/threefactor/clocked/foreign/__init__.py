"""Networks of other libraries' layers, trained as they are.

Every layer of such a network that has weights or neurons gets a view: an object that rules can work
with, and that holds the very same parameters and state. Nothing of it is in the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from threefactor.clocked.foreign import norse, sinabs, snntorch, spikingjelly
from threefactor.clocked.foreign.affine import (
    ForeignSynapse,
    StandIn,
    affine_adapter,
    note_view,
    view_of,
)
from threefactor.clocked.foreign.neurons import ForeignNeuron, register_neuron, registered
from threefactor.clocked.foreign.spikingjelly import single_step
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.synapse import Synapse
from threefactor.errors import InputError

__all__ = [
    "ForeignNeuron",
    "ForeignSynapse",
    "layers_of",
    "refuse_compiled",
    "refuse_foreign",
    "refuse_hidden_modules",
    "register_neuron",
    "single_step",
]

DEEPEST = 5
"""Containers in containers that are looked through."""
_UNTRACED = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)


def layers_of(network: nn.Module) -> tuple[tuple[str, Synapse | Neuron], ...]:
    """Return the layers with weights or neurons of a network, by name, in the order of the network.

    A layer of this library is returned itself, one of another library as a view of it. While
    anybody holds the view of a layer, it is the same for all. What lies inside a layer of neurons
    is a part of it: it runs as the layer runs it.

    Args:
        network: any module.

    Raises:
        InputError: naming a layer that cannot be adopted, and the reason.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}; expected a torch.nn.Module")
    found: list[tuple[str, Synapse | Neuron]] = []
    inside: set[nn.Module] = set()
    for name, module in network.named_modules():
        if module in inside:
            continue
        layer = module if isinstance(module, Synapse | Neuron) else _view(name, module)
        if layer is None:
            continue
        found.append((name, layer))
        if isinstance(layer, Neuron) and module._modules:
            inside.update(module.modules())
    return tuple(found)


def refuse_foreign(network: nn.Module, what: str) -> None:
    """Refuse a network with layers of other libraries for what only knows our own.

    Args:
        network: any module.
        what: who asks, as the subject of the message.

    Raises:
        InputError: naming the first of them.
    """
    for name, layer in layers_of(network):
        if isinstance(layer, ForeignSynapse | ForeignNeuron):
            kind = type(layer.module)
            raise InputError(
                f"{what} know the layers of threefactor.clocked alone, and layer {name!r} is a "
                f"{kind.__module__}.{kind.__qualname__}; measure gradients with analysis.variance "
                "and analysis.alignment, which go through the rule, or build the network of "
                "clocked layers"
            )


def _view(name: str, module: nn.Module) -> ForeignSynapse | ForeignNeuron | None:
    """Return the view of a layer of another library; None if it has neither weights nor state."""
    view: ForeignSynapse | ForeignNeuron | None = view_of(module)
    if view is not None:
        return view
    kind: type[ForeignSynapse] | type[ForeignNeuron] | str | None = registered(module)
    for look in (spikingjelly.view, snntorch.view, norse.view, sinabs.view):
        kind = look(module) if kind is None else kind
    if kind is None:
        kind = affine_adapter(module)
    if kind is None and isinstance(module, _UNTRACED):
        kind = (
            f"{type(module).__module__}.{type(module).__name__} keeps no presynaptic trace; known "
            "are the linear and convolutional layers of PyTorch with the forward pass of PyTorch. "
            "Write a clocked.Synapse for a product of your own"
        )
    if isinstance(kind, str):
        raise InputError(f"layer {name!r} cannot be trained by a rule: {kind}")
    if kind is None:
        return None
    _refuse_other_forward(name, module)
    if issubclass(kind, ForeignNeuron):
        made: ForeignSynapse | ForeignNeuron = kind(module, name)
    else:
        made = kind(module)
    note_view(made)
    return made


def _refuse_other_forward(name: str, module: nn.Module) -> None:
    """Refuse a layer whose forward pass somebody else replaced, or whose weights are not there."""
    other = module.__dict__.get("forward")
    if other is not None and not isinstance(other, StandIn):
        raise InputError(
            f"the forward pass of layer {name!r} was replaced on the object, so that its class "
            "does not say what it does; give the plain layer"
        )
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise InputError(
            f"layer {name!r} is a {type(module).__name__} whose weights are not made yet; run the "
            "network once on a batch"
        )


def refuse_hidden_modules(network: nn.Module) -> None:
    """Refuse modules that PyTorch does not know of, since they lie in a list or a dict.

    Raises:
        InputError: naming the attribute.
    """
    known = set(network.modules())
    for name, module in network.named_modules():
        for attribute, value in module.__dict__.items():
            if attribute.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            if any(part not in known for part in _modules_in(value, 0)):
                where = f"{name}.{attribute}" if name else attribute
                raise InputError(
                    f"the network keeps layers in {where!r}, a plain {type(value).__name__}, where "
                    "PyTorch does not find them; use nn.ModuleList or nn.ModuleDict"
                )


def _modules_in(value: Any, depth: int) -> Iterator[nn.Module]:
    """Return the modules in a plain container, and in containers in it."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, list | tuple | dict) and depth < DEEPEST:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(part, depth + 1)


def refuse_compiled(name: str, module: nn.Module) -> None:
    """Refuse a layer that is compiled or quantised.

    Raises:
        InputError: naming it.
    """
    kind = type(module)
    where = f"layer {name!r}" if name else "the network"
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    replaced = hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
    if compiled or replaced or hasattr(module, "_orig_mod"):
        raise InputError(
            f"{where} is compiled ({kind.__name__}{'.compile' * compiled}), which fixes its "
            "forward pass before a rule can take part in it; give the plain module"
        )
    if any("quantized" in c.__module__.split(".") for c in kind.__mro__ if "torch" in c.__module__):
        raise InputError(
            f"{where} is quantised ({kind.__module__}.{kind.__name__}), and its weights "
            "cannot learn; give the network in floating point"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(f"{where} is compiled by torch.jit; give the plain module")
