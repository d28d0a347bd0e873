"""Leak, threshold and other constants of neurons: a number, values of each neuron, or learned."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from threefactor.clocked.verdicts import judge
from threefactor.errors import InputError
from threefactor.options import LARGEST, SMALLEST

if TYPE_CHECKING:
    from threefactor.clocked.neuron import Neuron

__all__ = ["LEVEL", "SHARE", "Constant", "Range", "number", "of_each", "sum_like", "value_of"]


@dataclass(frozen=True)
class Range:
    """The values that a constant may have, and how a parameter without bounds stands for one.

    Attributes:
        admits: whether a number, or each value of a tensor, is in the range.
        expected: what to give, in words.
        inner: the same for a constant that learns, which never reaches the ends of the range.
        raw: from the constant to the parameter.
        value: from the parameter to the constant.
        slope: derivative of the constant by the parameter, given the constant.
    """

    admits: Callable[[Any], Any]
    expected: str
    inner: str
    raw: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Any], Any]


SHARE = Range(
    admits=lambda v: (v >= 0.0) & (v <= 1.0),
    expected="the share kept from step to step, 0 to 1",
    inner="more than 0 and less than 1",
    raw=torch.logit,
    value=torch.sigmoid,
    slope=lambda v: v * (1.0 - v),
)
"""A leak, the sigmoid of its parameter."""
LEVEL = Range(
    admits=lambda v: (v >= SMALLEST) & (v <= LARGEST),
    expected="a number above 0 that single precision has, 1.2e-38 to 8.5e37",
    inner="more than 0",
    raw=torch.log,
    value=torch.exp,
    slope=lambda v: v,
)
"""A threshold, the exponential of its parameter."""


class Constant:
    """An attribute of a neuron layer: a float, or a tensor with a value of each neuron.

    A number for the whole layer stays a float. Values of each neuron are a buffer, `leak_values`
    for `leak`. If the layer learns the constant, the parameter `raw_leak` stands for it; a single
    one is read as a float, too, for which a GPU is waited for. So formulas take `value_of`.

    Args:
        range: the values that it may have.
    """

    def __init__(self, range: Range) -> None:
        self.range = range

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.raw, self.buffer = name, f"raw_{name}", f"{name}_values"

    def __get__(self, neuron: Any, owner: type | None = None) -> Any:
        if neuron is None:
            return self
        value = self.of(neuron)
        return value.item() if isinstance(value, Tensor) and value.dim() == 0 else value

    def of(self, neuron: Any) -> float | Tensor:
        """Return what formulas take: as the attribute, but a tensor () for what a GPU holds."""
        if self.learns(neuron):
            value = self.range.value(getattr(neuron, self.raw).detach())
            return value.item() if value.dim() == 0 and _at_hand(value) else value
        values = neuron._buffers.get(self.buffer)
        found: float | Tensor = neuron.__dict__[self.name] if values is None else values
        return found

    def __set__(self, neuron: Any, given: Any) -> None:
        value = self._taken(given)
        if self.learns(neuron):
            with torch.no_grad():
                parameter = getattr(neuron, self.raw)
                wanted = torch.as_tensor(value, dtype=parameter.dtype, device=parameter.device)
                parameter.copy_(self._raw_of(wanted))
        elif isinstance(value, Tensor):
            neuron.__dict__.pop(self.name, None)
            neuron._buffers.pop(self.buffer, None)
            neuron.register_buffer(self.buffer, value.detach().clone())
        else:
            neuron._buffers.pop(self.buffer, None)
            neuron.__dict__[self.name] = value  # where every plain attribute is

    def learns(self, neuron: Any) -> bool:
        """Return whether a layer has a parameter in the place of this constant."""
        return self.raw in neuron.learned

    def learn(self, neuron: Neuron) -> None:
        """Put a parameter in the place of the constant; called once, when the layer is made."""
        value = self.__get__(neuron)
        raw = self._raw_of(torch.as_tensor(value))
        neuron.__dict__.pop(self.name, None)
        neuron._buffers.pop(self.buffer, None)
        neuron.register_parameter(self.raw, nn.Parameter(raw))
        neuron.learned = (*neuron.learned, self.raw)

    def _raw_of(self, value: Tensor) -> Tensor:
        """Return the parameter that stands for a value, which has to be finite."""
        raw = self.range.raw(value)
        if not torch.isfinite(raw).all():
            raise InputError(
                f"{self.name} is {_shown(value)}; with learn_{self.name}, give {self.range.inner}"
            )
        return raw

    def _taken(self, given: Any) -> float | Tensor:
        if isinstance(given, Tensor) and given.requires_grad:
            raise InputError(
                f"{self.name} is a {type(given).__name__} that needs a gradient; give plain values "
                f"and learn_{self.name}=True when the layer is made, which learns them"
            )
        if isinstance(given, Tensor) and given.dim() > 0:
            if not given.is_floating_point() or given.numel() == 0:
                raise InputError(
                    f"{self.name} is a tensor {tuple(given.shape)} of {given.dtype}; give a "
                    "floating-point value for each neuron, or for each channel"
                )
            return given
        return number(self.name, given.item() if isinstance(given, Tensor) else given)

    def check(self, neuron: Any, where: str) -> None:
        """Refuse values out of the range.

        Args:
            neuron: the layer.
            where: what follows the constant's name in the message.

        Raises:
            InputError: naming the constant.
        """
        value = self.of(neuron)
        admitted = self.range.admits(value)
        if isinstance(admitted, Tensor):
            judge(admitted.all(), partial(self._refuse, value, where))
        elif not admitted:
            self._refuse(value, where)

    def _refuse(self, value: float | Tensor, where: str) -> None:
        raise InputError(f"{self.name}{where} is {_shown(value)}; give {self.range.expected}")

    def described(self, neuron: Any) -> str:
        """Return how the constant shows in the representation of a layer."""
        value = self.__get__(neuron)
        shown = f"{value:.4g}" if self.learns(neuron) and isinstance(value, float) else value
        text = f"{self.name}={_shown(shown)}"
        return f"{text}, learn_{self.name}=True" if self.learns(neuron) else text


def value_of(neuron: Any, name: str) -> Any:
    """Return a constant of a layer by its name, as formulas take it.

    Returns:
        A float; a tensor with a value of each neuron, or a tensor () on the layer's device for one
        number that the layer learns there; None if the layer has no such attribute. A class that
        has something else in the place of a `Constant` gives that.
    """
    found = getattr(type(neuron), name, None)
    return found.of(neuron) if isinstance(found, Constant) else getattr(neuron, name, None)


def _at_hand(value: Tensor) -> bool:
    """Whether reading a value waits for nothing."""
    return value.is_cpu


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    if value.dim() == 0:
        return f"{value.item():.7g}"
    return f"a tensor {tuple(value.shape)} from {value.min():.4g} to {value.max():.4g}"


def number(name: str, value: object) -> float:
    """Return a setting of neurons as a float, or refuse it.

    Raises:
        InputError: if it is no number.
    """
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        raise InputError(
            f"{name} is a {type(value).__name__}; it is one number for the whole layer, which no "
            "rule learns: give a float, such as value.item()"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {value!r}; give a number")
    return float(value)


@overload
def of_each(name: str, value: Tensor, shape: torch.Size) -> Tensor: ...


@overload
def of_each(name: str, value: float | Tensor, shape: torch.Size) -> float | Tensor: ...


def of_each(name: str, value: float | Tensor, shape: torch.Size) -> float | Tensor:
    """Return a constant so that it may meet a batch of neurons, element by element.

    Args:
        name: of the constant.
        value: a number, or a tensor (), (n,), (C,), (C, 1, 1) or (C, H, W): its first dimension
            is that of neurons or channels.
        shape: of the neurons, without the batch.

    Raises:
        InputError: if the shapes do not fit.
    """
    if not isinstance(value, Tensor):
        return value
    fits = value.dim() <= len(shape) and all(
        n in (1, m) for n, m in zip(value.shape, shape, strict=False)
    )
    if not fits:
        raise InputError(
            f"{name} has shape {tuple(value.shape)}, and the neurons have {tuple(shape)}; give a "
            "value for each neuron, or for each channel (C,) of a picture (C, H, W)"
        )
    return value.view(*value.shape, *[1] * (len(shape) - value.dim()))


def sum_like(values: Tensor, shape: torch.Size) -> Tensor:
    """Sum the values of a batch of neurons, (B, ...), to the shape of a parameter of the layer."""
    ends = (1,) * (values.dim() - 1 - len(shape))
    return values.sum_to_size(1, *shape, *ends).view(shape)
