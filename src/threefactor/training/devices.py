"""Which device a training gets: the one that is named, or the one that `auto` picks."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from threefactor.errors import ConfigurationError
from threefactor.processes import World
from threefactor.readable import clipped, readable
from threefactor.training.engines import Engine, engine_of
from threefactor.training.registered import DTYPES
from threefactor.training.settings import Settings

__all__ = ["AUTO", "Chosen", "check_device", "choose_device"]

AUTO = "auto"


@dataclass(frozen=True)
class Chosen:
    """The device of a process.

    Attributes:
        device: its name, as "cpu" or "cuda:0".
        why: why `auto` picked it, or what it is; empty if it was named.
    """

    device: str
    why: str = ""


def choose_device(given: str, settings: Settings, world: World | None = None) -> Chosen:
    """Return the device on which to train or run, once it is known to compute.

    `auto` picks a GPU of CUDA if there is one and the engine can use it, else the CPU. Several
    processes that train together get GPUs of their own from `auto` and "cuda", and from `auto` all
    of them the CPU if one of them would have no GPU.

    Args:
        given: the name of a device, or "auto".
        settings: of the run.
        world: processes that all ask for a device; None for no others.

    Raises:
        ConfigurationError: if the device is not there or cannot be used; says what there is.
    """
    given, world = str(given), World(meet=False) if world is None else world
    engine, dtype = engine_of(settings), DTYPES[settings.dtype]
    if given == AUTO:
        return _picked(engine, dtype, world)
    if world.size > 1 and given == "cuda":
        given = f"cuda:{world.local_rank}"
    elif _beside(world) > 1 and given.startswith("cuda:") and given != f"cuda:{world.local_rank}":
        raise ConfigurationError(
            f"device is {given!r}, and {_beside(world)} processes of this machine train together, "
            "each on a GPU of its own: give cuda"
        )
    check_device(given, engine, dtype)
    return Chosen(given)


def check_device(given: str, engine: Engine, dtype: torch.dtype = torch.float32) -> None:
    """Refuse a device on which the networks of an engine cannot run, or that is not there.

    Args:
        given: its name.
        engine: of the networks.
        dtype: of weights and data.

    Raises:
        ConfigurationError: says what there is.
    """
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError, ValueError):
        raise _refusal(given, "PyTorch knows no device of this name") from None
    if engine.device_type not in (None, device.type):
        raise ConfigurationError(
            f"device is {clipped(given)}; event-driven networks run on the CPU: leave it out"
        )
    lacking = _lacking_cuda() if device.type == "cuda" else None
    if lacking is None and device.type == "cuda" and device.index is not None:
        known = device.index < torch.cuda.device_count()
        lacking = None if known else "there is no GPU of this number"
    if device.type == "meta":
        lacking = "it has shapes and no values"
    if lacking is not None:
        raise _refusal(given, lacking)
    try:
        # Metrics are summed in double precision, which some devices do not have.
        (torch.ones(2, device=device, dtype=dtype) + 1).double().cpu()
    except Exception as problem:  # each device is missing in its own way
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        reason = readable(reason.partition(". ")[0])
        raise _refusal(given, f"PyTorch does not compute on it ({reason})") from problem


def _picked(engine: Engine, dtype: torch.dtype, world: World) -> Chosen:
    if engine.device_type is not None:
        return Chosen(engine.device_type, "event-driven networks run on the CPU")
    lacking, beside = _lacking_cuda(), _beside(world)
    if lacking is None and beside > torch.cuda.device_count():
        lacking = f"there are {torch.cuda.device_count()} GPUs for {beside} processes"
    index = world.local_rank if world.size > 1 else 0
    if lacking is None:
        try:
            check_device(f"cuda:{index}", engine, dtype)
        except ConfigurationError as problem:
            lacking = str(problem)
    if bool(world.gather([float(lacking is not None)]).any()):  # all of them compute on one kind
        return Chosen("cpu", lacking or "another process has no GPU")
    return Chosen(f"cuda:{index}", torch.cuda.get_device_name(index))


def _lacking_cuda() -> str | None:
    """Say why there is no GPU that PyTorch can use; None if there is one."""
    version = torch.__version__
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({version}) is built without CUDA; pytorch.org has builds with it"
    if not torch.cuda.is_available():
        return (
            f"this PyTorch ({version}) sees no GPU; nvidia-smi lists those that the driver sees, "
            "and CUDA_VISIBLE_DEVICES may hide some"
        )
    return None


def _beside(world: World) -> int:
    """Return how many of the processes are on this machine."""
    return 1 if world.size == 1 else int(os.environ.get("LOCAL_WORLD_SIZE") or world.size)


def _there() -> str:
    """Name the devices of this machine on which networks can be trained."""
    count = 0 if _lacking_cuda() is not None else torch.cuda.device_count()
    return ", ".join(
        ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count))]
    )


def _refusal(given: object, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"device {clipped(given)} cannot be used: {why}. Devices here: {_there()}; give one of "
        "them, or auto"
    )
