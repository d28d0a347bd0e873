"""Angles of feedback connections to what they should be (SFDFA, figure 10; OPZO, lemma 4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from threefactor import clocked, events
from threefactor.analysis.angles import angle, cosine
from threefactor.analysis.batches import AnyRule, Batch
from threefactor.analysis.jacobian import mean_jacobian
from threefactor.analysis.records import Record
from threefactor.errors import InputError

__all__ = ["FeedbackAlignment", "LayerFeedback", "feedback_alignment"]


@dataclass(frozen=True)
class LayerFeedback(Record):
    """Feedback of one hidden layer beside what it is compared with.

    Attributes:
        cosine: of the flattened matrices; None if one is zero.
        angle: degrees, or None.
        scale: norm of the feedback over that of the other; None if one is zero.
        compared_with: "output weights" or "mean Jacobian".
        note: empty, or why there is no angle.
    """

    cosine: float | None
    angle: float | None
    scale: float | None
    compared_with: str
    note: str


@dataclass(frozen=True)
class FeedbackAlignment(Record):
    """Alignment of feedback by hidden layer."""

    layers: dict[str, LayerFeedback]


def feedback_alignment(
    rule: AnyRule, batches: Iterable[Batch] | None = None, *, steps: int | None = None
) -> FeedbackAlignment:
    """Compare feedback connections with output weights, or with the mean Jacobian.

    Without batches, the feedback of the last hidden layer meets the transposed output weights, for
    both engines. With batches, for networks on a time grid, the feedback of every hidden layer
    meets the mean Jacobian of the output by the layer's activity (see `mean_jacobian`), which is
    what OPZO's connections estimate; for the last hidden layer that is the output weights again.

    Args:
        rule: one with feedback connections.
        batches: pairs of inputs and targets, or None; the targets are not used.
        steps: T, for constant inputs of clocked networks.

    Raises:
        InputError: if the rule has no feedback; if batches are given for a network of exact spike
            times, or the output weights do not have the feedback's shape and none are given.

    Example:
        >>> from threefactor import clocked
        >>> rule = clocked.DKP(clocked.fc(4, (8, 6), 3))
        >>> feedback_alignment(rule).layers["lif2"].compared_with
        'output weights'

    Source: Bacho & Chu (SFDFA), figure 10; Xiao et al. 2026 (OPZO), lemma 4.1.
    """
    feedback = getattr(rule, "feedback", None)
    if not feedback:
        raise InputError(f"{type(rule).__name__} has no feedback connections to compare")
    names = list(rule.layer_sizes)
    if batches is None:
        return FeedbackAlignment(
            {names[-1]: _compare(feedback[-1].matrix, output_weights(rule), "output weights")}
        )
    if isinstance(rule, events.Rule):
        raise InputError(
            "spikes of exact times have no Jacobian by the layer's activity; leave batches out, "
            "to compare with the output weights"
        )
    jacobian = mean_jacobian(rule.network, (x for x, _ in batches), steps=steps)
    return FeedbackAlignment(
        {
            name: _compare(connection.matrix, jacobian[name], "mean Jacobian")
            for name, connection in zip(names, feedback, strict=True)
        }
    )


def output_weights(rule: AnyRule) -> Tensor:
    """Return the weights from the last hidden layer to the output as (m, n), as feedback is kept.

    Raises:
        InputError: if the network's last synapse layer has another shape.
    """
    n = list(rule.layer_sizes.values())[-1]
    if isinstance(rule, events.Rule):
        return rule.layers[-1].weight.detach().t()
    synapses = [m for m in rule.network.modules() if isinstance(m, clocked.Synapse)]
    weight = synapses[-1].weight.detach()
    if weight.shape != (rule.outputs, n):
        raise InputError(
            f"the last synapse layer has weights of shape {tuple(weight.shape)}; expected "
            f"({rule.outputs}, {n}), from the last hidden layer to the outputs. Give batches, to "
            "compare with the mean Jacobian"
        )
    return weight


def _compare(matrix: Tensor, other: Tensor, name: str) -> LayerFeedback:
    between = angle(matrix, other)
    norms = [float(m.detach().double().norm()) for m in (matrix, other)]
    zero = [
        who for who, norm in zip(("the feedback", f"the {name}"), norms, strict=True) if not norm
    ]
    return LayerFeedback(
        cosine(matrix, other),
        between,
        None if between is None else norms[0] / norms[1],
        name,
        f"undefined: {' and '.join(zero) or 'a value'} is {'zero' if zero else 'not finite'}"
        if between is None
        else "",
    )
