"""Element-wise work of a time step, in compiled kernels where they apply.

On the CPU, the package may come with a small C library, built on installation if there is a
compiler. Its kernels take contiguous float32 tensors; `usable` decides. On CUDA, the kernels of
`triton_kernels` are used if Triton is installed, as it is with PyTorch's builds for CUDA. For all
other tensors (float64, no library) the functions here do the same with PyTorch operations.

Results agree to rounding, and spikes but for potentials that rounding puts on the other side of the
threshold, with one exception: noise and dropout masks are other values of the same distribution. A
kernel's random stream starts from one number drawn from the generator in use, so seeds,
`generator=` and saved generator states work the same on all ways.

Set the environment variable THREEFACTOR_KERNELS=0 before the import to use PyTorch alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from threefactor.errors import warn_user

__all__ = [
    "available",
    "average",
    "cross_entropy_mse",
    "gaussian_",
    "keep_freed_memory",
    "lif_activity",
    "lif_step_",
    "load",
    "mask_like",
    "surrogate_times",
    "usable",
]

LIBRARY_NAME = "threefactor.clocked._kernels"
VERSION = 6
LARGEST_SQUARE = 2048  # side
TRITON_DEVICES = ("cuda",)
KEPT_BYTES = 256 * 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of options in glibc's malloc.h
_SIGNATURES = {
    "tf_gaussian": "npsf",
    "tf_mask": "npsif",
    "tf_lif": "nppppffi",
    "tf_lif_activity": "nppppfppffii",
    "tf_surrogate": "nppppfffi",
    "tf_average": "nnnnpp",
    "tf_cross_entropy_mse": "nnppfpp",
}
_CTYPES = {
    "n": ctypes.c_int64,
    "p": ctypes.c_void_p,
    "s": ctypes.c_uint64,
    "i": ctypes.c_int32,
    "f": ctypes.c_float,
}


def load(module: str, version: int, signatures: dict[str, str]) -> ctypes.CDLL | None:
    """Find a library of this package; None if it was not built, or is not of this version.

    Args:
        module: its name.
        version: what its function `tf_version` has to return.
        signatures: letters of the arguments of each function, as in `_CTYPES`.
    """
    if os.environ.get("THREEFACTOR_KERNELS") == "0":
        return None
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
        if library.tf_version() != version:
            return None
        for name, letters in signatures.items():
            function = getattr(library, name)
            function.argtypes = [_CTYPES[letter] for letter in letters]
            function.restype = None
    except (OSError, AttributeError):
        return None
    return library


def _load() -> ctypes.CDLL | None:
    library = load(LIBRARY_NAME, VERSION, _SIGNATURES)
    if library is not None:
        library.tf_cross_entropy_mse.restype = ctypes.c_int32
        library.tf_lif_activity.restype = ctypes.c_int64
    return library


_library = _load()


def available() -> bool:
    """Return whether the compiled kernels are there and switched on."""
    return _library is not None


def usable(*tensors: Tensor) -> bool:
    """Return whether the compiled kernels may work on these tensors, all of one shape."""
    if _library is None:
        return False
    shape, single = tensors[0].shape, torch.float32
    for t in tensors:
        if (
            type(t) is not Tensor
            or t.dtype is not single
            or t.shape != shape
            or t.requires_grad  # PyTorch operations then know what to do, or refuse
            or not t.is_cpu
            or not t.is_contiguous()
            or t.is_inference()
        ):
            return False
    return True


def triton_for(tensor: Tensor) -> ModuleType | None:
    """Return the Triton kernels of a tensor's device; None if there are none that run."""
    device = tensor.device
    return _load_triton(device) if device.type in TRITON_DEVICES else None


@cache
def _load_triton(device: torch.device) -> ModuleType | None:
    if os.environ.get("THREEFACTOR_KERNELS") == "0" or find_spec("triton") is None:
        return None
    try:
        from threefactor.clocked import triton_kernels

        triton_kernels.check(device)
    except Exception as problem:  # a compiler that is missing, a card that is too old
        first = str(problem).strip().partition("\n")[0]
        warn_user(
            f"Triton's kernels do not run on {device} ({type(problem).__name__}: {first:.200}); "
            "PyTorch's operations do their work, with more passes over memory. "
            "THREEFACTOR_KERNELS=0 switches the kernels off"
        )
        return None
    return triton_kernels


def lif_step_(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    leak: float | Tensor,
    threshold: float | Tensor,
    noise: Tensor | None = None,
    zero: bool = False,
) -> None:
    """See `threefactor.clocked.neuron.lif_step_`; `zero` is its `reset="zero"`."""
    tensors = (potential, spikes, current) if noise is None else (potential, spikes, current, noise)
    each = isinstance(leak, Tensor) or isinstance(threshold, Tensor)
    if not each and usable(*tensors):
        assert _library is not None
        _library.tf_lif(
            potential.numel(),
            potential.data_ptr(),
            spikes.data_ptr(),
            current.data_ptr(),
            None if noise is None else noise.data_ptr(),
            leak,
            threshold,
            zero,
        )
        _mark_changed(potential, spikes)
        return
    triton = triton_for(potential)
    if triton is not None and triton.lif(potential, spikes, current, leak, threshold, zero, noise):
        _mark_changed(potential, spikes)
        return
    if zero:
        potential.masked_fill_(spikes != 0, 0.0)
    elif isinstance(threshold, Tensor):
        potential.addcmul_(spikes, threshold, value=-1.0)
    else:
        potential.sub_(spikes, alpha=threshold)
    if isinstance(leak, Tensor):
        potential.mul_(leak).add_(current)
    else:
        torch.add(current, potential, alpha=leak, out=potential)
    if noise is not None:
        potential.add_(noise)
    torch.ge(potential, threshold, out=spikes)


def lif_activity(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    leak: float | Tensor,
    threshold: float | Tensor,
    gate: Tensor | float,
    before: Tensor | None,
    after: Tensor | None,
    zero: bool = False,
) -> tuple[Tensor, Tensor | int] | None:
    """Do `lif_step_` and compute spikes times gate plus noise in the same pass.

    Args:
        potential, spikes, current, leak, threshold, zero: see `lif_step_`.
        gate: a factor of each spike, or one for all.
        before: noise that is added to the potential.
        after: noise that is added to the activity.

    Returns:
        The activity and the number of spikes; None, with nothing done, if no kernel applies. The
        number is an int if it is known that all potentials are finite.
    """
    triton = triton_for(potential)
    if triton is not None:
        given: tuple[Tensor, Tensor] | None = triton.lif_activity(
            potential, spikes, current, leak, threshold, gate, zero, before, after
        )
        if given is not None:
            _mark_changed(potential, spikes)
        return given
    mask = gate if isinstance(gate, Tensor) else None
    each = isinstance(leak, Tensor) or isinstance(threshold, Tensor)
    tensors = (potential, spikes, current, *(t for t in (mask, after) if t is not None))
    if each or before is not None or not usable(*tensors):
        return None
    assert _library is not None
    out = torch.empty_like(potential)
    fired = _library.tf_lif_activity(
        potential.numel(),
        potential.data_ptr(),
        spikes.data_ptr(),
        current.data_ptr(),
        None if mask is None else mask.data_ptr(),
        1.0 if isinstance(gate, Tensor) else gate,
        None if after is None else after.data_ptr(),
        out.data_ptr(),
        leak,
        threshold,
        zero,
        torch.get_num_threads(),
    )
    _mark_changed(potential, spikes)
    return out, (fired if fired >= 0 else spikes.sum())


def surrogate_times(
    error: Tensor,
    potential: Tensor,
    threshold: float | Tensor,
    width: float,
    gate: Tensor | float = 1.0,
) -> Tensor:
    """See `threefactor.clocked.neuron.surrogate_times`."""
    mask = gate if isinstance(gate, Tensor) else None
    tensors = (error, potential) if mask is None else (error, potential, mask)
    if not isinstance(threshold, Tensor) and usable(*tensors):
        assert _library is not None
        result = torch.empty_like(potential)
        _library.tf_surrogate(
            result.numel(),
            result.data_ptr(),
            error.data_ptr(),
            potential.data_ptr(),
            None if mask is None else mask.data_ptr(),
            threshold,
            1 / width,
            1 / width if isinstance(gate, Tensor) else gate / width,
            torch.get_num_threads(),
        )
        return result
    triton = triton_for(potential)
    if triton is not None:
        given: Tensor | None = triton.surrogate(error, potential, threshold, width, gate)
        if given is not None:
            return given
    # One pass for (u - V) / a: a constant plus a scaled tensor.
    if isinstance(threshold, Tensor):
        shift = threshold / -width
    else:
        shift = potential.new_full((), -threshold / width)
    result = torch.add(shift, potential, alpha=1 / width)
    # The built-in backward kernel of the sigmoid is e * sigmoid * (1 - sigmoid), fused.
    torch.ops.aten.sigmoid_backward.grad_input(error, result.sigmoid_(), grad_input=result)
    if isinstance(gate, Tensor):
        return torch.addcmul(result.new_zeros(()), result, gate, value=1 / width, out=result)
    return result.mul_(gate / width)


def average(x: Tensor, pool: int) -> Tensor:
    """Average (B, C, H, W) over squares of side `pool`, at least 2, without what is left over."""
    batch, channels, height, width = x.shape
    if usable(x) and pool <= LARGEST_SQUARE:
        assert _library is not None
        out = x.new_empty((batch, channels, height // pool, width // pool))
        pointers = x.data_ptr(), out.data_ptr()
        _library.tf_average(batch * channels, height, width, pool, *pointers)
        return out
    # Sums of slices, a third of the time of the library's.
    rows, others = x[:, :, 0 : height // pool * pool : pool], range(1, pool)
    for i in others:
        rows = rows + x[:, :, i : height // pool * pool : pool]
    total = rows[..., 0 : width // pool * pool : pool]
    for i in others:
        total = total + rows[..., i : width // pool * pool : pool]
    return total.mul_(1.0 / pool**2)


def cross_entropy_mse(output: Tensor, targets: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """See `threefactor.clocked.losses.CrossEntropyMSE`."""
    if usable(output) and _are_labels(targets, output):
        assert _library is not None
        losses, error = output.new_empty(len(output)), torch.empty_like(output)
        if _library.tf_cross_entropy_mse(
            *output.shape,
            output.data_ptr(),
            targets.data_ptr(),
            c,
            losses.data_ptr(),
            error.data_ptr(),
        ):
            return losses, error
    triton = triton_for(output)
    if triton is not None:
        given: tuple[Tensor, Tensor] | None = triton.cross_entropy_mse(output, targets, c)
        if given is not None:
            return given
    m, column = output.shape[1], targets.unsqueeze(1)
    if not output.is_cpu:  # where a class out of range is refused later, and would stop the device
        column = column.clamp(0, m - 1)
    error = torch.log_softmax(output, dim=1)
    losses = error.gather(1, column).mul_(c - 1.0)
    # |o - onehot|^2 = |o|^2 - 2 o_y + 1
    losses.add_(output.square().sum(1, keepdim=True).add_(1.0), alpha=c / m)
    losses.sub_(output.gather(1, column), alpha=2.0 * c / m)
    error.exp_().mul_(1.0 - c).add_(output, alpha=2.0 * c / m)
    minus = error.new_full((), c - 1.0 - 2.0 * c / m).expand_as(column)
    return losses.squeeze(1), error.scatter_add_(1, column, minus)


def _are_labels(targets: Tensor, output: Tensor) -> bool:
    return (
        output.dim() == 2
        and output.numel() > 0
        and targets.shape == output.shape[:1]
        and targets.dtype is torch.int64
        and targets.is_cpu
        and targets.is_contiguous()
    )


def gaussian_(out: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill with independent normal values of standard deviation `scale`."""
    if usable(out):
        assert _library is not None
        _library.tf_gaussian(out.numel(), out.data_ptr(), _draw_seed(generator), scale)
        _mark_changed(out)
        return out
    triton = triton_for(out)
    if triton is not None and triton.usable(out):
        triton.gaussian_(out, scale, generator)
        _mark_changed(out)
        return out
    return out.normal_(0.0, scale, generator=generator)


def mask_like(like: Tensor, dropout: float, value: float) -> Tensor:
    """Return a new tensor of `value`, with 0 in its place with probability `dropout`."""
    if usable(like):
        assert _library is not None
        out = torch.empty_like(like)
        threshold = min(round(dropout * 2**31), 2**31 - 1)
        _library.tf_mask(out.numel(), out.data_ptr(), _draw_seed(None), threshold, value)
        return out
    triton = triton_for(like)
    if triton is not None and triton.usable(like):
        made: Tensor = triton.mask_like(like, dropout, value)
        return made
    # Much faster on a CPU than bernoulli_.
    return torch.rand_like(like).ge_(dropout).mul_(value)


@cache
def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed tensors for the tensors of the next step.

    glibc gives blocks above 128 KiB back to the system when they are freed, and the end of its heap
    when so much of it is free; every step would fetch its tensors and gradients anew, page by page,
    which took up to a seventh of a step of a convolutional network. From the first call on, it
    keeps blocks of up to 32 MiB, and up to `KEPT_BYTES` at the end of the heap. Nothing is done
    where another library is in use, or where the environment says what malloc shall keep.
    """
    told = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if sys.platform != "linux" or any(name in os.environ for name in told):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the most it takes
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def _draw_seed(generator: torch.Generator | None) -> int:
    """Draw the number that a kernel's random stream starts from.

    Kernels work on the CPU, whatever PyTorch's default device is.
    """
    return int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64, device="cpu"))


def _mark_changed(*tensors: Tensor) -> None:
    """Tell autograd about values that were written behind its back."""
    for tensor in tensors:
        torch.autograd.graph.increment_version(tensor)
