"""Which epoch is the best so far, and whether it is time to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from threefactor.training.scores import LEADING, leading, lower_is_better
from threefactor.training.settings import StoppingSettings

__all__ = ["METRICS", "chosen_by", "is_better", "stopped_early"]

METRICS = tuple(f"{part}_{name}" for part in ("validation", "test") for name in (*LEADING, "loss"))


def chosen_by(line: Mapping[str, Any]) -> str:
    """Return the metric that chooses the best epoch.

    That of the validation data, if there are any; else that of the test data, which makes the best
    epoch look better than it is. The accuracy, or the leading score of another task, if there is
    one, else the loss.

    Args:
        line: the metrics of an epoch.
    """
    part = "validation" if "validation_loss" in line else "test"
    return f"{part}_{leading(line, part)}"


def is_better(metric: str, value: float, best: float | None, least: float = 0.0) -> bool:
    """Say whether the value of a metric is better than the best so far, by more than `least`."""
    if best is None:
        return True
    return value < best - least if lower_is_better(metric) else value > best + least


def stopped_early(lines: Sequence[Mapping[str, Any]], stopping: StoppingSettings | None) -> bool:
    """Say whether a training ends after these epochs, because none of the last ones was better.

    Args:
        lines: the metrics of all epochs so far.
        stopping: the settings; None never stops.
    """
    if stopping is None or not lines:
        return False
    best, since = None, 0
    for line in lines:
        metric = chosen_by(line)
        if is_better(metric, line[metric], best, stopping.least):
            best, since = line[metric], 0
        else:
            since += 1
    return since >= stopping.patience
