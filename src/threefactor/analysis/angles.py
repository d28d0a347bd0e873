"""Angles between vectors, undefined where one of them is zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from threefactor.errors import InputError

__all__ = ["angle", "cosine"]


def angle(a: Tensor, b: Tensor) -> float | None:
    """Return the angle between two tensors taken as vectors, in degrees, 0 to 180.

    None if one is all zero, or holds NaN or infinity: there is no angle then, neither 0 nor 90.
    By the half-angle formula, which is accurate near 0 and 180, where the cosine is flat.

    Raises:
        InputError: if they have different numbers of elements.

    Example:
        >>> angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
        90.0
        >>> angle(torch.zeros(2), torch.ones(2)) is None
        True
    """
    units = _units(a, b)
    if units is None:
        return None
    apart, together = (float(torch.linalg.vector_norm(v)) for v in _differences(*units))
    return math.degrees(2.0 * math.atan2(apart, together))


def cosine(a: Tensor, b: Tensor) -> float | None:
    """Return the cosine between two tensors taken as vectors; None where `angle` is.

    Example:
        >>> cosine(torch.ones(3), -torch.ones(3))
        -1.0
    """
    degrees = angle(a, b)
    return None if degrees is None else math.cos(math.radians(degrees))


def _units(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor] | None:
    if a.numel() != b.numel():
        raise InputError(
            f"tensors of shape {tuple(a.shape)} and {tuple(b.shape)} have no angle between them; "
            "give as many elements"
        )
    vectors = [v.detach().flatten().double() for v in (a, b)]
    # Scaled first, so that squares neither vanish nor overflow.
    tops = [v.abs().max() if v.numel() else v.new_zeros(()) for v in vectors]
    if any(not 0.0 < float(top) < math.inf for top in tops):
        return None
    scaled = [v / top for v, top in zip(vectors, tops, strict=True)]
    one, other = (v / torch.linalg.vector_norm(v) for v in scaled)
    return one, other


def _differences(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return one - other, one + other
