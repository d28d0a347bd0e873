"""The table or figure of a paper as rows, each with the runs of one rule on one data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from threefactor.recipes import recipe
from threefactor.report.names import experiment_label
from threefactor.report.page import Section
from threefactor.report.published import (
    Published,
    PublishedTable,
    find_published,
    published_table,
)
from threefactor.reproduce.budgets import changes_for, seeds_for
from threefactor.reproduce.planned import PlannedRun
from threefactor.training import Settings
from threefactor.training.folder.run import plain_settings

__all__ = ["Exhibit", "Row", "from_rows", "from_table"]


@dataclass(frozen=True)
class Row:
    """A rule on a data set, with one run for each seed.

    Attributes:
        data: name of the data and network, for people.
        method: name of the rule with its options, for people.
        recipe, rule: of the runs.
        changes: settings that make this method, by full name.
        in_paper: whether the paper has this row. Other rows are added where their data is easy to
            get.
        start: recipe and rule of the runs whose trained networks these start from.
    """

    data: str
    method: str
    recipe: str
    rule: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    in_paper: bool = True
    start: tuple[str, str] | None = None

    def runs(self, budget: str) -> list[PlannedRun]:
        """Return the runs of a budget, one for each seed."""
        changes = {**changes_for(self.recipe, budget, self.rule), **self.changes}
        variant = "-".join(
            f"no-{key.rpartition('.')[2]}" if value is None else str(value)
            for key, value in self.changes.items()
            if value is None or (isinstance(value, (str, int, float)) and value)
        )
        return [
            PlannedRun(self.recipe, self.rule, seed, changes, variant, self._start(seed, budget))
            for seed in seeds_for(self.recipe, budget)
        ]

    def _start(self, seed: int, budget: str) -> PlannedRun | None:
        if self.start is None:
            return None
        name, rule = self.start
        return PlannedRun(name, rule, seed, changes_for(name, budget, rule))


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of a paper.

    Attributes:
        name: such as "opzo-table1".
        title: one line for people.
        recipes: names of the recipes of its rows.
        make_rows: makes the rows, which takes a while for a large table.
        analyses: names of analyses of a row's first run, by the row's method.
        drawn: makes sections that need no run.
        tracked: the measure taken during training that its page shows; None for all that there are.
        table: name of the published table that contains its rows, if there is one.
    """

    name: str
    title: str
    recipes: tuple[str, ...] = ()
    make_rows: Callable[[], Sequence[Row]] = tuple
    analyses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drawn: Callable[[], list[Section]] | None = None
    tracked: str | None = None
    table: str | None = None

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """What is trained for it."""
        return tuple(self.make_rows())

    def runs(self, budget: str) -> list[PlannedRun]:
        """Return all runs of a budget."""
        return [run for row in self.rows for run in row.runs(budget)]

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets that it needs."""
        return tuple(dict.fromkeys(recipe(name).settings.data.name for name in self.recipes))

    def published(self, row: Row, quantity: str = "test accuracy") -> Published | None:
        """Return the published number of a row: from its own table if possible, or from another."""
        if not row.in_paper:
            return None
        found = find_published(plain_settings(row.runs("paper")[0].settings), quantity)
        return min(found, key=lambda one: one.table != self.table, default=None)


def from_rows(
    name: str,
    title: str,
    rows: Sequence[Row],
    *,
    analyses: Mapping[str, tuple[str, ...]] | None = None,
    tracked: str | None = None,
) -> Exhibit:
    """Make an exhibit of these rows; the other arguments are those of `Exhibit`."""
    recipes = tuple(dict.fromkeys(row.recipe for row in rows))
    return Exhibit(name, title, recipes, lambda: rows, analyses or {}, tracked=tracked)


def from_table(
    table: str,
    title: str,
    *,
    name: str | None = None,
    beside: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    start: Callable[[str], tuple[str, str] | None] = lambda recipe: None,
    only: str | None = None,
    analyses: Mapping[str, tuple[str, ...]] | None = None,
) -> Exhibit:
    """Make an exhibit of a published table: every method on every data set.

    Args:
        table: name of the published table.
        title: one line for people.
        name: of the exhibit; the table's by default.
        beside: further data, which is not in the paper: recipe and changes by the name for people.
            It gets the methods of the data set that has most, or of the one chosen by `only`.
        start: gives, for a recipe, recipe and rule of the runs whose networks its runs start from.
        only: the recipe of the one data set of the table to show; None for all.
        analyses: see `Exhibit`.
    """
    matches = _matches(published_table(table))
    names = list(dict.fromkeys(match["recipe"] for match in matches))
    fullest = max(names, key=[match["recipe"] for match in matches].count)
    others = [other for other, _ in (beside or {}).values()]

    def rows() -> list[Row]:
        found = [_row(match) for match in matches if only in (None, match["recipe"])]
        methods = [match for match in matches if match["recipe"] == (only or fullest)]
        for data, (other, changes) in (beside or {}).items():
            more = [_row({**match, "recipe": other, **changes}) for match in methods]
            found += [replace(row, data=data, in_paper=False) for row in more]
        distinct = {(row.data, row.method): row for row in found}.values()
        return [replace(row, start=start(row.recipe)) for row in distinct]

    recipes = tuple(dict.fromkeys([*([only] if only else names), *others]))
    return Exhibit(name or table, title, recipes, rows, analyses or {}, table=table)


def _matches(table: PublishedTable) -> list[dict[str, Any]]:
    """Return the settings of the runs of each published number."""
    return [
        {**table.match, **column.match, **row.match}
        for row, values in zip(table.rows, table.values, strict=True)
        for column, value in zip(table.columns, values, strict=True)
        if row.match is not None and column.match is not None and value is not None
    ]


def _row(match: Mapping[str, Any]) -> Row:
    """Return the row of runs with these settings; those that the recipe has are not repeated."""
    name, rule = match["recipe"], match["rule.name"]
    given = recipe(name).settings_for(rule)
    changes = {
        key: value
        for key, value in match.items()
        if key not in ("recipe", "rule.name") and _setting(given, key) != value
    }
    return Row(name, _method(name, rule, changes), name, rule, changes)


def _method(name: str, rule: str, changes: Mapping[str, Any]) -> str:
    """Name a method as reports do, with options that they leave out."""
    label = experiment_label(recipe(name).settings_for(rule, changes))
    more = [
        f"{key.rpartition('.')[2].replace('_', ' ')} {value}"
        for key, value in changes.items()
        if key.endswith((".noise_position", ".noise_distribution", ".local_gradient"))
        or key == "epochs"
    ]
    return ", ".join([label, *more])


def _setting(settings: Settings, key: str) -> Any:
    place: Any = asdict(settings)
    for part in key.split("."):
        place = place.get(part)
    return place
