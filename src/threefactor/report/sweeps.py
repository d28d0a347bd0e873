"""The page of a sweep: many settings of one recipe, ranked, on a page that stays readable."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError
from threefactor.report.figures import Figure, Series
from threefactor.report.learning import learning_curves
from threefactor.report.names import rule_name, slug
from threefactor.report.page import Listing, Section
from threefactor.report.runs import has_effect
from threefactor.report.study import Group
from threefactor.report.values import Cell, Number, Spread, Table, spread, without_empty_columns
from threefactor.training.folder.files import read_json
from threefactor.training.scores import LOSS, SCORES, Score

__all__ = [
    "MOST_GROUPS",
    "SWEEP",
    "is_sweep",
    "ranked",
    "ranking_table",
    "sweep_sections",
    "told_of",
]

SWEEP = "sweep.json"
"""The file that says that a folder holds a sweep."""
MOST_GROUPS = 20
"""Groups of one recipe that a usual report compares; more are shown as a sweep."""
MOST_ROWS, MOST_CURVES, MOST_PAIRS, MOST_PLACES, MOST_NAMED = 500, 8, 6, 12, 5
CHOSEN_BY_TEST = (
    "The ranking looks at the test data, so the first of many is better than it would be on new "
    "data. Quote it after a run with other seeds, beside the number of cells it was chosen from."
)


def is_sweep(path: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (path / SWEEP).is_file()


def told_of(path: Path) -> tuple[str, ...]:
    """Say how a sweep was made, and which of its runs failed, as its file says.

    Raises:
        CheckpointError: if the file is damaged.
    """
    try:
        found = read_json(path / SWEEP)
        command, failed = found["command"], found["failed"]
        lines = [f"{one['run']}: {one['why']}" for one in failed]
    except (OSError, LookupError, TypeError) as problem:
        raise CheckpointError(f"{path / SWEEP} is damaged: {problem!r}") from problem
    made = f"Made by: {command}" if isinstance(command, str) else "Made from Python."
    if not lines:
        return (made,)
    more = f"; and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
    named = "; ".join(lines[:MOST_NAMED])
    return (made, f"{len(lines)} of its runs failed and are not ranked: {named}{more}.")


def ranked(groups: Sequence[Group]) -> list[Group]:
    """Return groups, the best first: by test accuracy after the last epoch, mean over the seeds.

    By the leading score of another task, or by test loss, where there is no accuracy.
    """
    score = judged_by(groups)
    sign = -1 if score.higher else 1
    return sorted(groups, key=lambda group: sign * _value(group, score).mean)


def judged_by(groups: Sequence[Group]) -> Score:
    """Return what all of the groups can be judged by: a score that all have, or the loss."""
    score = groups[0].score if groups else LOSS
    return score if all(group.last_of(score) is not None for group in groups) else LOSS


def ranking_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show all cells of a sweep of a recipe, the best first."""
    keys = _varied(groups)
    names = _names(keys)
    by = judged_by(groups)
    others = [] if by.name == "accuracy" else [one for one in SCORES.values() if one is not by]
    others = [by, *(one for one in others if one.name != "accuracy")] if others else []
    rows = []
    for place, group in enumerate(ranked(groups)[:MOST_ROWS], start=1):
        values = (_cell(group.settings[key]) if key in group.settings else None for key in keys)
        score = group.percent(lambda run: run.last)
        best = group.percent(lambda run: run.best)
        found = [group.last_of(one) for one in others]
        rows.append((place, _rule(group), *values, len(group.runs), score, best, *found))
    headings = (f"test {one.heading}" for one in others)
    columns = ("rank", "rule", *names, "seeds", "last epoch, %", "best epoch, %", *headings)
    notes = [CHOSEN_BY_TEST, "Mean ± sample standard deviation over the seeds."]
    if len(groups) > MOST_ROWS:
        notes.append(f"The best {MOST_ROWS} of {len(groups)} cells.")
    return without_empty_columns(Table(f"{recipe}: ranking", columns, tuple(rows), tuple(notes)))


def sweep_sections(recipe: str, groups: Sequence[Group], told: Sequence[str] = ()) -> list[Section]:
    """Return the sections of a sweep of a recipe: its ranking, and how the best of it learned.

    Args:
        recipe: its name.
        groups: its cells, of which there may be hundreds.
        told: sentences on how it was made.
    """
    runs = sum(len(group.runs) for group in groups)
    text = (f"{len(groups)} cells, {runs} runs.", *told)
    figures = tuple(_figures(recipe, groups))
    sections = [Section(recipe, text, (ranking_table(recipe, groups),), figures)]
    best = ranked(groups)[:MOST_CURVES]
    lengths = {len(run.history) for group in best for run in group.runs}
    curves = learning_curves(f"{recipe}, best", best) if len(lengths) == 1 else ()
    about = f"The best {len(best)} of {len(groups)} cells." if len(groups) > len(best) else ""
    listing = Listing(f"Settings of the best: {best[0].label}", _settings(best[0]))
    title = f"{recipe}: the best"
    return [*sections, Section(title, (about,) if about else (), (), curves, (listing,))]


def _value(group: Group, score: Score) -> Spread:
    found = group.last_of(score)
    assert found is not None  # every group has it, see `judged_by`
    return found


def _rule(group: Group) -> str:
    return rule_name(group.runs[0].settings.rule.name)


def _by_rule(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(_rule(group), []).append(group)
    return found


def _varied(groups: Sequence[Group]) -> list[str]:
    """Return the settings that differ between groups of the same rule, by full name."""
    found: dict[str, None] = {}
    for members in _by_rule(groups).values():
        first = members[0].settings
        for other in members[1:]:
            for key in {*first, *other.settings} - {"seed", "data.fold"}:
                if first.get(key) != other.settings.get(key) and has_effect(key):
                    found[key] = None
    return sorted(found)


def _names(keys: Sequence[str]) -> list[str]:
    """Return the last parts of names, where these differ."""
    last = [key.rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def _cell(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _text(value)
    return Number(value, None) if isinstance(value, float) else value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _settings(group: Group) -> str:
    shown = {key: value for key, value in group.settings.items() if key != "seed"}
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in shown.items())


def _figures(recipe: str, groups: Sequence[Group]) -> Iterator[Figure]:
    """Draw the accuracy or another score against each setting, and against pairs of them."""
    score = judged_by(groups)
    keys = _varied(groups)
    names = dict(zip(keys, _names(keys), strict=True))
    for key in keys:
        yield _against(recipe, groups, key, names[key], score)
    pairs = itertools.combinations(keys, 2)
    drawn = 0
    for one, other in pairs:
        for rule, members in _by_rule(groups).items():
            there = [group for group in members if {one, other} <= group.settings.keys()]
            places = [_places(there, key) for key in (one, other)]
            if drawn < MOST_PAIRS and all(1 < len(p) <= MOST_PLACES for p in places):
                drawn += 1
                shown = (names[one], names[other])
                yield _pair(f"{recipe}, {rule}", there, (one, other), shown, score)


def _places(groups: Sequence[Group], key: str) -> list[Any]:
    """Return the values of a setting in order; numbers by size, others as they come."""
    values = {json.dumps(group.settings[key]): group.settings[key] for group in groups}
    found = list(values.values())
    return sorted(found) if all(map(_is_number, found)) else found


def _against(recipe: str, groups: Sequence[Group], key: str, name: str, score: Score) -> Figure:
    """Draw a cell's score against one of its settings, all others as they may be."""
    what = f"test {score.heading}"
    by_rule = {
        rule: [group for group in members if key in group.settings]
        for rule, members in _by_rule(groups).items()
    }
    by_rule = {rule: members for rule, members in by_rule.items() if members}
    every = _places([group for members in by_rule.values() for group in members], key)
    numbers = all(map(_is_number, every))
    log = numbers and min(every) > 0 and max(every) >= 4 * min(every)
    title = f"{recipe}: {what.removesuffix(' (%)')} against {name}"
    if numbers and len(every) > MOST_PLACES:
        points = tuple(
            Series(
                rule, [g.settings[key] for g in members], [_value(g, score).mean for g in members]
            )
            for rule, members in by_rule.items()
        )
        about = "Each point is a cell: the mean over its seeds."
        return Figure(slug(title), title, about, name, what, points, "points", log_x=log)
    series = []
    for rule, members in by_rule.items():
        scores: dict[str, list[float]] = {}
        for group in members:
            scores.setdefault(json.dumps(group.settings[key]), []).append(_value(group, score).mean)
        places = [value for value in every if json.dumps(value) in scores]
        means = [spread(scores[json.dumps(value)]) for value in places]
        xs: Any = places if numbers else [_text(value) for value in places]
        error = [one.sd or 0.0 for one in means]
        series.append(Series(rule, xs, [one.mean for one in means], error if any(error) else None))
    about = "Mean over all cells with the value; ± one standard deviation between these cells."
    kind: Any = "line" if numbers else "bar"
    return Figure(slug(title), title, about, name, what, tuple(series), kind, log_x=log)


def _pair(
    recipe: str,
    groups: Sequence[Group],
    keys: tuple[str, str],
    names: tuple[str, str],
    score: Score,
) -> Figure:
    """Draw the mean score for every pair of values of two settings."""
    what = f"test {score.heading}"
    places = [_places(groups, key) for key in keys]
    found: dict[tuple[int, int], list[float]] = {}
    for group in groups:
        x, y = (p.index(group.settings[key]) for p, key in zip(places, keys, strict=True))
        found.setdefault((x, y), []).append(_value(group, score).mean)
    title = f"{recipe}: {what.removesuffix(' (%)')} by {names[0]} and {names[1]}"
    several = any(len(values) > 1 for values in found.values())
    about = "Mean over the seeds" + (", and over all other settings." if several else ".")
    series = Series(
        what,
        [x for x, _ in found],
        [y for _, y in found],
        values=[statistics.fmean(values) for values in found.values()],
    )
    x_names, y_names = (tuple(_text(value) for value in p) for p in places)
    return Figure(
        slug(title), title, about, *names, (series,), "cells", x_names=x_names, y_names=y_names
    )
