"""The cost of carrying errors to the hidden layers, with a network's true sizes (OPZO, table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from threefactor import events
from threefactor.analysis.records import Record
from threefactor.analysis.sizes import Survey, SynapseSize, survey

__all__ = ["Cost", "cost", "sizes"]


@dataclass(frozen=True)
class Cost(Record):
    """What one kind of rule needs beyond the forward pass, for one sample.

    Attributes:
        memory: numbers held: backward weights (BP), feedback connections (DFA, OPZO), one (ZO).
        operations: to bring errors to all hidden layers once: at each time step, or, with exact
            spike times, once per error.
        sequential: how many hidden layers have to wait for one another: all of them, one by one
            (with branches in the network, at most), or 1 if they get their errors at once.
    """

    memory: int
    operations: int
    sequential: int


def cost(network: nn.Module, input_shape: Sequence[int] | None = None) -> dict[str, Cost]:
    """Evaluate table 5 for a network: by kind of rule, "bp", "dfa", "zo" and "opzo".

    With exact spike times they are "bp", "dfa" and "sfdfa", which is not in the table: its feedback
    has the size of DFA's.

    For N hidden layers of n neurons and m outputs that is, exactly: BP (N - 1) n^2 + m n of memory
    and operations, DFA and OPZO N m n, ZO 1 and N n. In convolutions, BP stores the shared weights
    once (it needs a copy with the direction reversed) and uses them at every pixel; feedback has
    one row per unit. Learning the feedback is not in the table: see `training_operations`.

    Args:
        network: of either engine.
        input_shape: of one sample at one time step; `network.input_shape` by default.

    Raises:
        InputError: if the network has no `input_shape` and none is given.

    Example:
        >>> from threefactor import clocked
        >>> cost(clocked.fc(784, (800, 800), 10))["bp"].operations
        648000

    Source: Xiao et al. 2026 (OPZO), table 5.
    """
    found = sizes(network, input_shape)
    backward = [s for s in found.synapses.values() if s.hidden_input]
    neurons = sum(found.hidden.values())
    direct = Cost(found.outputs * neurons, found.outputs * neurons, 1)
    bp = Cost(sum(s.weights for s in backward), sum(s.dense for s in backward), len(found.hidden))
    if isinstance(network, events.Network):
        return {"bp": bp, "dfa": direct, "sfdfa": direct}
    return {"bp": bp, "dfa": direct, "zo": Cost(1, neurons, 1), "opzo": direct}


def sizes(network: nn.Module, input_shape: Sequence[int] | None = None) -> Survey:
    """Return the sizes of a network of either engine."""
    if not isinstance(network, events.Network):
        return survey(network, input_shape)
    layers = list(network.layers.items())
    synapses = {
        name: SynapseSize(layer.weight.numel(), layer.weight.numel(), layer.in_features, i > 0)
        for i, (name, layer) in enumerate(layers)
    }
    hidden = {name: layer.neurons for name, layer in layers[:-1]}
    return Survey(synapses, hidden, layers[-1][1].neurons)
