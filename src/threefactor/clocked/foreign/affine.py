"""Layers of PyTorch with weights, as they are, seen as this library's synapse layers."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor.clocked.conv import Conv2d
from threefactor.clocked.synapse import Linear, Synapse, accumulate
from threefactor.errors import InputError

__all__ = ["ForeignSynapse", "affine_adapter", "note_view", "view_of"]

_views: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def view_of(module: nn.Module) -> Any:
    """Return the view of a layer that somebody holds; None if nobody does."""
    view = _views.get(id(module))
    return view if view is not None and view.module is module else None


def note_view(view: Any) -> None:
    """Let all share this view of its layer while somebody holds it, unless there is one."""
    if view_of(view.module) is None:
        _views[id(view.module)] = view


class ForeignSynapse(Synapse):
    """A view of a layer that knows nothing of rules; it holds the very same parameters.

    The layer keeps its class, parameters, hooks and names. While a rule works, an attribute
    `forward` of the instance sends its input through the pathway.

    Args:
        module: the layer.
    """

    module: Any
    """The layer. Its attributes are those of another library, unknown to type checkers."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        own = self.__dict__
        own["module"] = module
        for shared in ("_parameters", "_buffers", "_modules"):
            own[shared] = module.__dict__[shared]

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            # A copy that is being made, or how to make one, which is the view's own business.
            if "module" not in self.__dict__ or name.startswith("__"):
                raise
            return getattr(self.__dict__["module"], name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        note_view(self)

    def __repr__(self) -> str:
        return repr(self.module)

    def put(self, pathway: Any) -> None:
        self.__dict__["pathway"] = pathway
        stand_in(self.module, pathway)


class ForeignLinear(ForeignSynapse, Linear):  # type: ignore[misc]
    """`torch.nn.Linear`: products over the last dimension, whatever lies before it."""

    pool = 1

    def __init__(self, module: nn.Module) -> None:
        ForeignSynapse.__init__(self, module)

    def receive(self, x: Tensor) -> Tensor:
        return x


class ForeignConv2d(ForeignSynapse, Conv2d):
    """`torch.nn.Conv2d` with zeros around the picture."""

    pool = 1
    gain = None

    def __init__(self, module: nn.Module) -> None:
        ForeignSynapse.__init__(self, module)


class ForeignConvolution(ForeignSynapse):
    r"""Any other convolution: 1 to 3 dimensions, transposed, grouped, with any padding.

    The layer is affine in its input, so that the gradient of the weights is that of one forward
    pass on the trace: :math:`\nabla W = \partial \langle \delta, f_W(\hat a) \rangle / \partial W`.
    """

    def receive(self, x: Tensor) -> Tensor:
        sides = len(self.module.kernel_size)
        if x.dim() != sides + 2:
            raise InputError(
                f"{self.module} got an input of shape {tuple(x.shape)}; expected (batch, "
                f"{self.module.in_channels}) and {sides} sizes"
            )
        return x

    def transmit(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.held("bias")
        return self._convolve(x, self.held("weight"), bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer = self.module
        if not layer.transposed:
            return layer._conv_forward(x, weight, bias)  # type: ignore[no-any-return]
        sides = len(layer.kernel_size)
        rest = layer._output_padding(
            x, None, layer.stride, layer.padding, layer.kernel_size, sides, layer.dilation
        )
        make = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[sides - 1]
        return make(
            x, weight, bias, layer.stride, layer.padding, rest, layer.groups, layer.dilation
        )

    def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
        weight = self.held("weight")
        leaf = weight.detach().requires_grad_()
        with torch.enable_grad():
            current = self._convolve(trace, leaf, None)
        accumulate(weight, torch.autograd.grad(current, leaf, delta)[0])

    def add_bias_grad(self, delta: Tensor) -> None:
        if self.bias is not None:
            accumulate(self.held("bias"), delta.transpose(0, 1).flatten(1).sum(1))

    def input_error(self, delta: Tensor, shape: torch.Size) -> Tensor:
        with torch.enable_grad():
            received = delta.new_zeros(shape).requires_grad_()
            current = self._convolve(received, self.held("weight").detach(), None)
        return torch.autograd.grad(current, received, delta)[0]


_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def affine_adapter(module: nn.Module) -> type[ForeignSynapse] | None:
    """Return the view that fits a layer; None for a product that this library does not know.

    A subclass with a forward pass of its own is unknown: what it does may not be affine. The
    layers of SpikingJelly do in one time step what those of PyTorch do.
    """
    forward: Any = type(module).forward
    if type(module).__module__.startswith("spikingjelly.activation_based.layer.stateless"):
        plain_kind: Any = next(c for c in type(module).__mro__ if c.__module__.startswith("torch"))
        forward = plain_kind.forward
        if hasattr(module, "gain"):  # standardised weights, which its forward pass computes
            return None
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
        return ForeignLinear
    if _has_other_convolution(module):
        return None
    if isinstance(module, nn.Conv2d) and forward is nn.Conv2d.forward:
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return ForeignConv2d if plain else ForeignConvolution
    if isinstance(module, _CONVOLUTIONS) and any(forward is c.forward for c in _CONVOLUTIONS):
        return ForeignConvolution
    return None


def _has_other_convolution(module: nn.Module) -> bool:
    """Return whether a layer makes its product in another way than its class of PyTorch."""
    inner = "_conv_forward"  # which the forward passes of PyTorch's classes call
    plain = next((c for c in _CONVOLUTIONS if isinstance(module, c) and hasattr(c, inner)), None)
    if plain is None:
        return False
    return inner in vars(module) or getattr(type(module), inner) is not getattr(plain, inner)


class StandIn:
    """What an instance's `forward` is while a rule works; a copy of it runs the plain layer."""

    def __init__(self, module: nn.Module, does: Any = None) -> None:
        self.module, self.does = module, does

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.does is None:
            return type(self.module).forward(self.module, *args, **named)
        return self.does(*args, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        return StandIn, (self.module,)


def stand_in(module: nn.Module, does: Any) -> None:
    """Replace a layer's forward pass; None puts the layer's own back."""
    if does is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = StandIn(module, does)
