"""The folder of one run: configuration, metrics, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

from threefactor import events
from threefactor.errors import CheckpointError
from threefactor.training import checkpoint, lines
from threefactor.training.data_record import difference
from threefactor.training.settings import Settings, make_settings
from threefactor.version import NUMBERS, __version__

__all__ = ["RunFolder", "environment", "finished_epochs", "flat"]

COMMAND: ContextVar[str | None] = ContextVar("COMMAND", default=None)
"""The shell command that is being carried out, given again to repeat what it makes. Only who reads
a command line knows it: what a script makes has none."""


class RunFolder:
    """`config.json`, `metrics.jsonl`, `last/` and `best/` of one run.

    `start.json` is there too if the run began with the network of another one: how that did; and
    `tracked.jsonl` if something was measured while it trained.

    Args:
        path: the folder itself.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.tracked_path = self.path / "tracked.jsonl"
        self.start_path = self.path / "start.json"
        self.last = self.path / "last"
        self.best = self.path / "best"

    def create(self, settings: Settings, data: Mapping[str, Any] | None = None) -> None:
        """Make the folder and write the full configuration.

        Args:
            settings: of the run.
            data: what is to be remembered of the samples, from `describe_data`.

        Raises:
            CheckpointError: if a run is there already, or the folder cannot be written.
        """
        if self.config_path.exists():
            raise CheckpointError(
                f"{self.path} already holds a run; add --resume to continue it, "
                "or choose another folder with --out"
            )
        document = {"settings": dataclasses.asdict(settings), "environment": environment()}
        if data is not None:
            document["data"] = dict(data)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise CheckpointError(f"cannot make {self.path}: {problem.strerror}") from problem
        content = json.dumps(document, indent=2) + "\n"
        checkpoint.write_atomically(self.config_path, content.encode())

    def config(self) -> dict[str, Any]:
        """Return the configuration.

        Raises:
            CheckpointError: if the folder holds no run.
        """
        try:
            document = json.loads(self.config_path.read_bytes())
            for part in ("settings", "environment"):
                if not isinstance(document[part], dict):
                    raise TypeError(f"{part!r} is no object")
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise CheckpointError(
                f"{self.path} holds no run: config.json cannot be read ({problem})"
            ) from problem
        return document  # type: ignore[no-any-return]

    def settings(self) -> Settings:
        """Return the settings of the run."""
        return make_settings(self.config()["settings"])

    def check_same(self, settings: Settings) -> None:
        """Refuse settings other than those that the run was started with."""
        # Settings that are younger than the run had their defaults.
        old, new = flat(self.settings()), flat(settings)
        differ = [
            f"{key}: {old.get(key)!r} there, {new.get(key)!r} asked"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if differ:
            raise CheckpointError(
                f"{self.path} is a run of another configuration ({'; '.join(differ)}); "
                "resume it with its own settings, or choose another folder with --out"
            )

    def check_same_data(self, data: Mapping[str, Any]) -> None:
        """Refuse samples other than those that the run was started with, if it tells."""
        differ = difference(self.config().get("data"), data)
        if differ is not None:
            raise CheckpointError(
                f"{self.path} was trained on other data than what is at hand ({differ}); name the "
                "folder of its data with --data-dir, or train anew in another folder with --out"
            )

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of the finished epochs; a last line cut short is left out."""
        return lines.read(self.metrics_path)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line; on a full disk the file stays as it was."""
        lines.append(self.metrics_path, line)

    def tracked(self) -> list[dict[str, Any]]:
        """Return what was measured while training; a last line cut short is left out."""
        return lines.read(self.tracked_path)

    def append_tracked(self, line: Mapping[str, Any]) -> None:
        """Add one measurement; on a full disk the file stays as it was."""
        lines.append(self.tracked_path, line)

    def start(self) -> dict[str, Any] | None:
        """Return what `write_start` wrote, None if it has not.

        Raises:
            OSError, ValueError: if the file cannot be read.
        """
        if not self.start_path.exists():
            return None
        return json.loads(self.start_path.read_bytes())  # type: ignore[no-any-return]

    def write_start(self, line: Mapping[str, Any]) -> None:
        """Keep how the network that the run begins with did before any learning."""
        checkpoint.write_atomically(self.start_path, json.dumps(line).encode() + b"\n")

    def checked_metrics(self, epochs: int = 0) -> list[dict[str, Any]]:
        """Return the metrics, of which at least so many epochs have to be there.

        Raises:
            CheckpointError: if they are not, or the lines are not one epoch after the other.
        """
        found = self.metrics()
        wanted = list(range(1, max(epochs, len(found)) + 1))
        if [line.get("epoch") for line in found] != wanted:
            raise CheckpointError(
                f"{self.metrics_path} is damaged: it does not hold epochs 1 to {len(wanted)}, one "
                "after the other; train anew in another folder with --out"
            )
        return found

    def keep_metrics(self, epochs: int) -> None:
        """Drop lines of epochs that the checkpoint does not know.

        Raises:
            CheckpointError: if one is missing that it knows.
        """
        lines.write(self.metrics_path, self.checked_metrics(epochs)[:epochs])

    def keep_tracked(self, batches: int) -> list[dict[str, Any]]:
        """Drop measurements after so many batches; return the others."""
        kept = [line for line in self.tracked() if line["batches"] <= batches]
        if self.tracked_path.exists():
            lines.write(self.tracked_path, kept)
        return kept


def finished_epochs(folder: str | Path) -> int:
    """Return how many epochs a run folder really has: those of its last checkpoint and metrics.

    A kill or a full disk may come between the metrics line of an epoch and its checkpoint. Such an
    epoch is not finished: whoever used the network would use that of the epoch before.

    Raises:
        CheckpointError: if the last checkpoint or the metrics are damaged.
    """
    run = RunFolder(folder)
    if not checkpoint.exists(run.last):
        return 0
    epoch: int = checkpoint.load_state(run.last)["epoch"]
    return min(epoch, len(run.checked_metrics()))


def environment() -> dict[str, Any]:
    """What beyond the settings a run's numbers may depend on."""
    return {
        "threefactor": __version__,
        "numbers": NUMBERS,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": max(torch.get_num_threads(), events.get_num_threads()),
        "command": COMMAND.get(),
    }


def flat(settings: Settings) -> dict[str, Any]:
    """Return settings by full name ("network.dropout"), as plain values of JSON."""
    return dict(_leaves(json.loads(json.dumps(dataclasses.asdict(settings)))))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
