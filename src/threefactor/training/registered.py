"""Networks, data and losses that users registered: made of settings, and described."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.clocked.losses import Loss
from threefactor.data import DATASETS, Inputs, OwnData
from threefactor.data.own.folder import named
from threefactor.data.own.kinds import KINDS
from threefactor.data.samples.labelled import LabelledData
from threefactor.errors import ConfigurationError, InputError, ThreefactorError, warn_user
from threefactor.options import Option, options_of
from threefactor.plugins import registry
from threefactor.plugins.loading import told
from threefactor.readable import clipped
from threefactor.training.arguments import checked_arguments, plain_defaults
from threefactor.training.settings import (
    DataSettings,
    RegisteredLossSettings,
    RegisteredNetworkSettings,
    Settings,
)

__all__ = [
    "load_registered",
    "registered_loss",
    "registered_network",
    "registered_options",
    "with_defaults",
]

GIVEN: Mapping[registry.Kind, tuple[str, ...]] = {
    "network": ("input_shape", "outputs"),
    "data": registry.GIVEN_TO_DATA,
    "loss": ("output", "targets"),
}
"""What the experiment gives to a part; the other arguments are its options."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}
MOST_CLASSES = 100_000  # of which it is looked at whether each has a sample
registry.reserve("data", DATASETS)
registry.provide("data", KINDS)
registry.provide("loss", clocked.TORCH_LOSSES)


def registered_options(settings: Settings) -> dict[str, dict[str, Option]]:
    """Return the options of the registered parts that settings name, by group."""
    return {group: _options(group, one) for group, one in _named(settings).items()}


def with_defaults(settings: Settings) -> Settings:
    """Return settings in which every option of a registered part is written out."""
    changes = {}
    for group, options in registered_options(settings).items():
        part = getattr(settings, group)
        whole = {**plain_defaults(options), **part.options}
        changes[group] = dataclasses.replace(part, options=whole)
    return dataclasses.replace(settings, **changes) if changes else settings


def registered_network(given: RegisteredNetworkSettings, samples: Any) -> nn.Module:
    """Build a registered network for data.

    Raises:
        ConfigurationError: if it is not registered here, does not take its options, fails, or
            gives something else than a module.
    """
    one = _entry("network", given.kind)
    if one.engine != given.engine:
        raise ConfigurationError(
            f"network {given.kind!r} is registered for the engine {one.engine!r}, and the settings "
            f"say {given.engine!r}"
        )
    options = checked_arguments(_what(one), given.options, _options("network", one))
    made = _call(one, tuple(samples.input_shape), samples.outputs, **options)
    if not isinstance(made, nn.Module):
        raise ConfigurationError(f"{_what(one)} gave {clipped(made)}; return a torch.nn.Module")
    return made


def registered_loss(given: RegisteredLossSettings) -> Loss:
    """Make a registered loss.

    Raises:
        ConfigurationError: if it is not registered here, does not take its options, or fails.
    """
    one = _entry("loss", given.kind)
    options = checked_arguments(_what(one), given.options, _options("loss", one))
    if isinstance(one.made, type):
        return _call(one, **options)  # type: ignore[no-any-return]
    return clocked.from_autograd(partial(one.made, **options) if options else one.made)


def load_registered(
    settings: Settings, data_dir: str | Path | None, room: int | None = None
) -> LabelledData[Any] | None:
    """Load the data of settings, if a function that loads it is registered; else None.

    Args:
        settings: of the run.
        data_dir: see `threefactor.data.data_folder`.
        room: bytes that the samples may take in memory; None for no limit.

    Raises:
        ConfigurationError: if the function does not take its options, or fails.
        InputError: if it returns something else than it should.
    """
    given = settings.data
    one = registry.entry("data", given.name)
    if one is None:
        if given.options:
            raise ConfigurationError(
                f"data.options are {clipped(given.options)}, and data {given.name!r} is not "
                "registered here; name its --plugin, or leave them out"
            )
        return None
    options = checked_arguments(_what(one), given.options, _options("data", one))
    known = {
        "data_dir": None if data_dir is None else Path(data_dir),
        "steps": settings.steps,
        "dtype": DTYPES[settings.dtype],
        "window": given.window,
        "sort": given.sort,
        "room": room,
    }
    asked = options_of(one.made).keys() & known.keys()
    _refuse_unused(given, asked)
    found = _call(one, **{key: known[key] for key in asked}, **options)
    samples = _as_data(one, found, DTYPES[settings.dtype])
    steps = getattr(samples, "steps", None)
    if steps is not None and steps != settings.steps:
        raise ConfigurationError(
            f"{_what(one)} has {steps} frames a sample, and steps is {settings.steps}; give --set "
            f"steps={steps}, or make as many as its argument `steps` says"
        )
    return samples


def _named(settings: Settings) -> dict[registry.Kind, registry.Entry]:
    """Return the registered parts of settings, as far as they are registered here."""
    groups: Mapping[registry.Kind, str] = {
        "data": settings.data.name,
        "network": settings.network.kind,
        "loss": settings.loss.kind,
    }
    found = {group: registry.entry(group, name) for group, name in groups.items()}
    return {group: one for group, one in found.items() if one is not None}


def _options(kind: registry.Kind, one: registry.Entry) -> dict[str, Option]:
    given = () if kind == "loss" and isinstance(one.made, type) else GIVEN[kind]
    found = options_of(one.made)
    if kind != "data":  # its first arguments, whatever they are called
        given = tuple(found)[: len(given)]
    return {key: option for key, option in found.items() if key not in given}


def _entry(kind: registry.Kind, name: str) -> registry.Entry:
    found = registry.entry(kind, name)
    if found is None:
        raise ConfigurationError(
            f"{kind} {name!r} is not registered here; name the plugin that does with --plugin, or "
            "import it before"
        )
    return found


def _what(one: registry.Entry) -> str:
    return f"{one.kind} {one.name!r}"


def _call(one: registry.Entry, *given: Any, **options: Any) -> Any:
    """Call code of the user's own, whose errors may be of any kind."""
    try:
        return one.made(*given, **options)
    except ThreefactorError:
        raise
    except Exception as problem:
        raise ConfigurationError(f"{_what(one)} failed: {told(problem)}") from problem


def _refuse_unused(given: DataSettings, asked: set[str]) -> None:
    """Refuse settings of data that a registered function would not see."""
    for key in sorted({"window", "sort"} - asked):
        value = getattr(given, key)
        if value != getattr(DataSettings, key):
            raise ConfigurationError(
                f"data.{key} is {value}, which data {given.name!r} does not ask for; leave it out, "
                f"or give the function that loads it an argument {key!r}"
            )


def _as_data(one: registry.Entry, found: Any, dtype: torch.dtype) -> LabelledData[Any]:
    if isinstance(found, LabelledData):
        return found
    pairs = found if isinstance(found, (tuple, list)) else None
    if pairs is None and hasattr(found, "train") and hasattr(found, "test"):
        pairs = (found.train, found.test)
    if pairs is None or len(pairs) != 2:
        raise InputError(
            f"{_what(one)} gave {type(found).__name__}; return ((inputs, targets), (inputs, "
            "targets)) for training and testing, or an object with such pairs as train and test"
        )
    train, test = (
        _pair(one, part, pair, dtype) for part, pair in zip(("train", "test"), pairs, strict=True)
    )
    classes = tuple(map(str, getattr(found, "classes", None) or ()))
    outputs = getattr(found, "outputs", None) or len(classes) or _outputs(one, train[1], test[1])
    shape, steps = getattr(found, "input_shape", None), getattr(found, "steps", None)
    held = getattr(found, "validation", None)
    return OwnData(
        *train,
        *test,
        name=one.name,
        input_shape=tuple(_shape(one, train[0]) if shape is None else shape),
        output_count=int(outputs),
        classes=classes,
        steps=None if steps is None else int(steps),
        validation=None if held is None else _pair(one, "validation", held, dtype),
    )


def _pair(one: registry.Entry, part: str, given: Any, dtype: torch.dtype) -> tuple[Any, Tensor]:
    """Return inputs and targets of a part, floating numbers in the type of the network."""
    if not (isinstance(given, (tuple, list)) and len(given) == 2):
        raise InputError(
            f"{part} of {_what(one)} is {type(given).__name__}; give a pair of inputs and targets"
        )
    inputs, targets = given
    if not isinstance(targets, Tensor):
        raise InputError(
            f"targets of {part} of {_what(one)} are {type(targets).__name__}; give a torch.Tensor "
            "of one target for each sample"
        )
    plain = (list, tuple, dict, np.ndarray)  # a list of positions gives no batch of these
    if not isinstance(inputs, Inputs) or isinstance(inputs, plain):
        raise InputError(
            f"inputs of {part} of {_what(one)} are {type(inputs).__name__}; give a torch.Tensor, a "
            "SpikeBatch, or an object that data.Inputs describes"
        )
    if len(inputs) != len(targets) or not len(targets):
        raise InputError(
            f"{part} of {_what(one)} has {len(inputs)} inputs and {len(targets)} targets; give one "
            "target for each input, and one input at least"
        )
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    return inputs, targets


def _outputs(one: registry.Entry, train: Tensor, test: Tensor) -> int:
    """Return how many outputs targets have: one for each class, or for each number of a target."""
    if train.dim() != 1 or train.is_floating_point():
        return train[0].numel()
    number = max(int(part.max()) for part in (train, test)) + 1
    missing = sorted(set(range(number)) - set(train.tolist())) if number <= MOST_CLASSES else []
    if missing:
        warn_user(
            f"no sample for training of {_what(one)} has the label {named(map(str, missing))}, so "
            f"of {number} outputs, 0 to {number - 1}, not all are learned: number the classes from "
            "0 on without gaps; or return an object with train, test and outputs, as many as are "
            "meant"
        )
    return number


def _shape(one: registry.Entry, inputs: Any) -> tuple[int, ...]:
    if isinstance(inputs, Tensor):
        return tuple(inputs.shape[1:])
    if isinstance(inputs, events.SpikeBatch):
        return (inputs.size,)
    raise InputError(
        f"{_what(one)} does not say the shape of a sample; return an object with train, test, "
        "input_shape and outputs"
    )
