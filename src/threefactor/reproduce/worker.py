"""Train one cell of a grid in a process of its own, `COMMAND`.

The settings come as one line of JSON on standard input, which stays open: when it ends, the process
that started this one is gone, and the training is stopped with a checkpoint. What the user should
know goes to standard output, a line each after "note: "; errors go to standard error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import threading
from pathlib import Path

import torch

from threefactor import training
from threefactor.errors import ThreefactorError
from threefactor.reproduce.cells import check_files
from threefactor.training import RunFolder, Settings, checkpoint
from threefactor.training.engines import engine_of

__all__ = ["COMMAND", "NOTE", "main", "train_cell"]

# With -m, Python would warn that the package has imported this module already.
COMMAND = [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main())"]
STOPPED = 130
NOTE = "note: "
"""Begins the lines that are not those of libraries, which write to the same place."""


def train_cell(settings: Settings, folder: Path, data_dir: str | None, device: str) -> list[str]:
    """Train a cell, or go on with it; return what was noted on the way.

    A run that cannot be gone on with, because a file of it is damaged, is removed and redone.

    Raises:
        ThreefactorError: as `training.train`.
    """
    notes: list[str] = []
    damage = _damage(settings, folder)
    if damage is not None:
        notes.append(f"redone, since {damage}")
        shutil.rmtree(folder)
    if RunFolder(folder).config_path.exists():
        training.resume(folder, data_dir=data_dir, device=device)
    else:
        training.train(settings, folder, data_dir=data_dir, device=device)
    return notes


def _damage(settings: Settings, folder: Path) -> str | None:
    """Return why there is something in the folder that is of no use, or None."""
    run = RunFolder(folder)
    if not folder.exists():
        return None
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
    sys.stdin.read()
    signal.raise_signal(signal.SIGINT)


def main() -> int:
    """Run the process; return its exit code."""
    parser = argparse.ArgumentParser(prog="worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    settings = training.make_settings(json.loads(sys.stdin.readline()))
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
        return STOPPED
    return 0
