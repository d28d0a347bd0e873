"""Variance of gradients: against brute force, the promises of OPZO's figure 2, guards."""

import copy

import numpy as np
import pytest
import torch

from threefactor import clocked, data, events
from threefactor.analysis import cut, gradient_variance
from threefactor.analysis.variance import RunningVariance
from threefactor.errors import ConfigurationError, InputError

STEPS = 4


def by_hand(rule, batches, **steps):
    """All gradients side by side, per layer: variance and mean square."""
    net, rows = rule.network, {}
    for x, y in batches:
        net.zero_grad()
        rule.step(x, y, **steps)
        for name, module in net.named_children():
            own = [p.grad.numpy().ravel().copy() for p in module.parameters()]
            if own:
                rows.setdefault(name, []).append(np.concatenate(own))
    net.zero_grad()
    found = {}
    for name, vectors in rows.items():
        g = np.stack(vectors)
        found[name] = (((g - g.mean(0)) ** 2).sum() / g.size, (g.mean(0) ** 2).mean())
    return found


def test_running_variance_of_four_numbers():
    running = RunningVariance()
    for value in (1.0, 2.0, 3.0, 6.0):
        running.add(torch.tensor([value, 5.0]))
    assert running.squares == pytest.approx(4 + 1 + 0 + 9)
    assert running.mean.tolist() == [3.0, 5.0]


@pytest.mark.parametrize("kind", [clocked.SpatialBP, clocked.DFA])
def test_clocked_against_brute_force(grid, kind):
    net, batches = grid
    rule = kind(net)
    found = gradient_variance({"rule": rule}, batches, steps=STEPS).rules["rule"]
    expected = by_hand(rule, batches, steps=STEPS)
    assert found.keys() == expected.keys() and len(found) == 3
    for name, (variance, mean_square) in expected.items():
        assert variance > 0
        assert found[name].variance == pytest.approx(variance, rel=1e-9)
        assert found[name].mean_square == pytest.approx(mean_square, rel=1e-9)
        assert found[name].relative == pytest.approx(variance / mean_square, rel=1e-9)
        assert found[name].batches == 4 and not found[name].vacuous


def test_events_against_brute_force(spiking):
    net, batches = spiking
    rule = events.ExactBP(net, local_gradient="modified")
    found = gradient_variance({"rule": rule}, batches).rules["rule"]
    for name, (variance, _) in by_hand(rule, batches).items():
        assert variance > 0
        assert found[name].variance == pytest.approx(variance, rel=1e-9)


def test_the_factor_one_over_alpha_is_a_factor(grid):
    """Noise, feedback and gradient alike, the gradient times 1/alpha."""
    net, batches = grid
    found = {}
    for divide in (False, True):
        generator = torch.Generator().manual_seed(3)
        rule = clocked.OPZO(
            net, noise_scale=0.25, momentum=0.9, divide_by_scale=divide, generator=generator
        )
        found[divide] = gradient_variance({"opzo": rule}, batches, steps=STEPS)
    for layer in ("linear1", "linear2"):
        one, other = (found[k].rules["opzo"][layer].variance for k in (True, False))
        assert other > 0
        assert one / other == pytest.approx(1 / 0.25**2, rel=1e-6)


@pytest.mark.parametrize("name", ["opzo", "dkp"])
def test_everything_is_left_as_it_was(grid, name):
    net, batches = grid
    generator = {"generator": torch.Generator().manual_seed(3)} if name == "opzo" else {}
    rule = clocked.RULES[name](net, **generator)
    rule.step(*batches[0], steps=STEPS)
    grads = [p.grad.clone() for p in (*net.parameters(), *rule.parameters())]
    state, random = copy.deepcopy(rule.state_dict()), torch.get_rng_state()
    noise = [g.get_state() for g in generator.values()]
    gradient_variance({name: rule}, batches, steps=STEPS, warmup=batches)
    for old, p in zip(grads, (*net.parameters(), *rule.parameters()), strict=True):
        assert torch.equal(old, p.grad)
    for key, value in rule.state_dict().items():
        assert torch.equal(value, state[key])
    assert torch.equal(random, torch.get_rng_state())
    assert all(
        torch.equal(old, g.get_state()) for old, g in zip(noise, generator.values(), strict=True)
    )


def test_warmup_teaches_feedback(grid):
    net, batches = grid
    rule = clocked.OPZO(net, momentum=0.9)
    cold = gradient_variance({"opzo": rule}, batches, steps=STEPS)
    warm = gradient_variance({"opzo": rule}, batches, steps=STEPS, warmup=batches * 5)
    small, large = (v.rules["opzo"]["linear1"].mean_square for v in (cold, warm))
    assert large > 1.5 * small > 0


def test_a_silent_network_is_said_to_have_no_variance(grid):
    _, batches = grid
    net = clocked.fc(6, (12,), 4, threshold=1e6).double()
    rules = {"bp": clocked.SpatialBP(net), "dfa": clocked.DFA(net)}
    found = gradient_variance(rules, batches, steps=STEPS)
    layer = found.rules["bp"]["linear1"]
    assert layer.vacuous and layer.variance == 0.0 and layer.relative is None
    assert found.ratio("dfa", "bp", "linear1") is None
    assert not found.rules["bp"]["readout"].vacuous  # its bias learns
    assert found.ratio("dfa", "bp", "readout") == pytest.approx(1.0)


def test_bad_input(grid):
    net, batches = grid
    rules = {"bp": clocked.SpatialBP(net)}
    with pytest.raises(InputError, match="there were 1 batches"):
        gradient_variance(rules, batches[:1], steps=STEPS)
    with pytest.raises(InputError, match="no rule was given"):
        gradient_variance({}, batches)
    with pytest.raises(InputError, match="cannot be cut from 5"):
        cut(batches[0][0], batches[0][1], 6)
    found = gradient_variance(rules, batches, steps=STEPS)
    with pytest.raises(ConfigurationError, match="unknown layer 'linear3'"):
        found.ratio("bp", "bp", "linear3")
    frozen = clocked.fc(6, (3,), 4).double().requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameters"):
        gradient_variance({"bp": clocked.SpatialBP(frozen)}, batches, steps=STEPS)


def test_steps_make_no_sense_without_a_time_grid(spiking):
    net, batches = spiking
    with pytest.raises(InputError, match="no time grid"):
        gradient_variance({"dfa": events.DFA(net)}, batches, steps=3)


def test_exploding_gradients_are_an_error(grid):
    net, batches = grid
    rule = clocked.DFA(net)
    rule.feedback[0].matrix.fill_(1e308)
    with pytest.raises(InputError, match=r"layer 'linear1' by 'dfa' is not finite"):
        gradient_variance({"dfa": rule}, batches, steps=STEPS)


def test_figure_2_on_digits():
    """ZO at least 100 times BP in the hidden layers, OPZO with 1/alpha within a factor of 10."""
    torch.manual_seed(0)
    samples = data.load("digits")
    net = clocked.fc(64, (80, 80), 10)
    bp = clocked.SpatialBP(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(2):
        for x, y in cut(samples.train_images, samples.train_labels, 64):
            optimizer.zero_grad()
            bp.step(x, y, steps=6)
            optimizer.step()
    rules = {
        "bp": bp,
        "zo": clocked.ZO(net, noise_scale=0.2),
        "opzo": clocked.OPZO(net, noise_scale=0.2, momentum=0.98, divide_by_scale=True),
    }
    batches = list(cut(samples.train_images, samples.train_labels, 64))
    found = gradient_variance(rules, batches, steps=6, warmup=batches * 2)
    for layer in ("linear1", "linear2"):
        assert not found.rules["bp"][layer].vacuous
        assert found.ratio("zo", "bp", layer) > 100
        assert 0.1 < found.ratio("opzo", "bp", layer) < 10


def test_batches_of_several_sizes_are_refused():
    """The last batch of a loader is often smaller, and its gradient varies more."""
    net = clocked.fc(4, (5,), 3, threshold=0.3)
    batches = [(torch.rand(n, 4), torch.zeros(n, dtype=torch.int64)) for n in (8, 8, 1)]
    assert gradient_variance({"bp": clocked.SpatialBP(net)}, batches[:2], steps=STEPS).rules
    with pytest.raises(InputError, match=r"batch 3 has 1 samples and those before it 8; .*cut"):
        gradient_variance({"bp": clocked.SpatialBP(net)}, batches, steps=STEPS)
    assert all(p.grad is None for p in net.parameters())
