"""Several processes that train one network: which rows each has, and what they tell each other.

Every process holds the whole network and takes some rows of each batch. Random numbers are drawn
for the whole batch, from a generator in the same state in every process, and each takes those of
its rows: so they do not depend on how many processes there are.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from threefactor.errors import (
    ConfigurationError,
    InputError,
    ProcessError,
    ThreefactorError,
    warn_user,
)
from threefactor.version import NUMBERS, __version__

__all__ = [
    "Share",
    "World",
    "asked_for",
    "check_synchronised",
    "generators_of",
    "join",
    "say_once",
    "step_of",
    "tell_torchrun",
    "warnings_once",
]

TIME_LIMIT = 600.0
"""Seconds that a process waits for the others."""
PATIENCE = timedelta(seconds=5)
"""How long a process waits for another one to say what both have to say."""
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
REFUSED = -1
SEEN = 64
"""So many values of each parameter and buffer are compared at every step, spread over it."""
ALIKE = 1e-5
"""Share of the sum of these values by which processes may differ: by the rounding of other CPUs."""
_ALONE = nullcontext()
T = TypeVar("T")


def asked_for() -> int:
    """Return how many processes the environment says there are, as torchrun sets it; 1 if none.

    Raises:
        ConfigurationError: if WORLD_SIZE is no number of processes.
    """
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal() or int(given) < 1:
        raise ConfigurationError(
            f"WORLD_SIZE is {given!r}; it is the number of processes, as torchrun sets it: leave "
            "it out, or start with torchrun --nproc-per-node=N -m threefactor ..."
        )
    return int(given)


def tell_torchrun(text: str) -> None:
    """Let torchrun name what went wrong in its last lines, if it started this process."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with suppress(OSError), open(path, "w") as file:
            when = {"timestamp": str(int(time.time()))}
            json.dump({"message": {"message": text, "extraInfo": when}}, file)


def say_once(text: str, say: Callable[[str], object]) -> None:
    """Say what went wrong, unless another process that torchrun started says the very same.

    Before the processes meet, and where they are out of step, they have nothing in common but
    the store of torchrun: the first to write there speaks, and the others wait until it has spoken.
    """
    tell_torchrun(text)
    _say_once(text, say)


@contextmanager
def warnings_once() -> Iterator[None]:
    """Let a warning that all processes meet be shown by one of them."""
    plain = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        text = f"{category.__name__}: {message}"
        _say_once(text, lambda _: plain(message, category, *where, **more))

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = plain


def _say_once(text: str, say: Callable[[str], object]) -> None:
    store = None
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        with suppress(Exception):  # then all speak
            at = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = dist.TCPStore(*at, is_master=False, timeout=PATIENCE)  # type: ignore[attr-defined]
    if store is None:
        say(text)
        return
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = f"threefactor/{start}/{zlib.crc32(text.encode())}"
    with suppress(Exception):
        if store.add(key, 1) > 1:
            store.wait([f"{key}/said"], PATIENCE)
            return
    say(text)
    with suppress(Exception):
        store.set(f"{key}/said", "1")


class World:
    """The processes that train together.

    All of them make it at the same time, and then do the same things in the same order. Started by
    torchrun, it joins PyTorch's process group, and makes one if there is none yet. Without others,
    it is a world of one process.

    Args:
        time_limit: how long to wait for another process before it is given up, s.
        meet: whether to look for others at all.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.

    Raises:
        ConfigurationError: if the environment names several processes and not how they meet.
        ProcessError: if they do not meet.

    Example:
        >>> import threefactor
        >>> from threefactor import clocked
        >>> rule = clocked.OPZO(clocked.fc(4, (8,), 3))
        >>> rule.join(threefactor.World())
    """

    def __init__(self, time_limit: float = TIME_LIMIT, *, meet: bool = True) -> None:
        if not 0.0 < time_limit < float("inf"):
            raise InputError(f"time_limit is {time_limit}; give seconds, above 0")
        self._limit = timedelta(seconds=time_limit)
        self.rank, self.size = 0, 1
        self._made = False
        self._groups: dict[str, Any] = {}
        self._asked = self._unfinished = self._stands_in = False
        if not meet:
            return
        if not (dist.is_available() and dist.is_initialized()) and asked_for() > 1:
            self._meet()
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
            self._group("cpu")

    def _meet(self) -> None:
        if not dist.is_available():
            raise ConfigurationError(
                "this PyTorch has no torch.distributed; install another build, or use one process"
            )
        missing = [name for name in NEEDED if not os.environ.get(name)]
        if missing:
            raise ConfigurationError(
                f"WORLD_SIZE is {asked_for()}, and {', '.join(missing)} not set, by which the "
                "processes meet; start them with torchrun --nproc-per-node=N -m threefactor ..., "
                "or unset WORLD_SIZE to use one process"
            )
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=self._limit)
        except (RuntimeError, ValueError) as problem:
            rank, where, port = (os.environ[name] for name in NEEDED)
            raise ProcessError(
                f"process {rank} of {asked_for()} did not meet the others at {where}, port {port}, "
                f"within {self._limit.total_seconds():g} s ({_shortly(problem)}): start all of "
                "them, with the MASTER_ADDR, MASTER_PORT and WORLD_SIZE of the first, each with a "
                "RANK of its own; torchrun does so"
            ) from problem
        self._made = True

    def leave(self) -> None:
        """Leave the process group that this world made; do nothing if it was there before."""
        if self._made and dist.is_initialized():
            dist.destroy_process_group()
        self._made = False

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_read_back, (self.size,))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return int(os.environ.get("LOCAL_RANK", self.rank))

    # -- what the processes tell each other --

    def _group(self, kind: str) -> Any:
        """Return the group of all processes for tensors on a kind of device."""
        if kind not in self._groups:
            backend = {"cpu": "gloo", "cuda": "nccl"}.get(kind)
            if backend is None:
                raise ConfigurationError(
                    f"several processes cannot train together on {kind}; give cpu or cuda"
                )
            with self._in_words():
                self._groups[kind] = dist.new_group(backend=backend, timeout=self._limit)
        return self._groups[kind]

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as problem:  # gloo and nccl have no classes of their own
            raise ProcessError(
                f"process {self.rank} of {self.size} lost the others: one of them ended, did not "
                f"answer within {self._limit.total_seconds():g} s, or did something else "
                f"({_shortly(problem)}). See what the others say; a run goes on from its last "
                "checkpoint with --resume"
            ) from problem

    def gather(self, numbers: Sequence[float]) -> Tensor:
        """Return some numbers of every process, (size, len(numbers)), as float64 on the CPU."""
        mine = torch.tensor(numbers, dtype=torch.float64)
        if self.size == 1:
            return mine.unsqueeze(0)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._in_words():
            dist.all_gather(found, mine, group=self._group("cpu"))
        return torch.stack(found)

    def gather_parts(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the rows of all processes, (sum(sizes), ...), in their order.

        Args:
            own: (sizes[rank], ...), the rows of this process.
            sizes: how many rows each process has.
        """
        if self.size == 1:
            return own
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in sizes]
        with self._in_words():
            dist.all_gather(found, padded, group=self._group(own.device.type))
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with self._in_words():
            dist.all_reduce(flat, group=self._group(flat.device.type))
        totals = torch.split(flat, [tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, total in zip(tensors, totals, strict=True):
                tensor.copy_(total.view(tensor.shape))

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace `.grad` by the sum over all processes; None only where all have None."""
        learners = [p for p in parameters if p.requires_grad]
        if self.size == 1 or not learners:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learners]
        there = grads[0].new_tensor([p.grad is not None for p in learners])
        self.add([*grads, there])
        for parameter, grad, found in zip(learners, grads, there.tolist(), strict=True):
            parameter.grad = grad if found else None

    def from_first(self, make: Callable[[], T]) -> T:
        """Let the first process alone do something; return its result in all of them.

        What is raised there is raised in all of them.
        """
        if self.size == 1:
            return make()
        said: list[Any] = [None, None, None]
        failure: Exception | None = None
        if self.is_first:
            try:
                said[0] = make()
            except Exception as problem:
                failure, said[1] = problem, str(problem)
                said[2] = type(problem) if isinstance(problem, ThreefactorError) else None
        with self._in_words():
            dist.broadcast_object_list(said, src=0, group=self._group("cpu"))
        if failure is not None:
            raise failure
        if said[1] is not None:
            told = (said[2] or ProcessError)(said[1])
            told.said_elsewhere = True
            raise told
        return said[0]  # type: ignore[no-any-return]

    def check_same(self, what: str, value: object) -> None:
        """Refuse to work with processes in which something is another.

        Raises:
            ConfigurationError: naming it, and a process that differs from the first.
        """
        found = self.gather([zlib.crc32(repr(value).encode())])[:, 0].tolist()
        others = [rank for rank, one in enumerate(found) if one != found[0]]
        if others:
            raise ConfigurationError(
                f"process {others[0]} does not have {what} of process 0; processes that train "
                "together need the same"
            )

    # -- batches --

    def rows(self, count: int) -> slice:
        """Return which of `count` rows are this process's; none if there are fewer than processes.

        Those of all processes, in their order, are all rows.
        """
        return self.all_rows(count)[self.rank]

    def all_rows(self, count: int) -> list[slice]:
        """Return which of `count` rows each process has."""
        ends = [rank * count // self.size for rank in range(self.size + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    @contextmanager
    def standing_in(self, needed: bool = True) -> Iterator[None]:
        """Take part in steps with a row that is another's, and that does not count here."""
        self._stands_in = needed
        try:
            yield
        finally:
            self._stands_in = False

    def begin_step(self) -> None:
        """Note that a step begins, of which the others do not know yet.

        Raises:
            ProcessError: if the step before failed in its middle.
        """
        if self._unfinished:
            raise ProcessError(
                "a step of this process failed in its middle, while the others waited for its "
                "part: they are not in the same step any more. End all processes and begin again, "
                "from a checkpoint if there is one"
            )
        self._asked = False

    def refuse_step(self) -> None:
        """Tell the others that this process cannot begin the step, if they do not know yet."""
        if not self._asked and not self._unfinished:
            self._asked = True
            self.gather([REFUSED, *[0.0] * 5])

    def share(self, rule: Any, rows: int, plan: object = None) -> Share:
        """Return which rows of a whole batch these are; all processes do so at the same time.

        Args:
            rule: the rule that is about to learn from them. Its network must not mix samples or
                draw numbers by itself.
            rows: how many this process has.
            plan: what is to be done with them, the same everywhere.

        Raises:
            InputError: if another process refused its rows; if the plan, the state of the random
                generators, the weights or the feedback are not the same everywhere; or a layer
                cannot work on a part of a batch.
        """
        _refuse_mixing(rule.network)
        self._asked = True
        states = [
            g.get_state() if g is not None else torch.get_rng_state() for g in generators_of(rule)
        ]
        first = next(rule.network.parameters())
        if first.is_cuda:
            states.append(torch.cuda.get_rng_state(first.device))
        drawn = zlib.crc32(b"".join(state.numpy().tobytes() for state in states))
        found = self._agreed(rule, 0 if self._stands_in else rows, plan, drawn)
        sizes = [int(size) for size in found[:, 0].tolist()]
        if len(set(found[:, 1].tolist())) > 1:
            raise InputError(
                "PyTorch's random generators are not in the same state in all processes, so that "
                "they would not agree on the noise of a batch: something draws another amount of "
                "numbers in each. Let it draw from a torch.Generator of its own, or within "
                "torch.random.fork_rng()"
            )
        self._unfinished = True
        start = 0 if self._stands_in else sum(sizes[: self.rank])
        return Share(self, start, start + rows, tuple(sizes), not self._stands_in)

    def share_again(self, rule: Any, plan: object) -> None:
        """Take part in one more step of a stream, with the rows of before."""
        self._asked = True
        self._agreed(rule, 1, ("again", plan))
        self._unfinished = True

    def _agreed(self, rule: Any, rows: int, plan: object, drawn: int = 0) -> Tensor:
        """Gather what every process brings to a step: rows, state of its generators, plan."""
        modes = [module.training for module in rule.network.modules()]
        learns = [p.requires_grad for p in (*rule.network.parameters(), *rule.parameters())]
        of_all = zlib.crc32(repr((plan, getattr(rule.perturbation, "scale", None))).encode())
        of_layers = zlib.crc32(repr((modes, learns)).encode())
        found = self.gather([rows, drawn, of_all, of_layers, *_glance(rule)])
        sizes = found[:, 0].tolist()
        if REFUSED in sizes:
            raise InputError(
                f"process {sizes.index(REFUSED)} refused its part of the batch; see what it says"
            )
        if len(set(found[:, 2].tolist())) > 1:
            raise InputError(
                "the processes do not do the same: number of time steps, steps with labels, "
                "after_step, noise, and calls of step, observe and reset must be the same in all "
                "of them; each may have other samples and other labels"
            )
        if len(set(found[:, 3].tolist())) > 1:
            raise InputError(
                "the network's layers are not in the same mode in all processes: call train(), "
                "eval() and requires_grad_() in all of them alike"
            )
        seen, size = found[:, 4], found[:, 5].max()
        apart = ~torch.isclose(seen, seen[0], rtol=0.0, atol=ALIKE * float(size), equal_nan=True)
        if bool(apart.any()):
            raise InputError(
                f"the weights or feedback of process {int(apart.nonzero()[0])} are not those of "
                "process 0: something changed them in one process alone, or the optimisers do not "
                "make the same steps. Load checkpoints before `join`, make the optimiser after it, "
                "with the same options everywhere, and call optimizer.step() in all processes"
            )
        return found

    def end_step(self) -> None:
        """Note that a step is whole."""
        self._unfinished = False


def _read_back(size: int) -> None:
    """Stand for the world of a rule that was saved: what is read back trains alone."""
    if size > 1 and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        warn_user(
            f"a rule was read back that trained with {size} processes: it trains alone until "
            "`join` is called, and so do those of the other processes"
        )


@dataclass(frozen=True)
class Share:
    """The rows of a whole batch that this process has.

    Attributes:
        world: the processes.
        start, stop: the rows start to stop - 1 of the whole batch.
        sizes: how many rows each process has.
        counts: whether they count; those that only stand in have no weight.
    """

    world: World
    start: int
    stop: int
    sizes: tuple[int, ...]
    counts: bool
    _states: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @contextmanager
    def only_whole_draws(self, device: torch.device) -> Iterator[None]:
        """Refuse random numbers that layers draw within for these rows alone.

        Raises:
            InputError: if PyTorch's generator moved outside of `drawing`.
        """
        self._states[device] = _random_state(device)
        yield
        self._refuse_draws(device)

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """Draw random numbers for the whole batch within."""
        self._refuse_draws(device)
        yield
        self._states[device] = _random_state(device)

    def _refuse_draws(self, device: torch.device) -> None:
        if not torch.equal(self._states[device], _random_state(device)):
            raise InputError(
                "a layer of the network draws random numbers by itself, for the rows of this "
                "process alone, so that they would depend on how many processes there are: use "
                "the dropout and the noise of clocked.LIF and of rules, or train in one process. "
                "What does not depend on the rows may be drawn from a torch.Generator of its own"
            )

    @property
    def total(self) -> int:
        """Number of samples in the whole batch."""
        return sum(self.sizes)

    @property
    def weight(self) -> float:
        """What the rows weigh in the whole, for a mean of means: their share of it."""
        return self.sizes[self.world.rank] / self.total

    def whole_like(self, rows: Tensor) -> Tensor:
        """Return a new tensor for the whole batch, laid out in memory as (rows, ...) is."""
        shape = (self.total, *rows.shape[1:])
        order = sorted(range(rows.dim()), key=lambda d: rows.stride()[d], reverse=True)
        dense = rows.new_empty([shape[d] for d in order])
        return dense.permute([order.index(d) for d in range(rows.dim())])

    def mine(self, whole: Tensor) -> Tensor:
        """Return this process's rows."""
        return whole[self.start : self.stop]

    def gather(self, rows: Tensor) -> Tensor:
        """Return a value of all samples, (total, ...), from those of this process's rows."""
        return self.world.gather_parts(rows, self.sizes)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, such as means over the rows, by their means over the whole batch."""
        with torch.no_grad():
            for tensor in tensors:
                tensor.mul_(self.weight)
        self.world.add(tensors)

    def mean(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return means over the whole batch of scalars that are means over the rows."""
        if not values:
            return []
        found = torch.stack([v.detach().double() for v in values]) * self.weight
        self.world.add([found])
        return [one.to(v.dtype) for one, v in zip(found, values, strict=True)]


def _random_state(device: torch.device) -> Tensor:
    """Return the state of PyTorch's global generator on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _refuse_mixing(network: nn.Module) -> None:
    """Refuse layers that in training depend on which samples are in the batch, or draw numbers."""
    for name, module in network.named_modules():
        if not module.training:
            continue
        kind = type(module).__name__
        if isinstance(module, _NormBase) and (
            module.track_running_stats or not kind.startswith("InstanceNorm")
        ):
            raise InputError(
                f"layer {name!r} is a {kind}, whose statistics are those of one process's part of "
                "the batch: put it in evaluation mode, use GroupNorm, or train in one process"
            )
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise InputError(
                f"layer {name!r} is a {kind}, whose mask would depend on how many processes there "
                "are: use the dropout of clocked.LIF, or train in one process"
            )


def join(rule: Any, world: World) -> None:
    """Let a rule of either engine train together with the same rule in other processes."""
    network = rule.network
    schedule = getattr(rule.perturbation, "schedule", None)
    parts = (rule, rule.perturbation, schedule, rule.loss)
    kinds: list[Any] = [type(rule).__name__, *map(_set_up, parts)]
    kinds.append([generator is None for generator in generators_of(rule)])
    for module in (network, rule):
        tensors = (*module.named_parameters(), *module.named_buffers())
        kinds += [(name, tuple(t.shape), t.dtype) for name, t in tensors]
    for what, value in _environment().items():
        world.check_same(what, value)
    world.check_same("the network or rule", kinds)
    generators = [g for g in generators_of(rule) if g is not None]
    device = next(network.parameters()).device

    def everything() -> tuple[Any, ...]:
        states = [_on_cpu(module.state_dict()) for module in (network, rule)]
        drawn = [g.get_state() for g in generators]
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return (*states, drawn, torch.get_rng_state(), on_device)

    if world.size > 1:
        of_network, of_rule, drawn, globally, on_device = world.from_first(everything)
        if not world.is_first:
            network.load_state_dict(of_network)
            rule.load_state_dict(of_rule)
            for generator, state in zip(generators, drawn, strict=True):
                generator.set_state(state)
            torch.set_rng_state(globally)
            if on_device is not None:
                torch.cuda.set_rng_state(on_device, device)
        # How layers print themselves says how they are set up; what was loaded is in it.
        printed = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))
        world.check_same("the set-up of the network's layers", printed)
    rule.world = world if world.size > 1 else None


def check_synchronised(rule: Any, base: type) -> None:
    """Refuse a rule that learned in its buffers and does not say how processes agree on them.

    Args:
        rule: of either engine.
        base: the class of all rules of the engine, whose `synchronise` does nothing.
    """
    if type(rule).synchronise is base.synchronise:  # type: ignore[attr-defined]
        raise InputError(
            f"{type(rule).__name__} changed its buffers in a step, each process from its own rows "
            "of the batch; say in its method `synchronise` how they become the same in all "
            "processes, or train in one"
        )


def step_of(world: World | None) -> AbstractContextManager[None]:
    """Tell the other processes, if there are any, when this one cannot begin its step."""
    return _ALONE if world is None else _step_of(world)


@contextmanager
def _step_of(world: World) -> Iterator[None]:
    world.begin_step()
    try:
        yield
    except Exception:
        world.refuse_step()
        raise
    world.end_step()


def _shortly(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]


@torch.no_grad()
def _glance(rule: Any) -> list[float]:
    """Return a weighted sum of some of a rule's weights and feedback, and the sum of their sizes.

    Whatever learns apart from the others soon has another one.
    """
    own = (*rule.network.parameters(), *rule.parameters(), *rule.buffers())
    some = [
        flat[:: -(-flat.numel() // SEEN)]
        for flat in (tensor.reshape(-1) for tensor in own if tensor.is_floating_point())
        if flat.numel()
    ]
    values = torch.cat([part.double() for part in some])
    weights = torch.arange(len(values), dtype=torch.float64, device=values.device).cos()
    return torch.stack([(values * weights).sum(), values.abs().sum()]).tolist()


def generators_of(rule: Any) -> list[torch.Generator | None]:
    """Return the generators on which a step of a rule depends; None is the global one."""
    owners = (rule, rule.perturbation)
    return [None, *(getattr(owner, "generator", None) for owner in owners)]


def _environment() -> dict[str, object]:
    """Return what decides, beside a network and its rule, which numbers a step has."""
    return {
        "the version of threefactor": (__version__, NUMBERS),
        "the version of PyTorch": torch.__version__.partition("+")[0],
        "the environment variable THREEFACTOR_KERNELS": os.environ.get("THREEFACTOR_KERNELS"),
        "the precision of products (--precision)": torch.get_float32_matmul_precision(),
    }


def _set_up(of: object) -> list[tuple[str, object]]:
    """Return the attributes of an object that are plain values or tensors: how it is set up."""
    found: list[tuple[str, object]] = []
    for name, value in sorted(vars(of).items()) if hasattr(of, "__dict__") else []:
        if isinstance(value, Tensor):
            found.append((name, value.detach().cpu().tolist()))
        elif not name.startswith("_"):
            each = value if isinstance(value, list | tuple) else [value]
            if all(isinstance(one, bool | int | float | str | None) for one in each):
                found.append((name, value))
    return found


def _on_cpu(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(v) for v in state] if isinstance(state, list) else state
