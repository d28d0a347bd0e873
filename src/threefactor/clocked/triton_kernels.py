"""The work of `kernels.py` on a GPU: one Triton kernel where PyTorch needs several passes.

`_lif` advances LIF neurons, counts their spikes and makes the activity, with dropout and noise, in
one pass. `_surrogate` multiplies an error by the surrogate derivative and the dropout mask.
`_gaussian` and `_mask` make noise and dropout masks by Philox, a counter-based generator.
`_cross_entropy_mse` is the loss of each row and its gradient.

Tensors hold float32, bfloat16 or float16; kernels compute in float32. The tensors of a call have
one layout without gaps: contiguous, or channels_last. `kernels.py` does everything else with
PyTorch operations.

Nothing asks the GPU for a value. A random stream starts from a number that PyTorch's generator of
the device draws on the device, so seeds and saved generator states work as with PyTorch. The values
depend on this number and on the place in memory alone, not on how a kernel is divided into blocks.

With TRITON_INTERPRET=1 in the environment when Triton is imported, it runs them on CPU tensors.
"""

# No `from __future__ import annotations`: older versions of Triton look for tl.constexpr itself.
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "check",
    "cross_entropy_mse",
    "gaussian_",
    "lif",
    "lif_activity",
    "mask_like",
    "surrogate",
    "usable",
]

TYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCK = 1024
QUADS = 256
"""Philox makes four numbers at a time."""
MAX_ELEMENTS = 2**31 - 2**16
"""Indices are 32 bits wide."""
MAX_OUTPUTS = 4096
"""A row of the loss is one block."""


# ---- kernels ----


@triton.jit
def _lif(
    potential,
    spikes,
    current,
    before,
    gate,
    after,
    out,
    counts,
    leak,
    leak_stride,
    leak_count,
    threshold,
    threshold_stride,
    threshold_count,
    scale,
    n,
    ZERO: tl.constexpr,  # noqa: N803
    LEAKS: tl.constexpr,  # noqa: N803
    THRESHOLDS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """u = leak * rest(u, s) + current [+ before], s = [u >= V], out = s * gate [+ after].

    Without a gate, `scale` stands in its place. Without `out`, only u and s are written. `counts`
    gets the number of spikes of each block.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    decay, level = leak, threshold
    if LEAKS:
        decay = tl.load(leak + at // leak_stride % leak_count, mask=inside).to(tl.float32)
    if THRESHOLDS:
        level = tl.load(threshold + at // threshold_stride % threshold_count, mask=inside)
        level = level.to(tl.float32)
    u = tl.load(potential + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(spikes + at, mask=inside, other=0.0).to(tl.float32)
    rest = tl.where(s != 0.0, 0.0, u) if ZERO else u - level * s
    # Rounded once, as PyTorch's torch.add(current, rest, alpha=leak) is.
    u = tl.fma(rest, decay, tl.load(current + at, mask=inside, other=0.0).to(tl.float32))
    if before is not None:
        u += tl.load(before + at, mask=inside, other=0.0).to(tl.float32)
    # A spike is decided by the potential that is kept.
    u = u.to(potential.dtype.element_ty)
    fired = (u.to(tl.float32) >= level) & inside
    s = fired.to(tl.float32)
    tl.store(potential + at, u, mask=inside)
    tl.store(spikes + at, s.to(spikes.dtype.element_ty), mask=inside)
    if out is not None:
        a = s * scale
        if gate is not None:
            a = s * tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
        if after is not None:
            a += tl.load(after + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + at, a.to(out.dtype.element_ty), mask=inside)
        tl.store(counts + tl.program_id(0), tl.sum(fired.to(tl.int32)))


@triton.jit
def _surrogate(
    out,
    error,
    potential,
    gate,
    threshold,
    threshold_stride,
    threshold_count,
    inverse,
    factor,
    n,
    THRESHOLDS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """out = error * q / (1 + q)^2 * gate * factor with q = exp(-|u - V| * inverse)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    level = threshold
    if THRESHOLDS:
        level = tl.load(threshold + at // threshold_stride % threshold_count, mask=inside)
        level = level.to(tl.float32)
    u = tl.load(potential + at, mask=inside, other=0.0).to(tl.float32)
    e = tl.load(error + at, mask=inside, other=0.0).to(tl.float32)
    q = tl.exp(-tl.abs((u - level) * inverse))
    d = 1.0 + q
    slope = q / (d * d) * factor
    if gate is not None:
        slope *= tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (e * slope).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _in_order(a, b, c, d):
    """Lay four blocks out as a[0], b[0], c[0], d[0], a[1], ..."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def _gaussian(out, seed, scale, n, QUADS: tl.constexpr):  # noqa: N803
    """Normal values of standard deviation `scale`, four of each count of Philox."""
    first = tl.program_id(0) * QUADS
    a, b, c, d = tl.randn4x(tl.load(seed), first + tl.arange(0, QUADS))
    at = 4 * first + tl.arange(0, 4 * QUADS)
    values = _in_order(a, b, c, d) * scale
    tl.store(out + at, values.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def _mask(out, seed, dropout, value, n, QUADS: tl.constexpr):  # noqa: N803
    """0 with probability `dropout`, else `value`."""
    first = tl.program_id(0) * QUADS
    a, b, c, d = tl.rand4x(tl.load(seed), first + tl.arange(0, QUADS))
    at = 4 * first + tl.arange(0, 4 * QUADS)
    values = tl.where(_in_order(a, b, c, d) >= dropout, value, 0.0)
    tl.store(out + at, values.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def _cross_entropy_mse(
    output,
    targets,
    losses,
    error,
    c,
    m,
    COLUMNS: tl.constexpr,  # noqa: N803
):
    """(1 - c) cross entropy + c mean squared error of a row, and its gradient.

    A label out of range is refused elsewhere, later; here it must not reach other memory.
    """
    row = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    inside = column < m
    y = tl.minimum(tl.maximum(tl.load(targets + row), 0), m - 1)
    o = tl.load(output + row * m + column, mask=inside, other=0.0)
    top = tl.max(tl.where(inside, o, float("-inf")), 0)
    p = tl.where(inside, tl.exp(o - top), 0.0)
    total = tl.sum(p, 0)
    hot = tl.where(column == y, 1.0, 0.0)
    apart = tl.where(inside, o - hot, 0.0)
    right = tl.load(output + row * m + y)
    loss = (1.0 - c) * (tl.log(total) - (right - top)) + c / m * tl.sum(apart * apart, 0)
    tl.store(losses + row, loss)
    slope = (1.0 - c) * (p / total - hot) + 2.0 * c / m * apart
    tl.store(error + row * m + column, slope, mask=inside)


# ---- what kernels.py calls ----


def usable(*tensors: Tensor) -> bool:
    """Return whether the kernels may work on these tensors: of one device, type, shape, layout."""
    first = tensors[0]
    contiguous = first.is_contiguous()
    if not (
        first.dtype in TYPES
        and first.numel() < MAX_ELEMENTS
        and (contiguous or _is_channels_last(first))
    ):
        return False
    return all(
        t.dtype is first.dtype
        and t.device == first.device
        and t.shape == first.shape
        and (t.is_contiguous() if contiguous else _is_channels_last(t))
        and _is_plain(t)
        for t in tensors
    )


def lif(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    leak: float | Tensor,
    threshold: float | Tensor,
    zero: bool,
    before: Tensor | None,
) -> bool:
    """Do `kernels.lif_step_`; False, with nothing done, if the kernel does not apply."""
    given = [t for t in (potential, spikes, current, before) if t is not None]
    constants = _constants(potential, leak, threshold)
    if constants is None or not usable(*given):
        return False
    _advance(potential, spikes, current, constants, zero, before, None, None, 1.0, None, None)
    return True


def lif_activity(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    leak: float | Tensor,
    threshold: float | Tensor,
    gate: Tensor | float,
    zero: bool,
    before: Tensor | None,
    after: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """Do `kernels.lif_activity`; None, with nothing done, if the kernel does not apply."""
    mask, scale = (gate, 1.0) if isinstance(gate, Tensor) else (None, gate)
    given = [t for t in (potential, spikes, current, before, mask, after) if t is not None]
    constants = _constants(potential, leak, threshold)
    if constants is None or not usable(*given):
        return None
    out = torch.empty_like(potential)
    blocks = triton.cdiv(potential.numel(), BLOCK)
    counts = torch.empty(blocks, dtype=torch.int32, device=potential.device)
    _advance(potential, spikes, current, constants, zero, before, mask, after, scale, out, counts)
    return out, counts.sum()


def _advance(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    constants: tuple[Any, ...],
    zero: bool,
    before: Tensor | None,
    mask: Tensor | None,
    after: Tensor | None,
    scale: float,
    out: Tensor | None,
    counts: Tensor | None,
) -> None:
    n = potential.numel()
    (leak, *leaks), (threshold, *thresholds) = constants
    given = (potential, spikes, current, before, mask, after, out, counts)
    each = {"LEAKS": isinstance(leak, Tensor), "THRESHOLDS": isinstance(threshold, Tensor)}
    of_neurons = (leak, *leaks, threshold, *thresholds)
    _run(_lif, n, BLOCK, *given, *of_neurons, scale, n, ZERO=bool(zero), **each, BLOCK=BLOCK)


def surrogate(
    error: Tensor,
    potential: Tensor,
    threshold: float | Tensor,
    width: float,
    gate: Tensor | float,
) -> Tensor | None:
    """Do `kernels.surrogate_times`; None if the kernel does not apply."""
    mask, scale = (gate, 1.0) if isinstance(gate, Tensor) else (None, gate)
    constants = _constants(potential, threshold)
    if constants is None or not usable(*(t for t in (potential, error, mask) if t is not None)):
        return None
    result, n = torch.empty_like(potential), potential.numel()
    ((level, *levels),) = constants
    numbers = (level, *levels, 1 / width, scale / width, n)
    each = isinstance(level, Tensor)
    _run(
        _surrogate, n, BLOCK, result, error, potential, mask, *numbers, THRESHOLDS=each, BLOCK=BLOCK
    )
    return result


def gaussian_(out: Tensor, scale: float, generator: torch.Generator | None) -> None:
    """Do `kernels.gaussian_`."""
    n, seed = out.numel(), _seed(out.device, generator)
    _run(_gaussian, n, 4 * QUADS, out, seed, scale, n, QUADS=QUADS)


def mask_like(like: Tensor, dropout: float, value: float) -> Tensor:
    """Do `kernels.mask_like`."""
    out, n, seed = torch.empty_like(like), like.numel(), _seed(like.device, None)
    _run(_mask, n, 4 * QUADS, out, seed, dropout, value, n, QUADS=QUADS)
    return out


def cross_entropy_mse(output: Tensor, targets: Tensor, c: float) -> tuple[Tensor, Tensor] | None:
    """Do `kernels.cross_entropy_mse`; None if the kernel does not apply."""
    if not (
        output.dim() == 2
        and output.dtype is torch.float32
        and output.is_contiguous()
        and 0 < output.shape[1] <= MAX_OUTPUTS
        and output.numel() < MAX_ELEMENTS
        and targets.shape == output.shape[:1]
        and targets.dtype is torch.int64
        and targets.device == output.device
        and targets.is_contiguous()
        and _is_plain(output)
    ):
        return None
    rows, m = output.shape
    losses, error = output.new_empty(rows), torch.empty_like(output)
    columns = triton.next_power_of_2(m)
    _run(_cross_entropy_mse, rows, 1, output, targets, losses, error, c, m, COLUMNS=columns)
    return losses, error


def check(device: torch.device) -> None:
    """Run a kernel; raises whatever keeps kernels from running, such as a missing compiler."""
    u, s, i = (torch.full((3,), value, device=device) for value in (2.0, 1.0, 0.5))
    lif(u, s, i, 0.5, 1.0, False, None)
    noise = torch.empty(3, device=device)
    gaussian_(noise, 1.0, torch.Generator(device).manual_seed(0))
    if u.tolist() != [1.0] * 3 or s.tolist() != [1.0] * 3 or not noise.isfinite().all():
        raise RuntimeError(f"a kernel computed {u.tolist()} and {s.tolist()} in place of ones")


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _is_plain(x: Tensor) -> bool:
    return not x.requires_grad and type(x) is Tensor and not x.is_inference()


def _constants(like: Tensor, *values: float | Tensor) -> tuple[Any, ...] | None:
    """Return how a kernel finds each constant of a neuron: (values, stride, count).

    Its value is at `place // stride % count`, with the place of the neuron in memory.
    """
    found: list[tuple[float | Tensor, int, int]] = []
    for value in values:
        if not isinstance(value, Tensor):
            found.append((float(value), 1, 1))
            continue
        if not (
            value.dtype is like.dtype
            and value.device == like.device
            and value.is_contiguous()
            and _is_plain(value)
        ):
            return None
        count = value.numel()
        if count == 1:
            found.append((value, 1, 1))
        elif like.dim() > 1 and count == value.shape[0] == like.shape[1]:  # of each channel
            found.append((value, max(1, like.stride(1)), count))
        elif value.shape == like.shape[1:] and like.is_contiguous():
            found.append((value, 1, count))
        else:
            return None
    return tuple(found)


def _seed(device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Draw on the device the number that a random stream starts from."""
    return torch.randint(2**63 - 1, (), device=device, generator=generator, dtype=torch.int64)


def _run(kernel: Any, n: int, block: int, *given: Any, **constants: Any) -> None:
    """Launch a kernel on the device of its first tensor, for n values."""
    if n:
        device = given[0].device  # Triton launches on the current one
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            kernel[(triton.cdiv(n, block),)](*given, **constants, enable_fp_fusion=True)
