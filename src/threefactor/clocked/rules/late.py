"""Errors that reach the hidden layers later than their time step, and labels that come later."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from threefactor.clocked.pathway import Eligibility, deliver, deliver_kept, eligibility_of
from threefactor.clocked.probe import Probe
from threefactor.clocked.rules.time_step import TimeStep
from threefactor.clocked.session import Session
from threefactor.errors import InputError

__all__ = ["KeptEligibility", "Late", "Moment", "OnArrival", "Teacher", "checked_delay"]


@dataclass
class Moment:
    """One time step of a network, before anything is known of its error.

    Attributes:
        output: (B, m) values of the read-out.
        share: what losses and errors are multiplied by.
        layers: the hidden layers.
        second_output: (B, m) read-out of the second forward pass, if the rule has one.
        head: where the output's error enters; None if nothing learns from it.
        calls: how often each synapse layer had been called.
    """

    output: Tensor
    share: float
    layers: Sequence[Probe]
    second_output: Tensor | None = None
    head: Tensor | Eligibility | None = None
    calls: Sequence[int] = ()


class Teacher(Protocol):
    """The parts of a rule that are asked here; see `Rule`."""

    couples_layers: bool

    def judge(self, moment: Moment, targets: Tensor) -> TimeStep:
        """Return losses and error of a time step."""

    def answers(self, step: TimeStep) -> Sequence[Tensor]:
        """Return the checked errors that have come to each hidden layer."""

    def local_errors(self, step: TimeStep) -> Sequence[Tensor | None]:
        """Return the errors that each hidden layer has from itself, at once."""


class Late(ABC):
    """The time steps of a stream whose label or error is still on its way."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what is on its way."""

    @property
    def awaits_label(self) -> bool:
        """Whether the step to come is the first whose label may be given."""
        return False

    def graph_kept(self) -> AbstractContextManager[Any]:
        """Keep what autograd saves in a forward pass, if it has to outlive the time step."""
        return nullcontext()

    @abstractmethod
    def learn(
        self, rule: Teacher, moment: Moment, head: Tensor, targets: Tensor | None
    ) -> TimeStep | None:
        """Take in a time step and the labels that have come, and let all learn that can.

        Args:
            rule: which rule learns.
            moment: the time step.
            head: the network's output, with its graph.
            targets: labels that came now, if any.

        Returns:
            The labelled time step; None without labels.
        """


class OnArrival(Late):
    """Errors that meet what the layers hold when they arrive, `delay` steps later.

    The output learns at once. What a hidden layer keeps of a step is its noise alone.
    """

    def __init__(self, delay: int) -> None:
        self.delay = delay
        self._under_way: deque[TimeStep | None] = deque()

    def clear(self) -> None:
        self._under_way.clear()

    def learn(
        self, rule: Teacher, moment: Moment, head: Tensor, targets: Tensor | None
    ) -> TimeStep | None:
        record = None if targets is None else rule.judge(moment, targets)
        heads, errors = [], []
        local: Sequence[Tensor | None] = [None] * len(moment.layers)
        if record is not None:
            heads, errors = [head], [record.error]
            local = rule.local_errors(record)
            sent = replace(record, layers=[_noise_of(layer) for layer in moment.layers])
        self._under_way.append(None if record is None else sent)
        arrived = self._under_way.popleft() if len(self._under_way) > self.delay else None
        given: Sequence[Tensor | None] = [None] * len(moment.layers)
        if arrived is not None:
            both = zip(moment.layers, arrived.layers, strict=True)
            met = [_with_noise_of(layer, then) for layer, then in both]
            given = rule.answers(replace(arrived, layers=met))
        for layer, late, own in zip(moment.layers, given, local, strict=True):
            error = own if late is None else late if own is None else late.flatten(1) + own
            if error is not None:
                assert layer.current is not None
                heads.append(layer.current)
                errors.append(layer.teach(error))
        pairs = [(h, e) for h, e in zip(heads, errors, strict=True) if h.requires_grad]
        if pairs:
            deliver([h for h, _ in pairs], [e for _, e in pairs])
        return record


def _noise_of(layer: Probe) -> Probe:
    """Return a copy of what a rule may read of a layer, with the noise and nothing else large."""
    then = copy.copy(layer)
    then.forget_values()
    noise = layer.whole_noise
    then.whole_noise = None if noise is None else noise.clone()
    return then


def _with_noise_of(layer: Probe, then: Probe) -> Probe:
    """Return a layer as it is now, with the noise and the number of the step of an error."""
    met = copy.copy(layer)
    met.whole_noise, met.noise_scale, met.steps = then.whole_noise, then.noise_scale, then.steps
    return met


class KeptEligibility(Late):
    """Labels that come late, and errors that meet the eligibility kept of their step.

    Args:
        session: what runs the network; its pathways and probes keep each step from now on.
        labels: how many steps later the labels come.
        errors: how many steps later still the errors come to the hidden layers.
    """

    def __init__(self, session: Session, labels: int = 0, errors: int = 0) -> None:
        self.labels, self.errors = labels, errors
        self._pathways = session.pathways
        self._unlabelled: deque[Moment] = deque()
        self._under_way: deque[tuple[TimeStep, Moment] | None] = deque()
        for pathway in session.pathways:
            pathway.keeps = True
        for probe in session.probes:
            probe.keeps = True

    def clear(self) -> None:
        self._unlabelled.clear()
        self._under_way.clear()

    @property
    def awaits_label(self) -> bool:
        return len(self._unlabelled) < self.labels

    def graph_kept(self) -> AbstractContextManager[Any]:
        return _graph_kept()

    def learn(
        self, rule: Teacher, moment: Moment, head: Tensor, targets: Tensor | None
    ) -> TimeStep | None:
        self._unlabelled.append(self._keep(moment, head))
        if len(self._unlabelled) <= self.labels:
            return None
        kept = self._unlabelled.popleft()
        record = None if targets is None else rule.judge(kept, targets)
        if record is not None:
            local: Sequence[Tensor | None] = [None] * len(kept.layers)
            if self.errors:
                local = rule.local_errors(record)
            elif not rule.couples_layers:
                local = rule.answers(record)
            self._deliver(kept, record.error, local, last=not self.errors)
        self._under_way.append(None if record is None else (record, kept))
        if len(self._under_way) > self.errors:
            self._arrive(rule)
        return record

    def deliver_all(self, rule: Teacher) -> None:
        """Let all errors that are under way arrive."""
        with torch.no_grad():
            while self._under_way:
                self._arrive(rule)

    def _keep(self, moment: Moment, head: Tensor) -> Moment:
        layers = [layer.keep() for layer in moment.layers]
        calls = [pathway.calls for pathway in self._pathways]
        return replace(moment, layers=layers, head=eligibility_of(head), calls=calls)

    def _arrive(self, rule: Teacher) -> None:
        arrived = self._under_way.popleft()
        if arrived is not None and self.errors:
            record, kept = arrived
            self._deliver(kept, None, rule.answers(record), last=True)

    def _deliver(
        self,
        kept: Moment,
        error: Tensor | None,
        given: Sequence[Tensor | None],
        *,
        last: bool,
    ) -> None:
        """Send errors to a kept step: that of the output, and those of the hidden layers."""
        found = [(kept.head, error)]
        if any(g is not None for g in given):
            found += [
                (layer.head, None if g is None else layer.teach(g))
                for layer, g in zip(kept.layers, given, strict=True)
            ]
        pairs = [(h, e) for h, e in found if h is not None and e is not None]
        for pathway, call in zip(self._pathways, kept.calls, strict=True):
            pathway.due = call
        try:
            deliver_kept(pairs, last=last)
        finally:
            for pathway in self._pathways:
                pathway.due = None

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to copy a graph, which PyTorch cannot copy."""
        moments = [*self._unlabelled, *(m for one in self._under_way if one for m in one[1:])]
        for kept in moments:
            graphs = isinstance(kept.head, Tensor) or any(layer.has_graph for layer in kept.layers)
            if graphs:
                advice = "call rule.reset() before the copy"
                if not self.labels:
                    advice = f"let the errors arrive with rule.observe(x, None), or {advice}"
                raise InputError(
                    "this stream has labels or errors under way to time steps whose graph is kept, "
                    "since the network has recurrent layers, norms, activations, sums of currents "
                    "or neurons of other libraries, or errors pass through its weights; a graph "
                    f"cannot be copied or saved: {advice}"
                )
        return self.__dict__


@contextmanager
def _graph_kept() -> Iterator[None]:
    """Give the graph of a step its own copies of parameters, which may change before its use.

    Activations and states are kept as they are, and must not change.
    """

    def pack(tensor: Tensor) -> tuple[Tensor, int | None]:
        if isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter):
            return tensor.detach().clone(), None
        # Not the tensor itself: an output that its own node holds would never be freed.
        return tensor.detach(), tensor._version

    def unpack(kept: tuple[Tensor, int | None]) -> Tensor:
        tensor, version = kept
        if version is not None and tensor._version != version:
            raise InputError(
                "a tensor that the network made in a time step was changed in place before the "
                "error of that step arrived, which needs it as it was; use new tensors, as in "
                'h = h + x, or feedback_meets="current-eligibility", which keeps no step'
            )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def checked_delay(name: str, delay: object) -> int:
    """Return a number of time steps, or refuse it."""
    if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
        raise InputError(f"{name} is {delay!r}; give a whole number of time steps of at least 0")
    return delay
