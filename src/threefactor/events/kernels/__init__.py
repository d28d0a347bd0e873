"""The compiled loops over a batch, written in C; each function checks and hands over its arrays.

A kernel works on samples or on neurons, `total` of them, cut into one range for each of so many
threads. What a sample or neuron gets never depends on how the ranges are cut. The interpreter's
lock is free meanwhile. The C files say what the kernels compute; there, names begin with `tf_`.

The library is built when the package is installed, and loaded when this is imported.
"""

from __future__ import annotations

import ctypes
import struct
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "eligibility_gradient",
    "factors",
    "first_times",
    "grades",
    "input_errors",
    "integrate",
    "pack",
    "per_spike",
    "prepare",
    "product",
    "room",
    "spike_weights",
    "summed",
    "weight_gradient",
]

Array = NDArray[Any]

LIBRARY_NAME = "threefactor.events.kernels._library"
VERSION = 3
_SIGNATURES = {
    "prepare": "nnLDInnRffRL",
    "integrate": "LDInnRffnRRLLSn",
    "pack": "LDfLSnDIIRR",
    "weight_gradient": "nLIRLIIRRnnR",
    "per_spike": "LInRnR",
    "first_times": "LDInfR",
    "spike_weights": "LDIRRRnffnRR",
    "input_errors": "LIRLIIRRnnRfR",
    "eligibility_gradient": "nLDILDIIRRRffnnnR",
    "grades": "LIRLIInRRR",
    "summed": "LIRnD",
    "product": "nnRRR",
    "factors": "DffnD",
}
"""What each kernel takes: n a whole number, f a float, and arrays: L of int64, I of int32, D of
float64, R of the layer's precision, S of spikes as `integrate` writes them. All take 8 bytes."""


def room(samples: int, spikes: int, real: np.dtype[Any]) -> Array:
    """Return memory for so many samples and spikes of each, as `integrate` writes them."""
    return np.empty((samples, spikes), _KINDS[real]["S"])


def prepare(
    total: int, threads: int, offsets: Array, times: Array, addresses: Array, weight: Array,
    tau: float, duration: float, decays: Array, wrong: Array,
) -> None:  # fmt: skip
    """Look at samples before `integrate`; fill the decays between their spikes."""
    _run(
        "prepare", weight.dtype, total, threads, len(offsets) - 1, len(times), offsets, times,
        addresses, *weight.shape, weight, tau, duration, decays, wrong,
    )  # fmt: skip


def integrate(
    total: int, threads: int, offsets: Array, times: Array, addresses: Array, weight: Array,
    theta: float, duration: float, cap: int, decays: Array, counts: Array, totals: Array,
    capped: Array, spikes: Array,
) -> None:  # fmt: skip
    """Run a layer on samples; write every spike into what `room` made, (B, spikes)."""
    _run(
        "integrate", weight.dtype, total, threads, offsets, times, addresses, *weight.shape, weight,
        theta, duration, cap, decays, counts, totals, capped, spikes, spikes.shape[1],
    )  # fmt: skip


def pack(
    total: int, threads: int, in_offsets: Array, in_times: Array, tau: float, offsets: Array,
    spikes: Array, times: Array, neurons: Array, parents: Array, currents: Array,
    ys: Array,
) -> None:  # fmt: skip
    """Copy the spikes of samples into flat arrays, sorted by time and neuron."""
    _run(
        "pack", ys.dtype, total, threads, in_offsets, in_times, tau, offsets,
        spikes, spikes.shape[1], times, neurons, parents, currents, ys,
    )  # fmt: skip


def weight_gradient(
    total: int, threads: int, in_offsets: Array, in_addresses: Array, decays: Array, offsets: Array,
    neurons: Array, parents: Array, fast: Array, slow: Array, grad: Array,
) -> None:  # fmt: skip
    """Fill the gradient of neurons, (inputs, neurons), over all samples."""
    _run(
        "weight_gradient", grad.dtype, total, threads, len(offsets) - 1, in_offsets, in_addresses,
        decays, offsets, neurons, parents, fast, slow, *grad.shape, grad,
    )  # fmt: skip


def per_spike(
    total: int, threads: int, offsets: Array, neurons: Array, errors: Array, first_only: bool,
    out: Array,
) -> None:  # fmt: skip
    """Give each spike of samples the error of its neuron, (B, neurons)."""
    _run(
        "per_spike", out.dtype, total, threads, offsets, neurons, errors.shape[1], errors,
        first_only, out,
    )  # fmt: skip


def first_times(
    total: int,
    threads: int,
    offsets: Array,
    times: Array,
    neurons: Array,
    duration: float,
    out: Array,
) -> None:
    """Fill the time of each neuron's first spike in samples, (B, neurons)."""
    size = out.shape[1]
    _run("first_times", out.dtype, total, threads, offsets, times, neurons, size, duration, out)


def spike_weights(
    total: int, threads: int, offsets: Array, times: Array, neurons: Array, currents: Array,
    ys: Array, errors: Array, size: int, theta: float, tau: float, exact: bool, fast: Array,
    slow: Array,
) -> None:  # fmt: skip
    """Turn the error of each spike of samples into what it weighs in the gradient."""
    _run(
        "spike_weights", fast.dtype, total, threads, offsets, times, neurons, currents, ys, errors,
        size, theta, tau, exact, fast, slow,
    )  # fmt: skip


def input_errors(
    total: int, threads: int, in_offsets: Array, in_addresses: Array, decays: Array, offsets: Array,
    neurons: Array, parents: Array, fast: Array, slow: Array, weight: Array, tau: float, out: Array,
) -> None:  # fmt: skip
    """Fill the error of each input spike of samples by its time."""
    _run(
        "input_errors", weight.dtype, total, threads, in_offsets, in_addresses, decays, offsets,
        neurons, parents, fast, slow, *weight.shape, weight, tau, out,
    )  # fmt: skip


def eligibility_gradient(
    total: int, threads: int, in_offsets: Array, in_times: Array, in_addresses: Array,
    offsets: Array, times: Array, neurons: Array, parents: Array, currents: Array, ys: Array,
    errors: Array, theta: float, tau: float, exact: bool, grad: Array,
) -> None:  # fmt: skip
    """Add to the gradient of neurons, (inputs, neurons), by traces forward in time."""
    _run(
        "eligibility_gradient", grad.dtype, total, threads, len(offsets) - 1, in_offsets, in_times,
        in_addresses, offsets, times, neurons, parents, currents, ys, errors, theta, tau, exact,
        *grad.shape, grad,
    )  # fmt: skip


def grades(
    total: int, threads: int, in_offsets: Array, in_addresses: Array, in_grades: Array,
    offsets: Array, neurons: Array, parents: Array, weight: Array, perturbation: Array, out: Array,
) -> None:  # fmt: skip
    """Give every spike of samples its grade."""
    _run(
        "grades", out.dtype, total, threads, in_offsets, in_addresses, in_grades, offsets, neurons,
        parents, weight.shape[1], weight, perturbation, out,
    )  # fmt: skip


def summed(
    total: int, threads: int, offsets: Array, neurons: Array, values: Array, out: Array
) -> None:
    """Sum the values of each neuron's spikes in samples, (B, neurons), in double precision."""
    _run("summed", values.dtype, total, threads, offsets, neurons, values, out.shape[1], out)


def product(total: int, threads: int, a: Array, b: Array, out: Array) -> None:
    """Multiply rows of a matrix with another."""
    _run("product", out.dtype, total, threads, *b.shape, a, b, out)


def factors(
    total: int, threads: int, currents: Array, theta: float, tau: float, exact: bool, out: Array
) -> None:
    """Fill F_k / y_k of spikes by their synaptic currents, in double precision."""
    _run("factors", out.dtype, total, threads, currents, theta, tau, exact, out)


def _kinds(real: Any) -> dict[str, np.dtype[Any]]:
    """The types of arrays by their letters; S is `Spike` in forward.c."""
    spike = [("neuron", "i4"), ("parent", "i4"), ("y", real), ("current", real)]
    kinds = {"L": np.int64, "I": np.int32, "D": np.float64, "R": real, "S": spike}
    return {letter: np.dtype(kind) for letter, kind in kinds.items()}


_KINDS = {np.dtype(real): _kinds(real) for real in (np.float32, np.float64)}


def _run(name: str, real: np.dtype[Any], total: int, threads: int, *given: Any) -> None:
    """Call a kernel in a precision.

    Raises:
        TypeError: if an array is of another type, read-only or not contiguous.
        MemoryError: if there is no working memory.
    """
    kernel, arrays, packed = _KERNELS[name, real]
    arguments = list(given)
    for at, kind in arrays:
        array = arguments[at]
        if array.dtype is not kind and array.dtype != kind:
            raise TypeError(f"argument {at} of {name} is {array.dtype}")
        arguments[at] = _address_of(_memory(array))
    if _LIBRARY.tf_run(kernel, total, threads, packed(*arguments), _TEAM) == 0:
        raise MemoryError(f"no working memory for {name}")


_memory: Any = (ctypes.c_char * 0).from_buffer  # much faster than array.ctypes
_address_of = ctypes.addressof


def _load() -> Any:
    """Find the library.

    Raises:
        ImportError: if it was not built, or is that of other sources.
    """
    spec = find_spec(LIBRARY_NAME)
    if spec is None or spec.origin is None:
        raise ImportError(f"{LIBRARY_NAME} was not built")
    try:
        library = ctypes.CDLL(spec.origin)
        version = library.tf_events_version()
    except (OSError, AttributeError) as problem:
        raise ImportError(f"{spec.origin} cannot be used: {problem}") from problem
    if version != VERSION:
        raise ImportError(f"{spec.origin} is of version {version}, not {VERSION}")
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    library.tf_run.argtypes = [pointer, whole, whole, ctypes.c_char_p, pointer]
    library.tf_run.restype = ctypes.c_int32
    return library


def _address(library: Any, name: str) -> int | None:
    return ctypes.cast(library[name], ctypes.c_void_p).value


def _team() -> Any:
    """Return what starts PyTorch's own threads, `Team` in run.c; None if they cannot be asked."""
    try:
        process = ctypes.CDLL(None)
        return (ctypes.c_void_p * len(_OPENMP))(*(_address(process, name) for name in _OPENMP))
    except (OSError, AttributeError, TypeError):  # TypeError on Windows
        return None


_OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


def _kernels() -> dict[tuple[str, np.dtype[Any]], Any]:
    """For every kernel in both precisions: its address, its arrays, and what packs arguments."""
    found = {}
    for name, letters in _SIGNATURES.items():
        packed = struct.Struct("".join(_FORMATS.get(letter, "Q") for letter in letters)).pack
        for real, kinds in _KINDS.items():
            suffix = f"_f{8 * real.itemsize}" if "R" in letters or "S" in letters else ""
            arrays = [(at, kinds[letter]) for at, letter in enumerate(letters) if letter in kinds]
            found[name, real] = _address(_LIBRARY, f"tf_{name}{suffix}"), arrays, packed
    return found


_FORMATS = {"n": "q", "f": "d"}
_LIBRARY = _load()
_KERNELS = _kernels()
_TEAM = _team()
