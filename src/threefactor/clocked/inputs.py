"""What a network takes at one time step, one tensor or several, and what users give for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from threefactor.clocked.checks import whole_steps
from threefactor.clocked.losses import check_plain
from threefactor.clocked.verdicts import judge
from threefactor.errors import InputError

__all__ = [
    "InputReader",
    "InputShape",
    "Inputs",
    "Shapes",
    "StepInput",
    "batch_size",
    "call",
    "mapped",
    "shapes_of",
    "takes_several",
    "tensors_of",
    "zeros",
]

InputShape: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
"""Shape of one sample at one time step; several shapes for a network with several inputs: a tuple
of shapes for inputs by position, a dict for inputs by name."""
Shapes: TypeAlias = torch.Size | tuple[torch.Size, ...] | dict[str, torch.Size]
"""The same, checked."""
StepInput: TypeAlias = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
"""What a network takes at one time step: (B, ...), or a tuple or dict of such tensors."""
Inputs: TypeAlias = StepInput | Iterable[StepInput]
"""A constant current (B, ...), a sequence (T, B, ...), or an iterable of T step inputs; in a tuple
or dict for a network with several inputs."""


def takes_several(shapes: Shapes | None) -> bool:
    """Return whether these are the shapes of several inputs."""
    return shapes is not None and not isinstance(shapes, torch.Size)


def tensors_of(x_t: StepInput) -> tuple[Tensor, ...]:
    """Return the tensors of a step input, in the order in which they were declared."""
    if isinstance(x_t, Tensor):
        return (x_t,)
    return tuple(x_t.values()) if isinstance(x_t, Mapping) else tuple(x_t)


def mapped(inputs: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to the one input, or to each of several."""
    if isinstance(inputs, Mapping):
        return {name: change(part) for name, part in inputs.items()}
    if isinstance(inputs, tuple) and not isinstance(inputs, torch.Size):
        return tuple(change(part) for part in inputs)
    return change(inputs)


def batch_size(x_t: StepInput) -> int:
    """Return how many samples a step input has."""
    return tensors_of(x_t)[0].shape[0]


def zeros(shapes: Shapes, like: Tensor) -> StepInput:
    """Return a step input of one sample that is zero, with the dtype and device of a tensor."""
    return mapped(shapes, lambda shape: like.new_zeros((1, *shape)))  # type: ignore[no-any-return]


def call(network: nn.Module, x_t: StepInput) -> Any:
    """Run a network on a step input: a tuple goes in by position, a dict by name."""
    if isinstance(x_t, Tensor):
        return network(x_t)
    return network(**x_t) if isinstance(x_t, Mapping) else network(*x_t)


def shapes_of(network: nn.Module, given: InputShape | None) -> Shapes | None:
    """Return the shapes of a network's inputs: as given, else its attribute `input_shape`.

    Args:
        network: whose forward pass takes the inputs.
        given: the shapes; None for the network's own.

    Returns:
        None if nobody says what they are.

    Raises:
        InputError: if they are no shapes, or the forward pass does not take so many inputs.
    """
    shapes = getattr(network, "input_shape", None) if given is None else given
    if shapes is None:
        needed = _needed(network)
        if len(needed) > 1:
            raise InputError(
                f"the network's forward takes several inputs, ({', '.join(needed)}), and nobody "
                "says which shapes they have; give input_shape=, or set network.input_shape, to a "
                "tuple of shapes, one for each input by position, or to a dict by name"
            )
        return None
    found = _checked_shapes(shapes)
    if takes_several(found):
        _refuse_other_arguments(network, found)
    return found


def _checked_shapes(given: Any) -> Shapes:
    try:
        if isinstance(given, Mapping):
            found: Shapes = {name: torch.Size(shape) for name, shape in given.items()}
        elif any(isinstance(part, Iterable) for part in given):
            found = tuple(torch.Size(shape) for shape in given)
        else:
            return torch.Size(given)
    except (TypeError, RuntimeError) as problem:
        raise InputError(
            f"input_shape is {given!r:.100}; give the shape of one sample at one time step, as in "
            "(784,); for several inputs a tuple of shapes, or a dict of shapes by name"
        ) from problem
    if not found or not all(isinstance(name, str) for name in found if isinstance(found, dict)):
        raise InputError(
            f"input_shape is {given!r:.100}; give a shape for each input, a dict by the names of "
            "the arguments of the network's forward"
        )
    return found


def _needed(network: nn.Module) -> list[str]:
    """Return the arguments that a network's forward cannot do without."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in free]


def _refuse_other_arguments(network: nn.Module, shapes: Shapes) -> None:
    """Refuse shapes of several inputs that the network's forward does not take."""
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):
        return
    try:
        if isinstance(shapes, dict):
            signature.bind(**shapes)
        else:
            signature.bind(*shapes)
    except TypeError as problem:
        how = f"by name, ({', '.join(shapes)})" if isinstance(shapes, dict) else "by position"
        raise InputError(
            f"the network's forward{signature} does not take the {len(shapes)} inputs that "
            f"input_shape declares {how}: {problem}. A tuple of shapes is for arguments by "
            "position, a dict for arguments by name; a forward that takes one tuple or dict needs "
            "a forward of several arguments around it"
        ) from problem


class InputReader:
    """Reads and checks what users give as input, time step by time step.

    Args:
        shapes: of one sample at one time step; None if they are not known.
        like: a tensor with the network's dtype and device.
        detached: whether to refuse inputs with a graph behind them.
        features: values per sample of the first layer, if that is all that is known of the shape.
    """

    def __init__(
        self, shapes: Shapes | None, like: Tensor, detached: bool, features: int | None
    ) -> None:
        self.shapes = shapes
        self.like = like
        self.detached = detached
        self.features = features

    def read(
        self, inputs: Inputs, steps: int | None
    ) -> tuple[int, Iterator[StepInput], tuple[Tensor, ...]]:
        """Return T, the checked input of each step, and the tensors that are the same at each.

        Raises:
            InputError: if shape, dtype, T or a value has no meaning.
        """
        if steps is not None:
            steps = whole_steps(steps)
        self._refuse_other_kind(inputs)
        if not self._is_whole(inputs):
            return *self._iterate(inputs, steps), ()
        if steps is None:
            rows = self._rows(inputs)
            return *self._iterate(rows, len(rows)), ()
        whole = self.checked(inputs)
        for label, x in self._labelled(whole):
            if x.grad_fn is not None and torch.is_grad_enabled():
                raise InputError(
                    f"the constant {label or 'input'} comes with the graph of what made it, "
                    "through which errors of several time steps cannot go; use inputs.detach()"
                )
        # A copy of its own: memory shared with NumPy may change without a trace.
        whole = mapped(whole, lambda x: x.clone(memory_format=torch.contiguous_format))
        return steps, _repeat(whole, steps), tensors_of(whole)

    def checked(self, x_t: object) -> StepInput:
        """Return one time step of input, or refuse one that has no meaning."""
        if not takes_several(self.shapes):
            assert self.shapes is None or isinstance(self.shapes, torch.Size)
            return self._check(x_t, self.shapes, "")
        ordered = self._in_order(x_t)
        shapes = self._shapes()
        found = self._labelled(ordered)
        for (label, x), shape in zip(found, shapes, strict=True):
            self._check(x, shape, label)
        first, *others = found
        for label, x in others:
            if len(x) != len(first[1]):
                raise InputError(
                    f"{label} has {len(x)} samples and {first[0]} has {len(first[1])}; all inputs "
                    "of one time step need the same samples"
                )
        return ordered

    def _shapes(self) -> list[torch.Size]:
        shapes = self.shapes
        assert isinstance(shapes, tuple | dict)
        return list(shapes.values()) if isinstance(shapes, dict) else list(shapes)  # type: ignore[arg-type]

    def _labelled(self, x_t: StepInput) -> list[tuple[str, Tensor]]:
        """Return each tensor with what messages call it; the one of a single input has no name."""
        if isinstance(x_t, Tensor):
            return [("", x_t)]
        if isinstance(x_t, Mapping):
            return [(f"inputs[{name!r}]", x) for name, x in x_t.items()]
        return [(f"inputs[{i}]", x) for i, x in enumerate(x_t)]

    def _is_whole(self, inputs: object) -> bool:
        """Return whether this is one thing for all steps, and no iterable over time."""
        if not takes_several(self.shapes):
            return isinstance(inputs, Tensor)
        return isinstance(inputs, Mapping if isinstance(self.shapes, dict) else tuple)

    def _refuse_other_kind(self, inputs: object) -> None:
        """Refuse what cannot be the input of the network, and no sequence of it either."""
        if not takes_several(self.shapes):
            if isinstance(inputs, Mapping):
                raise InputError(
                    f"inputs are a {type(inputs).__name__}, and the network takes one tensor; a "
                    "network with several inputs declares them with input_shape, as in "
                    'input_shape={"image": (1, 28, 28), "audio": (40,)}'
                )
            if not isinstance(inputs, Iterable) or (
                isinstance(inputs, Tensor) and inputs.dim() == 0
            ):
                self.checked(inputs)  # which says what is expected
            return
        if self._is_whole(inputs):
            return
        if isinstance(inputs, Tensor | Mapping) or not isinstance(inputs, Iterable):
            self._in_order(inputs)
        elif isinstance(inputs, list | tuple) and inputs:
            self._in_order(inputs[0])  # a list of the inputs, such as a data loader gives

    def _in_order(self, x_t: object) -> StepInput:
        """Return several inputs in the order of their shapes, or refuse another kind or number."""
        shapes = self.shapes
        if isinstance(shapes, dict):
            if isinstance(x_t, Mapping) and set(x_t) == set(shapes):
                return {name: x_t[name] for name in shapes}
            expected = f"a dict with the keys {list(shapes)}"
            keys = f" with the keys {list(x_t)}" if isinstance(x_t, Mapping) else ""
            given = f"a {type(x_t).__name__}{keys}"
        else:
            assert isinstance(shapes, tuple)
            if isinstance(x_t, tuple) and len(x_t) == len(shapes):
                return x_t
            expected = f"a tuple of {len(shapes)} tensors"
            number = f" of {len(x_t)}" if isinstance(x_t, tuple | list) else ""
            given = f"a {type(x_t).__name__}{number}"
        raise InputError(
            f"the network takes {len(shapes)} inputs, and one time step of input is {given}; "
            f"expected {expected}, each (batch, ...). A list is a sequence over time, with one "
            f"such {'dict' if isinstance(shapes, dict) else 'tuple'} for each step"
        )

    def _rows(self, inputs: Any) -> list[Any]:
        """Cut sequences (T, B, ...) into time steps."""
        if isinstance(inputs, Tensor):
            check_plain(inputs, "inputs are", meta=self.like.is_meta)
            self._refuse_batch(inputs, self.shapes, "")  # type: ignore[arg-type]
            rows: list[Any] = list(inputs)
        else:
            parts = self._in_order(inputs)
            found = self._labelled(parts)
            for (label, x), shape in zip(found, self._shapes(), strict=True):
                if not isinstance(x, Tensor) or x.dim() < 3:
                    self._check(x, None, label)
                    raise InputError(
                        f"{label} has shape {tuple(x.shape)}; expected a sequence (T, batch, ...), "
                        "or steps=T for inputs that are constant. Inputs of one call are all "
                        "constant or all sequences: repeat a constant one, x.expand(T, *x.shape)"
                    )
                self._refuse_batch(x, shape, label)
            lengths = {label: len(x) for label, x in found}
            if len(set(lengths.values())) > 1:
                raise InputError(
                    f"the inputs have different numbers of time steps, {lengths}; expected (T, "
                    "batch, ...) with the same T. Inputs of one call are all constant or all "
                    "sequences: repeat a constant one, x.expand(T, *x.shape)"
                )
            steps = next(iter(lengths.values()))
            rows = [mapped(parts, itemgetter(t)) for t in range(steps)]
        if not rows:
            raise InputError("the sequence has no time step; its first dimension is time")
        return rows

    def _iterate(self, inputs: Any, steps: int | None) -> tuple[int, Iterator[StepInput]]:
        """Return T and the steps of an iterable over time."""
        if steps is None:
            if not isinstance(inputs, Sized):
                raise InputError(f"a {type(inputs).__name__} has no length; give steps=T")
            steps = len(inputs)
            if steps < 1:
                raise InputError("the sequence has no time step; its first dimension is time")
        if not isinstance(inputs, list | tuple):
            return steps, self._read(inputs, steps)
        if len(inputs) < steps:
            raise InputError(f"the sequence ended after {len(inputs)} time steps; expected {steps}")
        # The whole sequence is known: check all of it before anything is learned.
        known = [self.checked(x_t) for x_t in inputs[:steps]]
        for x_t in known:
            if batch_size(x_t) != batch_size(known[0]):
                raise InputError(
                    f"{batch_size(x_t)} samples follow a time step of {batch_size(known[0])} in "
                    "one sequence; every time step needs the same samples"
                )
        return steps, iter(known)

    def _read(self, inputs: Iterable[Any], steps: int) -> Iterator[StepInput]:
        count = 0
        for x_t in inputs:
            checked = self.checked(x_t)
            count += 1
            yield checked
            if count == steps:
                return
        raise InputError(f"the sequence ended after {count} time steps; expected {steps}")

    def _refuse_batch(self, inputs: Tensor, sample: torch.Size | None, label: str) -> None:
        """Refuse a sequence of single samples that may as well be a batch without `steps`."""
        if sample is None and self.features is not None:
            sample = torch.Size((self.features,))
        if sample is None or inputs.dim() < 3 or inputs.shape[2:] == sample:
            return
        if inputs.numel() and inputs[0].numel() == sample.numel():
            t, expected = len(inputs), ", ".join(map(str, sample))
            raise InputError(
                f"{label or 'inputs'} of shape {tuple(inputs.shape)} come without steps: they fit "
                f"a batch of {t} samples ({expected}). Give steps=T to show them for T time steps; "
                f"for a sequence of {t} steps of one sample, give the shape ({t}, 1, {expected})"
            )

    def _check(self, x: object, shape: torch.Size | None, label: str) -> Tensor:
        """Return one tensor of a time step, or refuse one that has no meaning."""
        weight, what = self.like, f"one time step of {label or 'input'}"
        are = f"{label} is" if label else "inputs are"
        if not isinstance(x, Tensor):
            raise InputError(
                f"{what} is a {type(x).__name__}; expected a torch.Tensor "
                "(batch, ...), use torch.as_tensor(inputs)"
            )
        check_plain(x, are, meta=weight.is_meta)
        if x.dim() < 2 or x.numel() == 0:
            raise InputError(
                f"{what} has shape {tuple(x.shape)}; expected (batch, ...) with "
                "at least one sample and one value. A constant input needs steps=T, "
                "a sequence (T, batch, ...) goes without"
            )
        if shape is not None and x[0].numel() != shape.numel():
            raise InputError(
                f"{what} has shape {tuple(x.shape)}; expected (batch, "
                f"{', '.join(map(str, shape))}), or as many values per sample. "
                "A constant input needs steps=T, a sequence (T, batch, ...) goes without"
                + (", and all inputs of one call are of one kind" if label else "")
            )
        if self.detached and x.grad_fn is not None and not _is_cut_from_leaf(x):
            raise InputError(
                "inputs come with the graph of what made them, such as an encoder, which would "
                "learn by backpropagation through the first weights. A rule of direct feedback "
                'does not do that: use inputs.detach(), or allow it with chain="within-layers"'
            )
        if x.dtype != weight.dtype:
            raise InputError(
                f"{are} {x.dtype} and the network is {weight.dtype}; "
                f"use {label or 'inputs'}.to({weight.dtype}) or network.to({x.dtype})"
            )
        if x.device != weight.device:
            raise InputError(
                f"{are} on {x.device} and the network is on {weight.device}; "
                "move one of them with .to(device)"
            )
        # The sum is quick, and finite unless a value is not (or the sum itself overflows). It is
        # not enough where x is looked at later, when it may hold the values of another step.
        sound = torch.isfinite(x.sum()) if x.is_cpu else torch.isfinite(x).all()
        judge(sound, partial(_refuse_infinite, x, label))
        return x


def _is_cut_from_leaf(x: Tensor) -> bool:
    """Return whether a tensor is a time step of a sequence that nothing made."""
    return x._base is not None and x._base.is_leaf


def _refuse_infinite(x: Tensor, label: str) -> None:
    bad = int((~torch.isfinite(x)).sum())
    if bad or not x.is_cpu:
        holds = f"{label} holds" if label else "inputs hold"
        raise InputError(f"{holds} {bad or 'some'} NaN or infinite values; clean the data first")


def _repeat(whole: StepInput, steps: int) -> Iterator[StepInput]:
    """Give a constant input again and again, as long as nobody changes it."""
    versions = [(x, x._version) for x in tensors_of(whole) if not x.is_inference()]
    for _ in range(steps):
        if any(x._version != version for x, version in versions):
            raise InputError(
                "the constant input was changed in place between two time steps; give an "
                "iterable of one tensor for each step instead"
            )
        yield whole
