"""The folder of one run: configuration, metrics, checkpoints."""

from __future__ import annotations

import contextvars
import dataclasses
import json
import math
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from threefactor.errors import CheckpointError, ConfigurationError, warn_user
from threefactor.readable import clipped
from threefactor.training import checkpoint, lines
from threefactor.training.data_record import difference
from threefactor.training.description import Description
from threefactor.training.engines import engine_of
from threefactor.training.files import clear_unfinished, make_folder, read_json, write_atomically
from threefactor.training.loggers import TENSORBOARD
from threefactor.training.run_lock import LOCK
from threefactor.training.settings import Settings, make_settings
from threefactor.version import NUMBERS, __version__

__all__ = ["RunFolder", "command", "environment", "finished_epochs", "flat"]

command: contextvars.ContextVar[str | None] = contextvars.ContextVar("command", default=None)
"""The command that is at work, which makes its runs anew if it is given again; None in Python."""

UNSEEDED = 67280421310721
"""What PyTorch's generator begins with if nobody seeds it."""
NUMBERS_OF_EPOCH = ("train_loss", "test_loss", "seconds")
ACCURACIES = ("train_accuracy", "test_accuracy")
REMAINS = "remains-"
"""Begins the names of folders for what is left of runs without their config.json."""
DECIDES = ("threads", "device", "threefactor", "numbers", "torch", "python", "platform")
"""What of the environment the bits of a training depend on, or may."""


class RunFolder:
    """`config.json`, `metrics.jsonl`, `last/` and `best/` of one run.

    `start.json` is there too if the run began with the network of another one: how that did; and
    `tracked.jsonl` if something was measured while it trained.

    Args:
        path: the folder itself.

    Raises:
        CheckpointError: if the path is empty, or none that a system knows.
    """

    def __init__(self, path: str | Path) -> None:
        named = isinstance(path, (str, Path)) and str(path) and "\0" not in str(path)
        if not named:
            raise CheckpointError(
                f"the run folder is {clipped(path)}, which names no folder; give a name, or . for "
                "the current folder"
            )
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.tracked_path = self.path / "tracked.jsonl"
        self.start_path = self.path / "start.json"
        self.last = self.path / "last"
        self.best = self.path / "best"

    def create(
        self,
        settings: Settings,
        data: Mapping[str, Any] | None = None,
        imported: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder and write the full configuration.

        Args:
            settings: of the run.
            data: what is to be remembered of the samples, from `describe_data`.
            imported: where the network comes from, if another program trained it.

        Raises:
            CheckpointError: if a run is there already, or what is left of one, or the folder
                cannot be written.
        """
        if self.config_path.exists():
            raise CheckpointError(
                f"{self.path} already holds a run; add --resume to continue it, "
                "or choose another folder with --out"
            )
        left = self.remains()
        if left:
            raise CheckpointError(
                f"{self.path} holds what is left of a run whose config.json is gone: "
                f"{', '.join(left)}. Put its config.json back and resume it, choose another "
                "folder with --out, or move these away"
            )
        document = {"settings": dataclasses.asdict(settings), "environment": environment(settings)}
        if data is not None:
            document["data"] = dict(data)
        if imported is not None:
            document["imported"] = dict(imported)
        make_folder(self.path)
        self._write_config(document)

    def describe(self, experiment: Description, device: str) -> None:
        """Make the configuration say what is trained here; call it before the first batch.

        Args:
            experiment: what it is.
            device: on which it is trained.
        """
        if not self.config_path.exists():
            self.create(experiment.settings, experiment.data)
        document = self.config()
        there = json.dumps(document)
        document["settings"] = dataclasses.asdict(experiment.settings)
        document["data"] = dict(experiment.data)
        if experiment.own is not None:
            document["own"] = dict(experiment.own)
        # A run that was killed before its first batch may be gone on with by another command, and
        # no command makes what is one's own.
        command = None if experiment.own is not None else document["environment"].get("command")
        found = environment(experiment.settings, device)
        document["environment"] = {**found, "command": command}
        if json.dumps(document) != there:
            self._write_config(document)

    def note_resumption(self, epoch: float, settings: Settings, device: str) -> None:
        """Write down, and warn, if the training goes on in another environment than before.

        Args:
            epoch: at which it goes on; a fraction within an epoch.
            settings: of the run.
            device: on which it goes on.
        """
        document = self.config()
        changes = self.resumptions()
        before = dict(document["environment"])
        for change in changes:
            before.update(change)
        now = environment(settings, device)
        differ = [k for k in DECIDES if k in before and before[k] != now[k]]
        if not differ:
            return
        changes.append({"epoch": epoch, **{key: now[key] for key in differ}})
        self._write_config({**document, "resumed": changes})
        said = "; ".join(f"{key} {before[key]} before, {now[key]} now" for key in differ)
        warn_user(
            f"{self.path} goes on in another environment ({said}): it will not have the bits of a "
            "run that never stopped. config.json says so, too"
        )

    def resumptions(self) -> list[dict[str, Any]]:
        """Return what `note_resumption` wrote: at which epochs the environment became another one.

        Raises:
            CheckpointError: if the folder holds no run, or something else.
        """
        changes = self.config().get("resumed", [])
        if not isinstance(changes, list) or not all(
            isinstance(change, dict) and _finite(change.get("epoch")) for change in changes
        ):
            raise CheckpointError(f"{self.config_path} is damaged: resumed is {changes!r:.80}")
        return changes

    def _write_config(self, document: Mapping[str, Any]) -> None:
        write_atomically(self.config_path, (json.dumps(document, indent=2) + "\n").encode())

    def config(self) -> dict[str, Any]:
        """Return the configuration.

        Raises:
            CheckpointError: if the folder holds no run.
        """
        try:
            document = read_json(self.config_path)
            for part in ("settings", "environment"):
                if not isinstance(document[part], dict):
                    raise TypeError(f"{part!r} is no object")
        except (CheckpointError, OSError, KeyError, TypeError) as problem:
            left = self.remains()
            more = f"; of a run, {', '.join(left)} are there: put its config.json back"
            raise CheckpointError(
                f"{self.path} holds no run: config.json cannot be read ({problem})"
                f"{more if left else ''}"
            ) from problem
        return document  # type: ignore[no-any-return]

    def settings(self) -> Settings:
        """Return the settings of the run.

        Raises:
            CheckpointError: if the folder holds no run.
            ConfigurationError: if these are no settings of this version.
        """
        given = self.config()["settings"]
        try:
            return make_settings(given)
        except RecursionError as problem:
            raise CheckpointError(
                f"{self.path} holds no run: the settings in config.json are nested too deep"
            ) from problem

    @property
    def is_imported(self) -> bool:
        """Whether another program trained the network, so that there is no training to resume."""
        return "imported" in self.config()

    def threads(self) -> int | None:
        """Return on how many threads the run was last trained; None if nobody knows."""
        found = self.config()["environment"].get("threads")
        for change in self.resumptions():
            found = change.get("threads", found)
        return found if type(found) is int and 1 <= found <= 4096 else None

    def other_settings(self, settings: Settings) -> str:
        """Say how settings differ from those that the run was started with; nothing if they do not.

        Raises:
            ConfigurationError: if they are no settings.
        """
        engine_of(settings)
        # Settings that are younger than the run had their defaults; so had options of its rule.
        there, asked = self.settings(), flat(settings)
        known = engine_of(there).rules
        younger = engine_of(there).rule_options(there.rule.name) if there.rule.name in known else {}
        defaults = {f"rule.options.{name}": value for name, value in younger.items()}
        return differences({**defaults, **flat(there)}, asked, "there", "asked")

    def check_same(self, settings: Settings) -> None:
        """Refuse settings other than those that the run was started with."""
        differ = self.other_settings(settings)
        if differ:
            raise CheckpointError(
                f"{self.path} is a run of another configuration ({differ}); "
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

    def check_trained_with(self, state: Any) -> None:
        """Refuse a checkpoint that was made with other settings than config.json says.

        Raises:
            CheckpointError: names the settings that were changed since.
        """
        check_settings(self.path, state, self.settings())

    def remains(self) -> list[str]:
        """Return the names of what is left of a run whose config.json is gone."""
        if self.config_path.exists():
            return []
        files = (self.metrics_path, self.tracked_path, self.start_path)
        folders = (self.last, self.best, self.path / "analysis", self.path / TENSORBOARD)
        return [part.name for part in (*files, *folders) if part.exists()]

    def set_aside(self) -> Path | None:
        """Move what is left of a run whose config.json is gone into a folder within this one.

        Returns:
            The new folder; None if nothing was left.

        Raises:
            CheckpointError: if it cannot be moved.
        """
        left = self.remains()
        if not left:
            return None
        number = 1
        while (self.path / f"{REMAINS}{number}").exists():
            number += 1
        folder = self.path / f"{REMAINS}{number}"
        make_folder(folder)
        try:
            for name in left:
                (self.path / name).rename(folder / name)
        except OSError as problem:
            raise CheckpointError(
                f"cannot move {left} to {folder}: {problem.strerror}"
            ) from problem
        return folder

    def discard(self) -> None:
        """Remove a run that has learned nothing, and its folder if nothing else is in it."""
        for part in (self.last, self.best, self.path / TENSORBOARD):
            shutil.rmtree(part, ignore_errors=True)
        files = (self.tracked_path, self.start_path, self.metrics_path, self.config_path)
        for file in (*files, self.path / LOCK):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def clear(self) -> None:
        """Remove what a kill left half-written. Call it only where nobody else trains here."""
        clear_unfinished(self.path)
        for folder in (self.last, self.best):
            checkpoint.clear(folder)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of the finished epochs; a last line cut short is left out."""
        return lines.read(self.metrics_path)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line; on a full disk the file stays as it was."""
        lines.append(self.metrics_path, line)

    def tracked(self) -> list[dict[str, Any]]:
        """Return what was measured while training; a last line cut short is left out.

        Raises:
            CheckpointError: if a line does not say after how many batches, and epochs, it was.
        """
        found = lines.read(self.tracked_path)
        for number, line in enumerate(found, start=1):
            if not (_whole(line.get("batches")) and _finite(line.get("epoch"))):
                raise CheckpointError(
                    f"line {number} of {self.tracked_path} is damaged: it does not say when it was "
                    "measured. Put the file back, or train anew in another folder with --out"
                )
        return found

    def append_tracked(self, line: Mapping[str, Any]) -> None:
        """Add one measurement; on a full disk the file stays as it was."""
        lines.append(self.tracked_path, line)

    def start(self) -> dict[str, Any] | None:
        """Return what `write_start` wrote, None if it has not.

        Raises:
            CheckpointError: if the file cannot be read, or holds something else.
        """
        try:
            found = read_json(self.start_path)
        except FileNotFoundError:
            return None
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.start_path} is damaged: it holds no object")
        return found

    def write_start(self, line: Mapping[str, Any]) -> None:
        """Keep how the network that the run begins with did before any learning."""
        write_atomically(self.start_path, json.dumps(line).encode() + b"\n")

    def checked_metrics(self, epochs: int = 0) -> list[dict[str, Any]]:
        """Return the metrics, of which at least so many epochs have to be there.

        Raises:
            CheckpointError: if they are not, the lines are not one epoch after the other, or hold
                something else than numbers.
        """
        found = self.metrics()
        wanted = list(range(1, max(epochs, len(found)) + 1))
        if [line.get("epoch") for line in found] != wanted:
            raise CheckpointError(
                f"{self.metrics_path} is damaged: it does not hold epochs 1 to {len(wanted)}, one "
                "after the other; train anew in another folder with --out"
            )
        for line in found:
            wrong = [name for name in NUMBERS_OF_EPOCH if not _finite(line.get(name))]
            wrong += [name for name in ACCURACIES if not _share(line.get(name))]
            if wrong:
                raise CheckpointError(
                    f"{self.metrics_path} is damaged: in epoch {line['epoch']}, {wrong[0]} is "
                    f"{line.get(wrong[0])!r:.80}. Put the file back, or train anew in another "
                    "folder with --out"
                )
        return found

    def keep_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Drop lines of epochs that the checkpoint does not know; return the others.

        Raises:
            CheckpointError: if one is missing that it knows, or the file is damaged.
        """
        kept = self.checked_metrics(epochs)[:epochs]
        if self.metrics_path.exists():
            lines.write(self.metrics_path, kept)
        return kept

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
        CheckpointError: if the last checkpoint or the metrics are damaged. Of the tensors, only
            the size of their file is looked at.
    """
    run = RunFolder(folder)
    if not checkpoint.exists(run.last):
        return 0
    state = checkpoint.load_state(run.last, tensors=False)
    epoch: Any = state.get("epoch") if isinstance(state, dict) else None
    if not _whole(epoch):
        raise CheckpointError(f"{run.last} is damaged: its epoch is {epoch!r:.80}")
    return min(int(epoch), len(run.checked_metrics()))


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _share(value: Any) -> bool:
    return value is None or (_finite(value) and 0 <= value <= 1)


def _finite(value: Any) -> bool:
    return _whole(value) or (type(value) is float and math.isfinite(value))


def environment(settings: Settings | None = None, device: str | None = None) -> dict[str, Any]:
    """What beyond the settings a run's numbers may depend on.

    Args:
        settings: of a run, whose engine says on how many threads it computes.
        device: on which it is trained, if it is.
    """
    engine = None if settings is None else engine_of(settings)
    seed = torch.initial_seed()
    found = {
        "threefactor": __version__,
        "numbers": NUMBERS,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads() if engine is None else engine.threads,
        "torch_seed": None if seed == UNSEEDED else seed,
        "command": command.get(),
    }
    return found if device is None else {**found, "device": device}


def flat(settings: Settings) -> dict[str, Any]:
    """Return settings by full name ("network.dropout"), as plain values of JSON."""
    return dict(_leaves(json.loads(json.dumps(dataclasses.asdict(settings)))))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], there: str, here: str) -> str:
    """Say which of two runs' flat settings differ; nothing if none does."""
    return "; ".join(
        f"{key}: {old.get(key)!r:.100} {there}, {new.get(key)!r:.100} {here}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def check_settings(where: Path, state: Any, settings: Settings) -> None:
    """Refuse the state of a checkpoint that was made with other settings.

    Raises:
        CheckpointError: names the settings, or says that there are none in the checkpoint.
    """
    try:
        there = make_settings(state["settings"])  # younger settings had their defaults
    except (ConfigurationError, KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"the checkpoint in {where} is damaged: it does not say its settings ({problem})"
        ) from problem
    differ = differences(flat(there), flat(settings), "when it was trained", "now")
    if differ:
        raise CheckpointError(
            f"the checkpoint in {where} was made with other settings ({differ}); put config.json "
            "back as it was, or train with the new settings in a folder of its own"
        )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
