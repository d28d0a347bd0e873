"""The compiled kernels against double precision, and their PyTorch stand-ins.

Every test runs with the kernels, if they were built, and with the PyTorch operations.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from threefactor import clocked
from threefactor.clocked import kernels
from threefactor.errors import DivergenceError

SIZES = [0, 1, 7, 8, 511, 512, 513, 1023, 40_000]
every_size = pytest.mark.parametrize("size", SIZES)
NAN, INF = float("nan"), float("inf")
LIBRARY = kernels._library
WAYS = ["torch"] if LIBRARY is None else ["compiled", "torch"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(kernels, "_library", None)
    return str(request.param)


def values(size: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(size, generator=generator)


def lif_state(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u = values(size, seed=1)
    return u, (u >= 1.0).float(), values(size, seed=2), values(size, 0.3, seed=3)


@every_size
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize(("leak", "threshold"), [(0.5, 1.0), (0.9, 0.7), (0.0, 1.0), (1.0, 2.0)])
def test_lif_step(
    way: str, size: int, noisy: bool, zero: bool, leak: float, threshold: float
) -> None:
    u, s, current, noise = lif_state(size)
    kept = u.double() * (1.0 - s.double()) if zero else u.double() - threshold * s.double()
    exact = leak * kept + current.double()
    if noisy:
        exact += noise.double()
    kernels.lif_step_(u, s, current, leak, threshold, noise if noisy else None, zero)
    torch.testing.assert_close(u.double(), exact, rtol=3e-7, atol=1e-6)
    assert torch.equal(s, (u >= threshold).float())


@every_size
@pytest.mark.parametrize("zero", [True, False])
def test_lif_spikes_do_not_depend_on_the_way(
    size: int, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = lif_state(size), lif_state(size)
    for step in range(20):
        current = values(size, seed=step)
        kernels.lif_step_(a[0], a[1], current, 0.5, 1.0, a[3], zero)
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "_library", None)
            kernels.lif_step_(b[0], b[1], current, 0.5, 1.0, b[3], zero)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_lif_keeps_what_is_not_finite(way: str) -> None:
    u = torch.zeros(16)
    s, current = torch.zeros(16), torch.zeros(16)
    current[3], current[5], current[9] = NAN, INF, -INF
    kernels.lif_step_(u, s, current, 0.5, 1.0)
    assert u[3].isnan() and u[5] == INF and u[9] == -INF
    assert s.nonzero().flatten().tolist() == [5]
    noise = torch.full((16,), NAN)
    kernels.lif_step_(u, s, torch.zeros(16), 0.5, 1.0, noise)
    assert u.isnan().all()


def test_a_reset_to_zero_forgets_what_is_infinite(way: str) -> None:
    u, s = torch.tensor([INF, NAN, 2.0, 0.5]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    kernels.lif_step_(u, s, torch.zeros(4), 0.5, 1.0, zero=True)
    assert u[[0, 2, 3]].tolist() == [0.0, 0.0, 0.25] and u[1].isnan()


@pytest.mark.skipif(LIBRARY is None, reason="no compiled kernels on this machine")
@pytest.mark.parametrize("size", [100, 40_000, 100_003])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_threads_change_no_bit(size: int, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(0)
        neuron = clocked.LIF(dropout=dropout)
        found: list[Tensor] = []
        for step in range(3):
            current = values(size, seed=step).view(1, size)
            activity, fired = neuron.respond(current, None, 0.2 * current)
            assert neuron.state is not None
            delta = neuron.delta(current, neuron.state, neuron.gate)
            found += [activity, torch.as_tensor(fired), delta, *neuron.kept_state()]
        return found

    alone = run()
    assert alone[1] > 0
    for threads in (2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for one, other in zip(alone, run(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.skipif(LIBRARY is None, reason="no compiled kernels on this machine")
@pytest.mark.parametrize("place", [0, 50_000, 100_002])
def test_every_thread_tells_of_potentials_that_are_not_finite(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        neuron = clocked.LIF()
        current = values(100_003).view(1, -1)
        assert isinstance(neuron.respond(current, None, None)[1], int), "all are finite"
        current[0, place] = NAN
        assert isinstance(neuron.respond(current, None, None)[1], Tensor), threads


def test_lif_step_is_seen_by_autograd(way: str) -> None:
    u, s, current, _ = lif_state(8)
    before = u._version, s._version
    kernels.lif_step_(u, s, current, 0.5, 1.0)
    assert u._version > before[0] and s._version > before[1]


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 2000])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_one_pass_equals_two(
    way: str, size: int, dropout: float, noisy: bool, reset: clocked.Reset
) -> None:
    """Step, activity and spike count made together equal those made one after the other."""
    one, two = (clocked.LIF(dropout=dropout, scale=1.5, reset=reset) for _ in range(2))
    for step in range(4):
        current = values(size, seed=step).view(1, size)
        noise = values(size, 0.2, seed=10 + step).view(1, size) if noisy else None
        torch.manual_seed(0)
        activity, fired = one.respond(current, None, noise)
        torch.manual_seed(0)
        raw = two.advance(current)
        torch.testing.assert_close(activity, two.activity(raw, noise), rtol=1e-6, atol=1e-6)
        assert int(fired) == int(raw.sum())
        assert all(torch.equal(a, b) for a, b in zip(one.state, two.state, strict=True))


@pytest.mark.parametrize("method", ["advance", "activity"])
def test_methods_of_a_subclass_are_asked(way: str, method: str) -> None:
    asked = []

    def own(self: clocked.LIF, *given: Tensor | None) -> Tensor:
        asked.append(method)
        return getattr(clocked.LIF, method)(self, *given)

    kind = type("Own", (clocked.LIF,), {method: own})
    kind().respond(torch.ones(2, 3), None, None)
    assert asked == [method]


def psi(u: Tensor, threshold: float = 1.0, width: float = 0.25) -> Tensor:
    """The surrogate derivative in double precision, without cancellation."""
    q = (-(u.double() - threshold).abs() / width).exp()
    return q / (1 + q).square() / width


@every_size
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(("threshold", "width"), [(1.0, 0.25), (0.7, 0.4)])
def test_surrogate(way: str, size: int, gated: bool, threshold: float, width: float) -> None:
    error, u = values(size, seed=1), values(size, seed=2)
    gate = (values(size, seed=3) > 0).float() * 1.25
    before = error.clone(), u.clone(), gate.clone()
    result = kernels.surrogate_times(error, u, threshold, width, gate if gated else 2.74)
    exact = error.double() * psi(u, threshold, width) * (gate.double() if gated else 2.74)
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, (error, u, gate), strict=True))


@pytest.mark.parametrize("reach", [2.5, 50.0])
def test_surrogate_is_exact_where_it_matters(way: str, reach: float) -> None:
    u = torch.linspace(-reach, reach, 1_000_001)
    result = kernels.surrogate_times(torch.ones_like(u), u, 1.0, 0.25).double()
    exact = psi(u)
    assert float((result - exact).abs().max()) < 1e-6
    if way == "compiled":
        # The rounding of (u - V) / a alone is a relative error of |x| units in the exponential.
        allowed = 4e-7 + 6e-8 * (u.double() - 1).abs() / 0.25
        seen = exact > 1e-37
        assert bool(((result / exact - 1).abs() < allowed)[seen].all())
        assert float(result[~seen].max() if (~seen).any() else 0.0) < 1e-36


def test_surrogate_limits(way: str) -> None:
    u = torch.tensor([1e4, -1e4, 3e38, -3e38, INF, -INF, 1.0, NAN, 0.0])
    result = kernels.surrogate_times(torch.ones_like(u), u, 1.0, 0.25)
    assert result[:6].tolist() == [0.0] * 6
    assert float(result[6]) == pytest.approx(1.0, rel=1e-6)
    assert result[7].isnan()
    error = torch.tensor([NAN, INF, 0.0])
    result = kernels.surrogate_times(error, torch.zeros(3), 1.0, 0.25)
    assert result[0].isnan() and result[1] == INF and result[2] == 0.0


def test_nan_is_seen_in_the_potentials(way: str) -> None:
    torch.manual_seed(0)
    network = clocked.fc(4, (8,), 3)
    with torch.no_grad():
        network.linear1.weight[2, 1] = NAN
    with pytest.raises(DivergenceError, match=r"lif1' holds NaN .*5 of 40.*linear1\.weight"):
        clocked.DFA(network).step(torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]), steps=3)


def turned(tensor: Tensor) -> Tensor:
    """The same values at other strides."""
    return tensor.reshape(8, -1).t().contiguous().t()


def test_other_strides_and_types_give_the_same(way: str) -> None:
    parts = [part.reshape(8, -1) for part in lif_state(64)]
    u, s, current, noise = (part.clone() for part in parts)
    kernels.lif_step_(u, s, current, 0.5, 1.0, noise)
    u2, s2, current2, noise2 = (turned(part) for part in parts)
    assert not u2.is_contiguous() and not kernels.usable(u2, s2, current2)
    kernels.lif_step_(u2, s2, current2, 0.5, 1.0, noise2)
    assert torch.equal(u, u2) and torch.equal(s, s2)
    u3, s3, current3, noise3 = (part.double() for part in parts)
    assert not kernels.usable(u3)
    kernels.lif_step_(u3, s3, current3, 0.5, 1.0, noise3)
    torch.testing.assert_close(u3.float(), u)
    error = kernels.surrogate_times(noise, u, 1.0, 0.25, current)
    torch.testing.assert_close(
        kernels.surrogate_times(noise2, u2, 1.0, 0.25, current2), error, rtol=1e-5, atol=1e-6
    )


def test_usable_asks_for_one_shape_and_no_graph() -> None:
    a, b = torch.zeros(4), torch.zeros(5)
    assert kernels.usable(a, a) == kernels.available()
    assert not kernels.usable(a, b)
    assert not kernels.usable(a.clone().requires_grad_())
    assert not kernels.usable(torch.zeros(4, 4)[:, 0])
    with torch.inference_mode():
        assert not kernels.usable(torch.zeros(4))


@pytest.mark.parametrize("c", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0, 1e4])
@pytest.mark.parametrize("outputs", [1, 2, 10, 33])
def test_loss(way: str, outputs: int, spread: float, c: float) -> None:
    output = values(60 * outputs, spread).view(60, outputs)
    targets = torch.arange(60) % outputs
    losses, error = clocked.CrossEntropyMSE(c)(output, targets)
    leaf = output.double().requires_grad_()
    onehot = F.one_hot(targets, outputs).double()
    exact = (1 - c) * F.cross_entropy(leaf, targets, reduction="none")
    exact = exact + c * (leaf - onehot).square().mean(1)
    (gradient,) = torch.autograd.grad(exact.sum(), leaf)
    torch.testing.assert_close(losses.double(), exact.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(error.double(), gradient, rtol=2e-5, atol=1e-6)


def test_loss_keeps_what_is_not_finite(way: str) -> None:
    output = torch.zeros(5, 3)
    output[0, 1], output[1, 0], output[2, 2], output[3, 0] = NAN, NAN, INF, -INF
    losses, error = clocked.CrossEntropyMSE()(output, torch.zeros(5, dtype=torch.int64))
    assert losses.isfinite().tolist() == [False] * 4 + [True]
    assert error[:3].isnan().any(1).all() and error[4].isfinite().all()


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
def test_loss_refuses_labels_out_of_range(way: str, bad: int) -> None:
    with pytest.raises((RuntimeError, IndexError)):
        clocked.CrossEntropyMSE()(torch.zeros(2, 3), torch.tensor([0, bad]))


# ---- random numbers ----


def draw(size: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return kernels.gaussian_(torch.empty(size), scale, torch.Generator().manual_seed(seed))


@every_size
def test_gaussian_sizes_and_scale(way: str, size: int) -> None:
    guarded = torch.full((size + 2,), 9.0)
    kernels.gaussian_(guarded[1:-1], 0.1, torch.Generator().manual_seed(0))
    assert guarded[0] == 9.0 and guarded[-1] == 9.0
    assert bool((guarded[1:-1].abs() < 0.8).all())
    torch.testing.assert_close(guarded[1:-1], draw(size) * 0.1)


def normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.special.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize("seed", [0, 1])
def test_gaussian_is_normal(way: str, seed: int) -> None:
    count = 10_000_000
    z = draw(count, seed)
    assert bool(z.isfinite().all())
    wide = z.double()
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)]:
        assert abs(float((wide**power).mean()) - mean) < 5 * (variance / count) ** 0.5
    # Kolmogorov-Smirnov: exceeds 2.2 / sqrt(count) with a probability of 1e-4.
    expected = normal_cdf(wide.sort().values)
    ranks = torch.arange(count, dtype=torch.float64) / count
    distance = max((expected - ranks).max(), (ranks + 1 / count - expected).max())
    assert float(distance) < 2.2 / count**0.5
    for deviations in (2.0, 3.0, 4.0, 4.5, 5.0):
        rate = count * 2 * float(normal_cdf(torch.tensor(-deviations, dtype=torch.float64)))
        for tail in (z > deviations, z < -deviations):
            assert abs(int(tail.sum()) - rate / 2) < 5 * (rate / 2) ** 0.5 + 1


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 16, 32, 255, 256, 257, 512, 800, 1024, 4096])
def test_gaussian_has_no_correlations(way: str, lag: int) -> None:
    z = draw(2_000_000, seed=3)
    a, b = z[lag:].double(), z[:-lag].double()
    bound = 5 / len(a) ** 0.5
    assert abs(float((a * b).mean())) < bound
    # Neither do the sizes: Box-Muller pairs share one radius only if something is wrong.
    assert abs(float(((a.square() - 1) * (b.square() - 1)).mean())) < 2 * bound


def test_gaussian_directions_are_even(way: str) -> None:
    """The two halves of a block are the coordinates of points with every direction alike."""
    z = draw(512 * 2000, seed=5).view(-1, 2, 256)
    angles = torch.atan2(z[:, 0], z[:, 1]).flatten().double()
    counts = torch.histc(angles, bins=64, min=-math.pi, max=math.pi)
    expected = len(angles) / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 63 + 5 * (2 * 63) ** 0.5


def test_gaussian_seeds(way: str) -> None:
    assert torch.equal(draw(1000, 1), draw(1000, 1))
    a, b = draw(100_000, 1), draw(100_000, 2)
    assert abs(float((a * b).mean())) < 5 / 100_000**0.5
    generator = torch.Generator().manual_seed(1)
    first, second = (kernels.gaussian_(torch.empty(1000), 1.0, generator) for _ in range(2))
    assert not torch.isin(first, second).all()


def test_sources_resume(way: str) -> None:
    """A restored generator gives the same noise and masks again, to the bit."""
    torch.manual_seed(0)
    torch.rand(3)
    state = torch.get_rng_state()

    def take() -> list[Tensor]:
        noise = kernels.gaussian_(torch.empty(700), 0.2)
        return [noise, kernels.mask_like(noise, 0.2, 1.25), kernels.gaussian_(noise.clone(), 1.0)]

    first = take()
    other = take()
    torch.set_rng_state(state)
    again = take()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    torch.manual_seed(1)
    assert not torch.equal(take()[0], first[0])


@every_size
@pytest.mark.parametrize("dropout", [0.1, 0.2, 0.5, 0.999999])
def test_masks(way: str, size: int, dropout: float) -> None:
    torch.manual_seed(0)
    mask = kernels.mask_like(torch.empty(size), dropout, 1.25)
    assert mask.shape == (size,) and set(mask.unique().tolist()) <= {0.0, 1.25}
    kept = int((mask > 0).sum())
    deviation = (size * dropout * (1 - dropout)) ** 0.5
    assert abs(kept - size * (1 - dropout)) <= 5 * deviation + 1


def test_masks_keep_neighbours_apart(way: str) -> None:
    torch.manual_seed(0)
    kept = (kernels.mask_like(torch.empty(2_000_000), 0.2, 1.0) - 0.8) / 0.4
    for lag in (1, 8, 16, 32, 512, 800):
        assert abs(float((kept[lag:] * kept[:-lag]).mean())) < 5 / len(kept) ** 0.5


# ---- without the library ----

SCRIPT = """
import sys, torch
from threefactor import clocked
from threefactor.clocked import kernels
torch.manual_seed(0)
torch.set_num_threads(1)
x, y = torch.randn(5, 7, 6), torch.randint(0, 3, (7,))
result = [kernels.available()]
for name in ("spatial-bp", "dfa"):
    torch.manual_seed(1)
    network = clocked.fc(6, (33, 20), 3)
    out = clocked.RULES[name](network).step(3 * x, y)
    result.append([out.loss, out.output, *out.firing_rates.values()])
    result.append([p.grad for p in network.parameters()])
torch.save(result, sys.argv[1])
"""


def test_switch_gives_the_same_gradients(tmp_path: Path) -> None:
    results = []
    for switch in ("0", "1"):
        path = tmp_path / switch
        environment = {**os.environ, "THREEFACTOR_KERNELS": switch}
        command = [sys.executable, "-c", SCRIPT, str(path)]
        subprocess.run(command, env=environment, check=True, timeout=300)
        results.append(torch.load(path))
    assert results[0][0] is False
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert all(float(part.abs().max()) > 0 for part in a)


def test_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THREEFACTOR_KERNELS", raising=False)
    assert (kernels._load() is not None) == (kernels.find_spec(kernels.LIBRARY_NAME) is not None)
    monkeypatch.setattr(kernels, "VERSION", -1)
    assert kernels._load() is None


def test_missing_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THREEFACTOR_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels._load() is None


# ---- errors that skip the autograd engine ----


class Detour(torch.nn.Module):
    """A current that also reaches the output past its neuron, scaled."""

    input_shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.lif1 = clocked.Linear(6, 3), clocked.LIF()
        self.readout = clocked.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.linear1(x)
        return self.readout(self.lif1(current)) + 2.0 * current


def test_operations_between_layers_still_use_autograd() -> None:
    torch.manual_seed(0)
    network = Detour()
    rule = clocked.DFA(network)
    x, y = torch.randn(5, 6), torch.randint(0, 3, (5,))
    errors = []

    def loss(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses, error = clocked.CrossEntropyMSE()(output, targets)
        errors.append(error / len(output))
        return losses, error

    rule.loss = loss
    rule.step(x[None], y)
    u = network.linear1(x).detach()
    delta = 2.0 * errors[0] + (errors[0] @ rule.feedback[0].matrix) * psi(u).float()
    torch.testing.assert_close(network.linear1.weight.grad, delta.t() @ x, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(network.readout.bias.grad, errors[0].sum(0))


def test_hooks_on_a_current_see_its_error() -> None:
    torch.manual_seed(0)
    network = clocked.fc(6, (4,), 3)
    seen: list[Tensor] = []
    with torch.no_grad():
        network.linear1.weight.mul_(5)
    rule = clocked.DFA(network)

    def watch(module: torch.nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        out.register_hook(seen.append)

    network.linear1.register_forward_hook(watch)
    rule.step(torch.randn(2, 5, 6), torch.randint(0, 3, (5,)))
    assert len(seen) == 2
    torch.testing.assert_close(network.linear1.bias.grad, (seen[0] + seen[1]).sum(0))
