"""The noise itself: distribution, scale, antithetic pairs, independence, reproducibility."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.clocked_cases import STEPS, build, learned, make_data, make_network
from torch import Tensor

from threefactor import clocked
from threefactor.clocked.noise import DISTRIBUTIONS
from threefactor.errors import InputError

every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)


def draws(distribution: str, shape: tuple[int, ...], scale: float = 0.3) -> Tensor:
    noise = clocked.Perturbation(scale, distribution, generator=torch.Generator().manual_seed(0))
    return noise.draw(None, torch.empty(shape, dtype=torch.float64), 0)


def recorded(rule: clocked.Rule, x: Tensor, y: Tensor) -> list[list[Tensor]]:
    """The noise of every layer at every step of one training step."""
    probes, seen = rule._session.probes, []
    rule.step(x, y, after_step=lambda: seen.append([p.noise.clone() for p in probes]))
    return seen


@every_distribution
def test_mean_and_covariance(distribution: str) -> None:
    """Mean 0 and, from neuron to neuron and within each, the covariance scale^2 times 1."""
    count, scale = 200_000, 0.3
    z = draws(distribution, (count, 6), scale) / scale
    assert float(z.mean(0).abs().max()) < 5 / count**0.5
    covariance = z.t() @ z / count
    # A product of two unit variances has a standard deviation of at most sqrt(2).
    assert float((covariance - torch.eye(6)).abs().max()) < 5 * (2 / count) ** 0.5


def test_gaussian_has_normal_tails() -> None:
    z = draws("gaussian", (200_000, 5), 1.0).flatten()
    assert float((z**4).mean()) == pytest.approx(3.0, abs=0.05)
    assert float((z.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.003)


def test_rademacher_has_two_values() -> None:
    z = draws("rademacher", (1000, 5), 0.3)
    assert sorted(z.unique().tolist()) == pytest.approx([-0.3, 0.3])


@pytest.mark.parametrize("shape", [(50, 6), (50, 3, 4, 4), (50, 1)])
def test_sphere_has_one_radius_per_sample(shape: tuple[int, ...]) -> None:
    z = draws("sphere", shape, 0.3)
    radius = 0.3 * z[0].numel() ** 0.5
    norms = z.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, radius), rtol=1e-12, atol=0)


@pytest.mark.parametrize("points", ["one-point", "two-point"])
@pytest.mark.parametrize("position", ["after", "before"])
@every_distribution
def test_odd_steps_negate_the_step_before(distribution: str, position: str, points: str) -> None:
    options: dict[str, Any] = {"noise_distribution": distribution, "noise_position": position}
    x, y = make_data(7)
    for rule in (
        clocked.ZO(make_network(), points=points, **options),
        clocked.OPZO(make_network(), points=points, **options),
    ):
        seen = recorded(rule, x, y)
        for t in range(0, 6, 2):
            for a, b in zip(seen[t], seen[t + 1], strict=True):
                assert torch.equal(a, -b) and a.abs().max() > 0
        for t in (2, 4, 6):  # a new pair is a new draw
            assert not any(torch.equal(seen[t][0], sign * seen[t - 1][0]) for sign in (1, -1))


@pytest.mark.parametrize("case", ["zo-independent", "opzo-independent"])
def test_without_antithetic_pairs_every_step_is_new(case: str) -> None:
    _, rule = build(case)
    seen = [z.flatten() for step in recorded(rule, *make_data(6)) for z in step]
    assert len(seen) == 12
    for i, a in enumerate(seen):
        assert all(not torch.isin(a.abs(), b.abs()).any() for b in seen[i + 1 :])


def test_layers_and_steps_are_independent() -> None:
    """Correlations between layers, and between steps of different pairs, vanish."""
    x, y = make_data(4, batch=20_000)
    _, rule = build("opzo", (2, 2))
    seen = recorded(rule, x, y)
    z = torch.cat([seen[0][0], seen[0][1], seen[2][0], seen[2][1]], 1) / rule.perturbation.scale
    covariance = z.t() @ z / len(z)
    assert float((covariance - torch.eye(8)).abs().max()) < 5 * (2 / len(z)) ** 0.5


@pytest.mark.parametrize("case", ["zo-one-point", "opzo", "opzo-sphere", "opzo-rademacher"])
def test_a_generator_makes_it_reproducible(case: str) -> None:
    results = []
    for seed in (1, 1, 2):
        _, rule = build(case)
        rule.perturbation.generator.manual_seed(seed)
        torch.manual_seed(len(results))  # the global generator has no say
        rule.step(*make_data())
        results.append(learned(rule))
    assert all(torch.equal(v, results[1][k]) for k, v in results[0].items())
    assert not torch.equal(
        results[0]["network.linear1.weight"], results[2]["network.linear1.weight"]
    )


def test_global_seed_is_the_default_source() -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        rule = clocked.OPZO(make_network())
        torch.manual_seed(seed)
        rule.step(*make_data())
        results.append(rule.feedback[0].matrix.clone())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_noise_scale_follows_progress() -> None:
    rule = clocked.OPZO(make_network(), generator=torch.Generator().manual_seed(0))
    scales = []
    for progress in (0.0, 0.5, 1.0):
        rule.set_progress(progress)
        scales.append(rule.perturbation.scale)
        noise = recorded(rule, *make_data(STEPS, batch=2000))[0][0]
        assert float(noise.std()) == pytest.approx(scales[-1], rel=0.05)
    assert scales == pytest.approx([0.2, 0.105, 0.01])


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_out_of_range(progress: float) -> None:
    with pytest.raises(InputError, match=r"progress is .*between 0 and 1"):
        clocked.DFA(make_network()).set_progress(progress)


def test_schedule_that_falls_to_zero_is_refused_in_time() -> None:
    for make in (clocked.ZO, clocked.OPZO):  # when it is made, and not in the last epoch
        with pytest.raises(InputError, match=r"noise scale is 0.0 at training progress 1"):
            make(make_network(), noise_scale=clocked.LinearSchedule(0.1, 0.0))
    rule = clocked.ZO(make_network(), noise_scale=lambda progress: 0.1 * abs(progress - 0.5))
    with pytest.raises(InputError, match=r"noise scale is 0.0 at training progress 0.5"):
        rule.set_progress(0.5)
    assert rule.perturbation.scale == 0.05
