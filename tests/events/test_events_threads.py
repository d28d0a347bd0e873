"""One network in several threads, calls within calls, and steps that are broken off."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference.events_cases import (
    assert_equal_spikes,
    make_inputs,
    make_labels,
    make_network,
    rule_of,
)
from torch import Tensor

from threefactor import events
from threefactor.errors import InputError
from threefactor.events import parallel

every_rule = pytest.mark.parametrize("name", events.RULES)


@pytest.fixture(autouse=True)
def _switching(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parallel, "SMALL", 0)  # else one thread does what is as little as here
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
    events.set_num_threads(None)


def together(*tasks: Callable[[], Any]) -> None:
    """Run tasks at once; the first error is raised here."""
    problems: list[BaseException] = []

    def guarded(task: Callable[[], Any]) -> None:
        try:
            task()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if problems:
        raise problems[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_that_run_one_network(threads: int) -> None:
    """Batches of other sizes at the same time, each with the spikes it has alone."""
    events.set_num_threads(threads)
    net = make_network((6, 30, 3), seed=3)
    batches = [make_inputs(40, seed=13), make_inputs(3, seed=14)]
    wanted = [events.run(net, batch).spikes for batch in batches]
    assert all(len(spikes.times) > 3 for found in wanted for spikes in found.values())

    def task(i: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(60):
                found = events.run(net, batches[i]).spikes
                for layer, spikes in wanted[i].items():
                    assert_equal_spikes(found[layer], spikes)

        return work

    together(task(0), task(1))


@every_rule
def test_threads_that_train_one_network(name: str) -> None:
    """Two rules, four threads: the gradients of all steps are there, none half."""
    steps, net, twin = 25, make_network((6, 8, 3), seed=3), make_network((6, 8, 3), seed=3)
    options = {"feedback_lr": 0.0} if name == "sfdfa" else {}
    inputs, labels = make_inputs(seed=13), make_labels()
    rules = [rule_of(name, net, **options) for _ in range(2)]
    alone = rule_of(name, twin, **options)
    for _ in range(4 * steps):
        alone.step(inputs, labels)

    def task(rule: events.Rule) -> Callable[[], None]:
        return lambda: [rule.step(inputs, labels) for _ in range(steps)] and None

    together(*(task(rule) for rule in rules * 2))
    for found, wanted in zip(net.parameters(), twin.parameters(), strict=True):
        assert wanted.grad.abs().max() > 0
        assert torch.equal(found.grad, wanted.grad)


def test_feedback_learns_from_every_thread() -> None:
    """What SFDFA learns in two threads is what it learns in one: same batch, no perturbation."""
    ends = []
    for threaded in (False, True):
        rule = rule_of("sfdfa", make_network(seed=3), feedback_lr=0.01)
        rule._perturbation = lambda counts, share: torch.zeros_like(counts)  # type: ignore[method-assign]
        work = [
            lambda rule=rule: [rule.step(make_inputs(seed=13), make_labels()) for _ in range(20)]
        ]
        if threaded:
            together(*work * 2)
        else:
            for task in work * 2:
                task()
        ends.append(rule.feedback[0].matrix)
    assert torch.equal(*ends)


def test_step_within_a_step() -> None:
    """A loss that takes a step of the same rule: both gradients arrive, each whole."""
    entered: list[bool] = []

    def loss(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not entered:
            entered.append(True)
            rule.step(make_inputs(7, seed=14), make_labels(7))
        return events.SpikeCount(5, 1)(output, targets)

    net, twin = make_network(seed=3), make_network(seed=3)
    rule = rule_of("dfa", net, loss=loss)
    rule.step(make_inputs(seed=13), make_labels())
    plain = rule_of("dfa", twin, loss=events.SpikeCount(5, 1))
    plain.step(make_inputs(7, seed=14), make_labels(7))
    plain.step(make_inputs(seed=13), make_labels())
    for found, wanted in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(found.grad, wanted.grad) and wanted.grad.abs().max() > 0


def test_without_threads_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where its runtime cannot be asked: one thread does the work."""
    net, inputs = make_network(seed=3), make_inputs(seed=13)
    wanted = events.run(net, inputs).output
    events.set_num_threads(2)
    monkeypatch.setattr(parallel.kernels(), "_TEAM", None)
    assert torch.equal(events.run(net, inputs).output, wanted) and wanted.sum() > 0


# Steps that are broken off


def state(rule: events.Rule) -> list[Any]:
    grads = [None if p.grad is None else p.grad.clone() for p in rule.network.parameters()]
    generator = torch.get_rng_state()
    return [grads, copy.deepcopy(rule.state_dict()), generator]


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


KERNELS = [
    "integrate", "spike_weights", "weight_gradient", "input_errors", "grades", "product", "summed",
]  # fmt: skip


@every_rule
@pytest.mark.parametrize("with_gradient", [False, True], ids=["fresh", "added"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_interrupted_step_leaves_all_as_before(
    name: str, kernel: str, with_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in any kernel, the last time it is called, undoes the step; the next one is right."""
    options = {"feedback_optimizer": "adam", "feedback_lr": 0.1} if name == "sfdfa" else {}
    rule = rule_of(name, make_network((6, 5, 4, 3), seed=3), **options)
    inputs, labels = make_inputs(seed=13), make_labels()
    torch.manual_seed(5)
    rule.step(inputs, labels)
    if not with_gradient:
        rule.network.zero_grad()
    before = state(rule)
    compiled, calls = getattr(parallel.kernels(), kernel), []

    def counted(*args: Any) -> None:
        calls.append(kernel)
        if len(calls) == stop:
            raise KeyboardInterrupt
        compiled(*args)

    monkeypatch.setattr(parallel.kernels(), kernel, counted)
    events.set_num_threads(1)
    stop = -1
    twin = copy.deepcopy(rule)
    for copied, p in zip(twin.network.parameters(), rule.network.parameters(), strict=True):
        copied.grad = None if p.grad is None else p.grad.clone()
    twin.step(inputs, labels)
    torch.set_rng_state(before[-1])
    total = len(calls)
    if not total:
        return  # the rule does without it
    for at in {1, min(total, 3)}:  # memory may have to grow the first time
        stop = at
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            rule.step(inputs, labels)
        assert_same(state(rule), before)
    stop = -1
    rule.step(inputs, labels)
    assert_same(state(rule)[:2], state(twin)[:2])


@every_rule
def test_hook_that_fails_undoes_the_step(name: str) -> None:
    rule = rule_of(name, make_network(seed=3))
    rule.step(make_inputs(seed=13), make_labels())

    def fail(gradient: Tensor) -> None:
        raise ValueError("a hook of the user's")

    hook = rule.network.readout.weight.register_hook(fail)
    before = state(rule)
    with pytest.raises(ValueError, match="a hook of the user's"):
        rule.step(make_inputs(seed=14), make_labels())
    assert_same(state(rule), before)
    hook.remove()
    rule.step(make_inputs(seed=14), make_labels())


@every_rule
@pytest.mark.parametrize("what", ["targets", "weights", "gradient"])
def test_refused_batch_leaves_all_as_before(name: str, what: str) -> None:
    rule = rule_of(name, make_network((6, 5, 4, 3), seed=3))
    rule.step(make_inputs(seed=13), make_labels())
    labels, weight = make_labels(), rule.network.readout.weight
    if what == "targets":
        labels = labels + 3
    elif what == "weights":
        weight.data = torch.rand(4, 7, dtype=torch.float64)
    else:
        weight.grad = torch.zeros(3, 4, dtype=torch.float64).t()
    before = state(rule)
    with pytest.raises(InputError):
        rule.step(make_inputs(seed=14), labels)
    assert_same(state(rule), before)
