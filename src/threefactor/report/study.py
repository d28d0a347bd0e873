"""Runs that belong together: by recipe and rule, over seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.recipes import RECIPES
from threefactor.report.names import RULE_NAMES, experiment_label
from threefactor.report.runs import Run, plain_settings, read_run
from threefactor.report.values import Spread, spread
from threefactor.version import __version__

__all__ = ["Group", "LeftOut", "Study", "collect", "gather"]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        recipe: name of the recipe.
        label: of the rule, for people; unique within the recipe.
        runs: by seed.
    """

    recipe: str
    label: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, flat; the seed is that of the first run."""
        return plain_settings(self.runs[0].settings)

    def over_seeds(self, measure: Callable[[Run], float], digits: int = 2) -> Spread:
        """Return mean and standard deviation of a measure over the runs."""
        return spread([measure(run) for run in self.runs], digits)


@dataclass(frozen=True)
class LeftOut:
    """A folder that is no part of the report, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Study:
    """All that a report is about.

    Attributes:
        groups: in the order of the recipes, then of the rules.
        left_out: folders of runs that could not be used.
        remarks: what readers should know about the runs.
    """

    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def recipes(self) -> dict[str, tuple[Group, ...]]:
        """The groups by recipe."""
        names = dict.fromkeys(group.recipe for group in self.groups)
        return {name: tuple(g for g in self.groups if g.recipe == name) for name in names}

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, group by group."""
        return tuple(run for group in self.groups for run in group.runs)


def collect(
    paths: Iterable[str | Path], *, unfinished: bool = False, split: bool = False
) -> Study:
    """Read runs and put together what differs in nothing but the seed.

    Args:
        paths: run folders, or folders that hold some at any depth.
        unfinished: whether runs that have not come to their last epoch are taken in, marked.
        split: whether runs of one recipe and rule with differing settings become groups of their
            own, which otherwise is an error.

    Raises:
        CheckpointError: if a path is no folder, or holds no run that can be used.
        ConfigurationError: if settings differ, or a seed is there twice.

    Example:
        >>> collect(["nowhere"])
        Traceback (most recent call last):
        ...
        threefactor.errors.CheckpointError: nowhere is no folder; give run folders, or folders of \
some
    """
    runs, left_out = [], []
    for folder in _folders(paths):
        try:
            run = read_run(folder)
        except CheckpointError as problem:
            left_out.append(LeftOut(folder, str(problem).removeprefix(f"{folder} holds no run: ")))
            continue
        if run.finished or unfinished:
            runs.append(run)
        else:
            left_out.append(LeftOut(folder, _unfinished(run)))
    if not runs:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in left_out)
        raise CheckpointError(f"there is no finished run to report. {reasons}")
    return gather(runs, left_out, split=split)


def gather(runs: Sequence[Run], left_out: Sequence[LeftOut] = (), *, split: bool = False) -> Study:
    """Group runs by recipe and rule.

    Args:
        runs: at least one.
        left_out: what could not be used.
        split: see `collect`.

    Raises:
        ConfigurationError: if settings differ within a group, or a seed is there twice.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        label = experiment_label(run.settings)
        if not run.finished:
            label += f" ({len(run.history)} of {run.settings.epochs} epochs)"
        found.setdefault((run.settings.recipe, label), []).append(run)
    groups = []
    for (recipe, label), members in sorted(found.items(), key=lambda item: _order(*item)):
        for name, part in _alike(recipe, label, members, split):
            ordered = sorted(part, key=lambda run: run.settings.seed)
            _check_seeds(recipe, name, ordered)
            groups.append(Group(recipe, name, tuple(ordered)))
    return Study(tuple(groups), tuple(left_out), tuple(_remarks(groups)))


def _folders(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise CheckpointError(f"{path} is no folder; give run folders, or folders of some")
        own = [path / "config.json"] if (path / "config.json").exists() else []
        configs = own or sorted(path.rglob("config.json"))
        if not configs:
            raise CheckpointError(f"{path} holds no run: there is no config.json at any depth")
        for config in configs:
            found.setdefault(config.parent.resolve(), config.parent)
    return list(found.values())


def _unfinished(run: Run) -> str:
    done, epochs = len(run.history), run.settings.epochs
    return (
        f"stopped after epoch {done} of {epochs}; go on with: threefactor train --resume --out "
        f"{run.path}, or add --unfinished to report it as it is"
    )


def _order(key: tuple[str, str], members: list[Run]) -> tuple[int, int, str]:
    recipes, rules = list(RECIPES), list(RULE_NAMES)
    rule = members[0].settings.rule.name
    return (
        recipes.index(key[0]) if key[0] in recipes else len(recipes),
        rules.index(rule) if rule in rules else len(rules),
        f"{key[0]} {key[1]}",
    )


def _alike(
    recipe: str, label: str, runs: list[Run], split: bool
) -> Iterator[tuple[str, list[Run]]]:
    """Give the runs as one part, or, if their settings differ and may, as several."""
    settings = [_comparable(run) for run in runs]
    keys = sorted({key for one in settings for key in one})
    differ = [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]
    if differ and not split:
        raise ConfigurationError(_differences(recipe, label, runs, settings, differ))
    parts: dict[str, list[Run]] = {}
    for run, one in zip(runs, settings, strict=True):
        values = (f"{key.rpartition('.')[2]}={one.get(key)}" for key in differ)
        parts.setdefault(", ".join([label, *values]), []).append(run)
    yield from parts.items()


def _comparable(run: Run) -> dict[str, Any]:
    """Return the settings that must be equal within a group."""
    found = plain_settings(run.settings)
    del found["seed"]
    if run.settings.start is not None:  # runs of several seeds start from several others
        found["start"] = re.sub(r"seed\d+", "seedN", run.settings.start)
    return found


def _differences(
    recipe: str,
    label: str,
    runs: list[Run],
    settings: list[Mapping[str, Any]] | list[dict[str, Any]],
    differ: list[str],
) -> str:
    lines = []
    for key in differ:
        values: dict[str, list[str]] = {}
        for run, one in zip(runs, settings, strict=True):
            values.setdefault(repr(one.get(key)), []).append(str(run.path))
        shown = (f"{value} in {', '.join(folders)}" for value, folders in values.items())
        lines.append(f"{key} is {' but '.join(shown)}")
    return (
        f"runs of differing settings have no common mean ({recipe}, {label}): {'; '.join(lines)}. "
        "Report them apart, or add --split for a row each"
    )


def _check_seeds(recipe: str, label: str, runs: list[Run]) -> None:
    for one, other in zip(runs, runs[1:], strict=False):
        if one.settings.seed == other.settings.seed:
            raise ConfigurationError(
                f"{one.path} and {other.path} are both {recipe}, {label}, seed "
                f"{one.settings.seed}; a mean over seeds counts each once: leave one out"
            )


def _remarks(groups: Iterable[Group]) -> Iterator[str]:
    for group in groups:
        for what in ("threefactor", "torch"):
            versions = sorted({str(run.environment.get(what, "unknown")) for run in group.runs})
            if len(versions) > 1:
                yield (
                    f"{group.recipe}, {group.label}: the seeds were run with different versions of "
                    f"{what}: {', '.join(versions)}."
                )
            elif what == "threefactor" and versions != [__version__]:
                yield (
                    f"{group.recipe}, {group.label}: made by threefactor {versions[0]}; this "
                    f"report by {__version__}."
                )
