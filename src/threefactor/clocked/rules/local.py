"""Local and intermediate global learning: read-outs of hidden layers, for rules with feedback."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from threefactor.clocked.probe import Probe
from threefactor.clocked.rules.base import TimeStep
from threefactor.clocked.rules.feedback import FeedbackRule
from threefactor.clocked.rules.patches import checked_patch, patches, spread
from threefactor.clocked.synapse import accumulate
from threefactor.errors import InputError, unknown_name

__all__ = ["LOCAL_FEEDBACK", "LocalLearningRule"]

LOCAL_FEEDBACK = ("same-weights", "fixed", "learned")


class LocalLearningRule(FeedbackRule):
    r"""A rule with direct feedback, and read-outs of hidden layers that add to it.

    A read-out of layer l sees what the next layer sees, and has the loss of the network:

    .. math:: r_l[t] = A_l a_l[t], \qquad e_l[t] = \partial L(r_l[t]) / \partial r_l[t], \qquad
              \nabla A_l = \sum_t e_l[t] \hat a_l[t]^T

    Local learning gives every hidden layer one, and adds to the rule's own signal, at this layer
    only,

    .. math:: g_l[t] \leftarrow g_l[t] + 0.01 \, C_l e_l[t]

    with C_l the transpose of A_l ("same-weights"), fixed and random ("fixed"), or of its own
    ("learned": it starts at random and has the gradient of A_l, so that weight decay brings the two
    together). Intermediate global learning gives one layer k a read-out, whose error goes to the
    layers before it by feedback connections of the rule's own kind:

    .. math:: g_j[t] \leftarrow g_j[t] + N_j e_k[t], \qquad j < k

    With both, layer k has one read-out. A_l, and C_l if learned, are parameters: give
    `rule.parameters()` to the optimiser together with the network's.

    The feedback from the output, and N_j, may be shared by the neurons of a channel in squares of
    `feedback_patch` x `feedback_patch`, which divides its memory by the size of a square.

    Args:
        network: see `Rule`.
        feedback_patch: side of the squares of pixels that share a row of feedback; 1 for a row of
            one's own. No less than the picture's side: one row per channel. Layers that are no
            pictures, and read-outs, share nothing.
        local_learning: None, "same-weights", "fixed" or "learned".
        local_scale: factor of the local signal, above 0; it is not in the gradient of A_l.
        readout_scale: A_l (and C_l) start uniform in [-readout_scale, readout_scale], at 0 for 0;
            1/sqrt(n_l) by default.
        intermediate: name of layer k in the network, such as "lif4" of `conv9`, or None.
        **common: see `Rule`.

    Raises:
        InputError: if a number is out of its range, or no hidden layer precedes layer k.
        ConfigurationError: if a name is not known.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8, 8), 3)
        >>> rule = clocked.DFA(net, local_learning="same-weights")
        >>> [tuple(p.shape) for p in rule.parameters()]
        [(3, 8), (3, 8)]

    Source: Xiao et al. 2026 (OPZO), section 4.4 and appendix C.1.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        feedback_patch: int = 1,
        local_learning: str | None = None,
        local_scale: float = 0.01,
        readout_scale: float | None = None,
        intermediate: str | None = None,
        **common: Any,
    ) -> None:
        if local_learning is not None and local_learning not in LOCAL_FEEDBACK:
            raise unknown_name("feedback of local learning", local_learning, LOCAL_FEEDBACK)
        if not 0.0 < local_scale < math.inf:
            raise InputError(f"local_scale is {local_scale}; give a number above 0")
        if readout_scale is not None and not 0.0 <= readout_scale < math.inf:
            raise InputError(f"readout_scale is {readout_scale}; give a number of at least 0")
        self.feedback_patch = checked_patch(feedback_patch)
        super().__init__(network, **common)
        if feedback_patch > 1 and not any(len(s) == 3 for s in self.layer_shapes.values()):
            raise InputError(
                f"feedback_patch is {feedback_patch}, and no hidden layer of this network is a "
                "picture (C, H, W), whose neurons could share feedback: give 1, or leave it out"
            )
        self.local_learning = local_learning
        self.local_scale = local_scale
        self._middle = self._find(intermediate)
        for i, n in enumerate(self.layer_sizes.values()):
            if local_learning is not None or i == self._middle:
                self._add_readout(i, n, readout_scale)

    @abstractmethod
    def send_back(
        self,
        feedback: Sequence[Tensor],
        layers: Sequence[Probe],
        output: Tensor,
        error: Tensor,
    ) -> list[Tensor]:
        """Return the error (B, n_l) of each of some layers, as new tensors; may learn feedback.

        Args:
            feedback: (m, p_l) for each layer, p_l the number of rows that its neurons share.
            layers: the hidden layers, first to last.
            output: (B, m) a read-out, less that of the second pass if there is one.
            error: (B, m) its error.
        """

    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        output = step.output
        if step.second_output is not None:
            output = output - step.second_output
        errors = self.send_back(self.feedback, step.layers, output, step.error)
        for i in range(len(errors)):
            if hasattr(self, f"readout_{i}"):
                self._learn_locally(i, step, errors)
        return errors

    def _learn_locally(self, i: int, step: TimeStep, errors: list[Tensor]) -> None:
        """Let layer i's read-out learn, and add the signals that come from it."""
        layer, readout = step.layers[i], getattr(self, f"readout_{i}")
        assert layer.activity is not None and layer.trace is not None and step.error_of is not None
        if layer.rewritten:
            raise InputError(
                f"the network changes the activity of hidden layer {layer.name!r} in place, after "
                "its read-out's trace took it in; use a new tensor, as in h = h + x"
            )
        output = layer.activity.flatten(1) @ readout.t()
        error = step.error_of(output)
        backward = getattr(self, f"local_feedback_{i}", readout)
        if self.local_learning is not None:
            errors[i].addmm_(error, backward, alpha=self.local_scale)
        if i == self._middle:
            if layer.second_activity is not None:
                output = output - layer.second_activity.flatten(1) @ readout.t()
            matrices = [getattr(self, f"intermediate_{j}") for j in range(i)]
            signals = self.send_back(matrices, step.layers[:i], output, error)
            for j, signal in enumerate(signals):
                errors[j].add_(signal)
        learners = [readout, backward] if self.local_learning == "learned" else [readout]
        if any(p.requires_grad for p in learners):
            grad = error.t() @ layer.trace.flatten(1)
            for parameter in learners:
                accumulate(parameter, grad.clone())

    def moves(self, buffer: str) -> bool:
        return not buffer.startswith("local_feedback")

    def signal_of(self, layer: str) -> str:
        parts, place = [self.signal], list(self.layer_sizes).index(layer)
        if self.local_learning is not None:
            parts.append(f"{self.local_scale:g} times the error of its own read-out")
        if self._middle is not None and place < self._middle:
            middle = list(self.layer_sizes)[self._middle]
            parts.append(f"feedback of the same kind from the read-out of {middle}")
        return "; plus ".join(parts)

    def _make_feedback(self, make: Callable[[int], Tensor]) -> None:
        """Register the feedback from the output, and that from the middle layer."""
        rows = [patches(shape, self.feedback_patch) for shape in self.layer_shapes.values()]
        for i, p in enumerate(rows):
            self.register_buffer(f"feedback_{i}", make(p))
        for j, p in enumerate(rows[: self._middle or 0]):
            self.register_buffer(f"intermediate_{j}", make(p))

    def _spread(self, values: Tensor, layer: Probe) -> Tensor:
        """Give each neuron the value of its row: (B, p_l) to (B, n_l)."""
        return spread(values, self.layer_shapes[layer.name], self.feedback_patch)

    def _add_readout(self, i: int, n: int, scale: float | None) -> None:
        def draw() -> Tensor:
            return self._random_feedback(n, scale) if scale != 0 else self._feedback_like(n).zero_()

        self._hidden[i].trace_decay = self._session.trace_decay
        self.register_parameter(f"readout_{i}", nn.Parameter(draw()))
        if self.local_learning == "fixed":
            self.register_buffer(f"local_feedback_{i}", draw())
        elif self.local_learning == "learned":
            self.register_parameter(f"local_feedback_{i}", nn.Parameter(draw()))

    def _find(self, name: str | None) -> int | None:
        """Return the number of the middle layer."""
        if name is None:
            return None
        names = list(self.layer_sizes)
        if name not in names:
            raise unknown_name("hidden layer", name, names)
        if names.index(name) == 0:
            raise InputError(f"intermediate is {name!r}, and no hidden layer comes before it")
        return names.index(name)
