"""Convolutional and residual networks under ordinary autograd, for any rule: slow and obvious.

`Conv`, `Dense` and `Plain` replace the library's layers within a deep copy of its network; what
lies between them (residual sums, scalars, pooling) stays. Values come from the input, weight
gradients from the trace. `Conv` is written with `unfold` and the textbook formula of the
standardisation, and pools by reshaping. Which error reaches a layer is left to the NumPy formulas
of `reference.clocked`, on flattened layers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from reference import clocked as slow
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked


def pooled(x: Tensor, side: int) -> Tensor:
    b, c, h, w = x.shape
    x = x[:, :, : h // side * side, : w // side * side]
    return x.reshape(b, c, h // side, side, w // side, side).mean((3, 5))


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    rows = weight.flatten(1)
    var = rows.var(1, unbiased=False, keepdim=True) * rows.shape[1]
    rows = (rows - rows.mean(1, keepdim=True)) / torch.sqrt(var + 1e-4)
    return rows.view_as(weight) * gain


class Traced(nn.Module):
    """A synapse layer whose value comes from s and whose weight gradient comes from the trace."""

    def __init__(self, source: nn.Module, decay: float) -> None:
        super().__init__()
        self.source = copy.deepcopy(source)
        self.decay = decay
        self.trace: Tensor | float = 0.0

    def forward(self, s: Tensor) -> Tensor:
        s = self.prepare(s)
        if torch.is_grad_enabled():
            self.trace = self.decay * self.trace + s.detach()
            through_weight = self.product(self.trace, self.weight())
            value = self.product(s, self.weight().detach()) + self.bias()
            return value + through_weight - through_weight.detach()
        return self.product(s, self.weight()) + self.bias()


class Dense(Traced):
    def prepare(self, s: Tensor) -> Tensor:
        if s.dim() > 2:
            s = pooled(s, self.source.pool).flatten(1)
        return s

    def weight(self) -> Tensor:
        return self.source.weight

    def bias(self) -> Tensor | float:
        return 0.0 if self.source.bias is None else self.source.bias

    def product(self, s: Tensor, weight: Tensor) -> Tensor:
        return s @ weight.t()


class Conv(Dense):
    def prepare(self, s: Tensor) -> Tensor:
        return pooled(s, self.source.pool)

    def weight(self) -> Tensor:
        source = self.source
        return source.weight if source.gain is None else standardised(source.weight, source.gain)

    def bias(self) -> Tensor | float:
        return 0.0 if self.source.bias is None else self.source.bias.view(-1, 1, 1)

    def product(self, s: Tensor, weight: Tensor) -> Tensor:
        c = self.source
        patches = F.unfold(s, c.kernel_size, c.dilation, c.padding, c.stride)
        b, _, places = patches.shape
        groups = patches.reshape(b, c.groups, -1, places)
        rows = weight.reshape(c.groups, c.out_channels // c.groups, -1)
        out = torch.einsum("gok,bgkp->bgop", rows, groups)
        ends = zip(s.shape[2:], c.padding, c.dilation, c.kernel_size, c.stride, strict=True)
        size = [(n + 2 * p - d * (k - 1) - 1) // st + 1 for n, p, d, k, st in ends]
        return out.reshape(b, c.out_channels, *size)


class Plain(nn.Module):
    """LIF neurons under ordinary autograd, cut between the time steps; `cut` cuts layers, too."""

    def __init__(self, source: clocked.LIF, cut: bool, mask: Tensor | float) -> None:
        super().__init__()
        self.leak, self.threshold = source.leak, source.threshold
        self.width, self.mask, self.cut = source.surrogate_width, mask, cut
        self.state: dict[int, tuple[Any, Any]] = {}
        self.lane = 0  # 0 for the pass that is learned from, 1 for the second pass
        self.before: Tensor | float = 0.0
        self.after: Tensor | float = 0.0
        self.trace: Tensor | float = 0.0

    def forward(self, current: Tensor) -> Tensor:
        u, s = self.state.get(self.lane, (0.0, 0.0))
        before, after = (_shaped(noise, current) for noise in (self.before, self.after))
        u = self.leak * (u - self.threshold * s) + current + before
        steep = torch.sigmoid((u - self.threshold) / self.width)
        s = (u >= self.threshold).to(u) + steep - steep.detach()  # a step with a steep derivative
        self.state[self.lane] = (u.detach(), s.detach())
        activity = s * self.mask + after
        if self.lane == 1:
            self.second_activity = activity
        else:
            self.activity = activity
            self.trace = self.leak * self.trace + activity.detach()
        return activity.detach() if self.cut else activity


def _shaped(noise: Tensor | float, like: Tensor) -> Tensor | float:
    return noise.view(like.shape) if isinstance(noise, Tensor) else noise


def imitate(network: nn.Module, *, cut: bool, masks: dict[str, Tensor] | None = None) -> nn.Module:
    """Copy a network and replace its layers by this file's."""
    network = copy.deepcopy(network)
    leak = next(m.leak for m in network.modules() if isinstance(m, clocked.LIF))
    kinds = {clocked.Conv2d: Conv, clocked.Linear: Dense}
    for name, layer in list(network.named_modules()):
        parent = network.get_submodule(name.rpartition(".")[0])
        if type(layer) in kinds:
            setattr(parent, name.rpartition(".")[2], kinds[type(layer)](layer, leak))
        elif isinstance(layer, clocked.LIF):
            mask = layer.scale if masks is None else masks[name]
            setattr(parent, name.rpartition(".")[2], Plain(layer, cut, mask))
    return network


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """Gradients by the names that the parameters have in the library's network."""
    found = {k.replace("source.", ""): p.grad for k, p in network.named_parameters()}
    return {k: g for k, g in found.items() if g is not None}


class Extra(Protocol):
    """Signals beside those of the rule; see `reference.clocked_local.Readouts`."""

    def at_once(self, neurons: list[Plain], now: slow.Moment, y: Tensor, steps: int) -> Any:
        """Return what each layer has from itself, (B, n_l), and a message to be sent."""

    def on_arrival(self, message: Any) -> list[Tensor]:
        """Return what a message brings to each layer, (B, n_l)."""


def train(
    rule: str,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    masks: dict[str, Tensor],
    *,
    noise: list[list[Tensor]] | None = None,
    feedback: Sequence[np.ndarray] = (),
    extra: Extra | None = None,
    delay: int = 0,
    kept: bool = False,
    delivered: bool = False,
    **options: Any,
) -> tuple[nn.Module, slow.Outcome]:
    """One training step from rest; the imitation with its gradients, and loss, output, feedback.

    `extra` gives signals to be added to those of the rule. Delays are as in `reference.clocked`.
    """
    couples = rule == "spatial-bp"
    copied = imitate(network, cut=not couples, masks=masks)
    neurons = [m for m in copied.modules() if isinstance(m, Plain)]
    feedback_grads = [np.zeros_like(b) for b in feedback]
    out = slow.Outcome([], [], [np.array(b) for b in feedback], feedback_grads)
    factor = slow.SECOND_PASS.get((rule, options.get("points")))
    settings = slow.Model([], [])
    waiting: list[tuple[slow.Moment, list[Tensor], Any]] = []

    def arrive(activities: list[Tensor], traces: list[np.ndarray]) -> None:
        sent, then, message = waiting.pop(0)
        if kept:
            activities, traces = then, sent.traces
        given = slow.RULES[rule](replace(sent, traces=traces), settings, [], out, options)
        signals = [torch.from_numpy(g) for g in given]
        if extra:
            signals = [g + m for g, m in zip(signals, extra.on_arrival(message), strict=True)]
        _send(activities, signals)

    for t, x_t in enumerate(x):
        drawn = None if noise is None else noise[t]
        output = _pass(copied, neurons, x_t, drawn, 0, options)
        losses, error = slow._losses(output.detach().numpy(), y.numpy(), settings, len(x))
        second, second_losses = None, None
        if factor is not None:
            with torch.no_grad():
                second = _pass(copied, neurons, x_t, [z * factor for z in drawn], 1, options)
            second_losses, _ = slow._losses(second.numpy(), y.numpy(), settings, len(x))
            second = second.numpy()
        now = slow.Moment(
            output.detach().numpy(), losses, error, second, second_losses, [],
            [n.trace.flatten(1).numpy() for n in neurons],
            None if drawn is None else [z.numpy() for z in drawn],
        )  # fmt: skip
        activities, message = [n.activity for n in neurons], None
        torch.autograd.backward(output, torch.from_numpy(error), retain_graph=True)
        if not couples:
            if extra:
                own, message = extra.at_once(neurons, now, y, len(x))
                _send(activities, own)
            waiting.append((now, activities, message))
            if len(waiting) > delay:
                arrive(activities, now.traces)
        out.loss += losses.sum()
        out.output = out.output + now.output
    while waiting and delivered:
        assert kept
        arrive([], [])
    return copied, out


def _send(activities: list[Tensor], signals: list[Tensor]) -> None:
    shaped = [g.view_as(a) for g, a in zip(signals, activities, strict=True)]
    torch.autograd.backward(activities, shaped, retain_graph=True)


def _pass(
    network: nn.Module,
    neurons: list[Plain],
    x_t: Tensor,
    noise: list[Tensor] | None,
    lane: int,
    options: dict[str, Any],
) -> Tensor:
    place = options.get("noise_position", "after")
    for i, neuron in enumerate(neurons):
        neuron.lane = lane
        if noise is not None:
            setattr(neuron, place, noise[i])
    return network(x_t)
