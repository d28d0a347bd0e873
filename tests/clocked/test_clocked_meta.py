"""Steps on devices other than a CPU ask for no value, and bad values are refused all the same.

PyTorch's device "meta" has no values: whatever asks for one fails there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.clocked_cases import LOCAL_CASES, build, make_data
from torch import nn

from threefactor import clocked
from threefactor.clocked import verdicts
from threefactor.errors import InputError

RULES: dict[str, dict[str, Any]] = {
    "spatial-bp": {},
    "dfa": {},
    "dkp": {},
    "zo": {},
    "zo two-point": {"points": "two-point"},
    "opzo": {},
    "opzo two-point": {"points": "two-point"},
    "opzo sphere": {"noise_distribution": "sphere", "noise_position": "before"},
    "opzo local": LOCAL_CASES["learned"],
}


def learned_currents() -> clocked.Network:
    net = clocked.fc(12, (9, 8), 5)
    for name in ("lif1", "lif2"):
        net._modules[name] = clocked.CubaLIF(
            learn_leak=True, learn_threshold=True, learn_synaptic_leak=True
        )
    return net


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...], dict[str, Any]]]] = {
    "fc": lambda: (clocked.fc(12, (9, 8), 5, dropout=0.2), (12,), {}),
    "fc of leaks": lambda: (
        clocked.fc(12, (9, 9), 5, leak=torch.linspace(0.2, 0.8, 9), threshold=torch.ones(9)),
        (12,),
        {"trace_decay": 0.5},
    ),
    "fc that learns a leak and a threshold": lambda: (
        clocked.fc(12, (9, 8), 5, leak=0.6, learn_leak=True, learn_threshold=True, reset="zero"),
        (12,),
        {},
    ),
    "synaptic currents that learn all": lambda: (learned_currents(), (12,), {}),
    "conv5": lambda: (clocked.conv5((3, 16, 16), 10, width=0.1, dropout=0.1), (3, 16, 16), {}),
    "conv9": lambda: (clocked.conv9((3, 16, 16), 10, width=0.1), (3, 16, 16), {}),
    "nf-resnet34": lambda: (
        clocked.nf_resnet34((3, 32, 32), 10, width=0.1, depths=(1, 1, 1, 1)),
        (3, 32, 32),
        {"chain": "within-layers"},
    ),
}


CASES = [
    *((rule, network, "sequence") for rule in RULES for network in NETWORKS),
    *((rule, "fc", update) for rule in RULES for update in ("step", "stream")),
    *(("opzo", "synaptic currents that learn all", update) for update in ("step", "stream")),
]


@pytest.mark.parametrize(("rule", "network", "update"), CASES)
def test_a_step_asks_for_no_value(
    rule: str, network: str, update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, shape, options = NETWORKS[network]()
    learner = clocked.RULES[rule.split()[0]](net, **options, **RULES[rule])
    net.to("meta")
    learner.to("meta")
    x = torch.empty(2, *shape, device="meta")
    y = torch.empty(2, dtype=torch.int64, device="meta")
    steps: list[int] = []
    if update == "stream":
        for _ in range(2):
            result = learner.observe(x, y, steps=2)
    else:
        after = (lambda: steps.append(1)) if update == "step" else None
        for inputs, count in ((x, 2), (torch.stack([x, x]), None)):
            result = learner.step(inputs, y, steps=count, after_step=after)
    assert result.output.is_meta and result.output.shape[0] == 2
    assert result.loss is not None and result.loss.is_meta
    assert all(p.grad is not None and p.grad.is_meta for p in net.parameters())
    assert len(steps) == (4 if update == "step" else 0)
    # A network without values is refused when work on it begins.
    monkeypatch.setattr("threefactor.clocked.session.check_layers", lambda network: None)
    assert clocked.run(net.eval(), x, steps=2, targets=y).output.is_meta


def test_a_layer_alone_asks_for_no_value() -> None:
    layer = clocked.CubaLIF(learn_leak=True, learn_threshold=True, learn_synaptic_leak=True)
    layer.to("meta")
    for _ in range(2):
        out = layer(torch.empty(2, 3, device="meta", requires_grad=True))
    out.sum().backward()
    assert layer.raw_leak.grad is not None and layer.raw_leak.grad.is_meta


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the checks of this CPU do what they do on other devices; return how often they read."""
    reads: list[int] = []
    real_gathered, real_read = verdicts.gathered, verdicts.read

    def judge(sound: Any, complain: Any) -> None:
        waiting = verdicts._gathering.get()
        assert waiting is not None
        waiting.append((sound, complain))

    def finite(kind: object, values: Any, complain: Any) -> None:
        waiting = verdicts._gathering.get()
        assert waiting is not None
        waiting.values[kind] = values, complain

    def read() -> None:
        reads.append(len(verdicts._gathering.get() or []))
        real_read()

    monkeypatch.setattr(verdicts, "gathered", lambda device: real_gathered(torch.device("meta")))
    monkeypatch.setattr(verdicts, "judge", judge)
    monkeypatch.setattr(verdicts, "finite", finite)
    monkeypatch.setattr(verdicts, "read", read)
    monkeypatch.setattr("threefactor.clocked.inputs.judge", judge)
    return reads


@pytest.mark.parametrize("case", ["opzo", "dfa", "zo-two-point"])
def test_bad_values_are_refused_before_anything_is_kept(case: str, elsewhere: list[int]) -> None:
    net, rule = build(case)
    x, y = make_data()
    rule.step(x, y)
    kept = {k: v.clone() for k, v in rule.state_dict().items()}
    grads = [p.grad.clone() for p in net.parameters()]
    x[-1, 0, 0] = torch.inf
    elsewhere.clear()
    with pytest.raises(InputError, match="inputs hold 1 NaN or infinite"):
        rule.step(x, y)
    assert [n for n in elsewhere if n] == [len(x)]  # all steps in one reading
    updates: list[int] = []
    with pytest.raises(InputError, match="inputs hold 1 NaN"):
        rule.step(x, y, after_step=lambda: updates.append(1))
    assert not updates
    with pytest.raises(InputError, match="inputs hold 1 NaN"):
        rule.observe(x[-1], y)
    for name, value in rule.state_dict().items():
        assert torch.equal(value, kept[name])
    assert all(map(torch.equal, grads, [p.grad for p in net.parameters()]))


def test_a_sum_that_overflows_is_no_bad_value(elsewhere: list[int]) -> None:
    net, rule = build("dfa", dtype=torch.float32)
    x = torch.full((5, 4, 7), 1e38)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e-38)
    rule.step(x, torch.tensor([0, 1, 2, 0]))
    assert any(elsewhere)


def test_what_is_on_meta_alone_is_refused() -> None:
    _, rule = build("dfa")
    x, y = make_data()
    with pytest.raises(InputError, match="inputs are on the meta device"):
        rule.step(x.to("meta"), y)
    with pytest.raises(InputError, match="targets are on the meta device"):
        rule.step(x, y.to("meta"))
