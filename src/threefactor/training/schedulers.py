"""Schedules of the learning rate that PyTorch does not have."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["BoundedStepLR"]


class BoundedStepLR(LRScheduler):
    """Multiply the learning rate by gamma every `step_size` epochs, down to `min_lr`.

    It is `torch.optim.lr_scheduler.StepLR` with an end. A rate that starts below `min_lr` stays as
    it is.

    Args:
        optimizer: whose learning rate it is.
        step_size: epochs between two changes, at least 1.
        gamma: factor of each change, above 0.
        min_lr: the lowest learning rate, at least 0.
        last_epoch: epochs that are done already; -1 at the start.

    Raises:
        ValueError: if a number is out of its range.

    Source: the scripts of Bacho & Chu 2023, Exploring trade-offs in spiking neural networks.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        step_size: int,
        gamma: float = 0.1,
        min_lr: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if step_size < 1 or gamma <= 0 or min_lr < 0:
            raise ValueError(
                f"step_size is {step_size}, gamma {gamma}, min_lr {min_lr}; give at least 1 epoch, "
                "a factor above 0, and a rate of at least 0"
            )
        self.step_size, self.gamma, self.min_lr = step_size, gamma, min_lr
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group for the epoch that begins."""
        changes = self.last_epoch // self.step_size
        starts = [float(lr) for lr in self.base_lrs]
        return [max(lr * self.gamma**changes, min(lr, self.min_lr)) for lr in starts]
