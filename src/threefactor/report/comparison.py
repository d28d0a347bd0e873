"""Tables of a study: measured beside published, firing rates, cost, runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.recipes import RECIPES
from threefactor.report.published import Published, find_published
from threefactor.report.runs import Run, has_effect, plain_settings
from threefactor.report.study import Group
from threefactor.report.values import Cell, Number, Table, without_empty_columns

__all__ = [
    "DIRECT_TEST",
    "accuracy_table",
    "cost_table",
    "overview_table",
    "run_table",
]

DIRECT_TEST = "direct test accuracy"
"""The quantity of published numbers that are of a network before any fine-tuning."""

DIRECT = "direct test, %"
LAST = "last epoch, %"
BEST = "best epoch, % (biased)"
DIFFERENCE = "last \N{MINUS SIGN} published"
NO_ACCURACY = "\N{EN DASH}"
"""Stands where there is no accuracy, as of targets that are no classes."""
ABOUT_DIRECT = (
    "“Direct test” is the test accuracy of the network that the training goes on with, before the "
    "first epoch, under the noise of these runs."
)
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
        best = group.percent(lambda run: run.best) or NO_ACCURACY
        found = find_published(group.settings)
        source = found[0].source if found else None
        before = find_published(group.settings, DIRECT_TEST)
        direct = (group.direct, before[0].cell if before else None)
        rows.append((label, seeds, epochs, *direct, last, best, published, difference, source))
    columns = (
        *("rule", "seeds", "epochs", DIRECT, f"published {DIRECT}", LAST, BEST),
        *("published, %", DIFFERENCE, "source"),
    )
    about = [ABOUT_DIRECT] if any(group.direct for group in groups) else []
    about += [ABOUT_BEST, *_deviation_note(groups)]
    notes = (*about, *_other_numbers(groups), *_changes(groups))
    return without_empty_columns(Table(f"{recipe}: test accuracy", columns, tuple(rows), notes))


def cost_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show what training took: time per epoch, speed, whole time."""
    rows = tuple(
        (
            group.label,
            len(group.runs),
            group.over_seeds(lambda r: statistics.median(e["seconds"] for e in r.history)),
            group.over_seeds(lambda r: r.seconds / 60),
            ", ".join(sorted({number for run in group.runs for number in run.threads})),
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
            NO_ACCURACY if run.last is None else Number(100 * run.last),
            NO_ACCURACY if run.best is None else Number(100 * run.best),
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
    last = group.percent(lambda run: run.last)
    if last is None:
        return (group.label, len(group.runs), NO_ACCURACY, None, None)
    published: tuple[Published, ...] = find_published(group.settings)
    if not published:
        return (group.label, len(group.runs), last, None, None)
    # Of other settings than the published ones, a difference would say nothing.
    comparable = _finished(group) and _own_changes(group) <= published[0].stands_for
    difference = Number(last.mean - published[0].mean, signed=True) if comparable else None
    return (group.label, len(group.runs), last, published[0].cell, difference)


def _finished(group: Group) -> bool:
    return all(run.finished for run in group.runs)


def _own_changes(group: Group) -> set[str]:
    """Return what was changed of the recipe, without what follows from it."""
    follows = {"start"}
    if group.settings["hardware_noise"] is not None:  # rules perturb by the hardware's own noise
        follows.add("rule.options.noise_scale")
    return set(_changed(group)) - follows


def _deviation_note(groups: Sequence[Group]) -> Iterator[str]:
    yield "Mean ± sample standard deviation over the seeds, or folds; a single run has none."
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
        changed = _changed(group)
        if changed:
            said = (f"{key} = {now} (recipe: {then})" for key, (now, then) in changed.items())
            yield f"{group.label}: settings other than the recipe's: {'; '.join(said)}."


def _changed(group: Group) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a group that are not its recipe's, with those of the recipe."""
    first = group.runs[0].settings
    if first.recipe not in RECIPES:
        return {}
    try:
        recipe = RECIPES[first.recipe].settings_for(first.rule.name, {"seed": first.seed})
    except ConfigurationError:  # a rule of one's own
        return {}
    return dict(_differences(group.settings, plain_settings(recipe)))


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in sorted({*ours, *theirs}):
        if has_effect(key) and ours.get(key) != theirs.get(key):
            yield key, (ours.get(key), theirs.get(key))
