"""The writer of a run folder: configuration, metrics, measurements; and what is left of runs."""

from __future__ import annotations

import contextvars
import dataclasses
import json
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from threefactor.errors import CheckpointError, warn_user
from threefactor.training.description import Description
from threefactor.training.engines import engine_of
from threefactor.training.folder import checkpoint
from threefactor.training.folder.files import (
    append_line,
    clear_unfinished,
    make_folder,
    write_atomically,
    write_lines,
)
from threefactor.training.folder.lock import LOCK
from threefactor.training.folder.run import Run, RunFiles
from threefactor.training.own_code import code_digests, own_code
from threefactor.training.settings import Settings
from threefactor.version import NUMBERS, __version__

__all__ = ["RunFolder", "command", "environment"]

command: contextvars.ContextVar[str | None] = contextvars.ContextVar("command", default=None)
"""The command that is running, which repeats its runs if it is given again; None in Python."""

UNSEEDED = 67280421310721
"""The seed of PyTorch's generator if nobody sets one."""
REMAINS = "remains-"
"""Folders for what is left of runs without config.json begin with this."""
DECIDES = (
    "threads",
    "processes",
    "precision",
    "device",
    "threefactor",
    "numbers",
    "torch",
    "python",
    "platform",
    "code",
)
"""The parts of the environment that may change the bits of a training."""


USUAL = {"processes": 1, "precision": "highest"}
"""What an environment that does not say so has: one process, products in full precision."""


class RunFolder(RunFiles):
    """The writer of a run folder; `Run` reads it.

    It writes `config.json`, `metrics.jsonl`, and the checkpoints `last/` and `best/`; `start.json`
    too if the run began with the network of another one; and `tracked.jsonl` if something was
    measured during training. `Loggers` write `log.json`.
    """

    def read(self) -> Run:
        """Return what is in the folder now."""
        return Run(self.path)

    def create(
        self,
        settings: Settings,
        data: Mapping[str, Any] | None = None,
        layer_sizes: Mapping[str, int] | None = None,
        imported: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder and write the full configuration.

        Args:
            settings: of the run.
            data: a record of the samples, from `describe_data`.
            layer_sizes: number of neurons of each hidden layer, by name.
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
        if layer_sizes is not None:
            document["layer_sizes"] = dict(layer_sizes)
        if imported is not None:
            document["imported"] = dict(imported)
        code = own_code(settings)
        if code is not None:
            document["own_code"] = code
        make_folder(self.path)
        self._write_config(document)

    def describe(
        self,
        experiment: Description,
        device: str,
        placement: Mapping[str, str],
        processes: int = 1,
    ) -> None:
        """Write into config.json what is trained; call it before the first batch.

        Args:
            experiment: what it is.
            device: on which it is trained.
            placement: where its samples lie, and why.
            processes: how many train together.
        """
        if not self.config_path.exists():
            self.create(experiment.settings, experiment.data, experiment.layer_sizes)
        document = self.read().config
        there = json.dumps(document)
        document["settings"] = dataclasses.asdict(experiment.settings)
        document["data"] = dict(experiment.data)
        document["layer_sizes"] = dict(experiment.layer_sizes)
        if experiment.start is not None:
            document["start"] = dict(experiment.start)
        document["placement"] = dict(placement)
        if experiment.own is not None:
            document["own"] = dict(experiment.own)
        before = document.pop("own_code", {}).get("parts", {})
        code = own_code(experiment.settings)
        if "recipe" in before and experiment.own is None:  # of a file, which is read at the start
            code = code or {"parts": {}, "plugins": []}
            code["parts"].setdefault("recipe", before["recipe"])
        if code is not None:
            document["own_code"] = code
        # Another command may resume a run that was killed before its first batch, and no command
        # makes an experiment with parts of the user's own.
        command = None if experiment.own is not None else document["environment"].get("command")
        found = environment(experiment.settings, device, processes)
        document["environment"] = {**found, "command": command}
        if json.dumps(document) != there:
            self._write_config(document)

    def extend(self, epochs: int) -> None:
        """Write down that a finished run is to have more epochs.

        Args:
            epochs: how many in all.

        Raises:
            CheckpointError: see `Run.extension`.
        """
        run = self.read()
        extension = run.extension(epochs)
        document = run.config
        document["settings"] = {**document["settings"], "epochs": epochs}
        document["extended"] = [*run.extended, extension]
        self._write_config(document)

    def note_resumption(
        self, epoch: float, settings: Settings, device: str, processes: int = 1
    ) -> None:
        """Write down, and warn, if a training is resumed in another environment than before.

        Args:
            epoch: at which it is resumed; a fraction within an epoch.
            settings: of the run.
            device: on which it is resumed.
            processes: how many train together.
        """
        run = self.read()
        document, changes = run.config, run.resumed
        before = {**USUAL, **run.environment}
        for change in changes:
            before.update(change)
        now = {**USUAL, **environment(settings, device, processes)}
        differ = [k for k in DECIDES if k in before and before[k] != now.get(k)]
        if not differ:
            return
        changes.append({"epoch": epoch, **{key: now.get(key) for key in differ}})
        self._write_config({**document, "resumed": changes})
        said = "; ".join(f"{key} {before[key]} before, {now.get(key)} now" for key in differ)
        warn_user(
            f"{self.path} is resumed in another environment ({said}): it will not have the bits of "
            "a run that never stopped. config.json says so, too"
        )

    def _write_config(self, document: Mapping[str, Any]) -> None:
        write_atomically(self.config_path, (json.dumps(document, indent=2) + "\n").encode())

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
        """Remove a run without a finished epoch, and its folder if nothing else is in it."""
        for part in (self.last, self.best, self.tensorboard, self.wandb):
            shutil.rmtree(part, ignore_errors=True)
        files = (self.tracked_path, self.start_path, self.metrics_path, self.log_path)
        for file in (*files, self.config_path, self.path / LOCK):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def clear(self) -> None:
        """Remove what a kill left half-written. Call it only where nobody else trains here."""
        clear_unfinished(self.path)
        for folder in (self.last, self.best):
            checkpoint.clear(folder)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line; on a full disk the file stays as it was."""
        append_line(self.metrics_path, line)

    def append_tracked(self, line: Mapping[str, Any]) -> None:
        """Add one measurement; on a full disk the file stays as it was."""
        append_line(self.tracked_path, line)

    def write_start(self, line: Mapping[str, Any]) -> None:
        """Write how the network of another run, with which this one begins, did at the start."""
        write_atomically(self.start_path, json.dumps(line).encode() + b"\n")

    def keep_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Drop lines of epochs after the checkpoint; return the others.

        Raises:
            CheckpointError: if there are fewer epochs than in the checkpoint, or a line is damaged.
        """
        found = self.read().metrics
        if len(found) < epochs:
            raise CheckpointError(
                f"{self.metrics_path} is damaged: it does not hold epochs 1 to {epochs}, which the "
                "checkpoint has. Put the file back, or train again in another folder with --out"
            )
        kept = found[:epochs]
        if self.metrics_path.exists():
            write_lines(self.metrics_path, kept)
        return kept

    def keep_tracked(self, batches: int) -> list[dict[str, Any]]:
        """Drop measurements after this number of batches; return the others."""
        kept = [line for line in self.read().tracked if line["batches"] <= batches]
        if self.tracked_path.exists():
            write_lines(self.tracked_path, kept)
        return kept


def environment(
    settings: Settings | None = None, device: str | None = None, processes: int = 1
) -> dict[str, Any]:
    """Return what may change the numbers of a run, beside its settings.

    Args:
        settings: of a run, whose engine says on how many threads it computes.
        device: on which it is trained, if it is.
        processes: how many train together.
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
    special = {"processes": processes, "precision": torch.get_float32_matmul_precision()}
    found |= {key: value for key, value in special.items() if value != USUAL[key]}
    code = None if settings is None else code_digests(settings)
    if code:  # of users' own
        found["code"] = code
    return found if device is None else {**found, "device": device}
