"""The true sizes of a clocked network: what each synapse layer connects."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threefactor.analysis.batches import evaluating
from threefactor.clocked.conv import Conv2d
from threefactor.clocked.neuron import Neuron, reset_state
from threefactor.clocked.session import Session
from threefactor.clocked.synapse import Synapse
from threefactor.errors import InputError

__all__ = ["Survey", "SynapseSize", "fan_out", "raw_fan_out", "survey"]


@dataclass(frozen=True)
class SynapseSize:
    """One synapse layer.

    Attributes:
        weights: number of weights stored, biases and gains not counted.
        dense: synaptic operations of one sample at one time step if every input were non-zero;
            for a convolution with the picture's true borders.
        received: number of values that the weights see, after pooling.
        hidden_input: whether its input depends on a hidden layer, so that spatial BP has to
            carry errors back through it.
    """

    weights: int
    dense: int
    received: int
    hidden_input: bool


@dataclass(frozen=True)
class Survey:
    """Sizes of synapse layers and of hidden layers by name, and the number of outputs m."""

    synapses: dict[str, SynapseSize]
    hidden: dict[str, int]
    outputs: int


def survey(network: nn.Module, input_shape: Sequence[int] | None = None) -> Survey:
    """Measure a clocked network by running one sample of zeros.

    Args:
        network: made of clocked layers.
        input_shape: of one sample at one time step; `network.input_shape` by default.

    Raises:
        InputError: if the network has no `input_shape` and none is given.
    """
    shape = getattr(network, "input_shape", None) if input_shape is None else input_shape
    if shape is None:
        raise InputError(
            "the network has no attribute input_shape; give input_shape=, the shape of one sample "
            "at one time step"
        )
    Session(network, trace_decay=0.0, learning=False)  # refuses layers that are not clocked
    synapses: dict[str, SynapseSize] = {}
    hidden: dict[str, int] = {}

    def look(name: str, module: nn.Module) -> None:
        if isinstance(module, Synapse):
            module.register_forward_pre_hook(
                lambda m, given: synapses.__setitem__(name, _size(m, given[0]))
            )
        elif isinstance(module, Neuron):
            module.register_forward_hook(lambda m, given, out: _mark(hidden, name, out))

    # A copy, since a marked input would otherwise have to be told from the network's weights.
    twin = copy.deepcopy(network).requires_grad_(False)
    for name, module in twin.named_modules():
        look(name, module)
    weight = next(network.parameters())
    with evaluating(twin), torch.enable_grad():
        reset_state(twin)
        output = twin(weight.new_zeros((1, *shape)))
    return Survey(synapses, hidden, output.shape[1])


def _mark(hidden: dict[str, int], name: str, activity: Tensor) -> Tensor:
    """Let what depends on a hidden layer be told by `requires_grad`."""
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
    """Return how many weights other than zero meet each received value, of one sample.

    Args:
        synapse: the layer.
        received: shape of a batch of what its weights see.
        dense: whether to count all weights.

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

    Averaging shares a spike's effect between no pixels: each spike reaches the one average that it
    is part of, and that one's weights.

    Args:
        synapse: the layer.
        fan: what `fan_out` returned.
        shape: of a batch of what reaches the layer, before pooling.
    """
    with torch.enable_grad():
        raw = torch.zeros((1, *shape[1:]), dtype=fan.dtype, device=fan.device, requires_grad=True)
        received = synapse.receive(raw)
        (weighted,) = torch.autograd.grad((received[0] * fan).sum(), raw, retain_graph=True)
        (share,) = torch.autograd.grad(received.sum(), raw)
    return torch.where(share > 0, weighted / share.clamp_min(1e-300), 0.0)[0]
