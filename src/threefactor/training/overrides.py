"""Settings with some fields replaced, by the names that people give."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_type_hints

from threefactor.errors import ConfigurationError, plain_letters, unknown_name
from threefactor.readable import clipped
from threefactor.training.settings import (
    ClockedNetworkSettings,
    ConvNetworkSettings,
    EventNetworkSettings,
    ResNetSettings,
    Settings,
    StoppingSettings,
    TrackSettings,
    make_settings,
)

__all__ = ["full_name", "override", "parse_assignment", "parse_value"]

OTHER_NAMES = {
    "learningrate": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "minibatch": "batch_size",
    "numepochs": "epochs",
    "nepochs": "epochs",
    "maxepochs": "epochs",
    "t": "steps",
    "timesteps": "steps",
    "numsteps": "steps",
    "nsteps": "steps",
    "randomseed": "seed",
    "precision": "dtype",
    "layers": "hidden",
    "hiddensize": "hidden",
    "hiddensizes": "hidden",
    "hiddenlayers": "hidden",
    "neurons": "hidden",
    "units": "hidden",
    "beta": "leak",
    "decay": "leak",
    "vth": "threshold",
    "vthreshold": "threshold",
    "tau": "tau_s",
    "taum": "tau_s",
    "droprate": "dropout",
    "dropoutrate": "dropout",
    "pdrop": "dropout",
    "noise": "hardware_noise",
}
"""Names that people know from elsewhere, without hyphens, and those of the settings."""


LEFT_OUT = {"stopping": StoppingSettings, "track": TrackSettings}
"""Groups that are None by default."""
OF_PYTORCH = ("optimizer.options", "scheduler.options")
"""Options by full name, which the classes of PyTorch know; they are checked when these are made."""


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split "key=value"; the value is read as JSON, or else as a string.

    >>> parse_assignment("hidden=[100, 50]")
    ('hidden', [100, 50])
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"cannot read {clipped(text)}; write --set key=value")
    try:
        return key.strip(), parse_value(value)
    except ConfigurationError as problem:
        raise ConfigurationError(f"cannot read {clipped(text)} ({problem})") from None


def parse_value(text: str) -> Any:
    """Read a value as JSON, or else as a string."""
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    except (ValueError, RecursionError) as problem:  # thousands of digits or of brackets
        raise ConfigurationError(str(problem)) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of names, of which JSON would keep the last value of one that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"{clipped(twice)} is given twice; give it once")
    return found


def override(
    settings: Settings, changes: Mapping[str, Any], options: Iterable[str] = ()
) -> Settings:
    """Return settings with some fields replaced.

    Args:
        settings: where to start.
        changes: by full name ("network.dropout") or, where only one field has it, by its last
            part ("dropout"); or a whole group ("loss": {"kind": "first-spike"}).
        options: further full names that are accepted, such as those of the rule's options
            ("rule.options.momentum").

    A new kind of network ("network.kind") keeps the fields that it has in common with the old one,
    a new kind of loss none; the other changes are to the fields of the new kind. Options of
    registered data do not outlive a change of "data.name", nor does the scheduler's "T_max" one of
    "scheduler.name". Of a whole group and one of its fields, the field counts, in whatever order.

    Raises:
        ConfigurationError: for a name that is not known, not unique or there twice, or a bad value.
    """
    values = dataclasses.asdict(settings)
    network, loss = changes.get("network.kind"), changes.get("loss.kind")
    if network not in (None, settings.network.kind):
        values["network"] = {**_common(values["network"], network), "kind": network}
        settings = make_settings(values)
    if loss not in (None, settings.loss.kind):
        values["loss"] = {"kind": loss}
        settings = make_settings(values)
    if changes.get("data.name") not in (None, settings.data.name):
        values["data"]["options"] = {}  # those of other data
    if changes.get("scheduler.name") not in (None, settings.scheduler.name):
        values["scheduler"]["options"].pop("T_max", None)  # CosineAnnealingLR's alone
    options, given = list(options), dict[str, str]()
    for key in changes:
        full = full_name(key, settings, options)
        if full in given:
            raise ConfigurationError(f"{full} is given twice, as {given[full]!r} and as {key!r}")
        given[full] = key
    for full in sorted(given, key=lambda name: name.count(".")):  # groups before their fields
        value = changes[given[full]]
        *groups, last = full.split(".")
        place: Any = values
        for group in groups:
            if place.get(group) is None:  # a group that is left out by default
                place[group] = {}
            place = place[group]
            if not isinstance(place, dict):
                raise ConfigurationError(
                    f"{group} is {clipped(place)}, which has no {last}; give its fields by name"
                )
        place[last] = copy.deepcopy(value)  # to which a field may be put, and it is the caller's
    made = make_settings(values)
    idle = [full for full in given if full.startswith("scheduler.options")]
    if idle and made.scheduler.name is None and made.scheduler.options:
        raise ConfigurationError(
            f"{idle[0]} is given and scheduler.name is null; give both or none"
        )
    return made


def _common(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return the fields of a network that another kind has, too."""
    classes = (ClockedNetworkSettings, ConvNetworkSettings, ResNetSettings, EventNetworkSettings)
    found = [one for one in classes if kind in get_args(get_type_hints(one)["kind"])]
    names = {field.name for one in found for field in dataclasses.fields(one)}
    return {key: value for key, value in values.items() if key in names}


def full_name(key: str, settings: Settings, named: Sequence[str]) -> str:
    """Return the full name of a setting that people give by a part of it.

    Args:
        key: as given.
        settings: that have it.
        named: further full names that are accepted.

    Raises:
        ConfigurationError: if there is none, or more than one.
    """
    fields = list(_field_names(settings))
    # An option by its group, as rule.momentum, where the group itself has no such field.
    group, _, last = key.rpartition(".")
    if group and f"{group}.options.{last}" in named and key not in fields:
        return f"{group}.options.{last}"
    if (
        key in fields
        or key in named
        or key in {field.name for field in dataclasses.fields(settings)}
        or (group in OF_PYTORCH and last)
    ):
        return key
    matches = [full for full in (*fields, *named) if full.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigurationError(f"{key!r} is not unique; write one of {', '.join(matches)}")
    known = {full.rpartition(".")[2] if "." not in key else full for full in (*fields, *named)}
    other = OTHER_NAMES.get(plain_letters(last))
    meant = {other, f"{group}.{other}"} & known if other else set()
    raise unknown_name("setting", key, known, next(iter(meant), None))


def _field_names(settings: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in LEFT_OUT and value is None:
            value = LEFT_OUT[field.name]()  # its fields can be set all the same
        if dataclasses.is_dataclass(value):
            yield from _field_names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
