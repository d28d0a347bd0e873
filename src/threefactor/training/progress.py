"""What a person sees while a run trains: a bar, a line for each epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from threefactor.readable import readable
from threefactor.training.scores import shown

__all__ = [
    "EpochLines",
    "Quiet",
    "Watcher",
    "describe_epoch",
    "describe_found",
    "percent",
]

MOST_SHOWN = 20
"""Classes whose samples are counted one by one."""


class Watcher(AbstractContextManager["Watcher"]):
    """Told of every batch and epoch of a run; does nothing itself."""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def data(self, found: Mapping[str, Any]) -> None:
        """Report what was found in the user's own data."""

    def start(self, title: str, done: int, total: int) -> None:
        """Say how many of the batches of the whole run are done."""

    def direct_test(self, line: Mapping[str, Any]) -> None:
        """Report how a network taken from another run does before any learning."""

    def batch(self, loss: float, accuracy: float | None, samples: int) -> None:
        """Report one batch: running loss and accuracy of the epoch, samples in the batch."""

    def epoch(self, line: Mapping[str, Any], epochs: int) -> None:
        """Report the metrics line of a finished epoch."""


class Quiet(Watcher):
    """Shows nothing."""


class EpochLines(Watcher):
    """Shows a progress bar with time left (on a terminal) and a line per epoch."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(markup=False, emoji=False, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  loss {task.fields[loss]:.4f}"),
            TextColumn("accuracy {task.fields[accuracy]}  {task.fields[rate]:,.0f} samples/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task: Any = None
        self._since = time.perf_counter()
        self._samples = 0

    def __enter__(self) -> EpochLines:
        self._bar.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._bar.stop()

    def data(self, found: Mapping[str, Any]) -> None:
        for line in describe_found(found):
            self.console.print(readable(line), highlight=False, soft_wrap=True)

    def start(self, title: str, done: int, total: int) -> None:
        self._since = time.perf_counter()
        self._task = self._bar.add_task(
            title, total=total, completed=done, loss=0.0, accuracy=percent(0.0), rate=0.0
        )

    def direct_test(self, line: Mapping[str, Any]) -> None:
        self.console.print(
            f"direct test  test loss {line['test_loss']:.4f} {shown(line, 'test')}",
            highlight=False,
        )

    def batch(self, loss: float, accuracy: float | None, samples: int) -> None:
        self._samples += samples
        rate = self._samples / (time.perf_counter() - self._since)
        shown = percent(accuracy)
        self._bar.update(self._task, advance=1, loss=loss, accuracy=shown, rate=rate)

    def epoch(self, line: Mapping[str, Any], epochs: int) -> None:
        self._since, self._samples = time.perf_counter(), 0
        self.console.print(describe_epoch(line, epochs), highlight=False, soft_wrap=True)


def describe_found(found: Mapping[str, Any]) -> Iterator[str]:
    """Say in lines what was found in the user's own data, see `data.OwnData`."""
    for key, value in found.items():
        if key != "samples":
            yield f"data: {key}: {value}"
            continue
        for part, counts in value.items():
            if not isinstance(counts, Mapping):
                yield f"data: {part}: {counts} samples"
                continue
            shown = ", ".join(f"{name} {count}" for name, count in [*counts.items()][:MOST_SHOWN])
            more = f", and {len(counts) - MOST_SHOWN} more" if len(counts) > MOST_SHOWN else ""
            yield (
                f"data: {part}: {sum(counts.values())} samples of {len(counts)} classes: "
                f"{shown}{more}"
            )


def percent(accuracy: float | None) -> str:
    """Return an accuracy for people; a dash where there is none."""
    return "-" if accuracy is None else f"{accuracy:.2%}"


def describe_epoch(line: Mapping[str, Any], epochs: int) -> str:
    """One line of text about a finished epoch."""
    left = line["seconds"] * (epochs - line["epoch"])
    parts = [part for part in ("train", "validation", "test") if f"{part}_loss" in line]
    told = "".join(f"{one} loss {line[f'{one}_loss']:.4f} {shown(line, one, 2)}  " for one in parts)
    return (
        f"epoch {line['epoch']:>3}/{epochs}  {told}"
        f"{line['samples_per_second']:,.0f} samples/s  about {_duration(left)} left"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
