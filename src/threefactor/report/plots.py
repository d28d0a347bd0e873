"""Figures of a study: learning curves, firing rates, accuracy beside published."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from threefactor.report.comparison import firing_rates
from threefactor.report.figures import Figure, Series
from threefactor.report.study import Group
from threefactor.training.engines import engine_of

__all__ = ["curve", "firing_figure", "learning_curves"]

Epoch = Mapping[str, Any]


def learning_curves(recipe: str, groups: Sequence[Group]) -> tuple[Figure, ...]:
    """Show test error and training loss against the epoch, means over the seeds."""
    several = any(len(group.runs) > 1 for group in groups)
    caption = "Mean over the seeds; the band is ± one standard deviation." if several else ""
    histories = {group.label: [run.history for run in group.runs] for group in groups}
    errors = [
        curve(name, lines, lambda line: 100 - 100 * line["test_accuracy"])
        for name, lines in histories.items()
    ]
    losses = [curve(name, lines, lambda line: line["train_loss"]) for name, lines in histories.items()]
    common = {"caption": caption, "x_label": "epoch"}
    return (
        Figure(
            f"{recipe}-test-error",
            f"{recipe}: test error",
            y_label="test error (%)",
            series=tuple(errors),
            log_y=_positive(errors),
            **common,
        ),
        Figure(
            f"{recipe}-training-loss",
            f"{recipe}: training loss",
            y_label="training loss",
            series=tuple(losses),
            log_y=_positive(losses),
            **common,
        ),
    )


def curve(
    label: str, histories: Sequence[Sequence[Epoch]], measure: Callable[[Epoch], float]
) -> Series:
    """Return the mean over runs of a measure of each epoch, with the deviation if there is one.

    Args:
        label: of the curve.
        histories: metrics of runs with equally many epochs.
        measure: a number out of the metrics of one epoch.
    """
    points = [[measure(line) for line in lines] for lines in zip(*histories, strict=True)]
    deviations = [statistics.stdev(p) for p in points] if len(histories) > 1 else None
    epochs = [int(line["epoch"]) for line in histories[0]]
    return Series(label, epochs, [statistics.fmean(p) for p in points], deviations)


def firing_figure(recipe: str, groups: Sequence[Group]) -> Figure:
    """Show the firing rate of every layer after the last epoch, rules side by side."""
    series = []
    for group in groups:
        rates = firing_rates(group)
        means = [rate.mean for rate in rates.values()]
        deviations = [rate.sd for rate in rates.values() if rate.sd is not None]
        series.append(Series(group.label, list(rates), means, deviations or None))
    return Figure(
        f"{recipe}-firing-rates",
        f"{recipe}: firing rates",
        "On the test data, after the last epoch. Bars of error: ± one standard deviation.",
        "layer",
        engine_of(groups[0].runs[0].settings).rate_unit,
        tuple(series),
        kind="bar",
    )


def _positive(series: Sequence[Series]) -> bool:
    """A logarithmic axis has no place for an error of exactly zero."""
    return all(y > 0 for one in series for y in one.ys)
