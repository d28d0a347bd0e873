"""The reader of run folders: what was trained, how it went, what checkpoints there are.

This is the only reader of run folders: reports, grids, analyses and resumed trainings all see a run
through it, by one set of rules. The writer is `threefactor.training.folder.writer.RunFolder`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.readable import clipped
from threefactor.training.best import stopped_early
from threefactor.training.engines import engine_of
from threefactor.training.folder import checkpoint
from threefactor.training.folder.data_record import difference
from threefactor.training.folder.files import read_json, read_lines
from threefactor.training.scores import SCORES, Score
from threefactor.training.settings import Settings, make_settings

__all__ = ["Run", "RunFiles", "check_trained_with", "plain_settings"]

NUMBERS_OF_EPOCH = ("train_loss", "test_loss", "seconds")
ACCURACIES = ("train_accuracy", "test_accuracy")
VALIDATION = ("validation_loss", "validation_accuracy")
ADVICE = "Put the file back, or train again in another folder with --out"


class RunFiles:
    """Where the files of a run lie.

    Args:
        folder: of the run.

    Attributes:
        path: the folder.
        config_path: settings, environment, a record of the data, sizes of the layers.
        metrics_path: one line for each epoch.
        tracked_path: what was measured during training, one line for each moment.
        start_path: how the network of another run did, if this one began with it.
        last, best: folders of checkpoints.
        log_path: which loggers the run has, if any.
        tensorboard, wandb: folders of what loggers show.

    Raises:
        CheckpointError: if the path is empty, or not one that a system knows.
    """

    def __init__(self, folder: str | Path) -> None:
        if not (isinstance(folder, (str, Path)) and str(folder) and "\0" not in str(folder)):
            raise CheckpointError(
                f"the run folder is {clipped(folder)}, which names no folder; give a name, or . "
                "for the current folder"
            )
        self.path = Path(folder)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.tracked_path = self.path / "tracked.jsonl"
        self.start_path = self.path / "start.json"
        self.last = self.path / "last"
        self.best = self.path / "best"
        self.log_path = self.path / "log.json"
        self.tensorboard = self.path / "tensorboard"
        self.wandb = self.path / "wandb"

    def remains(self) -> list[str]:
        """Return the names of what is left of a run whose config.json is gone."""
        if self.config_path.exists():
            return []
        files = (self.metrics_path, self.tracked_path, self.start_path, self.log_path)
        logs = (self.tensorboard, self.wandb)
        folders = (self.last, self.best, self.path / "analysis", *logs)
        return [part.name for part in (*files, *folders) if part.exists()]


class Run(RunFiles):
    """What a run folder holds.

    Each file is read when it is first asked for, and not again: make a new `Run` to see what has
    changed since. Any property raises `CheckpointError` if its file is damaged. What a kill, a full
    disk or a copy of a part of the folder may leave is not damage; `problems` names it.

    Args:
        folder: of the run. It need not exist yet: then `config` raises.

    Example:
        >>> from threefactor import training
        >>> run = training.Run("runs/digits-fc-opzo-seed0")
        >>> run.checkpoints
        ()
    """

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            CheckpointError: if the folder holds no run.
        """
        try:
            document = read_json(self.config_path)
            for part in ("settings", "environment"):
                if not isinstance(document[part], dict):
                    raise TypeError(f"{part!r} is not an object")
        except (CheckpointError, OSError, KeyError, TypeError) as problem:
            left = self.remains()
            more = f"; of a run, {', '.join(left)} are there: put its config.json back"
            raise CheckpointError(
                f"{self.path} holds no run: config.json cannot be read ({problem})"
                f"{more if left else ''}"
            ) from problem
        return document  # type: ignore[no-any-return]

    @cached_property
    def settings(self) -> Settings:
        """The settings of the run.

        Raises:
            CheckpointError: if the folder holds no run.
            ConfigurationError: if these are not settings of this version.
        """
        try:
            return make_settings(self.config["settings"])
        except RecursionError as problem:
            raise CheckpointError(
                f"{self.path} holds no run: the settings in config.json are nested too deep"
            ) from problem

    @property
    def is_imported(self) -> bool:
        """Whether another program trained the network, so that there is no training to resume."""
        return "imported" in self.config

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, platform, threads, device and command with which the run began."""
        return self.config["environment"]  # type: ignore[no-any-return]

    @property
    def own_code(self) -> dict[str, Any]:
        """The parts and plugins of its user's own that it is made of, see `training.own_code`.

        What it says is text. Nothing of it is imported here.

        Raises:
            CheckpointError: if it is not such a record.
        """
        found = self.config.get("own_code", {})
        parts = found.get("parts", {}) if isinstance(found, dict) else None
        if not isinstance(parts, dict) or not all(_is_part(one) for one in parts.values()):
            raise CheckpointError(f"{self.config_path} is damaged: own_code is {found!r:.80}")
        return found  # type: ignore[no-any-return]

    @property
    def code(self) -> Any:
        """Digests of this code, as of the last resumption."""
        found = self.environment.get("code")
        for change in self.resumed:
            found = change.get("code", found)
        return found

    @property
    def resumed(self) -> list[dict[str, Any]]:
        """What changed in the environment, with the epoch, each time the run was resumed."""
        changes = self.config.get("resumed", [])
        if not isinstance(changes, list) or not all(
            isinstance(change, dict) and _finite(change.get("epoch")) for change in changes
        ):
            raise CheckpointError(f"{self.config_path} is damaged: resumed is {changes!r:.80}")
        return changes

    @property
    def extended(self) -> list[dict[str, Any]]:
        """Each time that the run got more epochs: after which `epoch`, how many `epochs` in all."""
        found = self.config.get("extended", [])
        if not isinstance(found, list) or not all(
            isinstance(one, dict) and _whole(one.get("epoch")) and _whole(one.get("epochs"))
            for one in found
        ):
            raise CheckpointError(f"{self.config_path} is damaged: extended is {found!r:.80}")
        return found

    def extension(self, epochs: int) -> dict[str, int]:
        """Return the entry of `extended` with which a finished run gets more epochs.

        Args:
            epochs: how many in all.

        Raises:
            CheckpointError: if the run is not finished, or has as many epochs already.
        """
        done, finished = self.settings.epochs, self.finished_epochs
        if epochs <= done:
            raise CheckpointError(
                f"{self.path} has {done} epochs, and {epochs} are asked for; give more than {done}"
            )
        if not self.finished or finished < len(self.metrics):
            raise CheckpointError(
                f"{self.path} has finished {finished} of {done} epochs; finish it with --resume, "
                "and give it more epochs then"
            )
        if finished < done:
            raise CheckpointError(
                f"{self.path} stopped after {finished} of {done} epochs, as its settings say "
                "(stopping); train on from its weights in another folder, with --set start=RUN"
            )
        return {"epoch": done, "epochs": epochs}

    @property
    def precision(self) -> str | None:
        """The precision of products with which the run was last trained; None for the usual."""
        found = self.environment.get("precision")
        for change in self.resumed:
            found = change.get("precision", found)
        return found if isinstance(found, str) else None

    @property
    def threads(self) -> int | None:
        """On how many threads the run was last trained; None if that is not known."""
        found = self.environment.get("threads")
        for change in self.resumed:
            found = change.get("threads", found)
        return found if type(found) is int and 1 <= found <= 4096 else None

    @property
    def layer_sizes(self) -> dict[str, int]:
        """Number of neurons of each hidden layer, by name; empty if config.json does not say."""
        sizes = self.config.get("layer_sizes", {})
        if not isinstance(sizes, dict) or not all(map(_whole, sizes.values())):
            raise CheckpointError(f"{self.config_path} is damaged: layer_sizes is {sizes!r:.80}")
        return sizes

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of the finished epochs, in order.

        Line n is that of epoch n. It has finite losses and seconds, accuracies of 0 to 1 or None,
        and the firing rates of the same layers as all lines. A last line that was cut short is left
        out, since a kill or a full disk may do that; it is in `problems`.

        Raises:
            CheckpointError: names the first line that is damaged, repeated or missing.
        """
        return self._metrics[0]

    @cached_property
    def _metrics(self) -> tuple[list[dict[str, Any]], str]:
        found, torn = read_lines(self.metrics_path)
        for number, line in enumerate(found, start=1):
            for what in _wrong_in_epoch(line, number, found[0]):
                raise CheckpointError(
                    f"line {number} of {self.metrics_path} is damaged: {what}. {ADVICE}"
                )
        return found, torn

    @property
    def tracked(self) -> list[dict[str, Any]]:
        """What was measured during training, one moment after the other.

        A last line that was cut short is left out; it is in `problems`.

        Raises:
            CheckpointError: names a line that does not say after how many batches and epochs it was
                measured, or does not come after the one before it.
        """
        return self._tracked[0]

    @cached_property
    def _tracked(self) -> tuple[list[dict[str, Any]], str]:
        found, torn = read_lines(self.tracked_path)
        before = -1
        for number, line in enumerate(found, start=1):
            what = None
            if not (_whole(line.get("batches")) and _finite(line.get("epoch"))):
                what = "it does not say when it was measured"
            elif line["batches"] <= before:
                what = "it was not measured after the one before it"
            if what is not None:
                raise CheckpointError(
                    f"line {number} of {self.tracked_path} is damaged: {what}. {ADVICE}"
                )
            before = line["batches"]
        return found, torn

    @cached_property
    def start(self) -> dict[str, Any] | None:
        """How the network of another run did before the first epoch; None if it began with none.

        Raises:
            CheckpointError: if the file cannot be read, or holds something else.
        """
        try:
            found = read_json(self.start_path)
        except FileNotFoundError:
            return None
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.start_path} is damaged: it does not hold an object")
        if "test_accuracy" not in found or not _share(found["test_accuracy"]):
            accuracy = found.get("test_accuracy", "missing")
            raise CheckpointError(
                f"{self.start_path} is damaged: test_accuracy is {accuracy!r:.80}"
            )
        return found

    @cached_property
    def log(self) -> dict[str, dict[str, Any]]:
        """The loggers of the run by name: the `id` of its log, how many `epochs` that was given.

        Raises:
            CheckpointError: if log.json is damaged.
        """
        try:
            found = read_json(self.log_path)
        except FileNotFoundError:
            return {}
        entries: list[Any] = list(found.values()) if isinstance(found, dict) else [None]
        for one in entries:
            known = isinstance(one, dict) and _whole(one.get("epochs"))
            if not (known and isinstance(one.get("id"), str | None)):
                raise CheckpointError(f"{self.log_path} is damaged: it holds {one!r:.80}")
        return found  # type: ignore[no-any-return]

    @property
    def finished(self) -> bool:
        """Whether there are metrics of all epochs, or the training was to stop before."""
        settings = self.settings
        enough = len(self.metrics) == settings.epochs
        return enough or stopped_early(self.metrics, settings.stopping)

    @property
    def finished_epochs(self) -> int:
        """How many epochs have both a metrics line and the checkpoint after them.

        A kill or a full disk may come between the two. Whoever used the network then would use that
        of the epoch before. Of the tensors of the checkpoint, only the size of their file is read.

        Raises:
            CheckpointError: if the last checkpoint or the metrics are damaged.
        """
        if not checkpoint.exists(self.last):
            return 0
        state = checkpoint.load_state(self.last, tensors=False)
        epoch: Any = state.get("epoch") if isinstance(state, dict) else None
        if not _whole(epoch):
            raise CheckpointError(f"{self.last} is damaged: its epoch is {epoch!r:.80}")
        return min(int(epoch), len(self.metrics))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Which of the checkpoints "last" and "best" are there."""
        return tuple(part.name for part in (self.last, self.best) if checkpoint.exists(part))

    def checkpoint(self, name: str = "last", *, tensors: bool = True) -> Any:
        """Return the state of a checkpoint that was made with the settings of the run.

        Args:
            name: "last" or "best".
            tensors: whether to read them; else None stands for each.

        Raises:
            CheckpointError: if it is absent, damaged, or was made with settings that config.json
                does not hold any more.
        """
        state = checkpoint.load_state(self.path / name, tensors=tensors)
        check_trained_with(self.path, state, self.settings, self.extended)
        return state

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What is not as a finished training leaves it, in words; a report refuses such a run.

        Lines that were cut short, metrics that are missing or of more epochs than the settings
        have, and a last checkpoint that was made with other settings. A run can be resumed in spite
        of the cut lines, and reported without its checkpoints.
        """
        found = []
        if not self.metrics_path.exists():
            found.append("metrics.jsonl cannot be read: it is missing")
        found += [torn for _, torn in (self._metrics, self._tracked) if torn]
        if len(self.metrics) > self.settings.epochs:
            found.append(
                f"metrics.jsonl has {len(self.metrics)} epochs, and config.json says "
                f"{self.settings.epochs}"
            )
        try:
            state = checkpoint.load_state(self.last, tensors=False)
        except CheckpointError:  # a copy of a run that is only reported needs no checkpoints
            return tuple(found)
        try:
            check_trained_with(self.path, state, self.settings, self.extended)
        except CheckpointError as problem:
            found.append(str(problem))
        return tuple(found)

    def differences(self, settings: Settings) -> str:
        """Say how settings differ from those of the run; an empty string if they do not.

        Raises:
            ConfigurationError: if they are not valid settings.
        """
        engine_of(settings)
        there, asked = plain_settings(self.settings), plain_settings(settings)
        return _differences(there, asked, "there", "asked")

    def check_settings(self, settings: Settings) -> None:
        """Refuse settings other than those of the run.

        Raises:
            CheckpointError: names those that differ.
        """
        differ = self.differences(settings)
        if differ:
            raise CheckpointError(
                f"{self.path} is a run of another configuration ({differ}); "
                "resume it with its own settings, or choose another folder with --out"
            )

    def check_start(self, start: Mapping[str, str] | None) -> None:
        """Refuse other weights to begin with than those that the run began with.

        Args:
            start: file and digest, from `Experiment.start`.

        Raises:
            CheckpointError: if the file was changed since.
        """
        there = self.config.get("start")
        if there is not None and there != start:
            raise CheckpointError(
                f"{self.path} began with the weights of {there!r:.200}, and that file was changed "
                "since; put it back, or train again in another folder with --out"
            )

    def data_difference(self, record: Mapping[str, Any]) -> str | None:
        """Say how samples differ from those of the run; None if they do not, or is not known.

        Args:
            record: of the samples, from `describe_data`.

        Raises:
            CheckpointError: if the record of the run is damaged.
        """
        return difference(self.config.get("data"), record)

    def check_data(self, record: Mapping[str, Any]) -> None:
        """Refuse samples other than those of the run, if config.json says which it had.

        Args:
            record: of the samples, from `describe_data`.

        Raises:
            CheckpointError: says in what they differ.
        """
        differ = self.data_difference(record)
        if differ is not None:
            raise CheckpointError(
                f"{self.path} was trained on other data than what was found ({differ}); name the "
                "folder of its data with --data-dir, or train again in another folder with --out"
            )


def check_trained_with(
    where: Path, state: Any, settings: Settings, extended: Sequence[Mapping[str, Any]] = ()
) -> int:
    """Refuse the state of a checkpoint that was made with other settings.

    Args:
        where: the folder of the run or of the checkpoint.
        state: out of the checkpoint, which may hold anything.
        settings: of the run.
        extended: when it got more epochs; a checkpoint may be older than that.

    Returns:
        The number of epochs for which the checkpoint was made.

    Raises:
        CheckpointError: names the settings, or says that there are none in the checkpoint.
    """
    try:
        there = make_settings(state["settings"])  # younger settings had their defaults
    except (ConfigurationError, KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"the checkpoint in {where} is damaged: it does not say its settings ({problem})"
        ) from problem
    if there.epochs in [one["epoch"] for one in extended]:
        settings = dataclasses.replace(settings, epochs=there.epochs)
    then, now = plain_settings(there), plain_settings(settings)
    differ = _differences(then, now, "when it was trained", "now")
    if differ:
        raise CheckpointError(
            f"the checkpoint in {where} was made with other settings ({differ}); put config.json "
            "back as it was, or train with the new settings in a folder of its own"
        )
    return there.epochs


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return settings by full name ("network.dropout"), as plain values of JSON.

    Options of the rule that the settings do not name, because they are younger than the settings,
    have their defaults.
    """
    found = dict(_leaves(json.loads(json.dumps(dataclasses.asdict(settings)))))
    try:
        options = engine_of(settings).rule_defaults(settings.rule.name)
    except ConfigurationError:  # a rule of the user's own that is not registered here
        return found
    return {**{f"rule.options.{key}": value for key, value in options.items()}, **found}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], there: str, here: str) -> str:
    return "; ".join(
        f"{key}: {old.get(key)!r:.100} {there}, {new.get(key)!r:.100} {here}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def _wrong_in_epoch(line: Mapping[str, Any], epoch: int, first: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong in the metrics of an epoch."""
    if type(line.get("epoch")) is not int or line["epoch"] != epoch:
        yield f"it is not that of epoch {epoch}; its epoch is {line.get('epoch')!r:.80}"
    for name in NUMBERS_OF_EPOCH:
        if not _finite(line.get(name)):
            yield f"{name} is {line.get(name)!r:.80}, not a finite number"
    for name in ACCURACIES:
        if name not in line or not _share(line[name]):
            yield f"{name} is {line.get(name, 'missing')!r:.80}, not a share"
    held = [name for name in VALIDATION if name in line]
    if held or any(name in first for name in VALIDATION):
        if not _finite(line.get("validation_loss")):
            yield f"validation_loss is {line.get('validation_loss')!r:.80}, not a finite number"
        if "validation_accuracy" not in line or not _share(line["validation_accuracy"]):
            accuracy = line.get("validation_accuracy", "missing")
            yield f"validation_accuracy is {accuracy!r:.80}, not a share"
    for name, value in line.items():
        score = SCORES.get(name.partition("_")[2])
        if score is not None and score.name != "accuracy" and not _is_score(score, value):
            yield f"{name} is {value!r:.80}, not a {'share' if score.fraction else 'number'}"
    others = {name for name in line if name.partition("_")[2] in SCORES}
    if others != {name for name in first if name.partition("_")[2] in SCORES}:
        yield "it has other scores than the first line"
    rates = line.get("firing_rates")
    if not isinstance(rates, dict) or not all(map(_finite, rates.values())):
        yield f"firing_rates is {rates!r:.80}, not finite numbers by layer"
    elif rates.keys() != first["firing_rates"].keys():
        yield "it has firing rates of other layers than the first line"


def _is_part(value: Any) -> bool:
    """Whether a value describes a part of a user's own: texts by name."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and all(one is None or isinstance(one, str) for one in value.values())
    )


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_score(score: Score, value: Any) -> bool:
    return _share(value) if score.fraction else value is None or _finite(value)


def _share(value: Any) -> bool:
    return value is None or (_finite(value) and 0 <= value <= 1)


def _finite(value: Any) -> bool:
    """Whether a value is a finite number, of a size that numbers of a training have."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
