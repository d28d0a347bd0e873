"""Finished runs, read from their folders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.training import checkpoint
from threefactor.training.engines import engine_of
from threefactor.training.files import parse_json, read_bytes
from threefactor.training.lines import MOST_BYTES
from threefactor.training.run_folder import RunFolder, flat
from threefactor.training.settings import Settings
from threefactor.version import __version__

__all__ = ["Run", "has_effect", "plain_settings", "read_run"]

_NUMBERS = ("train_loss", "test_loss", "seconds")
MEASURED = {"alignment": ("angle",), "feedback": ("angle", "cosine"), "firing": ("rate",)}
"""Numbers of every layer that are shown of what was measured while training."""
_ACCURACIES = ("train_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Run:
    """One run as it is reported.

    Attributes:
        path: its folder.
        settings: all of them.
        environment: versions, platform, threads, command.
        history: the metrics of its epochs.
        tracked: what was measured while it trained, moment by moment.
        start: how the network of another run did before the first epoch, if it began with one.
        resumed: what of the environment became another one, and at which epoch.
    """

    path: Path
    settings: Settings
    environment: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    tracked: tuple[Mapping[str, Any], ...] = ()
    start: Mapping[str, Any] | None = None
    resumed: tuple[Mapping[str, Any], ...] = ()

    @property
    def direct(self) -> float | None:
        """Test accuracy before the first epoch, a fraction; None if it began with no network."""
        return None if self.start is None else self.start["test_accuracy"]

    @property
    def finished(self) -> bool:
        return len(self.history) == self.settings.epochs

    @property
    def last(self) -> float | None:
        """Test accuracy after the last epoch, a fraction; None where there is no accuracy."""
        return self.history[-1]["test_accuracy"]  # type: ignore[no-any-return]

    @property
    def threads(self) -> list[str]:
        """The numbers of threads that it was trained on."""
        found = [part["threads"] for part in (self.environment, *self.resumed) if "threads" in part]
        return sorted({str(number) for number in found}) or ["?"]

    @property
    def best(self) -> float | None:
        """Highest test accuracy of all epochs, a fraction: biased, it is chosen by test data."""
        found = [e["test_accuracy"] for e in self.history if e["test_accuracy"] is not None]
        return max(found, default=None)

    @property
    def best_epoch(self) -> int | None:
        """The first epoch that had it."""
        best = self.best
        if best is None:
            return None
        return next(int(e["epoch"]) for e in self.history if e["test_accuracy"] == best)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all epochs, s."""
        return math.fsum(float(line["seconds"]) for line in self.history)


def read_run(path: str | Path) -> Run:
    """Read a run folder; checkpoints are not needed.

    Raises:
        CheckpointError: if there is no run, it is of a version that this one cannot read, its
            metrics or measurements are damaged, or its checkpoint is there and of other settings.
    """
    folder = RunFolder(path)
    config = folder.config()
    environment = config["environment"]
    try:
        settings = folder.settings()
    except ConfigurationError as problem:
        version = environment.get("threefactor", "unknown")
        raise CheckpointError(
            f"it was made by threefactor {version}, and {__version__} cannot read its settings "
            f"({problem}); report it with the version that made it"
        ) from problem
    history = _history(folder)
    if len(history) > settings.epochs:
        raise CheckpointError(
            f"metrics.jsonl has {len(history)} epochs, and config.json says {settings.epochs}"
        )
    try:
        state = checkpoint.load_state(folder.last, tensors=False)
    except CheckpointError:  # whoever copies runs to report them leaves the checkpoints out
        pass
    else:
        folder.check_trained_with(state)
    tracked, resumed = _tracked(folder), tuple(folder.resumptions())
    return Run(folder.path, settings, environment, history, tracked, _start(folder), resumed)


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return settings flat, by full name, with the defaults of options that are younger."""
    found = flat(settings)
    try:
        options = engine_of(settings).rule_options(settings.rule.name)
    except ConfigurationError:  # a rule of one's own: its options are as they are
        return found
    defaults = {f"rule.options.{key}": value for key, value in options.items()}
    return {**defaults, **found}


def has_effect(setting: str) -> bool:
    """Whether a setting, by full name, has an effect on metrics and weights: tracking has none."""
    return setting.partition(".")[0] != "track"


def _history(folder: RunFolder) -> tuple[Mapping[str, Any], ...]:
    try:
        texts = read_bytes(folder.metrics_path, MOST_BYTES).decode().splitlines()
    except (CheckpointError, OSError, UnicodeDecodeError) as problem:
        raise CheckpointError(f"metrics.jsonl cannot be read ({problem})") from problem
    if not texts:
        raise CheckpointError("it has no finished epoch yet")
    lines = tuple(_line(text, epoch) for epoch, text in enumerate(texts, start=1))
    if any(line["firing_rates"].keys() != lines[0]["firing_rates"].keys() for line in lines):
        raise CheckpointError("metrics.jsonl has firing rates of other layers in other epochs")
    return lines


def _tracked(folder: RunFolder) -> tuple[Mapping[str, Any], ...]:
    lines = tuple(folder.tracked())
    moments = [line["batches"] for line in lines]
    if moments != sorted(set(moments)):
        raise CheckpointError("tracked.jsonl does not hold one moment after the other")
    if len({frozenset(_measured(line)) for line in lines}) > 1:
        raise CheckpointError("tracked.jsonl has other measures or layers at other moments")
    return lines


def _measured(line: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Give what was measured at a moment: measure, kind and layer of all numbers.

    Raises:
        CheckpointError: if there is something else than numbers, or None with a note.
    """
    for measure in MEASURED.keys() & line.keys():
        kinds = line[measure] if measure == "alignment" else {"": line[measure]}
        for kind, layers in _object(kinds, measure).items():
            for layer, entry in _object(layers, measure).items():
                for key in MEASURED[measure]:
                    value = _object(entry, f"{measure} of {layer}").get(key, "absent")
                    noted = value is None and isinstance(entry.get("note"), str)
                    if not (noted or _number(value)):
                        raise CheckpointError(
                            f"tracked.jsonl is damaged: {key} of {layer} is {value!r:.60}"
                        )
                yield measure, kind, layer


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"tracked.jsonl is damaged: {name} is {value!r:.60}, no object")
    return value


def _start(folder: RunFolder) -> Mapping[str, Any] | None:
    try:
        line = folder.start()
        ok = line is None or _share(line["test_accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise CheckpointError(f"start.json cannot be read ({problem!r})") from problem
    if not ok:
        raise CheckpointError("start.json holds a number that is not finite")
    return line


def _line(text: str, epoch: int) -> Mapping[str, Any]:
    try:
        line = parse_json(text)
        ok = line["epoch"] == epoch and all(_number(line[name]) for name in _NUMBERS)
        ok = ok and all(_share(line[name]) for name in _ACCURACIES)
        ok = ok and all(_number(rate) for rate in line["firing_rates"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(
            f"line {epoch} of metrics.jsonl is cut short or damaged ({problem!r})"
        ) from problem
    if not ok:
        raise CheckpointError(
            f"line {epoch} of metrics.jsonl is not that of epoch {epoch}, or holds a number that "
            "is not finite, or an accuracy that is no share"
        )
    return line  # type: ignore[no-any-return]


def _number(value: Any) -> bool:
    """Whether a value is a finite number, of a size that numbers of a training have."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _share(value: Any) -> bool:
    """Whether a value is an accuracy, or None, where there is none."""
    return value is None or (_number(value) and 0 <= value <= 1)
