"""Synapse layers, and the contract that a user's own synapse layers fulfil."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor.clocked import products
from threefactor.clocked.pooling import average, checked_pool
from threefactor.errors import InputError

__all__ = ["Carrier", "Linear", "Synapse", "accumulate"]


class Carrier(Protocol):
    """What stands in for a synapse layer's forward pass while a rule works: a `Pathway`."""

    derived: dict[str, Any]
    """What was made of the weights, kept until they may change."""
    copies: dict[str, Tensor]
    """The weights themselves in another order, kept as long."""

    def __call__(self, x: Tensor) -> Tensor:
        """Stand in for the forward pass."""

    def hold(self, name: str) -> Tensor:
        """See `Synapse.held`."""


class Synapse(nn.Module):
    """What a rule needs of a layer with weights; mix it into the PyTorch layer it extends.

    Used on its own the layer is the plain PyTorch layer. While a rule or a run works on the
    network, a `Pathway` stands in for its forward pass.
    """

    weight: Tensor
    bias: Tensor | None
    pathway: Carrier | None = None

    def receive(self, x: Tensor) -> Tensor:
        """Prepare the input for the weights: pooling, flattening. Linear; the input by default.

        The presynaptic trace is that of what is received. Autograd carries errors back through it.
        """
        return x

    def put(self, pathway: Carrier | None) -> None:
        """Let a pathway stand in for the forward pass; None for nobody."""
        self.__dict__["pathway"] = pathway

    def held(self, name: str) -> Tensor:
        """Return one of this layer's parameters as a leaf whose `.grad` may be added to.

        Under a rule, a parameter that is computed from others (pruning, weight normalisation, any
        parametrisation) or that has hooks is computed once, until the weights may change. What was
        added to the leaf's `.grad` then goes through autograd to the parameters behind it, hooks
        included. A plain parameter is returned as it is.
        """
        if self.pathway is None:
            return getattr(self, name)  # type: ignore[no-any-return]
        return self.pathway.hold(name)

    @property
    def plastic(self) -> Tensor | None:
        """A parameter for which `add_weight_grad` has something to add; None if all are frozen."""
        weight = self.held("weight")
        return weight if weight.requires_grad else None

    def __getstate__(self) -> dict[str, Any]:
        """A copy is nobody's: it leaves the rule behind that works on the layer now."""
        return {**self.__dict__, "pathway": None}

    @abstractmethod
    def transmit(self, x: Tensor) -> Tensor:
        """Return the current that received input causes, bias included, as a new tensor.

        The same input has to give the same current: that of a constant input is made once.
        """

    @abstractmethod
    def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
        """Add sum over the batch of delta trace^T to `weight.grad`; trace of what is received."""

    @abstractmethod
    def add_bias_grad(self, delta: Tensor) -> None:
        """Add the sum of delta over everything but the output units to `bias.grad`."""

    @abstractmethod
    def input_error(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """Carry an error of the current back to what was received, of the given shape."""


def accumulate(parameter: Tensor, grad: Tensor) -> None:
    """Add a new tensor to a parameter's gradient, which may become this tensor.

    Raises:
        InputError: if the parameter is computed from others, so that its `.grad` would be lost.
    """
    if not parameter.requires_grad:
        return
    if not parameter.is_leaf:
        raise InputError(
            "a gradient belongs to a weight that is computed from other parameters (pruning or a "
            "parametrisation); the synapse layer has to take it from self.held(name)"
        )
    if parameter.grad is not None:
        parameter.grad.add_(grad)
        return
    # Fused optimisers go through memory in order: a gradient has to lie as its parameter does.
    same = grad.stride() == parameter.stride()
    parameter.grad = grad if same else torch.empty_like(parameter).copy_(grad)


class Linear(Synapse, nn.Linear):  # type: ignore[misc]
    """`torch.nn.Linear` whose weight gradient can use the presynaptic trace.

    (B, in_features) in, (B, out_features) out. Pictures (B, C, H, W) are averaged over squares of
    `pool` x `pool` and flattened.

    Args:
        in_features, out_features, bias, device, dtype: as `torch.nn.Linear`; `in_features` counts
            values after pooling.
        pool: side of the squares; 1 for no pooling.

    Raises:
        InputError: if `pool` is below 1, or larger than the picture.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        pool: int = 1,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.pool = checked_pool(pool)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", pool={self.pool}" if self.pool > 1 else "")

    def forward(self, x: Tensor) -> Tensor:
        return self.transmit(self.receive(x)) if self.pathway is None else self.pathway(x)

    def receive(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x
        x = average(x, self.pool, self)
        return x.flatten(1) if x[0].numel() == self.in_features else x

    def transmit(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.held("bias")
        weight = self.held("weight")
        if self.pathway is None:
            return F.linear(x, weight, bias)
        return products.linear(x, weight, bias, self.pathway.copies)

    def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
        grad = products.weight_gradient(delta.flatten(0, -2), trace.flatten(0, -2))
        accumulate(self.held("weight"), grad)

    def add_bias_grad(self, delta: Tensor) -> None:
        if self.bias is not None:
            accumulate(self.held("bias"), delta.flatten(0, -2).sum(0))

    def input_error(self, delta: Tensor, shape: torch.Size) -> Tensor:
        return products.product(delta, self.held("weight").detach())
