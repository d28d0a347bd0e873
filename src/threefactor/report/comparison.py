"""Tables of a study: measured accuracy beside published, time of training, runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from threefactor.report.runs import ReportedRun
from threefactor.report.study import Group
from threefactor.report.values import Cell, Number, Table, without_empty_columns
from threefactor.training.scores import SCORES, Score

__all__ = [
    "DIRECT_TEST",
    "accuracy_table",
    "cost_table",
    "judged_tables",
    "overview_table",
    "run_table",
    "score_table",
]

DIRECT_TEST = "direct test accuracy"
"""The quantity of published numbers of networks before any fine-tuning."""

DIRECT = "direct test, %"
LAST = "last epoch, %"
BEST = "best epoch, % (biased)"
CHOSEN = "best epoch on validation data, %"
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
ABOUT_CHOSEN = (
    "“Best epoch on validation data” is the test accuracy of the epoch that did best on training "
    "samples held out for that: the test data had no say in it."
)
ABOUT_DIFFERENCE = (
    f"“{DIFFERENCE}” is in percentage points. It compares the last epoch with the published "
    "number. The numbers of SFDFA, table 1, are means of the best test epoch of each run: there it "
    "compares the best epochs."
)


def judged_tables(recipe: str, groups: Sequence[Group]) -> list[Table]:
    """Show how good the networks of a recipe are, in one table for each kind of score.

    Those without any score are with those that have an accuracy, as they may have one.
    """
    others: dict[str, list[Group]] = {}
    for group in groups:
        kind = group.score.name
        others.setdefault("" if kind in ("accuracy", "loss") else kind, []).append(group)
    usual = others.pop("", [])
    tables = [accuracy_table(recipe, usual)] if usual else []
    return [*tables, *(score_table(recipe, each) for each in others.values())]


def score_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the scores of networks that predict values or labels, all of the same kind."""
    lead = groups[0].score
    others = [one for one in SCORES.values() if one is not lead and _has(groups, one)]
    rows = []
    for group in groups:
        last = group.last_of(lead)
        direct = group.over_score(lead, lambda run: (run.start or {}).get(f"test_{lead.name}"))
        chosen = group.over_score(
            lead,
            lambda run: None if run.chosen_line is None else run.chosen_line[f"test_{lead.name}"],
        )
        best = group.over_score(lead, lambda run: run.best_of(lead))
        found = (group.label, len(group.runs), group.epochs)
        rows.append((*found, direct, last, chosen, best, *map(group.last_of, others)))
    columns = (
        *("rule", "seeds", "epochs"),
        f"{lead.heading}, direct test",
        f"{lead.heading}, last epoch",
        f"{lead.heading}, best epoch on validation data",
        f"{lead.heading}, best epoch (biased)",
        *(f"{one.heading}, last epoch" for one in others),
    )
    order = "highest" if lead.higher else "lowest"
    notes = (
        f"Scores are on the test data; the {order} {lead.title} is the best. “Last epoch” is the "
        "one to quote. “Best epoch” is chosen by looking at the test data, and so biased.",
        "Mean ± sample standard deviation over the seeds, or folds; a single run has none.",
        *_changes(groups),
    )
    table = Table(f"{recipe}: test {lead.title}", columns, tuple(rows), notes)
    return without_empty_columns(table)


def _has(groups: Sequence[Group], score: Score) -> bool:
    return any(group.last_of(score) is not None for group in groups)


def overview_table(groups: Sequence[Group]) -> Table:
    """Show the accuracy of every group beside the published one, all recipes in one table."""
    rows = []
    for group in groups:
        found = _compare(group)
        best = group.percent(lambda run: run.best)
        chosen = group.percent(lambda run: run.chosen)
        accuracies = (found.last, chosen, best, found.published, found.difference)
        rows.append((group.recipe, group.label, len(group.runs), *accuracies))
    columns = ("recipe", "rule", "seeds", LAST, CHOSEN, BEST, PUBLISHED, DIFFERENCE)
    notes = (ABOUT_BEST, ABOUT_DIFFERENCE) if any(row[-1] for row in rows) else (ABOUT_BEST,)
    notes = (*_chosen_note(groups), *notes)
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
                group.epochs,
                group.direct,
                before[0].cell if before else None,
                found.last,
                group.percent(lambda run: run.chosen),
                group.percent(lambda run: run.best) or NO_ACCURACY,
                found.published,
                found.difference,
                found.source,
            )
        )
    columns = (
        *("rule", "seeds", "epochs", DIRECT, f"published {DIRECT}", LAST, CHOSEN, BEST),
        *(PUBLISHED, DIFFERENCE, "source"),
    )
    about = [ABOUT_DIRECT] if any(group.direct for group in groups) else []
    about += [*_chosen_note(groups), ABOUT_BEST, *_deviation_note(groups)]
    notes = (*about, *_other_numbers(groups), *_changes(groups))
    return without_empty_columns(Table(f"{recipe}: test accuracy", columns, tuple(rows), notes))


def _chosen_note(groups: Sequence[Group]) -> tuple[str, ...]:
    held = any(run.chosen is not None for group in groups for run in group.runs)
    return (ABOUT_CHOSEN,) if held else ()


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
            None if run.score.name == "accuracy" else _judged(run),
            Number(run.seconds / 60, 1),
            *(str(run.environment.get(k, "?")) for k in ("threefactor", "torch", "python")),
            str(run.environment.get("platform", "?")),
        )
        for run in runs
    )
    columns = ("run", "seed", "epochs", LAST, BEST, "first best epoch", "test score", "minutes")
    table = Table("All runs", (*columns, "threefactor", "torch", "Python", "machine"), rows)
    if any(run.score.name != "accuracy" for run in runs):
        return table
    return without_empty_columns(table)


def _judged(run: ReportedRun) -> str:
    """Return what a run without an accuracy is judged by after the last epoch."""
    value = run.history[-1][f"test_{run.score.name}"]
    return f"{run.score.title} {run.score.text(value)}"


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
