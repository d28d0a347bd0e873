"""Let the Nth operation on the disk of a command fail, for every N: of a training, a resumption, a
report, pictures, an analysis, a stream.

Usage: python tests/faults.py [--every 1] [--seed 0]

Operations are writes, syncs, renamings, and what makes, cuts or removes a file. Each fails in turn
in four ways: once (EIO), with half of it written on a disk that stays full (ENOSPC), for good on a
full disk, and by the end of the process there (SIGKILL). Whatever failed, the command says so in
words, what was finished loads, and the resumed run has the bits of one that never failed.
Linux with a C compiler: `faults.c` is loaded before the C library.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
WAYS = {
    "EIO": (errno.EIO, 0, 0),
    "full": (errno.ENOSPC, 1, 0),
    "half": (errno.ENOSPC, 1, 1),
    "kill": (0, 0, 0),
}
"""errno, or 0 for SIGKILL; whether later ones fail, too; whether half of a write is written."""


def reason_not_to_run() -> str | None:
    """Say why faults cannot be made here; None if they can."""
    if sys.platform != "linux":
        return "faults are made on Linux alone"
    return None if shutil.which("cc") else "there is no C compiler, cc"


class Faults:
    """Faults one after the other, and what went wrong."""

    def __init__(self, folder: Path) -> None:
        import disturbed

        self.disturbed, self.folder = disturbed, folder
        self.wrong: list[str] = []
        self.wholes = disturbed.train_undisturbed(folder)
        self.library = ctypes.CDLL(None)
        self.ends: Counter[str] = Counter()

    def arm(self, where: Path, nth: int, way: str) -> Callable[[], None]:
        """Return what a process does first so that its Nth operation fails."""
        given = (ctypes.c_char_p(os.fsencode(where)), ctypes.c_long(nth), *WAYS[way])
        return lambda: self.library.fault_arm(*given)

    def count(self, words: list[str], where: Path) -> int:
        """Return how many operations a command needs below a folder."""
        told = self.folder / "count"

        def first() -> None:
            self.library.fault_arm(ctypes.c_char_p(os.fsencode(where)), ctypes.c_long(0), 0, 0, 0)
            leave = os._exit

            def tell(code: int) -> None:
                told.write_text(str(self.library.fault_count()))
                leave(code)

            os._exit = tell  # type: ignore[assignment]

        ended = self.disturbed.Command(words, self.folder / "log", first).wait()
        self.blame("undisturbed", ended.problems(0))
        return int(told.read_text())

    def disturb(self, words: list[str], where: Path, nth: int, way: str) -> str:
        """Carry out a command whose Nth operation fails; return what it was called."""
        what = f"{way} at {nth} of {' '.join(words[:2])}"
        command = self.disturbed.Command(words, self.folder / "log", self.arm(where, nth, way))
        codes = (-signal.SIGKILL, 0) if way == "kill" else (0, 1)
        ended = command.wait()
        self.blame(what, ended.problems(*codes))
        said = {0: "ended well all the same", 1: "failed, with words"}
        self.ends[f"{way}: {said.get(ended.code, 'killed')}"] += 1
        return what

    def training(self, index: int, nths: Callable[[int], list[int]]) -> None:
        """Disturb a training and then its resumption, for these of all N."""
        one, run = self.disturbed.TRAININGS[index], self.folder / "run"
        total = self.count(one.command(run), run)
        for way in WAYS:
            for nth in nths(total):
                shutil.rmtree(run)
                what = self.disturb(one.command(run), run, nth, way)
                self.look(run, what)
                again = self.words(one, run)
                what = f"{what}, then {self.disturb(again, run, 1 + nth // 2, way)}"
                self.look(run, what)
                ended = self.disturbed.Command(self.words(one, run), self.folder / "log").wait()
                self.blame(f"{what}, then undisturbed", ended.problems(0))
                if ended.code == 0:
                    self.blame(what, self.disturbed.differences(run, self.wholes[index]))
        shutil.rmtree(run)

    def words(self, one: object, run: Path) -> list[str]:
        if (run / "config.json").exists():
            return ["train", "--resume", "--out", str(run), "--threads", "1"]
        return one.command(run)  # type: ignore[attr-defined, no-any-return]

    def look(self, run: Path, what: str) -> None:
        """Load what is left, as a reader does."""
        if (run / "last" / "state.json").exists():
            words = ["evaluate", str(run), "--threads", "1"]
            ended = self.disturbed.Command(words, self.folder / "log").wait()
            self.blame(f"evaluate after {what}", ended.problems(0))

    def pages(self, nths: Callable[[int], list[int]]) -> None:
        """Disturb what reads runs and writes something: report in all ways, others in one each."""
        run, *_ = map(str, self.wholes)
        page, figures, tables = (str(self.folder / "pages" / name) for name in ("p", "f", "t"))
        report = ["report", *map(str, self.wholes), "--out", page, "--figures", figures]
        self.page(report, lambda total: [(nth, way) for nth in nths(total) for way in WAYS])
        for words in (
            ["show", run, "--out", f"{page}.html", "--csv", tables],
            ["show", run, "--out", f"{page}.png"],
            ["analyse", "firing", run, "--out", page],
        ):
            self.page(words, lambda total: list(zip(nths(total), cycle(WAYS), strict=False)))

    def page(self, words: list[str], chosen: Callable[[int], list[tuple[int, str]]]) -> None:
        """Disturb one of these commands; each file of its is whole, or not there."""
        pages = self.folder / "pages"
        pages.mkdir()
        total = self.count(words, pages)
        whole = {path: path.read_bytes() for path in pages.rglob("*") if path.is_file()}
        for nth, way in chosen(total):
            shutil.rmtree(pages)
            pages.mkdir()
            what = self.disturb(words, pages, nth, way)
            for path, content in whole.items():
                if path.exists() and path.read_bytes() != content:
                    self.blame(what, [f"{path.name} is not whole"])
        shutil.rmtree(pages)

    def stream(self, nths: Callable[[int], list[int]]) -> None:
        """Disturb a stream: lines are whole but for a last one; without any it can begin anew."""
        out = self.folder / "stream"
        words = ["stream", str(self.wholes[0]), "--samples", "8", "--every", "4", "--out", str(out)]
        words += ["--held-out", "20", "--window", "4", "--threads", "1"]
        total = self.count(words, out)
        for nth, way in zip(nths(total), cycle(WAYS), strict=False):
            shutil.rmtree(out, ignore_errors=True)
            what = self.disturb(words, out, nth, way)
            path = out / "stream.jsonl"
            if path.exists():
                lines = path.read_bytes().split(b"\n")
                for line in lines[:-1]:
                    json.loads(line)
                if way != "kill" and lines == [b""]:
                    self.blame(what, ["an empty stream.jsonl refuses the command that follows"])
        shutil.rmtree(out, ignore_errors=True)

    def blame(self, what: str, problems: list[str]) -> None:
        for problem in problems:
            self.wrong.append(f"{what}: {problem}")
            print(self.wrong[-1], file=sys.stderr, flush=True)


def run(every: int, seed: int) -> int:
    """Try one of so many operations; return the exit code."""
    start, chance = time.monotonic(), random.Random(seed)

    def nths(total: int) -> list[int]:
        found = list(range(1 + chance.randrange(every), total + 1, every))
        return found or [1 + chance.randrange(total)]

    with tempfile.TemporaryDirectory(prefix="threefactor-faults-") as folder:
        faults = Faults(Path(folder))
        for index in range(len(faults.disturbed.TRAININGS)):
            faults.training(index, nths)
        faults.pages(nths)
        faults.stream(nths)
    for what, times in sorted(faults.ends.items()):
        print(f"{times:4d} {what}")
    print(
        f"{faults.ends.total()} commands disturbed in {time.monotonic() - start:.0f} s: "
        f"{len(faults.wrong)} faults"
    )
    return 1 if faults.wrong else 0


def main() -> int:
    """Begin again with `faults.c` loaded, then run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if hasattr(ctypes.CDLL(None), "fault_arm"):
        return run(given.every, given.seed)
    reason = reason_not_to_run()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/faults.so"
        build = ["cc", "-O1", "-shared", "-fPIC", "-o", library, str(SOURCE), "-ldl", "-lpthread"]
        subprocess.run(build, check=True)
        environment = {**os.environ, "LD_PRELOAD": library}
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
