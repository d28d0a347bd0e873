"""Commands in forked processes that are killed or meet a failing disk, and what has to be left.

Python and PyTorch take seconds to start, which would be most of the time of a disturbed run. So
the scripts that use this (`kills.py`, `faults.py`) import the library once, train once so that all
is loaded and compiled, and fork. Linux, since sessions are read from /proc.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from forked import carry_out

from threefactor import training
from threefactor.cli import main
from threefactor.recipes import recipe
from threefactor.training.engines import engine_of
from threefactor.training.folder import checkpoint

VOLATILE = ("seconds", "samples_per_second")
IGNORED = re.compile(
    r"Exception ignored [^\n]*\n(?:[^\n]*\n)*?[^\n]*(?:StoppedBySignal|KeyboardInterrupt)[^\n]*\n"
)
"""A signal may come while C code runs that prints what is raised there, and continues."""
PATIENCE = 30.0  # seconds in which a process that was stopped, and all that it started, are gone
SMALL = {"epochs": 4, "data.train": 100, "data.test": 40, "batch_size": 10, "hidden": [20]}


@dataclass(frozen=True)
class Training:
    """A tiny training of one of the engines."""

    recipe: str
    rule: str
    changes: dict[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> training.Settings:
        return recipe(self.recipe).settings_for(self.rule, {**SMALL, **self.changes})

    def command(self, out: Path) -> list[str]:
        words = ["train", self.recipe, "--rule", self.rule, "--threads", "1", "--out", str(out)]
        for key, value in {**SMALL, **self.changes}.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return words


TRAININGS = [
    Training("digits-fc", "opzo", {"dropout": 0.3, "track": {"every": 4, "samples": 10}}),
    Training("digits-events", "sfdfa", {"thresholds": [0.1, 0.1]}),
]


@dataclass
class Ended:
    """How a command ended: exit code, or minus a signal; what it said."""

    code: int
    said: str
    seconds: float

    def problems(self, *codes: int) -> list[str]:
        """Say what is wrong with it: another code, no word on a failure, a traceback."""
        found = []
        if self.code not in codes:
            found.append(f"exit code {self.code}, expected {' or '.join(map(str, codes))}")
        if "Traceback" in re.sub(IGNORED, "", self.said):
            found.append("a traceback")
        if self.code > 0 and "error: " not in self.said:
            found.append("no word")
        return [f"{one}: {self.said[-2000:]}" for one in found]


class Command:
    """A command of `threefactor` in a forked process that leads a session of its own."""

    def __init__(self, words: list[str], log: Path, first: Callable[[], None] = lambda: None):
        self._log, self._start = log, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            carry_out(lambda: _lead(words, log, first))

    def wait(self) -> Ended:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        seconds = time.monotonic() - self._start
        return Ended(os.waitstatus_to_exitcode(status), said, seconds)

    def left(self) -> list[int]:
        """Return the processes that it started and that are still there after some patience."""
        end = time.monotonic() + PATIENCE
        while (found := session(self.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        return found


def session(leader: int) -> list[int]:
    """Return the processes of a session but for those that only wait to be asked for their code."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = path.read_text().rpartition(") ")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(sid) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def _lead(words: list[str], log: Path, first: Callable[[], None]) -> None:
    """Do what the process of a command does."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["threefactor", *words]
    first()
    main()


def differences(run: Path, whole: Path) -> list[str]:
    """Say in what a run differs from one that was never disturbed: metrics, tensors, files."""
    found = []
    for name in ("metrics.jsonl", "tracked.jsonl"):
        if _lines(run / name) != _lines(whole / name):
            found.append(f"{name} differs")
    for name in ("last", "best"):
        a, b = (checkpoint.load_state(folder / name) for folder in (run, whole))
        for part in ("network", "rule", "optimizer", "scheduler", "random", "epoch"):
            if not _same(a[part], b[part]):
                found.append(f"{part} of {name} differs")
    if files(run) != files(whole):
        found.append(f"files are {sorted(files(run) ^ files(whole))} too many or too few")
    return found


def files(run: Path) -> set[str]:
    """Return what there is in a folder, but for the lock; what has chance in its name without."""
    names = {str(path.relative_to(run)) for path in run.rglob("*")} - {".lock"}
    return {re.sub(r"-[0-9a-f]{8,}", "", name) for name in names}


def _lines(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in lines]


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


def train_undisturbed(folder: Path) -> list[Path]:
    """Train all of `TRAININGS` in this process, which so has loaded all that they need."""
    torch.set_num_threads(1)
    runs = []
    for one in TRAININGS:
        engine_of(one.settings).use_threads(1)
        runs.append(folder / f"whole-{one.recipe}")
        training.train(one.settings, runs[-1])
    return runs
