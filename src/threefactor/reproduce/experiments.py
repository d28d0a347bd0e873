"""What an experiment is: rows of a table, each the runs of one rule on one data set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
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
from threefactor.report.runs import plain_settings
from threefactor.reproduce.budgets import changes_for, seeds_for
from threefactor.reproduce.cells import Cell
from threefactor.reproduce.estimates import seconds_for
from threefactor.training import Settings

__all__ = ["Experiment", "Row", "from_table"]


@dataclass(frozen=True)
class Row:
    """A rule on a data set: as many runs as there are seeds.

    Attributes:
        data: what people call the data and network.
        method: what people call the rule with its options.
        recipe, rule: of the runs.
        changes: what makes it this method, by full name.
        in_paper: whether the paper has it; otherwise it stands there since its data is at hand.
        start: recipe and rule of the runs whose networks these go on with.
    """

    data: str
    method: str
    recipe: str
    rule: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    in_paper: bool = True
    start: tuple[str, str] | None = None

    def cells(self, budget: str) -> list[Cell]:
        """Return the runs of a budget, one per seed."""
        changes = {**changes_for(self.recipe, budget, self.rule), **self.changes}
        words = [str(v) for v in self.changes.values() if isinstance(v, (str, int, float)) and v]
        return [
            Cell(self.recipe, self.rule, seed, changes, "-".join(words), self._start(seed, budget))
            for seed in seeds_for(self.recipe, budget)
        ]

    def seconds(self, budget: str) -> float:
        """Estimate how long all runs take on one core, that of their start not counted."""
        changes = {**changes_for(self.recipe, budget, self.rule), **self.changes}
        seeds = seeds_for(self.recipe, budget)
        return len(seeds) * seconds_for(self.recipe, self.rule, changes)

    def _start(self, seed: int, budget: str) -> Cell | None:
        if self.start is None:
            return None
        name, rule = self.start
        return Cell(name, rule, seed, changes_for(name, budget, rule))


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        name: such as "opzo-table1".
        title: one line for people.
        rows: what is trained for it.
        analyses: names of analyses (`analysis.runs`) of the first seed of some rows, by method.
        drawn: makes sections that need no run.
        tracked: the one measure (`analysis.runs`) that its page shows over the training; None
            for all that the runs have.
        table: name of the published table that its rows stand in, if it is one.
    """

    name: str
    title: str
    rows: tuple[Row, ...] = ()
    analyses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drawn: Callable[[], list[Section]] | None = None
    tracked: str | None = None
    table: str | None = None

    def cells(self, budget: str) -> list[Cell]:
        """Return all runs of a budget."""
        return [cell for row in self.rows for cell in row.cells(budget)]

    @property
    def data(self) -> list[str]:
        """Names of the data sets that it needs, each once."""
        names = dict.fromkeys(row.recipe for row in self.rows)
        return list(dict.fromkeys(recipe(name).settings.data.name for name in names))

    def published(self, row: Row, quantity: str = "test accuracy") -> Published | None:
        """Return the published number of a row: in its own table, or else in another."""
        if not row.in_paper:
            return None
        found = find_published(plain_settings(row.cells("paper")[0].settings), quantity)
        return min(found, key=lambda one: one.table != self.table, default=None)

    def seconds(self, budget: str, data: Collection[str]) -> float:
        """Estimate how long the runs take on one core whose data is among these sets."""
        rows = [r for r in self.rows if recipe(r.recipe).settings.data.name in data]
        return sum(row.seconds(budget) for row in rows)


def from_table(
    name: str,
    title: str,
    *,
    beside: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    start: Callable[[str], tuple[str, str] | None] = lambda recipe: None,
    only: str | None = None,
    analyses: Mapping[str, tuple[str, ...]] | None = None,
    experiment: str | None = None,
) -> Experiment:
    """Make an experiment of a published table: every method on every data set.

    Args:
        name: of the published table.
        title: one line for people.
        beside: further data, not in the paper: recipe and changes by what people call it. They get
            the methods of the data set that has most, or of the one that is wanted.
        start: gives, for a recipe, the recipe and rule whose networks its runs go on with.
        only: the one data set of the table that is wanted; None for all.
        analyses: see `Experiment`.
        experiment: name of the experiment; the table's by default.
    """
    matches = _matches(published_table(name))
    names = list(dict.fromkeys(match["recipe"] for match in matches))
    fullest = max(names, key=[match["recipe"] for match in matches].count)
    found = [_row(match) for match in matches if only in (None, match["recipe"])]
    methods = [match for match in matches if match["recipe"] == (only or fullest)]
    for data, (other, changes) in (beside or {}).items():
        rows = [_row({**match, "recipe": other, **changes}) for match in methods]
        found += [replace(row, data=data, in_paper=False) for row in rows]
    found = list({(row.data, row.method): row for row in found}.values())
    started = tuple(replace(row, start=start(row.recipe)) for row in found)
    return Experiment(experiment or name, title, started, analyses or {}, table=name)


def _matches(table: PublishedTable) -> list[dict[str, Any]]:
    """Return the settings that the runs of each published number have."""
    return [
        {**table.match, **column.match, **row.match}
        for row, values in zip(table.rows, table.values, strict=True)
        for column, value in zip(table.columns, values, strict=True)
        if row.match is not None and column.match is not None and value is not None
    ]


def _row(match: Mapping[str, Any]) -> Row:
    """Return the row of runs with these settings, of which the recipe may have some anyway."""
    name, rule = match["recipe"], match["rule.name"]
    given = recipe(name).settings_for(rule)
    changes = {
        key: value
        for key, value in match.items()
        if key not in ("recipe", "rule.name") and _setting(given, key) != value
    }
    return Row(name, _method(name, rule, changes), name, rule, changes)


def _method(name: str, rule: str, changes: Mapping[str, Any]) -> str:
    """Name a method as reports do, with what they leave out."""
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
