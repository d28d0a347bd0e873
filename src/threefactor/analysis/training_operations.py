"""The operations that training adds to the forward pass: feedback, traces, noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from threefactor import clocked, events
from threefactor.analysis.batches import AnyRule, Batch
from threefactor.analysis.cost import sizes
from threefactor.analysis.records import Record
from threefactor.analysis.survey import Survey
from threefactor.errors import InputError

__all__ = ["Added", "TrainingOperations", "training_operations"]


@dataclass(frozen=True)
class Added(Record):
    """Operations that training adds, by what they are for; multiply-accumulates or simpler.

    Attributes:
        traces: updates of presynaptic traces; with exact spike times two per input spike, A and B.
        local: local derivatives, one per hidden neuron and step; with exact spike times, updates
            of eligibilities: one per synapse of a neuron that spikes.
        feedback: to bring errors to the hidden layers: products with feedback connections, or with
            the weights backwards.
        feedback_learning: to learn the feedback connections, and to send grades through weights.
        readouts: read-outs of hidden layers: forward, errors back, their own weights.
        noise: numbers drawn and added.
        second_pass: the synaptic operations of a second forward pass.
        weights: to turn errors and traces into changes of the weights; with exact spike times
            errors and eligibilities.
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
        """All of them."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class TrainingOperations(Record):
    """What training adds.

    Attributes:
        added: by kind.
        total: their sum.
        forward: synaptic operations of the forward pass to compare with: dense ones on a time
            grid, the weights that spikes reach with exact spike times.
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
    """Count the operations that a rule adds to the forward pass, optimiser not included.

    On a time grid they follow from the sizes alone: membrane potentials, and with them local
    derivatives and errors, are hardly ever zero, so what training adds is dense even where spikes
    are sparse. With exact spike times most of it happens at spikes, which are counted on batches.
    For ``traces="summed"`` and for BP, the passes backward over the input spikes are counted as
    the eligibilities of the same rule would be: what a chip would do, and not what this code does.

    Args:
        rule: of either engine.
        batches: pairs of inputs and targets, for exact spike times only; targets are not used.

    Raises:
        InputError: if batches are missing, or given where nothing depends on them.

    Example:
        >>> from threefactor import clocked
        >>> found = training_operations(clocked.DFA(clocked.fc(4, (8,), 3)))
        >>> found.added.feedback, found.added.noise
        (24.0, 0.0)

    Source: Xiao et al. 2026 (OPZO), section 4.3 and table 5, with what the table leaves out; Bacho
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


def _on_grid(rule: clocked.Rule, found: Survey) -> Added:
    neurons, m = sum(found.hidden.values()), found.outputs
    dense = sum(s.dense for s in found.synapses.values())
    connections = m * sum(_reach(rule, found))
    feedback, learning = float(neurons), 0
    if rule.couples_layers:
        feedback = float(sum(s.dense for s in found.synapses.values() if s.hidden_input))
    elif isinstance(rule, clocked.FeedbackRule):
        feedback = float(connections)
        learning = connections if isinstance(rule, (clocked.OPZO, clocked.DKP)) else 0
    readouts = rule.readouts if isinstance(rule, clocked.LocalLearningRule) else ()
    read = [readout.weight.shape[1] for readout in readouts]
    return Added(
        traces=float(sum(s.received for s in found.synapses.values())),
        local=float(neurons),
        feedback=feedback,
        feedback_learning=float(learning),
        readouts=float(3 * m * sum(read)),
        noise=float(neurons if rule.perturbation is not None else 0),
        second_pass=float(dense if rule.second_pass is not None else 0),
        weights=float(dense),
    )


def _reach(rule: clocked.Rule, found: Survey) -> list[int]:
    """Neurons that feedback connections reach: from the output, and from a middle layer."""
    hidden = list(found.hidden.values())
    middle = rule.intermediate if isinstance(rule, clocked.LocalLearningRule) else ()
    return hidden + hidden[: len(middle)]


def _at_spikes(rule: events.Rule, batches: Iterable[Batch]) -> TrainingOperations:
    neurons, m = sum(rule.layer_sizes.values()), rule.outputs
    direct = isinstance(rule, events.FeedbackRule)
    learned = isinstance(rule, events.SFDFA)
    samples, traces, local, grades, noise, forward, backward = 0, 0, 0, 0, 0, 0, 0
    for inputs, _ in batches:
        samples += len(inputs)
        for i, (layer, activity) in enumerate(
            zip(rule.layers, rule.network.run(inputs), strict=True)
        ):
            arrived = int((activity.inputs.times < layer.duration).sum())
            traces += 2 * arrived
            local += len(activity.spikes.times) * layer.in_features
            forward += arrived * layer.neurons
            if i > 0:
                backward += arrived * layer.neurons
                grades += arrived * layer.neurons
            if i < len(rule.layers) - 1:
                noise += int(np.count_nonzero(activity.spikes.counts()))
    if not samples:
        raise InputError("there was no batch; give at least one pair of inputs and targets")
    added = Added(
        traces=traces / samples,
        local=local / samples,
        feedback=float(m * neurons) if direct else backward / samples,
        feedback_learning=m * neurons + grades / samples if learned else 0.0,
        noise=noise / samples if learned else 0.0,
        weights=float(sum(layer.weight.numel() for layer in rule.layers)),
    )
    return TrainingOperations(added, added.total, forward / samples, "per sample", "from spikes")
