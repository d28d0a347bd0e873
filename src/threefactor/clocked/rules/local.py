"""Local and intermediate global learning: read-outs of hidden layers, for rules with feedback."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked.noise import Perturbation
from threefactor.clocked.probe import Probe
from threefactor.clocked.rules.base import TimeStep
from threefactor.clocked.rules.feedback import Feedback, FeedbackOptions, FeedbackRule
from threefactor.clocked.synapse import accumulate
from threefactor.errors import InputError, unknown_name
from threefactor.options import as_number, in_range

__all__ = ["LOCAL_FEEDBACK", "LocalLearningOptions", "LocalLearningRule", "Readout"]

LOCAL_FEEDBACK = ("same-weights", "fixed", "learned")


class Readout(nn.Module):
    """The read-out of one hidden layer of n neurons, with m outputs.

    Args:
        layer: which hidden layer, from 0 on.
        weight: A_l, (m, n).
        feedback: the transpose of C_l, (m, n): a parameter, or any other tensor, which becomes a
            buffer; None if errors go back through A_l.
    """

    weight: Tensor
    feedback: Tensor | None

    def __init__(self, layer: int, weight: nn.Parameter, feedback: Tensor | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.weight = weight
        if feedback is None or isinstance(feedback, nn.Parameter):
            self.register_parameter("feedback", feedback)
        else:
            self.register_buffer("feedback", feedback)

    def extra_repr(self) -> str:
        return f"layer={self.layer}, outputs={len(self.weight)}, neurons={self.weight.shape[1]}"

    def forward(self, activity: Tensor) -> Tensor:
        """Read an activity (B, ...): (B, m)."""
        return activity.reshape(len(activity), -1) @ self.weight.t()


class LocalLearningOptions(FeedbackOptions, total=False):
    """Options that rules with local learning share; see `LocalLearningRule`."""

    feedback_patch: int
    local_learning: str | None
    local_scale: float
    readout_scale: float | None
    intermediate: str | None


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

    The feedback from the output, and N_j, may be shared by the neurons of a channel (see
    `Feedback`). A subclass calls `start_feedback` at the end of its `__init__`.

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
        perturbation: noise on the hidden layers, or None.
        **options: see `FeedbackRule` and `Rule`.

    Warns:
        UserWarning: once, if read-outs have gradients but no optimiser changes them.

    Attributes:
        readouts: the `Readout` of each layer that has one, first layer first, in an
            `nn.ModuleList`.
        intermediate: the connections N_j, in an `nn.ModuleList`; empty without a layer k.

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

    readouts: Sequence[Readout]
    intermediate: Sequence[Feedback]

    def __init__(
        self,
        network: nn.Module,
        *,
        feedback_patch: int = 1,
        local_learning: str | None = None,
        local_scale: float = 0.01,
        readout_scale: float | None = None,
        intermediate: str | None = None,
        perturbation: Perturbation | None = None,
        **options: Unpack[FeedbackOptions],
    ) -> None:
        if local_learning is not None and local_learning not in LOCAL_FEEDBACK:
            raise unknown_name("feedback of local learning", local_learning, LOCAL_FEEDBACK)
        if not 0.0 < as_number("local_scale", local_scale) < math.inf:
            raise InputError(f"local_scale is {local_scale}; give a number above 0")
        in_range("local_scale", local_scale)
        if readout_scale is not None and not (
            0.0 <= as_number("readout_scale", readout_scale) < math.inf
        ):
            raise InputError(f"readout_scale is {readout_scale}; give a number of at least 0")
        in_range("readout_scale", readout_scale or 0.0)
        whole = isinstance(feedback_patch, int) and not isinstance(feedback_patch, bool)
        if not whole or feedback_patch < 1:
            raise InputError(
                f"feedback_patch is {feedback_patch}; give a whole number of at least 1"
            )
        super().__init__(network, perturbation=perturbation, **options)
        self.feedback_patch = feedback_patch
        if feedback_patch > 1 and not any(len(s) == 3 for s in self.layer_shapes.values()):
            raise InputError(
                f"feedback_patch is {feedback_patch}, and no hidden layer of this network is a "
                "picture (C, H, W), whose neurons could share feedback: give 1, or leave it out"
            )
        self.local_learning = local_learning
        self.local_scale = local_scale
        self._middle = self._find(intermediate)
        readouts = [
            self._make_readout(i, n, readout_scale)
            for i, n in enumerate(self.layer_sizes.values())
            if local_learning is not None or i == self._middle
        ]
        self.readouts = cast("Sequence[Readout]", nn.ModuleList(readouts))

    @abstractmethod
    def send_back(
        self,
        feedback: Sequence[Feedback],
        layers: Sequence[Probe],
        output: Tensor,
        error: Tensor,
    ) -> list[Tensor]:
        """Return the error (B, n_l) of each of some layers, as new tensors; may learn feedback.

        Args:
            feedback: the connection to each layer.
            layers: the hidden layers, first to last.
            output: (B, m) a read-out, less that of the second pass if there is one.
            error: (B, m) its error.
        """

    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        output = step.output
        if step.second_output is not None:
            output = output - step.second_output
        errors = self.send_back(self.feedback, step.layers, output, step.error)
        for readout in self.readouts:
            i = readout.layer
            if not self.feedback_delay:
                self._read(readout, step)
                if self.local_learning is not None:
                    error = step.readings[i][1]
                    errors[i].addmm_(error, self._backward(readout), alpha=self.local_scale)
            if i == self._middle:
                signals = self.send_back(self.intermediate, step.layers[:i], *step.readings[i])
                for j, signal in enumerate(signals):
                    errors[j].add_(signal)
        return errors

    def local_errors(self, step: TimeStep) -> Sequence[Tensor | None]:
        errors: list[Tensor | None] = [None] * len(step.layers)
        for readout in self.readouts:
            self._read(readout, step)
            if self.local_learning is not None:
                error = step.readings[readout.layer][1]
                errors[readout.layer] = (error @ self._backward(readout)).mul_(self.local_scale)
        return errors

    def _read(self, readout: Readout, step: TimeStep) -> None:
        """Note the output and error of a layer's read-out, and let the read-out learn."""
        i, layer = readout.layer, step.layers[readout.layer]
        if readout is self.readouts[0] and layer.steps == 1:
            self.warn_if_idle("read-out of a hidden layer", readout.weight)
        assert layer.activity is not None and layer.trace is not None and step.error_of is not None
        if layer.rewritten:
            raise InputError(
                f"the network changes the activity of hidden layer {layer.name!r} in place, after "
                "its read-out's trace took it in; use a new tensor, as in h = h + x"
            )
        output = readout(layer.activity)
        error = step.error_of(output)
        if i == self._middle and layer.second_activity is not None:
            output = output - readout(layer.second_activity)
        step.readings[i] = output, error
        learners = [readout.weight]
        if self.local_learning == "learned":
            learners.append(self._backward(readout))
        if any(p.requires_grad for p in learners):
            grad = error.t() @ layer.trace.reshape(len(error), -1)
            for parameter in learners:
                accumulate(parameter, grad.clone())

    @staticmethod
    def _backward(readout: Readout) -> Tensor:
        """Return what brings a read-out's error back to its layer."""
        return readout.weight if readout.feedback is None else readout.feedback

    def moves(self, buffer: str) -> bool:
        return not buffer.startswith("readouts.")

    def signal_of(self, layer: str) -> str:
        parts, place = [super().signal_of(layer)], list(self.layer_sizes).index(layer)
        if self.local_learning is not None:
            at_once = ", at once" if self.feedback_delay else ""
            parts.append(f"{self.local_scale:g} times the error of its own read-out{at_once}")
        if self._middle is not None and place < self._middle:
            middle = list(self.layer_sizes)[self._middle]
            source = f"feedback of the same kind from the read-out of {middle}"
            parts.append(source + self.delay_in_words())
        return "; plus ".join(parts)

    def start_feedback(self, scale: float | None) -> None:
        """Make the feedback from the output, and that from the middle layer; see `make_feedback`.

        Args:
            scale: as `make_feedback` takes it.
        """
        self.feedback = self.make_feedback(scale)
        self.intermediate = self.make_feedback(scale, layers=self._middle or 0)

    def _make_readout(self, i: int, n: int, scale: float | None) -> Readout:
        self._hidden[i].keeps_trace = True
        weight = nn.Parameter(self._matrix(n, scale))
        if self.local_learning == "fixed":
            return Readout(i, weight, self._matrix(n, scale))
        if self.local_learning == "learned":
            return Readout(i, weight, nn.Parameter(self._matrix(n, scale)))
        return Readout(i, weight)

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
