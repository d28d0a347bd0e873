"""Losses of `torch.nn`, with a value and an error for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from threefactor.clocked.losses import (
    Loss,
    check_labels,
    check_plain,
    from_autograd,
    refuse_to_teach,
)
from threefactor.errors import InputError
from threefactor.options import in_range

__all__ = ["TORCH_LOSSES", "UNSUPPORTED", "Predicts", "TorchLoss", "checked_loss", "from_torch"]

Predicts = Literal["classes", "values", "labels"]
"""What an output says: one class of several, numbers, or which of several labels are right."""

UNSUPPORTED: Mapping[str, str] = {
    "NLLLoss": "it takes logarithms of probabilities; CrossEntropyLoss makes them of the output",
    "BCELoss": "it takes probabilities; BCEWithLogitsLoss makes them of the output",
    "KLDivLoss": "it takes logarithms of probabilities for input and target",
    "GaussianNLLLoss": "it takes a variance beside the output",
    "PoissonNLLLoss": "its output is the logarithm of what it predicts",
    "SoftMarginLoss": "its targets are -1 and 1; BCEWithLogitsLoss is the same for 0 and 1",
    "MultiLabelMarginLoss": "its targets are lists of classes that end with -1; "
    "BCEWithLogitsLoss or MultiLabelSoftMarginLoss take 0 and 1 for each label",
    **dict.fromkeys(
        (
            *("CosineEmbeddingLoss", "HingeEmbeddingLoss", "MarginRankingLoss"),
            *("TripletMarginLoss", "TripletMarginWithDistanceLoss"),
        ),
        "it compares several outputs with each other",
    ),
    "CTCLoss": "it reads whole sequences, and a rule has the loss of one time step",
    "AdaptiveLogSoftmaxWithLoss": "it has weights of its own",
    "LinearCrossEntropyLoss": "it has weights of its own",
    "NLLLoss2d": "it takes pictures of classes",
}
"""Losses of `torch.nn` that cannot teach a network here, and why."""


class TorchLoss(ABC):
    """A loss of `torch.nn` as rules need it: losses (B,) and errors (B, m), one for each sample.

    The loss of a sample is what `reduction="none"` gives; of losses with a value for each output,
    the mean of these. Errors are autograd's gradients of it. A rule then takes the mean over the
    samples, which is what PyTorch's `reduction="mean"` does, with one exception: see
    `CrossEntropyLoss`.

    Attributes:
        predicts: what targets are. "classes": (B,) numbers of classes; "values": (B, m) floating
            point numbers; "labels": (B, m) floating point numbers from 0 to 1.
    """

    predicts: ClassVar[Predicts]

    @abstractmethod
    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return PyTorch's values, (B,) or (B, m)."""

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and their gradients by the output, (B, m)."""
        return from_autograd(self._of_samples)(output, targets)

    def _of_samples(self, output: Tensor, targets: Tensor) -> Tensor:
        values = self.values(output, targets)
        return values if values.dim() == 1 else values.mean(1)

    def check_targets(self, targets: Tensor, samples: int, outputs: int) -> None:
        """Refuse targets that the loss has no meaning for.

        Raises:
            InputError: saying what was given and what was expected.
        """
        for name in ("weight", "pos_weight"):
            given = getattr(self, name, None)
            if given is not None and len(given) != outputs:
                raise InputError(
                    f"{name} of {type(self).__name__} has {len(given)} numbers, and the network "
                    f"{outputs} outputs; give one for each"
                )
        if self.predicts == "classes":
            check_labels(targets, samples, outputs)
            return
        name, what = type(self).__name__, "numbers"
        if self.predicts == "labels":
            what = "numbers from 0 to 1, one for each label that may be right"
        if not isinstance(targets, Tensor):
            raise InputError(f"targets are a {type(targets).__name__}; expected a torch.Tensor")
        check_plain(targets, "targets are")
        if not targets.is_floating_point():
            advice = "use CrossEntropyLoss for numbers of classes, and targets.float() for others"
            raise InputError(
                f"targets are {targets.dtype}, and {name} takes {what} as floating point: {advice}"
            )
        if targets.shape != (samples, outputs):
            raise InputError(
                f"targets have shape {tuple(targets.shape)}, and {name} takes {what}, in the shape "
                f"({samples}, {outputs}): as many as the network has outputs"
            )
        if not bool(targets.isfinite().all()):
            raise InputError("targets are NaN or infinite; leave out or mend these samples")
        if self.predicts == "labels" and targets.numel():
            low, high = (float(v) for v in targets.aminmax())
            if low < 0 or high > 1:
                raise InputError(
                    f"targets lie between {low:g} and {high:g}, and {name} takes {what}"
                )


class CrossEntropyLoss(TorchLoss):
    """`torch.nn.CrossEntropyLoss` of class labels.

    With `weight`, PyTorch's mean divides by the sum of the weights of a batch. Here the mean is
    over the samples, so that the loss of data does not depend on how they are cut into batches.

    Args:
        weight: of each class, at least 0; None for 1.
        label_smoothing: share of the target that goes to all classes alike, 0 to 1.
    """

    predicts = "classes"

    def __init__(self, *, weight: list[float] | None = None, label_smoothing: float = 0.0) -> None:
        _check_share("label_smoothing", label_smoothing)
        self.weight, self.label_smoothing = _weights("weight", weight), label_smoothing

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(
            output,
            targets,
            _as(output, self.weight),
            reduction="none",
            label_smoothing=self.label_smoothing,
        )


class MultiMarginLoss(TorchLoss):
    """`torch.nn.MultiMarginLoss` of class labels.

    Args:
        p: exponent, 1 or 2.
        margin: by which the output of the class should exceed the others.
        weight: of each class, at least 0; None for 1.
    """

    predicts = "classes"

    def __init__(
        self, *, p: int = 1, margin: float = 1.0, weight: list[float] | None = None
    ) -> None:
        if p not in (1, 2):
            raise InputError(f"p is {p}; MultiMarginLoss takes 1 or 2")
        self.p, self.margin = p, in_range("margin", margin)
        self.weight = _weights("weight", weight)

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        weight = _as(output, self.weight)
        return functional.multi_margin_loss(
            output, targets, self.p, self.margin, weight, reduction="none"
        )


class MSELoss(TorchLoss):
    """`torch.nn.MSELoss`: the mean over the outputs of their squared errors."""

    predicts = "values"

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(output, targets, reduction="none")


class L1Loss(TorchLoss):
    """`torch.nn.L1Loss`: the mean over the outputs of their absolute errors."""

    predicts = "values"

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.l1_loss(output, targets, reduction="none")


class SmoothL1Loss(TorchLoss):
    """`torch.nn.SmoothL1Loss`: squared for small errors, absolute for others.

    Args:
        beta: size of the error between the two, at least 0.
    """

    predicts = "values"

    def __init__(self, *, beta: float = 1.0) -> None:
        if not beta >= 0:
            raise InputError(f"beta is {beta}; give a size of at least 0")
        self.beta = in_range("beta", beta)

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.smooth_l1_loss(output, targets, reduction="none", beta=self.beta)


class HuberLoss(TorchLoss):
    """`torch.nn.HuberLoss`: half the square of small errors, delta times others.

    Args:
        delta: size of the error between the two, above 0.
    """

    predicts = "values"

    def __init__(self, *, delta: float = 1.0) -> None:
        if not delta > 0:
            raise InputError(f"delta is {delta}; give a size above 0")
        self.delta = in_range("delta", delta)

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.huber_loss(output, targets, reduction="none", delta=self.delta)


class BCEWithLogitsLoss(TorchLoss):
    """`torch.nn.BCEWithLogitsLoss` of several labels, each of which may be right.

    Args:
        weight: of each label, at least 0; None for 1.
        pos_weight: of the samples for which a label is right, for each label; None for 1.
    """

    predicts = "labels"

    def __init__(
        self, *, weight: list[float] | None = None, pos_weight: list[float] | None = None
    ) -> None:
        self.weight = _weights("weight", weight)
        self.pos_weight = _weights("pos_weight", pos_weight)

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            output,
            targets.to(output.dtype),
            _as(output, self.weight),
            reduction="none",
            pos_weight=_as(output, self.pos_weight),
        )


class MultiLabelSoftMarginLoss(TorchLoss):
    """`torch.nn.MultiLabelSoftMarginLoss` of several labels, each of which may be right.

    Args:
        weight: of each label, at least 0; None for 1.
    """

    predicts = "labels"

    def __init__(self, *, weight: list[float] | None = None) -> None:
        self.weight = _weights("weight", weight)

    def values(self, output: Tensor, targets: Tensor) -> Tensor:
        return functional.multilabel_soft_margin_loss(
            output, targets.to(output.dtype), _as(output, self.weight), reduction="none"
        )


TORCH_LOSSES: Mapping[str, Callable[..., TorchLoss]] = {
    kind.__name__: kind
    for kind in (
        *(CrossEntropyLoss, MultiMarginLoss, MSELoss, L1Loss, SmoothL1Loss, HuberLoss),
        *(BCEWithLogitsLoss, MultiLabelSoftMarginLoss),
    )
}
"""By name, which is that of the class in `torch.nn`."""
_OPTIONS = ("weight", "label_smoothing", "p", "margin", "beta", "delta", "pos_weight")


def from_torch(module: nn.Module) -> TorchLoss:
    """Return a loss of `torch.nn` with a value and an error for each sample.

    Args:
        module: an object of one of the classes in `TORCH_LOSSES`.

    Raises:
        InputError: if it is another one, sums over the samples, or leaves some of them out.

    Example:
        >>> import torch
        >>> loss = from_torch(nn.CrossEntropyLoss(label_smoothing=0.1))
        >>> losses, errors = loss(torch.zeros(2, 3), torch.tensor([0, 2]))
        >>> losses.shape, errors.shape
        (torch.Size([2]), torch.Size([2, 3]))
    """
    name = type(module).__name__
    kind = TORCH_LOSSES.get(name)
    if kind is None or type(module) is not getattr(nn, name, None):
        why = UNSUPPORTED.get(name)
        raise InputError(
            f"loss is {name}{f': {why}' if why else ', which returns one number'}; a rule needs a "
            f"loss and an error for each sample. Give one of {', '.join(TORCH_LOSSES)}, or make "
            "one of a function with a value for each sample: clocked.from_autograd(function)"
        )
    given: Any = module
    if given.reduction == "sum":
        raise InputError(
            f"loss is {name} with reduction='sum'; rules take the mean over the samples: leave it "
            "out, and multiply the learning rate"
        )
    if getattr(module, "ignore_index", -100) != -100:
        raise InputError(f"loss is {name} with ignore_index; leave these samples out of the data")
    if name == "CrossEntropyLoss" and given.weight is not None and given.reduction == "mean":
        raise InputError(
            "loss is CrossEntropyLoss with weight and reduction='mean', which divides by the sum "
            "of the weights of a batch; rules take the mean over the samples: say "
            "reduction='none' if you want that"
        )
    options = {key: getattr(module, key) for key in _OPTIONS if hasattr(module, key)}
    return kind(**{k: v.tolist() if isinstance(v, Tensor) else v for k, v in options.items()})


def checked_loss(loss: Any) -> Loss:
    """Return a loss, one of `torch.nn` as `from_torch` makes it.

    Raises:
        InputError: if it cannot be a loss; says how to make one of it. If it is a module with
            parameters that learn, which no rule teaches.
    """
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch."):
        return from_torch(loss)
    if isinstance(loss, (type, nn.modules.loss._Loss)) or not callable(loss):
        name = getattr(loss, "__name__", None) or type(loss).__name__
        raise InputError(
            f"the loss is {name}; expected a function (output, targets) -> (losses, errors), of "
            "shapes (B,) and (B, m): an object of torch.nn, as CrossEntropyLoss(), or what "
            "threefactor.clocked.from_autograd makes of a function with a value for each sample"
        )
    if isinstance(loss, nn.Module):
        refuse_to_teach(loss, [p for p in loss.parameters() if p.requires_grad])
    return loss  # type: ignore[no-any-return]


def _as(output: Tensor, values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else output.new_tensor(values)


def _weights(name: str, given: Sequence[float] | None) -> list[float] | None:
    """Return weights as plain numbers, or refuse what is none."""
    if given is None:
        return None
    if not isinstance(given, (list, tuple)):
        raise InputError(f"{name} is {given}; give one number for each output")
    numbers = all(type(one) in (int, float) and 0 <= one < float("inf") for one in given)
    if not (given and numbers and any(given)):
        raise InputError(f"{name} is {given}; give numbers of at least 0, not all of them 0")
    return [in_range(name, float(one)) for one in given]


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; give a share between 0 and 1")
