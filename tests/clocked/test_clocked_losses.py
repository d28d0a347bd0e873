"""The losses of one step against PyTorch's own and against autograd."""

from __future__ import annotations

import pytest
import torch
from reference.clocked_cases import assert_same, build, learned, make_data, make_rule
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked
from threefactor.clocked import CrossEntropyMSE, from_autograd
from threefactor.errors import InputError

WEIGHTS = [0.0, 0.001, 0.05, 0.5, 1.0]


def data(batch: int = 5, outputs: int = 4, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    o = spread * torch.randn(batch, outputs, generator=generator, dtype=torch.float64)
    return o, torch.randint(outputs, (batch,), generator=generator)


def expected(o: Tensor, y: Tensor, c: float) -> Tensor:
    onehot = F.one_hot(y, o.shape[1]).to(o)
    mse = F.mse_loss(o, onehot, reduction="none").mean(1)
    return (1 - c) * F.cross_entropy(o, y, reduction="none") + c * mse


@pytest.mark.parametrize("outputs", [1, 2, 4, 11])
@pytest.mark.parametrize("c", WEIGHTS)
def test_values_and_errors(c: float, outputs: int) -> None:
    o, y = data(outputs=outputs)
    leaf = o.clone().requires_grad_()
    values = expected(leaf, y, c)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    losses, error = CrossEntropyMSE(c)(o, y)
    assert losses.shape == (5,) and error.shape == o.shape
    assert outputs == 1 or gradient.abs().max() > 0.1
    torch.testing.assert_close(losses, values.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(error, gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("c", WEIGHTS)
def test_from_autograd_gives_the_same(c: float) -> None:
    o, y = data()
    by_hand, by_autograd = (
        loss(o, y) for loss in (CrossEntropyMSE(c), from_autograd(lambda o, y: expected(o, y, c)))
    )
    assert by_hand[1].abs().max() > 0.1
    for a, b in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert not b.requires_grad


def test_default_share_of_the_squared_error() -> None:
    o, y = data()
    torch.testing.assert_close(CrossEntropyMSE()(o, y)[0], expected(o, y, 0.05))


def test_arguments_stay_as_they_were() -> None:
    o, y = data()
    before = o.clone(), y.clone()
    for loss in (CrossEntropyMSE(), from_autograd(lambda o, y: expected(o, y, 0.05))):
        loss(o, y)
        assert torch.equal(o, before[0]) and torch.equal(y, before[1])


def test_far_outputs_stay_finite() -> None:
    o, y = data(spread=1e4)
    losses, error = CrossEntropyMSE()(o, y)
    assert losses.isfinite().all() and error.isfinite().all()
    torch.testing.assert_close(losses, expected(o, y, 0.05))


def test_from_autograd_works_under_no_grad() -> None:
    o, y = data()
    with torch.no_grad():
        losses, error = from_autograd(lambda o, y: expected(o, y, 0.5))(o, y)
    torch.testing.assert_close((losses, error), CrossEntropyMSE(0.5)(o, y))


@pytest.mark.parametrize("c", [-0.1, 1.1, float("nan")])
def test_share_out_of_range(c: float) -> None:
    with pytest.raises(InputError, match=r"mse_weight is .* between 0 and 1"):
        CrossEntropyMSE(c)


def test_from_autograd_refuses_a_mean_loss() -> None:
    loss = from_autograd(lambda o, y: F.cross_entropy(o, y))
    with pytest.raises(InputError, match=r"shape \(\); expected one value per sample, shape \(5,"):
        loss(*data())


class Tempered(nn.Module):
    """Cross entropy with a temperature that an optimiser might learn."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(output / self.temperature, targets, reduction="none")


def test_what_a_loss_depends_on_beside_the_output_does_not_learn_in_silence() -> None:
    network, y = clocked.fc(4, (5,), 3), torch.tensor([0, 2])
    x, module = torch.rand(2, 4), Tempered()
    rule = clocked.SpatialBP(network, loss=clocked.from_autograd(module))
    with pytest.raises(InputError, match=r"need a gradient: \['temperature'\].*requires_grad_"):
        rule.step(x, y, steps=2)
    module.requires_grad_(False)
    rule.step(x, y, steps=2)
    penalised = clocked.from_autograd(
        lambda o, y: F.cross_entropy(o, y, reduction="none") + network.readout.weight.norm()
    )
    with pytest.raises(InputError, match=r"one of shape \(3, 5\).*weight_decay"):
        clocked.SpatialBP(network, loss=penalised).step(x, y, steps=2)
    teacher = nn.Linear(4, 3)
    distilled = clocked.SpatialBP(network, loss=nn.MSELoss())
    with pytest.raises(InputError, match=r"targets\.detach"):
        distilled.step(x, teacher(x), steps=2)
    distilled.step(x, teacher(x).detach(), steps=2)


def test_a_loss_that_does_not_depend_on_the_output_is_refused() -> None:
    loss = clocked.from_autograd(lambda o, y: o.detach().sum(1))
    with pytest.raises(InputError, match="does not depend on the output"):
        loss(torch.rand(2, 3), torch.tensor([0, 1]))


def test_a_loss_may_write_to_what_it_is_given() -> None:
    loss = clocked.from_autograd(lambda o, y: F.cross_entropy(o.mul_(2), y, reduction="none"))
    plain = clocked.from_autograd(lambda o, y: F.cross_entropy(2 * o, y, reduction="none"))
    output, y = torch.rand(2, 3), torch.tensor([0, 1])
    before = output.clone()
    for found, wanted in zip(loss(output, y), plain(output, y), strict=True):
        assert torch.equal(found, wanted) and wanted.abs().max() > 0
    assert torch.equal(output, before)


@pytest.mark.parametrize("case", ["opzo", "opzo-two-point", "zo-one-sided", "dfa"])
def test_a_loss_of_a_pair_may_write_to_what_it_is_given(case: str) -> None:
    """OPZO reads the output after the loss, and so does the user."""

    def clamped(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return output.square().sum(1), 2 * output

    found = []
    for clamp in (Tensor.clamp_, Tensor.clamp):
        network, _ = build(case)
        options = {} if case == "zo-one-sided" else {"local_learning": "same-weights"}
        rule = make_rule(
            case, network, loss=lambda o, y, c=clamp: clamped(c(o, -0.5, 0.5), y), **options
        )
        result = rule.step(*make_data())
        assert result.output.abs().max() > 0.5 * result.steps
        found.append({**learned(rule), "output": result.output})
    assert_same(*found)


class TemperedPair(Tempered):
    """The same, with the error that a rule needs."""

    def forward(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = super().forward(output, targets)
        chance = (output / self.temperature).softmax(1)
        return losses, (chance - F.one_hot(targets, 3)) / self.temperature


def test_parameters_of_a_loss_with_its_own_error_do_not_learn_in_silence() -> None:
    network, y = clocked.fc(4, (5,), 3), torch.tensor([0, 2])
    x, module = torch.rand(2, 4), TemperedPair()
    message = r"need a gradient: \['temperature'\].*requires_grad_"
    for make in (clocked.SpatialBP, clocked.DFA):
        with pytest.raises(InputError, match=message):
            make(network, loss=module)
        with pytest.raises(InputError, match=r"one of shape \(\).*requires_grad_"):
            make(network, loss=lambda o, y: module(o, y)).step(x, y, steps=2)
    assert all(p.grad is None for p in network.parameters())
    module.requires_grad_(False)
    clocked.DFA(network, loss=module).step(x, y, steps=2)


def test_a_loss_may_take_its_error_from_autograd() -> None:
    """Its losses then come with a graph, of which nothing is kept."""

    def loss(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = output.detach().requires_grad_()
            losses = F.cross_entropy(leaf, targets, reduction="none")
            return losses, torch.autograd.grad(losses.sum(), leaf)[0]

    found = []
    for given in (loss, nn.CrossEntropyLoss()):
        network, _ = build("spatial-bp")
        rule = make_rule("spatial-bp", network, loss=given)
        result = rule.step(*make_data())
        assert not result.loss.requires_grad
        found.append({**learned(rule), "loss": result.loss})
    assert_same(*found)
