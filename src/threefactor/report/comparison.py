"""Tables of a study: measured beside published, firing rates, cost, runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.recipes import RECIPES
from threefactor.report.grouping import Group
from threefactor.report.published import Published, find_published
from threefactor.report.runs import Run, plain_settings
from threefactor.report.values import Cell, Number, Spread, Table, without_empty_columns
from threefactor.training.engines import engine_of

__all__ = [
    "accuracy_table",
    "cost_table",
    "firing_rates",
    "firing_table",
    "layer_sizes",
    "overview_table",
    "run_table",
    "total_rate",
]

LAST = "last epoch, %"
BEST = "best epoch, % (biased)"
DIFFERENCE = "last \N{MINUS SIGN} published"
ABOUT_BEST = (
    "“Last epoch” is the test accuracy after the last epoch: the one to quote. “Best epoch” is the "
    "highest of all epochs, chosen by looking at the test data, and so biased upwards; some "
    "publications quote it."
)


def overview_table(groups: Sequence[Group]) -> Table:
    """Put every group beside the published number: one row each, all recipes in one table."""
    rows = tuple((group.recipe, *_compared(group)) for group in groups)
    columns = ("recipe", "rule", "seeds", LAST, "published, %", DIFFERENCE)
    return without_empty_columns(Table("All recipes: test accuracy", columns, rows))


def accuracy_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the accuracies of a recipe: last epoch, best epoch, published, and the difference."""
    rows = []
    for group in groups:
        label, seeds, last, published, difference = _compared(group)
        epochs = len(group.runs[0].history)
        best = group.over_seeds(lambda run: 100 * run.best)
        found = find_published(group.settings)
        source = found[0].source if found else None
        rows.append((label, seeds, epochs, last, best, published, difference, source))
    columns = ("rule", "seeds", "epochs", LAST, BEST, "published, %", DIFFERENCE, "source")
    notes = (ABOUT_BEST, *_deviation_note(groups), *_other_numbers(groups), *_changes(groups))
    return without_empty_columns(Table(f"{recipe}: test accuracy", columns, tuple(rows), notes))


def firing_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the firing rate of every hidden layer on the test data after the last epoch."""
    layers = list(dict.fromkeys(layer for group in groups for layer in firing_rates(group)))
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        rates = firing_rates(group)
        rows.append((group.label, len(group.runs), *(rates.get(layer) for layer in layers)))
        published = {p.layer: p.cell for p in find_published(group.settings, "firing rate")}
        if published:
            shown = (_digits(published.get(layer), 4) for layer in layers)
            rows.append((f"{group.label}, published", None, *shown))
    unit = engine_of(groups[0].runs[0].settings).rate_unit
    title = f"{recipe}: firing rates, {unit}"
    return Table(title, ("rule", "seeds", *layers), tuple(rows))


def firing_rates(group: Group) -> dict[str, Spread]:
    """Return the rate of each hidden layer after the last epoch, over seeds.

    "total" is that of all hidden neurons, where the settings tell how many there are.
    """
    names = list(group.runs[0].history[-1]["firing_rates"])
    rates = {name: group.over_seeds(lambda r, n=name: _rate(r, n), digits=4) for name in names}  # type: ignore[misc]
    sizes = layer_sizes(group.runs[0])
    if len(sizes) > 1:
        rates["total"] = group.over_seeds(lambda run: total_rate(run.history[-1], sizes), 4)
    return rates


def layer_sizes(run: Run) -> dict[str, int]:
    """Return the number of neurons by hidden layer, if the settings list them; else nothing."""
    names = list(run.history[-1]["firing_rates"])
    hidden = getattr(run.settings.network, "hidden", ())
    return dict(zip(names, hidden, strict=True)) if len(hidden) == len(names) else {}


def total_rate(epoch: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Return the firing rate over all hidden neurons in an epoch's metrics."""
    rates = epoch["firing_rates"]
    return sum(float(rates[name]) * n for name, n in sizes.items()) / sum(sizes.values())


def cost_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show what training took: time per epoch, speed, whole time."""
    rows = tuple(
        (
            group.label,
            len(group.runs),
            group.over_seeds(lambda r: statistics.median(e["seconds"] for e in r.history)),
            group.over_seeds(lambda r: r.seconds / 60),
            ", ".join(sorted({str(run.environment.get("threads", "?")) for run in group.runs})),
        )
        for group in groups
    )
    columns = ("rule", "seeds", "median epoch, s", "all epochs, min", "threads")
    note = "Wall-clock times, whatever else ran on the machine: no measure of speed by themselves."
    return Table(f"{recipe}: time of training", columns, rows, (note,))


def run_table(runs: Sequence[Run]) -> Table:
    """List the runs with where and with what they were made."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            str(run.path),
            run.settings.seed,
            len(run.history),
            Number(100 * run.last),
            Number(100 * run.best),
            run.best_epoch,
            Number(run.seconds / 60, 1),
            *(str(run.environment.get(k, "?")) for k in ("threefactor", "torch", "python")),
            str(run.environment.get("platform", "?")),
        )
        for run in runs
    )
    columns = ("run", "seed", "epochs", LAST, BEST, "first best epoch", "minutes")
    return Table("All runs", (*columns, "threefactor", "torch", "Python", "machine"), rows)


def _compared(group: Group) -> tuple[Cell, ...]:
    last = group.over_seeds(lambda run: 100 * run.last)
    published: tuple[Published, ...] = find_published(group.settings)
    if not published:
        return (group.label, len(group.runs), last, None, None)
    difference = Number(last.mean - published[0].mean, signed=True)
    return (group.label, len(group.runs), last, published[0].cell, difference)


def _deviation_note(groups: Sequence[Group]) -> Iterator[str]:
    yield "Mean ± sample standard deviation over the seeds; a single seed has none."
    if any(find_published(group.settings) for group in groups):
        yield f"“{DIFFERENCE}” is in percentage points."


def _other_numbers(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        others = find_published(group.settings)[1:]
        shown = [f"{one.cell.text} ({one.source})" for one in others]
        if shown:
            yield f"{group.label}: also published as {', '.join(shown)}."


def _changes(groups: Sequence[Group]) -> Iterator[str]:
    """Say what of the settings is not the recipe's."""
    for group in groups:
        first = group.runs[0].settings
        if first.recipe not in RECIPES:
            continue
        try:
            recipe = RECIPES[first.recipe].settings_for(first.rule.name, {"seed": first.seed})
        except ConfigurationError:  # a rule of one's own
            continue
        changed = dict(_differences(group.settings, plain_settings(recipe)))
        if changed:
            said = (f"{key} = {now} (recipe: {then})" for key, (now, then) in changed.items())
            yield f"{group.label}: settings other than the recipe's: {'; '.join(said)}."


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            yield key, (ours.get(key), theirs.get(key))


def _rate(run: Run, layer: str) -> float:
    return float(run.history[-1]["firing_rates"][layer])


def _digits(cell: Spread | None, digits: int) -> Spread | None:
    return None if cell is None else Spread(cell.mean, cell.sd, cell.n, digits)
