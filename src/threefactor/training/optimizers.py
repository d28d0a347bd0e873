"""Optimisers and schedulers of PyTorch by name, their options checked and tried."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import torch
from torch import nn
from torch.optim import lr_scheduler

from threefactor.errors import ConfigurationError, unknown_name
from threefactor.readable import clipped
from threefactor.training import schedulers
from threefactor.training.arguments import checked_value
from threefactor.training.memory import of_hardware
from threefactor.training.settings import OptimizerSettings, Settings

__all__ = ["call", "make_optimizer", "make_scheduler", "step_scheduler"]

LEFT_OUT = (
    *("LBFGS", "SparseAdam"),
    *("LambdaLR", "MultiplicativeLR", "ChainedScheduler", "SequentialLR"),
)
"""These need more than a dense gradient at each step, or options that JSON lacks."""

TRIED_EPOCHS = 10_000  # of a scheduler, in a tenth of a second


def make_optimizer(
    given: OptimizerSettings, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make an optimiser, after trying another one of its kind on a small matrix.

    Raises:
        ConfigurationError: for a name that is not known, or options that it cannot work with.
    """
    known = _classes(torch.optim, torch.optim.Optimizer)
    if given.name not in known:
        raise unknown_name("optimizer", given.name, known)
    kind, what = known[given.name], f"optimizer {given.name!r}"
    options = _checked(kind, what, given.options, {"params", "lr"})
    if "fused" in _accepted(kind) and not {"fused", "foreach"} & set(options):
        options["fused"] = True  # one pass over the weights: a tenth of the time on a CPU
    chosen = list(parameters)
    trial = nn.Parameter(torch.zeros_like(chosen[0][:1])) if chosen else _nothing()
    tried = call(kind, what, [trial], lr=given.lr, **options)
    trial.grad = torch.ones_like(trial)
    call(tried.step, what)  # some options fail here, which is after a run folder was made
    return call(kind, what, chosen, lr=given.lr, **options)  # type: ignore[no-any-return]


def make_scheduler(
    settings: Settings, optimizer: torch.optim.Optimizer
) -> lr_scheduler.LRScheduler | None:
    """Make a scheduler, after trying another one of its kind over all epochs.

    Raises:
        ConfigurationError: for a name that is not known, options that it cannot work with, or a
            learning rate that becomes negative or infinite.
    """
    given, epochs = settings.scheduler, settings.epochs
    if given.name is None:
        return None
    known = {
        **_classes(lr_scheduler, lr_scheduler.LRScheduler),
        **_classes(schedulers, lr_scheduler.LRScheduler),
    }
    if given.name not in known:
        raise unknown_name("scheduler", given.name, known)
    kind, what = known[given.name], f"scheduler {given.name!r}"
    plain = {key: epochs if value == "epochs" else value for key, value in given.options.items()}
    if kind is lr_scheduler.ReduceLROnPlateau and "mode" in plain:
        raise ConfigurationError(f"{what} goes by a loss, lower is better; leave mode out")
    options = _checked(kind, what, plain, {"optimizer", "mode"})
    trial = make_optimizer(settings.optimizer, [_nothing()])
    tried = call(kind, what, trial, **options)
    trial.step()
    for epoch in range(1, min(epochs, TRIED_EPOCHS) + 1):
        call(step_scheduler, what, tried, 1.0)
        for group in trial.param_groups:
            if not (math.isfinite(group["lr"]) and group["lr"] >= 0):
                raise ConfigurationError(
                    f"{what} with {clipped(given.options)} makes the learning rate "
                    f"{float(group['lr']):g} after epoch {epoch}; give other scheduler.options"
                )
    return call(kind, what, optimizer, **options)  # type: ignore[no-any-return]


def step_scheduler(scheduler: lr_scheduler.LRScheduler, loss: float) -> None:
    """Take a scheduler to the next epoch.

    Args:
        scheduler: any of PyTorch.
        loss: of the epoch that is done, for `ReduceLROnPlateau`.
    """
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


def call(function: Any, what: str, *args: Any, **options: Any) -> Any:
    """Call a function whose errors about its options may be of any kind.

    Raises:
        ConfigurationError: instead of the error of the function.
    """
    try:
        return function(*args, **options)
    except ConfigurationError:
        raise
    except Exception as problem:  # PyTorch's classes check little, and fail in many ways
        if of_hardware(problem) is not None:
            raise
        usual = isinstance(problem, (TypeError, ValueError))
        why = str(problem) if usual else f"{type(problem).__name__}: {problem}"
        raise ConfigurationError(f"{what} does not accept its options: {why}") from problem


def _nothing() -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(1, 1))
    parameter.grad = torch.zeros(1, 1)
    return parameter


def _accepted(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.__init__).parameters


def _checked(kind: Any, what: str, given: Mapping[str, Any], own: set[str]) -> dict[str, Any]:
    """Return options of the types that a class of PyTorch declares, lists as tuples."""
    own = {*own, "self", "args", "kwargs"}
    known = [name for name in _accepted(kind) if name not in own]
    try:
        types = get_type_hints(kind.__init__)
    except Exception:  # an annotation that this version of PyTorch cannot resolve
        types = {}
    found = {}
    for key, value in given.items():
        if key == "lr" and "lr" in own:
            raise ConfigurationError(
                f"{what} gets its learning rate from optimizer.lr; leave lr out of its options"
            )
        if key not in known:
            raise unknown_name(f"option of {what}:", key, known)
        found[key] = checked_value(what, key, value, types.get(key, Any))
    return found


def _classes(module: Any, base: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
        if name not in LEFT_OUT and not name.startswith("_")
    }
