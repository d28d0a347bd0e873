"""Convolutional synapse layer: scaled weight standardisation, pooling of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor.clocked import kernels, winograd
from threefactor.clocked.pooling import average, checked_pool
from threefactor.clocked.synapse import Carrier, Synapse, accumulate
from threefactor.errors import InputError
from threefactor.options import as_flag

__all__ = ["EPSILON", "Conv2d", "standardise", "standardise_backward"]

EPSILON = 1e-4


def standardise(weight: Tensor, gain: Tensor) -> Tensor:
    r"""Scale and shift each output channel's weights to mean 0 and squares that sum to gain^2.

    .. math:: \hat W = g \, \frac{W - \mathrm{mean}(W)}{\sqrt{\mathrm{var}(W) N + 10^{-4}}}

    with N = fan_in weights per output channel; the variance divides by N.

    Args:
        weight: (C_out, C_in / groups, k, k).
        gain: g, (C_out, 1, 1, 1).

    Source: Brock et al. 2021, *Characterizing signal propagation to close the performance gap in
    unnormalized ResNets*, equation 5.
    """
    centred, inverse = _centre(weight)
    return centred * (inverse * gain)


def standardise_backward(grad: Tensor, weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    r"""Carry the gradient G of the standardised weights to the weights and the gain.

    .. math:: \nabla g = r \sum G c, \qquad
              \nabla W = g \, r \, (G - \mathrm{mean}(G) - r^2 c \sum G c)

    with c = W - mean(W) and r = 1 / sqrt(sum c^2 + 1e-4), sums and means per output channel.

    Args:
        grad: G, (C_out, C_in / groups, k, k).
        weight: W, same shape.
        gain: g, (C_out, 1, 1, 1).

    Returns:
        Gradients of `weight` and `gain`.
    """
    centred, inverse = _centre(weight)
    product = (grad * centred).sum((1, 2, 3), keepdim=True)
    by_weight = grad - grad.mean((1, 2, 3), keepdim=True)
    by_weight.addcmul_(centred, inverse.square() * product, value=-1.0).mul_(inverse * gain)
    return by_weight, inverse * product


def _centre(weight: Tensor) -> tuple[Tensor, Tensor]:
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    # var * fan_in is the sum of squares
    return centred, centred.square().sum((1, 2, 3), keepdim=True).add(EPSILON).rsqrt()


class Conv2d(Synapse, nn.Conv2d):
    r"""`torch.nn.Conv2d` whose weight gradient can use the presynaptic trace.

    .. math:: I[t] = \hat W * P(s[t]) + b, \qquad
              \nabla \hat W = \sum_t \delta[t] \star P(\hat a[t])

    P averages over squares of `pool` x `pool`: pooling is part of the synapse, and the layer before
    is seen by rules and noise at its full size. :math:`\hat W` are the weights, or with
    `standardise` what `standardise` makes of them and of a learned gain, one per output channel.
    (B, C_in, H, W) in, (B, C_out, H', W') out.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device,
            dtype: as `torch.nn.Conv2d`; padding is a number (or two) of zeros.
        standardise: whether to standardise the weights; adds the parameter `gain`, 1 at the start.
        pool: side of the squares; 1 for no pooling.

    Raises:
        InputError: if `padding` is a name or `pool` below 1; when called, if the input has the
            wrong shape or is smaller than the kernel or the square.

    Example:
        >>> layer = Conv2d(3, 8, 3, padding=1, standardise=True, pool=2)
        >>> layer(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 8, 16, 16])

    Source: Xiao et al. 2022 (OTTT); Xiao et al. 2026 (OPZO), appendix C.2.2; Brock et al. 2021.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        standardise: bool = False,
        pool: int = 1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if isinstance(padding, str):
            raise InputError(f"padding is {padding!r}; give the number of zeros at each border")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            device=device, dtype=dtype,
        )  # fmt: skip
        standardise = as_flag("standardise", standardise)
        self.pool = checked_pool(pool)
        self.gain: nn.Parameter | None
        gain = nn.Parameter(self.weight.new_ones(out_channels, 1, 1, 1)) if standardise else None
        self.register_parameter("gain", gain)

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, standardise={self.gain is not None}, pool={self.pool}"

    @property
    def plastic(self) -> Tensor | None:
        if self.gain is not None and self.held("gain").requires_grad:
            return self.held("gain")
        return super().plastic

    def forward(self, x: Tensor) -> Tensor:
        return self.transmit(self.receive(x)) if self.pathway is None else self.pathway(x)

    def receive(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise InputError(
                f"{self} got an input of shape {tuple(x.shape)}; "
                f"expected (batch, {self.in_channels}, height, width)"
            )
        x = average(x, self.pool, self)
        for side, size in enumerate(x.shape[2:]):
            reach = self.dilation[side] * (self.kernel_size[side] - 1) + 1
            if size + 2 * int(self.padding[side]) < reach:
                raise InputError(
                    f"the kernel of {self} is larger than the picture: it spans {reach} pixels, "
                    f"the picture of {tuple(x.shape[2:])} has {size} there and "
                    f"2 x {self.padding[side]} of padding"
                )
        return x

    def kernel(self) -> Tensor:
        """Return the weights that the input meets, standardised if so asked."""
        if self.gain is None:
            return self.held("weight")
        if self.pathway is None or torch.is_grad_enabled():
            return standardise(self.held("weight"), self.held("gain"))
        kept = self.pathway.derived  # the same for all steps until the weights may change
        if "kernel" not in kept:
            kept["kernel"] = standardise(self.held("weight"), self.held("gain"))
        return kept["kernel"]  # type: ignore[no-any-return]

    def transmit(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.held("bias")
        if self.pathway is not None and self._fast(x, self.out_channels):
            shift = None if bias is None else bias.detach()
            return winograd.convolve(x, self._transformed(self.pathway), shift)
        return F.conv2d(
            x, self.kernel(), bias, self.stride, self.padding, self.dilation, self.groups
        )

    def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
        if self._fast(trace, self.out_channels) and kernels.usable(delta):
            grad = winograd.weight_gradient(delta, trace)
        else:
            grad = self._backward(delta, trace, self.held("weight").detach(), weight=True)
        weight = self.held("weight")
        if self.gain is None:
            accumulate(weight, grad)
            return
        gain = self.held("gain")
        by_weight, by_gain = standardise_backward(grad, weight.detach(), gain.detach())
        accumulate(weight, by_weight)
        accumulate(gain, by_gain)

    def add_bias_grad(self, delta: Tensor) -> None:
        if self.bias is not None:
            # Pixels first: three times faster than all at once.
            accumulate(self.held("bias"), delta.flatten(2).sum(2).sum(0))

    def input_error(self, delta: Tensor, shape: torch.Size) -> Tensor:
        if self.pathway is not None and self._fast(delta, self.in_channels):
            return winograd.input_error(delta, self._transformed(self.pathway))
        received = delta.new_empty(shape)  # only its shape is used
        return self._backward(delta, received, self.kernel().detach(), weight=False)

    def _fast(self, x: Tensor, channels: int) -> bool:
        """Return whether `winograd` takes this work."""
        plain = (self.stride, self.padding, self.dilation) == ((1, 1), (1, 1), (1, 1))
        square = self.kernel_size == (3, 3) and self.groups == 1
        return plain and square and winograd.applies(x, channels)

    def _transformed(self, pathway: Carrier) -> tuple[Tensor, ...]:
        """Return the transformed kernel, kept as `kernel` is; of the plain one nothing is kept."""
        kept = pathway.derived
        if "transformed" not in kept:
            kernel, gain = self.held("weight").detach(), self.gain
            if gain is not None:
                kernel = standardise(kernel, self.held("gain").detach())
            kept["transformed"] = winograd.transform_kernel(kernel)
        return kept["transformed"]  # type: ignore[no-any-return]

    def _backward(self, delta: Tensor, x: Tensor, kernel: Tensor, *, weight: bool) -> Tensor:
        """Return the gradient of the kernel, or that of the input."""
        mask = [not weight, weight, False]
        by_input, by_weight, _ = torch.ops.aten.convolution_backward(
            delta, x, kernel, None, self.stride, self.padding, self.dilation,
            False, (0, 0), self.groups, mask,
        )  # fmt: skip
        return by_weight if weight else by_input  # type: ignore[no-any-return]
