"""Figures of a study: learning curves and firing rates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from threefactor.report.figures import Figure, Series
from threefactor.report.firing import firing_rates, layer_sizes, total_rate
from threefactor.report.grouping import Group
from threefactor.report.page import slug
from threefactor.training.engines import engine_of

__all__ = ["curve", "firing_figure", "learning_curves"]

Epoch = Mapping[str, Any]


def learning_curves(recipe: str, groups: Sequence[Group]) -> tuple[Figure, ...]:
    """Show test error, training loss and firing rate against the epoch, means over the seeds.

    The test error is left out where there is no accuracy.
    The firing rate is that of all hidden neurons, and left out if the settings do not tell how
    many neurons each layer has.
    """
    sizes = {group.label: layer_sizes(group.runs[0]) for group in groups}
    figures = [_against_epoch(recipe, groups, "training loss", lambda _, e: e["train_loss"])]
    if all(e["test_accuracy"] is not None for g in groups for run in g.runs for e in run.history):
        errors = _against_epoch(
            recipe, groups, "test error (%)", lambda _, e: 100 - 100 * e["test_accuracy"]
        )
        figures.insert(0, errors)
    if all(sizes.values()):
        unit = engine_of(groups[0].runs[0].settings).rate_unit
        figures.append(
            _against_epoch(
                recipe, groups, unit, lambda g, e: total_rate(e, sizes[g.label]), log=False
            )
        )
    return tuple(figures)


def _against_epoch(
    recipe: str,
    groups: Sequence[Group],
    name: str,
    measure: Callable[[Group, Epoch], float],
    log: bool = True,
) -> Figure:
    series = tuple(
        curve(group.label, [run.history for run in group.runs], partial(measure, group))
        for group in groups
    )
    several = any(len(group.runs) > 1 for group in groups)
    title = name.removesuffix(" (%)")
    return Figure(
        slug(f"{recipe} {title}"),
        f"{recipe}: {title}",
        "Mean over the seeds; the band is ± one standard deviation." if several else "",
        "epoch",
        name,
        series,
        log_y=log and all(one.positive for one in series),  # an error may be exactly zero
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
