"""Local and intermediate global learning: signals against autograd, options, state, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference import clocked_conv as slow
from reference.clocked_cases import (
    CASES,
    LOCAL_CASES,
    PICTURE_NETWORKS,
    STEPS,
    assert_alive,
    assert_same,
    build_pictures,
    learned,
    make_pictures,
    make_rule,
    replay_noise,
)
from reference.clocked_local import Readouts
from torch import Tensor

from threefactor import clocked
from threefactor.errors import ConfigurationError, InputError

MIDDLE = {"conv": "lif2", "residual": "block2.lif1"}
RULES = ["dfa", "opzo", "opzo-before", "opzo-two-point-divided", "opzo-independent"]
every_option = pytest.mark.parametrize("local", LOCAL_CASES)


def build(case: str, kind: str, local: str) -> tuple[clocked.Network, Any, dict[str, Any]]:
    network, _ = build_pictures(case, kind)
    options = dict(LOCAL_CASES[local])
    if "intermediate" in options:
        options["intermediate"] = MIDDLE[kind]
    return network, make_rule(case, network, **options), options


def readouts(rule: clocked.LocalLearningRule) -> dict[int, Tensor]:
    """The weights of each layer's read-out, by the layer's number."""
    return {readout.layer: readout.weight for readout in rule.readouts}


def ways_back(rule: clocked.LocalLearningRule) -> dict[int, Tensor]:
    """The feedback of each layer's read-out, where it is not its weights."""
    found = {readout.layer: readout.feedback for readout in rule.readouts}
    return {i: matrix for i, matrix in found.items() if matrix is not None}


@every_option
@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize("kind", PICTURE_NETWORKS)
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
def test_signals_equal_autograd_on_a_detached_network(
    case: str, kind: str, local: str, static: bool
) -> None:
    network, rule, given = build(case, kind, local)
    twin = build(case, kind, local)[0]
    x, y = make_pictures()
    if static:
        x = x[:1].expand_as(x)
    name, options = CASES[case]
    sizes = list(rule.layer_sizes.values())
    middle = None
    if "intermediate" in given:
        middle = list(rule.layer_sizes).index(given["intermediate"])
        middle = (middle, [b.matrix.t().numpy().copy() for b in rule.intermediate])
    scale = given.get("local_scale", 0.01) if "local_learning" in given else 0.0
    extra = Readouts(name, readouts(rule), ways_back(rule), scale, middle, options)  # fmt: skip
    masks = {k: torch.tensor(1.7, dtype=torch.float64) for k in rule.layer_sizes}
    feedback = [b.matrix.t().numpy().copy() for b in rule.feedback]
    noise = replay_noise(sizes, STEPS, options) if "noise_scale" in options else None

    assert_alive(rule.step(x[0], y, steps=STEPS) if static else rule.step(x, y))
    copied, expected = slow.train(name, twin, x, y, masks, noise=noise, feedback=feedback,
                                  extra=extra, **options)  # fmt: skip

    assert_same(slow.gradients(copied), {k: p.grad for k, p in network.named_parameters()})
    grads = {str(i): a.grad for i, a in extra.readouts.items()}
    assert_same(grads, {str(i): a.grad for i, a in readouts(rule).items()})
    if given.get("local_learning") == "learned":
        back = {str(i): c.grad for i, c in ways_back(rule).items()}
        assert_same(grads, back)
    for j, b in enumerate(rule.intermediate):
        np.testing.assert_allclose(b.matrix.t(), extra.outcome.feedback[j], rtol=1e-9, atol=1e-12)
    for b, wanted in zip(rule.feedback, expected.feedback, strict=True):
        np.testing.assert_allclose(b.matrix.t(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["dfa", "opzo"])
def test_options_tell_themselves_apart(case: str) -> None:
    """The comparison above can fail: each option leaves other gradients in the first layer."""
    x, y = make_pictures()
    seen = {}
    for local in LOCAL_CASES:
        network, rule, _ = build(case, "conv", local)
        rule.step(x, y)
        seen[local] = network.conv1.weight.grad
    network, rule = build_pictures(case, "conv")
    rule.step(x, y)
    seen["none"] = network.conv1.weight.grad
    names = list(seen)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not torch.allclose(seen[a], seen[b], rtol=1e-4), (a, b)


def test_local_signal_stays_in_its_layer() -> None:
    """Without the rule's own signal each layer learns from its read-out alone."""
    network, rule, _ = build("dfa", "conv", "same-weights")
    for matrix in (*(b.matrix for b in rule.feedback), rule.readouts[1].weight.data):
        matrix.zero_()
    rule.step(*make_pictures())
    assert network.conv1.weight.grad.abs().max() > 0
    assert network.conv2.weight.grad.abs().max() == 0
    assert rule.readouts[1].weight.grad.abs().max() > 0  # learns from its own loss nevertheless


def test_middle_signal_reaches_the_layers_before_it_only() -> None:
    network, rule, _ = build("dfa", "residual", "middle")
    for connection in rule.feedback:
        connection.matrix.zero_()
    rule.step(*make_pictures())
    assert len(rule.intermediate) == 2
    assert list(readouts(rule)) == [2]
    reached = {k for k, p in network.named_parameters() if p.grad.abs().max() > 0}
    # Behind the middle layer only the read-out's own error is left; it sees the stream.
    assert "block1.conv1.weight" in reached and "stem.weight" in reached
    assert "block2.conv1.weight" not in reached
    assert "block1.conv2.weight" not in reached


def test_learned_feedback_comes_to_the_readout() -> None:
    """Equal gradients and weight decay: A and C converge, as Kolen and Pollack have it."""
    _, rule, _ = build("dfa", "conv", "learned")
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1, weight_decay=0.5)
    x, y = make_pictures()
    readout = rule.readouts[0]
    gap = lambda: (readout.weight - readout.feedback).norm().item()  # noqa: E731
    before = gap()
    for _ in range(20):
        optimizer.zero_grad()
        rule.step(x, y)
        optimizer.step()
    assert gap() == pytest.approx(before * 0.95**20, rel=1e-6)
    assert readout.weight.norm() > 0.1


def test_readouts_learn_their_own_loss() -> None:
    """Read-outs that are trained alone lower the loss of the layer they hang on."""
    _, rule, _ = build("dfa", "conv", "same-weights")
    x, y = make_pictures()
    optimizer = torch.optim.Adam(rule.parameters(), lr=0.01)
    losses: list[float] = []
    whole = rule.loss

    def listening(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        result = whole(output, targets)
        losses.append(float(result[0].mean()))
        return result

    rule.loss = listening
    for _ in range(30):
        optimizer.zero_grad()
        rule.step(x, y)
        optimizer.step()
    calls = 1 + 2  # the network's read-out, then one per layer
    first, last = losses[: calls * STEPS], losses[-calls * STEPS :]
    for i in (1, 2):
        assert np.mean(last[i::calls]) < 0.8 * np.mean(first[i::calls])
    assert np.mean(last[0::calls]) == pytest.approx(np.mean(first[0::calls]))


@every_option
def test_state_is_saved_and_loaded(local: str) -> None:
    network, rule, _ = build("opzo", "conv", local)
    x, y = make_pictures()
    rule.step(x, y)
    other = build_pictures("opzo", "conv", seed=3)[0]
    other.load_state_dict(network.state_dict())
    options = {**LOCAL_CASES[local]}
    if "intermediate" in options:
        options["intermediate"] = MIDDLE["conv"]
    copy = make_rule("opzo", other, seed=3, **options)
    copy.load_state_dict(rule.state_dict())
    rule.perturbation.generator.manual_seed(4)
    copy.perturbation.generator.manual_seed(4)
    grads = []
    for net, built in ((network, rule), (other, copy)):
        net.zero_grad()
        built.zero_grad()
        built.step(x, y)
        grads.append(learned(built))
    assert_same(*grads)


def test_stream_equals_sequence() -> None:
    x, y = make_pictures()
    grads = []
    for stream in (False, True):
        _, rule, _ = build("opzo", "conv", "middle-and-learned")
        if stream:
            for x_t in x:
                rule.observe(x_t, y, steps=len(x))
        else:
            rule.step(x, y)
        grads.append(learned(rule))
    assert_same(*grads)


def test_fully_connected_networks_have_it_too() -> None:
    network = clocked.fc(5, (6, 5, 4), 3)
    rule = clocked.OPZO(network, local_learning="fixed", intermediate="lif2", readout_scale=0.0)
    assert {k: tuple(v.shape) for k, v in rule.state_dict().items() if "feedback" not in k} == {
        "readouts.0.weight": (3, 6), "readouts.1.weight": (3, 5), "readouts.2.weight": (3, 4),
        "intermediate.0.matrix": (3, 6),
    }  # fmt: skip
    assert all(p.abs().max() == 0 for p in rule.parameters())
    rule.step(torch.rand(2, 5), torch.tensor([0, 2]), steps=3)


def test_nothing_is_added_without_the_options() -> None:
    for rule in (clocked.DFA, clocked.OPZO):
        built = rule(clocked.fc(5, (6,), 3))
        assert list(built.state_dict()) == ["feedback.0.matrix"] and not list(built.parameters())


@pytest.mark.parametrize("rule", [clocked.DFA, clocked.OPZO])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"local_learning": "same"}, ConfigurationError, "did you mean 'same-weights'"),
        ({"local_scale": 0.0}, InputError, "local_scale is 0.0"),
        ({"local_scale": float("nan")}, InputError, "local_scale is nan"),
        ({"readout_scale": -1.0}, InputError, "readout_scale is -1.0"),
        ({"intermediate": "lif9"}, ConfigurationError, "unknown hidden layer 'lif9'.*lif1, lif2"),
        ({"intermediate": "lif1"}, InputError, "no hidden layer comes before"),
    ],
)
def test_bad_options(rule: Any, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        rule(clocked.fc(5, (6, 5), 3), **options)
