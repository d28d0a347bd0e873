"""Builders of networks. A network is a plain module; its forward pass is one time step."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked.kept_state import reset_state
from threefactor.clocked.neuron import LIF, NeuronOptions
from threefactor.clocked.recurrent import Recurrent
from threefactor.clocked.synapse import Linear
from threefactor.errors import InputError

__all__ = ["Network", "fc"]


class Network(nn.Sequential):
    """Layers in a row that know the shape of one input sample.

    Attributes:
        input_shape: shape of one sample at one time step, without the batch.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], input_shape: Sequence[int]) -> None:
        super().__init__(layers)
        self.input_shape = tuple(input_shape)

    def reset(self) -> None:
        """Forget the state of all neurons."""
        reset_state(self)

    def forward(self, x_t: Tensor) -> Tensor:
        """Run one time step. (B, *input_shape) in, (B, outputs) out."""
        if x_t.shape[1:] != self.input_shape:
            x_t = self._reshape(x_t)
        for layer in self:
            x_t = layer(x_t)
        return x_t

    def _reshape(self, x_t: Tensor) -> Tensor:
        expected = torch.Size(self.input_shape)
        if x_t.dim() < 2 or x_t[0].numel() != expected.numel():
            raise InputError(
                f"one time step of input has shape {tuple(x_t.shape)}; "
                f"expected (batch, {', '.join(map(str, expected))}), or as many values per sample"
            )
        return x_t.reshape(len(x_t), *expected)


def fc(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    recurrent: bool | Sequence[bool] = False,
    **neuron: Unpack[NeuronOptions],
) -> Network:
    """Build a fully connected network of LIF layers with a linear read-out.

    The read-out neither spikes nor resets. Images are flattened. A recurrent layer is a
    `Recurrent` of LIF neurons and a `Linear` without bias, as `lif1.neuron` and `lif1.synapse`.

    Args:
        in_features: values per sample and time step.
        hidden: number of neurons of each hidden layer; may be empty.
        out_features: number of outputs m.
        recurrent: whether the activity of a hidden layer comes back to it one step later; for all
            layers, or one for each.
        **neuron: `leak`, `threshold`, `dropout`, `scale`, `surrogate_width`, `reset`,
            `learn_leak` and `learn_threshold` of the hidden neurons, see `LIF`.

    Raises:
        InputError: if a size is below 1 or a setting out of its range.

    Example:
        >>> net = fc(784, (800, 800), 10, dropout=0.2)
        >>> net(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])

    Source: Xiao et al. 2026 (OPZO), appendix C.2.2.
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise InputError(f"hidden is {hidden!r}; give the sizes of the hidden layers, as in (800,)")
    sizes = [in_features, *hidden, out_features]
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise InputError(f"layer sizes are {sizes}; each must be a whole number of at least 1")
    LIF(**neuron)  # refuses options also of a network without hidden layers
    comes_back = _one_for_each(recurrent, hidden)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes[:-1]), start=1):
        layers[f"linear{i}"] = Linear(n_in, n_out)
        lif = LIF(**neuron)
        again = comes_back[i - 1]
        layers[f"lif{i}"] = Recurrent(lif, Linear(n_out, n_out, bias=False)) if again else lif
    layers["readout"] = Linear(sizes[-2], out_features)
    return Network(layers, (in_features,))


def _one_for_each(recurrent: bool | Sequence[bool], hidden: Sequence[int]) -> Sequence[bool]:
    """Say of each hidden layer whether it is recurrent."""
    given = [recurrent] * len(hidden) if isinstance(recurrent, bool) else recurrent
    if (
        not isinstance(given, Sequence)
        or len(given) != len(hidden)
        or not all(isinstance(one, bool) for one in given)
        or (recurrent is True and not hidden)
    ):
        raise InputError(
            f"recurrent is {recurrent!r} and there are {len(hidden)} hidden layers; give True or "
            "False, or one of them for each hidden layer"
        )
    return given
