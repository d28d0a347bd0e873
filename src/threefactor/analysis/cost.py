"""The cost of learning, from a network's sizes and its spikes (OPZO, table 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from torch import nn

from threefactor import clocked, events
from threefactor.analysis.batches import NO_BATCH, AnyRule, Batch, pairs
from threefactor.analysis.records import Record
from threefactor.analysis.sizes import Sizes, sizes
from threefactor.clocked.eligibility import PerNeuronPathway
from threefactor.clocked.inputs import InputShape
from threefactor.clocked.pathway import Pathway
from threefactor.clocked.session import Session
from threefactor.errors import InputError

__all__ = ["Added", "Cost", "TrainingOperations", "cost", "training_operations"]


@dataclass(frozen=True)
class Cost(Record):
    """What it takes one kind of rule to bring errors to the hidden layers, for one sample.

    Attributes:
        memory: numbers stored: backward weights (BP), feedback connections (DFA, OPZO), one (ZO).
        operations: to bring errors to all hidden layers once. This happens at each time step, or,
            with exact spike times, once per sample.
        sequential: number of hidden layers that have to wait for one another. With BP all of them
            do (if the network has branches, this is the maximum); otherwise it is 1, since all
            layers get their errors at once.
    """

    memory: int
    operations: int
    sequential: int


def cost(network: nn.Module, input_shape: InputShape | None = None) -> dict[str, Cost]:
    """Evaluate table 5 with the true sizes of a network, by kind of rule.

    The kinds are "bp", "dfa", "zo" and "opzo". With exact spike times they are "bp", "dfa" and
    "sfdfa". The table does not have SFDFA; its feedback has the size of DFA's.

    For N hidden layers of n neurons and m outputs, BP takes (N - 1) n^2 + m n of memory and
    operations, DFA and OPZO N m n, ZO 1 and N n. In convolutions, BP stores the shared weights
    once (it needs a copy with the direction reversed) and uses them at every pixel, while feedback
    has a row for every unit. The table leaves out what it takes to learn the feedback: see
    `training_operations`.

    Args:
        network: of either engine.
        input_shape: of one sample at one time step, as for a rule; `network.input_shape` by
            default.

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


@dataclass(frozen=True)
class Added(Record):
    """Operations that training adds, by purpose: multiply-accumulates or simpler ones.

    Attributes:
        traces: updates of presynaptic traces, two for neurons with a synaptic current, or as many
            for each weight that has an eligibility of its own; with exact spike times A and B of
            every input spike.
        local: local derivatives, one per hidden neuron and time step, and two for each leak or
            threshold that it learns, its eligibility and the product; with exact spike times
            updates of eligibilities, one per synapse of a neuron that spikes.
        feedback: to bring errors to the hidden layers, by products with feedback connections or
            with the transposed weights.
        feedback_learning: to learn the feedback connections, and to send grades through weights.
        readouts: read-outs of hidden layers: their outputs, their errors, their own weights.
        noise: random numbers drawn and added.
        second_pass: synaptic operations of a second forward pass.
        weights: products of errors and traces that make the gradient; with exact spike times
            products of errors and eligibilities.
    """

    traces: float = 0.0
    local: float = 0.0
    feedback: float = 0.0
    feedback_learning: float = 0.0
    readouts: float = 0.0
    noise: float = 0.0
    second_pass: float = 0.0
    weights: float = 0.0

    @property
    def total(self) -> float:
        """Their sum."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class TrainingOperations(Record):
    """What training adds to the forward pass.

    Attributes:
        added: by purpose.
        total: their sum.
        forward: synaptic operations of the forward pass, for comparison. On a time grid they are
            the dense ones; with exact spike times, the weights that spikes reach.
        unit: "per sample and time step" or "per sample".
        counted: "from sizes, as if nothing were zero" or "from spikes".
    """

    added: Added
    total: float
    forward: float
    unit: str
    counted: str


def training_operations(
    rule: AnyRule, batches: Iterable[Batch] | None = None
) -> TrainingOperations:
    """Count the operations that a rule adds to the forward pass, without those of the optimiser.

    On a time grid they follow from the sizes alone. Membrane potentials are hardly ever zero, and
    so are local derivatives and errors: what training adds is dense even if spikes are sparse. With
    exact spike times most operations happen at spikes, which are counted on batches. This library
    computes some of them in another way (``traces="summed"`` and BP go backward over the input
    spikes). They are counted as a chip would do them, with the eligibilities of the same rule.

    Args:
        rule: of either engine.
        batches: pairs of inputs and targets, for exact spike times only; targets are not used.

    Raises:
        InputError: if batches are missing with exact spike times, or given on a time grid.

    Example:
        >>> from threefactor import clocked
        >>> found = training_operations(clocked.DFA(clocked.fc(4, (8,), 3)))
        >>> found.added.feedback, found.added.noise
        (24.0, 0.0)

    Source: Xiao et al. 2026 (OPZO), section 4.3 and table 5, and what the table leaves out; Bacho
    & Chu (SFDFA), sections 2.2 and 2.5.
    """
    if isinstance(rule, events.Rule):
        if batches is None:
            raise InputError("give batches: with exact spike times, operations happen at spikes")
        return _at_spikes(rule, batches)
    if batches is not None:
        raise InputError("leave batches out: on a time grid the operations follow from the sizes")
    found = sizes(rule.network, rule.sample_shape)
    added = _on_grid(rule, found)
    forward = float(sum(s.dense for s in found.synapses.values()))
    return TrainingOperations(
        added,
        added.total,
        forward,
        "per sample and time step",
        "from sizes, as if nothing were zero",
    )


def _updates(session: Session, pathway: Pathway) -> int:
    """Return how many numbers a layer's trace keeps for each value that it receives."""
    if pathway.name in session.untraced:
        return 0  # the trace is the input itself
    each = len(pathway.synapse.weight) if isinstance(pathway, PerNeuronPathway) else 1
    return each if pathway.synaptic_decay is None else 2 * each


def _learned(session: Session, found: Sizes) -> Iterator[int]:
    """Yield how many eligibilities of neurons' own parameters each hidden layer keeps."""
    for name, neuron in session.neurons:
        yield found.hidden.get(name, 0) * len(neuron.learned)


def _on_grid(rule: clocked.Rule, found: Sizes) -> Added:
    session = rule._session
    neurons = sum(found.hidden.values())
    dense = sum(s.dense for s in found.synapses.values())
    feedback, learning, readouts = neurons, 0, 0
    if rule.couples_layers:
        feedback = sum(s.dense for s in found.synapses.values() if s.hidden_input)
    elif isinstance(rule, clocked.FeedbackRule):
        connections = list(rule.feedback)
        if isinstance(rule, clocked.LocalLearningRule):
            connections += rule.intermediate
            readouts = sum(readout.weight.numel() for readout in rule.readouts)
        feedback = sum(connection.matrix.numel() for connection in connections)
        learning = feedback if isinstance(rule, (clocked.OPZO, clocked.DKP)) else 0
    return Added(
        traces=float(
            sum(found.synapses[p.name].received * _updates(session, p) for p in session.pathways)
        ),
        local=float(neurons + 2 * sum(_learned(session, found))),
        feedback=float(feedback),
        feedback_learning=float(learning),
        readouts=float(3 * readouts),
        noise=float(neurons if rule.perturbation is not None else 0),
        second_pass=float(dense if rule.second_pass is not None else 0),
        weights=float(dense),
    )


def _at_spikes(rule: events.Rule, batches: Iterable[Batch]) -> TrainingOperations:
    neurons, m = sum(rule.layer_sizes.values()), rule.outputs
    direct = isinstance(rule, events.FeedbackRule)
    learned = isinstance(rule, events.SFDFA)
    samples, traces, local, noise, forward, between = 0, 0, 0, 0, 0, 0
    for inputs, _ in pairs(batches):
        samples += len(inputs)
        for i, (layer, activity) in enumerate(
            zip(rule.layers, rule.network.run(inputs), strict=True)
        ):
            arrived = int((activity.inputs.times < layer.duration).sum())
            traces += 2 * arrived
            local += len(activity.spikes.times) * layer.in_features
            forward += arrived * layer.neurons
            if i > 0:
                between += arrived * layer.neurons
            if i < len(rule.layers) - 1:
                noise += int(np.count_nonzero(activity.spikes.counts()))
    if not samples:
        raise InputError(NO_BATCH)
    added = Added(
        traces=traces / samples,
        local=local / samples,
        feedback=float(m * neurons) if direct else between / samples,
        feedback_learning=m * neurons + between / samples if learned else 0.0,
        noise=noise / samples if learned else 0.0,
        weights=float(sum(layer.weight.numel() for layer in rule.layers)),
    )
    return TrainingOperations(added, added.total, forward / samples, "per sample", "from spikes")
