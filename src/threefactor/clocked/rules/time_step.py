"""What a rule may use of one time step to answer which error reaches each hidden layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from threefactor.clocked.losses import Loss, loss_of
from threefactor.clocked.probe import Probe

__all__ = ["ErrorOf", "TimeStep"]


@dataclass
class TimeStep:
    """What a rule may use to answer which error reaches each hidden layer.

    B samples, m outputs. Losses and errors are already divided by B and by the number of steps T,
    so that gradients summed over batch and steps are those of the mean loss.

    Attributes:
        output: (B, m) read-out of this step.
        losses: (B,) loss of each sample.
        error: (B, m) gradient of the loss by the output.
        layers: the hidden layers, first to last: activity, noise, trace, size. If feedback is
            delayed, they are what the error meets when it arrives, and their noise is always that
            of the step that the output is of.
        second_output: (B, m) read-out of the second forward pass, if the rule has one.
        second_losses: (B,) its losses.
        error_of: turns any read-out (B, m) into its error (B, m), by the loss and targets of the
            step and divided alike; for read-outs of the rule's own.
        readings: output and error of the read-outs of hidden layers, by number of the layer, once
            a rule with local learning has read them.
    """

    output: Tensor
    losses: Tensor
    error: Tensor
    layers: Sequence[Probe]
    second_output: Tensor | None = None
    second_losses: Tensor | None = None
    error_of: Callable[[Tensor], Tensor] | None = None
    readings: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorOf:
    """Turns a read-out (B, m) into its error; a class, so that a stream can be pickled."""

    loss: Loss
    targets: Tensor
    share: float

    def __call__(self, readout: Tensor) -> Tensor:
        return loss_of(self.loss, readout, self.targets)[1] * self.share
