"""A description of any experiment, from its live objects, in the form of settings.

Settings say what `build` makes. They are no longer true once the user replaces the network, data,
rule, loss or optimiser; then the description says what there is instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.errors import ConfigurationError
from threefactor.training.experiment import Experiment, Made
from threefactor.training.folder.data_record import describe_own_data, record_of, shape_of
from threefactor.training.settings import (
    CrossEntropySettings,
    DataSettings,
    FirstSpikeSettings,
    LossSettings,
    OptimizerSettings,
    OwnLossSettings,
    OwnNetworkSettings,
    RegisteredLossSettings,
    RuleSettings,
    SchedulerSettings,
    Settings,
    SpikeCountSettings,
)

__all__ = ["OWN", "Description", "check_buildable", "describe", "made_of"]

OWN = "own"
"""Name of data, and first word of other names, that settings cannot make."""
DEEPEST = 4
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Description:
    """What config.json says about an experiment.

    Attributes:
        settings: they describe the experiment, and cannot rebuild parts of the user's own.
        data: the record of its samples.
        layer_sizes: number of neurons of each hidden layer, by name.
        own: the parts that are the user's own, with details; None if there are none.
        start: file and digest of the weights that the network began with; None without a file.
    """

    settings: Settings
    data: Mapping[str, Any]
    layer_sizes: Mapping[str, int]
    own: Mapping[str, Any] | None
    start: Mapping[str, str] | None = None


PARTS: Mapping[str, tuple[str, ...]] = {
    "data": ("data", "dtype"),
    "network": ("network", "data", "seed", "dtype", "start", "start_prefix"),
    "rule": ("rule", "hardware_noise"),
    "loss": ("loss",),
    "optimizer": ("optimizer",),
    "scheduler": ("scheduler", "epochs"),
}
"""The parts of an experiment, and the settings that each is made from."""


def made_of(experiment: Experiment) -> Made:
    """Remember what the parts of an experiment are, just after they were made."""
    return Made(
        experiment.settings,
        {part: mark(experiment) for part, mark in _MARKS.items()},
        experiment.data,
        record_of(experiment.settings, experiment.data),
    )


def describe(experiment: Experiment) -> Description:
    """Return what an experiment is. Call it before any training."""
    settings, own = experiment.settings, _own_parts(experiment)
    sizes = experiment.layer_sizes
    if not own:
        assert experiment.made is not None
        return Description(settings, experiment.made.record, sizes, None, experiment.start)
    data_is_own = "data" in own
    samples = (
        describe_own_data(experiment.data) if data_is_own else record_of(settings, experiment.data)
    )
    changes: dict[str, Any] = {part: _TOLD[part](experiment) for part in own}
    known: dict[str, Any] = {"parts": own}
    if "network" in own:
        # A start gives its weights to what settings make.
        changes["start"], changes["start_prefix"] = None, ""
        known["network"] = repr(experiment.network).splitlines()
        known["initial_weights"] = _tensors(experiment.network.state_dict())
    if {"data", "network"} & set(own):
        changes["steps"] = experiment.frames or settings.steps
        changes["dtype"] = _precision(experiment.network) or settings.dtype
        told = [samples if "data" in own else None, changes.get("network")]
        changes["recipe"] = f"{OWN}-{_sum(_facts(told))[:6]}"
    start = None if "network" in own else experiment.start
    return Description(dataclasses.replace(settings, **changes), samples, sizes, known, start)


def check_buildable(settings: Settings) -> None:
    """Refuse settings that only describe an experiment with parts of the user's own.

    Raises:
        ConfigurationError: names what cannot be made, and says what to do.
    """
    names = {
        "network": getattr(settings.network, "name", None),
        "data": settings.data.name if settings.data.name == OWN else None,
        "rule": settings.rule.name,
        "loss": getattr(settings.loss, "name", None),
        "optimizer": settings.optimizer.name,
        "scheduler": settings.scheduler.name,
    }
    if isinstance(settings.network, OwnNetworkSettings):
        names["network"] = f"{OWN} {settings.network.name}"
    own = [f"{part} {name!r}" for part, name in names.items() if _is_own(name)]
    if own:
        raise ConfigurationError(
            f"this experiment has parts of the user's own ({', '.join(own)}), which settings "
            "cannot make again: build the same objects as before, give them to a Trainer, and call "
            "its load(...); see docs/training.md"
        )


def _is_own(name: str | None) -> bool:
    return name is not None and name.split(" ")[0] == OWN


def _own_parts(experiment: Experiment) -> list[str]:
    """Return the parts that are not what `build` makes of the settings."""
    made, settings = experiment.made, experiment.settings
    if made is None:
        return list(PARTS)
    own = []
    for part, names in PARTS.items():
        same = all(getattr(settings, name) == getattr(made.settings, name) for name in names)
        if not same or _MARKS[part](experiment) != made.parts[part]:
            own.append(part)
    if "data" not in own and not _same_samples(experiment, made):
        own.insert(0, "data")
    return own


def _same_samples(experiment: Experiment, made: Made) -> bool:
    if experiment.data is not made.samples:
        return False
    if experiment.frames not in (None, experiment.settings.steps):
        return False
    return record_of(experiment.settings, experiment.data) == made.record


def _precision(network: nn.Module) -> str | None:
    """Return the type of a network's weights, if settings have a name for it."""
    found = {str(p.dtype).removeprefix("torch.") for p in network.parameters()}
    (name,) = found if len(found) == 1 else (None,)
    return name if name in ("float32", "float64") else None


def _data_mark(experiment: Experiment) -> str:
    samples = getattr(experiment.data, "data", experiment.data)
    sums = [_value_sum(inputs) for inputs, _ in (samples.train, samples.test)]
    return _sum([type(experiment.data).__qualname__, sums])


def _value_sum(inputs: Any) -> int | None:
    """Return the sum of all bytes of inputs in memory, the same in whatever order it is taken."""
    values = (
        torch.from_numpy(inputs.times.copy()) if isinstance(inputs, events.SpikeBatch) else inputs
    )
    if not isinstance(values, Tensor):
        return None
    flat = values.detach().contiguous().flatten()
    whole = {4: torch.int32, 8: torch.int64}.get(flat.element_size(), torch.uint8)
    return int(flat.view(whole).sum(dtype=torch.int64))


def _network_mark(experiment: Experiment) -> str:
    weights = _tensors(experiment.network.state_dict())
    return _sum([_structure(experiment.network), weights])


def _rule_mark(experiment: Experiment) -> str:
    rule = experiment.rule
    learned = _tensors(rule.state_dict()) if isinstance(rule, nn.Module) else None
    return _sum([_name(rule), _rule_facts(rule), learned])


def _loss_mark(experiment: Experiment) -> str:
    return _sum(_facts(experiment.rule.loss))


def _optimizer_mark(experiment: Experiment) -> str:
    groups = [
        [_facts(_options(group)), [list(p.shape) for p in group["params"]]]
        for group in experiment.optimizer.param_groups
    ]
    return _sum([_name(experiment.optimizer), groups])


def _scheduler_mark(experiment: Experiment) -> str:
    scheduler = experiment.scheduler
    return _sum(None if scheduler is None else [_name(scheduler), _facts(scheduler.state_dict())])


_MARKS: Mapping[str, Callable[[Experiment], str]] = {
    "data": _data_mark,
    "network": _network_mark,
    "rule": _rule_mark,
    "loss": _loss_mark,
    "optimizer": _optimizer_mark,
    "scheduler": _scheduler_mark,
}


def _told_data(experiment: Experiment) -> DataSettings:
    return DataSettings(name=OWN)


def _told_network(experiment: Experiment) -> OwnNetworkSettings:
    network, rule = experiment.network, experiment.rule
    shape = getattr(network, "input_shape", None) or shape_of(experiment.data)
    return OwnNetworkSettings(
        kind="own-events" if isinstance(rule, events.Rule) else "own-clocked",
        name=type(network).__qualname__,
        input_shape=tuple(shape),
        hidden=tuple(experiment.layer_sizes.values()),
        outputs=experiment.outputs,
        parameters=sum(p.numel() for p in network.parameters()),
        structure=_sum(_structure(network))[:16],
    )


def _told_rule(experiment: Experiment) -> RuleSettings:
    rule = experiment.rule
    return RuleSettings(f"{OWN} {_name(rule)}", _rule_facts(rule))


def _told_loss(experiment: Experiment) -> LossSettings:
    loss = experiment.rule.loss
    if type(loss) is clocked.CrossEntropyMSE:
        return CrossEntropySettings(mse_weight=loss.mse_weight)
    if type(loss) is events.SpikeCount:
        return SpikeCountSettings(true=loss.true, false=loss.false)
    if type(loss) is events.FirstSpike:
        return FirstSpikeSettings(true=loss.true, false=loss.false)
    if type(loss) in clocked.TORCH_LOSSES.values():
        return RegisteredLossSettings(type(loss).__name__, vars(loss))
    return OwnLossSettings("own", _name(loss), _plain_attributes(loss))


def _told_optimizer(experiment: Experiment) -> OptimizerSettings:
    optimizer = experiment.optimizer
    first, *others = optimizer.param_groups
    options = _facts(_options(first))
    lr = float(options.pop("lr", 0.0))
    if others:
        options["other groups"] = [_facts(_options(group)) for group in others]
    plain = type(optimizer).__name__
    ours = not others and getattr(torch.optim, plain, None) is type(optimizer)
    return OptimizerSettings(plain if ours else f"{OWN} {_name(optimizer)}", lr, options)


def _told_scheduler(experiment: Experiment) -> SchedulerSettings:
    scheduler = experiment.scheduler
    if scheduler is None:
        return SchedulerSettings(None, {})
    return SchedulerSettings(f"{OWN} {_name(scheduler)}", _facts(scheduler.state_dict()))


_TOLD: Mapping[str, Callable[[Experiment], Any]] = {
    "data": _told_data,
    "network": _told_network,
    "rule": _told_rule,
    "loss": _told_loss,
    "optimizer": _told_optimizer,
    "scheduler": _told_scheduler,
}


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a group of an optimiser; a scheduler adds the rate at the start."""
    return {key: value for key, value in group.items() if key not in ("params", "initial_lr")}


def _structure(network: nn.Module) -> Any:
    """Return the structure of a network, without the values of its tensors."""
    modules = [
        [name, _name(module), module.training is network.training, _plain_attributes(module)]
        for name, module in network.named_modules()
    ]
    tensors = [
        [name, list(value.shape), str(value.dtype), getattr(value, "requires_grad", False)]
        for name, value in (*network.named_parameters(), *network.named_buffers())
    ]
    return [modules, tensors]


def _rule_facts(rule: Any) -> dict[str, Any]:
    """Return the options of a rule, as far as its attributes tell them."""
    left_out = {"network", "layers", "loss", "training", "layer_shapes", "layer_sizes", "outputs"}
    found = {k: v for k, v in _attributes(rule).items() if k not in left_out}
    return {key: _facts(value) for key, value in sorted(found.items())}


def _plain_attributes(value: Any) -> dict[str, Any]:
    """Return the attributes that computations do not change: plain values, functions by name."""
    kinds = (*_PLAIN[:-1], tuple, list, FunctionType, BuiltinFunctionType)
    found = {k: v for k, v in _attributes(value).items() if isinstance(v, kinds)}
    return {key: _facts(v) for key, v in sorted(found.items()) if key != "training"}


def _attributes(value: Any) -> dict[str, Any]:
    """Return the public attributes of an object; parameters, buffers and modules are none."""
    return {key: v for key, v in getattr(value, "__dict__", {}).items() if key[0] != "_"}


def _facts(value: Any, depth: int = DEEPEST) -> Any:
    """Return a value in plain values of JSON; other objects by class and attributes."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return float(value) if value.dim() == 0 else f"tensor of shape {tuple(value.shape)}"
    if not depth:
        return _name(value)
    if isinstance(value, Mapping):
        return {str(key): _facts(v, depth - 1) for key, v in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [_facts(v, depth - 1) for v in items]
    if callable(value) and hasattr(value, "__qualname__"):
        return _name(value)
    if isinstance(value, (nn.Module, torch.Generator)):
        return _name(value)
    if isinstance(value, torch.optim.Optimizer):
        return {"class": _name(value), **_facts(_options(value.param_groups[0]), depth - 1)}
    attributes = _attributes(value)
    return {"class": _name(value), **_facts(attributes, depth - 1)} if attributes else _name(value)


def _name(value: Any) -> str:
    """Return the name of a function or of an object's class; those from elsewhere with where."""
    named = value if hasattr(value, "__qualname__") else type(value)
    module, name = getattr(named, "__module__", None) or "", named.__qualname__
    known = module.split(".")[0] in ("threefactor", "torch", "builtins", "")
    return str(name) if known else f"{module}.{name}"


def _tensors(values: Mapping[str, Any]) -> str:
    """Return a digest of the tensors of a state."""
    total = hashlib.sha256()
    for name, value in _flat(values):
        total.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        flat: Any = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        total.update(flat)
    return total.hexdigest()[:16]


def _flat(values: Mapping[str, Any]) -> Iterable[tuple[str, Tensor]]:
    return ((str(key), value) for key, value in values.items() if isinstance(value, Tensor))


def _sum(facts: Any) -> str:
    """Return a digest of plain values."""
    if dataclasses.is_dataclass(facts) and not isinstance(facts, type):
        facts = dataclasses.asdict(facts)
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()
