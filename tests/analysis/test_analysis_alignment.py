"""Angles of gradients: by hand, of rules whose angle is known, and where there is none."""

import math

import pytest
import torch

from threefactor import clocked, events
from threefactor.analysis import alignment, angle, cosine
from threefactor.errors import InputError

STEPS = 4


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        ([1, 0], [1, 1], 45),
        ([3, 4], [-4, 3], 90),
        ([1, 2, 3], [-2, -4, -6], 180),
        ([1e-200, 0], [1e-200, 1e-200], 45),
        ([1e200, 0], [0, 1e200], 90),
    ],
)
def test_angles_by_hand(a, b, degrees):
    a, b = (torch.tensor(v, dtype=torch.float64) for v in (a, b))
    assert angle(a, b) == pytest.approx(degrees, abs=1e-9)
    assert cosine(a, b) == pytest.approx(math.cos(math.radians(degrees)), abs=1e-9)


def test_small_angles_are_accurate():
    """The cosine of 1e-7 rad cannot be told from 1 in double precision."""
    a, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1e-9]).double()
    assert math.radians(angle(a, b)) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_no_direction_no_angle(value):
    assert angle(torch.tensor([value, 0.0]), torch.ones(2)) is None
    assert cosine(torch.ones(2), torch.tensor([value, 0.0])) is None
    with pytest.raises(InputError, match="give as many elements"):
        angle(torch.ones(2), torch.ones(3))


def test_clocked_against_brute_force(grid):
    net, batches = grid
    rule, bp = clocked.DFA(net), clocked.SpatialBP(net)
    found = alignment(rule, batches, steps=STEPS).layers
    assert list(found) == ["linear1", "linear2", "readout"]
    angles = {name: [] for name in found}
    sums = {name: [0.0, 0.0] for name in found}
    for x, y in batches:
        both = []
        for one in (rule, bp):
            net.zero_grad()
            one.step(x, y, steps=STEPS)
            both.append(
                {n: torch.cat([m.weight.grad.flatten(), m.bias.grad]) for n, m in
                 net.named_children() if n in found}
            )  # fmt: skip
        for name in found:
            a, b = both[0][name], both[1][name]
            cos = torch.dot(a, b) / (a.norm() * b.norm())
            angles[name].append(math.degrees(math.acos(min(1.0, float(cos)))))
            sums[name] = [sums[name][0] + a, sums[name][1] + b]
    assert 20 < found["linear1"].angle < 160
    for name, layer in found.items():
        assert layer.angle == pytest.approx(sum(angles[name]) / 4, abs=1e-4)
        a, b = sums[name]
        cos = torch.dot(a, b) / (a.norm() * b.norm())
        assert math.cos(math.radians(layer.angle_of_means)) == pytest.approx(float(cos), abs=1e-9)
        assert layer.undefined == 0 and layer.note == ""


def test_dfa_with_the_true_weights_is_backpropagation(grid):
    """With one hidden layer and B = W^T the two rules are the same, and with -W^T opposite."""
    _, batches = grid
    net = clocked.fc(6, (12,), 4).double()
    rule = clocked.DFA(net)
    for sign, degrees in ((1.0, 0.0), (-1.0, 180.0)):
        rule.feedback[0].matrix.copy_(sign * net.readout.weight.detach())
        found = alignment(rule, batches, steps=STEPS).layers
        assert found["linear1"].angle == pytest.approx(degrees, abs=1e-5)
        assert found["readout"].angle == pytest.approx(0.0, abs=1e-5)


def test_events(spiking):
    net, batches = spiking
    rule = events.ExactBP(net)
    assert all(
        v.angle == pytest.approx(0.0, abs=1e-5) for v in alignment(rule, batches).layers.values()
    )
    rates = {"rate_penalty": 0.1, "rate_target": 2.0}
    found = alignment(events.DFA(net, local_gradient="exact", **rates), batches).layers
    assert found["readout"].angle == pytest.approx(0.0, abs=1e-5)
    assert found["lif1"].angle > 5 and found["lif2"].angle > 5
    # SFDFA begins without feedback: of the rate penalty alone, the gradient of the last hidden
    # layer is that of backpropagation. In no batch has it learned from the one before.
    sfdfa = events.SFDFA(net, local_gradient="exact", **rates)
    reference = events.ExactBP(net, **rates, loss=_no_error)
    assert alignment(sfdfa, batches, reference=reference).layers["lif2"].angle == pytest.approx(
        0.0, abs=1e-5
    )


def _no_error(counts, targets):
    return counts.sum(1) * 0, counts * 0


@pytest.mark.parametrize("bias", [-1e6, 1e6], ids=["silent", "saturated"])
def test_there_is_no_angle_to_a_zero_gradient(grid, bias):
    """Far from the threshold on either side, the surrogate derivative is zero."""
    _, batches = grid
    net = clocked.fc(6, (12, 9), 4).double()
    with torch.no_grad():
        net.linear1.bias.fill_(bias)
        net.linear2.bias.fill_(bias)
    rate = clocked.run(net, batches[0][0], steps=STEPS).firing_rates["lif2"]
    assert rate == (1.0 if bias > 0 else 0.0)
    found = alignment(clocked.DFA(net), batches, steps=STEPS).layers
    for name in ("linear1", "linear2"):
        assert found[name].angle is None and found[name].angle_of_means is None
        assert found[name].undefined == found[name].batches == 4
        assert (
            "the rule's gradient is zero and the reference's gradient is zero" in found[name].note
        )
    assert found["readout"].angle == pytest.approx(0.0, abs=1e-5)


def test_a_network_without_spikes_has_no_angle(spiking):
    _, batches = spiking
    net = events.fc(6, (10,), 4, tau_s=0.1, thresholds=100.0, duration=0.2)
    found = alignment(events.DFA(net), batches).layers
    assert all(v.angle is None and v.undefined == 3 for v in found.values())
    assert found["lif1"].to_dict()["angle"] is None


def test_one_batch_without_spikes_is_left_out_of_the_mean(spiking):
    net, batches = spiking
    empty = (events.SpikeBatch([0, 0, 0], [], [], 6), torch.tensor([0, 1]))
    rule = events.DFA(net)
    usual = alignment(rule, batches).layers["lif1"]
    found = alignment(rule, [*batches, empty]).layers["lif1"]
    assert found.angle == pytest.approx(usual.angle)
    assert found.undefined == 1 and found.note.startswith("undefined in 1 of 4 batches")


def test_convolutions():
    torch.manual_seed(0)
    net = clocked.conv5((2, 16, 16), 3, width=0.03)
    batches = [(2 * torch.randn(4, 2, 16, 16), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    itself = alignment(clocked.SpatialBP(net), batches, steps=2).layers
    assert list(itself) == ["conv1", "conv2", "conv3", "conv4", "readout"]
    assert all(layer.angle < 0.01 for layer in itself.values())
    found = alignment(clocked.DFA(net), batches, steps=2).layers
    assert 20 < found["conv4"].angle < 160 and found["readout"].angle < 0.01


def test_a_residual_branch_that_starts_at_zero_has_no_angle():
    """gain = 0 keeps BP's errors from the branch, while direct feedback reaches it."""
    torch.manual_seed(0)
    net = clocked.nf_resnet34((2, 16, 16), 3, width=0.06, depths=(1, 1, 1, 1))
    batch = (5 * torch.randn(4, 2, 16, 16), torch.tensor([0, 1, 2, 0]))
    rule = clocked.DFA(net, chain="within-layers")
    found = alignment(rule, [batch], steps=2).layers
    branch = found["stage1_block1.conv1"]
    assert branch.angle is None
    assert branch.note.endswith("the reference's gradient is zero")
    assert found["stem"].angle is not None and found["readout"].angle < 0.01


def test_bad_input(grid):
    net, batches = grid
    with pytest.raises(InputError, match="no batch"):
        alignment(clocked.DFA(net), [], steps=STEPS)
    other = clocked.SpatialBP(clocked.fc(6, (12, 9), 4))
    with pytest.raises(InputError, match="different networks"):
        alignment(clocked.DFA(net), batches, steps=STEPS, reference=other)


class Seen(clocked.OPZO):
    """Keeps its feedback as every batch meets it."""

    def step(self, *given, **named):
        self.met = [*getattr(self, "met", []), self.feedback[0].matrix.clone()]
        return super().step(*given, **named)


def test_rule_and_reference_meet_every_batch_with_the_same_feedback(grid):
    net, batches = grid
    rules = [Seen(net, noise_scale=0.2, momentum=0.5) for _ in "ab"]
    for rule in rules:
        rule.step(*batches[0], steps=STEPS)
        rule.met.clear()
    alignment(rules[0], batches[:3], steps=STEPS, reference=rules[1])
    for rule in rules:
        assert len(rule.met) == 3 and rule.met[0].abs().max() > 0
        assert all(torch.equal(rule.met[0], other) for other in rule.met)
