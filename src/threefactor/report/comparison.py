"""Tables of a study: measured accuracy beside published, time of training, runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from threefactor.report.runs import ReportedRun
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
"""The quantity of published numbers of networks before any fine-tuning."""

DIRECT = "direct test, %"
LAST = "last epoch, %"
BEST = "best epoch, % (biased)"
PUBLISHED = "published, %"
DIFFERENCE = "ours \N{MINUS SIGN} published"
NO_ACCURACY = "\N{EN DASH}"
"""Stands where there is no accuracy, for example because targets are not classes."""
ABOUT_DIRECT = (
    "“Direct test” is the test accuracy of the network that the training starts from, before the "
    "first epoch, under the noise of these runs."
)
ABOUT_BEST = (
    "“Last epoch” is the test accuracy after the last epoch: the one to quote. “Best epoch” is the "
    "highest of all epochs, chosen by looking at the test data, and so biased upwards."
)
ABOUT_DIFFERENCE = (
    f"“{DIFFERENCE}” is in percentage points. It compares the last epoch with the published "
    "number. The numbers of SFDFA, table 1, are means of the best test epoch of each run: there it "
    "compares the best epochs."
)


def overview_table(groups: Sequence[Group]) -> Table:
    """Show the accuracy of every group beside the published one, all recipes in one table."""
    rows = []
    for group in groups:
        found = _compare(group)
        best = group.percent(lambda run: run.best)
        accuracies = (found.last, best, found.published, found.difference)
        rows.append((group.recipe, group.label, len(group.runs), *accuracies))
    columns = ("recipe", "rule", "seeds", LAST, BEST, PUBLISHED, DIFFERENCE)
    notes = (ABOUT_BEST, ABOUT_DIFFERENCE) if any(row[-1] for row in rows) else (ABOUT_BEST,)
    table = Table("All recipes: test accuracy", columns, tuple(rows), notes)
    return without_empty_columns(table)


def accuracy_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the accuracies of a recipe: last epoch, best epoch, published, and the difference."""
    rows = []
    for group in groups:
        found = _compare(group)
        before = group.published(DIRECT_TEST)
        rows.append(
            (
                group.label,
                len(group.runs),
                len(group.runs[0].history),
                group.direct,
                before[0].cell if before else None,
                found.last,
                group.percent(lambda run: run.best) or NO_ACCURACY,
                found.published,
                found.difference,
                found.source,
            )
        )
    columns = (
        *("rule", "seeds", "epochs", DIRECT, f"published {DIRECT}", LAST, BEST),
        *(PUBLISHED, DIFFERENCE, "source"),
    )
    about = [ABOUT_DIRECT] if any(group.direct for group in groups) else []
    about += [ABOUT_BEST, *_deviation_note(groups)]
    notes = (*about, *_other_numbers(groups), *_changes(groups))
    return without_empty_columns(Table(f"{recipe}: test accuracy", columns, tuple(rows), notes))


def cost_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the time that training took."""
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


def run_table(runs: Sequence[ReportedRun]) -> Table:
    """List the runs with their accuracies, versions and machines."""
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


@dataclass(frozen=True)
class _Compared:
    """Accuracy of a group after the last epoch, beside the published one, and the difference.

    The difference compares the best epochs if the published number is that of the best epochs.
    """

    last: Cell
    published: Cell = None
    difference: Cell = None
    source: str | None = None


def _compare(group: Group) -> _Compared:
    last, published = group.percent(lambda run: run.last), group.published()
    source = published[0].source if published else None
    if last is None:
        return _Compared(NO_ACCURACY, source=source)
    if not published:
        return _Compared(last)
    # What was changed of the recipe, without what follows from it: the start, and that rules
    # perturb by the noise of the hardware where there is some.
    changed = group.changed.keys() - {"start"}
    if group.settings["hardware_noise"] is not None:
        changed -= {"rule.options.noise_scale"}
    # A difference between other settings would say nothing.
    same = all(run.finished for run in group.runs) and changed <= published[0].stands_for
    ours = last
    if published[0].epoch == "best":
        best = group.percent(lambda run: run.best)
        assert best is not None  # every run has a last epoch
        ours = best
    difference = Number(ours.mean - published[0].mean, signed=True) if same else None
    return _Compared(last, published[0].cell, difference, source)


def _deviation_note(groups: Sequence[Group]) -> Iterator[str]:
    yield "Mean ± sample standard deviation over the seeds, or folds; a single run has none."
    if any(group.published() for group in groups):
        yield ABOUT_DIFFERENCE


def _other_numbers(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        others = group.published()[1:]
        shown = [f"{one.cell.text} ({one.source})" for one in others]
        if shown:
            yield f"{group.label}: also published as {', '.join(shown)}."


def _changes(groups: Sequence[Group]) -> Iterator[str]:
    """Name the settings that differ from those of the recipe."""
    for group in groups:
        changed = group.changed
        if changed:
            said = (f"{key} = {now} (recipe: {then})" for key, (now, then) in changed.items())
            yield f"{group.label}: settings other than the recipe's: {'; '.join(said)}."
