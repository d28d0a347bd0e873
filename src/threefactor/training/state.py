"""The state of a training: taken from live objects into a checkpoint, and put back."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from threefactor.errors import CheckpointError, ThreefactorError
from threefactor.training.best import METRICS, chosen_by, is_better
from threefactor.training.evaluation import Sums
from threefactor.training.experiment import Experiment
from threefactor.training.folder import checkpoint
from threefactor.training.folder.files import shorten
from threefactor.training.scores import Tally
from threefactor.training.settings import Settings

__all__ = ["TOO_EARLY", "Progress", "Schedule", "put_back", "training_state"]

PARTS = ("network", "rule", "optimizer", "scheduler", "random")
NUMBERS = (bool, int, float)
TOO_EARLY = "Detected call of `lr_scheduler"
"""Begins PyTorch's warning of a scheduler whose optimiser made no step in this process."""


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: how many are done.
        best_by: the metric that chooses the checkpoint `best`, see `best.chosen_by`.
        best: its value in the best epoch so far; None before the first.
        sums: of the epoch that is under way.
    """

    epoch: int = 0
    best_by: str = "test_accuracy"
    best: float | None = None
    sums: Sums = field(default_factory=Sums)

    def is_better(self, line: Mapping[str, Any]) -> bool:
        """Take in the metrics of a finished epoch; say whether it is the best so far."""
        self.best_by = chosen_by(line)
        value = float(line[self.best_by])
        if not is_better(self.best_by, value, self.best):
            return False
        self.best = value
        return True


def training_state(
    experiment: Experiment, settings: Settings, progress: Progress
) -> dict[str, Any]:
    """Return everything that the rest of a run depends on, and the settings of the run."""
    scheduler = experiment.scheduler
    return {
        "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
        "network": dict(experiment.network.state_dict()),
        "rule": dict(experiment.rule.state_dict()),
        "optimizer": experiment.optimizer.state_dict(),
        "scheduler": None if scheduler is None else _plain_state(scheduler.state_dict()),
        "random": checkpoint.random_state(),
        **asdict(progress),
    }


def put_back(experiment: Experiment, state: Any, batches: int, where: Path) -> Progress:
    """Give the state of a checkpoint to live objects; return how far the training was.

    Args:
        experiment: of the same settings as that of the checkpoint.
        state: out of the checkpoint, which may hold anything.
        batches: of an epoch.
        where: the checkpoint, for errors.

    Raises:
        CheckpointError: if it does not fit; names what.
    """
    try:
        progress = _progress(state, experiment.settings.epochs, batches)
        network, rule, optimizer, scheduler = (state[part] for part in PARTS[:-1])
        checkpoint.check_tensors(experiment.network.state_dict(), network)
        checkpoint.check_tensors(experiment.rule.state_dict(), rule)
        _check_scheduler(experiment, scheduler)
        experiment.optimizer.load_state_dict(_checked_groups(experiment.optimizer, optimizer))
        _check_optimizer(experiment.optimizer)
        experiment.rule.load_state_dict(rule)
        experiment.network.load_state_dict(network)
        if experiment.scheduler is not None:
            experiment.scheduler.load_state_dict(scheduler)
        checkpoint.set_random_state(state["random"])
    except ThreefactorError as problem:
        raise CheckpointError(f"{where} does not fit this run: {problem}") from problem
    except Exception as problem:  # rules and optimisers of any kind fail in any way
        why = f"{type(problem).__name__}: {shorten(problem)}"
        raise CheckpointError(f"{where} does not fit this run: {why}") from problem
    return progress


class Schedule:
    """The schedule of an experiment as it was made, before the state of a checkpoint is put back.

    Args:
        experiment: just made.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._groups = [_options(group) for group in experiment.optimizer.param_groups]
        scheduler = experiment.scheduler
        self._state = (
            None if scheduler is None else copy.deepcopy(_plain_state(scheduler.state_dict()))
        )

    def go_to(self, epoch: int) -> tuple[float, float]:
        """Take the schedule, and the options it changes, to where they are after some epochs.

        Returns:
            The learning rate before, and now.
        """
        optimizer, scheduler = self.experiment.optimizer, self.experiment.scheduler
        before = float(optimizer.param_groups[0]["lr"])
        if scheduler is None or isinstance(scheduler, ReduceLROnPlateau):
            return before, before  # it goes by losses, whatever the number of epochs
        for group, options in zip(optimizer.param_groups, self._groups, strict=True):
            group.update(options)
        scheduler.load_state_dict(copy.deepcopy(self._state or {}))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", TOO_EARLY, UserWarning)
            for _ in range(epoch):
                scheduler.step()
        return before, float(optimizer.param_groups[0]["lr"])


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}


def _progress(state: Any, epochs: int, batches: int) -> Progress:
    epoch, by, best = (state[key] for key in ("epoch", "best_by", "best"))
    if type(epoch) is not int or not 0 <= epoch <= epochs:
        raise ValueError(f"epoch is {epoch!r:.80}, of {epochs}")
    if by not in METRICS:
        raise ValueError(f"best_by is {by!r:.80}")
    if best is not None:
        _check_number("best", best)
    sums = Sums(**state["sums"])
    if sums.tally is not None:
        sums.tally = Tally(**state["sums"]["tally"])
        for problem in sums.tally.damage():
            raise ValueError(problem)
    for name in ("batch", "samples", "loss", "seconds"):
        value = getattr(sums, name)
        _check_number(name, value)
        whole = name in ("batch", "samples")
        if (whole and type(value) is not int) or (name != "loss" and value < 0):
            raise ValueError(f"{name} is {value!r:.80}")
    if sums.batch > batches:
        raise ValueError(f"batch is {sums.batch}, of {batches}")
    if sums.correct is not None and not (
        type(sums.correct) is int and 0 <= sums.correct <= sums.samples
    ):
        raise ValueError(f"correct is {sums.correct!r:.80}, of {sums.samples} samples")
    for rates in (sums.spikes, sums.capped):
        for layer, number in dict(rates).items():
            if not isinstance(layer, str):
                raise ValueError(f"{layer!r:.80} is not the name of a layer")
            _check_number(layer, number)
    return Progress(epoch, by, best, sums)


def _check_number(name: str, value: Any) -> None:
    """Refuse what is not a finite number, or too large for a float."""
    if type(value) not in (int, float) or not abs(value) < 1e300 or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.80}, not a finite number")


def _checked_groups(optimizer: torch.optim.Optimizer, state: Any) -> Any:
    """Refuse options of an optimiser of other types than those it has, or not finite."""
    groups = state["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"{len(groups)} groups of parameters")
    for here, there in zip(optimizer.param_groups, groups, strict=True):
        _check_alike("optimizer", {k: v for k, v in here.items() if k != "params"}, there)
        numbers = there["params"]
        if len(numbers) != len(here["params"]) or not all(type(n) is int for n in numbers):
            raise ValueError("the optimiser's groups have other parameters")
    if not isinstance(state["state"], dict):
        raise ValueError(f"the state of the optimiser is {state['state']!r:.80}")
    return state


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Refuse a state of an optimiser that is not finite, or of other shapes than its parameters.

    What `torch.optim` keeps of a parameter is a number, or can be stretched to its shape.
    """
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if not isinstance(value, Tensor):
                continue
            checkpoint.check_finite(name, value)
            ours = type(optimizer).__module__.startswith("torch.optim")
            if ours and value.numel() > 1 and not _stretches(value, parameter):
                raise ValueError(
                    f"{name} of the optimiser has shape {tuple(value.shape)}, for parameters of "
                    f"shape {tuple(parameter.shape)}"
                )


def _stretches(value: Tensor, parameter: Tensor) -> bool:
    sizes = zip(reversed(value.shape), reversed(parameter.shape), strict=False)
    return value.dim() <= parameter.dim() and all(one in (1, size) for one, size in sizes)


def _check_scheduler(experiment: Experiment, state: Any) -> None:
    scheduler = experiment.scheduler
    if scheduler is None:
        if state is not None:
            raise ValueError("the checkpoint has a scheduler, the experiment none")
        return
    here = _plain_state(scheduler.state_dict())
    if not isinstance(state, Mapping) or set(state) != set(here):
        raise ValueError("the state in the checkpoint is that of another scheduler")
    _check_alike("scheduler", here, state)


def _check_alike(what: str, here: Mapping[str, Any], there: Any) -> None:
    """Refuse plain values of other types than the current ones."""
    for key, value in here.items():
        found = there[key]
        kinds = (type(value), *(NUMBERS if isinstance(value, NUMBERS) else ()))
        if value is not None and found is not None and not isinstance(found, kinds):
            raise ValueError(f"{key} of the {what} is {found!r:.80}, before {value!r:.80}")
        if (value is None or found is None) and isinstance(found, (dict, str)):
            raise ValueError(f"{key} of the {what} is {found!r:.80}")
        for number in _numbers(found):
            if math.isnan(number):
                raise ValueError(f"{key} of the {what} is not a number")


def _numbers(value: Any) -> Iterator[float]:
    if type(value) is float:
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)


def _plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a scheduler keeps beside its state, such as wrapped functions."""
    plain = (bool, int, float, str, list, dict, tuple, type(None), Tensor)
    return {key: value for key, value in state.items() if isinstance(value, plain)}
