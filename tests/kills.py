"""Kill training, resuming and reproducing at random moments; what is left must be right.

Usage: python tests/kills.py [--count 200] [--seed 0]

Each time: SIGKILL, SIGTERM or SIGINT at a random moment, of `train`, `train --resume` and
`reproduce`, of networks on a time grid and of exact spike times. Afterwards the folder loads, no
process is left, a signal that asks was answered by a checkpoint of its moment and the right exit
code; and the run, resumed until it is finished, has the bits of one that was never disturbed, and
no file more. Some start a Python of their own, so that its start is killed, too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import disturbed
from disturbed import Command, Ended, Training

from threefactor.cli import app
from threefactor.reproduce import PlannedRun, run_grid
from threefactor.training import Run
from threefactor.training.folder import checkpoint

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
START = 4.0  # seconds that a Python of its own takes to import the library
GRID = [
    PlannedRun(one.recipe, one.rule, 0, {**disturbed.SMALL, **one.changes})
    for one in disturbed.TRAININGS
]


class Kills:
    """Kills one after the other, and keeps what went wrong."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.wholes = disturbed.train_undisturbed(folder)
        probe = Command(disturbed.TRAININGS[0].command(folder / "probe"), folder / "log")
        self.length = probe.wait().seconds

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def train(self) -> None:
        """Train with kills until the run is finished."""
        index = self.chance.randrange(len(disturbed.TRAININGS))
        one, run = disturbed.TRAININGS[index], self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        for _ in range(self.chance.randrange(1, 5)):
            words = self._words(one, run)
            ended = self._killed(
                words, run, f"{'resume' if '--resume' in words else 'train'} {one.recipe}"
            )
            if ended is None:
                break
        ended = Command(self._words(one, run), self.folder / "log").wait()
        self._blame(f"{one.recipe} to its end", ended.problems(0))
        self._blame(f"{one.recipe} at its end", disturbed.differences(run, self.wholes[index]))

    def _words(self, one: Training, run: Path) -> list[str]:
        if Run(run).config_path.exists():
            return ["train", "--resume", "--out", str(run), "--threads", "1"]
        return one.command(run)

    def _killed(self, words: list[str], run: Path, what: str) -> Ended | None:
        """Kill a command; return how it ended, None if it was faster."""
        number = self.chance.choice(SIGNALS)
        what = f"{number.name} of {what}"
        if self.chance.random() < 0.04:
            return self._killed_at_start(words, run, number, what)
        before = state(run)
        command = Command(words, self.folder / "log")
        time.sleep(self.chance.uniform(0, self.length))
        os.kill(command.pid, number)
        ended = command.wait()
        self.counts[what] += 1
        self._judge(command, ended, number, what, before != state(run))
        self._look(run, what)
        return None if ended.code == 0 else ended

    def _killed_at_start(self, words: list[str], run: Path, number: int, what: str) -> Ended:
        program = [sys.executable, "-c", "from threefactor.cli import main; main()", *words]
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)
        time.sleep(self.chance.uniform(0, START))
        process.send_signal(number)
        code = process.wait()
        self.counts[f"{what}, from the start of Python"] += 1
        self._look(run, what)
        return Ended(code, (self.folder / "log").read_text(), 0.0)

    def _judge(self, command: Command, ended: Ended, number: int, what: str, changed: bool) -> None:
        codes = [0, -number if number == signal.SIGKILL or not changed else 128 + number]
        problems = ended.problems(*codes, 128 + number)
        if ended.code == 128 + number and "stopped in epoch" in ended.said:
            where = state(self.folder / "run")
            if (
                where is None
                or f"stopped in epoch {where[0] + 1} after batch {where[1]};" not in ended.said
            ):
                problems.append(f"the checkpoint is of {where}: {ended.said}")
        left = command.left()
        if left:
            problems.append(f"processes are left: {left}")
        self._blame(what, problems)

    def _look(self, run: Path, what: str) -> None:
        """Load what is left, as a reader does."""
        if not checkpoint.exists(run / "last"):
            return
        ended = Command(["evaluate", str(run), "--threads", "1"], self.folder / "log").wait()
        self._blame(f"evaluate after {what}", ended.problems(0))

    def reproduce(self) -> None:
        """Run a grid of both engines with kills, until it is finished."""
        root = self.folder / "grid"
        shutil.rmtree(root, ignore_errors=True)
        for _ in range(self.chance.randrange(1, 3)):
            number, group = self.chance.choice(SIGNALS), self.chance.random() < 0.5
            what = f"{number.name} of {'the group of ' if group else ''}reproduce"
            command = self._grid(root)
            time.sleep(self.chance.uniform(0, 2.5 * START))
            (os.killpg if group and number == signal.SIGINT else os.kill)(command.pid, number)
            ended = command.wait()
            self.counts[what] += 1
            self._judge(command, ended, number, what, changed=True)
            for planned in GRID:
                self._look(planned.folder(root), what)
        ended = self._grid(root).wait()
        self._blame("reproduce to its end", ended.problems(0))
        for planned, whole in zip(GRID, self.wholes, strict=True):
            self._blame("reproduce", disturbed.differences(planned.folder(root), whole))
        self._blame("reproduce", [str(path) for path in root.glob("*/*.log")])

    def _grid(self, root: Path) -> Command:
        return Command([], self.folder / "log", lambda: grid(root))

    def _blame(self, what: str, problems: list[str]) -> None:
        for problem in problems:
            self.wrong.append(f"{what}: {problem}")
            print(self.wrong[-1], file=sys.stderr, flush=True)


def grid(root: Path) -> None:
    """Make `main` run the grid of this script rather than one of the papers."""

    def run(prog_name: str) -> None:
        outcomes = run_grid(GRID, root, jobs=2)
        if any(outcome.kind != "finished" for outcome in outcomes):
            print("error: ", [outcome.notes for outcome in outcomes])
            sys.exit(3)

    app.app = run


def state(run: Path) -> tuple[int, int] | None:
    """Return epoch and batch of the last checkpoint."""
    if not checkpoint.exists(run / "last"):
        return None
    found = checkpoint.load_state(run / "last")
    return found["epoch"], found["sums"]["batch"]


def run(count: int, seed: int) -> int:
    """Kill so many times; return the exit code."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="threefactor-kills-") as folder:
        kills = Kills(Path(folder), seed)
        while kills.done < count:
            if kills.chance.random() < 0.1 and count >= 50:
                kills.reproduce()
            else:
                kills.train()
    for what, times in sorted(kills.counts.items()):
        print(f"{times:4d} {what}")
    print(
        f"{kills.done} kills in {time.monotonic() - start:.0f} s, seed {seed}: "
        f"{len(kills.wrong)} faults"
    )
    return 1 if kills.wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(run(given.count, given.seed))
