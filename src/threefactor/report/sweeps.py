"""The page of a sweep: many settings of one recipe, ranked, on a page that stays readable."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from threefactor.training.best import chosen_by, is_better
from threefactor.training.folder.files import read_json
from threefactor.training.scores import LOSS, SCORES, Score, leading

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
MOST_LINES, MOST_TICKS = 100, 8
MOST_ROWS, MOST_CURVES, MOST_PAIRS, MOST_PLACES, MOST_NAMED = 500, 8, 6, 12, 5
CHOSEN_BY_TEST = (
    "The ranking looks at the test data, so the first of many is better than it would be on new "
    "data. Quote it after a run with other seeds, beside the number of cells it was chosen from."
)
CHOSEN_BY_VALIDATION = (
    "The test data had no part in the ranking, so what the first reaches on them may be quoted. On "
    "the validation data it is better than on new data, as the first of many."
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
    """Return groups, the best first: by what the last epoch says, mean over the seeds.

    By what predictions on validation data are judged by if all runs have some, else by that of test
    data: the accuracy, the leading score of another task, or the loss.
    """
    metric = _metric(groups)
    sign = 1 if is_better(metric, 0.0, 1.0) else -1
    return sorted(groups, key=lambda group: sign * _value(group, metric).mean)


def _placed(groups: Sequence[Group], metric: str) -> list[tuple[int, Group]]:
    """Return groups with their places, the best first; equal ones have the same place."""
    found: list[tuple[int, Group]] = []
    before = math.nan
    for place, group in enumerate(ranked(groups), start=1):
        mean = _value(group, metric).mean
        equal = math.isclose(mean, before, rel_tol=1e-12)  # but for the order of a sum
        found.append((found[-1][0] if equal else place, group))
        before = mean
    return found


def _metric(groups: Sequence[Group]) -> str:
    """Return the metric by which groups are ranked: the same for all of them."""
    lines = [run.history[-1] for group in groups for run in group.runs]
    found = {chosen_by(line) for line in lines}
    if len(found) == 1:
        return found.pop()
    found = {f"test_{leading(line, 'test')}" for line in lines}
    return found.pop() if len(found) == 1 else "test_loss"


def _score(metric: str) -> Score:
    return SCORES.get(metric.partition("_")[2], LOSS)


def _value(group: Group, metric: str) -> Spread:
    """Return a metric after the last epoch over the seeds, as it is shown."""
    found = group.over_score(_score(metric), lambda run: run.history[-1].get(metric))
    assert found is not None  # every group has it, see `_metric`
    return found


def _named(metric: str) -> str:
    """Return a metric as axes and columns name it."""
    return f"{metric.partition('_')[0]} {_score(metric).heading}"


def ranking_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show all cells of a sweep of a recipe, the best first."""
    keys = _varied(groups)
    names = _names(keys)
    metric = _metric(groups)
    by_validation = not metric.startswith("test_")
    by = _score(metric)
    others: list[Score] = []
    if any(group.percent(lambda run: run.last) is None for group in groups):
        scores = (one for one in SCORES.values() if one.name not in ("accuracy", by.name))
        others = [by, *scores, *([] if by is LOSS else [LOSS])]
    rows = []
    for place, group in _placed(groups, metric)[:MOST_ROWS]:
        values = (_cell(group.settings[key]) if key in group.settings else None for key in keys)
        held_out = _value(group, metric) if by_validation else None
        last = group.percent(lambda run: run.last)
        best = None if by_validation else group.percent(lambda run: run.best)
        found = [group.last_of(one) for one in others]
        rows.append((place, _rule(group), *values, len(group.runs), held_out, last, best, *found))
    headings = (f"test {one.heading}" for one in others)
    held = _named(metric).replace(" (%)", ", %")
    columns = (
        *("rank", "rule", *names, "seeds", held, "last epoch, %", "best epoch, %"),
        *headings,
    )
    chosen = CHOSEN_BY_VALIDATION if by_validation else CHOSEN_BY_TEST
    about = f"Ranked by {_named(metric).removesuffix(' (%)')} after the last epoch."
    notes = [about, chosen, "Mean ± sample standard deviation over the seeds."]
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
    by = _named(_metric(groups)).removesuffix(" (%)")
    text = (f"{len(groups)} cells, {runs} runs, ranked by {by}.", *told)
    figures = tuple(_figures(recipe, groups))
    sections = [Section(recipe, text, (ranking_table(recipe, groups),), figures)]
    best = ranked(groups)[:MOST_CURVES]
    curves = learning_curves(f"{recipe}, best", best)
    about = f"The best {len(best)} of {len(groups)} cells." if len(groups) > len(best) else ""
    listing = Listing(f"Settings of the best: {best[0].label}", _settings(best[0]))
    title = f"{recipe}: the best"
    return [*sections, Section(title, (about,) if about else (), (), curves, (listing,))]


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
    metric = _metric(groups)
    keys = _varied(groups)
    names = dict(zip(keys, _names(keys), strict=True))
    if len(keys) > 2:
        yield _parallel(recipe, groups, names, metric)
    for key in keys:
        yield _against(recipe, groups, key, names[key], metric)
    pairs = itertools.combinations(keys, 2)
    drawn = 0
    for one, other in pairs:
        for rule, members in _by_rule(groups).items():
            there = [group for group in members if {one, other} <= group.settings.keys()]
            places = [_places(there, key) for key in (one, other)]
            if drawn < MOST_PAIRS and all(1 < len(p) <= MOST_PLACES for p in places):
                drawn += 1
                shown = (names[one], names[other])
                yield _pair(f"{recipe}, {rule}", there, (one, other), shown, metric)


def _places(groups: Sequence[Group], key: str) -> list[Any]:
    """Return the values of a setting in order; numbers by size, others as they come."""
    values = {json.dumps(group.settings[key]): group.settings[key] for group in groups}
    found = list(values.values())
    return sorted(found) if all(map(_is_number, found)) else found


def _against(recipe: str, groups: Sequence[Group], key: str, name: str, metric: str) -> Figure:
    """Draw a cell's score against one of its settings, all others as they may be."""
    what = _named(metric)
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
                rule, [g.settings[key] for g in members], [_value(g, metric).mean for g in members]
            )
            for rule, members in by_rule.items()
        )
        about = "Each point is a cell: the mean over its seeds."
        return Figure(slug(title), title, about, name, what, points, "points", log_x=log)
    series = []
    for rule, members in by_rule.items():
        scores: dict[str, list[float]] = {}
        for group in members:
            scores.setdefault(json.dumps(group.settings[key]), []).append(
                _value(group, metric).mean
            )
        places = [value for value in every if json.dumps(value) in scores]
        means = [spread(scores[json.dumps(value)]) for value in places]
        xs: Any = places if numbers else [_text(value) for value in places]
        error = [one.sd for one in means]
        series.append(Series(rule, xs, [one.mean for one in means], error if any(error) else None))
    about = "Mean over all cells with the value; ± one standard deviation between these cells."
    kind: Any = "line" if numbers else "bar"
    return Figure(slug(title), title, about, name, what, tuple(series), kind, log_x=log)


def _pair(
    recipe: str,
    groups: Sequence[Group],
    keys: tuple[str, str],
    names: tuple[str, str],
    metric: str,
) -> Figure:
    """Draw the mean score for every pair of values of two settings."""
    what = _named(metric)
    places = [_places(groups, key) for key in keys]
    found: dict[tuple[int, int], list[float]] = {}
    for group in groups:
        x, y = (p.index(group.settings[key]) for p, key in zip(places, keys, strict=True))
        found.setdefault((x, y), []).append(_value(group, metric).mean)
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


def _parallel(
    recipe: str, groups: Sequence[Group], names: Mapping[str, str], metric: str
) -> Figure:
    """Draw a line for each cell through the values of its settings to its accuracy."""
    placed = _placed(groups, metric)[:MOST_LINES]
    shown = [group for _, group in placed]
    what = _named(metric)
    scores = [_value(group, metric).mean for group in shown]
    columns: dict[str, list[Any]] = {}
    if len(_by_rule(shown)) > 1:
        columns["rule"] = [_rule(group) for group in shown]
    for key, name in names.items():
        columns[name] = [group.settings.get(key) for group in shown]
    axes = {name: _axis(values) for name, values in columns.items()}
    axes[what] = _axis(scores)
    columns[what] = scores
    series = [
        Series(
            f"rank {placed[i][0]}",
            list(axes),
            [axes[name].place(values[i]) for name, values in columns.items()],
            values=[scores[i]] * len(axes),
        )
        for i in range(len(shown))
    ]
    few = f"the best {len(shown)} of {len(groups)} cells" if len(shown) < len(groups) else "cells"
    title = f"{recipe}: settings and {what.removesuffix(' (%)')}"
    return Figure(
        slug(title),
        title,
        f"A line for each of {few}, from value to value of its settings; the colour is that of its "
        f"{what.removesuffix(' (%)')}. A dash stands for a setting that a rule does not have.",
        "",
        "",
        tuple(reversed(series)),  # the best on top
        "parallel",
        ticks=tuple(axis.ticks for axis in axes.values()),
    )


@dataclass(frozen=True)
class _Axis:
    """One axis of parallel coordinates, 0 to 1.

    Attributes:
        places: of each value, by its JSON.
        ticks: places with their texts.
    """

    places: Mapping[str, float]
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: Any) -> float:
        return self.places[json.dumps(value)]


def _axis(values: Sequence[Any]) -> _Axis:
    """Place numbers by size, by their logarithm if they span much; others at equal distances."""
    known = {json.dumps(value): value for value in values}
    there: list[Any] = [value for value in known.values() if value is not None]
    if all(map(_is_number, there)) and len(there) > 1 and len(there) == len(known):
        low, high = float(min(there)), float(max(there))
        log = low > 0 and high >= 10 * low

        def place(value: float) -> float:
            if log:
                return math.log(value / low) / math.log(high / low)
            return (value - low) / (high - low)

        few = sorted(there) if len(there) <= MOST_TICKS else [low, high]
        places = {text: place(value) for text, value in known.items()}
        return _Axis(places, tuple((place(value), _text(value)) for value in few))
    if all(map(_is_number, there)):  # a rule does not have the setting
        order = [json.dumps(value) for value in sorted(there)]
        order += [text for text, value in known.items() if value is None]
    else:
        order = sorted(known, key=lambda text: (known[text] is None, text))
    places = {text: (i + 0.5) / len(order) for i, text in enumerate(order)}
    shown = order if len(order) <= MOST_TICKS else [order[0], order[-1]]
    names = ("-" if known[text] is None else _text(known[text]) for text in shown)
    return _Axis(places, tuple((places[t], name) for t, name in zip(shown, names, strict=True)))
