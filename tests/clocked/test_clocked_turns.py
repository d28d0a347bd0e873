"""Rules, streams, runs and threads take turns on one network and leave each other's state alone."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from reference.clocked_cases import CASES, LOCAL_CASES, assert_same, build, learned, make_data
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked
from threefactor.analysis import mean_jacobian
from threefactor.clocked.noise import LinearSchedule
from threefactor.errors import InputError

X, Y = make_data(12)
every_rule = pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])


def stream(rule: clocked.Rule, between: Callable[[], object] = lambda: None) -> dict[str, Tensor]:
    for t, x_t in enumerate(X):
        if t == 6:
            between()
        rule.observe(x_t, Y)
    return learned(rule)


USES: dict[str, Callable[[nn.Module], object]] = {
    "run": lambda net: clocked.run(net, X),
    "run on noise": lambda net: clocked.run(net, X, perturbation=clocked.Perturbation(0.3)),
    "another rule": lambda net: clocked.DFA(net),
    "a step of another rule": lambda net: no_gradient(net, lambda: clocked.DFA(net).step(X, Y)),
    "a plain call": lambda net: net(X[0]),
    "a copy": lambda net: clocked.run(copy.deepcopy(net), X),
    "a Jacobian": lambda net: mean_jacobian(net, [X[:3]]),
    "a failing run": lambda net: failing_run(net),
}


def failing_run(net: nn.Module) -> None:
    with pytest.raises(InputError):
        clocked.run(net, X * float("nan"))


def no_gradient(net: nn.Module, call: Callable[[], object]) -> None:
    kept = [p.grad for p in net.parameters()]
    for p in net.parameters():
        p.grad = None
    call()
    for p, grad in zip(net.parameters(), kept, strict=True):
        p.grad = grad


@every_rule
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_stream_goes_on_undisturbed(case: str, use: Callable[[nn.Module], object]) -> None:
    _, alone = build(case, dropout=0.2)
    torch.manual_seed(7)
    expected = stream(alone)
    network, rule = build(case, dropout=0.2)
    torch.manual_seed(7)

    def between() -> None:
        with torch.random.fork_rng():
            use(network)

    assert_same(expected, stream(rule, between))


@every_rule
def test_two_streams_on_one_network(case: str) -> None:
    """Each has its own potentials, although both look at the same weights."""
    found = []
    for together in (False, True):
        network, one = build(case)
        other = clocked.SpatialBP(network)
        for x_t in X:
            one.observe(x_t, Y)
            if together:
                no_gradient(network, partial(other.observe, x_t.flip(1), Y))
        found.append(learned(one))
    assert_same(*found)


OUTSIDE: dict[str, Callable[[nn.Module], object]] = {
    "reset by hand": lambda net: net.reset(),
    "one layer reset": lambda net: net.lif2.reset(),
    "run on by hand": lambda net: torch.no_grad()(net)(X[0]),
    "state taken away": lambda net: (
        setattr(net.lif1, "state", None) or setattr(net.lif1, "gate", None)
    ),
    "state written to": lambda net: net.lif1.state[0].zero_(),
}


@every_rule
@pytest.mark.parametrize("act", OUTSIDE.values(), ids=OUTSIDE)
def test_a_stream_that_was_disturbed_is_refused(case: str, act: Any) -> None:
    network, rule = build(case)
    for x_t in X[:3]:
        rule.observe(x_t, Y)
    act(network)
    for _ in range(2):  # and not only the first time
        with pytest.raises(InputError, match=r"from outside.*rule\.reset"):
            rule.observe(X[3], Y)
    rule.reset()
    rule.observe(X[3], Y)


def forget_gradients(rule: clocked.Rule) -> None:
    rule.network.zero_grad()
    rule.zero_grad()


@every_rule
def test_a_copy_in_mid_stream_goes_on(case: str) -> None:
    _, rule = build(case)
    for x_t in X[:5]:
        rule.observe(x_t, Y)
    forget_gradients(rule)  # which copies of parameters do not have
    twin = copy.deepcopy(rule)
    for r in (rule, twin):
        torch.manual_seed(3)
        for x_t in X[5:]:
            r.observe(x_t, Y)
    assert twin.network is not rule.network
    assert_same(learned(rule), learned(twin))


@every_rule
def test_use_during_a_step(case: str) -> None:
    """`after_step` may evaluate; it may not call the network by hand, nor the rule."""
    expected_net, expected = build(case)
    expected.step(X, Y, after_step=lambda: None)
    network, rule = build(case)

    def evaluate() -> None:
        with torch.random.fork_rng():
            clocked.run(network, X[:2])

    rule.step(X, Y, after_step=evaluate)
    assert_same(learned(expected), learned(rule))
    for act, message in (
        (lambda: network(X[0]), r"clocked\.run"),
        (lambda: rule.step(X, Y), "middle of its own step"),
        (lambda: rule.observe(X[0], Y), "middle of its own step"),
        (lambda: rule.reset(), "middle of its own step"),
        (lambda: network.reset(), "reset in the middle"),
    ):
        with pytest.raises(InputError, match=message):
            rule.step(X, Y, after_step=act)
        assert all(getattr(m, "probe", None) is None for m in network.modules())
        assert all(getattr(m, "pathway", None) is None for m in network.modules())
    assert expected_net is not network


@every_rule
def test_copies_made_during_a_step(case: str) -> None:
    """They are at rest: the copied network runs, and the copied rule begins anew."""
    network, rule = build(case)
    copies: list[Any] = []

    def keep() -> None:
        if not copies:
            copies.extend([copy.deepcopy(network), copy.deepcopy(rule)])

    rule.step(X, Y, after_step=keep)
    twin, other = copies
    twin.reset()
    assert twin(X[0]).shape == (4, 3)
    with pytest.raises(InputError, match="failed half-way"):
        other.observe(X[0], Y)
    forget_gradients(rule)
    forget_gradients(other)
    for r in (rule, other):
        torch.manual_seed(3)
        r.perturbation and r.perturbation.generator.manual_seed(3)
        r.step(X, Y)
    if case != "opzo":  # whose feedback has moved on since
        assert_same(learned(rule), learned(other))


def test_another_stream_may_begin_while_a_step_reads_its_inputs() -> None:
    found = []
    for other in (False, True):
        network, rule = build("dfa")
        second = clocked.SpatialBP(network)

        def read(other: bool = other, second: Any = second, network: Any = network) -> Any:
            for x_t in X:
                if other:
                    no_gradient(network, partial(second.observe, x_t, Y))
                yield x_t

        rule.step(read(), Y, steps=len(X))
        found.append(learned(rule))
    assert_same(*found)


def test_a_stream_does_not_change_precision() -> None:
    network, rule = build("dfa")
    rule.observe(X[0], Y)
    network.float()
    rule.float()
    with pytest.raises(InputError, match=r"in the middle of a stream; call rule\.reset"):
        rule.observe(X[1].float(), Y)
    rule.reset()
    rule.observe(X[1].float(), Y)


def test_cached_parametrisations_are_refused() -> None:
    network, rule = build("dfa")
    torch.nn.utils.parametrizations.weight_norm(network.linear1)
    with torch.nn.utils.parametrize.cached(), pytest.raises(InputError, match="cached"):
        rule.step(X, Y)
    rule.step(X, Y)


def in_threads(*calls: Callable[[], object]) -> None:
    problems: list[BaseException] = []

    def guarded(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def test_two_threads() -> None:
    """Runs, and steps of two rules, at once: each result is that of a thread alone."""
    network, rule = build("dfa")
    expected = clocked.run(network, X).output
    rule.step(X, Y)
    gradient = {k: p.grad.clone() for k, p in network.named_parameters()}
    network.zero_grad()

    def run() -> None:
        for _ in range(40):
            assert torch.equal(clocked.run(network, X).output, expected)

    def learn() -> None:
        for _ in range(20):
            rule.step(X, Y)

    in_threads(run, learn, run, learn)
    found = {k: p.grad / 40 for k, p in network.named_parameters()}
    assert_same(gradient, found)


def test_a_plain_call_from_another_thread_is_refused() -> None:
    network, rule = build("dfa")
    seen: list[object] = []

    def call() -> None:
        try:
            network(X[0])
        except InputError as problem:
            seen.append(problem)

    def during(*_: object) -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    hook = network.lif1.register_forward_hook(during)
    rule.step(X, Y)
    hook.remove()
    assert len(seen) == len(X) and "clocked.run" in str(seen[0])


def forked(queue: Any, network: nn.Module) -> None:
    queue.put(float(clocked.run(network, X).output.sum()))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_holds_the_network() -> None:
    """The child waits for nobody: the thread that held the network is not there."""
    torch.set_num_threads(1)
    network, rule = build("dfa")
    expected = float(clocked.run(network, X).output.sum())
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with rule._session.alone():
            held.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=forked, args=(queue, network))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        go.set()
        child.kill()
        child.join()
        thread.join()


class FromInside:
    """A fault in the third time step."""

    def __init__(self, after: int = 3) -> None:
        self.calls, self.after = 0, after

    def __call__(self, *_: object) -> None:
        self.calls += 1
        if self.calls == self.after:
            raise KeyboardInterrupt


def everything(rule: clocked.Rule) -> list[Any]:
    network = rule.network
    tensors = [p.grad for p in (*network.parameters(), *rule.parameters())]
    kept = [None if t is None else t.clone() for t in tensors]
    return [*kept, *(v.clone() for v in rule.state_dict().values())]


def assert_as_before(before: list[Any], after: list[Any]) -> None:
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


FAULTS: dict[str, Callable[[clocked.Rule], object]] = {
    "in the network": lambda rule: rule.step(X, Y),
    "in a later input": lambda rule: rule.step(iter([*X[:3], X[3] * float("nan")]), Y, steps=4),
    "in a later element of a list": lambda rule: rule.step([*X[:3], X[3][:2]], Y),
    "at the end": lambda rule: rule.step(iter(X[:3]), Y, steps=4),
    "in observe": lambda rule: [rule.observe(x_t, Y) for x_t in X],
}


@every_rule
@pytest.mark.parametrize("before", [True, False], ids=["gradients before", "none before"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_step_leaves_no_trace(case: str, fault: str, before: bool) -> None:
    network, rule = build(case)
    if before:
        rule.step(X, Y)
    held = [p.grad for p in network.parameters()]
    if fault == "in observe":
        rule.observe(X[0], Y)
    state = everything(rule)
    within = fault in ("in the network", "in observe")
    hook = network.lif2.register_forward_hook(FromInside(1 if fault == "in observe" else 3))
    if not within:
        hook.remove()
    with pytest.raises((KeyboardInterrupt, InputError)):
        FAULTS[fault](rule)
    hook.remove()
    assert_as_before(state, everything(rule))
    if before and fault != "in observe":
        assert all(p.grad is g for p, g in zip(network.parameters(), held, strict=True))
    if fault == "in observe":
        with pytest.raises(InputError, match="failed half-way"):
            rule.observe(X[1], Y)
    rule.reset()
    rule.step(X, Y)


def test_an_input_that_is_refused_does_not_end_a_stream() -> None:
    found = []
    for bad in (False, True):
        _, rule = build("opzo")
        for t, x_t in enumerate(X):
            if bad and t == 5:
                for x, y in (
                    (x_t * float("nan"), Y),
                    (x_t[:2], Y[:2]),
                    (x_t, Y + 9),
                    (x_t, [1, 2]),
                ):
                    with pytest.raises(InputError):
                        rule.observe(x, y)
            rule.observe(x_t, Y)
        found.append(learned(rule))
    assert_same(*found)


def absolute(output: Tensor, targets: Tensor) -> Tensor:
    return (output - F.one_hot(targets, output.shape[1])).abs().sum(1)


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **CASES,
    **{f"dfa {k}": ("dfa", v) for k, v in LOCAL_CASES.items()},
    "own loss": ("dfa", {"loss": clocked.from_autograd(absolute)}),
    "constant scale": ("opzo", {"noise_scale": 0.2}),
    "schedule": ("opzo", {"noise_scale": LinearSchedule(0.3, 0.1)}),
    "generator": ("opzo", {"generator": torch.Generator().manual_seed(4)}),
    "chain": ("zo", {"chain": "within-layers"}),
    "trace decay": ("spatial-bp", {"trace_decay": 0.3}),
    "untraced": ("opzo", {"untraced": ["linear1"]}),
    "noisy hardware": ("spatial-bp", {"perturbation": clocked.Perturbation(0.1)}),
}


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", OPTIONS)
def test_rules_copy_with_every_option(name: str, how: str) -> None:
    """A copy learns the same, on a network of its own."""
    rule_name, options = OPTIONS[name]
    options = {k: "lif2" if v is True and k == "intermediate" else v for k, v in options.items()}
    torch.manual_seed(0)
    network = clocked.fc(7, (6, 5), 3).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    rule = clocked.RULES[rule_name](network, **options)
    rule.step(X, Y)
    forget_gradients(rule)
    twin = copy.deepcopy(rule) if how == "deepcopy" else pickle.loads(pickle.dumps(rule))
    for r in (rule, twin):
        torch.manual_seed(1)
        r.step(X, Y)
    assert twin.network is not network
    assert_same(learned(rule), learned(twin))
