"""No graph across layers (but for SpatialBP) or steps, and memory that does not grow with T."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from reference.clocked_cases import CASES, assert_alive, build, make_data
from torch import Tensor

from threefactor import clocked

every_case = pytest.mark.parametrize("case", CASES)
both_inputs = pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])


@pytest.fixture(autouse=True, scope="module")
def _quick_collection() -> Iterator[None]:
    """Hide all older objects from the collector: only those made here are walked and counted."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def reached(tensor: Tensor, network: torch.nn.Module) -> list[str]:
    """Names of the layers whose transmission lies in a tensor's graph, once per occurrence."""
    names = {module: name for name, module in network.named_modules()}
    found, open_nodes, seen = [], [tensor.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "pathway"):
            found.append(names[node.pathway.synapse])
        open_nodes += [following for following, _ in node.next_functions]
    return sorted(found)


def watch(rule: clocked.Rule, look: Callable[[], None]) -> None:
    """Look at every time step, after the forward pass and before the backward pass."""
    loss = rule.loss

    def looking(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        look()
        return loss(output, targets)

    rule.loss = looking


@every_case
@both_inputs
def test_each_layer_has_a_graph_of_its_own(case: str, static: bool) -> None:
    network, rule = build(case, (6, 5, 4))
    x, y = make_data(7)
    graphs = []

    def look() -> None:
        graphs.append([reached(p.current, network) for p in rule._session.probes])

    watch(rule, look)
    result = rule.step(x[0], y, steps=7) if static else rule.step(x, y)
    assert_alive(result)
    layers = ["linear1", "linear2", "linear3"]
    alone = [[name] for name in layers]
    chain = [layers[: i + 1] for i in range(3)]
    passes = 2 if rule.second_pass is not None else 1
    # Each layer once: the graph of an earlier step would add a second occurrence.
    assert graphs == [chain if rule.couples_layers else alone] * 7 * passes


@every_case
def test_output_has_a_graph_of_its_own(case: str) -> None:
    network, rule = build(case)
    graphs = []
    hook = lambda m, i, out: graphs.append(reached(out, network))  # noqa: E731
    network.register_forward_hook(hook)
    rule.step(*make_data(7))
    whole = ["linear1", "linear2", "readout"] if rule.couples_layers else ["readout"]
    assert [g for g in graphs if g] == [whole] * 7


@every_case
def test_a_stream_keeps_no_graph(case: str) -> None:
    """After `observe` nothing that is kept, and nothing that is returned, has a graph."""
    _, rule = build(case, dropout=0.3)
    x, y = make_data()
    for x_t in x:
        result = rule.observe(x_t, y)
        assert not result.output.requires_grad and not result.loss.requires_grad
        for probe in rule._session.probes:
            kept = [probe.activity, probe.noise, probe.trace, *probe.neuron.state]
            assert probe.current is None
            assert all(part.grad_fn is None for part in kept if part is not None)
        for pathway in rule._session.pathways:
            assert pathway.trace.grad_fn is None


@every_case
@both_inputs
def test_activities_of_earlier_steps_are_gone(case: str, static: bool) -> None:
    _, rule = build(case)
    x, y = make_data(12)
    born: list[list[weakref.ref]] = []
    alive: list[int] = []

    def look() -> None:
        gc.collect()
        probes = rule._session.probes
        born.append([weakref.ref(t) for p in probes for t in (p.activity, p.current)])
        alive.append(sum(r() is not None for r in born[-1]))
        assert all(r() is None for old in born[:-3] for r in old)

    watch(rule, look)
    rule.step(x[0] if static else x, y, steps=12 if static else None)
    assert len(born) >= 12 and min(alive) == 4  # the references did point at something


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


def counts_after_steps(case: str, steps: int, static: bool) -> list[int]:
    _, rule = build(case, dropout=0.3)
    x, y = make_data(steps)
    counts: list[int] = []
    x, given = (x[0], steps) if static else (x, None)
    rule.step(x, y, steps=given, after_step=lambda: counts.append(live_tensors()))
    assert len(counts) == steps
    return counts


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-one-point", "zo-two-point",
                                  "opzo", "opzo-two-point"])  # fmt: skip
@both_inputs
def test_number_of_tensors_does_not_grow_with_time(case: str, static: bool) -> None:
    counts = counts_after_steps(case, 30, static)
    assert counts[2] > 10  # the count sees tensors at all
    assert abs(counts[29] - counts[5]) <= 2
    assert max(counts[5:]) - min(counts[5:]) <= 4


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "opzo"])
def test_endless_stream_does_not_grow(case: str) -> None:
    _, rule = build(case, dropout=0.3)
    x, y = make_data(1)
    counts = []
    for _ in range(40):
        rule.observe(x[0], y)
        counts.append(live_tensors())
    assert abs(counts[39] - counts[5]) <= 2


def test_the_count_would_notice_a_leak() -> None:
    """A rule that keeps one tensor per step is caught by the bound used above."""

    class Hoarder(clocked.DFA):
        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            self.__dict__.setdefault("hoard", []).append(step.layers[0].activity)
            return super().layer_errors(step)

    network, _ = build("dfa")
    rule, counts = Hoarder(network), []
    x, y = make_data(30)
    rule.step(x, y, after_step=lambda: counts.append(live_tensors()))
    assert counts[29] - counts[5] > 20
