"""Angles of a rule's gradient to that of backpropagation (SFDFA, figure 9)."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from threefactor import clocked, events
from threefactor.analysis.angles import angle
from threefactor.analysis.batches import AnyRule, Batch, gradients, undisturbed
from threefactor.analysis.records import Record
from threefactor.analysis.variance import Spread
from threefactor.errors import InputError

__all__ = ["Alignment", "LayerAngle", "alignment", "backpropagation"]


@dataclass(frozen=True)
class LayerAngle(Record):
    """Angle between two gradients of one layer.

    Attributes:
        angle: degrees, mean over the batches in which it is defined; None if it is in none.
        angle_of_means: degrees between the two gradients averaged over all batches, or None.
        batches: how many batches there were.
        undefined: in how many of them one of the gradients was zero or not finite, so that there
            is no angle.
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

    `clocked.SpatialBP` with the same traces, or `events.ExactBP` with the exact local gradient
    and the same firing-rate regularisation.
    """
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
        input_shape=rule.sample_shape,
    )


def alignment(
    rule: AnyRule,
    batches: Iterable[Batch],
    *,
    steps: int | None = None,
    reference: AnyRule | None = None,
) -> Alignment:
    r"""Measure the angle of every layer's gradient to that of backpropagation.

    .. math:: \arccos \frac{\langle g, g_{BP} \rangle}{\lVert g \rVert \, \lVert g_{BP} \rVert}

    in degrees, on the same batch with weights and feedback at rest. A gradient that is zero
    (nothing spikes, or everything is saturated) has no angle: the result says so. The pass of
    backpropagation has no noise. Rule, network and random generators are afterwards as they were;
    dropout, if the network is in training mode, draws other masks for the two: call
    `network.eval()` first.

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
    other = backpropagation(rule) if reference is None else reference
    if other.network is not rule.network:
        raise InputError("rule and reference were built on different networks; give them the same")
    single: dict[str, list[float | None]] = {}
    means: dict[str, tuple[Spread, Spread]] = {}
    learned = copy.deepcopy(rule.state_dict())
    with undisturbed(rule, other):
        for batch in batches:
            ours, theirs = gradients(rule, batch, steps), gradients(other, batch, steps)
            rule.load_state_dict(learned)  # every batch meets the feedback as it was
            for layer, vector in ours.items():
                single.setdefault(layer, []).append(angle(vector, theirs[layer]))
                pair = means.setdefault(layer, (Spread(), Spread()))
                pair[0].add(vector)
                pair[1].add(theirs[layer])
    if not single:
        raise InputError("there was no batch; give at least one pair of inputs and targets")
    return Alignment({layer: _summary(angles, *means[layer]) for layer, angles in single.items()})


def _summary(angles: list[float | None], ours: Spread, theirs: Spread) -> LayerAngle:
    defined = [a for a in angles if a is not None]
    undefined = len(angles) - len(defined)
    assert ours.mean is not None and theirs.mean is not None
    note = ""
    if undefined:
        note = f"undefined in {undefined} of {len(angles)} batches: {_why(ours.mean, theirs.mean)}"
    return LayerAngle(
        statistics.fmean(defined) if defined else None,
        angle(ours.mean, theirs.mean),
        len(angles),
        undefined,
        note,
    )


def _why(ours: Tensor, theirs: Tensor) -> str:
    """Say which of two mean gradients has no direction."""
    kinds = [_fault(v) for v in (ours, theirs)]
    parts = [
        f"the {who} gradient is {kind}"
        for who, kind in zip(("rule's", "reference's"), kinds, strict=True)
        if kind
    ]
    return " and ".join(parts) or "a gradient was zero in some batches"


def _fault(mean: Tensor) -> str:
    if not bool(mean.isfinite().all()):
        return "not finite"
    return "" if bool(mean.any()) else "zero"
