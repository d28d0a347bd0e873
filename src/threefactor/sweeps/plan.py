"""A sweep as what is to be trained: rules, values of settings, seeds."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.readable import clipped
from threefactor.recipes import recipe
from threefactor.report.runs import has_effect
from threefactor.reproduce.planned import PlannedRun
from threefactor.training.build import option_names
from threefactor.training.overrides import full_name, parse_value
from threefactor.training.settings import Settings

__all__ = ["MOST_RUNS", "Range", "Sweep", "parse_grid"]

MOST_RUNS = 10_000
MOST_SEEDS = 1000
KINDS = ("network.kind", "loss.kind", "data.name")
"""Settings on which it depends which other settings there are."""
ELSEWHERE = {
    "seed": "give --seeds",
    "rule": "give --rule one,other",
    "rule.name": "give --rule one,other",
    "recipe": "a sweep is of one recipe",
}


@dataclass(frozen=True)
class Range:
    """Numbers from which a search chooses.

    Attributes:
        low, high: the ends; whole numbers give whole numbers.
        log: whether ratios count, and not differences.
    """

    low: float
    high: float
    log: bool = False


def parse_grid(text: str) -> tuple[str, tuple[Any, ...] | Range]:
    """Read KEY=VALUE,VALUE,... or, for a search, KEY=LOW..HIGH or KEY=LOW..HIGH:log.

    Values are read as for `--set`; lists in brackets may contain commas.

    >>> parse_grid("lr=1e-3,2e-4")
    ('lr', (0.001, 0.0002))
    >>> parse_grid("hidden=[50],[50,50]")
    ('hidden', ([50], [50, 50]))
    >>> parse_grid("lr=1e-4..1e-2:log")
    ('lr', Range(low=0.0001, high=0.01, log=True))

    Raises:
        ConfigurationError: if it cannot be read, or a value is there twice.
    """
    key, equals, given = text.partition("=")
    key = key.strip()
    if not (equals and key and given.strip()):
        raise ConfigurationError(f"cannot read {clipped(text)}; write --grid key=value,value,...")
    if ".." in given:
        return key, _range(key, given)
    try:
        values = json.loads(f"[{given}]")
    except (ValueError, RecursionError):
        values = [parse_value(one.strip()) for one in given.split(",")]
    seen: list[str] = []
    for value in values:
        if json.dumps(value) in seen:
            raise ConfigurationError(f"{key} has the value {clipped(value)} twice; leave one out")
        seen.append(json.dumps(value))
    if "" in values:
        raise ConfigurationError(f"{clipped(text)} has an empty value; write key=value,value,...")
    return key, tuple(values)


def _range(key: str, given: str) -> Range:
    ends, colon, kind = given.partition(":")
    low, _, high = (parse_value(part.strip()) for part in ends.partition(".."))
    numbers = all(type(one) in (int, float) and math.isfinite(one) for one in (low, high))
    if not numbers or not low < high or (colon and kind != "log") or (colon and low <= 0):
        raise ConfigurationError(
            f"cannot read {key}={clipped(given)}; write low..high with numbers that rise, or "
            "low..high:log with numbers above 0"
        )
    return Range(low, high, bool(colon))


@dataclass(frozen=True)
class Sweep:
    """Cells of a recipe: a rule with a value of each setting, trained with several seeds.

    A setting that a rule does not have is left out for this rule, whose cells are then fewer.

    Attributes:
        recipe: name of a recipe, or a file of one.
        rules: their names.
        grid: settings by name, each with its values.
        changes: settings that all cells share, as for `--set`.
        seeds: how many seeds, from 0.

    Raises:
        ConfigurationError: names what is not known, given twice, or too much.
    """

    recipe: str
    rules: tuple[str, ...]
    grid: Mapping[str, tuple[Any, ...] | Range] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1

    def __post_init__(self) -> None:
        if type(self.seeds) is not int or not 1 <= self.seeds <= MOST_SEEDS:
            raise ConfigurationError(
                f"seeds is {clipped(self.seeds)}; give how many, from 1 to {MOST_SEEDS}"
            )
        for rule in self.rules:
            if self.rules.count(rule) > 1:
                raise ConfigurationError(f"rule {rule!r} is given twice; leave one out")
        for key in (*self.grid, *self.changes):
            if key in ELSEWHERE:
                raise ConfigurationError(
                    f"{key} is no setting of a sweep's cells: {ELSEWHERE[key]}"
                )
        known: dict[str, str] = {}
        for key in (*self.changes, *self.grid):
            full = self._full_name(key)
            if key in self.grid and not has_effect(full):
                raise ConfigurationError(f"{full} has no effect on a training; give it with --set")
            if full in known:
                raise ConfigurationError(
                    f"{full} is given twice, as {known[full]!r} and as {key!r}"
                )
            known[full] = key

    @cached_property
    def names(self) -> dict[str, dict[str, str]]:
        """For each rule, the settings of the grid that it has, with their full names."""
        return {rule: dict(self._applicable(rule)) for rule in self.rules}

    def runs(self) -> list[PlannedRun]:
        """Return all runs of a grid, cell by cell.

        Raises:
            ConfigurationError: if there are more than `MOST_RUNS`, a setting has a range, or a
                value is out of its bounds.
        """
        ranges = [key for key, values in self.grid.items() if isinstance(values, Range)]
        if ranges:
            raise ConfigurationError(
                f"{ranges[0]} has a range, from which only a search chooses: add --search N, or "
                "give values"
            )
        counts = {key: len(v) for key, v in self.grid.items() if not isinstance(v, Range)}
        sizes = [math.prod([counts[key] for key in names]) for names in self.names.values()]
        total = sum(sizes) * self.seeds
        if total > MOST_RUNS:
            raise ConfigurationError(
                f"the grid has {sum(sizes):,} cells with {self.seeds} seeds each, {total:,} runs; "
                f"give fewer values, at most {MOST_RUNS:,} runs, or let a search choose: --search N"
            )
        found = []
        for rule, names in self.names.items():
            values: Any = [self.grid[key] for key in names]
            for cell in itertools.product(*values):
                found += self.cell(rule, dict(zip(names.values(), cell, strict=True)))
        return found

    def cell(self, rule: str, values: Mapping[str, Any]) -> list[PlannedRun]:
        """Return the runs of a cell, a seed each.

        Raises:
            ConfigurationError: if a value is out of its bounds.
        """
        changes = {**self.changes, **values}
        runs = [PlannedRun(self.recipe, rule, seed, changes) for seed in range(self.seeds)]
        for run in runs:
            _ = run.settings  # refuses what cannot be
        return runs

    def name_of(self, run: PlannedRun) -> str:
        """Return what tells a run from the others of the sweep, for people."""
        names = self.names[run.rule].items()
        values = [f"{key}={json.dumps(run.changes[full])}" for key, full in names]
        return ", ".join([run.rule, *values, f"seed {run.seed}"])

    def _settings(self, rule: str) -> Settings:
        """Return the settings of the first cell of a rule, as far as these decide on names."""
        kinds = {key: self.grid[key] for key in KINDS if key in self.grid}
        first = {key: values[0] for key, values in kinds.items() if not isinstance(values, Range)}
        return recipe(self.recipe).settings_for(rule, {**self.changes, **first})

    def _applicable(self, rule: str) -> Iterator[tuple[str, str]]:
        settings = self._settings(rule)
        for key in self.grid:
            try:
                yield key, full_name(key, settings, option_names(settings))
            except ConfigurationError as problem:
                if "not unique" in str(problem):
                    raise

    def _full_name(self, key: str) -> str:
        """Return the full name of a setting that some rule has."""
        first: ConfigurationError | None = None
        for rule in self.rules:
            settings = self._settings(rule)
            try:
                return full_name(key, settings, option_names(settings))
            except ConfigurationError as problem:
                first = first or problem
        assert first is not None
        raise first
