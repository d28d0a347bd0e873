"""Angles between the gradients of a rule and those of backpropagation (SFDFA, figure 9)."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from threefactor import clocked, events
from threefactor.analysis.batches import (
    NO_BATCH,
    AnyRule,
    Batch,
    check_rule,
    gradients,
    pairs,
    undisturbed,
)
from threefactor.analysis.records import Record
from threefactor.analysis.variance import RunningVariance
from threefactor.errors import InputError

__all__ = ["Alignment", "LayerAngle", "alignment", "angle", "backpropagation", "cosine"]


def angle(a: Tensor, b: Tensor) -> float | None:
    """Return the angle between two tensors, each taken as one vector, in degrees from 0 to 180.

    The result is None if a tensor is all zero, or holds NaN or infinity. Such a tensor has no
    direction, so neither 0 nor 90 degrees would be true. The half-angle formula is accurate near 0
    and 180 degrees, where the cosine is flat.

    Raises:
        InputError: if they have different numbers of elements.

    Example:
        >>> angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
        90.0
        >>> angle(torch.zeros(2), torch.ones(2)) is None
        True
    """
    for tensor in (a, b):
        if not isinstance(tensor, Tensor) or tensor.is_complex() or tensor.is_meta:
            given = f"{tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"an angle is between two tensors of real values; one is a {given}")
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
    apart = float(torch.linalg.vector_norm(one - other))
    together = float(torch.linalg.vector_norm(one + other))
    return math.degrees(2.0 * math.atan2(apart, together))


def cosine(a: Tensor, b: Tensor) -> float | None:
    """Return the cosine of the angle between two tensors; None where `angle` returns None.

    Raises:
        InputError: if they have different numbers of elements.

    Example:
        >>> cosine(torch.ones(3), -torch.ones(3))
        -1.0
    """
    degrees = angle(a, b)
    return None if degrees is None else math.cos(math.radians(degrees))


@dataclass(frozen=True)
class LayerAngle(Record):
    """Angle between two gradients of one layer.

    Attributes:
        angle: degrees, mean over the batches in which it is defined; None if it is in none.
        angle_of_means: degrees between the two gradients averaged over all batches, or None.
        batches: how many batches there were.
        undefined: in how many batches there is no angle, because one of the gradients was zero or
            not finite.
        note: empty, or why angles are undefined.
    """

    angle: float | None
    angle_of_means: float | None
    batches: int
    undefined: int
    note: str


@dataclass(frozen=True)
class Alignment(Record):
    """Angles by layer: `layers["lif1"].angle`."""

    layers: dict[str, LayerAngle]


def backpropagation(rule: AnyRule) -> AnyRule:
    """Return the rule that backpropagates on the same network, with the same loss.

    This is `clocked.SpatialBP` with the same traces, or `events.ExactBP` with the exact local
    gradient and the same firing-rate regularisation.
    """
    check_rule(rule)
    if isinstance(rule, events.Rule):
        return events.ExactBP(
            rule.network,
            loss=rule.loss,
            rate_penalty=rule.rate_penalty,
            rate_target=rule.rate_target,
        )
    return clocked.SpatialBP(
        rule.network,
        loss=rule.loss,
        trace_decay=rule.trace_decay,
        untraced=rule._session.untraced,
        input_shape=rule.sample_shape,
    )


def alignment(
    rule: AnyRule,
    batches: Iterable[Batch],
    *,
    steps: int | None = None,
    reference: AnyRule | None = None,
) -> Alignment:
    r"""Measure the angle between each layer's gradient and that of backpropagation.

    .. math:: \arccos \frac{\langle g, g_{BP} \rangle}{\lVert g \rVert \, \lVert g_{BP} \rVert}

    in degrees. Both gradients are of the same batch; weights and feedback do not change. A gradient
    of zero has no angle, and the result says so. The pass of backpropagation has no noise. Rule,
    network and random generators are afterwards as they were. If the network is in training mode,
    dropout draws different masks for the two gradients: call `network.eval()` first.

    Args:
        rule: the rule, of either engine.
        batches: pairs of inputs and targets.
        steps: T, for constant inputs of clocked networks.
        reference: another rule on the same network to compare with; `backpropagation(rule)` by
            default.

    Raises:
        InputError: if there is no batch, or the reference has another network.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> rule = clocked.DFA(clocked.fc(4, (8,), 3))
        >>> found = alignment(rule, [(torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))], steps=6)
        >>> found.layers["readout"].angle
        0.0

    Source: Bacho & Chu (SFDFA), section 3.4, figure 9.
    """
    check_rule(rule)
    other = backpropagation(rule) if reference is None else reference
    check_rule(other)
    if other.network is not rule.network:
        raise InputError("rule and reference were built on different networks; give them the same")
    single: dict[str, list[float | None]] = {}
    means: dict[str, tuple[RunningVariance, RunningVariance]] = {}
    learned = [(each, copy.deepcopy(each.state_dict())) for each in (rule, other)]
    with undisturbed(rule, other):
        for batch in pairs(batches):
            ours, theirs = gradients(rule, batch, steps), gradients(other, batch, steps)
            for each, state in learned:  # every batch meets the feedback as it was
                each.load_state_dict(state)
            for layer, vector in ours.items():
                single.setdefault(layer, []).append(angle(vector, theirs[layer]))
                pair = means.setdefault(layer, (RunningVariance(), RunningVariance()))
                pair[0].add(vector)
                pair[1].add(theirs[layer])
    if not single:
        raise InputError(NO_BATCH)
    found = {}
    for layer, angles in single.items():
        one, two = (running.mean for running in means[layer])
        assert one is not None and two is not None
        defined = [a for a in angles if a is not None]
        undefined = len(angles) - len(defined)
        found[layer] = LayerAngle(
            statistics.fmean(defined) if defined else None,
            angle(one, two),
            len(angles),
            undefined,
            f"undefined in {undefined} of {len(angles)} batches: {_why(one, two)}"
            if undefined
            else "",
        )
    return Alignment(found)


def _why(ours: Tensor, theirs: Tensor) -> str:
    """Say which of two mean gradients has no direction."""
    reasons = []
    for who, mean in (("rule's", ours), ("reference's", theirs)):
        if not bool(mean.isfinite().all()):
            reasons.append(f"the {who} gradient is not finite")
        elif not bool(mean.any()):
            reasons.append(f"the {who} gradient is zero")
    return " and ".join(reasons) or "a gradient was zero in some batches"
