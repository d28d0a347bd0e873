"""Perturbations of hidden activity: distribution, position, antithetic pairs, scale."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from threefactor.clocked import kernels
from threefactor.errors import InputError, unknown_name
from threefactor.options import as_flag, in_range
from threefactor.readable import clipped

__all__ = [
    "DEFAULT_SCALE",
    "DISTRIBUTIONS",
    "POSITIONS",
    "LinearSchedule",
    "Perturbation",
    "check_perturbation",
]

Fill = Callable[[Tensor, float, torch.Generator | None], Tensor]


def gaussian_(out: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill with independent normal values of standard deviation `scale`."""
    return kernels.gaussian_(out, scale, generator)


def rademacher_(out: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill with +scale or -scale, each with probability one half."""
    return out.uniform_(generator=generator).ge_(0.5).mul_(2 * scale).sub_(scale)


def sphere_(out: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill each sample, (B, ...), uniformly on the sphere of radius scale * sqrt(n)."""
    rows = kernels.gaussian_(out, 1.0, generator).flatten(1)
    norms = torch.linalg.vector_norm(rows, dim=1).clamp_min(torch.finfo(out.dtype).tiny)
    factors = norms.reciprocal().mul_(scale * math.sqrt(rows.shape[1]))
    return out.mul_(factors.view(-1, *[1] * (out.dim() - 1)))


DISTRIBUTIONS: dict[str, Fill] = {
    "gaussian": gaussian_,
    "rademacher": rademacher_,
    "sphere": sphere_,
}
POSITIONS = ("after", "before")


@dataclass(frozen=True)
class LinearSchedule:
    """A noise scale that moves linearly from `start` to `end` while `progress` goes from 0 to 1.

    Example:
        >>> LinearSchedule(0.5, 0.25)(0.5)
        0.375

    Source: Xiao et al. 2026 (OPZO), appendix C.2.2: from 0.2 to 0.01 over the epochs.
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class ConstantSchedule:
    """A noise scale that stays the same."""

    scale: float

    def __call__(self, progress: float) -> float:
        return self.scale


DEFAULT_SCALE = LinearSchedule(0.2, 0.01)


class Perturbation:
    """How a rule perturbs hidden layers: zero mean, unit variance, times a scale.

    Args:
        scale: alpha, a number above 0, or a function of training progress (0 to 1).
        distribution: "gaussian", "rademacher", or "sphere" (radius sqrt of the layer's size).
        position: "after" the neuron, on its activity, or "before" it, on its membrane potential.
        antithetic: whether each odd time step repeats the noise of the step before, negated.
        generator: source of randomness; PyTorch's global one by default.

    Raises:
        InputError: if the scale is not above 0.
        ConfigurationError: if a name is not known.

    Source: Xiao et al. 2026 (OPZO), section 4.4.
    """

    def __init__(
        self,
        scale: float | Callable[[float], float],
        distribution: str = "gaussian",
        position: str = "after",
        antithetic: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
            raise unknown_name("noise distribution", distribution, DISTRIBUTIONS)
        if position not in POSITIONS:
            raise unknown_name("noise position", position, POSITIONS)
        self.schedule = scale if callable(scale) else ConstantSchedule(scale)
        self.distribution = distribution
        self.position = position
        self.antithetic = as_flag("antithetic", antithetic)
        self.generator = generator
        self.scale: float
        for progress in (1.0, 0.0):  # both ends, lest a training fails in its last epoch
            self.set_progress(progress)

    def set_progress(self, progress: float) -> None:
        """Set the scale for this share of the training, 0 at its start and 1 at its end."""
        given = self.schedule(progress)
        if isinstance(given, bool) or not isinstance(given, numbers.Real):
            raise InputError(
                f"noise scale is {given!r} at training progress {progress}; give a number above 0, "
                "or a function that returns one"
            )
        scale = float(given)
        if not (scale > 0.0 and math.isfinite(scale)):
            raise InputError(
                f"noise scale is {scale} at training progress {progress}; it must be above 0"
            )
        self.scale = in_range("noise scale", scale)

    def refuse_lost(self, dtype: torch.dtype) -> None:
        """Refuse noise that rounding takes away from an activity of 1.

        Args:
            dtype: of the activity.

        Raises:
            InputError: if the scale comes below what the precision resolves.
        """
        least = min(torch.finfo(one).eps for one in (dtype, torch.float32))
        for progress in (0.0, 1.0):
            scale = float(self.schedule(progress))
            if scale < least:
                raise InputError(
                    f"noise scale is {scale} at training progress {progress}; added to a spike, 1 "
                    f"in {dtype}, noise below {least:.1g} is lost, and what a rule learns from it "
                    "with it: give a larger scale"
                )

    def draw(self, noise: Tensor | None, like: Tensor, step: int) -> Tensor:
        """Return the noise of one layer at one time step, already scaled.

        Args:
            noise: the layer's noise of the step before, overwritten; None at the first step.
            like: (B, ...) tensor that gives shape, dtype and device.
            step: number of the time step since the start of the sequence.
        """
        if noise is None:
            noise = torch.empty_like(like)
        elif self.antithetic and step % 2 == 1:
            return noise.neg_()
        return DISTRIBUTIONS[self.distribution](noise, self.scale, self.generator)


def check_perturbation(given: object) -> None:
    """Refuse what is no noise for the hidden layers."""
    if given is not None and not isinstance(given, Perturbation):
        raise InputError(
            f"perturbation is {clipped(given)}; give clocked.Perturbation(scale), or None"
        )
