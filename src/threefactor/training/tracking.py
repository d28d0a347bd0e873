"""Measures taken while a network trains: which, when, on which samples (SFDFA, figures 9, 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from threefactor import clocked, events
from threefactor.analysis.alignment import alignment
from threefactor.analysis.batches import AnyRule, Batch, cut
from threefactor.analysis.feedback import feedback_alignment
from threefactor.analysis.firing import firing
from threefactor.errors import ConfigurationError, InputError, unknown_name
from threefactor.modes import evaluating, random_kept
from threefactor.training.experiment import Experiment
from threefactor.training.settings import TrackSettings

__all__ = ["MEASURES", "Tracker", "check_measure", "tracker_of"]

Plain = dict[str, Any]


def _alignment(rule: AnyRule, batches: Sequence[Batch], steps: int | None) -> Plain:
    """Angles of every layer's gradient, by what it is compared with.

    "bp" is backpropagation. Firing-rate regularisation is left out of both gradients, since it
    pulls those of all rules in the same direction and hides what the feedback does. With exact
    spike times there are two more: "modified_bp" is backpropagation with the modified local
    gradient, which no hair trigger can dominate; "bp_with_rates" keeps the regularisation in both
    gradients.
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
    """Switch the firing-rate regularisation of a rule off, and on again at the end."""
    kept, rule.rate_penalty = rule.rate_penalty, 0.0
    try:
        yield
    finally:
        rule.rate_penalty = kept


def _feedback(rule: AnyRule, batches: Sequence[Batch], steps: int | None) -> Plain:
    """Angle and cosine between the last hidden layer's feedback and the output weights."""
    return feedback_alignment(rule).to_dict()["layers"]  # type: ignore[no-any-return]


def _firing(rule: AnyRule, batches: Sequence[Batch], steps: int | None) -> Plain:
    """Firing rates, silent and saturated neurons."""
    return firing(rule.network, batches, steps=steps).to_dict()["layers"]  # type: ignore[no-any-return]


MEASURES: dict[str, Callable[[AnyRule, Sequence[Batch], int | None], Plain]] = {
    "alignment": _alignment,
    "feedback": _feedback,
    "firing": _firing,
}
"""Functions of rule, batches, and T for constant inputs. They do not change the rule."""


def check_measure(name: str, rule: Any) -> None:
    """Refuse a measure that does not exist, or has no meaning for a rule on its network.

    Raises:
        ConfigurationError: with the nearest known name, or the reason.
    """
    if name not in MEASURES:
        raise unknown_name("measure", name, MEASURES)
    if not isinstance(rule, (clocked.Rule, events.Rule)):
        raise ConfigurationError(
            f"nothing can be measured of a {type(rule).__name__}, which is not a rule of "
            "threefactor; leave track out"
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


class Tracker:
    """Measures an experiment without changing it.

    Args:
        experiment: the live objects.
        settings: what is measured.
        test: test samples and their labels, on the device of the network.

    Raises:
        ConfigurationError: if a measure is not known, or has no meaning for the rule or network.
    """

    def __init__(
        self, experiment: Experiment, settings: TrackSettings, test: tuple[Any, Tensor]
    ) -> None:
        self.experiment, self.settings, self._test = experiment, settings, test
        for name in settings.measures:
            check_measure(name, experiment.rule)

    @cached_property
    def batches(self) -> list[Batch]:
        """The batches that are measured on, always the same."""
        inputs, labels = self._test
        size = min(self.experiment.settings.batch_size, self.settings.samples, len(labels))
        whole = cut(inputs, labels, size, self.settings.samples)
        return [(self.experiment.shaped(x), y) for x, y in whole]

    def due(self, batches: int) -> bool:
        """Whether to measure after this number of batches, counted from the start of training."""
        return self.settings.every is not None and batches % self.settings.every == 0

    def measure(self) -> dict[str, Any]:
        """Return the results of all measures by name: nested plain values.

        Dropout is off. Noise is drawn anew from the run's seed for every measure, so that the
        numbers depend on network and rule alone.
        """
        found = {}
        with evaluating(self.experiment.network), random_kept():
            for name in self.settings.measures:
                torch.manual_seed(self.experiment.settings.seed)
                found[name] = MEASURES[name](
                    self.experiment.rule, self.batches, self.experiment.steps
                )
        return found


def tracker_of(experiment: Experiment, test: tuple[Any, Tensor]) -> Tracker | None:
    """Return the tracker that the settings ask for, or None.

    Raises:
        ConfigurationError: see `Tracker`.
    """
    settings = experiment.settings.track
    return None if settings is None else Tracker(experiment, settings, test)
