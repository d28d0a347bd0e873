"""How gradients reach the parameters: all of a batch, or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from threefactor.errors import InputError
from threefactor.events.layer import Activity, array_of
from threefactor.processes import World

__all__ = ["can_learn", "collected", "give"]

Gradient = tuple[Activity, Tensor]


class _Pending(threading.local):
    gradients: list[Gradient] | None = None


_PENDING = _Pending()


def can_learn(activity: Activity) -> bool:
    """Whether the weights that a layer used are to learn; those that are frozen are not.

    Raises:
        InputError: if they are not a tensor that can hold a gradient.
    """
    weight = activity._weight
    if not weight.requires_grad:
        return False
    if not weight.is_leaf or weight.is_inference():
        how = "made in inference mode" if weight.is_leaf else "computed from other tensors"
        raise InputError(f"weight of a layer is {how}; rules train weights that are parameters")
    return True


@contextmanager
def collected(world: World | None = None) -> Iterator[None]:
    """Keep what this thread gives until the end, then deliver all of it; nothing after an error.

    Args:
        world: processes over which the gradients are added up first.
    """
    before, _PENDING.gradients = _PENDING.gradients, []
    try:
        yield
        if world is not None:
            world.add([gradient for _, gradient in _PENDING.gradients])
        _deliver(_PENDING.gradients)
    finally:
        _PENDING.gradients = before


def give(activity: Activity, gradient: Tensor) -> None:
    """Deliver the gradient of the weights that a layer used, a tensor that is nobody else's."""
    if _PENDING.gradients is None:
        _deliver([(activity, gradient)])
    else:
        _PENDING.gradients.append((activity, gradient))


@torch.no_grad()
def _deliver(gradients: Sequence[Gradient]) -> None:
    """Add the gradients of weights to `.grad`, through the weights' hooks, as `backward` does.

    Whatever happens, either all gradients have been added or none.

    Raises:
        InputError: if a `.grad` that is there cannot be added to.
    """
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for activity, gradient in gradients:
        weight = activity._weight
        if id(weight) in found:  # a layer that is used twice
            found[id(weight)][1].add_(gradient)
        else:
            found[id(weight)] = weight, gradient
    plain = [pair for pair in found.values() if _is_plain(pair[0])]
    other = [pair for pair in found.values() if not _is_plain(pair[0])]
    fresh = [(weight, gradient) for weight, gradient in plain if weight.grad is None]
    added = [(weight.grad, gradient) for weight, gradient in plain if weight.grad is not None]
    for there, gradient in added:
        array_of("weight.grad", there, tuple(gradient.shape))
        if there.dtype != gradient.dtype:
            raise InputError(f"weight.grad is {there.dtype}, the weight {gradient.dtype}")
    with _as_before_on_error([weight for weight, _ in other]):
        if other:
            weights, gradients_of = zip(*other, strict=True)
            torch.autograd.backward(weights, gradients_of)
        try:
            for weight, gradient in fresh:
                weight.grad = gradient
            if added:
                # One call, so that no interruption comes between two layers.
                torch._foreach_add_([there for there, _ in added], [value for _, value in added])
        except BaseException:
            for weight, _ in fresh:
                weight.grad = None
            raise


def _is_plain(weight: Tensor) -> bool:
    """Whether a weight is a parameter without hooks, whose `.grad` nobody else has to see."""
    return not (weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None))


@contextmanager
def _as_before_on_error(parameters: Sequence[Tensor]) -> Iterator[None]:
    before = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]
    try:
        yield
    except BaseException:
        for parameter, grad, values in before:
            if grad is not None and values is not None:
                grad.copy_(values)
            parameter.grad = grad
        raise
