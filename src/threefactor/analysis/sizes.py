"""The sizes of a network: how many weights a synapse layer has, and what they connect."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threefactor import events
from threefactor.clocked.conv import Conv2d
from threefactor.clocked.foreign import refuse_foreign
from threefactor.clocked.kept_state import reset_state
from threefactor.clocked.neuron import Neuron
from threefactor.clocked.session import Session
from threefactor.clocked.synapse import Synapse
from threefactor.errors import InputError
from threefactor.modes import evaluating

__all__ = ["Sizes", "SynapseSize", "fan_out", "raw_fan_out", "sizes"]


@dataclass(frozen=True)
class SynapseSize:
    """One synapse layer.

    Attributes:
        weights: number of weights stored, without biases and gains.
        dense: synaptic operations of one sample at one time step if every input were non-zero. A
            convolution's weights that lie beyond the border of the picture are not counted.
        received: number of values that the weights see, after pooling.
        hidden_input: whether its input depends on a hidden layer, so that spatial BP has to
            carry errors back through it.
    """

    weights: int
    dense: int
    received: int
    hidden_input: bool


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network.

    Attributes:
        synapses: by name of the synapse layer.
        hidden: number of neurons by name of the hidden layer.
        outputs: m.
    """

    synapses: dict[str, SynapseSize]
    hidden: dict[str, int]
    outputs: int


def sizes(network: nn.Module, input_shape: Sequence[int] | None = None) -> Sizes:
    """Return the sizes of a network of either engine; a clocked one runs one sample of zeros.

    Args:
        network: an `events.Network`, or made of clocked layers.
        input_shape: of one sample at one time step, for clocked networks; `network.input_shape` by
            default.

    Raises:
        InputError: if a clocked network has no `input_shape` and none is given.
    """
    if not isinstance(network, events.Network):
        return _on_grid(network, input_shape)
    layers = list(network.layers.items())
    synapses = {
        name: SynapseSize(layer.weight.numel(), layer.weight.numel(), layer.in_features, i > 0)
        for i, (name, layer) in enumerate(layers)
    }
    hidden = {name: layer.neurons for name, layer in layers[:-1]}
    return Sizes(synapses, hidden, layers[-1][1].neurons)


def _on_grid(network: nn.Module, input_shape: Sequence[int] | None) -> Sizes:
    shape = getattr(network, "input_shape", None) if input_shape is None else input_shape
    if shape is None:
        raise InputError(
            "the network has no attribute input_shape; give input_shape=, the shape of one sample "
            "at one time step"
        )
    Session(network, trace_decay=0.0, learning=False)  # refuses what cannot be run
    refuse_foreign(network, "sizes of networks")
    synapses: dict[str, SynapseSize] = {}
    hidden: dict[str, int] = {}

    def look(name: str, module: nn.Module) -> None:
        if isinstance(module, Synapse):
            module.register_forward_pre_hook(
                lambda m, given: synapses.__setitem__(name, _size(m, given[0]))
            )
        elif isinstance(module, Neuron):
            module.register_forward_hook(lambda m, given, out: _mark(hidden, name, out))

    # The weights of a copy need no gradient, so that `requires_grad` tells what depends on a hidden
    # layer.
    twin = copy.deepcopy(network).requires_grad_(False)
    for name, module in twin.named_modules():
        look(name, module)
    weight = next(network.parameters())
    with evaluating(twin), torch.enable_grad():
        reset_state(twin)
        output = twin(weight.new_zeros((1, *shape)))
    return Sizes(synapses, hidden, output.shape[1])


def _mark(hidden: dict[str, int], name: str, activity: Tensor) -> Tensor:
    """Note the size of a hidden layer, and mark its activity with `requires_grad`."""
    hidden[name] = activity[0].numel()
    return activity if activity.requires_grad else activity.detach().requires_grad_()


def _size(synapse: nn.Module, x: Tensor) -> SynapseSize:
    assert isinstance(synapse, Synapse)
    received = synapse.receive(x.detach()).shape
    dense = fan_out(synapse, received, dense=True)
    return SynapseSize(
        synapse.weight.numel(), int(dense.sum()), received[1:].numel(), x.requires_grad
    )


@torch.no_grad()
def fan_out(synapse: Synapse, received: torch.Size, *, dense: bool = False) -> Tensor:
    """Return how many weights other than zero each received value of one sample meets.

    Args:
        synapse: the layer.
        received: shape of a batch of what its weights see.
        dense: whether to count weights of zero, too.

    Returns:
        Shape of one received sample, float64.
    """
    pathway, synapse.pathway = synapse.pathway, None  # what a run attached is not copied
    try:
        twin = copy.deepcopy(synapse)
        weight = synapse.kernel() if isinstance(synapse, Conv2d) else synapse.weight
    finally:
        synapse.pathway = pathway
    if isinstance(twin, Conv2d):
        twin.gain = None  # already in the kernel
    ones = torch.ones_like(weight) if dense else (weight != 0)
    twin.weight = nn.Parameter(ones.double(), requires_grad=False)
    twin.bias = None
    sample = ones.new_zeros((1, *received[1:]), dtype=torch.float64)
    current = twin.transmit(sample)
    return twin.input_error(torch.ones_like(current), sample.shape)[0]


def raw_fan_out(synapse: Synapse, fan: Tensor, shape: torch.Size) -> Tensor:
    """Return how many weights one spike of the layer before reaches, pooling included.

    With average pooling, a spike is part of one average, and reaches the weights of that one.

    Args:
        synapse: the layer.
        fan: what `fan_out` returned.
        shape: of a batch that reaches the layer, before pooling.

    Returns:
        Shape of one sample before pooling, float64.
    """
    with torch.enable_grad():
        raw = torch.zeros((1, *shape[1:]), dtype=fan.dtype, device=fan.device, requires_grad=True)
        received = synapse.receive(raw)
        (weighted,) = torch.autograd.grad((received[0] * fan).sum(), raw, retain_graph=True)
        (share,) = torch.autograd.grad(received.sum(), raw)
    return torch.where(share > 0, weighted / share.clamp_min(1e-300), 0.0)[0]
