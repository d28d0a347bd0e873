"""The Triton kernels against double precision, the reference of the rules, and PyTorch operations.

They run on CPU tensors in Triton's interpreter, and are compiled for GPUs, which needs none.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from reference import clocked as slow
from reference.clocked_cases import CASES, OUTPUTS, build, make_data, matrices
from torch import Tensor
from torch.nn import functional as F

from threefactor import clocked
from threefactor.clocked import kernels
from threefactor.clocked.noise import Perturbation
from threefactor.errors import InputError

if (sys.platform, platform.machine()) != ("linux", "x86_64"):
    pytest.importorskip("triton")  # elsewhere the extra `dev` has it: its absence is an error
from threefactor.clocked import triton_kernels

NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered:RuntimeWarning"
)
SHAPES = [(1, 1), (3, 7), (5, 411), (2, 3, 5, 5), (1, 4, 1, 3)]
# Triton's interpreter cuts the last digits of bfloat16 off, where a GPU rounds.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
every_type = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True)
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CPU tensors go to the Triton kernels."""
    monkeypatch.delenv("THREEFACTOR_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "_library", None)
    monkeypatch.setattr(kernels, "TRITON_DEVICES", ("cpu",))
    kernels._load_triton.cache_clear()
    assert kernels.triton_for(torch.zeros(1)) is triton_kernels


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were launched."""
    seen: list[str] = []
    run = triton_kernels._run

    def counted(kernel: Any, *given: Any, **constants: Any) -> None:
        seen.append(kernel.fn.__name__)
        run(kernel, *given, **constants)

    monkeypatch.setattr(triton_kernels, "_run", counted)
    return seen


def values(shape: tuple[int, ...], seed: int, spread: float = 1.0, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator)).to(**options)


def turned(x: Tensor) -> Tensor:
    """The same values, with the channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def constant(kind: str, shape: tuple[int, ...], low: float) -> float | Tensor:
    """A leak or threshold: one number, perhaps in a tensor, or one of each channel or neuron."""
    if kind == "one":
        return low
    if kind == "learned":  # one number that stays on its device
        return torch.full([1] * (len(shape) - 1), low)
    sizes = shape[1:] if kind == "neuron" else (shape[1], *[1] * (len(shape) - 2))
    return low + 0.2 * torch.rand(sizes, generator=torch.Generator().manual_seed(3))


# ---- neurons ----


@every_shape
@every_type
@pytest.mark.parametrize("zero", [True, False], ids=["zero", "subtract"])
@pytest.mark.parametrize("kind", ["one", "learned", "channel", "neuron"])
@pytest.mark.parametrize("noisy", ["", "before", "after", "before and after"])
def test_a_step_in_one_pass(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    zero: bool,
    kind: str,
    noisy: str,
    launches: list[str],
) -> None:
    u, current = values(shape, 1, 2.0, dtype=dtype), values(shape, 2, dtype=dtype)
    s = (u >= 1.0).to(dtype)
    gate: Any = (values(shape, 3) > -0.5).to(dtype) * 1.25 if kind == "one" else 2.5
    before = values(shape, 4, 0.3, dtype=dtype) if "before" in noisy else None
    after = values(shape, 5, 0.3, dtype=dtype) if "after" in noisy else None
    leak, threshold = constant(kind, shape, 0.5), constant(kind, shape, 0.9)
    if kind != "one":
        leak, threshold = leak.to(dtype), threshold.to(dtype)
    exact = u.double() * (1 - s.double()) if zero else u.double() - threshold * s.double()
    exact = leak * exact + current.double() + (0.0 if before is None else before.double())

    given = kernels.lif_activity(u, s, current, leak, threshold, gate, before, after, zero)

    assert given is not None and launches == ["_lif"]
    activity, fired = given
    scale = TOLERANCES[dtype]
    torch.testing.assert_close(u.double(), exact, rtol=scale, atol=scale)
    assert torch.equal(s, (u.float() >= threshold).to(dtype))
    assert int(fired) == int(s.double().sum())
    expected = s.double() * gate + (0.0 if after is None else after.double())
    torch.testing.assert_close(activity.double(), expected, rtol=scale, atol=scale)
    assert activity.dtype is dtype


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("kind", ["one", "channel"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_values_that_need_no_rounding_are_those_of_pytorch(
    layout: str, kind: str, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a potential meets the threshold exactly."""
    shape = (3, 4, 5, 6)
    leak = 0.5 if kind == "one" else torch.tensor([0.5, 0.25, 1.0, 0.0]).view(4, 1, 1)
    threshold = 1.0 if kind == "one" else torch.tensor([1.0, 0.5, 0.25, 2.0]).view(4, 1, 1)
    a = [torch.zeros(shape), torch.zeros(shape)]
    b = [torch.zeros(shape), torch.zeros(shape)]
    if layout == "channels_last":
        a = [turned(x) for x in a]
    met = 0
    for step in range(6):
        current = (values(shape, step) * 4).round() / 4
        noise = (values(shape, 10 + step) * 2).round() / 8
        given = turned(current) if layout == "channels_last" else current
        placed = turned(noise) if layout == "channels_last" else noise
        kernels.lif_step_(*a, given, leak, threshold, placed, zero)
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "TRITON_DEVICES", ())
            kernels.lif_step_(*b, current, leak, threshold, noise, zero)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        met += int((b[0] == threshold).sum())
    assert met > 0 and 0 < float(b[1].mean()) < 1


def test_channels_last_stay_so() -> None:
    u, s, i, g, e = (turned(values((2, 3, 4, 5), seed)) for seed in range(5))
    found = kernels.lif_activity(u, s, i, 0.5, 1.0, g, None, None)
    assert found is not None and found[0].stride() == u.stride()
    assert kernels.surrogate_times(e, u, 1.0, 0.25, g).stride() == u.stride()
    assert kernels.mask_like(u, 0.5, 2.0).stride() == u.stride()


@pytest.mark.parametrize(
    "case", ["strided", "mixed layouts", "float64", "mixed types", "needs a gradient", "grows"]
)
def test_other_tensors_go_to_pytorch(
    case: str, launches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> list[Tensor]:
        parts = [values((2, 3, 4, 6), seed) for seed in range(4)]
        if case == "strided":
            return [x[..., ::2] for x in parts]
        if case == "mixed layouts":
            return [turned(parts[0]), *parts[1:]]
        if case == "float64":
            return [x.double() for x in parts]
        if case == "mixed types":
            return [parts[0], *(x.double() for x in parts[1:])]
        if case == "needs a gradient":
            return [*parts[:2], parts[2].requires_grad_(), parts[3]]
        return [parts[0], parts[1], parts[2][:1], parts[3]]

    def outcome() -> list[Tensor]:
        u, s, current, error = make()
        with torch.no_grad():
            if case != "mixed types":
                kernels.lif_step_(u, s, current, 0.9, 0.7)
            return [u, s, kernels.surrogate_times(current, u, 0.7, 0.3, error)]

    found = outcome()
    assert case == "needs a gradient" or not launches
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "TRITON_DEVICES", ())
        expected = outcome()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        if not launches:
            assert torch.equal(a, b)


def test_nothing_to_do() -> None:
    u, s, i = torch.zeros(3, 0, 7)
    found = kernels.lif_activity(u, s, i, 0.5, 1.0, 1.0, None, None)
    assert found is not None and found[0].shape == (0, 7) and int(found[1]) == 0
    assert kernels.surrogate_times(u, u, 1.0, 0.25).shape == (0, 7)
    assert kernels.gaussian_(u, 1.0).shape == (0, 7)


def test_what_is_not_finite_stays() -> None:
    u, s, current = torch.zeros(16), torch.zeros(16), torch.zeros(16)
    current[3], current[5], current[9] = NAN, INF, -INF
    activity, fired = kernels.lif_activity(u, s, current, 0.5, 1.0, 1.0, None, None)
    assert u[3].isnan() and u[5] == INF and u[9] == -INF
    assert s.nonzero().flatten().tolist() == [5] and int(fired) == 1 and activity[3] == 0
    kernels.lif_step_(u, s, torch.zeros(16), 0.5, 1.0, torch.full((16,), NAN))
    assert u.isnan().all() and not s.any()
    u, s = torch.tensor([INF, NAN, 2.0, 0.5]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    kernels.lif_step_(u, s, torch.zeros(4), 0.5, 1.0, zero=True)
    assert u[[0, 2, 3]].tolist() == [0.0, 0.0, 0.25] and u[1].isnan()


def test_autograd_sees_what_was_written() -> None:
    u, s, z = torch.zeros(3, 4)
    before = u._version, s._version, z._version
    kernels.lif_step_(u, s, z, 0.5, 1.0)
    kernels.gaussian_(z, 1.0)
    assert u._version > before[0] and s._version > before[1] and z._version > before[2]


# ---- the surrogate derivative ----


def psi(u: Tensor, threshold: Any, width: float) -> Tensor:
    q = (-(u.double() - threshold).abs() / width).exp()
    return q / (1 + q).square() / width


@every_shape
@every_type
@pytest.mark.parametrize("kind", ["one", "learned", "channel", "neuron"])
@pytest.mark.parametrize("gated", [True, False])
def test_surrogate(shape: tuple[int, ...], dtype: torch.dtype, kind: str, gated: bool) -> None:
    error, u = values(shape, 1, dtype=dtype), values(shape, 2, 2.0, dtype=dtype)
    gate: Any = (values(shape, 3) > 0).to(dtype) * 1.25 if gated else 2.75
    threshold = constant(kind, shape, 0.7)
    if isinstance(threshold, Tensor):
        threshold = threshold.to(dtype)
    result = kernels.surrogate_times(error, u, threshold, 0.3, gate)
    exact = error.double() * psi(u, threshold, 0.3) * gate
    tolerance = 10 * TOLERANCES[dtype] if dtype is torch.float32 else TOLERANCES[dtype]
    torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=tolerance)
    assert result.dtype is dtype


def test_surrogate_limits() -> None:
    u = torch.tensor([1e4, -1e4, 3e38, -3e38, INF, -INF, 1.0, NAN, 0.0])
    result = kernels.surrogate_times(torch.ones_like(u), u, 1.0, 0.25)
    assert result[:6].tolist() == [0.0] * 6
    assert float(result[6]) == pytest.approx(1.0, rel=1e-6)
    assert result[7].isnan()
    error = torch.tensor([NAN, INF, 0.0])
    result = kernels.surrogate_times(error, torch.zeros(3), 1.0, 0.25)
    assert result[0].isnan() and result[1] == INF and result[2] == 0.0


# ---- the loss ----


@pytest.mark.parametrize("c", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0, 1e4])
@pytest.mark.parametrize("outputs", [1, 2, 10, 33])
def test_loss(outputs: int, spread: float, c: float, launches: list[str]) -> None:
    output = values((6, outputs), 0, spread)
    targets = torch.arange(6) % outputs
    losses, error = clocked.CrossEntropyMSE(c)(output, targets)
    assert launches == ["_cross_entropy_mse"]
    leaf = output.double().requires_grad_()
    onehot = F.one_hot(targets, outputs).double()
    exact = (1 - c) * F.cross_entropy(leaf, targets, reduction="none")
    exact = exact + c * (leaf - onehot).square().mean(1)
    (gradient,) = torch.autograd.grad(exact.sum(), leaf)
    torch.testing.assert_close(losses.double(), exact.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(error.double(), gradient, rtol=2e-5, atol=1e-6)


def test_loss_keeps_what_is_not_finite() -> None:
    output = torch.zeros(5, 3)
    output[0, 1], output[1, 0], output[2, 2], output[3, 0] = NAN, NAN, INF, -INF
    losses, error = clocked.CrossEntropyMSE()(output, torch.zeros(5, dtype=torch.int64))
    assert losses.isfinite().tolist() == [False] * 4 + [True]
    assert error[:3].isnan().any(1).all() and error[4].isfinite().all()


def test_a_label_out_of_range_reaches_no_other_memory() -> None:
    """A rule refuses it; until then the kernel takes the nearest class."""
    output = values((3, 4), 0)
    given = triton_kernels.cross_entropy_mse(output, torch.tensor([-1, 9, 2**40]), 0.05)
    expected = triton_kernels.cross_entropy_mse(output, torch.tensor([0, 3, 3]), 0.05)
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))


# ---- random numbers ----


def draw(size: int, seed: int = 0, scale: float = 1.0, **options: Any) -> Tensor:
    out = torch.empty(size, **options)
    return kernels.gaussian_(out, scale, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 7, 1023, 1025, 2051])
def test_random_numbers_depend_on_their_place_alone(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw(2100)
    guarded = torch.full((size + 2,), 9.0)
    kernels.gaussian_(guarded[1:-1], 1.0, torch.Generator().manual_seed(0))
    assert guarded[0] == 9.0 and guarded[-1] == 9.0
    torch.manual_seed(0)
    mask = kernels.mask_like(torch.empty(size), 0.3, 2.0)
    assert torch.equal(guarded[1:-1], whole[:size])
    for quads in (64, 512):  # other blocks
        monkeypatch.setattr(triton_kernels, "QUADS", quads)
        torch.manual_seed(0)
        assert torch.equal(kernels.mask_like(torch.empty(size), 0.3, 2.0), mask)
        assert torch.equal(draw(size), whole[:size])
        torch.testing.assert_close(draw(size, scale=0.25), whole[:size] * 0.25)


def test_gaussian_is_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "QUADS", 2**14)  # few blocks: the interpreter is slow
    count = 400_000
    z = draw(count, 1)
    wide = z.double()
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)]:
        assert abs(float((wide**power).mean()) - mean) < 5 * (variance / count) ** 0.5
    expected = 0.5 * torch.special.erfc(-wide.sort().values / math.sqrt(2))
    ranks = torch.arange(count, dtype=torch.float64) / count
    distance = max((expected - ranks).max(), (ranks + 1 / count - expected).max())
    assert float(distance) < 2.2 / count**0.5  # exceeded with a probability of 1e-4
    for deviations in (2.0, 3.0, 4.0):
        rate = count * math.erfc(deviations / math.sqrt(2)) / 2
        for tail in (z > deviations, z < -deviations):
            assert abs(int(tail.sum()) - rate) < 5 * rate**0.5 + 1
    for lag in (1, 2, 3, 4, 256, 1024, 4096):
        a, b = wide[lag:], wide[:-lag]
        assert abs(float((a * b).mean())) < 5 / count**0.5
        # Neither do the sizes: Box-Muller pairs share one radius.
        assert abs(float(((a.square() - 1) * (b.square() - 1)).mean())) < 10 / count**0.5


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.999])
def test_masks(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "QUADS", 2**14)
    torch.manual_seed(0)
    mask = kernels.mask_like(torch.empty(60_003), dropout, 1.25)
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    deviation = (60_003 * dropout * (1 - dropout)) ** 0.5
    assert abs(int((mask > 0).sum()) - 60_003 * (1 - dropout)) < 5 * deviation
    kept = ((mask > 0).double() - (1 - dropout)) / (dropout * (1 - dropout)) ** 0.5
    for lag in (1, 2, 4, 1024):
        assert abs(float((kept[lag:] * kept[:-lag]).mean())) < 5 / len(mask) ** 0.5


@every_type
def test_sources_resume(dtype: torch.dtype) -> None:
    """A restored generator gives the same noise and masks again, to the bit."""
    torch.manual_seed(0)
    state = torch.get_rng_state()

    def take() -> list[Tensor]:
        noise = kernels.gaussian_(torch.empty(700, dtype=dtype), 0.2)
        return [noise, kernels.mask_like(noise, 0.2, 1.25), kernels.gaussian_(noise.clone(), 1.0)]

    first, other = take(), take()
    torch.set_rng_state(state)
    assert all(torch.equal(a, b) for a, b in zip(first, take(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert 0.18 < float(first[0].float().std()) < 0.22
    assert torch.equal(draw(50, 1), draw(50, 1)) and not torch.equal(draw(50, 1), draw(50, 2))


# ---- whole rules ----


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("case", CASES)
def test_rules_equal_their_formulas(
    case: str, reset: clocked.Reset, launches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision, with the kernels' own noise and masks, against NumPy in double."""
    name, options = CASES[case]
    dropout = 0.3 if reset == "zero" else 0.0
    network, rule = build(case, dropout=dropout, dtype=torch.float32, reset=reset)
    x, y = make_data(dtype=torch.float32)
    layers = [m for m in network if isinstance(m, clocked.Linear)]
    model = slow.Model(
        [m.weight.detach().double().numpy().copy() for m in layers],
        [m.bias.detach().double().numpy().copy() for m in layers],
        reset=reset,
    )
    feedback = [b.detach().double().t().numpy().copy() for b in matrices(rule)]
    noise: list[Any] = []
    masks: dict[int, Tensor] = {}
    real = Perturbation.draw

    def drawn(self: Perturbation, *given: Any) -> Tensor:
        z = real(self, *given)
        noise.append(z.double().numpy().copy())
        return z

    def keep(layer: clocked.LIF, _: Any, output: Tensor) -> None:
        masks[id(layer)] = torch.ones_like(output) if layer.gate is None else layer.gate

    monkeypatch.setattr(Perturbation, "draw", drawn)
    neurons = [m for m in network if isinstance(m, clocked.LIF)]
    for neuron in neurons:
        neuron.register_forward_hook(keep)

    result = rule.step(x, y)

    in_steps = [noise[i : i + 2] for i in range(0, len(noise), 2)] or None
    held = [masks[id(n)].double().numpy() for n in neurons]
    assert any((m == 0).any() for m in held) == (dropout > 0)
    expected = slow.train(
        name,
        model,
        x.double().numpy(),
        y.numpy(),
        held,
        noise=in_steps,
        feedback=feedback,
        **options,
    )
    assert {"_lif", "_cross_entropy_mse"} <= set(launches)
    assert ("_surrogate" in launches) and ("_mask" in launches) == (dropout > 0)
    pairs = [(result.loss, expected.loss), (result.output, expected.output)]
    pairs += [(torch.stack(list(result.firing_rates.values())), expected.rates)]
    pairs += [(m.weight.grad, g) for m, g in zip(layers, expected.weight_grads, strict=True)]
    pairs += [(m.bias.grad, g) for m, g in zip(layers, expected.bias_grads, strict=True)]
    pairs += [(b.t(), g) for b, g in zip(matrices(rule), expected.feedback, strict=False)]
    for found, exact in pairs:
        wanted = torch.as_tensor(exact, dtype=torch.float64)
        size = float(wanted.abs().max())
        assert size > 0
        torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-4, atol=1e-5 * size)


def test_a_step_of_a_layer_is_one_launch(launches: list[str]) -> None:
    """Noise before or after the neurons, dropout and leaks of each neuron included."""
    leak = torch.linspace(0.2, 0.8, 6)
    for position in ("before", "after"):
        network = clocked.fc(7, (6,), OUTPUTS, leak=leak, dropout=0.3)
        rule = clocked.OPZO(
            network,
            noise_position=position,
            trace_decay={"linear1": 0.5, "readout": 0.5},
            antithetic=False,
        )
        launches.clear()
        rule.step(torch.rand(4, 7), torch.zeros(4, dtype=torch.int64), steps=3)
        step = ["_gaussian", "_lif", "_cross_entropy_mse", "_surrogate"]
        assert launches == [step[0], "_mask", *step[1:], *step, *step]


def test_bad_inputs_are_refused_with_kernels() -> None:
    _, rule = build("opzo", dtype=torch.float32)
    x, y = make_data(dtype=torch.float32)
    with pytest.raises(InputError, match="knows classes 0 to 2"):
        rule.step(x, y + 7)
    x[1, 2, 3] = NAN
    with pytest.raises(InputError, match="1 NaN"):
        rule.step(x, y)


# ---- whether they are used ----


def test_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels._load_triton.cache_clear()
    monkeypatch.setenv("THREEFACTOR_KERNELS", "0")
    assert kernels.triton_for(torch.zeros(1)) is None
    kernels._load_triton.cache_clear()
    monkeypatch.delenv("THREEFACTOR_KERNELS")
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.triton_for(torch.zeros(1)) is None
    kernels._load_triton.cache_clear()
    monkeypatch.undo()
    assert kernels.triton_for(torch.zeros(1)) is None  # not on a CPU


def test_kernels_that_do_not_run_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.\nSet CC.")

    kernels._load_triton.cache_clear()
    monkeypatch.setattr(triton_kernels, "check", fail)
    with pytest.warns(UserWarning, match="do not run on cpu .RuntimeError: Failed to find C comp"):
        assert kernels.triton_for(torch.zeros(1)) is None
    u, s = torch.tensor([2.0]), torch.tensor([1.0])
    kernels.lif_step_(u, s, torch.tensor([0.25]), 0.5, 1.0)  # warns once
    assert u.item() == 0.75
    kernels._load_triton.cache_clear()


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from threefactor.clocked import triton_kernels as t

TYPES = {
    "counts": "*i32", "targets": "*i64", "seed": "*i64", "c": "fp32", "value": "fp32",
    "dropout": "fp32", "scale": "fp32", "factor": "fp32", "inverse": "fp32",
}
NUMBERS = {"n", "m", "leak_stride", "leak_count", "threshold_stride", "threshold_count"}

def compiled(kernel, dtype, architecture=90, **constants):
    names = kernel.arg_names
    signature = {}
    for name in names:
        each = constants.get({"leak": "LEAKS", "threshold": "THRESHOLDS"}.get(name, ""), None)
        if name in constants:
            signature[name] = "constexpr"
        elif name in NUMBERS:
            signature[name] = "i32"
        elif each is not None:
            signature[name] = dtype if each else "fp32"
        else:
            signature[name] = TYPES.get(name, dtype)
    fixed = {(names.index(k),): v for k, v in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert len(made.asm["cubin"]) > 0 and kernel.__name__ in made.asm["ptx"]
    assert f".target sm_{architecture}" in made.asm["ptx"]

plain = {"before": None, "gate": None, "after": None, "out": None, "counts": None}
for constants in ({"before": None, "gate": None}, {"after": None}, plain, {"gate": None}):
    each = constants == {"gate": None}
    flags = {"ZERO": each, "LEAKS": each, "THRESHOLDS": each, "BLOCK": 1024}
    compiled(t._lif, "*bf16" if each else "*fp32", **constants, **flags)
compiled(t._surrogate, "*fp32", gate=None, THRESHOLDS=False, BLOCK=1024)
compiled(t._surrogate, "*bf16", THRESHOLDS=True, BLOCK=1024)
compiled(t._gaussian, "*fp32", QUADS=256)
compiled(t._mask, "*bf16", 80, QUADS=256)
compiled(t._cross_entropy_mse, "*fp32", COLUMNS=16)
print("compiled")
"""


def test_kernels_compile_for_gpus(tmp_path: Any) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "compiled\n", done.stderr
