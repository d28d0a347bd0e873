"""From settings to live objects: data, network, rule, optimiser, scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from threefactor import clocked, data
from threefactor.clocked import RULES, LinearSchedule, Rule
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.training.settings import (
    OptimizerSettings,
    RuleSettings,
    SchedulerSettings,
    Settings,
)

__all__ = ["Experiment", "build", "option_groups", "rule_options"]

_NOT_OPTIONS = {"self", "network", "loss", "generator", "perturbation", "input_shape"}


@dataclass
class Experiment:
    """The live objects of one experiment."""

    settings: Settings
    data: data.ImageData
    network: nn.Module
    rule: Rule
    optimizer: torch.optim.Optimizer
    scheduler: lr_scheduler.LRScheduler | None

    @property
    def layer_sizes(self) -> dict[str, int]:
        """Number of neurons of each hidden layer, by its name in the network."""
        return self.rule.layer_sizes


def build(
    settings: Settings, data_dir: str | Path | None = None, device: str = "cpu"
) -> Experiment:
    """Seed PyTorch and make everything that the settings describe.

    Raises:
        ConfigurationError: if a name or option is not known.
        DataError: if the data is absent or corrupt.
    """
    if settings.rule.name not in RULES:
        raise unknown_name("rule", settings.rule.name, RULES)
    dtype = {"float32": torch.float32, "float64": torch.float64}[settings.dtype]
    samples = data.load(settings.data.name, data_dir, dtype=dtype)
    samples = samples.subset(settings.data.train, settings.data.test)
    torch.manual_seed(settings.seed)
    network = _network(settings, samples).to(device=device, dtype=dtype)
    rule = _rule(settings, network)
    parameters = [*network.parameters(), *rule.parameters()]
    optimizer = _optimizer(settings.optimizer, parameters)
    scheduler = _scheduler(settings.scheduler, optimizer, settings.epochs)
    return Experiment(settings, samples, network, rule, optimizer, scheduler)


def rule_options(name: str) -> dict[str, Any]:
    """Return the options of a rule with their defaults, as plain values."""
    if name not in RULES:
        raise unknown_name("rule", name, RULES)
    found: dict[str, Any] = {}
    for kind in (Rule, RULES[name]):
        for key, parameter in inspect.signature(kind.__init__).parameters.items():
            if key not in _NOT_OPTIONS and parameter.kind is not parameter.VAR_KEYWORD:
                found[key] = _plain(parameter.default)
    return found


def option_groups(settings: Settings) -> dict[str, str]:
    """Names beyond the fields that `override` should accept for these settings."""
    groups = dict.fromkeys(rule_options(settings.rule.name), "rule.options")
    groups.update(dict.fromkeys(settings.optimizer.options, "optimizer.options"))
    groups.update(dict.fromkeys(settings.scheduler.options, "scheduler.options"))
    return groups


def _plain(value: Any) -> Any:
    return [value.start, value.end] if isinstance(value, LinearSchedule) else value


def _network(settings: Settings, samples: data.ImageData) -> nn.Module:
    given = settings.network
    in_features = torch.Size(samples.input_shape).numel()
    return clocked.fc(
        in_features,
        given.hidden,
        samples.outputs,
        leak=given.leak,
        threshold=given.threshold,
        dropout=given.dropout,
        surrogate_width=given.surrogate_width,
    )


def _rule(settings: Settings, network: nn.Module) -> Rule:
    given: RuleSettings = settings.rule
    known = rule_options(given.name)
    for key in given.options:
        if key not in known:
            raise unknown_name(f"option of rule {given.name!r}:", key, known)
    options = dict(given.options)
    scale = options.get("noise_scale")
    if isinstance(scale, (list, tuple)):
        if len(scale) != 2:
            raise ConfigurationError(f"noise_scale is {scale}; give a number or [start, end]")
        options["noise_scale"] = LinearSchedule(*map(float, scale))
    loss = clocked.CrossEntropyMSE(settings.loss.mse_weight)
    return _call(RULES[given.name], f"rule {given.name!r}", network, loss=loss, **options)  # type: ignore[no-any-return]


def _optimizer(
    given: OptimizerSettings, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    known = _classes(torch.optim, torch.optim.Optimizer)
    if given.name not in known:
        raise unknown_name("optimizer", given.name, known)
    options = dict(given.options)
    accepted = inspect.signature(known[given.name].__init__).parameters
    if "fused" in accepted and not {"fused", "foreach"} & set(options):
        options["fused"] = True  # one pass over the weights: a tenth of the time on a CPU
    what = f"optimizer {given.name!r}"
    return _call(known[given.name], what, parameters, lr=given.lr, **options)  # type: ignore[no-any-return]


def _scheduler(
    given: SchedulerSettings, optimizer: torch.optim.Optimizer, epochs: int
) -> lr_scheduler.LRScheduler | None:
    if given.name is None:
        return None
    known = _classes(lr_scheduler, lr_scheduler.LRScheduler)
    if given.name not in known:
        raise unknown_name("scheduler", given.name, known)
    options = {k: epochs if v == "epochs" else v for k, v in given.options.items()}
    return _call(known[given.name], f"scheduler {given.name!r}", optimizer, **options)  # type: ignore[no-any-return]


def _classes(module: Any, base: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }


def _call(function: Any, what: str, *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except (TypeError, ValueError) as problem:
        raise ConfigurationError(f"{what} does not accept its options: {problem}") from problem
