"""What can be measured again and again while a network trains (SFDFA, figures 9 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from threefactor import clocked, events
from threefactor.analysis.alignment import alignment
from threefactor.analysis.batches import AnyRule, Batch
from threefactor.analysis.feedback import feedback_alignment
from threefactor.analysis.firing import firing
from threefactor.errors import ConfigurationError, InputError, unknown_name

__all__ = ["MEASURES", "check_measure"]

Plain = dict[str, Any]


def _alignment(rule: AnyRule, batches: Sequence[Batch], steps: int | None) -> Plain:
    """Angles of every layer's gradient, by what it is compared with.

    "bp" is backpropagation without firing-rate regularisation on either side, since that pulls all
    rules the same way and hides what the feedback does. With exact spike times there are two more:
    "modified_bp", BP by the modified local gradient, which no hair trigger can dominate, and
    "bp_with_rates", with the regularisation on both sides.
    """
    if not isinstance(rule, events.Rule):
        return {"bp": alignment(rule, batches, steps=steps).to_dict()["layers"]}
    with _without_rates(rule):
        modified = events.ExactBP(rule.network, loss=rule.loss, local_gradient="modified")
        found = {
            "bp": alignment(rule, batches),
            "modified_bp": alignment(rule, batches, reference=modified),
        }
    found["bp_with_rates"] = alignment(rule, batches)
    return {name: one.to_dict()["layers"] for name, one in found.items()}


@contextmanager
def _without_rates(rule: events.Rule) -> Iterator[None]:
    """Take the firing-rate regularisation out of a rule for the time being."""
    kept, rule.rate_penalty = rule.rate_penalty, 0.0
    try:
        yield
    finally:
        rule.rate_penalty = kept


def _feedback(rule: AnyRule, batches: Sequence[Batch], steps: int | None) -> Plain:
    """Angle and cosine of the last hidden layer's feedback and the output weights."""
    return feedback_alignment(rule).to_dict()["layers"]  # type: ignore[no-any-return]


def _firing(rule: AnyRule, batches: Sequence[Batch], steps: int | None) -> Plain:
    """Firing rates, silent and saturated neurons."""
    return firing(rule.network, batches, steps=steps).to_dict()["layers"]  # type: ignore[no-any-return]


MEASURES: dict[str, Callable[[AnyRule, Sequence[Batch], int | None], Plain]] = {
    "alignment": _alignment,
    "feedback": _feedback,
    "firing": _firing,
}
"""Functions of rule, batches and T for constant inputs; they leave the rule as it was."""


def check_measure(name: str, rule: Any) -> None:
    """Refuse a measure that there is not, or that has no meaning for a rule on its network.

    Raises:
        ConfigurationError: with the nearest known name, or the reason.
    """
    if name not in MEASURES:
        raise unknown_name("measure", name, MEASURES)
    if not isinstance(rule, (clocked.Rule, events.Rule)):
        raise ConfigurationError(
            f"nothing can be measured of a {type(rule).__name__}, which is no rule of threefactor; "
            "leave track out"
        )
    if name != "feedback":
        return
    try:
        feedback_alignment(rule)
    except InputError as problem:
        reason = str(problem).partition(". ")[0]
        raise ConfigurationError(
            f"measure 'feedback' has no meaning here: {reason}; leave it out of track.measures"
        ) from problem
