"""One run of a grid of experiments, and the state that its folder is in."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from threefactor.errors import ThreefactorError
from threefactor.recipes import recipe
from threefactor.recipes.clocked import CLOCKED
from threefactor.recipes.events import EVENTS
from threefactor.report.runs import read_run
from threefactor.training import RunFolder, Settings, finished_epochs
from threefactor.training.run_folder import REMAINS
from threefactor.training.run_lock import LOCK
from threefactor.version import NUMBERS, __version__

__all__ = ["Cell", "State", "check_files", "clear", "is_empty", "state_of"]

YOUNGER: Mapping[tuple[str, ...], Any] = {
    ("track",): None,
    ("data", "sort"): False,
    ("rule", "options", "normalise_by_count"): False,
    ("rule", "options", "feedback_lr_change"): None,
    ("rule", "options", "feedback_first"): False,
    ("rule", "options", "untraced"): [],
}
"""Settings that runs of others did not have yet: at these defaults, their folders stay the same."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A recipe trained with a rule and a seed.

    Attributes:
        recipe: name of the recipe.
        rule: name of the rule.
        seed: of everything random.
        changes: fields or options by name, as for `--set`.
        variant: tells cells of one rule apart, such as "same-weights" for local learning.
        start: the cell whose network this one goes on with, trained before it; or None.
    """

    recipe: str
    rule: str
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    start: Cell | None = None

    @cached_property
    def settings(self) -> Settings:
        """The full settings of the run, but for where its start lies."""
        changes = {**self.changes, "seed": self.seed, "start": None}
        return recipe(self.recipe).settings_for(self.rule, changes)

    def settings_in(self, root: Path) -> Settings:
        """Return the full settings of the run below a folder."""
        if self.start is None:
            return self.settings
        return replace(self.settings, start=str(self.start.folder(root)))

    @property
    def name(self) -> str:
        """What people call it."""
        return "-".join(part for part in (self.rule, self.variant, f"seed{self.seed}") if part)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of all settings, and of those of its start."""
        values = asdict(self.settings)
        for (*groups, last), default in YOUNGER.items():
            place = functools.reduce(dict.__getitem__, groups, values)
            if place.get(last) == default:
                place.pop(last, None)
        content = json.dumps(values, sort_keys=True)
        if self.start is not None:
            content += self.start.fingerprint
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    def folder(self, root: Path) -> Path:
        """Return the run folder."""
        return root / self.recipe / f"{self.name}-{self.fingerprint}"

    def command(self, root: Path, options: Sequence[str]) -> str | None:
        """Return the shell command that trains the same, None if a script made the recipe.

        Args:
            root: folder of the run folders.
            options: of the command, such as "--threads", "1".
        """
        if {**CLOCKED, **EVENTS}.get(self.recipe) is not recipe(self.recipe):
            return None
        words = ["threefactor", "train", self.recipe, "--rule", self.rule, "--seed", str(self.seed)]
        changes = dict(self.changes)
        if self.start is not None:
            changes["start"] = str(self.start.folder(root))
        for key, value in changes.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return shlex.join([*words, *options, "--out", str(self.folder(root))])


@dataclass(frozen=True)
class State:
    """What there is of a cell.

    Attributes:
        kind: "new"; "unfinished", to be resumed; "finished"; "broken", to be redone; or "foreign",
            of another version, data or settings, which is neither used nor touched.
        epochs: how many are done.
        seconds: that they took, all together.
        reason: why it is broken or foreign.
    """

    kind: str
    epochs: int = 0
    seconds: float = 0.0
    reason: str = ""


def state_of(cell: Cell, root: Path, *, training: bool = False) -> State:
    """Look at the folder of a cell.

    An epoch is done when the checkpoint after it is there: a kill may come between its metrics and
    its checkpoint, and what is made of a run's network would be made of an older one.

    Args:
        cell: what is looked at.
        root: folder of the run folders.
        training: whether a process trains it at this moment, which is only followed: then metrics
            count, and no checkpoint is read.
    """
    run = RunFolder(cell.folder(root))
    if is_empty(run.path):
        return State("new")
    try:
        made = run.config()["environment"]
        version, numbers = made.get("threefactor"), made.get("numbers", 1)
        if version != __version__:
            return State("foreign", reason=f"made by threefactor {version}, this is {__version__}")
        if numbers != NUMBERS:
            return State("foreign", reason="made before a change that alters what trainings give")
        differ = run.other_settings(_started_there(run, cell.settings))
        if differ:  # by hand, after the folder was named for them: its epochs are somebody's
            return State("foreign", reason=f"its settings were changed ({differ})")
        lines = check_files(run, cell.settings)
        epochs = len(lines) if training else finished_epochs(run.path)
    except ThreefactorError as problem:
        return State("broken", reason=str(problem))
    finished = epochs == cell.settings.epochs
    seconds = math.fsum(line.get("seconds", 0.0) for line in lines[:epochs])
    return State("finished" if finished else "unfinished", epochs, seconds)


def is_empty(folder: Path) -> bool:
    """Whether there is nothing of a run, but for hidden files and remains that were set aside."""
    try:
        return all(path.name.startswith((".", REMAINS)) for path in folder.iterdir())
    except FileNotFoundError:  # a process that trains may remove it at any moment
        return True


def clear(folder: Path) -> None:
    """Remove a run from its folder: all but the lock, which is held, and what was set aside."""
    for path in folder.iterdir():
        if path.name.startswith(REMAINS):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def check_files(run: RunFolder, settings: Settings) -> list[dict[str, Any]]:
    """Return the metrics of a run, if it can be gone on with or, once finished, reported.

    Raises:
        ThreefactorError: if it has other settings, or a file other than a checkpoint is damaged.
    """
    run.check_same(_started_there(run, settings))
    lines = run.checked_metrics()
    if len(lines) == settings.epochs:
        read_run(run.path)
    return lines


def _started_there(run: RunFolder, settings: Settings) -> Settings:
    """Take over the start of a run: folders may be moved, and the fingerprint knows the start."""
    return replace(settings, start=run.settings().start)
