"""Gradients of single batches, with a rule and its network left as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from threefactor import clocked, events
from threefactor.errors import InputError
from threefactor.training.evaluation import evaluating

__all__ = ["AnyRule", "Batch", "cut", "evaluating", "gradients", "learn", "undisturbed"]

AnyRule = clocked.Rule | events.Rule
Batch = tuple[Any, Tensor]
"""Inputs, as the rule's `step` takes them, and targets."""


def cut(inputs: Any, labels: Tensor, size: int, samples: int | None = None) -> Iterator[Batch]:
    """Cut a data set into batches, in its own order.

    Args:
        inputs: N samples that can be indexed by a slice: images, frames, a `SpikeBatch`.
        labels: (N,) class labels.
        size: samples per batch; a rest that does not fill a batch is left out.
        samples: how many samples to take at most; None for all.

    Raises:
        InputError: if there is not one full batch.

    Example:
        >>> [len(y) for _, y in cut(torch.rand(7, 4), torch.zeros(7, dtype=torch.int64), 3)]
        [3, 3]
    """
    total = len(labels) if samples is None else min(samples, len(labels))
    if not 1 <= size <= total:
        raise InputError(
            f"a batch of {size} cannot be cut from {total} samples; give a smaller batch size or "
            "more samples"
        )
    # A part of a batch would have a variance of its own.
    starts = range(0, total - size + 1, size)
    return ((inputs[i : i + size], labels[i : i + size]) for i in starts)


def learn(rule: AnyRule, inputs: Any, targets: Tensor, steps: int | None) -> None:
    """Let a rule of either engine add the gradients of a batch to `.grad`.

    Raises:
        InputError: if `steps` is given for a network that has no time grid.
    """
    if isinstance(rule, clocked.Rule):
        rule.step(inputs, targets, steps=steps)
        return
    check_no_steps(steps)
    rule.step(inputs, targets)


def check_no_steps(steps: int | None) -> None:
    """Refuse a number of time steps for a network of exact spike times."""
    if steps is not None:
        raise InputError(
            f"steps is {steps}, but a network of exact spike times has no time grid; leave it out"
        )


def gradients(rule: AnyRule, batch: Batch, steps: int | None) -> dict[str, Tensor]:
    """Return the gradient of one batch: a flat vector for every layer that has parameters.

    A layer is a module with trainable parameters of its own; all of them (weights, bias, gain)
    make up its vector. The `.grad` that were there are lost: call it within `undisturbed`.
    """
    for parameter in (*rule.network.parameters(), *rule.parameters()):
        parameter.grad = None
    learn(rule, *batch, steps)
    found: dict[str, Tensor] = {}
    for name, module in rule.network.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in own]
        if parts:
            found[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    if not found:
        raise InputError("the network has no trainable parameters, so there is no gradient")
    return found


@contextmanager
def undisturbed(*rules: AnyRule) -> Iterator[None]:
    """Restore gradients, what the rules learned, and all random generators at the end."""
    parameters = {
        id(p): p for rule in rules for p in (*rule.network.parameters(), *rule.parameters())
    }
    kept = [(p, p.grad) for p in parameters.values()]
    states = [(rule, copy.deepcopy(rule.state_dict())) for rule in rules]
    own = [(g, g.get_state()) for rule in rules for g in _generators(rule)]
    for parameter, _ in kept:
        parameter.grad = None  # or rules would add to the tensors that are kept
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for parameter, grad in kept:
            parameter.grad = grad
        for rule, state in states:
            rule.load_state_dict(state)
        for generator, generator_state in own:
            generator.set_state(generator_state)


def _generators(rule: AnyRule) -> Iterable[torch.Generator]:
    """The generators of a rule's own, if it does not use the global one."""
    for owner in (rule, rule.perturbation):
        generator = getattr(owner, "generator", None)
        if generator is not None:
            yield generator
