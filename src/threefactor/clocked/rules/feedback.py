"""Direct feedback connections from an output to hidden layers, shared by several rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Unpack

from threefactor.clocked.noise import Perturbation
from threefactor.clocked.rules.base import Rule, RuleOptions
from threefactor.errors import InputError

__all__ = ["Feedback", "FeedbackRule", "checked_scale"]


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
        values = error @ self.matrix
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
            return x.flatten(1)
        square = (min(self.patch, x.shape[2]), min(self.patch, x.shape[3]))
        return F.avg_pool2d(x, square, ceil_mode=True, count_include_pad=False).flatten(1)


class FeedbackRule(Rule):
    """A rule that owns direct feedback connections from the output to the hidden layers.

    A subclass makes them in its `__init__`: `self.feedback = self.make_feedback(scale)`.
    `state_dict` names them `feedback.0.matrix`, `feedback.1.matrix`, ...
    """

    feedback: Sequence[Feedback]
    """The connection to each hidden layer, first layer first, in an `nn.ModuleList`."""
    feedback_patch = 1
    """Side of the squares of pixels that share a row of feedback."""

    def __init__(
        self,
        network: nn.Module,
        *,
        perturbation: Perturbation | None = None,
        **options: Unpack[RuleOptions],
    ) -> None:
        super().__init__(network, perturbation=perturbation, **options)
        self.feedback = _listed([])

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

    def _matrix(self, n: int, scale: float | None) -> Tensor:
        """Return values for n neurons, (m, n), with the network's dtype and device."""
        weight = next(self.network.parameters())
        matrix = torch.empty(self.outputs, n, dtype=weight.dtype, device=weight.device)
        bound = n**-0.5 if scale is None else scale
        return matrix.uniform_(-bound, bound) if bound else matrix.zero_()


def checked_scale(scale: float | None) -> float | None:
    """Return the option `feedback_scale` of a rule, or refuse it."""
    if scale is not None and not scale > 0.0:
        raise InputError(f"feedback_scale is {scale}; give a number above 0")
    return scale


def _listed(made: list[Feedback]) -> Sequence[Feedback]:
    return cast("Sequence[Feedback]", nn.ModuleList(made))
