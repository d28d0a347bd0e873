"""How the networks of a recipe learned and fired: learning curves, firing rates by layer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from threefactor.report.figures import Figure, Series
from threefactor.report.names import slug
from threefactor.report.runs import ReportedRun
from threefactor.report.study import Group
from threefactor.report.values import Cell, Spread, Table
from threefactor.training.engines import engine_of

__all__ = [
    "firing_figure",
    "firing_rates",
    "firing_table",
    "learning_curves",
]

Epoch = Mapping[str, Any]


def learning_curves(recipe: str, groups: Sequence[Group]) -> tuple[Figure, ...]:
    """Draw test error, training loss and firing rate against the epoch, as means over the seeds.

    In place of the test error there is the leading score of other tasks, if there is one. The
    firing rate is that of all hidden neurons; it is left out if it is not known how many neurons
    each layer has.
    """
    sizes = {group.label: _layer_sizes(group.runs[0]) for group in groups}
    figures = [_against_epoch(recipe, groups, "training loss", lambda _, e: e["train_loss"])]
    if all(e["test_accuracy"] is not None for g in groups for run in g.runs for e in run.history):
        errors = _against_epoch(
            recipe, groups, "test error (%)", lambda _, e: 100 - 100 * e["test_accuracy"]
        )
        figures.insert(0, errors)
    elif (score := groups[0].score).name not in ("accuracy", "loss") and all(
        group.score is score for group in groups
    ):
        key = f"test_{score.name}"
        figures.insert(
            0,
            _against_epoch(
                recipe,
                groups,
                f"test {score.heading}",
                lambda _, e: score.scale * e[key],
                log=not score.higher,
            ),
        )
    if all(sizes.values()):
        unit = engine_of(groups[0].runs[0].settings).rate_unit
        figures.append(
            _against_epoch(
                recipe, groups, unit, lambda g, e: _total_rate(e, sizes[g.label]), log=False
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
        _curve(group.label, [run.history for run in group.runs], partial(measure, group))
        for group in groups
    )
    several = any(len(group.runs) > 1 for group in groups)
    title = name.removesuffix(" (%)")
    about = ["Mean over the seeds; the band is ± one standard deviation."] if several else []
    if any(len(group.lengths) > 1 for group in groups):
        about.append("A curve ends where the first of its runs stopped.")
    return Figure(
        slug(f"{recipe} {title}"),
        f"{recipe}: {title}",
        " ".join(about),
        "epoch",
        name,
        series,
        log_y=log and all(one.positive for one in series),  # an error may be exactly zero
    )


def _curve(
    label: str, histories: Sequence[Sequence[Epoch]], measure: Callable[[Epoch], float]
) -> Series:
    """Return a measure of each epoch as mean over runs, up to the last one that all of them have.

    Beyond it, those that were stopped early would be missing, and the mean be one of other runs.
    """
    points = [[measure(line) for line in lines] for lines in zip(*histories, strict=False)]
    deviations = [statistics.stdev(p) for p in points] if len(histories) > 1 else None
    epochs = [int(line["epoch"]) for line in histories[0][: len(points)]]
    return Series(label, epochs, [statistics.fmean(p) for p in points], deviations)


def firing_figure(recipe: str, groups: Sequence[Group]) -> Figure:
    """Draw the firing rate of every layer after the last epoch, rules side by side."""
    series = []
    for group in groups:
        rates = firing_rates(group)
        means = [rate.mean for rate in rates.values()]
        deviations = [rate.sd for rate in rates.values() if rate.sd is not None]
        series.append(Series(group.label, list(rates), means, deviations or None))
    return Figure(
        slug(f"{recipe} firing rates"),
        f"{recipe}: firing rates",
        "On the test data, after the last epoch. Bars of error: ± one standard deviation.",
        "layer",
        engine_of(groups[0].runs[0].settings).rate_unit,
        tuple(series),
        kind="bar",
    )


ABOUT_PUBLISHED = (
    "Published rates are of the published settings; the notes below the table of accuracies say "
    "which settings of these runs are not."
)


def firing_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the firing rate of every hidden layer on the test data after the last epoch."""
    layers = list(dict.fromkeys(layer for group in groups for layer in firing_rates(group)))
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        rates = firing_rates(group)
        rows.append((group.label, len(group.runs), *(rates.get(layer) for layer in layers)))
        published = {p.layer: p.cell for p in group.published("firing rate")}
        if published:
            shown = (_digits(published.get(layer), 4) for layer in layers)
            rows.append((f"{group.label}, published", None, *shown))
    unit = engine_of(groups[0].runs[0].settings).rate_unit
    title = f"{recipe}: firing rates, {unit}"
    notes = (ABOUT_PUBLISHED,) if len(rows) > len(groups) else ()
    return Table(title, ("rule", "seeds", *layers), tuple(rows), notes)


def firing_rates(group: Group) -> dict[str, Spread]:
    """Return the rate of each hidden layer after the last epoch, over seeds.

    "total" is the rate of all hidden neurons, where it is known how many there are.
    """
    names = list(group.runs[0].history[-1]["firing_rates"])
    rates = {name: group.over_seeds(lambda r, n=name: _rate(r, n), digits=4) for name in names}  # type: ignore[misc]
    sizes = _layer_sizes(group.runs[0])
    if len(sizes) > 1:
        rates["total"] = group.over_seeds(lambda run: _total_rate(run.history[-1], sizes), 4)
    return rates


def _layer_sizes(run: ReportedRun) -> dict[str, int]:
    """Return the number of neurons of each hidden layer with a firing rate; empty if unknown.

    Runs of earlier versions tell it in their settings alone, and only without convolutions.
    """
    names = list(run.history[-1]["firing_rates"])
    hidden: Sequence[int] = getattr(run.settings.network, "hidden", ())
    sizes = run.layer_sizes or dict(zip(names, hidden, strict=False))
    return {name: sizes[name] for name in names} if sizes.keys() == set(names) else {}


def _total_rate(epoch: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Return the firing rate over all hidden neurons in an epoch's metrics."""
    rates = epoch["firing_rates"]
    return sum(float(rates[name]) * n for name, n in sizes.items()) / sum(sizes.values())


def _rate(run: ReportedRun, layer: str) -> float:
    return float(run.history[-1]["firing_rates"][layer])


def _digits(cell: Spread | None, digits: int) -> Spread | None:
    return None if cell is None else Spread(cell.mean, cell.sd, cell.n, digits)
