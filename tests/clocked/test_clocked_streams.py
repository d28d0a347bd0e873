"""The ways to feed a rule: streams, constant inputs, iterables, steps of the optimiser between."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator

import pytest
import torch
from reference.clocked_cases import (
    CASES,
    STEPS,
    assert_alive,
    assert_same,
    build,
    learned,
    make_data,
)
from torch import Tensor

from threefactor import clocked
from threefactor.errors import InputError

every_case = pytest.mark.parametrize("case", CASES)
every_rule = pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-one-point", "opzo"])


def observe_all(
    rule: clocked.Rule, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, list[clocked.Result]]:
    """Loss and output summed over a stream, and the result of every step."""
    results = [rule.observe(x_t, y, steps=len(x)) for x_t in x]
    return sum(r.loss for r in results), sum(r.output for r in results), results


@every_case
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("steps", [STEPS, 8])
def test_observing_equals_a_step(case: str, dropout: float, steps: int) -> None:
    x, y = make_data(steps)
    _, whole = build(case, dropout=dropout)
    result = whole.step(x, y)
    _, stream = build(case, dropout=dropout)
    loss, output, results = observe_all(stream, x, y)
    assert_alive(result)
    assert_same(learned(whole), learned(stream))
    torch.testing.assert_close(loss, result.loss)
    torch.testing.assert_close(output, result.output)
    assert [r.steps for r in results] == [1] * steps and result.steps == steps
    torch.testing.assert_close(results[-1].firing_rates, result.firing_rates)


@every_case
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_constant_input_equals_its_sequence(case: str, dropout: float) -> None:
    x, y = make_data(1)
    _, constant = build(case, dropout=dropout)
    a = constant.step(x[0], y, steps=STEPS)
    _, sequence = build(case, dropout=dropout)
    b = sequence.step(x.expand(STEPS, -1, -1), y)
    assert_alive(a)
    assert_same(learned(constant), learned(sequence))
    torch.testing.assert_close((a.loss, a.output), (b.loss, b.output))


@pytest.mark.parametrize("shape", [(7, 1, 1), (1, 7)])
@every_rule
def test_constant_images_are_flattened(case: str, shape: tuple[int, ...]) -> None:
    x, y = make_data(1)
    _, flat = build(case)
    flat.step(x[0], y, steps=STEPS)
    _, images = build(case)
    images.step(x[0].view(-1, *shape), y, steps=STEPS)
    assert_same(learned(flat), learned(images))


def test_constant_input_that_is_not_contiguous() -> None:
    x, y = make_data(1)
    _, flat = build("dfa")
    flat.step(x[0], y, steps=STEPS)
    _, turned = build("dfa")
    turned.step(x[0].t().contiguous().t(), y, steps=STEPS)
    assert_same(learned(flat), learned(turned))


@every_rule
def test_iterables_equal_a_tensor(case: str) -> None:
    x, y = make_data()

    def generator(endless: bool) -> Iterator[Tensor]:
        yield from x
        while endless:
            raise AssertionError("read more elements than there are steps")

    _, whole = build(case)
    whole.step(x, y)
    for inputs, steps in [(generator(True), STEPS), (list(x), None), (list(x), STEPS)]:
        _, rule = build(case)
        rule.step(inputs, y, steps=steps)
        assert_same(learned(whole), learned(rule))


@every_rule
def test_first_steps_of_a_list(case: str) -> None:
    x, y = make_data()
    _, short = build(case)
    short.step(x[:3], y)
    _, part = build(case)
    part.step(list(x), y, steps=3)
    assert_same(learned(short), learned(part))


@every_rule
@pytest.mark.parametrize("static", [True, False])
def test_learning_at_every_step(case: str, static: bool) -> None:
    """OTTT_O: an optimiser step in `after_step` equals a loop over `observe`."""
    x, y = make_data()
    if static:
        x = x[:1].expand_as(x)
    network, rule = build(case)
    optimizer = torch.optim.SGD([*network.parameters(), *rule.parameters()], lr=0.2)
    start = {k: v.clone() for k, v in network.state_dict().items()}
    calls = []

    def update() -> None:
        calls.append(1)
        optimizer.step()
        optimizer.zero_grad()

    rule.step(x[0] if static else x, y, steps=STEPS if static else None, after_step=update)
    other, stream = build(case)
    optimizer_2 = torch.optim.SGD([*other.parameters(), *stream.parameters()], lr=0.2)
    for x_t in x:
        stream.observe(x_t, y, steps=STEPS)
        optimizer_2.step()
        optimizer_2.zero_grad()
    assert len(calls) == STEPS
    assert_same(network.state_dict(), other.state_dict())
    assert all((network.state_dict()[k] - v).abs().max() > 1e-6 for k, v in start.items())


@every_rule
@pytest.mark.parametrize("static", [True, False])
def test_updates_between_steps_change_the_forward_pass(case: str, static: bool) -> None:
    """The product with a constant input is made anew once the weights have changed."""
    x, y = make_data(1)
    network, rule = build(case)
    outputs = []
    network.register_forward_hook(lambda m, i, out: outputs.append(out.detach().clone()))

    def silence() -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()

    x = x[0] if static else x.expand(3, -1, -1)
    rule.step(x, y, steps=3 if static else None, after_step=silence)
    assert outputs[0].abs().max() > 0
    assert outputs[1].abs().max() == 0 and outputs[2].abs().max() == 0


@pytest.mark.filterwarnings("ignore:DKP's feedback has gradients")
@every_case
def test_gradients_add_up(case: str) -> None:
    """Two steps leave the sum of their gradients, as `backward` would."""
    (x, y), (x2, y2) = make_data(), make_data(seed=6)
    _, both = build(case)
    _, parts = build(case)
    both.step(x, y)
    both.step(x2, y2)
    parts.step(x, y)
    first = learned(parts)
    parts.network.zero_grad()
    parts.zero_grad()
    parts.step(x2, y2)
    second = learned(parts)
    total = {k: v if k.startswith("state") else v + first[k] for k, v in second.items()}
    assert_same(total, learned(both))


@every_rule
def test_batches_of_another_size(case: str) -> None:
    """After a reset, and from step to step, the batch may have any size."""
    (x, y), (x3, y3) = make_data(), make_data(batch=3)
    network, rule = build(case)
    rule.step(x, y)
    rule.observe(x[0], y)
    rule.reset()
    rule.observe(x3[0], y3)
    rule.zero_grad()
    assert rule.step(x3, y3).output.shape == (3, 3)
    rule.zero_grad()
    assert rule.step(x3[0], y3, steps=4).output.shape == (3, 3)
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize("sizes", [(4, 3), (4, 1), (1, 4)])
@pytest.mark.parametrize("hidden", [(6, 5), ()], ids=["hidden", "no-hidden"])
@pytest.mark.parametrize("case", ["spatial-bp", "opzo"])
def test_batch_size_changes_without_reset(
    case: str, hidden: tuple[int, ...], sizes: tuple[int, int]
) -> None:
    """A stream's traces and states belong to its samples; other samples need a reset."""
    (x, y), (x2, y2) = (make_data(2, batch=n) for n in sizes)
    network, rule = build(case, hidden, seed=3)
    rule.observe(x[0], y)
    before = learned(rule)
    with pytest.raises(InputError, match=r"reset"):
        rule.observe(x2[0], y2)
    assert before and all(torch.equal(v, before[k]) for k, v in learned(rule).items())
    rule.reset()
    rule.observe(x2[0], y2)
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("case", ["dfa", "opzo"])
@pytest.mark.filterwarnings("ignore:sys._clear_type_cache:DeprecationWarning")
def test_a_stream_keeps_nothing_of_its_time_steps(case: str) -> None:
    """Not an object, however small. What tracemalloc sees grow at first is CPython's own cache.

    PyTorch looks attributes up by new strings, and the cache of attributes keeps the last of them
    in each of its 4096 places; so it is emptied before memory is read.
    """
    _, rule = build(case)
    x, y = make_data(4)

    def observe() -> int:
        for t in range(150):
            rule.observe(x[t % 4], y if t % 3 else None)
        gc.collect()
        sys._clear_type_cache()
        return tracemalloc.get_traced_memory()[0]

    observe()
    tracemalloc.start(1)
    try:
        first, *others = [observe() for _ in range(4)]
    finally:
        tracemalloc.stop()
    assert first > 0 and max(others) - others[0] <= 128  # a number may need a larger object
