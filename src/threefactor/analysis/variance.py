"""Variance of the gradients of batches, layer by layer (OPZO, figure 2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threefactor.analysis.batches import (
    AnyRule,
    Batch,
    check_rule,
    gradients,
    learn,
    pairs,
    undisturbed,
)
from threefactor.analysis.records import Record
from threefactor.errors import InputError, unknown_name

__all__ = ["GradientVariance", "LayerVariance", "RunningVariance", "gradient_variance"]


class RunningVariance:
    """Mean and variance of vectors that come one by one (Welford): keeps one vector in memory.

    Attributes:
        count: how many vectors there were.
        mean: their mean; None before the first.
        squares: sum of their squared distances from the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.squares = 0.0
        self.mean: Tensor | None = None

    def add(self, vector: Tensor) -> None:
        """Add one vector."""
        self.count += 1
        if self.mean is None:
            self.mean = vector.clone()
            return
        change = vector - self.mean
        self.squares += _squared_norm(change) * (self.count - 1) / self.count
        self.mean.add_(change, alpha=1.0 / self.count)


def _squared_norm(vector: Tensor) -> float:
    """Return the sum of squares, computed in double precision."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64)) ** 2


@dataclass(frozen=True)
class LayerVariance(Record):
    """Variance of one layer's gradient over batches.

    Attributes:
        elements: how many numbers the layer's gradient has.
        batches: how many batches it was measured on.
        variance: mean over batches and elements of (g_i - mean g)^2.
        mean_square: mean over elements of (mean g)^2.
        relative: variance / mean_square, which does not depend on the scale of the gradient; None
            if the mean gradient is zero.
        vacuous: whether the gradient was zero in every batch. Such a layer learns nothing, and its
            variance of 0 says nothing about the rule.
    """

    elements: int
    batches: int
    variance: float
    mean_square: float
    relative: float | None
    vacuous: bool


@dataclass(frozen=True)
class GradientVariance(Record):
    """Variances by rule and layer: `rules["opzo"]["linear1"].variance`."""

    rules: dict[str, dict[str, LayerVariance]]

    def ratio(self, rule: str, to: str, layer: str) -> float | None:
        """Return the variance of `rule` divided by that of `to` in a layer.

        None if one of the gradients was zero in every batch, or that of `to` has no variance.

        Raises:
            ConfigurationError: if a name is not among those measured.
        """
        for name in (rule, to):
            if name not in self.rules:
                raise unknown_name("rule in this measurement", name, self.rules)
            if layer not in self.rules[name]:
                raise unknown_name("layer", layer, self.rules[name])
        one, other = self.rules[rule][layer], self.rules[to][layer]
        if one.vacuous or other.vacuous or other.variance == 0.0:
            return None
        return one.variance / other.variance


def gradient_variance(
    rules: Mapping[str, AnyRule],
    batches: Iterable[Batch],
    *,
    steps: int | None = None,
    warmup: Iterable[Batch] = (),
) -> GradientVariance:
    r"""Measure the variance of every layer's gradient over batches, with constant weights.

    .. math:: \frac{1}{K n} \sum_{i=1}^{K} \lVert g_i - \bar g \rVert^2

    for K batches and n elements. All rules see the same batches. Welford's method needs memory for
    one mean gradient of each rule. Networks, gradients, feedback and random generators are
    afterwards as they were. Dropout acts if the network is in training mode: call `network.eval()`
    to switch it off.

    Args:
        rules: by a name of your choice, each built on a network, usually the same one.
        batches: at least two pairs of inputs and targets, of equal size.
        steps: T, for constant inputs of clocked networks.
        warmup: batches on which rules learn their feedback before the measurement. The feedback of
            OPZO and SFDFA starts at zero, so their first gradients are zero, too. Rules whose
            feedback a step does not change skip these batches.

    Raises:
        InputError: if there is no rule, there are fewer than two batches or some of another size,
            or a gradient is not finite.

    Example:
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> rules = {"bp": clocked.SpatialBP(net), "zo": clocked.ZO(net)}
        >>> data = [(torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])) for _ in range(4)]
        >>> found = gradient_variance(rules, data, steps=6)
        >>> found.rules["zo"]["linear1"].batches
        4

    Source: Xiao et al. 2026 (OPZO), figure 2 and appendix C.2.2; proposition 4.2.
    """
    if not isinstance(rules, Mapping) or not rules:
        raise InputError('no rule was given; give a dict such as {"opzo": rule}')
    for rule in rules.values():
        check_rule(rule)
    running: dict[str, dict[str, RunningVariance]] = {name: {} for name in rules}
    with undisturbed(*rules.values()):
        _warm_up(list(rules.values()), warmup, steps)
        count, size = 0, 0
        for count, batch in enumerate(pairs(batches), start=1):
            for name, rule in rules.items():
                for layer, vector in gradients(rule, batch, steps).items():
                    running[name].setdefault(layer, RunningVariance()).add(vector)
            size = size or len(batch[1])
            if len(batch[1]) != size:
                raise InputError(
                    f"batch {count} has {len(batch[1])} samples and those before it {size}; the "
                    "gradients of smaller batches vary more: give batches of one size, as "
                    "analysis.cut and DataLoader(..., drop_last=True) make them"
                )
    if count < 2:
        raise InputError(
            f"there were {count} batches; a variance needs at least 2, so give more samples "
            "(--samples of `threefactor analyse`) or smaller batches"
        )
    return GradientVariance(
        {
            rule: {layer: _summary(rule, layer, s) for layer, s in found.items()}
            for rule, found in running.items()
        }
    )


def _warm_up(rules: list[AnyRule], batches: Iterable[Batch], steps: int | None) -> None:
    """Let rules learn their feedback. Rules that the first batch does not change are left out."""
    for i, batch in enumerate(pairs(batches)):
        before = [copy.deepcopy(rule.state_dict()) for rule in rules] if i == 0 else []
        for rule in rules:
            learn(rule, *batch, steps)
        if i == 0:
            rules = [r for r, old in zip(rules, before, strict=True) if _changed(r, old)]


def _changed(rule: AnyRule, before: dict[str, Any]) -> bool:
    now = rule.state_dict()
    return any(
        not torch.equal(value, now[key])
        for key, value in before.items()
        if isinstance(value, Tensor)
    )


def _summary(rule: str, layer: str, running: RunningVariance) -> LayerVariance:
    assert running.mean is not None
    elements = running.mean.numel()
    variance = running.squares / (running.count * elements)
    mean_square = _squared_norm(running.mean) / elements
    if not (math.isfinite(variance) and math.isfinite(mean_square)):
        raise InputError(
            f"the gradient of layer {layer!r} by {rule!r} is not finite in some batch, so it has "
            "no variance; look at the weights or, with exact spike times, for hair triggers"
        )
    return LayerVariance(
        elements,
        running.count,
        variance,
        mean_square,
        variance / mean_square if mean_square > 0.0 else None,
        vacuous=variance == 0.0 and mean_square == 0.0,
    )
