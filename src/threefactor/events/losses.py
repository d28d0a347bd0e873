"""Losses on the output's spikes: their counts, or the time of the first."""

from __future__ import annotations

import torch
from torch import Tensor

from threefactor.clocked.losses import Loss, check_labels
from threefactor.errors import InputError
from threefactor.events.arrays import number

__all__ = ["FirstSpike", "SpikeCount", "losses_of", "reads_first_spikes"]

EXPECTED = (
    "expected a function (output, targets) -> (losses, gradients), of shapes (B,) and (B, m); "
    "make one of a differentiable function with threefactor.clocked.from_autograd, as "
    'from_autograd(torch.nn.CrossEntropyLoss(reduction="none"))'
)


class SpikeCount:
    r"""Half the squared distance of the output's spike counts from their targets.

    .. math:: \ell = \frac{1}{2} \sum_o (T_o - n_o)^2

    T_o is `true` for the sample's class and `false` for the others.

    Args:
        true, false: target counts; the authors' runs used 15 and 3, their text says 10 and 3.

    Raises:
        InputError: if a target is negative or not finite.

    Source: Bacho & Chu (SFDFA), equation 10.
    """

    def __init__(self, true: float = 15.0, false: float = 3.0) -> None:
        for name, value in (("true", true), ("false", false)):
            number(name, value, "a number of spikes of at least 0", zero=True)
        self.true, self.false = float(true), float(false)

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that are not `samples` integer class labels below `outputs`."""
        check_labels(targets, samples, outputs)

    def __call__(self, counts: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by the counts, (B, m)."""
        wanted = torch.full_like(counts, self.false)
        wanted.scatter_(1, targets.unsqueeze(1), self.true)
        gradient = counts - wanted
        return 0.5 * gradient.square().sum(1), gradient


class FirstSpike:
    r"""Squared distance of the outputs' first spikes from their target times.

    .. math:: \ell = \frac{1}{2} \sum_o \left( \frac{t_o - T_o}{T_f - T_t} \right)^2

    t_o is the time of the first spike of output o, the end of the simulation if there is none.
    T_o is T_t for the sample's class and the later T_f for the others: the class spikes first.
    The error reaches first spikes alone; an output that does not spike gets none, so the initial
    weights must make every output spike.

    Args:
        true, false: T_t and T_f, seconds since the start of the sample.

    Raises:
        InputError: if the times are not 0 <= true < false < infinity.

    Source: the Yin-Yang example of jaxsnn (0.9 and 1.1 tau_s).
    """

    reads_first_spikes = True
    """Whether the output is minus the time of the first spike, in seconds, not the count."""

    def __init__(self, true: float, false: float) -> None:
        wanted = "a target time in seconds, of at least 0; `true` is the earlier"
        if not number("true", true, wanted, zero=True) < number("false", false, wanted, zero=True):
            raise InputError(
                f"true is {true} and false {false}; give target times in seconds, true the earlier"
            )
        self.true, self.false = float(true), float(false)

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that are not `samples` integer class labels below `outputs`."""
        check_labels(targets, samples, outputs)

    def check_end(self, duration: float) -> None:
        """Refuse a simulation that ends before the target time of the class.

        Args:
            duration: of the output layer, in seconds.
        """
        if self.true >= duration:
            raise InputError(
                f"the loss draws the first spike of the class to {self.true} s, and the simulation "
                f"ends at {duration} s, so no output can spike then; give target times in seconds "
                "since the start of the sample, or a longer duration"
            )

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by minus the first times, (B, m)."""
        wanted = torch.full_like(output, self.false).scatter_(1, targets.unsqueeze(1), self.true)
        gap = self.false - self.true
        late = (-output - wanted) / gap
        return 0.5 * late.square().sum(1), -late / gap


def reads_first_spikes(loss: Loss) -> bool:
    """Whether a loss reads the times of first spikes; any other reads counts."""
    return bool(getattr(loss, "reads_first_spikes", False))


def losses_of(loss: Loss, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a loss makes of the output: (B,) losses, and (B, m) gradients of each sample's.

    Raises:
        InputError: if it returns anything else.
    """
    # A copy, since a loss may work in place, and the counts are needed later.
    found = loss(output.clone(), targets)
    if isinstance(found, (tuple, list)) and len(found) == 2:
        losses, gradients = found
        right = (
            isinstance(losses, Tensor)
            and isinstance(gradients, Tensor)
            and losses.shape == output.shape[:1]
            and gradients.shape == output.shape
            and losses.is_floating_point()
            and gradients.is_floating_point()
            and losses.device == gradients.device == output.device
        )
        if right:
            return losses.detach(), gradients.detach()
        shapes = " and ".join(
            str(tuple(getattr(x, "shape", ())) or type(x).__name__) for x in found
        )
        raise InputError(
            f"the loss returned {shapes} for {len(output)} samples and {output.shape[1]} outputs; "
            + EXPECTED
        )
    raise InputError(f"the loss returned a {type(found).__name__}; {EXPECTED}")
