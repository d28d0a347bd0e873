"""Synapse layers, and the pathway that gives one its presynaptic trace while a rule works."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor.clocked.pooling import average, checked_pool
from threefactor.errors import InputError

__all__ = ["Linear", "Pathway", "Synapse", "accumulate"]


class Synapse(nn.Module):
    """What a rule needs of a layer with weights; mix it into the PyTorch layer it extends.

    Used on its own the layer is the plain PyTorch layer. While a rule or a run works on the
    network, a `Pathway` stands in for its forward pass.
    """

    weight: Tensor
    bias: Tensor | None
    pathway: Pathway | None = None

    def receive(self, x: Tensor) -> Tensor:
        """Prepare the input for the weights: pooling, flattening. Linear; the input by default.

        The presynaptic trace is that of what is received. Autograd carries errors back through it.
        """
        return x

    def forget(self) -> None:
        """Drop what was derived from the weights for the time of a run; they may change now."""

    @property
    def plastic(self) -> Tensor | None:
        """A parameter for which `add_weight_grad` has something to add; None if all are frozen."""
        return self.weight if self.weight.requires_grad else None

    @abstractmethod
    def transmit(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the current that received input causes, bias included; `out` may hold it."""

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
    """Add a new tensor to a parameter's gradient, which may become this tensor."""
    if not parameter.requires_grad:
        return
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

    def transmit(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if out is None:
            return F.linear(x, self.weight, self.bias)
        if self.bias is None:
            return torch.mm(x, self.weight.t(), out=out)
        return torch.addmm(self.bias, x, self.weight.t(), out=out)

    def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
        rows, columns = delta.flatten(0, -2).t(), trace.flatten(0, -2)
        if self.weight.grad is None:  # a plain product saves filling a matrix with zeros
            accumulate(self.weight, rows @ columns)
        else:
            self.weight.grad.addmm_(rows, columns)

    def add_bias_grad(self, delta: Tensor) -> None:
        if self.bias is not None and self.bias.requires_grad:
            total = delta.flatten(0, -2).sum(0)
            self.bias.grad = total if self.bias.grad is None else self.bias.grad.add_(total)

    def input_error(self, delta: Tensor, shape: torch.Size) -> Tensor:
        return delta @ self.weight.detach()


MAX_GATHERED_STEPS = 6
MAX_GATHERED_BYTES = 8 * 2**20


class Pathway:
    r"""The presynaptic side of one synapse layer during a run.

    Keeps the presynaptic trace :math:`\hat a[t] = \lambda \hat a[t-1] + s[t]` and adds
    :math:`\sum_t \delta[t] \hat a[t]^T` to the weight gradient (Xiao et al. 2022, OTTT). The bias
    has no presynaptic trace; its gradient is :math:`\sum_t \delta[t]`.

    A few steps of traces and deltas are gathered before they are multiplied: one large product
    instead of several small ones. The number is bounded, so memory does not grow with T.

    For an input that is the same at every step, the trace is a number times the input: the product
    with the weights is made once, and so is the gradient, from the weighted sum of the deltas.

    The current that a call returns may be overwritten by the call of the next step.

    Args:
        synapse: the layer.
        decay: lambda of the trace.
        learning: whether currents get a graph node that fills the gradients.
    """

    def __init__(self, synapse: Synapse, decay: float, learning: bool = True) -> None:
        self.synapse = synapse
        self.decay = decay
        self.learning = learning
        self.constant_input: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the trace and the input."""
        self.trace: Tensor | None = None
        self.used = False
        # One for each pass of a step: the first pass's current may be needed after the second.
        self._buffers: dict[bool, Tensor] = {}
        self._traces: Tensor | None = None
        self._deltas: Tensor | None = None
        self._gathered = 0
        self._gain = 0.0
        self._input: Tensor | None = None
        self._forget_products()

    def _forget_products(self) -> None:
        self._current: Tensor | None = None
        self._delta_sum: Tensor | None = None
        self.synapse.forget()

    def __call__(self, x: Tensor) -> Tensor:
        if self.used:
            raise InputError(
                f"{self.synapse} is used twice in one time step, but has one presynaptic trace; "
                "give each use a layer of its own"
            )
        self.used = True
        constant = self._is_constant(x)
        x = self.synapse.receive(x)
        values = x.detach()
        if self.trace is not None and self.trace.shape != values.shape:
            raise InputError(
                f"input of shape {tuple(values.shape)} meets a trace of shape "
                f"{tuple(self.trace.shape)}; call reset() before a batch of another size"
            )
        current = self._transmit(values, constant)
        if not (self.learning and torch.is_grad_enabled()):
            return current
        self._follow(values, constant)
        plastic = self.synapse.plastic
        anchor = self.synapse.bias if plastic is None else plastic
        return _Transmission.apply(x, anchor, current, self, constant)  # type: ignore[no-any-return,no-untyped-call]

    def _is_constant(self, x: Tensor) -> bool:
        whole = self.constant_input
        return (
            whole is not None
            and x.data_ptr() == whole.data_ptr()
            and x.numel() == whole.numel()
            and x.is_contiguous()
        )

    def _transmit(self, x: Tensor, constant: bool) -> Tensor:
        with torch.no_grad():
            if not constant:
                current = self.synapse.transmit(x, self._buffers.get(self.learning))
                self._buffers[self.learning] = current
                return current
            if self._current is None:
                self._input, self._current = x, self.synapse.transmit(x)
            return self._current

    def _follow(self, x: Tensor, constant: bool) -> None:
        """Advance the trace to this step."""
        if constant:
            self._gain = self.decay * self._gain + 1.0
            return
        if self._traces is None:
            steps = max(1, min(MAX_GATHERED_STEPS, MAX_GATHERED_BYTES // x.nbytes))
            self._traces = x.new_empty((steps, *x.shape))
        slot = self._traces[self._gathered]
        if self.trace is None:
            slot.copy_(x)
        else:
            torch.add(x, self.trace, alpha=self.decay, out=slot)
        self.trace = slot

    def learn(self, delta: Tensor, constant: bool) -> None:
        """Take in `delta`, the error of this step's current."""
        if constant:
            self.synapse.add_bias_grad(delta)
            if self._delta_sum is None:
                self._delta_sum = delta * self._gain
            else:
                self._delta_sum.add_(delta, alpha=self._gain)
            return
        assert self._traces is not None
        if len(self._traces) == 1:  # too large to gather
            self._add(delta, self._traces[0])
            return
        if self._deltas is None:
            self._deltas = delta.new_empty((len(self._traces), *delta.shape))
        self._deltas[self._gathered].copy_(delta)
        self._gathered += 1
        if self._gathered == len(self._traces):
            self._multiply()

    def _multiply(self) -> None:
        """Turn the gathered steps into gradients."""
        n, self._gathered = self._gathered, 0
        assert self._traces is not None and self._deltas is not None
        self._add(self._deltas[:n].flatten(0, 1), self._traces[:n].flatten(0, 1))

    def _add(self, deltas: Tensor, traces: Tensor) -> None:
        self.synapse.add_bias_grad(deltas)
        if self.synapse.plastic is not None:
            self.synapse.add_weight_grad(deltas, traces)

    def flush(self) -> None:
        """Put all that was gathered into `.grad`; the weights may change after it."""
        if self._gathered:
            self._multiply()
        if self._delta_sum is not None and self.synapse.plastic is not None:
            assert self._input is not None
            self.synapse.add_weight_grad(self._delta_sum, self._input)
        self._forget_products()


class _Transmission(torch.autograd.Function):
    """A product made without autograd; its backward pass uses the trace in place of the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor | None,
        current: Tensor,
        pathway: Pathway,
        constant: bool,
    ) -> Tensor:
        # The anchor only tells autograd that there is something to learn here.
        ctx.pathway, ctx.constant, ctx.shape = pathway, constant, x.shape
        # Not a view: autograd lets no one write to the base of a view, as the next step will.
        return current.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        pathway: Pathway = ctx.pathway
        pathway.learn(delta, ctx.constant)
        error = None
        if ctx.needs_input_grad[0]:
            error = pathway.synapse.input_error(delta, ctx.shape)
        return error, None, None, None, None


def deliver(heads: Sequence[Tensor], errors: Sequence[Tensor]) -> None:
    """Send each head's error to the synapse layers that made the head.

    If every head is the current of a layer of its own, whose input needs no error, nothing is left
    for the chain rule to do, and the layers get their errors without it. In every other case
    (operations between, skip connections, hooks) autograd carries them.
    """
    nodes = [_only_node(h, e) for h, e in zip(heads, errors, strict=True)]
    direct = [node for node in nodes if node is not None]
    if len(set(direct)) < len(heads):
        torch.autograd.backward(heads, errors)
        return
    with torch.no_grad():
        for node, error in zip(direct, errors, strict=True):
            node.pathway.learn(error, node.constant)


def _only_node(head: Tensor, error: Tensor) -> Any:
    """Return the `_Transmission` that is the whole graph of a head; None if there is more to it."""
    node: Any = head.grad_fn
    alone = (
        isinstance(getattr(node, "pathway", None), Pathway)
        and not node.needs_input_grad[0]
        and not head._backward_hooks
        and not head.retains_grad
        and error.shape == head.shape
        and error.dtype == head.dtype
    )
    return node if alone else None
