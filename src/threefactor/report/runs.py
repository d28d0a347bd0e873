"""A run as reports see it: what was read from its folder, and the numbers that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.training.best import chosen_by, is_better, stopped_early
from threefactor.training.folder.data_record import difference
from threefactor.training.folder.run import Run
from threefactor.training.scores import LOSS, SCORES, Score, leading
from threefactor.training.settings import Settings
from threefactor.version import __version__

__all__ = ["ReportedRun", "has_effect", "read_run"]

MEASURED = {"alignment": ("angle",), "feedback": ("angle", "cosine"), "firing": ("rate",)}
"""Numbers of every layer that are shown of what was measured during training."""


@dataclass(frozen=True)
class ReportedRun:
    """One run as it is reported.

    Attributes:
        path: its folder.
        settings: all settings.
        environment: versions, platform, threads, command.
        history: the metrics of its epochs; at least one.
        layer_sizes: number of neurons of each hidden layer, by name; empty if it is not known.
        tracked: what was measured during training, moment by moment.
        start: how the network of another run did before the first epoch, if the run began with one.
        resumed: what changed in the environment, and at which epoch.
        own_code: parts and plugins of its user's own, see `Run.own_code`.
        code: digests of this code, as of the last resumption.
        data: the record of its samples, see `describe_data`; None if there is none.
        extended: each time that it got more epochs, see `Run.extended`.
    """

    path: Path
    settings: Settings
    environment: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    layer_sizes: Mapping[str, int] = field(default_factory=dict)
    tracked: Sequence[Mapping[str, Any]] = ()
    start: Mapping[str, Any] | None = None
    resumed: Sequence[Mapping[str, Any]] = ()
    own_code: Mapping[str, Any] = field(default_factory=dict)
    code: Any = None
    data: Mapping[str, Any] | None = None
    extended: Sequence[Mapping[str, Any]] = ()

    @property
    def direct(self) -> float | None:
        """Test accuracy before the first epoch, a fraction; None if it began with no network."""
        return None if self.start is None else self.start["test_accuracy"]

    @property
    def own_parts(self) -> Mapping[str, Mapping[str, str | None]]:
        """The rule, network, data, loss and recipe of its user's own, each with name and class."""
        parts: Mapping[str, Mapping[str, str | None]] = self.own_code.get("parts", {})
        return parts

    @property
    def finished(self) -> bool:
        enough = len(self.history) == self.settings.epochs
        return enough or stopped_early(self.history, self.settings.stopping)

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
        """Highest test accuracy of all epochs, a fraction: biased, since test data chose it."""
        found = [e["test_accuracy"] for e in self.history if e["test_accuracy"] is not None]
        return max(found, default=None)

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the highest test accuracy."""
        best = self.best
        if best is None:
            return None
        return next(int(e["epoch"]) for e in self.history if e["test_accuracy"] == best)

    @property
    def chosen(self) -> float | None:
        """Test accuracy of the first epoch that was the best on validation data, a fraction.

        None without validation data or without an accuracy.
        """
        line = self.chosen_line
        return None if line is None else line["test_accuracy"]

    @property
    def chosen_line(self) -> Mapping[str, Any] | None:
        """The metrics of the first epoch that was the best on validation data, if there are any."""
        if not self.history or "validation_loss" not in self.history[0]:
            return None
        best, found = None, None
        for line in self.history:
            metric = chosen_by(line)
            if is_better(metric, line[metric], best):
                best, found = line[metric], line
        return found

    @property
    def score(self) -> Score:
        """What its predictions are judged by on test data; the loss if there is nothing else."""
        return SCORES.get(leading(self.history[-1], "test"), LOSS)

    def best_of(self, score: Score) -> float | None:
        """Return the best value of a score on test data: biased, since test data chose it."""
        found = [line.get(f"test_{score.name}") for line in self.history]
        values = [one for one in found if one is not None]
        return (max if score.higher else min)(values, default=None)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all epochs, s."""
        return math.fsum(float(line["seconds"]) for line in self.history)


def read_run(path: str | Path) -> ReportedRun:
    """Read a run folder for a report; checkpoints are not needed.

    Raises:
        CheckpointError: if there is no run, this version cannot read it, its metrics or
            measurements are damaged, or its checkpoint was made with other settings.
    """
    run = Run(path)
    try:
        settings = run.settings
    except ConfigurationError as problem:
        version = run.environment.get("threefactor", "unknown")
        raise CheckpointError(
            f"it was made by threefactor {version}, and {__version__} cannot read its settings "
            f"({problem}); report it with the version that made it"
        ) from problem
    if run.problems:
        raise CheckpointError("; ".join(run.problems))
    if not run.metrics:
        raise CheckpointError("it has no finished epoch yet")
    record = run.config.get("data")
    difference(record, record or {})  # refuses one that is damaged
    if len({frozenset(_measured(line)) for line in run.tracked}) > 1:
        raise CheckpointError("tracked.jsonl has other measures or layers at other moments")
    return ReportedRun(
        path=run.path,
        settings=settings,
        environment=run.environment,
        history=run.metrics,
        layer_sizes=run.layer_sizes,
        tracked=run.tracked,
        start=run.start,
        resumed=run.resumed,
        own_code=run.own_code,
        code=run.code,
        data=record,
        extended=run.extended,
    )


def has_effect(setting: str) -> bool:
    """Whether a setting, by full name, has an effect on metrics and weights: tracking has none."""
    return setting.partition(".")[0] != "track"


def _measured(line: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Give what was measured at a moment: measure, kind and layer of all numbers.

    Raises:
        CheckpointError: if there is something other than numbers, or None with a note.
    """
    for measure in MEASURED.keys() & line.keys():
        kinds = line[measure] if measure == "alignment" else {"": line[measure]}
        for kind, layers in _object(kinds, measure).items():
            for layer, entry in _object(layers, measure).items():
                for key in MEASURED[measure]:
                    value = _object(entry, f"{measure} of {layer}").get(key, "absent")
                    noted = value is None and isinstance(entry.get("note"), str)
                    number = type(value) in (int, float) and abs(value) < 1e300
                    if not (noted or number):
                        raise CheckpointError(
                            f"tracked.jsonl is damaged: {key} of {layer} is {value!r:.60}"
                        )
                yield measure, kind, layer


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"tracked.jsonl is damaged: {name} is {value!r:.60}, not an object")
    return value
