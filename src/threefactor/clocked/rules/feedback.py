"""Direct feedback connections from an output to hidden layers, shared by several rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Unpack

from threefactor.clocked import products
from threefactor.clocked.noise import Perturbation
from threefactor.clocked.rules.base import Rule, RuleOptions
from threefactor.clocked.rules.late import KeptEligibility, OnArrival, checked_delay
from threefactor.errors import ConfigurationError, InputError, unknown_name, warn_user
from threefactor.options import as_number, in_range

__all__ = ["MEETS", "Feedback", "FeedbackOptions", "FeedbackRule", "checked_scale"]

MEETS = ("current-eligibility", "kept-eligibility")
LATE_ERRORS = ("lost", "delivered")


class Feedback(nn.Module):
    """A direct connection from m outputs to the n neurons of one hidden layer.

    The neurons of a channel may share a row of feedback in squares of `patch` x `patch` pixels,
    which divides the memory by the size of a square. The border cuts patches off. Layers that are
    no pictures (C, H, W) share nothing.

    Args:
        matrix: (m, p), p the number of rows; the transpose of the formulas' (n, m), so that a batch
            of errors (B, m) times it gives (B, p) and its update writes memory in order. A
            parameter stays one; any other tensor becomes a buffer.
        shape: the layer's shape, without the batch.
        patch: side of the squares; 1 for a row per neuron.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, shape: Sequence[int], patch: int = 1) -> None:
        super().__init__()
        self.shape, self.patch = torch.Size(shape), patch
        if isinstance(matrix, nn.Parameter):
            self.matrix = matrix
        else:
            self.register_buffer("matrix", matrix)

    def extra_repr(self) -> str:
        return f"outputs={len(self.matrix)}, shape={tuple(self.shape)}, patch={self.patch}"

    @staticmethod
    def rows(shape: Sequence[int], patch: int = 1) -> int:
        """Count the rows of a layer: C ceil(H / patch) ceil(W / patch) for (C, H, W)."""
        if len(shape) != 3:
            return math.prod(shape)
        channels, height, width = shape
        return channels * -(-height // patch) * -(-width // patch)

    def forward(self, error: Tensor) -> Tensor:
        """Bring the outputs' error (B, m) to the neurons: (B, n)."""
        values = products.product(error, self.matrix)
        if len(self.shape) != 3 or self.patch == 1:
            return values
        channels, height, width = self.shape
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        # A patch may be larger than the layer.
        high, wide = min(self.patch, height), min(self.patch, width)
        blocks = values.view(-1, channels, rows, 1, columns, 1)
        full = blocks.expand(-1, -1, -1, high, -1, wide).reshape(
            len(values), channels, rows * high, columns * wide
        )
        return full[:, :, :height, :width].flatten(1)

    def gather(self, x: Tensor) -> Tensor:
        """Average a value of each neuron, (B, ...), over the neurons of a row: (B, p)."""
        if x.dim() != 4 or self.patch == 1:
            return x.reshape(len(x), -1)
        square = (min(self.patch, x.shape[2]), min(self.patch, x.shape[3]))
        return F.avg_pool2d(x, square, ceil_mode=True, count_include_pad=False).flatten(1)


class FeedbackOptions(RuleOptions, total=False):
    """Options that rules with direct feedback share; see `FeedbackRule`."""

    feedback_delay: int
    feedback_meets: str
    late_errors: str


class FeedbackRule(Rule):
    r"""A rule that owns direct feedback connections from the output to the hidden layers.

    A subclass makes them in its `__init__`: `self.feedback = self.make_feedback(scale)`.
    `state_dict` names them `feedback.0.matrix`, `feedback.1.matrix`, ...

    On asynchronous hardware an error takes time to come back. With `feedback_delay=d`, what the
    output sends at time step t reaches the hidden layers at t + d. With the current eligibility it
    meets the trace and the surrogate derivative that they have then, with the kept eligibility
    those of step t:

    .. math:: \nabla W_l = \sum_t \psi(u_l[t+d]) \, g_l[t] \, \hat a_{l-1}[t+d]^T
              \quad\text{or}\quad
              \sum_t \psi(u_l[t]) \, g_l[t] \, \hat a_{l-1}[t]^T

    The output layer learns at once. So do read-outs of hidden layers and what a layer learns from
    its own; errors of an intermediate read-out take as long as those of the output. Feedback that
    learns does so when the message arrives. The noise that OPZO correlates with the output is that
    of the output's own step in both modes, so each layer keeps its noise of d steps.

    Args:
        network: see `Rule`.
        feedback_delay: d, in time steps.
        feedback_meets: "current-eligibility" or "kept-eligibility". The second keeps a trace for
            each synapse layer, and state, noise, constants and their eligibilities for each hidden
            layer, of d steps. With trace_decay="per-neuron" such a trace is (B, n_out, n_in). What
            lies between a parameter and the weights (standardisation, a parametrisation) is that
            of the time of arrival.
        late_errors: what becomes of the errors under way when a sequence ends: "lost", as when the
            next sample begins at once, or "delivered" with its last time step, for the kept
            eligibility alone.
        perturbation: noise on the hidden layers, or None.
        **options: see `RuleOptions`.

    Raises:
        InputError: if `feedback_delay` is no whole number of at least 0.
        ConfigurationError: if a name is not known, or options do not go together.

    Source: Xiao et al. 2026 (OPZO), section 4.3; Xiao et al. 2022 (OTTT); Bellec et al. 2020.
    """

    feedback: Sequence[Feedback]
    """The connection to each hidden layer, first layer first, in an `nn.ModuleList`."""
    feedback_patch = 1
    """Side of the squares of pixels that share a row of feedback."""

    def __init__(
        self,
        network: nn.Module,
        *,
        feedback_delay: int = 0,
        feedback_meets: str = "current-eligibility",
        late_errors: str = "lost",
        perturbation: Perturbation | None = None,
        **options: Unpack[RuleOptions],
    ) -> None:
        delay = checked_delay("feedback_delay", feedback_delay)
        if feedback_meets not in MEETS:
            raise unknown_name("value of feedback_meets:", feedback_meets, MEETS)
        if late_errors not in LATE_ERRORS:
            raise unknown_name("value of late_errors:", late_errors, LATE_ERRORS)
        kept = feedback_meets == "kept-eligibility"
        if late_errors == "delivered" and not kept:
            raise ConfigurationError(
                'late_errors="delivered" needs feedback_meets="kept-eligibility": after the end of '
                "a sequence there is no current eligibility that an error could meet"
            )
        if delay and options.get("label_delay") and not kept:
            raise ConfigurationError(
                'label_delay together with feedback_delay needs feedback_meets="kept-eligibility": '
                "the layers keep their eligibility until the label comes"
            )
        super().__init__(network, perturbation=perturbation, **options)
        self.feedback_delay, self.feedback_meets = delay, feedback_meets
        self.late_errors = late_errors
        if delay:
            self._late = (
                KeptEligibility(self._session, self.label_delay, delay)
                if kept
                else OnArrival(delay)
            )
        self.feedback = _listed([])
        self._seen: tuple[int, int] | None = None
        self._warned = False

    def signal_of(self, layer: str) -> str:
        return self.signal + self.delay_in_words()

    def delay_in_words(self) -> str:
        """Say when feedback arrives and what it meets, for `describe`; nothing if it is at once."""
        d = self.feedback_delay
        if not d:
            return ""
        what = "of its own step" if self.feedback_meets == MEETS[1] else "that it finds then"
        return f", {d} time step{'s' * (d > 1)} later, on the eligibility {what}"

    def make_feedback(
        self,
        scale: float | None = None,
        *,
        layers: int | None = None,
        trainable: bool = False,
    ) -> Sequence[Feedback]:
        """Make new connections to the hidden layers, in an `nn.ModuleList`.

        Args:
            scale: matrices start uniform in [-scale, scale], and at 0 for 0; 1/sqrt(p) by default,
                as the weights of a fresh read-out of p values.
            layers: how many layers get one, from the first on; all by default.
            trainable: whether the matrices are parameters, for the optimiser to change.
        """
        made = []
        for shape in list(self.layer_shapes.values())[:layers]:
            matrix = self._matrix(Feedback.rows(shape, self.feedback_patch), scale)
            given = nn.Parameter(matrix) if trainable else matrix
            made.append(Feedback(given, shape, self.feedback_patch))
        return _listed(made)

    def warn_if_idle(self, what: str, first: Tensor) -> None:
        """Warn once if the weights moved since the sequence before, and the rule's own did not.

        Args:
            what: the rule's own parameters, in words.
            first: one of them.
        """
        weight = next(self.network.parameters())
        seen, self._seen = self._seen, (weight._version, first._version)
        if self._warned or seen is None or not first.requires_grad:
            return
        if seen[0] != self._seen[0] and seen[1] == self._seen[1]:
            self._warned = True
            warn_user(
                f"{type(self).__name__}'s {what} has gradients, but nothing changed it since the "
                "last step; give rule.parameters() to the optimiser together with "
                "network.parameters(), or freeze them with rule.requires_grad_(False)"
            )

    def _matrix(self, n: int, scale: float | None) -> Tensor:
        """Return values for n neurons, (m, n), with the network's dtype and device."""
        weight = next(self.network.parameters())
        matrix = torch.empty(self.outputs, n, dtype=weight.dtype, device=weight.device)
        bound = n**-0.5 if scale is None else scale
        return matrix.uniform_(-bound, bound) if bound else matrix.zero_()


def checked_scale(scale: float | None) -> float | None:
    """Return the option `feedback_scale` of a rule, or refuse it."""
    if scale is not None and not 0.0 < as_number("feedback_scale", scale) < math.inf:
        raise InputError(f"feedback_scale is {scale}; give a number above 0")
    return None if scale is None else in_range("feedback_scale", scale)


def _listed(made: list[Feedback]) -> Sequence[Feedback]:
    return cast("Sequence[Feedback]", nn.ModuleList(made))
