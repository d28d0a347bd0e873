"""A planned run: which command trains it, and what its folder already contains."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from threefactor import plugins
from threefactor.errors import ConfigurationError, DataError, InputError, ThreefactorError
from threefactor.recipes import is_recipe_file, recipe
from threefactor.recipes.clocked import CLOCKED
from threefactor.recipes.events import EVENTS
from threefactor.report.runs import read_run
from threefactor.training import Run, RunFolder, Settings
from threefactor.training.best import stopped_early
from threefactor.training.build import load_samples
from threefactor.training.folder import checkpoint
from threefactor.training.folder.data_record import difference, record_of
from threefactor.training.folder.lock import LOCK, only_one
from threefactor.training.folder.writer import REMAINS
from threefactor.training.own_code import code_digests
from threefactor.version import NUMBERS, __version__

__all__ = ["PATIENCE", "DataHere", "PlannedRun", "State", "prepare", "state_of"]

PATIENCE = 10.0
"""Seconds to wait for processes of a killed grid, which still write their checkpoints."""

YOUNGER: Mapping[tuple[str, ...], Any] = {
    ("track",): None,
    ("data", "sort"): False,
    ("data", "options"): {},
    ("data", "place"): "auto",
    ("start_prefix",): "",
    ("rule", "options", "normalise_by_count"): False,
    ("rule", "options", "feedback_lr_change"): None,
    ("rule", "options", "feedback_first"): False,
    ("rule", "options", "untraced"): [],
}
"""Settings that earlier versions did not have. At these defaults they leave fingerprints alone."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A recipe that is to be trained with a rule and a seed.

    Attributes:
        recipe: name of a recipe of this library or of a plugin, or a file of one.
        rule: name of the rule.
        seed: seed of everything random.
        changes: fields or options by name, as for `--set`.
        variant: distinguishes runs of one rule by name, such as "same-weights" for local learning.
        start: the run whose trained network this one starts from, which is trained first; or None.
    """

    recipe: str
    rule: str
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    start: PlannedRun | None = None

    @cached_property
    def settings(self) -> Settings:
        """The full settings of the run, except for the folder of its start."""
        changes = {**self.changes, "seed": self.seed, "start": None}
        return recipe(self.recipe).settings_for(self.rule, changes)

    @property
    def name(self) -> str:
        """The rule, variant and seed, for people."""
        return "-".join(part for part in (self.rule, self.variant, f"seed{self.seed}") if part)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of all settings, including those of its start."""
        values = asdict(self.settings)
        for (*groups, last), default in YOUNGER.items():
            place = functools.reduce(dict.__getitem__, groups, values)
            if last in place and place[last] == default:
                del place[last]
        content = json.dumps(values, sort_keys=True)
        if self.start is not None:
            content += self.start.fingerprint
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    def folder(self, root: Path) -> Path:
        """Return the run folder in a folder of runs."""
        name = self.name.replace(":", "-")  # of a rule by its place
        return root / self.settings.recipe / f"{name}-{self.fingerprint}"

    def command(self, root: Path) -> list[str]:
        """Return the arguments of `threefactor` that train this run in a folder of runs.

        Raises:
            ConfigurationError: if a script made or replaced the recipe, which no command knows.
        """
        known = {**CLOCKED, **EVENTS}.get(self.recipe)
        registered = plugins.entry("recipe", self.recipe)
        from_plugin = registered is not None and registered.plugin is not None
        if not (from_plugin or is_recipe_file(self.recipe) or known is recipe(self.recipe)):
            raise ConfigurationError(
                f"recipe {self.recipe!r} was made by a script, and a planned run is trained by the "
                "command `threefactor train`, which does not know it; plan a recipe of the "
                "library with changes, or call training.train"
            )
        words = ["train", self.recipe, *plugin_words(), "--rule", self.rule]
        words += ["--seed", str(self.seed)]
        changes = dict(self.changes)
        if self.start is not None:
            changes["start"] = str(self.start.folder(root))
        for key, value in changes.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return words


@dataclass(frozen=True)
class State:
    """What there is of a planned run.

    Attributes:
        kind: "new"; "unfinished", which is resumed; "finished"; "broken", which is trained anew; or
            "foreign", made by another version or with other data or settings, which is neither
            used nor changed.
        epochs: number of finished epochs.
        epoch_seconds: wall-clock time of the last of them, s; 0 if there is none.
        reason: why the run is broken or foreign.
    """

    kind: str
    epochs: int = 0
    epoch_seconds: float = 0.0
    reason: str = ""


def state_of(planned: PlannedRun, root: Path, *, training: bool = False) -> State:
    """Look at the folder of a planned run.

    An epoch counts when the checkpoint after it exists: a kill can come between its metrics and its
    checkpoint, and then the network is that of the epoch before.

    Args:
        planned: the run.
        root: folder of the runs.
        training: whether a process is training the run now. Then the epochs in its metrics count,
            and no checkpoint is read.
    """
    run = Run(planned.folder(root))
    if _is_empty(run.path):
        return State("new")
    try:
        version, numbers = run.environment.get("threefactor"), run.environment.get("numbers", 1)
        if version != __version__:
            return State("foreign", reason=f"made by threefactor {version}, this is {__version__}")
        if numbers != NUMBERS:
            return State("foreign", reason="made before a change that alters what trainings give")
        code, here = run.code or {}, code_digests(planned.settings)
        if code != here:
            return State(
                "foreign", reason=f"made with other code of your own ({code} there, {here} here)"
            )
        differ = run.differences(_started_there(run, planned.settings))
        if differ:  # someone edited config.json, and the epochs were trained as it says or not
            return State("foreign", reason=f"its settings were changed ({differ})")
        _check_files(run, planned.settings)
        epochs = len(run.metrics) if training else run.finished_epochs
    except ThreefactorError as problem:
        return State("broken", reason=str(problem))
    lines, settings = run.metrics[:epochs], planned.settings
    done = epochs == settings.epochs or stopped_early(lines, settings.stopping)
    kind = "finished" if done else "unfinished"
    return State(kind, epochs, lines[-1]["seconds"] if lines else 0.0)


def plugin_words() -> list[str]:
    """Return the words that load the plugins of this process in another one."""
    given = [one for one in plugins.loaded() if not one.installed]
    return [word for one in given for spec in one.specs for word in ("--plugin", spec)]


def prepare(planned: PlannedRun, root: Path) -> tuple[list[str], list[str]]:
    """Make the folder of a run ready for the process that trains it.

    A run that cannot be resumed, because one of its files is damaged, is removed. What is left of
    a run without its config.json is moved aside, since nobody can tell what it was.

    Returns:
        The arguments of `threefactor` that train or resume the run; and notes on what was done.

    Raises:
        BusyError: if another process still works on the run after `PATIENCE` seconds.
    """
    folder = planned.folder(root)
    with only_one(folder, PATIENCE):
        aside = RunFolder(folder).set_aside()
        run = Run(folder)
        damage = None if _is_empty(folder) else _damage(planned.settings, run)
        notes = [] if damage is None else [f"redone, since {damage}"]
        if aside is not None:
            notes.append(f"redone, since config.json was gone; what was left is in {aside}")
        words = ["train", "--resume", *plugin_words()]
        if damage is not None or not checkpoint.exists(run.last):
            _clear(folder)
            words = planned.command(root)
    return words, notes


class DataHere:
    """Compares the data of finished runs with the data found now. Each data set is loaded once.

    Args:
        data_dir: see `threefactor.data.data_folder`.
    """

    def __init__(self, data_dir: str | Path | None) -> None:
        self.data_dir = data_dir
        self._known: dict[str, dict[str, Any]] = {}

    def difference(self, run: Run) -> str | None:
        """Say how the data of a run differs from the data found now; None if it does not.

        Returns None, too, if the data is not found or the run does not describe its data.
        """
        there, settings = run.config.get("data"), run.settings
        if there is None:
            return None
        key = json.dumps([settings.network.kind, settings.steps, asdict(settings.data)])
        try:
            if key not in self._known:
                self._known[key] = record_of(settings, load_samples(settings, self.data_dir))
            return difference(there, self._known[key])
        except DataError:
            return None
        except InputError as problem:  # the data has fewer samples than the run asks for
            return str(problem)


def _is_empty(folder: Path) -> bool:
    """Whether a folder has nothing of a run, apart from hidden files and what was moved aside."""
    try:
        return all(path.name.startswith((".", REMAINS)) for path in folder.iterdir())
    except FileNotFoundError:  # a process that trains may remove it at any moment
        return True


def _clear(folder: Path) -> None:
    """Remove a run from its folder, but neither the lock nor what was moved aside."""
    for path in folder.iterdir():
        if path.name.startswith(REMAINS):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _damage(settings: Settings, run: Run) -> str | None:
    """Say why a run cannot be resumed; None if it can."""
    try:
        _check_files(run, settings)
        if not checkpoint.exists(run.last):
            return f"{run.last} is missing" if run.metrics else None
        epochs = checkpoint.load_state(run.last)["epoch"]
        if len(run.metrics) < epochs:
            return f"{run.metrics_path} is damaged: it lacks epochs of the {epochs} in {run.last}"
    except (ThreefactorError, KeyError, TypeError, ValueError) as problem:
        return str(problem)
    return None


def _check_files(run: Run, settings: Settings) -> None:
    """Refuse a run that can be neither resumed nor, once finished, reported.

    Raises:
        ThreefactorError: if it has other settings, or a file other than a checkpoint is damaged.
    """
    run.check_settings(_started_there(run, settings))
    if run.finished:
        read_run(run.path)


def _started_there(run: Run, settings: Settings) -> Settings:
    """Take over the start folder of a run: folders can move, and the fingerprint has the start."""
    return replace(settings, start=run.settings.start)
