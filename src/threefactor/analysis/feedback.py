"""Feedback connections beside the weights they stand for (SFDFA, figure 10; OPZO, lemma 4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threefactor import clocked, events
from threefactor.analysis.alignment import angle, cosine
from threefactor.analysis.batches import AnyRule, Batch, check_rule, pairs
from threefactor.analysis.records import Record
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.inputs import Inputs, shapes_of
from threefactor.clocked.kept_state import attributes_kept
from threefactor.clocked.probe import Probe
from threefactor.clocked.session import Session
from threefactor.errors import InputError

__all__ = [
    "MEAN_JACOBIAN",
    "OUTPUT_WEIGHTS",
    "FeedbackAlignment",
    "LayerFeedback",
    "feedback_alignment",
    "feedback_beside",
    "mean_jacobian",
]

OUTPUT_WEIGHTS, MEAN_JACOBIAN = "output weights", "mean Jacobian"


@dataclass(frozen=True)
class LayerFeedback(Record):
    """Feedback of one hidden layer, compared with another matrix.

    Attributes:
        cosine: of the angle between the two matrices, taken as vectors; None if there is no angle.
        angle: degrees; None if one matrix is zero or not finite.
        scale: norm of the feedback divided by that of the other matrix; None if there is no angle.
        compared_with: the other matrix, "output weights" or "mean Jacobian".
        note: empty, or why there is no angle.
    """

    cosine: float | None
    angle: float | None
    scale: float | None
    compared_with: str
    note: str


@dataclass(frozen=True)
class FeedbackAlignment(Record):
    """Alignment of feedback by hidden layer."""

    layers: dict[str, LayerFeedback]


def feedback_alignment(
    rule: AnyRule, batches: Iterable[Batch] | None = None, *, steps: int | None = None
) -> FeedbackAlignment:
    """Compare feedback connections with the output weights, or with the mean Jacobian.

    Without batches, the feedback of the last hidden layer is compared with the output weights. This
    works for both engines. With batches, on a time grid only, the feedback of every hidden layer is
    compared with the mean Jacobian of the output by the layer's activity (see `mean_jacobian`),
    which OPZO's connections estimate. For the last hidden layer the mean Jacobian is the output
    weights.

    Args:
        rule: one with feedback connections.
        batches: pairs of inputs and targets, or None; the targets are not used.
        steps: T, for constant inputs of clocked networks.

    Raises:
        InputError: if the rule has no feedback; if batches are given for a network of exact spike
            times; or if no batches are given and the output weights do not have the feedback's
            shape.

    Example:
        >>> from threefactor import clocked
        >>> rule = clocked.DKP(clocked.fc(4, (8, 6), 3))
        >>> feedback_alignment(rule).layers["lif2"].compared_with
        'output weights'

    Source: Bacho & Chu (SFDFA), figure 10; Xiao et al. 2026 (OPZO), lemma 4.1.
    """
    pairs = feedback_beside(rule, batches, steps=steps)
    with_what = OUTPUT_WEIGHTS if batches is None else MEAN_JACOBIAN
    return FeedbackAlignment(
        {name: _compare(matrix, other, with_what) for name, (matrix, other) in pairs.items()}
    )


def feedback_beside(
    rule: AnyRule, batches: Iterable[Batch] | None = None, *, steps: int | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the feedback of hidden layers, and what `feedback_alignment` compares it with.

    Args:
        rule, batches, steps: as there.

    Returns:
        By hidden layer, two matrices of shape (m, n).

    Raises:
        InputError: as there.
    """
    check_rule(rule)
    feedback = getattr(rule, "feedback", None)
    if not feedback:
        raise InputError(f"{type(rule).__name__} has no feedback connections to compare")
    names = list(rule.layer_sizes)
    if batches is None:
        return {names[-1]: (feedback[-1].matrix.detach(), _output_weights(rule))}
    if isinstance(rule, events.Rule):
        raise InputError(
            "exact spike times have no Jacobian by a layer's activity; leave batches out to "
            "compare with the output weights"
        )
    jacobian = mean_jacobian(rule.network, (x for x, _ in pairs(batches)), steps=steps)
    return {
        name: (connection.matrix.detach(), jacobian[name])
        for name, connection in zip(names, feedback, strict=True)
    }


def _output_weights(rule: AnyRule) -> Tensor:
    """Return the weights from the last hidden layer to the output, (m, n) as feedback is kept."""
    n = list(rule.layer_sizes.values())[-1]
    if isinstance(rule, events.Rule):
        return rule.layers[-1].weight.detach().t()
    layers = [layer for _, layer in layers_of(rule.network)]
    synapses = [layer for layer in layers if isinstance(layer, clocked.Synapse)]
    weight = synapses[-1].weight.detach()
    if weight.shape != (rule.outputs, n):
        raise InputError(
            f"the last synapse layer has weights of shape {tuple(weight.shape)}; expected "
            f"({rule.outputs}, {n}), from the last hidden layer to the outputs. Give batches to "
            "compare with the mean Jacobian"
        )
    return weight


def _compare(matrix: Tensor, other: Tensor, name: str) -> LayerFeedback:
    between = angle(matrix, other)
    norms = [float(m.detach().double().norm()) for m in (matrix, other)]
    if between is not None:
        return LayerFeedback(cosine(matrix, other), between, norms[0] / norms[1], name, "")
    named = zip(("the feedback", f"the {name}"), norms, strict=True)
    zero = [who for who, norm in named if not norm]
    reason = f"{' and '.join(zero)} is zero" if zero else "a value is not finite"
    return LayerFeedback(None, None, None, name, f"undefined: {reason}")


def mean_jacobian(
    network: nn.Module, inputs: Iterable[Inputs], *, steps: int | None = None
) -> dict[str, Tensor]:
    r"""Return the mean Jacobian of the output by each hidden layer's activity.

    .. math:: \bar J_l = \frac{1}{B T} \sum_{b, t} \frac{\partial o_b[t]}{\partial s_{l,b}[t]}

    within a time step, by the chain rule with the neurons' own local derivatives. A spike has no
    derivative, so LIF neurons use that of the surrogate, and the result depends on the surrogate's
    width for all layers but the last hidden one. For smooth neurons it is the true Jacobian. In
    training mode, dropout acts.

    Args:
        network: made of clocked layers.
        inputs: one or more batches, as `clocked.run` takes them.
        steps: T, for constant inputs.

    Returns:
        By hidden layer, (m, n_l): one row for each output, as feedback connections are kept.

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
    session = Session(network, trace_decay=0.0, learning=False, make_probe=_Tap)
    if not session.probes:
        raise InputError("the network has no hidden layers, by which outputs could be derived")
    session.sample_shape = shapes_of(network, None)
    # Products stay those of the layers themselves, through which autograd passes.
    session.pathways.clear()
    sums: dict[str, Tensor] = {}
    count = 0
    with session.alone(), session.buffers_kept(always=True), attributes_kept(session):
        try:
            if isinstance(inputs, Tensor) or not isinstance(inputs, Iterable):
                raise InputError(
                    f"inputs are a {type(inputs).__name__}; give the inputs of several batches, as "
                    "in [x]"
                )
            for batch in inputs:
                session.reset()
                _, sequence = session.time_steps(batch, steps)
                with session.attached():
                    for x_t in sequence:
                        with torch.enable_grad():
                            output = session.forward(x_t)
                        count += len(output)
                        _add(
                            sums,
                            output,
                            {p.name: p.tap for p in session.probes if isinstance(p, _Tap)},
                        )
        finally:
            session.reset()
    if not count:
        raise InputError("there was no batch; give at least one")
    return {name: total / count for name, total in sums.items()}


class _Tap(Probe):
    """A probe that keeps the activity of a step with its graph, by which outputs are derived."""

    tap: Tensor

    def __init__(self, name: str, neuron: clocked.Neuron) -> None:
        super().__init__(name, neuron, couple=True)

    def step(self, current: Tensor) -> Tensor:
        activity = super().step(current)
        # Where the weights before are frozen, the graph begins here.
        self.tap = activity if activity.requires_grad else activity.detach().requires_grad_()
        return self.tap


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
            sums[name][o] += row.reshape(len(row), -1).sum(0)
