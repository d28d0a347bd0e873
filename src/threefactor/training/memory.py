"""Whether an experiment fits into this machine's memory, and words where it did not."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from threefactor.data import has_frames
from threefactor.errors import ConfigurationError
from threefactor.training.engines import CONVOLUTIONAL
from threefactor.training.settings import ConvNetworkSettings, ResNetSettings, Settings
from threefactor.training.sizes import convolutional_sizes

__all__ = ["available_memory", "check_memory", "in_memory", "out_of_memory"]

BYTES = {"float32": 4, "float64": 8}
_FAILURES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


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
    weights, neurons = _counts(settings, samples)
    batch = min(settings.batch_size, len(samples.train[1]))
    inputs = math.prod(samples.input_shape)
    if has_frames(settings.data.name) and settings.steps is not None:
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


def _counts(settings: Settings, samples: Any) -> tuple[int, int]:
    """Return the number of weights, and of neurons."""
    network = settings.network
    if isinstance(network, (ConvNetworkSettings, ResNetSettings)):
        return _convolutional_weights(settings, samples), sum(
            convolutional_sizes(settings).values()
        )
    sizes = [math.prod(samples.input_shape), *network.hidden, samples.outputs]
    return sum(a * b for a, b in itertools.pairwise(sizes)), sum(sizes[1:])


def _convolutional_weights(settings: Settings, samples: Any) -> int:
    from dataclasses import asdict

    options = asdict(settings.network)
    build = CONVOLUTIONAL[options.pop("kind")]
    with torch.device("meta"):
        network = build(samples.input_shape, samples.outputs, **options)
    return sum(weight.numel() for weight in network.parameters())


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


@contextmanager
def in_memory() -> Iterator[None]:
    """Say in words that memory did not suffice.

    Raises:
        ConfigurationError: in place of the many errors of other libraries.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        why = str(problem).split("\n")[0] or type(problem).__name__
        raise ConfigurationError(
            f"memory does not suffice ({why}); give a smaller network, batch_size or steps"
        ) from problem
