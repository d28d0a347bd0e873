"""The page of a table or figure: what was run, beside what was published, and what was not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from threefactor.report.analyses import read_analyses
from threefactor.report.comparison import (
    ABOUT_DIFFERENCE,
    BEST,
    DIFFERENCE,
    DIRECT,
    DIRECT_TEST,
    LAST,
    PUBLISHED,
)
from threefactor.report.page import Section
from threefactor.report.runs import read_run
from threefactor.report.sections import study_sections
from threefactor.report.study import collect
from threefactor.report.values import Cell, Number, Table, spread, without_empty_columns
from threefactor.reproduce.budgets import BUDGETS
from threefactor.reproduce.exhibits import Exhibit, Row
from threefactor.reproduce.grid import FINISHED, NO_DATA, Outcome

__all__ = ["exhibit_sections"]

COLUMNS = (
    "data",
    "method",
    "seeds",
    DIRECT,
    f"published {DIRECT}",
    LAST,
    BEST,
    PUBLISHED,
    DIFFERENCE,
    "source",
    "what there is",
)


def exhibit_sections(
    exhibit: Exhibit,
    budget: str,
    outcomes: Mapping[Path, Outcome],
    root: Path,
    analyses: Sequence[Path] = (),
    problems: Sequence[str] = (),
) -> list[Section]:
    """Return the sections of the page of a table or figure.

    Args:
        exhibit: the table or figure.
        budget: how much of it was run.
        outcomes: of its runs, by run folder.
        root: folder of the run folders.
        analyses: files of the analyses that belong to it. They are its results, and come first.
        problems: what else went wrong, such as analyses that failed.
    """
    drawn = exhibit.drawn() if exhibit.drawn is not None else []
    if not exhibit.rows:
        return drawn
    sections = [_overview(exhibit, budget, outcomes, root), *drawn]
    notes = _notes(list(outcomes.values())) + list(problems)
    if notes:
        sections.append(Section("What is missing, and why", tuple(notes), warning=True))
    finished = [folder for folder, one in outcomes.items() if one.kind == FINISHED]
    if finished:
        study = collect(finished, split=True)
        parts = study_sections(study, read_analyses(analyses)[0], measure=exhibit.tracked)
        left_out = [] if parts.left_out is None else [parts.left_out]
        sections += [*parts.analyses, *left_out, *parts.recipes, parts.runs, parts.citing]
    return sections


def _overview(
    exhibit: Exhibit, budget: str, outcomes: Mapping[Path, Outcome], root: Path
) -> Section:
    rows = tuple(_row(exhibit, row, budget, outcomes, root) for row in exhibit.rows)
    text = (f"Budget {budget!r}: {BUDGETS[budget]}.",)
    about = (
        ABOUT_DIFFERENCE
        if budget == "paper"
        else "The published numbers belong to the published settings, which these runs do not have."
    )
    notes = (f"{about} Rows marked * are not in the paper.", *_advice(outcomes.values()))
    table = without_empty_columns(Table("Overview", COLUMNS, rows, notes))
    return Section(exhibit.title, text, (table,))


def _row(
    exhibit: Exhibit, row: Row, budget: str, outcomes: Mapping[Path, Outcome], root: Path
) -> tuple[Cell, ...]:
    ends = [outcomes[run.folder(root)] for run in row.runs(budget)]
    runs = [read_run(end.folder) for end in ends if end.kind == FINISHED]
    data = row.data if row.in_paper else f"{row.data} *"
    state = ", ".join(dict.fromkeys(end.kind for end in ends))
    published = exhibit.published(row)
    before_learning = exhibit.published(row, DIRECT_TEST)
    shown = published.cell if published else None
    source = published.source if published else None
    direct = before_learning.cell if before_learning else None
    if not runs:
        return (data, row.method, 0, None, direct, None, None, shown, None, source, state)
    before = [100 * run.direct for run in runs if run.direct is not None]
    last = spread([100 * run.last for run in runs if run.last is not None])
    best = spread([100 * run.best for run in runs if run.best is not None])
    same = published is not None and budget == "paper"
    ours = best if published is not None and published.epoch == "best" else last
    difference = Number(ours.mean - published.mean, signed=True) if same and published else None
    tested = (spread(before) if before else None, direct)
    numbers = (*tested, last, best, shown, difference)
    return (data, row.method, len(runs), *numbers, source, state)


def _advice(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Say how to get absent data."""
    absent = [note for one in outcomes if one.kind == NO_DATA for note in one.notes[-1:]]
    for note in dict.fromkeys(absent):
        yield f"No data: {note}"


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    found = []
    for one in outcomes:
        if one.kind == NO_DATA:
            continue  # the table says it
        found += [f"{one.run.recipe} {one.run.name}: {note}" for note in one.notes]
    return list(dict.fromkeys(found))
