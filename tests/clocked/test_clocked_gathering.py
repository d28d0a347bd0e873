"""Steps gathered into one product: any number of them, and any limit, gives the same gradients."""

from __future__ import annotations

import pytest
import torch
from reference.clocked_cases import assert_alive, assert_same, build, learned, make_data

from threefactor import clocked
from threefactor.clocked import Rule, pathway

every_rule = pytest.mark.parametrize(
    "case", ["spatial-bp", "dfa", "dkp", "zo-one-point", "opzo", "opzo-two-point"]
)

LIMITS = [
    ("MAX_GATHERED_STEPS", 1),
    ("MAX_GATHERED_STEPS", 4),
    ("MAX_GATHERED_BYTES", 1),
    ("MAX_GATHERED_BYTES", 500),
]


@every_rule
@pytest.mark.parametrize("steps", [1, 6, 7, 13])
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit[0]}={limit[1]}")
def test_limits_do_not_change_gradients(
    case: str, steps: int, limit: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = make_data(steps)
    _, usual = build(case)
    assert_alive(usual.step(x, y))
    monkeypatch.setattr(pathway, *limit)
    _, limited = build(case)
    limited.step(x, y)
    assert_same(learned(usual), learned(limited))


@pytest.mark.parametrize("static", [True, False])
@every_rule
def test_flushing_at_every_step_changes_nothing(case: str, static: bool) -> None:
    """`after_step` empties what was gathered in the middle; a callback that does nothing shows."""
    x, y = make_data(13)
    inputs, steps = (x[0], 13) if static else (x, None)
    _, usual = build(case)
    usual.step(inputs, y, steps=steps)
    _, flushed = build(case)
    grads = []
    weight = flushed.network.linear1.weight
    flushed.step(inputs, y, steps=steps, after_step=lambda: grads.append(weight.grad.clone()))
    assert_same(learned(usual), learned(flushed))
    assert len(grads) == 13 and not torch.equal(grads[5], grads[6])


def test_gathered_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the limit is kept, however long the sequence."""
    kept = []
    for steps in (6, 40):
        _, rule = build("dfa")
        x, y = make_data(steps)
        sizes = []

        def look(rule: Rule = rule, sizes: list[int] = sizes) -> None:
            sizes.append(max(len(p._traces) for p in rule._session.pathways))

        rule.step(x, y, after_step=look)
        kept.append(max(sizes))
    assert kept == [pathway.MAX_GATHERED_STEPS] * 2


def test_gradients_lie_in_memory_as_weights_do() -> None:
    """A weight may be a view of a matrix stored the other way round; fused optimisers care."""
    torch.manual_seed(0)
    net = clocked.fc(6, (8,), 3)
    for layer in (net.linear1, net.readout):
        layer.weight.data = layer.weight.data.t().contiguous().t()
    rule = clocked.SpatialBP(net)
    x, y = torch.rand(5, 6) * 4, torch.tensor([0, 1, 2, 0, 1])
    for _ in range(2):  # a new gradient, and one that is added to
        rule.step(x, y, steps=4)
        for parameter in net.parameters():
            assert parameter.grad.abs().max() > 0
            assert parameter.grad.stride() == parameter.stride()
