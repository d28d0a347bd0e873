"""A hidden layer whose activity of the step before comes back to it through a synapse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from threefactor.clocked.foreign import layers_of
from threefactor.clocked.kept_state import register_state, reset_state
from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError

__all__ = ["Recurrent"]


class Recurrent(nn.Module):
    r"""Neurons that get, beside their current, their own activity of the time step before.

    .. math:: I[t] = I_{in}[t] + W_r a[t-1], \qquad a[0] = 0

    The neurons advance by I[t]. What comes back is a[t-1], the activity that the next layer saw:
    spikes with dropout and scale, and with the noise of a rule that perturbs the activity, as an
    axon carries one signal to all its targets. At the first step it is 0.

    No error goes back in time. Under a rule the recurrent weights learn as all others do, from the
    error of the layer's current and the presynaptic trace of what came back:

    .. math:: \nabla W_r = \sum_t \delta[t] \hat a[t-1]^T, \qquad
              \hat a[t] = \lambda \hat a[t-1] + a[t]

    That is OTTT's gradient (online training through time) of a recurrent connection. What a weight
    does by way of later spikes of the same layer is left out, as it is for any other weight.

    The activity of the step before is state, and a rule keeps it as it keeps that of the neurons:
    for the steps of a sequence or a stream, and no longer. `reset` forgets it.

    Args:
        neuron: a layer of neurons, of this library or of another, that keeps its state and returns
            its activity alone, in the shape of its current.
        synapse: a layer with weights, of this library or of PyTorch, or a module of several layers
            with weights, whose currents have the shape of its input. A bias would only double that
            of the layer before.

    Attributes:
        previous: (B, ...) activity of the step before, without a graph; None at rest.

    Raises:
        InputError: if `neuron` is not one layer of neurons or `synapse` has no weights or neurons
            of its own; when called, if the neurons return something else than an activity, or the
            shapes do not fit.

    Example:
        >>> from threefactor import clocked
        >>> layer = Recurrent(clocked.LIF(leak=0.5), clocked.Linear(1, 1, bias=False))
        >>> _ = torch.nn.init.constant_(layer.synapse.weight, -0.5)
        >>> [layer(torch.tensor([[0.7]])).item() for _ in range(5)]  # [0, 1, 0, 1, 0] without it
        [0.0, 1.0, 0.0, 0.0, 1.0]

    Source: the traces of Xiao et al. 2022, Online Training Through Time, on a recurrent connection.
    """

    def __init__(self, neuron: nn.Module, synapse: nn.Module) -> None:
        super().__init__()
        _check_parts(neuron, synapse)
        self.neuron = neuron
        self.synapse = synapse
        self.previous: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        """Run one time step. (B, ...) current in, (B, ...) activity out."""
        previous = torch.zeros_like(current) if self.previous is None else self.previous
        if previous.shape != current.shape:
            raise InputError(
                f"current of shape {tuple(current.shape)} meets a recurrent layer whose activity "
                f"of the step before has shape {tuple(previous.shape)}; call reset() before a "
                "batch of another size"
            )
        if previous.is_inference() and not torch.is_inference_mode_enabled():
            previous = previous.clone()  # autograd does not take those of inference mode
        back = self.synapse(previous)
        if back.shape != current.shape:
            raise InputError(
                f"the recurrent synapse turns an activity of shape {tuple(current.shape)} into a "
                f"current of shape {tuple(back.shape)}; it has to keep the shape, as "
                "Linear(n, n) or Conv2d(c, c, 3, padding=1) do"
            )
        activity = self.neuron(current + back)
        if not isinstance(activity, Tensor) or activity.shape != current.shape:
            given = (
                f"an activity of shape {tuple(activity.shape)}"
                if isinstance(activity, Tensor)
                else f"a {type(activity).__name__}"
            )
            raise InputError(
                f"the neurons of a recurrent layer returned {given}; expected their activity "
                f"alone, of shape {tuple(current.shape)}. They have to keep their state "
                "themselves: give init_hidden=True to a neuron of snnTorch, and take clocked.LIF "
                "in the place of a cell of Norse"
            )
        # A copy, since the network may write to what it gets.
        self.previous = activity.detach().clone()
        return activity

    def reset(self) -> None:
        """Forget the state of the neurons and the activity of the step before."""
        reset_state(self)


register_state(Recurrent, ("previous",))


def _check_parts(neuron: nn.Module, synapse: nn.Module) -> None:
    for what, part in (("neuron", neuron), ("synapse", synapse)):
        if not isinstance(part, nn.Module):
            raise InputError(
                f"the {what} of a recurrent layer is {part!r:.80}; give a torch.nn.Module, as in "
                "Recurrent(LIF(), Linear(n, n, bias=False))"
            )
    inside = [layer for _, layer in layers_of(neuron)]
    if len(inside) != 1 or not isinstance(inside[0], Neuron):
        raise InputError(
            f"the neuron of a recurrent layer is a {type(neuron).__name__}, which is not one layer "
            "of neurons; give one such as clocked.LIF, and tell a class of your own with "
            "clocked.register_neuron first"
        )
    through = [layer for _, layer in layers_of(synapse)]
    if not through or any(isinstance(layer, Neuron) for layer in through):
        raise InputError(
            f"the synapse of a recurrent layer is a {type(synapse).__name__} "
            f"{'with neurons inside' if through else 'without weights'}; give a layer with "
            "weights, such as clocked.Linear(n, n, bias=False)"
        )
