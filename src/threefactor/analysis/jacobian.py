"""The mean Jacobian of a network's output by the activity of its hidden layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from threefactor.clocked.neuron import Neuron
from threefactor.clocked.session import Inputs, Session, from_rest
from threefactor.errors import InputError

__all__ = ["mean_jacobian"]


def mean_jacobian(
    network: nn.Module, inputs: Iterable[Inputs], *, steps: int | None = None
) -> dict[str, Tensor]:
    r"""Return the mean Jacobian of the output by each hidden layer's activity.

    .. math:: \bar J_l = \frac{1}{B T} \sum_{b, t} \frac{\partial o_b[t]}{\partial s_{l,b}[t]}

    within a time step, by the chain rule with the neurons' own local derivatives. A spike has no
    derivative: for LIF neurons that of the surrogate stands in, and for all but the last hidden
    layer the result depends on its width. For a smooth neuron it is the true Jacobian. In
    training mode, dropout acts.

    Args:
        network: made of clocked layers.
        inputs: one or more batches, as `clocked.run` takes them.
        steps: T, for constant inputs.

    Returns:
        For each hidden layer (m, n_l), as feedback connections are kept.

    Raises:
        InputError: if there is no batch, or it does not fit the network.

    Example:
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8, 6), 3)
        >>> found = mean_jacobian(net, [torch.rand(5, 4)], steps=6)
        >>> torch.allclose(found["lif2"], net.readout.weight)
        True

    Source: Xiao et al. 2026 (OPZO), section 4.2 and lemma 4.1.
    """
    taps: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(_keep(name, taps))
        for name, module in network.named_modules()
        if isinstance(module, Neuron)
    ]
    session = Session(network, trace_decay=0.0, learning=False)
    sums: dict[str, Tensor] = {}
    count = 0
    try:
        for batch in inputs:
            _, sequence = session.time_steps(batch, steps)
            with session.alone(), from_rest(network):
                for x_t in sequence:
                    with torch.enable_grad():
                        output = network(x_t)
                    count += len(output)
                    _add(sums, output, taps)
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise InputError("there was no batch; give at least one")
    return {name: total / count for name, total in sums.items()}


def _keep(name: str, taps: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # Where the weights before are frozen, the graph begins here.
        taps[name] = output if output.requires_grad else output.detach().requires_grad_()
        return taps[name]

    return hook


def _add(sums: dict[str, Tensor], output: Tensor, taps: dict[str, Tensor]) -> None:
    """Add the Jacobian of one time step, summed over the batch: one backward pass per output."""
    layers = list(taps.values())
    for o in range(output.shape[1]):
        rows = torch.autograd.grad(
            output[:, o].sum(), layers, retain_graph=True, materialize_grads=True
        )
        for name, row in zip(taps, rows, strict=True):
            if name not in sums:
                sums[name] = row.new_zeros(output.shape[1], row[0].numel())
            sums[name][o] += row.flatten(1).sum(0)
