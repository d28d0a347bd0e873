"""Time and memory of training, measured for several rules, and for several T (OPZO, table 6)."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import pickle
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threefactor import events
from threefactor.analysis.batches import AnyRule, Batch, learn
from threefactor.analysis.records import Record
from threefactor.clocked.inputs import mapped
from threefactor.errors import InputError

__all__ = [
    "LENGTHS",
    "MakeRule",
    "MeasuredCost",
    "MemoryAgainstSteps",
    "measured_cost",
    "memory_against_steps",
]

LENGTHS = (6, 60, 600)
"""Numbers of time steps T for which memory is measured."""

MakeRule = Callable[[Any], AnyRule]
"""Builds a rule on a network: a rule's class, or `functools.partial` of it with options."""


@dataclass(frozen=True)
class MeasuredCost(Record):
    """Time and memory of training with one rule on this machine.

    Attributes:
        seconds_per_batch: median over the repeats.
        fastest: seconds of the fastest batch.
        seconds_per_epoch: the median times the number of batches of an epoch; None if the number
            of samples was not given.
        relative_time: median over the rounds of the time divided by that of the first rule.
        peak_mebibytes: peak memory of a process that only trains: resident memory, or memory of
            tensors on a GPU. None if the platform does not report it.
        growth_mebibytes: how much of the peak came after network and data were in place.
        state_bytes: what the rule itself keeps from batch to batch: feedback and read-outs.
    """

    seconds_per_batch: float
    fastest: float
    seconds_per_epoch: float | None
    relative_time: float
    peak_mebibytes: float | None
    growth_mebibytes: float | None
    state_bytes: int


def measured_cost(
    network: nn.Module,
    rules: Mapping[str, MakeRule],
    batch: Batch,
    *,
    steps: int | None = None,
    samples: int | None = None,
    repeats: int = 7,
) -> dict[str, MeasuredCost]:
    """Measure training steps of several rules, with AdamW as the optimiser.

    The rules take turns, so that other programs on the machine slow all of them down alike. Compare
    the ratios of one call, not the seconds of two calls. Each rule has a copy of the network. The
    memory of each rule is measured in a process of its own, which imports the script that calls
    this function: guard the script, as for `multiprocessing`, with
    ``if __name__ == "__main__":``.

    Args:
        network: of either engine.
        rules: how to build each rule, by name; must be picklable.
        batch: inputs and targets.
        steps: T, for constant inputs of clocked networks.
        samples: training samples of an epoch, for `seconds_per_epoch`.
        repeats: number of timed rounds; one round before them is not timed.

    Returns:
        Costs by name of the rule.

    Raises:
        InputError: if there is no rule or no repeat, or a process that measures memory ends early.

    Source: Xiao et al. 2026 (OPZO), table 6.
    """
    if not rules or repeats < 1:
        raise InputError(f"there are {len(rules)} rules and {repeats} repeats; give at least one")
    built = {name: _build(network, make) for name, make in rules.items()}
    rounds = []
    for i in range(repeats + 1):
        seconds = {name: _train(*one, batch, steps) for name, one in built.items()}
        if i:
            rounds.append(seconds)
    first = next(iter(rules))
    batches = None if samples is None else math.ceil(samples / len(batch[1]))
    found = {}
    for name, make in rules.items():
        before, peak = _peak_of(network, make, batch, steps, None)
        median = statistics.median(r[name] for r in rounds)
        found[name] = MeasuredCost(
            median,
            min(r[name] for r in rounds),
            None if batches is None else median * batches,
            statistics.median(r[name] / r[first] for r in rounds),
            peak,
            None if peak is None or before is None else peak - before,
            sum(t.nbytes for t in (*built[name][0].parameters(), *built[name][0].buffers())),
        )
    return found


@dataclass(frozen=True)
class MemoryAgainstSteps(Record):
    """Peak memory of training on sequences of different lengths.

    Attributes:
        steps: T of each measurement.
        peak_mebibytes: peak memory of the process.
        growth_mebibytes: how much of the peak came after network and data were in place.
    """

    steps: list[int]
    peak_mebibytes: list[float]
    growth_mebibytes: list[float]


def memory_against_steps(
    network: nn.Module,
    make_rule: MakeRule,
    batch: Batch,
    steps: Sequence[int] = LENGTHS,
) -> MemoryAgainstSteps:
    """Measure the peak memory of a training step for several numbers of time steps.

    Each measurement runs in a process of its own, which gets its input step by step. Guard the
    script that calls this function with ``if __name__ == "__main__":``.

    Args:
        network: on a time grid.
        make_rule: builds the rule; must be picklable.
        batch: input of one time step, (B, ...), and targets. Each time step adds new gaussian
            noise of standard deviation 0.01.
        steps: the numbers of time steps.

    Raises:
        InputError: if the network has no time grid, a number of steps is below 1, the platform
            does not report memory, or the process that measures ends early.

    Source: Xiao et al. 2022 (OTTT): memory that does not grow with T.
    """
    if isinstance(network, events.Network):
        raise InputError("a network of exact spike times has no time steps to measure against")
    if not steps or any(t < 1 for t in steps):
        raise InputError(f"steps are {tuple(steps)}; give numbers of at least 1")
    peaks, growths = [], []
    for count in steps:
        before, peak = _peak_of(network, make_rule, batch, None, count)
        if before is None or peak is None:
            raise InputError(f"the peak memory of a process cannot be measured on {sys.platform}")
        peaks.append(peak)
        growths.append(peak - before)
    return MemoryAgainstSteps(list(steps), peaks, growths)


def _build(network: nn.Module, make: MakeRule) -> tuple[AnyRule, torch.optim.Optimizer]:
    try:
        twin = copy.deepcopy(network)
    except RuntimeError as problem:  # tensors with a graph cannot be copied
        raise InputError(
            "the network cannot be copied, probably because its neurons hold the graph of a run "
            f"outside of a rule; reset them first ({problem})"
        ) from problem
    rule = make(twin.train())  # with dropout, as in training
    optimizer = torch.optim.AdamW([*rule.network.parameters(), *rule.parameters()], lr=1e-6)
    return rule, optimizer


def _train(
    rule: AnyRule, optimizer: torch.optim.Optimizer, batch: Batch, steps: int | None
) -> float:
    """Train on one batch; return the seconds that it took."""
    device = batch[1].device
    _wait_for(device)
    start = time.perf_counter()
    optimizer.zero_grad()
    learn(rule, *batch, steps)
    optimizer.step()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_of(
    network: nn.Module, make: MakeRule, batch: Batch, steps: int | None, length: int | None
) -> tuple[float | None, float | None]:
    """Train twice in a fresh process; return its peak memory before and after, in MiB."""
    # Pickled here, since torch would share tensors through file handles. A part of a tensor is
    # pickled with the whole, which may be all pictures of a data set: hence the clones.
    alone = (mapped(batch[0], _clone), _clone(batch[1]))
    try:
        given = pickle.dumps((network, make, alone, steps, length, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as problem:
        raise InputError(
            "memory is measured in a process of its own, to which network and rule are sent, and "
            f"pickle cannot write them: {problem}. Give a class or a function of a module in the "
            "place of one that was made within another, such as a surrogate of snnTorch"
        ) from problem
    context = _context()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(there, given))  # type: ignore[attr-defined]
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        process.join()
        raise InputError(
            f"the process that measures memory ended with code {process.exitcode}: probably there "
            "is not enough memory; give a smaller batch or network"
        ) from None
    finally:  # also when this process is asked to stop
        process.kill()
        process.join()
        here.close()
    if isinstance(found, BaseException):
        raise found
    return found  # type: ignore[no-any-return]


def _clone(part: Any) -> Any:
    return part.clone() if isinstance(part, Tensor) else part


def _noisy(x: Tensor) -> Tensor:
    return x + 0.01 * torch.randn_like(x)


def _context() -> BaseContext:
    """Return how to start processes: with PyTorch already imported, where forking is safe.

    The server that they are forked from only imports modules. It has no threads and no network.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # which optimisers import
    return context


def _measure(answer: Connection, given: bytes) -> None:
    """Send what `_train_alone` returns or raises; end at once if the process that asked ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        found: Any = _train_alone(given)
    except Exception as problem:
        found = problem
    answer.send(found)


def _train_alone(given: bytes) -> tuple[float | None, float | None]:
    network, make, (inputs, targets), steps, length, threads = pickle.loads(given)
    torch.set_num_threads(threads)
    rule, optimizer = _build(network, make)
    before = _peak_mebibytes(targets.device)
    for _ in range(2):
        if length is None:
            _train(rule, optimizer, (inputs, targets), steps)
        else:  # a sequence that exists one step at a time, and never the same tensor twice
            sequence = (mapped(inputs, _noisy) for _ in range(length))
            _train(rule, optimizer, (sequence, targets), length)
    return before, _peak_mebibytes(targets.device)


def _peak_mebibytes(device: torch.device) -> float | None:
    """Return the peak memory of this process so far; None if the platform does not report it.

    On the CPU this is its resident memory; on a GPU, the memory of PyTorch's tensors.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count the parent, as it was at the fork
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
