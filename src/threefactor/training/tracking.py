"""What is measured while a network trains: when, on which samples.

The measures themselves are those of `threefactor.analysis`, which is imported in the functions: it
uses the training loop, too.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from threefactor.training.build import Experiment
from threefactor.training.evaluation import evaluating
from threefactor.training.settings import TrackSettings

__all__ = ["Tracker", "tracker_of"]


class Tracker:
    """Takes the measures of an experiment, and leaves it as it was.

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
        from threefactor.analysis.runs.tracking import check_measure

        self.experiment, self.settings, self._test = experiment, settings, test
        for name in settings.measures:
            check_measure(name, experiment.rule)

    @cached_property
    def batches(self) -> list[tuple[Any, Tensor]]:
        """The batches that are measured on, always the same."""
        from threefactor.analysis.batches import cut

        inputs, labels = self._test
        size = min(self.experiment.settings.batch_size, self.settings.samples, len(labels))
        return list(cut(inputs, labels, size, self.settings.samples))

    def due(self, batches: int) -> bool:
        """Whether to measure after so many batches of the training."""
        return self.settings.every is not None and batches % self.settings.every == 0

    def measure(self) -> dict[str, Any]:
        """Return the results of all measures by name: nested plain values.

        Dropout is off. Noise is drawn anew from the run's seed for every measure, so that the
        numbers depend on network and rule alone.
        """
        from threefactor.analysis.runs.tracking import MEASURES

        found = {}
        with evaluating(self.experiment.network), torch.random.fork_rng():
            for name in self.settings.measures:
                torch.manual_seed(self.experiment.settings.seed)
                found[name] = MEASURES[name](
                    self.experiment.rule, self.batches, self.experiment.steps
                )
        return found


def tracker_of(experiment: Experiment, test: tuple[Any, Tensor]) -> Tracker | None:
    """Return the tracker that the settings want, or None.

    Raises:
        ConfigurationError: see `Tracker`.
    """
    settings = experiment.settings.track
    return None if settings is None else Tracker(experiment, settings, test)
