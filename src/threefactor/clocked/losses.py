"""Losses of one time step, with the error that they send to the output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from threefactor.clocked import kernels
from threefactor.errors import InputError

__all__ = ["CrossEntropyMSE", "Loss", "check_labels", "check_targets", "from_autograd"]

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(B, m) output and targets in; (B,) losses and (B, m) gradient of each sample's loss out."""


class CrossEntropyMSE:
    r"""Cross entropy with a share of mean squared error, on class labels.

    .. math:: \ell = (1 - c)\,\mathrm{CE}(o, y) + c\,\mathrm{MSE}(o, \mathrm{onehot}(y))

    The squared error is averaged over the m outputs, as `torch.nn.MSELoss` does.

    Args:
        mse_weight: c, between 0 and 1; 0.05 for static data and 0.001 for event data.

    Source: Xiao et al. 2022 (OTTT); Xiao et al. 2026 (OPZO), appendix C.2.2.
    """

    def __init__(self, mse_weight: float = 0.05) -> None:
        if not 0.0 <= mse_weight <= 1.0:
            raise InputError(f"mse_weight is {mse_weight}; give a share between 0 and 1")
        self.mse_weight = mse_weight

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that are not `samples` integer class labels below `outputs`."""
        check_labels(targets, samples, outputs)

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by the output, (B, m)."""
        return kernels.cross_entropy_mse(output, targets, self.mse_weight)


def check_labels(targets: Tensor, samples: int, outputs: int) -> None:
    """Refuse targets that are not `samples` integer class labels below `outputs`.

    Raises:
        InputError: saying what was given and what was expected.
    """
    if not isinstance(targets, Tensor):
        raise InputError(
            f"targets are a {type(targets).__name__}; expected a torch.Tensor of class labels"
        )
    if targets.shape != (samples,):
        raise InputError(
            f"targets have shape {tuple(targets.shape)}; "
            f"expected one class label per sample, shape ({samples},)"
        )
    if targets.dtype != torch.int64:
        raise InputError(
            f"targets are {targets.dtype}; expected class labels as torch.int64, use targets.long()"
        )
    low, high = (int(v) for v in targets.aminmax())
    if low < 0 or high >= outputs:
        raise InputError(
            f"targets lie between {low} and {high}; "
            f"a network with {outputs} outputs knows classes 0 to {outputs - 1}"
        )


def check_targets(loss: Loss, targets: Tensor, samples: int, outputs: int) -> None:
    """Let a loss that has a method `check_targets` refuse targets that have no meaning."""
    check = getattr(loss, "check_targets", None)
    if check is not None:
        check(targets, samples, outputs)


def from_autograd(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Make a loss out of a differentiable function that returns one value per sample, (B,).

    Example:
        >>> loss = from_autograd(lambda o, y: (o - y).square().sum(1))
        >>> loss(torch.ones(1, 2), torch.zeros(1, 2))
        (tensor([2.]), tensor([[2., 2.]]))
    """

    def loss(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = output.detach().requires_grad_()
            losses = function(leaf, targets)
            if losses.shape != output.shape[:1]:
                raise InputError(
                    f"the loss has shape {tuple(losses.shape)}; "
                    f"expected one value per sample, shape ({len(output)},)"
                )
            (error,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), error

    return loss
