"""What the two kinds of network differ in, as far as the training loop is concerned."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threefactor import clocked, data, events
from threefactor.clocked.losses import Loss
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.training.settings import (
    ClockedNetworkSettings,
    EventNetworkSettings,
    FirstSpikeSettings,
    Settings,
    SpikeCountSettings,
)

__all__ = ["ENGINES", "Engine", "engine_of"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# What a rule is given by the experiment and not by its options.
NOT_OPTIONS = {"self", "network", "loss", "generator", "perturbation", "input_shape"}


class Engine(ABC):
    """Makes and runs networks of one kind as the settings say.

    Attributes:
        base: the class of which every rule for such networks is a subclass.
        rules: the rules that train them, by name.
        rate_unit: of the firing rates in results and metrics.
        device_type: the only type of device, or None for any.
    """

    base: type
    rules: Mapping[str, type[Any]]
    rate_unit: str
    device_type: str | None = None

    @abstractmethod
    def load(self, settings: Settings, data_dir: str | Path | None) -> Any:
        """Return the data: its `train` and `test` are pairs of inputs and labels."""

    @abstractmethod
    def network(self, settings: Settings, samples: Any) -> nn.Module:
        """Build the network for the data."""

    @abstractmethod
    def step(
        self, rule: Any, x: Any, y: Tensor, settings: Settings, after_step: Callable[[], object]
    ) -> Any:
        """Let the rule learn from a batch; return the result.

        `after_step` is called at every time step if the settings want an update at each.
        """

    @abstractmethod
    def run(self, network: Any, x: Any, y: Tensor, settings: Settings, loss: Loss) -> Any:
        """Run a batch without learning; return the result."""

    def use_threads(self, threads: int) -> None:
        """Compute on so many threads of the CPU."""
        torch.set_num_threads(threads)

    def check_device(self, device: str) -> None:
        """Refuse a device on which such networks cannot run.

        Raises:
            ConfigurationError: saying what to do.
        """
        if self.device_type not in (None, torch.device(device).type):
            raise ConfigurationError(
                f"device is {device!r}; event-driven networks run on the CPU: leave it out"
            )

    def rule(self, name: str) -> type[Any]:
        """Return a rule by name.

        Raises:
            ConfigurationError: with the nearest known name.
        """
        if name not in self.rules:
            raise unknown_name("rule", name, self.rules)
        return self.rules[name]

    def rule_options(self, name: str) -> dict[str, Any]:
        """Return the options of a rule with their defaults, as plain values."""
        found: dict[str, Any] = {}
        for kind in reversed(self.rule(name).__mro__):
            if issubclass(kind, self.base) and "__init__" in vars(kind):
                for key, parameter in inspect.signature(vars(kind)["__init__"]).parameters.items():
                    if key not in NOT_OPTIONS and parameter.kind is not parameter.VAR_KEYWORD:
                        found[key] = _plain(parameter.default)
        return found

    def loss(self, settings: Settings) -> Loss:
        """Build the loss."""
        given = settings.loss
        if isinstance(given, SpikeCountSettings):
            return events.SpikeCount(given.true, given.false)
        if isinstance(given, FirstSpikeSettings):
            return events.FirstSpike(given.true, given.false)
        return clocked.CrossEntropyMSE(given.mse_weight)


class ClockedEngine(Engine):
    """Networks on a time grid; an image is a constant current, frames of events are a sequence."""

    base = clocked.Rule
    rules = clocked.RULES
    rate_unit = "spikes per neuron and step"

    def load(self, settings: Settings, data_dir: str | Path | None) -> Any:
        name, dtype = settings.data.name, DTYPES[settings.dtype]
        if not data.has_frames(name):
            return data.load(name, data_dir, dtype=dtype)
        framing = data.frame_settings(name)
        framing = replace(framing, number=settings.steps or framing.number)
        return data.load_frames(name, data_dir, framing, dtype=dtype)

    def network(self, settings: Settings, samples: Any) -> nn.Module:
        given = settings.network
        assert isinstance(given, ClockedNetworkSettings)
        return clocked.fc(
            torch.Size(samples.input_shape).numel(),
            given.hidden,
            samples.outputs,
            leak=given.leak,
            threshold=given.threshold,
            dropout=given.dropout,
            surrogate_width=given.surrogate_width,
        )

    def step(
        self, rule: Any, x: Any, y: Tensor, settings: Settings, after_step: Callable[[], object]
    ) -> Any:
        each = after_step if settings.update == "step" else None
        return rule.step(x, y, steps=_repeats(settings), after_step=each)

    def run(self, network: Any, x: Any, y: Tensor, settings: Settings, loss: Loss) -> Any:
        return clocked.run(network, x, steps=_repeats(settings), targets=y, loss=loss)


class EventEngine(Engine):
    """Networks of exact spike times; an image is a latency code."""

    base = events.Rule
    rules = events.RULES
    device_type = "cpu"
    rate_unit = "spikes per neuron and sample"

    def use_threads(self, threads: int) -> None:
        torch.set_num_threads(1)  # its waiting threads would take the cores from the kernels
        events.set_num_threads(threads)

    def load(self, settings: Settings, data_dir: str | Path | None) -> Any:
        return data.load_spikes(settings.data.name, data_dir, window=settings.data.window)

    def network(self, settings: Settings, samples: Any) -> nn.Module:
        given = settings.network
        assert isinstance(given, EventNetworkSettings)
        return events.fc(
            torch.Size(samples.input_shape).numel(),
            given.hidden,
            samples.outputs,
            tau_s=given.tau_s,
            thresholds=given.thresholds,
            duration=given.duration,
            max_spikes=given.max_spikes,
            weight_ranges=given.weight_ranges,
        )

    def step(
        self, rule: Any, x: Any, y: Tensor, settings: Settings, after_step: Callable[[], object]
    ) -> Any:
        return rule.step(x, y)

    def run(self, network: Any, x: Any, y: Tensor, settings: Settings, loss: Loss) -> Any:
        return events.run(network, x, targets=y, loss=loss)


ENGINES: dict[str, Engine] = {"fc": ClockedEngine(), "events-fc": EventEngine()}
"""The engine of each kind of network."""


def engine_of(settings: Settings) -> Engine:
    """Return the engine that the settings' kind of network needs."""
    return ENGINES[settings.network.kind]


def _repeats(settings: Settings) -> int | None:
    """Return for how many steps an input is held; None if it is a sequence with time first."""
    return None if data.has_frames(settings.data.name) else settings.steps


def _plain(value: Any) -> Any:
    return [value.start, value.end] if isinstance(value, clocked.LinearSchedule) else value
