"""Online learning of a network of other libraries' layers once more: a plain loop, layer by layer.

Nothing here is shared with the library: every layer runs on a leaf of its own, with autograd inside
of the time step, and traces are written out as sums over all earlier steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Stage:
    """A product with weights, and the neurons behind it; None for the read-out."""

    product: nn.Module
    neuron: Callable[[Tensor], Tensor] | None
    """Runs one step of the neurons and keeps their state, without its graph."""
    between: Callable[[Tensor], Tensor] = lambda x: x
    """What lies between the neurons before and the product: pooling, flattening."""


def filtered(inputs: Sequence[Tensor], leak: float, synaptic_leak: float | None) -> Tensor:
    """Return the trace after the last of these inputs, from the sum over all of them.

    One exponential, or a potential that follows a current: the sum over all ways to pass so many
    steps in the current, and the rest in the potential.
    """
    last = len(inputs) - 1
    total = torch.zeros_like(inputs[0])
    for t, x in enumerate(inputs):
        gap = last - t
        if synaptic_leak is None:
            weight = leak**gap
        else:
            weight = sum(synaptic_leak**k * leak ** (gap - k) for k in range(gap + 1))
        total = total + weight * x
    return total


def error_of(output: Tensor, labels: Tensor, steps: int, mse_weight: float = 0.05) -> Tensor:
    """Gradient of (1 - c) cross-entropy + c squared error / 2, divided by batch and steps."""
    target = torch.nn.functional.one_hot(labels, output.shape[1]).to(output)
    cross = torch.softmax(output, 1) - target
    return ((1 - mse_weight) * cross + mse_weight * 2 * (output - target) / output.shape[1]) / (
        len(output) * steps
    )


def gradients(
    stages: Sequence[Stage],
    inputs: Sequence[Tensor],
    labels: Tensor,
    leak: float,
    *,
    synaptic_leak: float | None = None,
    feedback: Sequence[Tensor] | None = None,
    error: Callable[[Tensor, Tensor, int], Tensor] = error_of,
) -> tuple[list[list[Tensor]], list[float]]:
    """Return the gradient of every parameter, by stage, and the mean activity of every layer.

    Args:
        stages: the network, the read-out last.
        inputs: one tensor (B, ...) for each time step.
        labels: (B,).
        leak, synaptic_leak: of the traces.
        feedback: (m, n) for each hidden layer: direct feedback; None for spatial backpropagation.
    """
    given: list[list[Tensor]] = [[] for _ in stages]
    found = [[torch.zeros_like(p) for p in s.product.parameters()] for s in stages]
    rates = [0.0 for _ in stages[:-1]]
    for x_t in inputs:
        below, leaves, activities = x_t, [], []
        received = []
        for i, stage in enumerate(stages):
            source = below.detach().requires_grad_()
            seen = stage.between(source)
            given[i].append(seen.detach())
            received.append((source, seen))
            current = stage.product(seen.detach())
            leaf = current.detach().requires_grad_()
            leaves.append(leaf)
            if stage.neuron is None:
                output = leaf.detach()
                break
            activity = stage.neuron(leaf)
            rates[i] += activity.detach().mean().item() / len(inputs)
            activities.append(activity)
            below = activity
        signal = error(output, labels, len(inputs))
        deltas: list[Tensor] = [signal]
        for i in range(len(stages) - 2, -1, -1):
            if feedback is not None:
                g = (signal @ feedback[i]).view_as(activities[i])
            else:
                source, seen = received[i + 1]
                probe = seen.detach().requires_grad_()
                (back,) = torch.autograd.grad(stages[i + 1].product(probe), probe, deltas[0])
                (g,) = torch.autograd.grad(seen, source, back)
            (delta,) = torch.autograd.grad(activities[i], leaves[i], g)
            deltas.insert(0, delta)
        for i, stage in enumerate(stages):
            trace = filtered(given[i], leak, synaptic_leak)
            names = [n for n, _ in stage.product.named_parameters()]
            parameters = list(stage.product.parameters())
            shape = deltas[i].shape
            by_trace = torch.autograd.grad(
                stage.product(trace), parameters, deltas[i].view(shape), allow_unused=True
            )
            for k, name in enumerate(names):
                grad = by_trace[k]
                assert grad is not None
                # the bias has no input: its gradient is the same for any trace
                found[i][k] = found[i][k] + grad
                assert name in ("weight", "bias")
    return found, rates
