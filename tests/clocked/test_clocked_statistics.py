"""Lemmas 3.1, 3.2 and 4.1: on a smooth network the estimators have the right mean.

Every estimate is made in many independent batches. Their mean must lie within five standard
errors of the truth, and the truth so many standard errors from 0 and from its negative that a
wrong sign, a wrong layer or a wrong factor could not pass.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from threefactor import clocked

BATCHES, TRIALS = 24, 10_000
SAMPLES = 2
DISTRIBUTIONS = ["gaussian", "rademacher", "sphere"]
POSITIONS = ["after", "before"]


class Tanh(clocked.Neuron):
    """A smooth activation without memory."""

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        self.state = (current.clone() if noise is None else current + noise,)
        return self.state[0].tanh()

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        return error * gate * (1 - state[0].tanh() ** 2)


class Smooth(torch.nn.Module):
    input_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tanh1 = clocked.Linear(3, 4), Tanh()
        self.second, self.tanh2 = clocked.Linear(4, 4, bias=False), Tanh(scale=1.5)
        self.readout = clocked.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.tanh1(self.first(x))
        return self.readout(self.tanh2(self.second(a)))


def make_network() -> Smooth:
    torch.manual_seed(0)
    network = Smooth().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 3, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1])


def estimates(rule: clocked.Rule, names: list[str]) -> Tensor:
    """The learned quantities of each batch as rows, (BATCHES, numbers)."""
    x, y = samples()
    x, y = x.repeat(TRIALS // SAMPLES, 1), y.repeat(TRIALS // SAMPLES)
    rows = []
    for _ in range(BATCHES):
        rule.network.zero_grad()
        rule.step(x, y, steps=1)
        rows.append(torch.cat([part(rule, n).flatten() for n in names]).clone())
    return torch.stack(rows)


def part(rule: clocked.Rule, name: str) -> Tensor:
    if name.startswith("feedback"):
        return rule.get_buffer(name)
    grad = rule.network.get_parameter(name).grad
    assert grad is not None
    return grad


def distance(rows: Tensor, truth: Tensor) -> float:
    """Largest deviation of the rows' mean from the truth, in standard errors."""
    error = rows.std(0) / len(rows) ** 0.5
    return float(((rows.mean(0) - truth).abs() / error).max())


def assert_unbiased(rows: Tensor, truth: Tensor) -> None:
    error = rows.std(0) / len(rows) ** 0.5
    assert distance(rows, truth) < 5
    # The test can fail: the estimate is known far better than its size, and a wrong sign,
    # a wrong factor or the values of other units lie far off.
    assert float(truth.norm() / error.norm()) > 5
    for wrong in (-truth, 0 * truth, truth / 2, truth.roll(1)):
        assert distance(rows, wrong) > 5


WEIGHTS = ["first.weight", "first.bias", "second.weight"]


def true_gradient() -> Tensor:
    network = make_network()
    x, y = samples()
    clocked.SpatialBP(network).step(x, y, steps=1)
    by_rule = torch.cat([network.get_parameter(n).grad.flatten() for n in WEIGHTS])
    network.zero_grad()
    output, onehot = network(x), F.one_hot(y, 2).double()
    (0.95 * F.cross_entropy(output, y) + 0.05 * F.mse_loss(output, onehot)).backward()
    plain = torch.cat([network.get_parameter(n).grad.flatten() for n in WEIGHTS])
    torch.testing.assert_close(by_rule, plain)
    return plain


def zo(points: str, alpha: float, **options: Any) -> clocked.ZO:
    generator = torch.Generator().manual_seed(7)
    return clocked.ZO(
        make_network(), points=points, noise_scale=alpha, generator=generator, **options
    )


# One-point estimates have a variance of 1/alpha^2, so alpha must not be too small for them.
ZO_ALPHA = {"one-point": 0.1, "one-sided": 1e-3, "two-point": 1e-3}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("points", ZO_ALPHA)
def test_zeroth_order_gradient(points: str, distribution: str) -> None:
    """Lemmas 3.1 and 3.2."""
    rule = zo(points, ZO_ALPHA[points], noise_distribution=distribution)
    assert_unbiased(estimates(rule, WEIGHTS), true_gradient())


def test_noise_of_another_layer_is_noticed() -> None:
    """Negative control: layers that swap their errors are far from the gradient."""

    class Swapped(clocked.ZO):
        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            return list(super().layer_errors(step))[::-1]

    generator = torch.Generator().manual_seed(7)
    rule = Swapped(make_network(), points="two-point", noise_scale=1e-3, generator=generator)
    assert distance(estimates(rule, WEIGHTS), true_gradient()) > 50


def true_jacobians(position: str) -> Tensor:
    """Transposed mean Jacobian of the output by each layer's activity or current, (m, n) each."""
    network = make_network()
    x, _ = samples()
    w2, w3 = network.second.weight.detach(), network.readout
    readout = {k: v.detach() for k, v in w3.named_parameters()}
    after_2 = lambda a2: functional_call(w3, readout, (a2,))  # noqa: E731
    before_2 = lambda u2: after_2(1.5 * u2.tanh())  # noqa: E731
    after_1 = lambda a1: before_2(a1 @ w2.t())  # noqa: E731
    before_1 = lambda u1: after_1(u1.tanh())  # noqa: E731
    u1 = network.first(x).detach()
    u2 = u1.tanh() @ w2.t()
    if position == "after":
        pairs = [(after_1, u1.tanh()), (after_2, 1.5 * u2.tanh())]
    else:
        pairs = [(before_1, u1), (before_2, u2)]
    means = [torch.stack([jacrev(f)(row) for row in at]).mean(0) for f, at in pairs]
    return torch.cat([mean.flatten() for mean in means])


def opzo(points: str, **options: Any) -> clocked.OPZO:
    return clocked.OPZO(
        make_network(),
        points=points,
        noise_scale={"one-point": 0.05, "two-point": 1e-3}[points],
        momentum=0.0,
        divide_by_scale=True,
        generator=torch.Generator().manual_seed(7),
        **options,
    )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("points", ["one-point", "two-point"])
def test_momentum_feedback_is_the_mean_jacobian(
    points: str, position: str, distribution: str
) -> None:
    """Lemma 4.1; noise before the neuron gives the Jacobian by the current, psi included."""
    rule = opzo(points, noise_distribution=distribution, noise_position=position)
    rows = estimates(rule, ["feedback.0.matrix", "feedback.1.matrix"])
    assert_unbiased(rows, true_jacobians(position))
    other = POSITIONS[1 - POSITIONS.index(position)]
    assert distance(rows, true_jacobians(other)) > 5


def test_momentum_averages_over_steps() -> None:
    """With momentum M approaches the same Jacobian, weighted (1 - mu) mu^k."""
    rule = opzo("two-point")
    rule.momentum = 0.9
    estimates(rule, ["feedback.0.matrix"])  # 24 updates from M = 0
    gathered = torch.cat([connection.matrix.flatten() for connection in rule.feedback])
    truth = true_jacobians("after") * (1 - 0.9**BATCHES)
    torch.testing.assert_close(gathered, truth, rtol=0.05, atol=0.02)
