"""The sizes of a network: how many weights a synapse layer has, and what they connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from threefactor import events
from threefactor.clocked import graph
from threefactor.clocked.conv import Conv2d
from threefactor.clocked.foreign import ForeignSynapse
from threefactor.clocked.inputs import InputShape, shapes_of, zeros
from threefactor.clocked.kept_state import attributes_kept
from threefactor.clocked.probe import Probe
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
        hidden: number of neurons by name of the hidden layer. Neurons whose activity is the
            output, with no weights behind them, are not hidden.
        outputs: m.
    """

    synapses: dict[str, SynapseSize]
    hidden: dict[str, int]
    outputs: int


def sizes(network: nn.Module, input_shape: InputShape | None = None) -> Sizes:
    """Return the sizes of a network of either engine; a clocked one runs one sample of zeros.

    Args:
        network: an `events.Network`, or made of layers on a time grid, also of other libraries.
        input_shape: of one sample at one time step, for a network on a time grid, as for a rule;
            `network.input_shape` by default.

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


class _Marked(Probe):
    """A probe that gives its activity as a leaf of the graph, so that what depends on it shows."""

    mark: Tensor | None = None

    def step(self, current: Tensor) -> Tensor:
        self.mark = super().step(current).detach().requires_grad_()
        return self.mark


def _on_grid(network: nn.Module, input_shape: InputShape | None) -> Sizes:
    shape = shapes_of(network, input_shape)
    if shape is None:
        raise InputError(
            "the network has no attribute input_shape; give input_shape=, the shape of one sample "
            "at one time step"
        )
    session = Session(network, trace_decay=0.0, make_probe=_Marked)
    marks = [probe for probe in session.probes if isinstance(probe, _Marked)]
    synapses: dict[str, SynapseSize] = {}
    inner: set[int] = set()

    def look(name: str, layer: Synapse) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            synapses[name] = _size(layer, given[0])
            inner.update(_leaves(given[0]))

        return getattr(layer, "module", layer).register_forward_pre_hook(hook)

    # Without gradients of its own, a weight leaves `requires_grad` to what depends on a mark.
    free = [p for p in network.parameters() if p.requires_grad]
    hooks = [look(name, m) for name, m in session.layers if isinstance(m, Synapse)]
    with session.alone(), session.buffers_kept(always=True), attributes_kept(session):
        try:
            for parameter in free:
                parameter.requires_grad_(False)
            with evaluating(network), session.attached(), torch.enable_grad():
                output = session.forward(zeros(shape, session.first_parameter))
        finally:
            for parameter in free:
                parameter.requires_grad_(True)
            for hook in hooks:
                hook.remove()
            session.reset()
    last = _leaves(output) - inner
    hidden = {
        probe.name: probe.mark[0].numel()
        for probe in marks
        if probe.mark is not None and id(probe.mark) not in last
    }
    return Sizes(synapses, hidden, output.shape[1])


def _leaves(x: Tensor) -> set[int]:
    """Return the identities of the leaves that a tensor comes from without weights between."""
    found = (graph.parameter_of(node) for node in graph.behind([graph.node_of(x)]))
    return {id(leaf) for leaf in found if leaf is not None}


def _size(synapse: Synapse, x: Tensor) -> SynapseSize:
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
    weight = synapse.kernel() if isinstance(synapse, Conv2d) else synapse.weight
    ones = torch.ones_like(weight) if dense else (weight != 0)
    twin = _with_weight(synapse, ones.double())
    sample = ones.new_zeros((1, *received[1:]), dtype=torch.float64)
    current = twin.transmit(sample)
    return twin.input_error(torch.ones_like(current), sample.shape)[0]


def _with_weight(synapse: Synapse, weight: Tensor) -> Synapse:
    """Return a layer that differs in its weights: these, with no bias, gain or computation."""
    kind = type(synapse)
    if not isinstance(synapse, ForeignSynapse) and parametrize.is_parametrized(synapse):
        kind = kind.__mro__[1]  # whose weight is no property
    twin: Synapse = kind.__new__(kind)
    twin.__dict__.update(synapse.__dict__)
    twin.__dict__.pop("weight", None)  # where pruning keeps what it computes
    plain = {**synapse._parameters, "weight": nn.Parameter(weight, False), "bias": None}
    if isinstance(synapse, Conv2d):
        plain["gain"] = None  # already in the kernel
    twin.__dict__.update(_parameters=plain, pathway=None)
    return twin


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
