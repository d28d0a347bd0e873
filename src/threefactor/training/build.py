"""From settings to live objects: data, network, rule, optimiser, scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from threefactor import clocked, events
from threefactor.clocked import LinearSchedule
from threefactor.clocked.inputs import takes_several
from threefactor.data import Augmentation, AugmentedData, hold_out
from threefactor.data.encode.framing import MOST_LATE
from threefactor.errors import CheckpointError, ConfigurationError, warn_user
from threefactor.events import SpikeBatch
from threefactor.options import options_of
from threefactor.readable import clipped
from threefactor.training.description import check_buildable, made_of
from threefactor.training.devices import choose_device
from threefactor.training.engines import Engine, engine_of
from threefactor.training.experiment import Experiment
from threefactor.training.folder import checkpoint
from threefactor.training.folder.run import Run
from threefactor.training.memory import check_memory, in_memory
from threefactor.training.optimizers import call, make_optimizer, make_scheduler
from threefactor.training.placing import room_for
from threefactor.training.registered import (
    DTYPES,
    load_registered,
    registered_network,
    registered_options,
)
from threefactor.training.settings import RegisteredNetworkSettings, RuleSettings, Settings
from threefactor.training.weights import ENDINGS, is_weights_file, load_weights

__all__ = ["begin", "build", "check_parts", "option_names", "rule_options"]


def build(
    settings: Settings, data_dir: str | Path | None = None, device: str = "cpu"
) -> Experiment:
    """Seed PyTorch and make everything that the settings describe.

    Args:
        settings: the experiment.
        data_dir: see `threefactor.data.load`.
        device: where to train, see `choose_device`.

    Raises:
        ConfigurationError: if a name or option is not known, or memory does not suffice.
        InputError: if the settings do not fit the data.
        DataError: if the data is absent or corrupt.
    """
    engine = engine_of(settings)
    check_buildable(settings)
    engine.rule(settings.rule.name)
    device = choose_device(device, settings).device
    with in_memory():
        samples = load_samples(settings, data_dir)
        check_memory(settings, samples, device)
        torch.manual_seed(settings.seed)
        given = settings.network
        if isinstance(given, RegisteredNetworkSettings):
            network = registered_network(given, samples)
        else:
            network = engine.network(settings, samples)
        network = network.to(device=device, dtype=DTYPES[settings.dtype])
        rule = _rule(settings, engine, network, samples)
        parameters = [*network.parameters(), *rule.parameters()]
        optimizer = make_optimizer(settings.optimizer, parameters)
        scheduler = make_scheduler(settings, optimizer)
    experiment = Experiment(settings, samples, network, rule, optimizer, scheduler)
    experiment.made = made_of(experiment)
    return experiment


def check_parts(experiment: Experiment) -> None:
    """Refuse parts that do not belong together, of which a network would stay untrained.

    Raises:
        ConfigurationError: if the network has no parameters or takes several inputs, the rule was
            built on another network, or optimiser or scheduler are those of other parameters.

    Warns:
        UserWarning: with the parameters of the network that the optimiser does not have; with the
            share of the input spikes that come after the end of the simulation.
    """
    network, rule, optimizer = experiment.network, experiment.rule, experiment.optimizer
    if next(network.parameters(), None) is None:
        raise ConfigurationError(f"the network {type(network).__name__} has no parameters to train")
    if getattr(rule, "network", network) is not network:
        raise ConfigurationError(
            "the rule was built on another network than that of the experiment, which would never "
            "be trained; build the rule on this network, and the optimiser of its parameters"
        )
    if isinstance(rule, clocked.Rule) and takes_several(rule.sample_shape):
        raise ConfigurationError(
            f"the network takes several inputs ({len(rule.sample_shape)}), and this training loop "
            "gives one; write a loop of your own with rule.step"
        )
    if getattr(experiment.scheduler, "optimizer", optimizer) is not optimizer:
        raise ConfigurationError(
            "the scheduler was made for another optimiser than the experiment's; make it for this "
            "one, or give scheduler=None"
        )
    if getattr(experiment.scheduler, "mode", "min") == "max":
        raise ConfigurationError(
            "the scheduler waits for the highest value (mode='max'), and the training loop gives "
            "it a loss; make it with mode='min'"
        )
    learners = [m for m in (network, rule, getattr(rule, "loss", None)) if isinstance(m, nn.Module)]
    known = {id(parameter) for module in learners for parameter in module.parameters()}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held - known:
        raise ConfigurationError(
            f"the optimiser has {len(held - known)} parameters that belong neither to the network "
            "nor to the rule (perhaps to a network or layer that was replaced); make it of "
            "network.parameters()"
        )
    left = [name for name, p in network.named_parameters() if p.requires_grad and id(p) not in held]
    if left:
        warn_user(
            f"the optimiser does not have {', '.join(left)}: they stay as they are. Give it all of "
            "network.parameters(), or set requires_grad_(False) on these"
        )
    if isinstance(network, events.Network):
        _warn_of_late_spikes(network, experiment.data)


def _warn_of_late_spikes(network: events.Network, samples: Any) -> None:
    """Warn if many spikes for training come when the simulation of the network is over."""
    inputs = getattr(samples, "train", (None,))[0]
    if not isinstance(inputs, SpikeBatch) or not len(inputs.times):
        return
    duration = next(iter(network.layers.values())).duration
    late = np.count_nonzero(inputs.times >= duration) / len(inputs.times)
    if late > MOST_LATE:
        warn_user(
            f"{late:.0%} of the spikes for training come {duration:g} s or later, when the "
            f"simulation is over, and are never seen (the last one comes at "
            f"{inputs.times.max():.6g} s): give a longer duration, as --set network.duration=1.0, "
            "a shorter data.window, or times in seconds"
        )


def load_samples(settings: Settings, data_dir: str | Path | None = None) -> Any:
    """Load the data of a run: the fold and the parts of the set that its settings name.

    Raises:
        DataError: if the data is absent or corrupt.
    """
    given = settings.data
    room = room_for(given.place)
    samples: Any = load_registered(settings, data_dir, room)
    if samples is None:
        samples = engine_of(settings).load(settings, data_dir, room)
    if given.folds is not None:
        samples = samples.fold(given.fold, given.folds)
    samples = samples.subset(given.train, given.test)
    if given.validation is not None:
        if getattr(samples, "validation", None) is not None:
            raise ConfigurationError(
                f"data.validation is {given.validation:g}, and the data {given.name!r} has samples "
                "for validation; leave it out"
            )
        samples = hold_out(samples, given.validation, given.validation_seed)
    augmentation = Augmentation(given.padding, given.flip, given.cutout)
    if augmentation != Augmentation():
        if len(samples.input_shape) < 3:
            raise ConfigurationError(
                f"data.padding, data.flip and data.cutout augment images, and the samples of "
                f"{given.name!r} have the shape {tuple(samples.input_shape)}: leave them out"
            )
        samples = AugmentedData(samples, augmentation)
    return samples


def begin(experiment: Experiment) -> None:
    """Give the network the weights of the run or file that the settings name as its start, if any.

    Raises:
        CheckpointError: if there is no such run or file, or its network is another one.

    Warns:
        UserWarning: if the data that both name was changed since the run.
    """
    start, prefix = experiment.settings.start, experiment.settings.start_prefix
    if start is None:
        return
    if is_weights_file(start):
        digest = load_weights(experiment.network, start, prefix)
        experiment.start = {"file": start, "sha256": digest}
        if experiment.made is not None:  # the start is part of the settings
            experiment.made = made_of(experiment)
        return
    if prefix:
        raise CheckpointError(
            f"start_prefix is {clipped(prefix)}, and the start {clipped(start)} is a run; leave "
            "the prefix out"
        )
    run = Run(start)
    try:
        there = "last" in run.checkpoints
    except (OSError, ValueError):  # not the name of a folder
        there = False
    if not there:
        raise CheckpointError(
            f"start is {clipped(start)}, which holds no trained run; train one first, or give the "
            f"folder of another as --set start=RUN, or a file that ends in {', '.join(ENDINGS)}"
        )
    state = run.checkpoint("last")
    try:
        checkpoint.check_tensors(experiment.network.state_dict(), state["network"])
    except ValueError as problem:
        raise CheckpointError(
            f"the network of {start} is not the one of these settings: {problem}"
        ) from problem
    experiment.network.load_state_dict(state["network"])
    made = experiment.made
    same = made is not None and run.settings.data == experiment.settings.data
    differ = run.data_difference(made.record) if made is not None and same else None
    if differ is not None:
        warn_user(
            f"the start {clipped(start)} was trained on other data than what is there now "
            f"({differ}): labels may mean other classes, and samples for testing may be some that "
            "it has learned from"
        )
    if made is not None:  # the start is part of the settings
        experiment.made = made_of(experiment)


def option_names(settings: Settings) -> list[str]:
    """Return the full names of options that `override` should accept, beside the fields."""
    options: dict[str, Any] = {
        "rule": engine_of(settings).rule_options(settings.rule.name),
        "optimizer": settings.optimizer.options,
        "scheduler": settings.scheduler.options,
    }
    options.update(registered_options(settings))
    return [f"{group}.options.{name}" for group, names in options.items() for name in names]


def rule_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the rule, once their names and types are checked.

    Raises:
        ConfigurationError: names the option, what was given and what is expected.
    """
    options = dict(settings.rule.options)
    scale = options.get("noise_scale")
    if isinstance(scale, (list, tuple)):
        options["noise_scale"] = _schedule(scale)
    return engine_of(settings).checked_options(settings.rule.name, options)


def _rule(settings: Settings, engine: Engine, network: nn.Module, samples: Any) -> Any:
    given: RuleSettings = settings.rule
    options = rule_options(settings)
    _check_noise(settings, engine)
    options.update(engine.given(settings))
    kind = engine.rule(given.name)
    if not hasattr(network, "input_shape") and "input_shape" in options_of(kind):
        options["input_shape"] = tuple(samples.input_shape)
    return call(kind, f"rule {given.name!r}", network, **options)


def _schedule(ends: Sequence[Any]) -> LinearSchedule:
    if len(ends) != 2 or not all(type(end) in (int, float) and end > 0 for end in ends):
        raise ConfigurationError(
            f"noise_scale is {clipped(list(ends))}; give a number above 0, or two as [start, end]"
        )
    return LinearSchedule(*map(float, ends))


def _check_noise(settings: Settings, engine: Engine) -> None:
    """Refuse noise of the rule beside the noise of the hardware."""
    given = settings.rule.options
    for key, value in engine.noise_options(settings).items():
        if given.get(key) != value:
            raise ConfigurationError(
                f"{key} is {given.get(key)!r} and hardware_noise {settings.hardware_noise}; "
                f"a rule learns from the hardware's noise or from its own: give {key}={value!r}, "
                "or leave hardware_noise out"
            )
