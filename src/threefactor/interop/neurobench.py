"""Clocked networks in NeuroBench's `Benchmark`; needs the extra `neurobench`."""

from __future__ import annotations

import copy
import functools
import importlib
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from threefactor import clocked
from threefactor.clocked.checks import check_layers, whole_steps
from threefactor.clocked.foreign import refuse_foreign
from threefactor.clocked.inputs import shapes_of, takes_several
from threefactor.clocked.kept_state import reset_state
from threefactor.clocked.synapse import Synapse
from threefactor.errors import ConfigurationError, InputError

__all__ = ["benchmark_model"]


def benchmark_model(network: nn.Module, *, steps: int | None = None) -> Any:
    """Wrap a clocked network as a NeuroBench model.

    The model runs a copy of the network, as it is now, in evaluation. In the copy, a synapse layer
    is the plain PyTorch layer that NeuroBench counts: pooling is a layer of its own, and
    standardised, pruned or parametrised weights are the values that the input meets.

    What NeuroBench 2.3 makes of it:

    - SynapticOperations is what `analysis.operations` counts. A time step whose inputs are not all
      -1, 0 or 1 counts as MACs, so that neurons with a `scale` cause MACs, and so does pooling.
    - ActivationSparsity is 1 minus the firing rate of `analysis.firing` over all layers.
      ActivationSparsityByLayer goes by the layers' full names.
    - MembraneUpdates and NeuronOperations take `LIF` neurons for snnTorch's `Leaky`, whose equation
      they have. The potential is that before a reset, as snnTorch's is with `reset_delay=True`. For
      other neurons, NeuroBench prints that it cannot tell the NeuronOperations, and reports 0; the
      MembraneUpdates are those of the `LIF` neurons alone.
    - Footprint and ParameterCount are those of the copy: no gains of standardised weights. The
      potentials of our neurons are not buffers, and do not count.

    Args:
        network: made of clocked layers.
        steps: T, for data (B, ...) that is shown as a constant current; None for data (B, T, ...),
            NeuroBench's layout, with the batch first.

    Returns:
        A `NeuroBenchModel`. Called with a batch, it gives the read-out (B, T, m) of all time steps,
        from rest; `ChooseMaxCount` of NeuroBench makes the predicted class of it.

    Raises:
        InputError: if the network has a layer that is not clocked, or of a kind of one's own, or
            takes several inputs.
        ConfigurationError: if neurobench is not installed.

    Source: Yik et al. 2025, *The NeuroBench framework for benchmarking neuromorphic computing
    algorithms and systems*.
    """
    model = _model_class()
    check_layers(network)
    refuse_foreign(network, "NeuroBench models")
    if takes_several(shapes_of(network, None)):
        raise InputError("the network takes several inputs; NeuroBench gives its models one tensor")
    return model(_plain_copy(network), None if steps is None else whole_steps(steps))


def _plain_copy(network: nn.Module) -> nn.Module:
    """Copy a network, with a plain PyTorch layer in the place of each synapse layer."""
    with torch.no_grad():
        # deepcopy takes what is in its memo for a copy that was made before.
        memo: dict[int, Any] = {
            id(layer): _plain(name, layer)
            for name, layer in network.named_modules()
            if isinstance(layer, Synapse)
        }
        twin = copy.deepcopy(network, memo).eval()
    reset_state(twin)
    return twin.requires_grad_(False)


def _plain(name: str, layer: Synapse) -> nn.Module:
    plain: Any
    bias = layer.bias is not None
    if isinstance(layer, clocked.Linear):
        plain, weight = nn.Linear(layer.in_features, layer.out_features, bias), layer.weight
    elif isinstance(layer, clocked.Conv2d):
        make: Any = nn.Conv2d
        plain = make(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
            layer.dilation, layer.groups, bias,
        )  # fmt: skip
        weight = layer.kernel()
    else:
        raise InputError(
            f"layer {name!r} is a {type(layer).__name__}, whose operations NeuroBench cannot "
            "count; it knows clocked.Linear and clocked.Conv2d"
        )
    plain.to(weight)
    plain.weight.copy_(weight)
    if layer.bias is not None:
        plain.bias.copy_(layer.bias)
    return nn.Sequential(OrderedDict(received=_Received(layer), weights=plain))


class _Received(nn.Module):
    """What a synapse layer does to its input before its weights: pooling and flattening."""

    def __init__(self, layer: Synapse) -> None:
        super().__init__()
        self.receive = layer.receive  # a method: the layer is no part of this module

    def forward(self, x: Tensor) -> Tensor:
        return self.receive(x)


@functools.cache
def _model_class() -> Any:
    """Return the class of models, which needs NeuroBench to be made.

    Raises:
        ConfigurationError: saying how to install it.
    """
    try:
        models = importlib.import_module("neurobench.models")
        neuron_hooks = importlib.import_module("neurobench.hooks.neuron")
        layer_hooks = importlib.import_module("neurobench.hooks.layer")
    except ImportError as problem:
        raise ConfigurationError(
            "benchmarks need neurobench; install it with: pip install 'threefactor[neurobench]', "
            "or without the packages that load its data sets: "
            f"pip install --no-deps neurobench snntorch tqdm ({problem})"
        ) from problem

    class Leaky:
        """What the metrics ask of a neuron layer: the name of its class, and its reset."""

        def __init__(self, reset: str) -> None:
            self._reset_mechanism = reset

    class Hook(neuron_hooks.NeuronHook):  # type: ignore[misc,name-defined]
        """Keeps activities and, of LIF neurons, the potentials before and after each step."""

        def __init__(self, layer: nn.Module, name: str) -> None:
            super().__init__(layer, name)
            if type(layer) is clocked.LIF:
                self.layer = Leaky(layer.reset_mode)

        def pre_hook_fn(self, layer: Any, given: Any) -> None:
            super().pre_hook_fn(layer, given)
            if type(layer) is clocked.LIF:
                state = layer.state or (torch.zeros_like(given[0]),)
                self.pre_fire_mem_potential.append(state[0].clone())

        def hook_fn(self, layer: Any, given: Any, activity: Any) -> None:
            super().hook_fn(layer, given, activity)
            if type(layer) is clocked.LIF:
                assert layer.state is not None
                self.post_fire_mem_potential.append(layer.state[0].clone())

    class Model(models.NeuroBenchModel):  # type: ignore[misc,name-defined]
        """A clocked network as NeuroBench runs it."""

        def __init__(self, network: nn.Module, steps: int | None) -> None:
            super().__init__()
            self.net, self.steps = network, steps
            self.add_activation_module(clocked.Neuron)

        def __net__(self) -> nn.Module:
            return self.net

        def __call__(self, batch: Tensor) -> Tensor:
            reset_state(self.net)
            steps = range(self.steps or batch.shape[1])
            with torch.no_grad():
                output = [self.net(batch if self.steps else batch[:, t]) for t in steps]
            reset_state(self.net)
            return torch.stack(output, dim=1)

        def activation_layers(self) -> list[dict[str, Any]]:
            kinds = tuple(self.activation_modules)
            return [
                {"layer_name": name, "layer": layer}
                for name, layer in self.net.named_modules()
                if isinstance(layer, kinds)
            ]

        def register_hooks(self) -> None:
            for one in self.activation_layers():
                self.activation_hooks.append(Hook(one["layer"], one["layer_name"]))
            for layer in self.connection_layers():
                self.connection_hooks.append(layer_hooks.LayerHook(layer))

    return Model
