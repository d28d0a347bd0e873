"""From settings to live objects: data, network, rule, optimiser, scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from threefactor.clocked import LinearSchedule
from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.readable import clipped
from threefactor.training import checkpoint
from threefactor.training.engines import DTYPES, Engine, engine_of
from threefactor.training.memory import check_memory, in_memory
from threefactor.training.optimizers import call, make_optimizer, make_scheduler
from threefactor.training.run_folder import RunFolder
from threefactor.training.settings import RuleSettings, Settings

__all__ = ["Experiment", "begin", "build", "option_names"]


@dataclass
class Experiment:
    """The live objects of one experiment."""

    settings: Settings
    data: Any
    network: nn.Module
    rule: Any
    optimizer: torch.optim.Optimizer
    scheduler: lr_scheduler.LRScheduler | None

    @property
    def engine(self) -> Engine:
        """What makes and runs networks of the settings' kind."""
        return engine_of(self.settings)

    @property
    def layer_sizes(self) -> dict[str, int]:
        """Number of neurons of each hidden layer, by its name in the network."""
        return self.rule.layer_sizes  # type: ignore[no-any-return]


def build(
    settings: Settings, data_dir: str | Path | None = None, device: str = "cpu"
) -> Experiment:
    """Seed PyTorch and make everything that the settings describe.

    Raises:
        ConfigurationError: if a name or option is not known, or memory does not suffice.
        InputError: if the settings do not fit the data.
        DataError: if the data is absent or corrupt.
    """
    engine = engine_of(settings)
    engine.rule(settings.rule.name)
    engine.check_device(device, DTYPES[settings.dtype])
    with in_memory():
        samples = load_samples(settings, data_dir)
        check_memory(settings, samples, device)
        torch.manual_seed(settings.seed)
        network = engine.network(settings, samples)
        network = network.to(device=device, dtype=DTYPES[settings.dtype])
        rule = _rule(settings, engine, network)
        parameters = [*network.parameters(), *rule.parameters()]
        optimizer = make_optimizer(settings.optimizer, parameters)
        scheduler = make_scheduler(settings, optimizer)
    return Experiment(settings, samples, network, rule, optimizer, scheduler)


def load_samples(settings: Settings, data_dir: str | Path | None = None) -> Any:
    """Load the data of a run: the fold and the part of the set that its settings name.

    Raises:
        DataError: if the data is absent or corrupt.
    """
    samples = engine_of(settings).load(settings, data_dir)
    if settings.data.folds is not None:
        samples = samples.fold(settings.data.fold, settings.data.folds)
    return samples.subset(settings.data.train, settings.data.test)


def begin(experiment: Experiment) -> None:
    """Give the network the weights of the run that the settings name as its start, if any.

    Raises:
        CheckpointError: if there is no such run, or its network is another one.
    """
    start = experiment.settings.start
    if start is None:
        return
    run = RunFolder(start)
    try:
        there = checkpoint.exists(run.last)
    except (OSError, ValueError):  # no name of a folder
        there = False
    if not there:
        raise CheckpointError(
            f"start is {clipped(start)}, which holds no trained run; train one first, or give the "
            "folder of another as --set start=RUN"
        )
    weights = checkpoint.load_state(run.last)["network"]
    try:
        experiment.network.load_state_dict(weights)
    except RuntimeError as problem:
        raise CheckpointError(
            f"the network of {start} is not the one of these settings: {problem}"
        ) from problem


def option_names(settings: Settings) -> list[str]:
    """Return the full names beyond the fields that `override` should accept for these settings."""
    options = {
        "rule": engine_of(settings).option_names(settings.rule.name),
        "optimizer": settings.optimizer.options,
        "scheduler": settings.scheduler.options,
    }
    return [f"{group}.options.{name}" for group, names in options.items() for name in names]


def _rule(settings: Settings, engine: Engine, network: nn.Module) -> Any:
    given: RuleSettings = settings.rule
    options = dict(given.options)
    scale = options.get("noise_scale")
    if isinstance(scale, (list, tuple)):
        options["noise_scale"] = _schedule(scale)
    engine.check_options(given.name, options)
    _check_noise(settings, engine)
    options.update(engine.given(settings))
    return call(engine.rule(given.name), f"rule {given.name!r}", network, **options)


def _schedule(ends: Sequence[Any]) -> LinearSchedule:
    if len(ends) != 2 or not all(type(end) in (int, float) and end > 0 for end in ends):
        raise ConfigurationError(
            f"noise_scale is {clipped(list(ends))}; give a number above 0, or two as [start, end]"
        )
    return LinearSchedule(*map(float, ends))


def _check_noise(settings: Settings, engine: Engine) -> None:
    """Refuse noise of the rule's own beside that of the hardware."""
    given = settings.rule.options
    for key, value in engine.noise_options(settings).items():
        if given.get(key) != value:
            raise ConfigurationError(
                f"{key} is {given.get(key)!r} and hardware_noise {settings.hardware_noise}; "
                f"a rule learns from the hardware's noise or from its own: give {key}={value!r}, "
                "or leave hardware_noise out"
            )
