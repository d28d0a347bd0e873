"""Errors of the rules, grades, and what SFDFA learns of the output weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import events as slow
from reference.events_cases import (
    BATCH,
    TAU_S,
    assert_alive,
    assert_near,
    gradients,
    make_inputs,
    make_labels,
    make_network,
    rule_of,
    set_weights,
    trains,
    weights,
)
from torch import Tensor

from threefactor import events
from threefactor.clocked.losses import from_autograd

DEPTHS = {"one hidden": (6, 5, 3), "two hidden": (6, 5, 4, 3), "three hidden": (6, 5, 4, 4, 3)}
every_depth = pytest.mark.parametrize("sizes", DEPTHS.values(), ids=DEPTHS)


def trial_of(net: events.Network, inputs: events.SpikeBatch, labels: Tensor) -> events.Trial:
    with torch.no_grad():
        return events.Trial(net, inputs, labels, events.SpikeCount())


def draw(trial: events.Trial, seed: int) -> list[Tensor]:
    """The perturbations that SFDFA draws, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for counts in trial.counts[:-1]:  # one number for each neuron and sample that fired, in order
        p = torch.zeros_like(counts)
        for b, i in (counts > 0).nonzero().tolist():
            p[b, i] = 1.0
        values = torch.randn(int(p.sum()), dtype=counts.dtype, generator=generator)
        p[p > 0] = values
        drawn.append(p)
    return drawn


def slow_totals(
    net: events.Network, inputs: events.SpikeBatch, trial: events.Trial, drawn: list[Tensor]
) -> np.ndarray:
    """G, (B, m), by the reference."""
    layers = [trains(activity.spikes) for activity in trial.activities]
    rows = []
    for b, train in enumerate(trains(inputs)):
        own = [layer[b] for layer in layers]
        rows.append(slow.output_grades(train, weights(net), own, [p[b].numpy() for p in drawn]))
    return np.array(rows)


def updates(
    net: events.Network, inputs: events.SpikeBatch, trial: events.Trial, seed: int,
    feedback: list[np.ndarray],
) -> list[np.ndarray]:  # fmt: skip
    """mean( B_io - p_i G_o ) of every hidden layer, by the reference; (n_l, m) each."""
    drawn = draw(trial, seed)
    totals = list(slow_totals(net, inputs, trial, drawn))
    return [
        slow.feedback_gradient(b, list(p.numpy()), totals, list(c.numpy() > 0))
        for b, p, c in zip(feedback, drawn, trial.counts, strict=False)
    ]


# Grades


@every_depth
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5)],
    ids=["double", "single"],
)
def test_grades(sizes: tuple[int, ...], seed: int, dtype: torch.dtype, tolerance: float) -> None:
    """Every output neuron's grades, against the line-by-line account."""
    net, inputs = make_network(sizes, seed=seed, dtype=dtype), make_inputs(seed=seed + 10)
    trial = trial_of(net, inputs, make_labels())
    assert all(c.sum() > 0 for c in trial.counts)
    drawn = draw(trial, seed)
    totals = events.SFDFA(net).output_grades(trial, drawn)
    assert totals.dtype == dtype and totals.shape == (BATCH, 3)
    assert_near(totals.numpy(), slow_totals(net, inputs, trial, drawn), tolerance)


def test_grades_by_hand() -> None:
    """Two hidden neurons, one output: what leaves with its spikes, and what stays behind."""
    net = make_network((2, 2, 1), threshold=0.2 * 2 * TAU_S, duration=1.0)
    set_weights(net, [[[1.0, 0.0], [0.0, 1.0]], [[0.6], [0.7]]])
    inputs = events.SpikeBatch.from_lists([[0.0, 0.01], [0.0], []], [[0, 1], [0], []], 2)
    trial = trial_of(net, inputs, torch.zeros(3, dtype=torch.int64))
    hidden, output = (a.spikes for a in trial.activities)
    assert hidden.counts().tolist() == [[1, 1], [1, 0], [0, 0]]
    assert output.counts().tolist() == [[2], [0], [0]]  # the second spike carries nothing
    p = torch.tensor([[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]], dtype=torch.float64)
    total = events.SFDFA(net).output_grades(trial, [p])
    assert total.flatten().tolist() == pytest.approx([0.6 * 2 + 0.7 * 3, 0.0, 0.0])


# Learned feedback


def kept(name: str, feedback: np.ndarray, lr: float) -> Callable[[np.ndarray], np.ndarray]:
    """Plain descent, or Adam with its usual constants, once more."""
    state = {"b": feedback.copy(), "m": 0.0, "v": 0.0, "t": 0}

    def update(gradient: np.ndarray) -> np.ndarray:
        state["t"] += 1
        if name == "sgd":
            state["b"] = state["b"] - lr * gradient
        else:
            state["m"] = 0.9 * state["m"] + 0.1 * gradient
            state["v"] = 0.999 * state["v"] + 0.001 * gradient**2
            m, v = state["m"] / (1 - 0.9 ** state["t"]), state["v"] / (1 - 0.999 ** state["t"])
            state["b"] = state["b"] - lr * m / (np.sqrt(v) + 1e-8)
        return state["b"]

    return update


@every_depth
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_feedback_follows_the_reference(sizes: tuple[int, ...], name: str) -> None:
    """Several steps on changing batches; the errors of a batch use B as it was before."""
    net, lr = make_network(sizes, seed=3), 0.1
    rule = rule_of(
        "sfdfa", net, feedback_lr=lr, feedback_optimizer=name, generator=torch.Generator()
    )
    feedback = [b.matrix.numpy().T.copy() for b in rule.feedback]
    optimizers = [kept(name, b, lr) for b in feedback]
    labels = make_labels()
    for step in range(4):
        inputs = make_inputs(seed=20 + step)
        trial = trial_of(net, inputs, labels)
        errors = [trial.error.numpy() @ b.T for b in feedback]
        for expected, error in zip(errors, rule.layer_errors(trial), strict=True):
            np.testing.assert_allclose(error.numpy(), expected, rtol=1e-9, atol=1e-9)
        rule.generator.manual_seed(step)
        result = rule.step(inputs, labels)
        assert all(len(s.times) > 0 for s in result.spikes.values())
        gradients = updates(net, inputs, trial, step, feedback)
        feedback = [f(g) for f, g in zip(optimizers, gradients, strict=True)]
        for b, expected in zip(rule.feedback, feedback, strict=True):
            assert_near(b.matrix.numpy().T, expected, 1e-9)


def test_default_is_plain_descent_from_zero() -> None:
    net = make_network(seed=3)
    rule = events.SFDFA(net)
    assert isinstance(rule.optimizer, torch.optim.SGD)
    assert rule.optimizer.param_groups[0]["lr"] == 1e-4
    assert all(b.matrix.abs().max() == 0 for b in rule.feedback)
    rule.step(make_inputs(seed=13), make_labels())
    assert all(b.matrix.abs().max() > 0 for b in rule.feedback)
    assert isinstance(events.SFDFA(net, feedback_optimizer="adam").optimizer, torch.optim.Adam)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_silent_neurons(name: str) -> None:
    """Neurons that never fire keep their feedback; samples without a spike do not count."""
    net, labels = make_network(seed=3), make_labels(6)
    with torch.no_grad():
        net.lif1.weight[:, 1] = -1.0
        net.lif1.weight[:, 2] = 0.0
        net.lif1.weight[3, 2] = 3.0  # fires only where input 3 does
    inputs = make_inputs(6, per_address=0.8, seed=7)
    rule = rule_of("sfdfa", net, feedback_optimizer=name, feedback_lr=0.5)
    before = [b.matrix.numpy().T.copy() for b in rule.feedback]
    trial = trial_of(net, inputs, labels)
    fired = (trial.counts[0] > 0).sum(0).tolist()
    assert fired[1] == 0 and 0 < fired[2] < 6 and trial.output.sum() > 0
    rule.generator = torch.Generator().manual_seed(1)
    rule.step(inputs, labels)
    (change,) = updates(net, inputs, trial, 1, before)
    after = rule.feedback[0].matrix.numpy().T
    assert np.array_equal(after[1], before[0][1])
    if name == "sgd":
        assert_near(after - before[0], -0.5 * change, 1e-9)
    assert np.all((after != before[0]) == (np.array(fired) > 0)[:, None])


def answering_network(hidden: int = 6, outputs: int = 4) -> tuple[Any, events.SpikeBatch]:
    """Inputs that go on, so that every output neuron spikes after each hidden neuron's first."""
    net = make_network(
        (4, hidden, outputs), threshold=[0.012, 0.02], shift=0.9, gain=0.8, seed=6, max_spikes=500
    )  # fmt: skip
    with torch.no_grad():
        net.readout.weight.sub_(0.45)
    rng = np.random.default_rng(1)
    times = [np.sort(rng.uniform(0, 0.11, 60)) for _ in range(3)]
    inputs = events.SpikeBatch.from_lists(times, [rng.integers(4, size=60) for _ in range(3)], 4)
    for activity in [net.run(inputs)]:
        first = [
            [min(t for t, j in train if j == i) for i in range(hidden)]
            for train in trains(activity[0].spikes)
        ]
        last = [
            [max(t for t, j in train if j == o) for o in range(outputs)]
            for train in trains(activity[1].spikes)
        ]
        assert all(max(f) < min(x) for f, x in zip(first, last, strict=True))
    assert (net.readout.weight < 0).any() and (net.readout.weight > 0).any()
    return net, inputs


def test_grades_estimate_the_output_weights() -> None:
    """E[p_i G_o] = w_io (equation 9): the mean of 6,000 draws lies within 5 standard errors."""
    net, inputs = answering_network()
    trial = trial_of(net, inputs[[0, 1, 2] * 2000], torch.zeros(6000, dtype=torch.int64))
    drawn = draw(trial, seed=9)
    totals = events.SFDFA(net).output_grades(trial, drawn)
    products = drawn[0][:, :, None] * totals[:, None, :]
    mean, error = products.mean(0), products.std(0) / len(products) ** 0.5
    w = net.readout.weight.detach()
    assert error.max() < 0.15 * w.abs().max()
    assert ((mean - w).abs() < 5 * error).all()
    assert torch.corrcoef(torch.stack([mean.flatten(), w.flatten()]))[0, 1] > 0.98


def learn_again(rule: events.SFDFA, trial: events.Trial) -> None:
    """What `step` does after its forward pass, which never changes here."""
    with torch.no_grad():
        rule.learn(trial)


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.05), ("adam", 0.01)])
def test_feedback_converges_to_the_output_weights(name: str, lr: float) -> None:
    net, inputs = answering_network()
    rule = events.SFDFA(
        net, feedback_lr=lr, feedback_optimizer=name, generator=torch.Generator().manual_seed(2)
    )
    batch, labels = inputs[[0, 1, 2] * 50], torch.zeros(150, dtype=torch.int64)
    trial = trial_of(net, batch, labels)
    for _ in range(150):
        learn_again(rule, trial)
    w = net.readout.weight.detach().T.flatten()
    assert torch.cosine_similarity(rule.feedback[0].matrix.flatten(), w, dim=0) > 0.97
    assert 0.85 < rule.feedback[0].matrix.norm() / w.norm() < 1.15


def test_feedback_may_be_updated_before_the_errors() -> None:
    """The gradient is that of the feedback after its update, which itself is the same."""
    batch, labels = [0, 1, 2], torch.zeros(3, dtype=torch.int64)
    found, learned = [], []
    for first in (False, True):
        net, inputs = answering_network()
        rule = rule_of(
            "sfdfa", net, feedback_lr=0.5, feedback_first=first,
            generator=torch.Generator().manual_seed(2),
        )  # fmt: skip
        rule.step(inputs[batch], labels)
        found.append(gradients(net)[0])
        learned.append(rule.feedback[0].matrix.clone())
    assert torch.equal(*learned)
    net, inputs = answering_network()
    after = rule_of("sfdfa", net, feedback_lr=0.0)
    after.feedback[0].matrix.copy_(learned[0])
    after.step(inputs[batch], labels)
    assert_near(found[1], gradients(net)[0], 1e-12)
    assert not np.allclose(found[0], found[1], rtol=0.05)


def test_feedback_rate_changes_once() -> None:
    """From the given progress on the feedback learns with the other rate, and before not."""
    net, inputs = answering_network()
    rule = events.SFDFA(net, feedback_lr=0.0, feedback_lr_change=(1 / 3, 0.5))
    batch, labels = inputs[[0, 1, 2]], torch.zeros(3, dtype=torch.int64)
    for progress, learns in ((9 / 29, False), (10 / 29, True), (1.0, True), (0.0, False)):
        rule.feedback[0].matrix.zero_()
        rule.set_progress(progress)
        rule.step(batch, labels)
        assert bool(rule.feedback[0].matrix.any()) == learns


def test_no_hidden_layer() -> None:
    """With nothing to feed back to, all feedback rules give the output the same gradient."""
    found = []
    for name in ("dfa", "sfdfa", "exact-bp"):
        net = make_network((6, 3), seed=2)
        rule = rule_of(name, net, local_gradient="exact")
        result = rule.step(make_inputs(), make_labels())
        assert result.firing_rates == {}
        found.append(net.readout.weight.grad)
    assert found[0].abs().max() > 0
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


# Errors


@every_depth
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_dfa_errors(sizes: tuple[int, ...], scale: float) -> None:
    """B is uniform in [-scale, scale], fixed; error_i = sum_o B_io e_o, of the mean loss."""
    net, inputs, labels = make_network(sizes, seed=3), make_inputs(seed=13), make_labels()
    rule = rule_of("dfa", net, feedback_scale=scale)
    feedback = [b.matrix.numpy().T.copy() for b in rule.feedback]
    assert [b.shape for b in feedback] == [(n, 3) for n in sizes[1:-1]]
    values = np.concatenate([b.ravel() for b in feedback])
    assert np.abs(values).max() <= scale and values.min() < 0 < values.max()
    assert 0.5 * scale < np.abs(values).max()
    trial = trial_of(net, inputs, labels)
    for b, matrix in enumerate(rule.layer_errors(trial)):
        for sample, row in enumerate(matrix.numpy()):
            _, e = slow.count_loss(trial.output[sample].numpy(), int(labels[sample]), 15.0, 3.0)
            np.testing.assert_allclose(row, feedback[b] @ e / BATCH, rtol=1e-12, atol=1e-12)
    for _ in range(3):
        rule.step(inputs, labels)
    assert all(
        np.array_equal(b.matrix.numpy().T, a) for a, b in zip(feedback, rule.feedback, strict=True)
    )


def test_dfa_feedback_is_uniform() -> None:
    net = make_network((2, 400, 50), dtype=torch.float32)
    torch.manual_seed(0)
    b = events.DFA(net).feedback[0].matrix
    assert b.shape == (50, 400) and b.dtype == torch.float32
    assert abs(float(b.mean())) < 5 * 3**-0.5 / 20_000**0.5
    assert float(b.var()) == pytest.approx(1 / 3, rel=0.03)
    torch.manual_seed(0)
    assert torch.equal(events.DFA(net).feedback[0].matrix, b)


@every_depth
@pytest.mark.parametrize("name", events.RULES)
def test_rate_errors(sizes: tuple[int, ...], name: str) -> None:
    """reg * (rate_target - mean count), the same for all samples, shared among them."""
    net, inputs, labels = make_network(sizes, seed=3), make_inputs(seed=13), make_labels()
    rule = rule_of(name, net, rate_penalty=0.3, rate_target=4.0)
    trial = trial_of(net, inputs, labels)
    for i, counts in enumerate(trial.counts[:-1]):
        expected = slow.rate_errors(list(counts.numpy()), 0.3, 4.0) / BATCH
        assert np.abs(expected).max() > 0 > expected.min() or expected.max() > 0
        np.testing.assert_allclose(rule.rate_error(trial, i).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["dfa", "sfdfa", "exact-bp"])
@pytest.mark.parametrize(("target", "sign"), [(50.0, 1), (0.0, -1)])
def test_rate_regularisation_moves_the_rate(name: str, target: float, sign: int) -> None:
    """Descending the gradient of the penalty alone draws hidden counts towards the target."""
    net, inputs, labels = make_network(seed=3), make_inputs(seed=13), make_labels()
    rule = rule_of(
        name, net, rate_penalty=1.0, rate_target=target,
        loss=lambda counts, _: (torch.zeros(len(counts)).to(counts), torch.zeros_like(counts)),
    )  # fmt: skip
    rates = []
    for _ in range(20):
        net.zero_grad()
        rates.append(float(rule.step(inputs, labels).firing_rates["lif1"]))
        with torch.no_grad():
            net.lif1.weight -= net.lif1.weight.grad
    assert sign * (rates[-1] - rates[0]) > 0.5, rates


# The loss


@settings(derandomize=True, deadline=None, database=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(0, 2),
    st.floats(0, 30),
    st.floats(0, 30),
)
def test_spike_count_loss(rows: list[list[int]], label: int, true: float, false: float) -> None:
    """Against the formula, and its gradient against autograd."""
    counts = torch.tensor(rows, dtype=torch.float64)
    labels = torch.full((len(rows),), label)
    losses, gradient = events.SpikeCount(true, false)(counts, labels)
    for b, row in enumerate(rows):
        loss, e = slow.count_loss(np.array(row, dtype=float), label, true, false)
        assert float(losses[b]) == pytest.approx(loss)
        np.testing.assert_allclose(gradient[b].numpy(), -e)

    def formula(n: Tensor, y: Tensor) -> Tensor:
        target = torch.full_like(n, false).scatter(1, y[:, None], true)
        return 0.5 * (target - n).square().sum(1)

    again, automatic = from_autograd(formula)(counts, labels)
    torch.testing.assert_close(losses, again)
    torch.testing.assert_close(gradient, automatic)


@pytest.mark.parametrize("name", events.RULES)
def test_loss_from_autograd(name: str) -> None:
    """A differentiable function serves as the loss of any rule."""
    inputs, labels = make_inputs(seed=13), make_labels()

    def formula(n: Tensor, y: Tensor) -> Tensor:
        target = torch.full_like(n, 3.0).scatter(1, y[:, None], 15.0)
        return 0.5 * (target - n).square().sum(1)

    found, losses = [], []
    for loss in (None, from_autograd(formula)):
        net = make_network(seed=3)
        result = rule_of(name, net, loss=loss).step(inputs, labels)
        assert_alive(result)
        found.append([w.grad for w in net.parameters()])
        losses.append(float(result.loss))
    assert losses[0] == pytest.approx(losses[1])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_loss_of_a_run() -> None:
    net, inputs, labels = make_network(seed=3), make_inputs(seed=13), make_labels()
    result = events.run(net, inputs, targets=labels, loss=events.SpikeCount(10, 2))
    rows = result.output.numpy()
    expected = [slow.count_loss(r, int(y), 10.0, 2.0)[0] for r, y in zip(rows, labels, strict=True)]
    assert float(result.loss) == pytest.approx(np.mean(expected))
    assert events.run(net, inputs).loss is None
    default = events.run(net, inputs, targets=labels)
    assert float(default.loss) == float(events.ExactBP(net).step(inputs, labels).loss)
