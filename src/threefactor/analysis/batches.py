"""Batches of a data set, and gradients of single batches that leave rule and network unchanged."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from threefactor import clocked, events
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.inputs import mapped
from threefactor.errors import InputError
from threefactor.modes import random_kept
from threefactor.readable import clipped

__all__ = [
    "NO_BATCH",
    "AnyRule",
    "Batch",
    "check_no_steps",
    "check_rule",
    "cut",
    "gradients",
    "learn",
    "pairs",
    "undisturbed",
]

AnyRule = clocked.Rule | events.Rule
Batch = tuple[Any, Tensor]
"""Inputs, as the rule's `step` takes them, and targets."""

NO_BATCH = "there was no batch; give at least one pair of inputs and targets"
"""What a measure says that was given no batch."""


def pairs(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches, checked.

    Raises:
        InputError: if one is no pair of inputs and targets.
    """
    advice = "give pairs of inputs and targets, as in [(x, y)] or a DataLoader"
    single = isinstance(batches, str | Mapping | Tensor)
    if single or not isinstance(batches, Iterable):
        raise InputError(f"batches are a {type(batches).__name__}; {advice}")
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise InputError(f"a batch is a {type(batch).__name__}{size}; {advice}")
        yield batch[0], batch[1]


def check_rule(rule: object) -> None:
    """Refuse what is no rule of either engine."""
    if not isinstance(rule, clocked.Rule | events.Rule):
        raise InputError(
            f"the rule is a {type(rule).__name__}; give one that was built on a network, as "
            "clocked.DFA(network) or events.SFDFA(network)"
        )


def cut(inputs: Any, labels: Tensor, size: int, samples: int | None = None) -> Iterator[Batch]:
    """Cut a data set into batches, in its own order.

    Args:
        inputs: N samples that can be indexed by a slice: images, frames, a `SpikeBatch`; a tuple
            or dict of such for a network with several inputs.
        labels: (N,) class labels.
        size: samples per batch. Samples at the end that do not fill a batch are left out.
        samples: how many samples to take at most; None for all.

    Raises:
        InputError: if there are fewer samples than one batch needs, or not as many as labels.

    Example:
        >>> [len(y) for _, y in cut(torch.rand(7, 4), torch.zeros(7, dtype=torch.int64), 3)]
        [3, 3]
    """
    if not isinstance(labels, Tensor) or not labels.dim():
        raise InputError(f"labels are a {type(labels).__name__}; give a tensor, (N, ...)")
    counts: set[int] = set()
    mapped(inputs, lambda x: counts.add(len(x) if _is_cut(x) else -1))
    if counts != {len(labels)}:
        raise InputError(
            f"there are {len(labels)} labels, and inputs are {clipped(inputs)}; give samples that "
            "can be cut, such as a tensor or a SpikeBatch, one for each label"
        )
    for name, number in (("size", size), ("samples", samples)):
        if type(number) is not int and not (name == "samples" and number is None):
            raise InputError(f"{name} is {clipped(number)}; give a whole number of samples")
    total = len(labels) if samples is None else min(samples, len(labels))
    if not 1 <= size <= total:
        raise InputError(
            f"a batch of {size} cannot be cut from {total} samples; give a smaller batch size or "
            "more samples"
        )
    # The gradient of a smaller batch would vary more.
    starts = range(0, total - size + 1, size)
    places = (slice(i, i + size) for i in starts)
    return ((mapped(inputs, itemgetter(place)), labels[place]) for place in places)


def _is_cut(samples: object) -> bool:
    return samples.dim() > 0 if isinstance(samples, Tensor) else isinstance(samples, Sized)


def learn(rule: AnyRule, inputs: Any, targets: Tensor, steps: int | None) -> None:
    """Let a rule of either engine add the gradients of a batch to `.grad`.

    Raises:
        InputError: if `steps` is given for a network of exact spike times.
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

    A layer is a module with trainable parameters of its own. Its vector is all of them: weights,
    bias, gain. Gradients that were in `.grad` before are lost: call it within `undisturbed`.

    Raises:
        InputError: if the network has no trainable parameters.
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
    """Restore gradients, what rules and norms learned, and all random generators at the end."""
    parameters = {
        id(p): p for rule in rules for p in (*rule.network.parameters(), *rule.parameters())
    }
    kept = [(p, p.grad) for p in parameters.values()]
    buffers = {id(b): (b, b.clone()) for rule in rules for b in _buffers_of(rule)}
    states = [(rule, copy.deepcopy(rule.state_dict())) for rule in rules]
    owners = [owner for rule in rules for owner in (rule, rule.perturbation)]
    given = [getattr(owner, "generator", None) for owner in owners]  # None: the global one
    generators = [(g, g.get_state()) for g in given if g is not None]
    for parameter, _ in kept:
        parameter.grad = None  # rules would add to the tensors that are kept
    try:
        with random_kept():
            yield
    finally:
        for parameter, grad in kept:
            parameter.grad = grad
        for buffer, value in buffers.values():
            buffer.copy_(value)
        for rule, state in states:
            rule.load_state_dict(state)
        for generator, before in generators:
            generator.set_state(before)


def _buffers_of(rule: AnyRule) -> list[Tensor]:
    """Return the buffers of a network that a step changes, such as the statistics of norms."""
    if not isinstance(rule, clocked.Rule):
        return []
    neurons = {
        getattr(layer, "module", layer)
        for _, layer in layers_of(rule.network)
        if isinstance(layer, clocked.Neuron)  # whose state a rule puts back
    }
    others = (m for m in rule.network.modules() if m not in neurons)
    return [b for module in others for b in module.buffers(recurse=False)]
