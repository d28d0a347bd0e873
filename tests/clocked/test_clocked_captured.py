"""What is captured and replayed gives the numbers of steps made as usual, and when it is not.

A stand-in for CUDA's graphs records PyTorch's operations and repeats them on the same tensors. As a
graph, it knows nothing of Python: numbers and branches are those of the capture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from reference.clocked_cases import CASES, LOCAL_CASES, build, build_pictures, make_data
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from threefactor import clocked
from threefactor.clocked import kernels, losses, verdicts, winograd
from threefactor.clocked.captured import MOST_KEPT, Captured
from threefactor.errors import InputError


def tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


class Recording(TorchDispatchMode):
    """Notes every operation, and the values that those tensors had which it writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        given = tensors((args, kwargs))
        if func._schema.is_mutable:
            for x in given:
                if storage(x) not in self.made:
                    self.before.setdefault(id(x), (x, x.clone()))
        out = func(*args, **kwargs)
        held = {storage(x) for x in given}
        fresh = [x for x in tensors(out) if storage(x) not in held]
        self.made.update(storage(x) for x in fresh)
        self.operations.append((func, args, kwargs, tensors(out)))
        return out


def storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


class StandIn:
    """Records on the CPU; capturing leaves no trace but what was recorded."""

    counts: dict[str, int]

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = [torch.default_generator, *generators]
        self.operations: list[Any] = []

    def capture(self, work: Callable[[], None]) -> None:
        self.counts["captures"] += 1
        states = [g.get_state() for g in self.generators]
        recording = Recording()
        try:
            with recording:
                work()
        finally:
            with torch.no_grad():
                for x, value in recording.before.values():
                    x.data.copy_(value)
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state)
        self.operations = recording.operations
        # A graph computes nothing while it is captured.
        with torch.no_grad():
            for _, _, _, out in self.operations:
                for x in out:
                    if storage(x) in recording.made and x.is_floating_point():
                        x.data.fill_(float("nan"))

    def replay(self) -> None:
        self.counts["replays"] += 1
        with torch.no_grad():
            for func, args, kwargs, out in self.operations:
                again = tensors(func(*args, **kwargs))
                for old, new in zip(out, again, strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.data.copy_(new)


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let the CPU be a device: checks are gathered, and operations are all PyTorch's."""
    found = {"captures": 0, "replays": 0}
    monkeypatch.setattr(StandIn, "counts", found, raising=False)
    monkeypatch.setattr(Captured, "device_type", "cpu")
    monkeypatch.setattr(kernels, "_library", None)
    monkeypatch.setattr(winograd, "_library", None)
    real = verdicts.gathered
    monkeypatch.setattr(verdicts, "gathered", lambda device: real(torch.device("meta")))

    def judge(sound: Tensor, complain: Callable[[], None]) -> None:
        waiting = verdicts._gathering.get()
        if waiting is not None:
            waiting.append((sound, complain))
        elif not sound:  # while a rule is made
            complain()

    def finite(kind: object, values: Tensor, complain: Callable[[], None]) -> None:
        waiting = verdicts._gathering.get()
        assert waiting is not None
        waiting.values[kind] = values, complain

    monkeypatch.setattr("threefactor.clocked.inputs.judge", judge)
    monkeypatch.setattr(verdicts, "finite", finite)
    monkeypatch.setattr(verdicts, "judge", judge)
    monkeypatch.setattr("threefactor.clocked.constants.judge", judge)
    monkeypatch.setattr("threefactor.clocked.constants._at_hand", lambda value: False)

    def check_labels(targets: Tensor, samples: int, outputs: int) -> None:
        low, high = targets.aminmax()
        known = (low >= 0) & (high < outputs)
        judge(known, partial(losses._refuse_classes, low, high, outputs))

    real_loss = kernels.cross_entropy_mse  # which spares a device labels out of range

    def loss(output: Tensor, targets: Tensor, c: float) -> tuple[Tensor, Tensor]:
        return real_loss(output, targets.clamp(0, output.shape[1] - 1), c)

    monkeypatch.setattr(kernels, "cross_entropy_mse", loss)
    monkeypatch.setattr(losses.CrossEntropyMSE, "check_targets", staticmethod(check_labels))
    return found


def snapshot(rule: clocked.Rule, result: clocked.Result) -> list[Tensor]:
    grads = [p.grad for p in (*rule.network.parameters(), *rule.parameters())]
    rates = list(result.firing_rates.values())
    values = [result.output, result.loss, *rates, *grads, *rule.buffers()]
    return [x.detach().clone() for x in values if x is not None]


def train(rule: clocked.Rule, step: Callable[..., Any], batches: Any, **options: Any) -> list[Any]:
    """Some steps of training; what each leaves behind."""
    parameters = [*rule.network.parameters(), *rule.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    torch.manual_seed(7)
    found = []
    for i, (x, y) in enumerate(batches):
        if i % 2 == 0:  # every second step adds to the gradients of the first
            optimizer.zero_grad()
        found.append(snapshot(rule, step(x, y, **options)))
        optimizer.step()
    return found


def same(one: list[Any], other: list[Any]) -> None:
    for a, b in zip(one, other, strict=True):
        assert len(a) == len(b) and any(float(x.abs().max()) > 0 for x in a)
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)


def batches(count: int = 5, static: bool = False) -> list[tuple[Tensor, Tensor]]:
    found = [make_data(seed=seed) for seed in range(count)]
    return [(x[0] if static else x, y) for x, y in found]


@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
@pytest.mark.parametrize("case", CASES)
def test_replays_are_steps(case: str, static: bool, counts: dict[str, int]) -> None:
    options = {"steps": 4} if static else {}
    _, usual = build(case, dropout=0.3)
    expected = train(usual, usual.step, batches(static=static), **options)
    _, rule = build(case, dropout=0.3)
    fast = Captured(rule, StandIn)
    same(train(rule, fast.step, batches(static=static), **options), expected)
    assert counts == {"captures": 1, "replays": 4} and fast.reason is None


@pytest.mark.parametrize("kind", ["conv", "residual"])
@pytest.mark.parametrize("case", ["opzo", "spatial-bp"])
def test_replays_on_pictures(case: str, kind: str, counts: dict[str, int]) -> None:
    data = [(torch.randn(4, 2, 6, 6).double(), torch.tensor([0, 1, 2, 0])) for _ in range(3)]
    _, usual = build_pictures(case, kind)
    expected = train(usual, usual.step, data, steps=3)
    _, rule = build_pictures(case, kind)
    fast = Captured(rule, StandIn)
    same(train(rule, fast.step, data, steps=3), expected)
    assert counts == {"captures": 1, "replays": 2}, fast.reason


def test_replays_of_local_learning(counts: dict[str, int]) -> None:
    def made() -> clocked.Rule:
        torch.manual_seed(0)
        network = clocked.fc(7, (6, 5), 3).double()
        return clocked.OPZO(network, noise_scale=0.3, **LOCAL_CASES["learned"])

    usual, rule = made(), made()
    expected = train(usual, usual.step, batches())
    fast = Captured(rule, StandIn)
    same(train(rule, fast.step, batches()), expected)
    assert counts["replays"] == 4


def wider(network: Any, rule: Any) -> None:
    network.lif1.surrogate_width = 0.6


def replaced(network: Any, rule: Any) -> None:
    network.linear1.weight = nn.Parameter(network.linear1.weight.detach() * 1.5)


def moved(network: Any, rule: Any) -> None:
    network.linear1.weight.data = network.linear1.weight.data * 1.5


CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "leak": lambda n, r: setattr(n.lif2, "leak", 0.9),
    "threshold": lambda n, r: setattr(n.lif1, "threshold", 0.4),
    "reset": lambda n, r: setattr(n.lif1, "reset_mode", "zero"),
    "surrogate": wider,
    "scale": lambda n, r: setattr(n.lif2, "scale", 1.7),
    "evaluation": lambda n, r: n.eval(),
    "dropout": lambda n, r: setattr(n.lif1, "dropout", 0.6),
    "a parameter replaced": replaced,
    "the data of a parameter": moved,
    "a frozen parameter": lambda n, r: n.linear1.weight.requires_grad_(False),
    "noise": lambda n, r: r.set_progress(1.0),
    "position": lambda n, r: setattr(r.perturbation, "position", "before"),
    "antithetic": lambda n, r: setattr(r.perturbation, "antithetic", False),
    "momentum": lambda n, r: setattr(r, "momentum", 0.5),
    "points": lambda n, r: setattr(r, "second_pass", 0.0),
    "loss": lambda n, r: setattr(r, "loss", clocked.CrossEntropyMSE(0.7)),
    "feedback": lambda n, r: setattr(r.feedback[0], "matrix", r.feedback[0].matrix * 2 + 0.1),
    "matmul precision": lambda n, r: torch.set_float32_matmul_precision("high"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, counts: dict[str, int]) -> None:
    def go(fast: bool) -> list[Any]:
        torch.manual_seed(0)
        network = clocked.fc(7, (6, 5), 3, dropout=0.2).double()
        rule = clocked.OPZO(
            network, noise_scale=lambda progress: 0.4 - 0.3 * progress, momentum=0.9
        )
        step = Captured(rule, StandIn).step if fast else rule.step
        found = []
        for i, (x, y) in enumerate(batches(6)):
            if i == 3:
                CHANGES[change](network, rule)
            network.zero_grad()
            found.append(snapshot(rule, step(x, y)))
        return found

    usual = torch.get_float32_matmul_precision()
    try:
        expected = go(False)
        torch.set_float32_matmul_precision(usual)
        same(go(True), expected)
    finally:
        torch.set_float32_matmul_precision(usual)
    assert counts == {"captures": 2, "replays": 4}


def test_values_that_change_in_place_need_no_other_capture(counts: dict[str, int]) -> None:
    def go(fast: bool) -> list[Any]:
        torch.manual_seed(0)
        network = clocked.fc(7, (6,), 3, leak=torch.linspace(0.3, 0.9, 6).double()).double()
        rule = clocked.DFA(network, trace_decay=0.5)
        step = Captured(rule, StandIn).step if fast else rule.step
        found = []
        for i, (x, y) in enumerate(batches()):
            if i == 3:
                with torch.no_grad():
                    network.linear1.weight.mul_(1.5)
                    rule.feedback[0].matrix.add_(0.3)
            network.zero_grad()
            found.append(snapshot(rule, step(x, y)))
        return found

    same(go(True), go(False))


@pytest.mark.parametrize("case", ["opzo", "dfa", "spatial-bp"])
def test_numbers_that_layers_learn_are_those_of_each_replay(
    case: str, counts: dict[str, int]
) -> None:
    def made() -> tuple[clocked.Network, clocked.Rule]:
        learned = {"leak": 0.6, "learn_leak": True, "learn_threshold": True}
        return build(case, **learned)

    network, usual = made()
    expected = train(usual, usual.step, batches())
    assert abs(network.lif1.leak - 0.6) > 1e-6, "the optimiser moved it"
    other, rule = made()
    fast = Captured(rule, StandIn)
    same(train(rule, fast.step, batches()), expected)
    assert counts == {"captures": 1, "replays": 4}
    assert other.lif1.leak == network.lif1.leak


def test_other_shapes_are_captured_by_themselves(counts: dict[str, int]) -> None:
    _, rule = build("dfa")
    fast = Captured(rule, StandIn)
    for _ in range(3):
        for samples in (4, 3):
            x, y = make_data(batch=samples)
            fast.step(x, y)
    assert counts == {"captures": 2, "replays": 4}
    for samples in range(5, 5 + 2 * MOST_KEPT):
        fast.step(*make_data(batch=samples))
    assert len(fast._kept) == MOST_KEPT


def test_bad_values_leave_nothing_behind(counts: dict[str, int]) -> None:
    network, rule = build("opzo")
    fast = Captured(rule, StandIn)
    x, y = make_data()
    for _ in range(3):
        fast.step(x, y)
    before = [b.clone() for b in rule.buffers()], [p.grad.clone() for p in network.parameters()]
    bad = x.clone()
    bad[2, 1, 3] = torch.nan
    with pytest.raises(InputError, match="inputs hold 1 NaN"):
        fast.step(bad, y)
    with pytest.raises(InputError, match="between 0 and 3"):
        fast.step(x, torch.tensor([0, 1, 2, 3]))
    assert counts["replays"] == 4
    after = list(rule.buffers()), [p.grad for p in network.parameters()]
    for one, other in zip(before, after, strict=True):
        assert all(map(torch.equal, one, other))
    fast.step(x, y)
    assert fast.reason is None


def test_results_stay_when_the_next_come() -> None:
    network, rule = build("opzo")
    fast = Captured(rule, StandIn)
    x, y = make_data()
    results = []
    for factor in (1.0, 1.0, 1.0, 0.3):
        network.zero_grad()
        results.append((fast.step(factor * x, y), [p.grad for p in network.parameters()]))
    (third, grads), (fourth, others) = results[2:]
    assert not torch.equal(third.output, fourth.output)
    assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(grads, others, strict=True))


class Own(clocked.DFA):
    pass


def hooked(network: Any) -> None:
    network.lif1.register_forward_hook(lambda *given: None)


FORBIDDEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a layer of one's own": (
        lambda n: clocked.DFA(nn.Sequential(n, nn.Tanh()), input_shape=(7,)), "layer '1', a Tanh"
    ),
    "a rule of one's own": (Own, "a rule of the type Own"),
    "a loss of one's own": (
        lambda n: clocked.DFA(
            n, loss=clocked.from_autograd(nn.CrossEntropyLoss(reduction="none"))
        ),
        "a loss of the type",
    ),
    "hooks": (lambda n: (hooked(n), clocked.DFA(n))[1], "layer 'lif1' has hooks"),
    "hooks of parameters": (
        lambda n: (n.linear1.weight.register_hook(lambda g: g), clocked.DFA(n))[1],
        "a parameter has hooks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_is_not_known_is_done_as_usual(case: str, counts: dict[str, int]) -> None:
    make, reason = FORBIDDEN[case]
    rule = make(clocked.fc(7, (6,), 3).double())
    fast = Captured(rule, StandIn)
    for x, y in batches(3):
        assert fast.step(x, y).loss is not None
    assert counts["captures"] == 0 and fast.reason is not None and reason in fast.reason


def test_a_class_may_promise(counts: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "capturable", True, raising=False)
    rule = Own(clocked.fc(7, (6,), 3).double())
    fast = Captured(rule, StandIn)
    for x, y in batches(3):
        fast.step(x, y)
    assert counts == {"captures": 1, "replays": 2}


def test_a_step_that_asks_for_a_value_is_done_as_usual(counts: dict[str, int]) -> None:
    class Asks(clocked.DFA):
        capturable = True

        def layer_errors(self, step: clocked.TimeStep) -> Any:
            return [
                g * (1.0 if float(step.output.sum()) > 0 else 2.0)
                for g in super().layer_errors(step)
            ]

    def made() -> Any:
        torch.manual_seed(0)
        return Asks(clocked.fc(7, (6,), 3).double())

    usual, rule = made(), made()
    expected = train(usual, usual.step, batches())
    fast = Captured(rule, StandIn)
    same(train(rule, fast.step, batches()), expected)
    assert counts == {"captures": 1, "replays": 0}
    assert "capture failed: operation not permitted" in str(fast.reason)


def test_inputs_that_are_no_tensor(counts: dict[str, int]) -> None:
    _, rule = build("dfa")
    fast = Captured(rule, StandIn)
    x, y = make_data()
    for _ in range(3):
        fast.step(iter(x), [y, None, y, y, y], steps=5)
    assert counts["captures"] == 0 and "one tensor each" in str(fast.reason)


def test_graphs_are_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captured, "device_type", "cuda")
    _, rule = build("dfa")
    fast = Captured(rule)
    fast.step(*make_data())
    assert fast.reason == "the network is on cpu, and graphs are of CUDA"
