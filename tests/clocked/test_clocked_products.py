"""Compiled products of matrices against double precision, and against PyTorch's in a rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked
from threefactor.clocked import products

compiled = pytest.mark.skipif(
    not products.available(), reason="no compiled products on this machine"
)
SHAPES = [(32, 256, 256), (33, 401, 117), (40, 1030, 1030), (131, 784, 16), (70, 300, 65)]
every_shape = pytest.mark.parametrize(("rows", "inner", "columns"), SHAPES)


@pytest.fixture(autouse=True)
def small_products_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LEAST_WORK", 1)
    monkeypatch.setattr(products, "FEWEST_OUTPUTS", products.FEWEST_COLUMNS)


def values(*shape: int, share: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(*shape, generator=generator)
    return dense * (torch.rand(*shape, generator=generator) < share)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    assert wanted.abs().max() > 0
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=3e-6 * wanted.abs().max())


@every_shape
@pytest.mark.parametrize("share", [1.0, 0.1, 0.0])
@torch.no_grad()
def test_products_agree_with_double_precision(
    rows: int, inner: int, columns: int, share: float
) -> None:
    x, weight, bias = values(rows, inner, share=share), values(columns, inner), values(columns)
    delta = values(rows, columns, seed=1)
    wide = F.linear(x.double(), weight.double(), bias.double())
    assert_near(products.linear(x, weight, bias, {}), wide)
    assert_near(products.product(delta, weight), delta.double() @ weight.double())
    found, wanted = products.weight_gradient(delta, x), delta.double().t() @ x.double()
    if share:
        assert_near(found, wanted)
    assert found.shape == weight.shape and found.is_contiguous()
    assert found.any() == bool(share)


@compiled
@every_shape
@torch.no_grad()
def test_leaving_zeros_out_and_threads_change_no_bit(
    rows: int, inner: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = values(rows, inner, share=0.1), values(columns, inner), values(columns)
    delta = values(rows, columns, seed=1)
    found = [products.linear(x, weight, bias, {}), products.weight_gradient(delta, x)]
    monkeypatch.setattr(products, "MOST_FORWARD", 0.0)  # as if all were dense
    monkeypatch.setattr(products, "MOST_BACKWARD", 0.0)
    dense = [products.linear(x, weight, bias, {}), products.weight_gradient(delta, x)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shared = [products.linear(x, weight, bias, {}), products.weight_gradient(delta, x)]
    for one, two, three in zip(found, dense, shared, strict=True):
        assert torch.equal(one, two) and torch.equal(two, three)


@compiled
@pytest.mark.parametrize(("most", "share", "done"), [(0.2, 0.1, True), (0.05, 0.1, False)])
@pytest.mark.parametrize("by_columns", [False, True])
@torch.no_grad()
def test_many_values_are_left_to_the_dense_product(
    most: float, share: float, done: bool, by_columns: bool
) -> None:
    a = values(64, 64, share=share)
    found = products._sparse(a, values(64, 32), None, most, by_columns=by_columns)
    assert (found is not None) == done


@compiled
@torch.no_grad()
def test_a_limit_that_is_just_met_has_room() -> None:
    a = torch.zeros(8, 100)
    a[:, 60:] = 1.0  # 40 of 100 in every row, at its end
    b = values(100, 48)
    for left, by_columns in ((a, False), (a.t().contiguous(), True)):
        found = products._sparse(left, b, None, 0.4, by_columns=by_columns)
        assert found is not None
        assert_near(found, a.double() @ b.double())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(16, 16), (35, 50), (3, 47, 16), (2, 1, 5)])
@torch.no_grad()
def test_transposition(
    shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    a = values(*shape)
    assert torch.equal(products.transposed(a), a.transpose(-1, -2))


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("biased", [True, False])
@torch.no_grad()
def test_fewer_outputs_than_a_vector_holds(share: float, biased: bool) -> None:
    x, weight = values(40, 300, share=share), values(10, 300)
    bias = values(10, seed=1) if biased else None
    wide = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    kept: dict[str, Tensor] = {}
    for _ in range(2):  # the second time with what was kept
        found = products.linear(x, weight, bias, kept)
        assert found.shape == (40, 10) and found.is_contiguous()
        assert_near(found, wide)
    weight[3, 7] = float("inf")
    found = products.linear(x, weight, bias, {})
    assert not found[:, 3].isfinite().any() and found[:, :3].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [9, 70])
@torch.no_grad()
def test_adding_a_product_in_place(dtype: torch.dtype, columns: int) -> None:
    matrix = values(10, columns).to(dtype)
    output, noise = values(40, 10, seed=1).to(dtype), values(40, columns, seed=2).to(dtype)
    wanted = 0.9 * matrix.double() + 0.3 * (output.double().t() @ noise.double())
    version = matrix._version
    products.add_product_(matrix, output.t(), noise, beta=0.9, alpha=0.3)
    assert_near(matrix, wanted)
    assert matrix._version > version  # a step that fails puts back what was written to
    matrix.fill_(float("nan"))
    products.add_product_(matrix, output.t(), noise, beta=0.0, alpha=0.3)
    assert_near(matrix, 0.3 * (output.double().t() @ noise.double()))


@compiled
@torch.no_grad()
def test_planes_write_and_add_with_gaps_between() -> None:
    a, b = values(3, 10, 20), values(3, 20, 50)
    out = torch.full((3, 10 * 50 + 7), 2.0)
    planes = out.as_strided((3, 10, 50), (507, 50, 1))
    assert products.planes(a, b, planes, add=True)
    assert_near(planes, 2.0 + a.double() @ b.double())
    assert products.planes(a, b, planes)
    assert_near(planes, a.double() @ b.double())
    assert (out[:, 500:] == 2.0).all()
    assert not products.planes(a, b[..., :9].contiguous(), planes[..., :9])


@pytest.mark.parametrize("columns", [16, 95, 1030, 2000])
@pytest.mark.parametrize(("rows", "inner"), [(10, 32), (3, 20), (10, 7), (40, 10), (33, 70)])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.75])
@torch.no_grad()
def test_a_matrix_is_added_to_in_place(rows: int, inner: int, columns: int, beta: float) -> None:
    """All ways of going through a wide matrix: in runs, with copies, with what is left over."""
    b, start = values(inner, columns), values(rows, columns, seed=1)
    left = values(inner, rows, seed=2).t()
    for a in (left, left.contiguous()):
        found = start.clone() if beta else torch.full_like(start, float("nan"))
        version = found._version
        products.add_product_(found, a, b, beta=beta, alpha=0.5)
        assert_near(found, beta * start.double() + 0.5 * a.double() @ b.double())
        assert found._version > version
        assert_near(products.product(a, b), a.double() @ b.double())


@torch.no_grad()
def test_nan_comes_out_as_nan() -> None:
    x, weight = values(32, 64), values(48, 64)
    x[3, 5] = float("nan")
    found = products.linear(x, weight, None, {})
    assert found[3].isnan().all() and not found[4].isnan().any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@torch.no_grad()
def test_zeros_hide_no_value_that_is_not_finite(bad: float) -> None:
    """Zero times infinity is NaN; leaving zeros out must not make a broken training look sound."""
    x, weight, delta = values(64, 256, share=0.05), values(256, 256), values(64, 256, seed=1)
    x[:, 5] = 0
    weight[3, 5] = bad
    assert not products.linear(x, weight, None, {})[:, 3].isfinite().any()
    x[0] = 0
    delta[0, 7] = bad
    assert not products.weight_gradient(delta, x)[7].isfinite().any()


@torch.no_grad()
def test_shapes_that_do_not_fit_are_refused_by_pytorch() -> None:
    """The kernels would read what lies behind a matrix."""
    x, weight, right = values(64, 256), values(48, 256), values(255, 48)
    for wrong in (
        lambda: products.linear(x, weight, values(47), {}),
        lambda: products.linear(x, right.t().contiguous(), None, {}),
        lambda: products.product(x, right),
        lambda: products.weight_gradient(values(63, 48), x),
        lambda: products.weight_gradient(values(63, 48), x * (x > 3)),
        lambda: products.add_product_(values(10, 48), x, right, beta=1.0, alpha=1.0),
        lambda: products.add_product_(
            values(64, 47), x, weight.t().contiguous(), beta=1.0, alpha=1.0
        ),
    ):
        with pytest.raises(RuntimeError):
            wrong()


needs_bfloat16 = pytest.mark.skipif(
    not (products.available() and products._processor & products._BFLOAT16),
    reason="no compiled products, or no vectors of bfloat16",
)


@pytest.fixture
def medium() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


@needs_bfloat16
@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("shape", [*SHAPES, (32, 33, 32), (47, 64, 1027)])
@torch.no_grad()
def test_medium_precision_rounds_the_factors_alone(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums stay in float32, also with an odd inner dimension and columns left over."""
    rows, inner, columns = shape
    if columns < products.FEWEST_ROWS:
        monkeypatch.setattr(products, "FEWEST_ROWS", columns)
    x, weight, bias = values(rows, inner), values(columns, inner), values(columns)
    delta, right = values(rows, columns, seed=1), values(inner, columns, seed=2)
    kept: dict[str, Tensor] = {}
    wide = F.linear(rounded(x), rounded(weight), bias.double())

    def made() -> list[Tensor]:
        return [
            products.linear(x, weight, bias, kept),
            products.weight_gradient(delta, x),
            products.product(x, right),
            products.product(values(inner, rows).t(), right),
            products.product(values(rows, 2 * inner)[:, ::2], right),
        ]

    wanted = [
        wide,
        rounded(delta).t() @ rounded(x),
        rounded(x) @ rounded(right),
        rounded(values(inner, rows)).t() @ rounded(right),
        rounded(values(rows, 2 * inner)[:, ::2]) @ rounded(right),
    ]
    found = made()
    for one, exact in zip(found, wanted, strict=True):
        assert_near(one, exact)
    assert not torch.equal(found[0], F.linear(x, weight, bias))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, other in zip(found, made(), strict=True):
        assert torch.equal(one, other)


@needs_bfloat16
@torch.no_grad()
def test_other_precisions_and_small_products_round_nothing() -> None:
    x, weight = values(64, 256), values(256, 256)
    plain = products.product(x, weight)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert torch.equal(products.product(x, weight), plain)
        torch.set_float32_matmul_precision("medium")
        assert not torch.equal(products.product(x, weight), plain)
        assert torch.equal(products.product(x[:9], weight), plain[:9])
        few = values(64, 256, share=0.05)
        assert_near(products.linear(few, weight, None, {}), few.double() @ weight.double().t())
    finally:
        torch.set_float32_matmul_precision(before)


@needs_bfloat16
@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@torch.no_grad()
def test_rounding_hides_no_value_that_is_not_finite(bad: float) -> None:
    x, weight, delta = values(64, 255), values(256, 255), values(64, 256, seed=1)
    for place in (0, 5, 254):
        x[3, place] = bad
        found = products.linear(x, weight, None, {})
        assert not found[3].isfinite().any() and found[:3].isfinite().all()
        x[3, place] = 0
        weight[7, place] = bad
        found = products.linear(x, weight, None, {})
        assert not found[:, 7].isfinite().any() and found[:, :7].isfinite().all()
        weight[7, place] = 0
    delta[63, 9] = bad
    found = products.weight_gradient(delta, x)
    assert not found[9].isfinite().any() and found[:9].isfinite().all()


def test_graphs_other_types_and_layouts_are_left_to_pytorch() -> None:
    x, weight = values(32, 64).requires_grad_(), values(48, 64)
    assert products.linear(x, weight, None, {}).requires_grad
    with torch.no_grad():
        wide = products.linear(x.double(), weight.double(), None, {})
        assert wide.dtype is torch.float64
        assert_near(products.linear(values(64, 32).t(), weight, None, {}), _of_transposed(weight))
        negative = torch.view_as_complex(values(32, 64, 2)).conj().imag  # a flag says minus
        assert negative.is_neg()
        wanted = negative.double() @ weight.double().t()
        assert_near(products.linear(negative, weight, None, {}), wanted)


def _of_transposed(weight: Tensor) -> Tensor:
    return values(64, 32).t().double() @ weight.double().t()


@pytest.mark.parametrize("name", list(clocked.RULES))
@pytest.mark.parametrize("learn", ["at the end", "after every step"])
def test_a_rule_learns_what_it_learns_with_pytorch(
    name: str, learn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that change after every step meet no copy of the old ones."""
    x, y = values(32, 40).abs(), torch.arange(32) % 20

    def trained(with_kernels: bool) -> list[Tensor]:
        if not with_kernels:
            monkeypatch.setattr(products, "_library", None)
        torch.manual_seed(0)
        net = clocked.fc(40, (48, 48), 20)
        rule = clocked.RULES[name](net)
        optimizer = torch.optim.SGD([*net.parameters(), *rule.parameters()], lr=0.1)
        torch.manual_seed(1)
        every = learn == "after every step"
        for _ in range(2):
            optimizer.zero_grad()
            rule.step(x, y, steps=3, after_step=optimizer.step if every else None)
            optimizer.step()
        assert net.linear2.weight.grad.abs().max() > 0
        return [p.detach().clone() for p in net.parameters()]

    for one, two in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@needs_bfloat16
@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("learn", ["at the end", "after every step"])
@pytest.mark.parametrize("name", ["dfa", "spatial-bp"])
def test_a_rule_at_medium_precision_meets_no_copy_of_old_weights(name: str, learn: str) -> None:
    """The same weights with the kernels and with factors that were rounded by PyTorch."""
    x, y = values(32, 40), torch.arange(32) % 20

    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        net = clocked.fc(40, (48, 48, 48), 20)
        rule = clocked.RULES[name](net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        every = learn == "after every step"
        for _ in range(3):
            optimizer.zero_grad()
            rule.step(x, y, steps=3, after_step=optimizer.step if every else None)
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    found = trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "linear", _rounded_linear)
        patch.setattr(products, "product", _rounded_product)
        patch.setattr(
            products, "weight_gradient", lambda d, t: (rounded(d).t() @ rounded(t)).float()
        )
        wanted = trained()
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-4)


def _rounded_linear(x: Tensor, weight: Tensor, bias: Tensor, kept: dict[str, Tensor]) -> Tensor:
    if len(weight) < products.FEWEST_ROWS:
        return F.linear(x, weight, bias)
    return F.linear(rounded(x), rounded(weight), bias.double()).float()


def _rounded_product(a: Tensor, b: Tensor) -> Tensor:
    short = min(*a.shape, b.shape[1]) < products.FEWEST_ROWS
    return a @ b if short else (rounded(a) @ rounded(b)).float()


def _rounded_gradient(delta: Tensor, trace: Tensor) -> Tensor:
    if delta.shape[1] < products.FEWEST_ROWS:
        return delta.t() @ trace
    return (rounded(delta).t() @ rounded(trace)).float()


@pytest.mark.parametrize("steps", [1, 3])
def test_gradients_that_were_gathered_are_made_without_a_graph(steps: int) -> None:
    """Where a graph could be made, the kernels step back; a user's own layer sees the same."""
    seen: list[bool] = []

    class Own(clocked.Linear):
        def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
            seen.append(torch.is_grad_enabled())
            super().add_weight_grad(delta, trace)

    net = nn.Sequential(Own(40, 48), clocked.LIF(), Own(48, 20))
    rule = clocked.DFA(net, input_shape=(40,))
    rule.step(values(32, 40).abs(), torch.arange(32) % 20, steps=steps)
    rule.observe(values(32, 40).abs(), torch.arange(32) % 20)
    assert len(seen) == 4 and not any(seen)


@compiled
def test_the_rule_uses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for function in ("_sparse", "product"):
        plain = getattr(products, function)
        monkeypatch.setattr(
            products,
            function,
            lambda *a, _plain=plain, _name=function, **k: (calls.append(_name), _plain(*a, **k))[1],
        )
    net = clocked.fc(40, (48, 48), 20)
    clocked.SpatialBP(net).step(values(32, 40).abs(), torch.arange(32) % 20, steps=3)
    assert {"_sparse", "product"} <= set(calls)
    calls.clear()
    net(values(32, 40))
    assert not calls and isinstance(net, nn.Module)
