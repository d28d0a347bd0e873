"""Which runs belong together: collected from folders, grouped by recipe and rule over seeds."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.recipes import RECIPES
from threefactor.report.names import RULE_NAMES, experiment_label
from threefactor.report.published import Published, find_published
from threefactor.report.runs import ReportedRun, has_effect, read_run
from threefactor.report.values import Spread, spread
from threefactor.training.folder.data_record import difference
from threefactor.training.folder.run import plain_settings
from threefactor.training.scores import Score
from threefactor.version import __version__

__all__ = ["Group", "LeftOut", "Study", "collect", "gather"]

MOST_NAMED = 4
"""How many differing settings a message names."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed and the fold of samples that they test on.

    Attributes:
        recipe: name of the recipe.
        label: name of the rule for people; unique within the recipe.
        runs: in the order of seeds and folds.
    """

    recipe: str
    label: str
    runs: tuple[ReportedRun, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by full name; the seed is that of the first run."""
        return plain_settings(self.runs[0].settings)

    @cached_property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The settings that differ from the library's recipe: their values here and there.

        Empty if the library has no such recipe.
        """
        first = self.runs[0].settings
        if first.recipe not in RECIPES or "recipe" in self.runs[0].own_parts:
            return {}
        recipe = RECIPES[first.recipe]
        own = "rule" in self.runs[0].own_parts  # the recipe says nothing of its options
        try:
            theirs = plain_settings(
                recipe.settings
                if own
                else recipe.settings_for(first.rule.name, {"seed": first.seed})
            )
        except ConfigurationError:  # a rule that is not known here
            own, theirs = True, plain_settings(recipe.settings)
        ours = self.settings
        return {
            key: (ours.get(key), theirs.get(key))
            for key in sorted({*ours, *theirs} - {"seed"})
            if has_effect(key)
            and ours.get(key) != theirs.get(key)
            and not (own and key.startswith("rule."))
        }

    @property
    def other(self) -> tuple[str, ...]:
        """What makes it another experiment than the library's recipe: parts and settings by name.

        Another network or data set, another kind of loss, and any part of its user's own. Neither
        the recipe's description nor a published number belongs to it then.
        """
        own = sorted({kind for run in self.runs for kind in run.own_parts})
        return (*own, *(key for key in self.changed if _is_other(key)))

    def published(self, quantity: str = "test accuracy") -> tuple[Published, ...]:
        """Return the published numbers of the experiment; none if it is another one."""
        if any(run.own_parts for run in self.runs):
            return ()
        found = find_published(self.settings, quantity)
        return tuple(one for one in found if set(self.other) <= one.stands_for)

    def over_seeds(self, measure: Callable[[ReportedRun], float], digits: int = 2) -> Spread:
        """Return mean and standard deviation of a measure over the runs."""
        return spread([measure(run) for run in self.runs], digits)

    @property
    def lengths(self) -> list[int]:
        """How many epochs its runs have, in order: several where some stopped early."""
        return sorted({len(run.history) for run in self.runs})

    @property
    def epochs(self) -> int | str:
        """The number of epochs of its runs, or the fewest and the most, as tables show them."""
        least, most = self.lengths[0], self.lengths[-1]
        return least if least == most else f"{least} to {most}"

    @property
    def score(self) -> Score:
        """What its runs are judged by on test data."""
        return self.runs[0].score

    def over_score(
        self, score: Score, measure: Callable[[ReportedRun], float | None]
    ) -> Spread | None:
        """Return a score over the runs as it is shown; None unless all of them have it."""
        found = [score.scale * value for value in map(measure, self.runs) if value is not None]
        digits = 2 if score.fraction else 4
        return spread(found, digits) if len(found) == len(self.runs) else None

    def last_of(self, score: Score) -> Spread | None:
        """Return a score on test data after the last epoch, as it is shown."""
        return self.over_score(score, lambda run: run.history[-1].get(f"test_{score.name}"))

    @property
    def direct(self) -> Spread | None:
        """Accuracy before the first epoch, %, if all runs began with the network of another."""
        return self.percent(lambda run: run.direct)

    def percent(self, measure: Callable[[ReportedRun], float | None]) -> Spread | None:
        """Return a fraction in percent over the runs; None unless all of them have it."""
        found = [100 * share for share in map(measure, self.runs) if share is not None]
        return spread(found) if len(found) == len(self.runs) else None


@dataclass(frozen=True)
class LeftOut:
    """A folder or file that a report does not use, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Study:
    """The runs of a report.

    Attributes:
        groups: in the order of the recipes, then of the rules.
        left_out: folders and files that could not be used.
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
    def runs(self) -> tuple[ReportedRun, ...]:
        """All runs, group by group."""
        return tuple(run for group in self.groups for run in group.runs)


OTHER = ("kind", "engine", "hidden", "recurrent", "width", "depths")
"""Settings of a network that descriptions of recipes speak of."""


def _is_other(setting: str) -> bool:
    """Whether an experiment is another one if a setting is, by full name."""
    group, _, last = setting.rpartition(".")
    if group.startswith("network"):
        return group == "network.options" or last in OTHER
    return setting in ("data.name", "loss.kind")


def collect(paths: Iterable[str | Path], *, unfinished: bool = False, split: bool = False) -> Study:
    """Read runs and group those that differ in nothing but the seed.

    Args:
        paths: run folders, or folders that contain some at any depth.
        unfinished: whether to use runs before their last epoch, too, with a mark.
        split: whether runs of one recipe and rule whose settings differ become groups of their
            own; otherwise this is an error.

    Raises:
        CheckpointError: if a path is not a folder, or contains no run that can be used.
        ConfigurationError: if settings differ, or a seed occurs twice.

    Example:
        >>> collect(["nowhere"])
        Traceback (most recent call last):
        ...
        threefactor.errors.CheckpointError: nowhere is not a folder; give run folders, or folders \
of some
    """
    runs, left_out = [], []
    for folder in _folders(paths):
        try:
            run = read_run(folder)
        except CheckpointError as problem:
            reason = str(problem).removeprefix(f"{folder} holds no run: ")
            left_out.append(LeftOut(folder, reason.replace(f"{folder}{os.sep}", "")))
            continue
        if run.finished or unfinished:
            runs.append(run)
        else:
            left_out.append(LeftOut(folder, _unfinished(run)))
    runs, strange = _of_one_shape(runs)
    left_out += strange
    if not runs:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in left_out)
        raise CheckpointError(f"there is no finished run to report. {reasons}")
    return replace(gather(runs, split=split), left_out=tuple(left_out))


def gather(runs: Sequence[ReportedRun], *, split: bool = False) -> Study:
    """Group runs by recipe and rule.

    Args:
        runs: at least one.
        split: see `collect`.

    Raises:
        ConfigurationError: if settings differ within a group, or a seed and fold occurs twice.
    """
    found: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in runs:
        label = experiment_label(run.settings)
        if not run.finished:
            label += f" ({len(run.history)} of {run.settings.epochs} epochs)"
        found.setdefault((run.settings.recipe, label), []).append(run)
    groups = []
    for (recipe, label), members in sorted(found.items(), key=lambda item: _order(*item)):
        for name, part in _alike(recipe, label, members, split):
            ordered = sorted(part, key=_seed_and_fold)
            _check_seeds(recipe, name, ordered)
            groups.append(Group(recipe, name, tuple(ordered)))
    return Study(tuple(groups), remarks=tuple(_remarks(groups)))


def _of_one_shape(runs: Sequence[ReportedRun]) -> tuple[list[ReportedRun], list[LeftOut]]:
    """Leave out runs whose firing rates are of other layers than in most runs of their settings.

    Settings decide which layers there are, so somebody changed the metrics of these runs.
    """
    layers: dict[str, Counter[frozenset[str]]] = {}
    found = []
    for run in runs:
        # What runs with the same layers have in common.
        settings = repr((run.settings.recipe, run.settings.rule.name, run.settings.network))
        names = frozenset(run.history[-1]["firing_rates"])
        layers.setdefault(settings, Counter())[names] += 1
        found.append((run, settings, names))
    kept: list[ReportedRun] = []
    left_out: list[LeftOut] = []
    for run, settings, names in found:
        most = layers[settings].most_common(1)[0][0]
        if names == most:
            kept.append(run)
        else:
            said = f"its firing rates are of {sorted(names)}, others have {sorted(most)}"
            left_out.append(LeftOut(run.path, f"metrics.jsonl is damaged: {said}"))
    return kept, left_out


def _folders(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    if isinstance(paths, (str, Path)):
        raise ConfigurationError(f"paths are {str(paths)!r}; give a list of them")
    for path in map(Path, paths):
        if not path.is_dir():
            raise CheckpointError(f"{path} is not a folder; give run folders, or folders of some")
        own = [path / "config.json"] if (path / "config.json").exists() else []
        configs = own or sorted(path.rglob("config.json"))
        if not configs:
            raise CheckpointError(f"{path} holds no run: there is no config.json at any depth")
        for config in configs:
            found.setdefault(config.parent.resolve(), config.parent)
    return list(found.values())


def _unfinished(run: ReportedRun) -> str:
    done, epochs = len(run.history), run.settings.epochs
    return (
        f"stopped after epoch {done} of {epochs}; resume it with: threefactor train --resume --out "
        f"{run.path}, or add --unfinished to report it as it is"
    )


def _order(key: tuple[str, str], members: list[ReportedRun]) -> tuple[int, int, str]:
    recipes, rules = list(RECIPES), list(RULE_NAMES)
    rule = members[0].settings.rule.name
    return (
        recipes.index(key[0]) if key[0] in recipes else len(recipes),
        rules.index(rule) if rule in rules else len(rules),
        f"{key[0]} {key[1]}",
    )


def _alike(
    recipe: str, label: str, runs: list[ReportedRun], split: bool
) -> Iterator[tuple[str, list[ReportedRun]]]:
    """Give the runs as one part, or as several if their settings differ and `split` allows it."""
    settings = [_comparable(run) for run in runs]
    keys = sorted({key for one in settings for key in one})
    differ = [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]
    if differ and not split:
        raise ConfigurationError(_differences(recipe, label, runs, settings, differ))
    parts: dict[str, list[ReportedRun]] = {}
    texts = {key: _texts([one.get(key) for one in settings]) for key in differ}
    for i, run in enumerate(runs):
        values = (f"{key.rpartition('.')[2]}={texts[key][i]}" for key in differ)
        parts.setdefault(", ".join([label, *values]), []).append(run)
    yield from parts.items()


def _texts(values: Sequence[Any]) -> list[str]:
    """Return a text for each value of a setting; different values, as 1 and "1", differ in it."""
    same: dict[str, set[str]] = {}
    for value in values:
        same.setdefault(str(value), set()).add(repr(value))
    return [repr(value) if len(same[str(value)]) > 1 else str(value) for value in values]


def _comparable(run: ReportedRun) -> dict[str, Any]:
    """Return the settings that must be equal within a group."""
    found = plain_settings(run.settings)
    del found["seed"]
    found = {key: value for key, value in found.items() if has_effect(key)}
    if run.settings.data.folds is not None:
        del found["data.fold"]
    if run.settings.start is not None:  # runs of several seeds start from several others
        found["start"] = re.sub(r"seed\d+(-[0-9a-f]{10})?", "seedN", run.settings.start)
    return found


def _differences(
    recipe: str,
    label: str,
    runs: Sequence[ReportedRun],
    settings: Sequence[Mapping[str, Any]],
    differ: Sequence[str],
) -> str:
    lines = []
    for key in differ[:MOST_NAMED]:
        values: dict[str, list[str]] = {}
        for run, one in zip(runs, settings, strict=True):
            values.setdefault(repr(one.get(key)), []).append(str(run.path))
        shown = []
        for value, folders in values.items():
            more = f" (and {len(folders) - 1} more)" if len(folders) > 1 else ""
            shown.append(f"{value} in {folders[0]}{more}")
        lines.append(f"{key} is {' but '.join(shown)}")
    if len(differ) > MOST_NAMED:
        lines.append(f"and {len(differ) - MOST_NAMED} more settings")
    return (
        f"runs of differing settings have no common mean ({recipe}, {label}): {'; '.join(lines)}. "
        "Report them apart, or add --split for a row each"
    )


def _seed_and_fold(run: ReportedRun) -> tuple[int, int]:
    return run.settings.seed, run.settings.data.fold


def _check_seeds(recipe: str, label: str, runs: list[ReportedRun]) -> None:
    for one, other in itertools.pairwise(runs):
        if _seed_and_fold(one) == _seed_and_fold(other):
            data = one.settings.data
            which = f"seed {one.settings.seed}"
            which += "" if data.folds is None else f", fold {data.fold}"
            raise ConfigurationError(
                f"{one.path} and {other.path} are both {recipe}, {label}, {which}; "
                "a mean counts each once: leave one out"
            )


def _remarks(groups: Iterable[Group]) -> Iterator[str]:
    for group in groups:
        for run in group.runs:
            for change in run.resumed:
                now = ", ".join(f"{key} {value}" for key, value in change.items() if key != "epoch")
                yield (
                    f"{run.path} was resumed in another environment after epoch "
                    f"{change['epoch']:.4g} ({now}): it may not have the bits of "
                    "a run that never stopped."
                )
            for change in run.extended:
                before, most = change["epoch"], change["epochs"]
                yield (
                    f"{run.path} was trained on after epoch {before}, to {most}: if learning rate "
                    "or noise depend on the number of epochs, that is another training than one "
                    f"of {most} from the start."
                )
        yield from _other_samples(group)
        codes = {json.dumps(run.code, sort_keys=True, default=str) for run in group.runs}
        if len(codes) > 1:
            yield (
                f"{group.recipe}, {group.label}: the seeds were run with different code of their "
                f"user's own: {'; '.join(sorted(codes))}."
            )
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


def _other_samples(group: Group) -> Iterator[str]:
    """Say which runs of a group had other samples than the first of their fold."""
    first: dict[int, ReportedRun] = {}
    for run in group.runs:
        one = first.setdefault(run.settings.data.fold, run)
        differ = difference(one.data, run.data) if run.data is not None else None
        if differ is not None:
            yield (
                f"{group.recipe}, {group.label}: {run.path} was trained on other data than "
                f"{one.path} ({differ.replace(' there', ' in that').replace(' here', ' in this')})."
            )
