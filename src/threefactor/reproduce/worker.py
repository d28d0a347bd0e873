"""Train one cell of a grid in a process of its own, `PROGRAM`.

The settings and the command to be recorded come as one line of JSON on standard input, which stays
open: when it ends, the process that started this one is gone or wants this one to stop, and the
training is stopped with a checkpoint. What the user should know goes to standard output, a line
each after "note: "; errors go to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

import torch

from threefactor import training
from threefactor.errors import ThreefactorError
from threefactor.reproduce.cells import check_files, clear, is_empty
from threefactor.training import RunFolder, Settings, checkpoint
from threefactor.training.engines import engine_of
from threefactor.training.run_folder import command
from threefactor.training.run_lock import only_one
from threefactor.training.stopping import leave_on_signals

__all__ = ["NOTE", "PATIENCE", "PROGRAM", "main", "train_cell"]

# With -m, Python would warn that the package has imported this module already.
PROGRAM = [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main())"]
PATIENCE = 10.0  # seconds in which the processes of a grid that was killed write checkpoints
NOTE = "note: "
"""Begins the lines that are not those of libraries, which write to the same place."""


def train_cell(settings: Settings, folder: Path, data_dir: str | None, device: str) -> list[str]:
    """Train a cell, or go on with it; return what was noted on the way.

    A run that cannot be gone on with, because a file of it is damaged, is removed and redone; what
    is left of one whose config.json is gone is set aside, since nobody knows what it is. One that
    the process of a grid that was killed still works on is waited for.

    Raises:
        ThreefactorError: as `training.train`.
    """
    with only_one(folder, PATIENCE):
        run = RunFolder(folder)
        aside = run.set_aside()
        damage = None if is_empty(folder) else _damage(settings, run)
        notes = [] if damage is None else [f"redone, since {damage}"]
        if aside is not None:
            notes.append(f"redone, since config.json was gone; what was left is in {aside}")
        if damage is not None or not checkpoint.exists(run.last):
            clear(folder)
            training.train(settings, folder, data_dir=data_dir, device=device)
        else:
            training.resume(folder, data_dir=data_dir, device=device)
    return notes


def _damage(settings: Settings, run: RunFolder) -> str | None:
    """Return why what is in the folder is of no use, or None."""
    try:
        lines = check_files(run, settings)
        if checkpoint.exists(run.last):
            run.checked_metrics(checkpoint.load_state(run.last)["epoch"])
        elif lines:
            return f"{run.last} is missing"
    except (ThreefactorError, KeyError, TypeError, ValueError) as problem:
        return str(problem)
    return None


def _stop_when_alone() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    signal.raise_signal(signal.SIGTERM)


def main() -> int:
    """Run the process; return its exit code."""
    parser = argparse.ArgumentParser(prog="worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    # At a terminal Ctrl-C reaches this process, too: the training is to take note of it, no more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_on_signals()
    order = json.loads(sys.stdin.readline())
    settings = training.make_settings(order["settings"])
    command.set(order["command"])
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    engine_of(settings).use_threads(given.threads)
    torch.set_num_interop_threads(1)
    try:
        for note in train_cell(settings, given.folder, given.data_dir, given.device):
            print(NOTE + note, flush=True)
    except ThreefactorError as problem:
        print(problem, file=sys.stderr, flush=True)
        return problem.exit_code
    except OSError as problem:  # such as a full disk, wherever it was met
        print(
            f"{problem.filename or given.folder}: {problem.strerror}", file=sys.stderr, flush=True
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
