"""How the training loop makes and runs networks of the two kinds."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threefactor import clocked, data, events
from threefactor.clocked.losses import Loss
from threefactor.data.dataset import EventSet
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.options import Option, options_of
from threefactor.readable import clipped
from threefactor.training.arguments import checked_arguments, plain_defaults
from threefactor.training.experiment import Experiment
from threefactor.training.registered import DTYPES, registered_loss
from threefactor.training.settings import (
    CrossEntropySettings,
    DataSettings,
    FirstSpikeSettings,
    RegisteredLossSettings,
    RegisteredNetworkSettings,
    Settings,
    SpikeCountSettings,
)

__all__ = ["ENGINES", "Engine", "check_threads", "engine_of", "hardware_noise"]

CONVOLUTIONAL: Mapping[str, Callable[..., nn.Module]] = {
    "conv5": clocked.conv5,
    "conv9": clocked.conv9,
    "nf-resnet34": clocked.nf_resnet34,
}
# The experiment gives these to a rule; they are not among its options.
NOT_OPTIONS = {"network", "loss", "generator", "perturbation", "input_shape"}
MOST_THREADS = 256
"""The most threads on any machine; one with more cores than that may use all of them."""


class Engine(ABC):
    """Makes and runs networks of one kind as the settings say.

    Attributes:
        base: the class of which every rule for such networks is a subclass.
        rules: the rules that train them, by name.
        where: the module of both.
        rate_unit: of the firing rates in results and metrics.
        device_type: the only type of device, or None for any.
    """

    base: type
    rules: Mapping[str, type[Any]]
    where: str
    rate_unit: str
    device_type: str | None = None

    @abstractmethod
    def load(self, settings: Settings, data_dir: str | Path | None, room: int | None = None) -> Any:
        """Return the data: its `train` and `test` are pairs of inputs and labels.

        Args:
            settings: of the run.
            data_dir: see `threefactor.data.data_folder`.
            room: bytes that the samples may take in memory; None for no limit.
        """

    @abstractmethod
    def network(self, settings: Settings, samples: Any) -> nn.Module:
        """Build the network for the data."""

    @abstractmethod
    def step(
        self, experiment: Experiment, x: Any, y: Tensor, after_step: Callable[[], object]
    ) -> Any:
        """Let the rule learn from a batch; return the result.

        `after_step` is called at every time step if the settings want an update at each.
        """

    @abstractmethod
    def run(self, experiment: Experiment, x: Any, y: Tensor) -> Any:
        """Run a batch without learning; return the result."""

    @property
    def threads(self) -> int:
        """On how many threads of the CPU networks compute."""
        return torch.get_num_threads()

    def use_threads(self, threads: int) -> None:
        """Compute on so many threads of the CPU.

        Raises:
            ConfigurationError: if there are to be fewer than 1, or far more than there are cores.
        """
        check_threads(threads)
        self._use_threads(threads)

    def _use_threads(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def rule(self, name: str) -> type[Any]:
        """Return a rule by name.

        Raises:
            ConfigurationError: with the nearest known name.
        """
        if not isinstance(name, str) or name not in self.rules:
            unknown = unknown_name("rule", name, self.rules)
            raise ConfigurationError(
                f"{unknown}; register one of your own with threefactor.register_rule, and name its "
                "--plugin"
            )
        found = self.rules[name]
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise ConfigurationError(
                f"rule {name!r} is {clipped(found)}; register a subclass of {self.where}.Rule"
            )
        return found

    def rule_options(self, name: str) -> dict[str, Option]:
        """Return the options of a rule, with their types and defaults.

        Raises:
            ConfigurationError: with the nearest known name.
        """
        found = options_of(self.rule(name))
        return {key: option for key, option in found.items() if key not in NOT_OPTIONS}

    def rule_defaults(self, name: str) -> dict[str, Any]:
        """Return the options of a rule with their defaults, as values of config.json.

        Options without a default are left out, and those whose default cannot stand there.
        """
        return plain_defaults(self.rule_options(name))

    def checked_options(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of a rule, once their names and types are checked.

        Raises:
            ConfigurationError: names the option, what was given and what is expected.
        """
        return checked_arguments(f"rule {name!r}", options, self.rule_options(name))

    def noise_options(self, settings: Settings) -> dict[str, Any]:
        """Return the options with which the rule learns from the noise of the hardware.

        Only rules that have noise of their own have such options.
        """
        return {}

    def given(self, settings: Settings) -> dict[str, Any]:
        """Return the arguments of the rule that come from the experiment."""
        return {"loss": self.loss(settings)}

    def loss(self, settings: Settings) -> Loss:
        """Build the loss."""
        given = settings.loss
        if isinstance(given, RegisteredLossSettings):
            return registered_loss(given)
        if isinstance(given, SpikeCountSettings):
            return events.SpikeCount(given.true, given.false)
        if isinstance(given, FirstSpikeSettings):
            return events.FirstSpike(given.true, given.false)
        assert isinstance(
            given, CrossEntropySettings
        )  # a loss of the user's own was refused before
        return clocked.CrossEntropyMSE(given.mse_weight)


class ClockedEngine(Engine):
    """Networks on a time grid; an image is a constant current, frames of events are a sequence."""

    base = clocked.Rule
    rules = clocked.RULES
    where = clocked.__name__
    rate_unit = "spikes per neuron and step"

    def load(self, settings: Settings, data_dir: str | Path | None, room: int | None = None) -> Any:
        given, dtype = settings.data, DTYPES[settings.dtype]
        known = data.DATASETS.get(given.name)
        if known is not None and not isinstance(known, EventSet):
            _refuse_unused(given, "sort")
        if data.has_frames(given.name):
            framing = _framing(settings)
            samples: Any = data.load_frames(
                given.name, data_dir, framing, dtype=dtype, sort=given.sort
            )
        else:
            samples = data.load(given.name, data_dir, dtype=dtype, room=room)
        return samples

    def network(self, settings: Settings, samples: Any) -> nn.Module:
        options = asdict(settings.network)
        kind, shape = options.pop("kind"), samples.input_shape
        if kind == "fc":
            size = torch.Size(shape).numel()
            return clocked.fc(size, out_features=samples.outputs, **options)
        return CONVOLUTIONAL[kind](shape, samples.outputs, **options)

    def noise_options(self, settings: Settings) -> dict[str, Any]:
        if settings.hardware_noise is None:
            return {}
        options = {
            "noise_scale": settings.hardware_noise,
            "noise_distribution": "gaussian",
            "noise_position": "before",
            "antithetic": False,
        }
        return options if options.keys() <= self.rule_options(settings.rule.name).keys() else {}

    def given(self, settings: Settings) -> dict[str, Any]:
        noise = hardware_noise(settings)
        if noise is None or self.noise_options(settings):
            return super().given(settings)
        return {**super().given(settings), "perturbation": noise}

    def step(
        self, experiment: Experiment, x: Any, y: Tensor, after_step: Callable[[], object]
    ) -> Any:
        each = after_step if experiment.settings.update == "step" else None
        x = experiment.shaped(x)
        return experiment.rule.step(x, y, steps=experiment.steps, after_step=each)

    def run(self, experiment: Experiment, x: Any, y: Tensor) -> Any:
        return clocked.run(
            experiment.network,
            experiment.shaped(x),
            steps=experiment.steps,
            targets=y,
            loss=experiment.rule.loss,
            perturbation=hardware_noise(experiment.settings),
        )


class EventEngine(Engine):
    """Networks of exact spike times; an image is a latency code."""

    base = events.Rule
    rules = events.RULES
    device_type = "cpu"
    where = events.__name__
    rate_unit = "spikes per neuron and sample"

    def _use_threads(self, threads: int) -> None:
        torch.set_num_threads(1)  # its sums round differently with another number of threads
        events.set_num_threads(threads)

    def load(self, settings: Settings, data_dir: str | Path | None, room: int | None = None) -> Any:
        given = settings.data
        if given.name in data.DATASETS:
            # Sets of which frames can be made are recorded, and keep their times.
            _refuse_unused(given, "sort", *["window"] * data.has_frames(given.name))
        return data.load_spikes(given.name, data_dir, window=given.window)

    def network(self, settings: Settings, samples: Any) -> nn.Module:
        options = asdict(settings.network)
        del options["kind"]
        size = torch.Size(samples.input_shape).numel()
        return events.fc(size, out_features=samples.outputs, **options)

    def step(
        self, experiment: Experiment, x: Any, y: Tensor, after_step: Callable[[], object]
    ) -> Any:
        return experiment.rule.step(x, y)

    def run(self, experiment: Experiment, x: Any, y: Tensor) -> Any:
        network: Any = experiment.network
        return events.run(network, x, targets=y, loss=experiment.rule.loss)

    @property
    def threads(self) -> int:
        return events.get_num_threads()


ENGINES: dict[str, Engine] = {
    **dict.fromkeys(("fc", *CONVOLUTIONAL), ClockedEngine()),
    "events-fc": EventEngine(),
}
ENGINES.update({"own-clocked": ENGINES["fc"], "own-events": ENGINES["events-fc"]})
"""The engine of each kind of network."""


def check_threads(threads: int) -> None:
    """Refuse a number of threads below 1, or far above the number of cores.

    Raises:
        ConfigurationError: says how many cores there are.
    """
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= most:
        raise ConfigurationError(
            f"threads is {clipped(threads)}; this machine has {os.cpu_count()} cores: give a "
            f"whole number from 1 to {most}"
        )


def engine_of(settings: Settings) -> Engine:
    """Return the engine that the settings' kind of network needs.

    Raises:
        ConfigurationError: if they are not settings.
    """
    if not isinstance(settings, Settings):
        raise ConfigurationError(
            f"settings are {clipped(settings)}; give Settings, as of "
            'recipe("digits-fc").settings_for("opzo")'
        )
    network = settings.network
    if isinstance(network, RegisteredNetworkSettings):
        return ENGINES["fc" if network.engine == "clocked" else "events-fc"]
    return ENGINES[network.kind]


def _refuse_unused(given: DataSettings, *keys: str) -> None:
    """Refuse settings of data of which a set makes no use."""
    for key in keys:
        value = getattr(given, key)
        if value != getattr(DataSettings, key):
            raise ConfigurationError(
                f"data.{key} is {value}, of which data {given.name!r} makes no use; leave it out"
            )


def _framing(settings: Settings) -> data.FrameSettings:
    """Return how the frames of a set are made, in the number that the settings want.

    Frames of a fixed time become longer or shorter: as many as there are cover the recording.
    """
    usual = data.frame_settings(settings.data.name)
    number = settings.steps or usual.number
    if usual.window is None:
        return replace(usual, number=number)
    return replace(usual, number=number, window=math.ceil(usual.window * usual.number / number))


def hardware_noise(settings: Settings) -> clocked.Perturbation | None:
    """Return the noise of the hardware that the settings describe."""
    if settings.hardware_noise is None:
        return None
    return clocked.Perturbation(settings.hardware_noise, position="before", antithetic=False)
