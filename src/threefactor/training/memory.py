"""Whether an experiment fits into memory; errors that say so, or that a GPU failed."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from threefactor.clocked.neuron import Neuron
from threefactor.data import has_frames
from threefactor.errors import ConfigurationError, DeviceError, ThreefactorError
from threefactor.plugins.registry import entry
from threefactor.training.engines import CONVOLUTIONAL
from threefactor.training.settings import (
    ClockedNetworkSettings,
    ConvNetworkSettings,
    RegisteredNetworkSettings,
    ResNetSettings,
    Settings,
)

__all__ = [
    "available_memory",
    "check_memory",
    "counts",
    "in_memory",
    "of_hardware",
    "out_of_memory",
]

BYTES = {"float32": 4, "float64": 8}
ADVICE = "a smaller network, batch_size or steps"
_FAILURES = (
    *("can't allocate memory", "not enough memory", "out of memory", "bad_alloc"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed"),
)
_OF_GPUS = ("CUDA error", "CUDA driver error", "cuDNN error", "HIP error", "Triton Error [CUDA]")
"""How errors of GPUs begin."""


def check_memory(settings: Settings, samples: Any, device: str = "cpu") -> None:
    """Refuse a network or batch that cannot fit, before any of it is made.

    What is counted is less than what is needed: weights with their gradients, and two numbers for
    each neuron and sample of a batch.

    Args:
        settings: of the run.
        samples: its data.
        device: where it is to run.

    Raises:
        ConfigurationError: with what is needed, and what there is.
    """
    room = available_memory(device)
    if room is None:
        return
    size = BYTES[settings.dtype]
    weights, neurons = counts(settings, samples)
    batch = min(settings.batch_size, len(samples.train[1]))
    inputs = math.prod(samples.input_shape)
    name, steps = settings.data.name, getattr(samples, "steps", None)
    frames = has_frames(name) if entry("data", name) is None else steps is not None
    if frames and settings.steps is not None:
        inputs *= settings.steps
    needed = {
        f"a network of {weights:,} weights": 2 * weights * size,
        f"batch_size={batch} with {neurons:,} neurons": batch * (inputs + 2 * neurons) * size,
    }
    if sum(needed.values()) <= room:
        return
    what = max(needed, key=lambda name: needed[name])
    raise ConfigurationError(
        f"{what} needs more than {needed[what] / 2**30:,.1f} GiB, and {device} has "
        f"{room / 2**30:,.1f} GiB free; give a smaller network.hidden, network.width or batch_size"
    )


def counts(settings: Settings, samples: Any) -> tuple[int, int]:
    """Return the number of weights of a network, and of its neurons per sample.

    A convolutional network is built on PyTorch's device "meta", which has no values, and is shown
    one sample without values: that takes no memory.
    """
    network = settings.network
    if isinstance(network, RegisteredNetworkSettings):  # nobody can tell before it is built
        return 0, 0
    if not isinstance(network, (ConvNetworkSettings, ResNetSettings)):
        sizes = [math.prod(samples.input_shape), *network.hidden, samples.outputs]
        weights = sum(a * b for a, b in itertools.pairwise(sizes))
        if isinstance(network, ClockedNetworkSettings):
            again = network.recurrent
            flags = [again] * len(network.hidden) if isinstance(again, bool) else again
            weights += sum(n * n for n, flag in zip(network.hidden, flags, strict=False) if flag)
        return weights, sum(sizes[1:])
    options, neurons = asdict(network), list[int]()
    build = CONVOLUTIONAL[options.pop("kind")]
    with torch.device("meta"), torch.no_grad():
        made = build(samples.input_shape, samples.outputs, **options).eval()
        for module in made.modules():
            if isinstance(module, Neuron):
                module.register_forward_hook(
                    lambda module, inputs, output: neurons.append(output[0].numel())
                )
        made(torch.empty(1, *samples.input_shape))
    return sum(weight.numel() for weight in made.parameters()), sum(neurons)


def available_memory(device: str = "cpu") -> int | None:
    """Return the bytes that are free, or None where the system does not tell."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [*_of_the_machine(), *_of_the_process(), *_of_the_container()]
    return min(found, default=None)


def _of_the_machine() -> Iterator[int]:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    except (OSError, ValueError, IndexError):
        pass
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return


def _of_the_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit


def _of_the_container() -> Iterator[int]:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")
    except OSError:
        return
    if text.strip().isdigit():
        yield int(text)


def out_of_memory(problem: BaseException) -> bool:
    """Whether an error says that there is no more memory."""
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(part in text for part in _FAILURES)


def of_hardware(
    problem: BaseException, advice: str = ADVICE, kept: str = ""
) -> ThreefactorError | None:
    """Return an error in words for one about too little memory, or a GPU that failed.

    Args:
        problem: what was raised.
        advice: what to give less of.
        kept: what is left of the work, as more sentences.

    Returns:
        The error; None if the problem is another one.
    """
    why = str(problem).split("\n")[0] or type(problem).__name__
    if out_of_memory(problem):
        return ConfigurationError(f"memory does not suffice ({why}); give {advice}.{kept}")
    kinds = (RuntimeError, getattr(torch, "AcceleratorError", RuntimeError))
    if isinstance(problem, kinds) and why.startswith(_OF_GPUS):
        return DeviceError(
            f"a GPU failed ({why}), and this process cannot use it any more.{kept} See whether "
            "nvidia-smi still lists it. If it fails again, CUDA_LAUNCH_BLOCKING=1 in the "
            "environment shows where, and --device cpu whether it is the GPU's fault"
        )
    return None


@contextmanager
def in_memory(
    advice: Callable[[], str] = lambda: ADVICE, kept: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Turn errors of other libraries about memory and GPUs into those of this library.

    Args:
        advice, kept: give what `of_hardware` takes, once it is needed.

    Raises:
        ConfigurationError: if memory did not suffice.
        DeviceError: if a GPU failed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if of_hardware(problem) is None:
            raise
        said = of_hardware(problem, advice(), kept())
        assert said is not None
        raise said from problem
