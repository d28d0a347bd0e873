"""Losses of one time step, with the error that they send to the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from threefactor.clocked import graph, kernels, verdicts
from threefactor.errors import InputError
from threefactor.options import as_number

__all__ = [
    "CrossEntropyMSE",
    "Loss",
    "check_labels",
    "check_targets",
    "from_autograd",
    "refuse_to_teach",
]

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(B, m) output and targets in; (B,) losses and (B, m) gradient of each sample's loss out."""


class CrossEntropyMSE:
    r"""Cross entropy with a share of mean squared error, on class labels.

    .. math:: \ell = (1 - c)\,\mathrm{CE}(o, y) + c\,\mathrm{MSE}(o, \mathrm{onehot}(y))

    The squared error is averaged over the m outputs, as `torch.nn.MSELoss` does.

    Args:
        mse_weight: c, between 0 and 1; 0.05 for static data and 0.001 for event data.

    Source: Xiao et al. 2022 (OTTT); Xiao et al. 2026 (OPZO), appendix C.2.2.
    """

    def __init__(self, mse_weight: float = 0.05) -> None:
        if not 0.0 <= as_number("mse_weight", mse_weight) <= 1.0:
            raise InputError(f"mse_weight is {mse_weight}; give a share between 0 and 1")
        self.mse_weight = mse_weight

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that are not `samples` integer class labels below `outputs`."""
        check_labels(targets, samples, outputs)

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by the output, (B, m)."""
        return kernels.cross_entropy_mse(output, targets, self.mse_weight)


def check_plain(tensor: Tensor, subject: str, *, meta: bool = False) -> None:
    """Refuse a tensor that does not hold plain values in memory: sparse, quantised, meta, nested.

    Args:
        tensor: anything that is a `torch.Tensor`.
        subject: how the message begins: "inputs are", "targets are".
        meta: whether the device "meta" will do, as for a network that is there itself.
    """
    kind = None
    if tensor.is_nested:
        kind, advice = "nested", "pad them to one size"
    elif tensor.layout is not torch.strided:
        kind, advice = f"sparse ({tensor.layout})", "use .to_dense()"
    elif tensor.is_meta and not meta:
        kind, advice = "on the meta device, without values", "make them on a real device"
    elif tensor.is_quantized:
        kind, advice = "quantised", "use .dequantize()"
    if kind is not None:
        raise InputError(f"{subject} {kind}; expected a plain tensor, {advice}")


def loss_of(loss: Loss, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a loss says of an output (B, m): (B,) losses and (B, m) errors, checked.

    Raises:
        InputError: if they have other shapes, or depend on parameters.
    """
    # A loss of one's own may write to what it is given, and others read the output after it.
    given = loss(output if type(loss) is CrossEntropyMSE else output.clone(), targets)
    fits = (
        isinstance(given, tuple)
        and len(given) == 2
        and all(isinstance(part, Tensor) for part in given)
        and given[0].shape == output.shape[:1]
        and given[1].shape == output.shape
    )
    if not fits:
        shapes = [
            tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__
            for p in (given if isinstance(given, tuple) else (given,))
        ]
        raise InputError(
            f"the loss gave {shapes}; expected losses ({len(output)},) and errors "
            f"{tuple(output.shape)}; clocked.from_autograd makes such a loss of a differentiable "
            "function"
        )
    losses, errors = given
    if losses.requires_grad or errors.requires_grad:
        leaves = graph.leaves_behind(given)
        # A loss may have its gradient from autograd, by a leaf in the place of the output.
        own = [x for x in leaves if isinstance(x, nn.Parameter) or x.shape != output.shape]
        refuse_to_teach(loss, own)
        losses, errors = losses.detach(), errors.detach()
    return losses.to(output.dtype), errors.to(output.dtype)


def refuse_to_teach(loss: object, leaves: Sequence[Tensor]) -> None:
    """Refuse tensors that a loss depends on and that would learn from it, too.

    Args:
        loss: a module's parameters are named.
        leaves: the tensors, which need a gradient.

    Raises:
        InputError: naming them, if there are any.
    """
    if not leaves:
        return
    named = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    names = {id(p): name for name, p in named}
    found = sorted(names.get(id(x), f"one of shape {tuple(x.shape)}") for x in leaves)
    raise InputError(
        f"the loss depends on tensors beside the output that need a gradient: {found}. No rule "
        "teaches them: freeze parameters of the loss with requires_grad_(False), and leave "
        "penalties on weights to the optimiser (weight_decay)"
    )


def check_labels(targets: Tensor, samples: int, outputs: int) -> None:
    """Refuse targets that are not `samples` integer class labels below `outputs`.

    Raises:
        InputError: saying what was given and what was expected.
    """
    if not isinstance(targets, Tensor):
        raise InputError(
            f"targets are a {type(targets).__name__}; expected a torch.Tensor of class labels"
        )
    check_plain(targets, "targets are", meta=verdicts.gathering())
    if targets.shape != (samples,):
        raise InputError(
            f"targets have shape {tuple(targets.shape)}; "
            f"expected one class label per sample, shape ({samples},)"
        )
    if targets.dtype != torch.int64:
        raise InputError(
            f"targets are {targets.dtype}; expected class labels as torch.int64, use targets.long()"
        )
    low, high = targets.aminmax()
    if targets.is_cpu or not verdicts.gathering():
        _refuse_classes(low, high, outputs)
    else:
        known = (low >= 0) & (high < outputs)
        verdicts.judge(known, partial(_refuse_classes, low, high, outputs))


def _refuse_classes(low: Tensor, high: Tensor, outputs: int) -> None:
    if int(low) < 0 or int(high) >= outputs:
        raise InputError(
            f"targets lie between {int(low)} and {int(high)}; "
            f"a network with {outputs} outputs knows classes 0 to {outputs - 1}"
        )


def check_targets(loss: Loss, targets: Tensor, samples: int, outputs: int) -> None:
    """Let a loss that has a method `check_targets` refuse targets that have no meaning."""
    if not isinstance(targets, Tensor):
        raise InputError(f"targets are a {type(targets).__name__}; expected a torch.Tensor")
    check_plain(targets, "targets are", meta=verdicts.gathering())
    if targets.requires_grad:
        raise InputError(
            "targets need a gradient, such as those of a teacher that learns, too; no rule teaches "
            "what made them: use targets.detach()"
        )
    check = getattr(loss, "check_targets", None)
    if check is not None:
        check(targets, samples, outputs)
    if targets.dim() == 0 or len(targets) != samples:
        raise InputError(
            f"targets have shape {tuple(targets.shape)}; expected one target for each of the "
            f"{samples} samples"
        )


def from_autograd(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Make a loss out of a differentiable function that returns one value per sample, (B,).

    What the function has to be told beside the output and the targets, it gets without a gradient:
    a rule teaches the network alone.

    An attribute `predicts` of the function says what targets are, if they are no classes: "values"
    or "labels", see `TorchLoss`.

    Example:
        >>> loss = from_autograd(lambda o, y: (o - y).square().sum(1))
        >>> loss(torch.ones(1, 2), torch.zeros(1, 2))
        (tensor([2.]), tensor([[2., 2.]]))
    """

    return _Autograd(function)


class _Autograd:
    """See `from_autograd`; a class, so that rules with such a loss can be pickled."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function
        plain = function.func if isinstance(function, partial) else function
        self.predicts = getattr(plain, "predicts", None)
        name = getattr(function, "__name__", type(function).__name__)
        self.__qualname__ = f"from_autograd({name})"

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = output.detach().requires_grad_()
            losses = self.function(leaf.clone(), targets)  # which it may write to
            if not isinstance(losses, Tensor) or losses.shape != output.shape[:1]:
                given = tuple(losses.shape) if isinstance(losses, Tensor) else losses
                raise InputError(
                    f"the loss has shape {given}; "
                    f"expected one value per sample, shape ({len(output)},); of torch.nn's losses "
                    'use reduction="none", and take the mean over the outputs of those that have '
                    "a value for each"
                )
            self._refuse_other_leaves(losses, leaf)
            (error,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), error

    def _refuse_other_leaves(self, losses: Tensor, leaf: Tensor) -> None:
        """Refuse a loss that does not depend on the output, or on what would learn from it, too."""
        refuse_to_teach(self.function, [x for x in graph.leaves_behind([losses]) if x is not leaf])
        if not losses.requires_grad:
            raise InputError(
                "the loss does not depend on the output by operations that autograd can follow, so "
                "that no error comes of it; leave out .detach(), argmax and torch.no_grad"
            )
