"""Figures of a study: learning curves, firing rates, accuracy beside published."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from threefactor.report.comparison import firing_rates, layer_sizes, total_rate
from threefactor.report.figures import Figure, Series
from threefactor.report.grouping import Group
from threefactor.report.page import slug
from threefactor.training.engines import engine_of

__all__ = ["curve", "firing_figure", "learning_curves"]

Epoch = Mapping[str, Any]


def learning_curves(recipe: str, groups: Sequence[Group]) -> tuple[Figure, ...]:
    """Show test error, training loss and firing rate against the epoch, means over the seeds.

    The firing rate is that of all hidden neurons, and left out if the settings do not say how many
    neurons each layer has.
    """
    several = any(len(group.runs) > 1 for group in groups)
    caption = "Mean over the seeds; the band is ± one standard deviation." if several else ""
    measures: dict[str, Callable[[Epoch], float]] = {
        "test error (%)": lambda line: 100 - 100 * line["test_accuracy"],
        "training loss": lambda line: line["train_loss"],
    }
    sizes = layer_sizes(groups[0].runs[0])
    unit = engine_of(groups[0].runs[0].settings).rate_unit
    if sizes:
        measures[unit] = lambda line: total_rate(line, sizes)
    return tuple(
        _against_epoch(recipe, groups, name, measure, caption) for name, measure in measures.items()
    )


def _against_epoch(
    recipe: str,
    groups: Sequence[Group],
    name: str,
    measure: Callable[[Epoch], float],
    caption: str,
) -> Figure:
    series = tuple(curve(g.label, [run.history for run in g.runs], measure) for g in groups)
    title = name.removesuffix(" (%)")
    # A logarithmic axis has no place for an error of exactly zero.
    positive = all(y > 0 for one in series for y in one.ys)
    return Figure(
        slug(f"{recipe} {title}"),
        f"{recipe}: {title}",
        caption,
        "epoch",
        name,
        series,
        log_y=positive and name in ("test error (%)", "training loss"),
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
