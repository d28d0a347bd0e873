"""Online learning of a row of anybody's layers once more: a plain loop, layer by layer.

Nothing here is shared with the library. Every neuron layer runs as its own library says, with its
state cut after the step; autograd works within one time step; traces are written out as sums over
all earlier steps. A feedback matrix is (outputs, neurons) here, as the library stores it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd)
MSE_WEIGHT = 0.05


@dataclass
class Learned:
    """What one training step leaves behind."""

    gradients: dict[str, Tensor] = field(default_factory=dict)
    """By the name of the parameter; those that no error reaches are left out."""
    rates: list[float] = field(default_factory=list)
    feedback: list[Tensor] = field(default_factory=list)
    feedback_gradients: list[Tensor] = field(default_factory=list)


def stepper(neuron: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function that runs one step of a neuron layer as its library says."""
    kind = type(neuron).__module__.split(".")[0]
    state: list[Any] = [None]

    def step(x: Tensor) -> Tensor:
        if kind == "norse":
            given, new = neuron(x, state[0])
            state[0] = _cut_state(new)
        elif kind == "spikingjelly" and neuron.step_mode == "m":
            given = neuron(x.unsqueeze(0)).squeeze(0)
        elif kind == "sinabs" and not hasattr(neuron, "batch_size"):
            given = neuron(x.unsqueeze(1)).squeeze(1)
        else:
            given = neuron(x)
        _cut(neuron)
        spikes: Tensor = given[0] if isinstance(given, tuple) else given
        return spikes.to(x.dtype)  # some give spikes in single precision, always

    return step


def _cut(neuron: nn.Module) -> None:
    """Take the graph off every tensor that a layer keeps."""
    if hasattr(neuron, "detach"):
        neuron.detach()
    for place in (vars(neuron), neuron._buffers):
        for name, value in list(place.items()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                place[name] = value.detach()


def _cut_state(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach()
    return type(state)(*map(_cut_state, state)) if isinstance(state, tuple) else state


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


def losses_and_errors(output: Tensor, labels: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return (1 - c) cross-entropy + c squared error, averaged over outputs, and its gradient.

    Both are divided by batch and steps.
    """
    target = torch.nn.functional.one_hot(labels, output.shape[1]).to(output)
    p, share = torch.softmax(output, 1), len(output) * steps
    cross, squared = -(p.log() * target).sum(1), (output - target).square().mean(1)
    errors = (1 - MSE_WEIGHT) * (p - target)
    errors = errors + MSE_WEIGHT * 2 * (output - target) / output.shape[1]
    return ((1 - MSE_WEIGHT) * cross + MSE_WEIGHT * squared) / share, errors / share


def learn(
    network: nn.Sequential,
    inputs: Sequence[Tensor],
    labels: Tensor,
    leak: float,
    *,
    rule: str,
    is_neuron: Callable[[nn.Module], bool],
    synaptic_leak: float | None = None,
    feedback: Sequence[Tensor] = (),
    noise: Sequence[Sequence[Tensor]] | None = None,
    noise_scale: float = 1.0,
    momentum: float = 0.0,
    untraced: Sequence[str] = (),
) -> Learned:
    """Make one training step from rest, on a copy of a row of layers.

    Args:
        network: linear and convolutional layers, neurons, and anything else between them; the
            last of the products is the read-out.
        inputs: one tensor (B, ...) for each time step.
        labels: (B,).
        leak, synaptic_leak: of the traces.
        rule: "spatial-bp", "dfa", "dkp", one-point "zo" or one-point "opzo".
        is_neuron: tells the neuron layers of the row.
        feedback: (m, n) for each hidden layer.
        noise: `noise[t][l]`, alpha z, of the rules that have it.
        noise_scale, momentum: alpha and mu.
        untraced: names of products that learn from their input at the step.
    """
    network = copy.deepcopy(network)
    row = list(network.named_children())
    steps = {name: stepper(m) for name, m in row if is_neuron(m)}
    seen: dict[str, list[Tensor]] = {name: [] for name, _ in row}
    of_neurons = {id(p) for name in steps for p in network.get_submodule(name).parameters()}
    named = {n: p for n, p in network.named_parameters() if id(p) not in of_neurons}
    out = Learned(rates=[0.0] * len(steps), feedback=[m.clone() for m in feedback])
    out.feedback_gradients = [torch.zeros_like(m) for m in feedback]
    through = rule == "spatial-bp"
    for t, x_t in enumerate(inputs):
        x, activities, told = x_t, [], 0.0
        for name, module in row:
            if isinstance(module, PRODUCTS):
                x = x if through else x.detach()
                seen[name].append(x.detach())
                trace = seen[name][-1]
                if name not in untraced:
                    trace = filtered(seen[name], leak, synaptic_leak)
                fixed = {n: p.detach() for n, p in module.named_parameters()}
                by_trace = module(trace)
                x = functional_call(module, fixed, (x,)) + (by_trace - by_trace.detach())
            elif name in steps:
                spikes, n = steps[name](x), len(activities)
                out.rates[n] += spikes.detach().mean().item() / len(inputs)
                x = spikes if noise is None else spikes + noise[t][n]
                activities.append((spikes, x.detach()))
                seen[name].append(x.detach())
            else:
                x = module(x)
        losses, error = losses_and_errors(x.detach(), labels, len(inputs))
        told = (x * error).sum()
        hidden = [name for name, _ in row if name in steps]
        for n, (spikes, _) in enumerate(activities if not through else []):
            if rule == "zo":
                g = (losses / noise_scale**2).unsqueeze(1) * noise[t][n].flatten(1)
            else:
                if rule == "opzo":
                    seen_noise = noise[t][n].flatten(1) / noise_scale
                    found = x.detach().t() @ seen_noise / len(x)
                    out.feedback[n] = momentum * out.feedback[n] + (1 - momentum) * found
                if rule == "dkp":
                    trace = filtered(seen[hidden[n]], leak, synaptic_leak).flatten(1)
                    out.feedback_gradients[n] += error.t() @ trace
                g = error @ out.feedback[n]
            told = told + (spikes * g.view_as(spikes)).sum()
        found_now = torch.autograd.grad(told, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, found_now, strict=True):
            if gradient is not None:
                out.gradients[name] = out.gradients.get(name, 0) + gradient
    return out
