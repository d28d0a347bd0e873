"""Direct feedback stays direct: what would be backpropagation is refused, or allowed by name."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.clocked_cases import assert_same, learned, make_rule
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked
from threefactor.errors import ConfigurationError, InputError

DIRECT = ["dfa", "dkp", "zo-one-point", "opzo"]
direct = pytest.mark.parametrize("case", DIRECT)
GENERATOR = torch.Generator().manual_seed(1)
X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Custom(nn.Module):
    """A network from a function of its layers and one step of input."""

    input_shape = (6,)

    def __init__(self, call: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def linear(n: int, m: int) -> clocked.Linear:
    return clocked.Linear(n, m)


def lif() -> clocked.LIF:
    return clocked.LIF()


CHAINED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ReLU": (
        lambda: nn.Sequential(linear(6, 5), nn.ReLU(), linear(5, 3)),
        r"layer '2' gets its input from layer '0' .*'1', a ReLU",
    ),
    "nothing": (
        lambda: nn.Sequential(linear(6, 5), linear(5, 3)),
        r"layer '1' gets its input from layer '0' .*nothing at all",
    ),
    "a functional nonlinearity": (
        lambda: Custom(lambda m, x: m.b(F.relu(m.a(x))), a=linear(6, 5), b=linear(5, 3)),
        r"layer 'b' gets its input from layer 'a' .*relu",
    ),
    "a branch without a neuron": (
        lambda: Custom(
            lambda m, x: m.c(m.l(m.a(x))) + m.e(torch.tanh(m.d(x))),
            a=linear(6, 5), l=lif(), c=linear(5, 3), d=linear(6, 4), e=linear(4, 3),
        ),
        r"layer 'e' gets its input from layer 'd' .*tanh",
    ),
    "behind the neurons": (
        lambda: Custom(
            lambda m, x: m.c(m.b(m.l(m.a(x)))),
            a=linear(6, 5), l=lif(), b=linear(5, 4), c=linear(4, 3),
        ),
        r"layer 'c' gets its input from layer 'b'",
    ),
    "convolutions": (
        lambda: clocked.Network(
            OrderedDict(
                shape=nn.Unflatten(1, (1, 2, 3)), a=clocked.Conv2d(1, 4, 2), r=nn.ELU(),
                b=linear(8, 3),
            ),
            (6,),
        ),
        r"layer 'b' gets its input from layer 'a' .*'r', a ELU",
    ),
    "a product of currents": (
        lambda: Custom(
            lambda m, x: m.b(m.l(torch.bmm(m.a(x).unsqueeze(2), m.a2(x).unsqueeze(1)).flatten(1))),
            a=linear(6, 2), a2=linear(6, 2), l=lif(), b=linear(4, 3),
        ),
        r"\['a', 'a2'\] goes through a product",
    ),
    "a norm before weights": (
        lambda: nn.Sequential(linear(6, 5), lif(), nn.LayerNorm(5), linear(5, 3)),
        r"parameters \['2.bias', '2.weight'\] lie between .*layer '3'",
    ),
}  # fmt: skip
chained = pytest.mark.parametrize(("make", "message"), CHAINED.values(), ids=CHAINED)


@direct
@chained
def test_backpropagation_is_refused(case: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_rule(case, make(), input_shape=(6,))
    assert "chain=" in str(caught.value)


@direct
@chained
def test_backpropagation_is_allowed_by_name(case: str, make: Any, message: str) -> None:
    torch.manual_seed(0)
    network = make()
    rule = make_rule(case, network, input_shape=(6,), chain="within-layers")
    rule.step(X, Y, steps=4)
    assert all(p.grad is not None for p in network.parameters())


@chained
def test_spatial_bp_takes_such_networks(make: Any, message: str) -> None:
    """And for a network without neurons, every rule that may chain is the same."""
    torch.manual_seed(0)
    network = make()
    clocked.SpatialBP(network, input_shape=(6,)).step(X, Y, steps=4)
    assert all(p.grad is not None for p in network.parameters())
    if any(isinstance(m, clocked.Neuron) for m in network.modules()):
        return
    expected = {k: p.grad.clone() for k, p in network.named_parameters()}
    network.zero_grad()
    clocked.DFA(network, input_shape=(6,), chain="within-layers").step(X, Y, steps=4)
    assert_same(expected, {k: p.grad for k, p in network.named_parameters()}, rtol=1e-5)


@direct
def test_a_chain_that_shows_up_later_is_refused(case: str) -> None:
    """The network takes another way in training mode."""
    network = Custom(
        lambda m, x: m.c(m.b(torch.relu(m.a(x))) if m.training else m.b(m.l(m.a(x)))) * 0
        + m.e(m.l2(m.d(x))),
        a=linear(6, 5), l=lif(), b=linear(5, 5), c=linear(5, 3), d=linear(6, 4), l2=lif(),
        e=linear(4, 3),
    )  # fmt: skip
    with pytest.raises(InputError, match="chain"):
        make_rule(case, network).step(X, Y, steps=2)


ALLOWED: dict[str, Callable[[], nn.Module]] = {
    "no hidden layer": lambda: nn.Sequential(linear(6, 3)),
    "between weights and neurons": lambda: nn.Sequential(
        linear(6, 5), nn.LayerNorm(5), nn.Tanh(), lif(), linear(5, 3)
    ),
    "between neurons and weights, without parameters": lambda: nn.Sequential(
        linear(6, 5), lif(), nn.LayerNorm(5, elementwise_affine=False), linear(5, 3)
    ),
    "frozen before weights": lambda: nn.Sequential(
        linear(6, 5), lif(), nn.LayerNorm(5).requires_grad_(False), linear(5, 3)
    ),
}


def assigned(h: Tensor) -> Tensor:
    h[:, 0] = 2.0
    h[:, 1:3] *= 0.5
    return h


LOCAL: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffled channels": lambda h: F.channel_shuffle(h.view(-1, 6, 1, 1), 2).flatten(1),
    "the largest": lambda h: h.topk(4, 1).values.repeat(1, 2)[:, :6],
    "sorted": lambda h: h.sort(1).values,
    "less the log of a sum": lambda h: h - h.logsumexp(1, keepdim=True),
    "summed up": lambda h: h.cumsum(1),
    "hyperbolic": lambda h: h.sinh() + h.atan(),
    "a part assigned": assigned,
    "rounded as on hardware": lambda h: torch.fake_quantize_per_tensor_affine(h, 0.1, 0, -9, 9),
}


@pytest.mark.parametrize("call", LOCAL.values(), ids=LOCAL)
def test_operations_without_weights_are_direct(call: Callable[[Tensor], Tensor]) -> None:
    """And nothing but the chain rule carries the error of a layer through them."""
    torch.manual_seed(0)
    network = Custom(lambda m, x: m.b(m.l(call(m.a(x)))), a=linear(6, 6), l=lif(), b=linear(6, 3))
    rule = make_rule("dfa", network, trace_decay=0.0)
    x = 3 * X[:, :6]
    rule.step(x, Y, steps=1)
    weight = network.a.weight.detach().clone().requires_grad_()
    u = call(F.linear(x, weight, network.a.bias.detach()).clone())
    spikes = (u.detach() >= 1.0).float()
    o = F.linear(spikes, network.b.weight.detach(), network.b.bias.detach())
    _, error = clocked.CrossEntropyMSE()(o, Y)
    s = torch.sigmoid((u.detach() - 1.0) / 0.25)
    delta = (error / len(x)) @ rule.feedback[0].matrix * s * (1 - s) / 0.25
    (expected,) = torch.autograd.grad(u, weight, delta)
    assert expected.abs().max() > 0
    torch.testing.assert_close(network.a.weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_a_product_that_writes_to_a_part_of_a_tensor_is_refused() -> None:
    def call(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        h[:, :3].addmm_(m.c(x), torch.ones(3, 3))
        return m.b(m.l(h))  # type: ignore[no-any-return]

    network = Custom(call, a=linear(6, 5), c=linear(6, 3), l=lif(), b=linear(5, 3))
    with pytest.raises(InputError, match=r"\['a', 'c'\] goes through .*\(copyslices\)"):
        make_rule("dfa", network)


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
def test_a_gain_may_be_normalised(case: str) -> None:
    network = Custom(
        lambda m, x: m.b(m.l(m.a(x) * F.normalize(m.g, dim=0))), a=linear(6, 5), l=lif(),
        b=linear(5, 3), g=nn.Parameter(torch.rand(5)),
    )  # fmt: skip
    make_rule(case, network).step(X, Y, steps=3)
    assert network.g.grad.abs().max() > 0


@direct
@pytest.mark.parametrize("make", ALLOWED.values(), ids=ALLOWED)
def test_what_is_direct_is_allowed(case: str, make: Any) -> None:
    torch.manual_seed(0)
    network = make()
    make_rule(case, network, input_shape=(6,)).step(X, Y, steps=4)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None for p in trained)


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
def test_weights_outside_of_a_synapse_layer_are_refused(case: str) -> None:
    network = Custom(
        lambda m, x: m.b(m.l(F.linear(x, m.weight))), weight=nn.Parameter(torch.randn(5, 6)),
        l=lif(), b=linear(5, 3),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"\['weight'\] outside of a synapse layer"):
        make_rule(case, network)
    bilinear = Custom(
        lambda m, x: m.b(m.l(m.a(x) + F.bilinear(x, x, m.weight))), a=linear(6, 5), l=lif(),
        weight=nn.Parameter(torch.randn(5, 6, 6)), b=linear(5, 3),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"\['weight'\] outside of a synapse layer \(trilinear"):
        make_rule(case, bilinear)


SUMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "of the input": lambda m, x: m.b(m.l(m.a(x) + (x.unsqueeze(1) * m.w).sum(-1))),
    "averaged, the weights first": lambda m, x: m.b(m.l(m.a(x) + (m.w * x[:, None]).mean(2))),
    "of activities": lambda m, x: (
        m.b(m.l(m.a(x))) + (m.l2(m.c(x)).unsqueeze(1) * m.w).sum(2)[:, :3]
    ),
}


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
@pytest.mark.parametrize("call", SUMS.values(), ids=SUMS)
def test_products_in_two_operations_are_refused(case: str, call: Any) -> None:
    network = Custom(
        call, a=linear(6, 5), c=linear(6, 6), l=lif(), l2=lif(), b=linear(5, 3),
        w=nn.Parameter(torch.randn(5, 6)),
    )  # fmt: skip
    if "l2" not in call.__code__.co_names:
        del network.c, network.l2
    with pytest.raises(InputError, match=r"\['w'\] outside of a synapse layer \((sum|mean)\)"):
        make_rule(case, network)


def test_factors_that_are_summed_over_are_no_products() -> None:
    """A gain of each channel before pooling, and a mixture of currents."""
    network = Custom(
        lambda m, x: m.b(
            (m.l(m.a(x)).view(-1, 3, 2) * m.g).mean(2)
            + (torch.stack([m.c(x), m.d(x)]) * m.mix).sum(0)
        ),
        a=linear(6, 6), c=linear(6, 3), d=linear(6, 3), l=lif(), b=linear(3, 3),
        g=nn.Parameter(torch.rand(3, 1)), mix=nn.Parameter(torch.rand(2, 1, 1)),
    )  # fmt: skip
    clocked.SpatialBP(network).step(X, Y, steps=2)
    assert network.mix.grad.abs().max() > 0 and network.g.grad is not None


HIDDEN_PRODUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "of a function of weights": lambda m, h: h @ F.softplus(m.weight),
    "of a symmetric matrix": lambda m, h: h @ (m.weight + m.weight.t()),
    "by einsum": lambda m, h: torch.einsum("bi,ij->bj", h, m.weight.tril()),
    "by distance": lambda m, h: torch.cdist(h, m.weight),
}


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
@pytest.mark.parametrize("product", HIDDEN_PRODUCTS.values(), ids=HIDDEN_PRODUCTS)
@pytest.mark.parametrize("late", ["from the start", "in training mode only", "thawed later"])
def test_hidden_products_are_refused(case: str, product: Any, late: str) -> None:
    network = Custom(
        lambda m, x: m.b(m.l((lambda s: product(m, s) if m.on or m.training else s)(m.l0(m.a(x))))),
        a=linear(6, 5), l0=lif(), l=lif(), b=linear(5, 3), weight=nn.Parameter(torch.eye(5)),
        on=late != "in training mode only",
    )  # fmt: skip
    if late == "thawed later":
        network.weight.requires_grad_(False)
    rule = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if late != "from the start":
            rule = make_rule(case, network)
            network.weight.requires_grad_(True)
        with pytest.raises(InputError, match=r"\['weight'\] outside of a synapse layer"):
            (rule or make_rule(case, network)).step(X, Y, steps=2)
    assert network.weight.grad is None


class Mixing(torch.autograd.Function):
    """A product that autograd knows nothing of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x @ torch.full((5, 5), 0.3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad @ torch.full((5, 5), 0.3)


@direct
@pytest.mark.parametrize(
    "mix",
    [
        Mixing.apply,
        lambda c: c @ torch.full((5, 5), 0.3),
        lambda c: torch.fft.fft(c).real,
    ],
    ids=["a function of one's own", "a fixed matrix", "a Fourier transform"],
)
def test_currents_that_are_mixed_before_the_neurons(case: str, mix: Any) -> None:
    network = Custom(lambda m, x: m.b(m.l(mix(m.a(x)))), a=linear(6, 5), l=lif(), b=linear(5, 3))
    with pytest.raises(InputError, match=r"\['a'\] goes through a product or an unknown"):
        make_rule(case, network)
    make_rule(case, network, chain="within-layers").step(X, Y, steps=2)
    clocked.SpatialBP(network).step(X, Y, steps=2)


@direct
def test_a_weighted_sum_in_two_operations(case: str) -> None:
    network = Custom(
        lambda m, x: m.b(m.l((m.a(x).unsqueeze(2) * m.w).sum(1))), a=linear(6, 5), l=lif(),
        b=linear(5, 3), w=nn.Parameter(torch.randn(5, 5)),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"\['a'\] goes through"):
        make_rule(case, network)


@direct
def test_an_encoder_outside_of_the_network(case: str) -> None:
    encoder, network = nn.Linear(4, 6), nn.Sequential(linear(6, 5), lif(), linear(5, 3))
    raw = torch.rand(8, 4)
    rule = make_rule(case, network, input_shape=(6,))
    for inputs, steps in ((encoder(raw), 3), ((encoder(raw) for _ in range(3)), 3)):
        with pytest.raises(InputError, match=r"inputs\.detach"):
            rule.step(inputs, Y, steps=steps)
    assert encoder.weight.grad is None
    rule.step(encoder(raw).detach().requires_grad_(), Y, steps=3)


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
def test_the_gradient_of_an_input_does_not_depend_on_how_it_is_given(case: str) -> None:
    x = 4 * torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(2)).double()
    ways: dict[str, Callable[[Any, Tensor], object]] = {
        "one by one": lambda rule, leaf: rule.step([s.clone() for s in x], Y),
        "a sequence": lambda rule, leaf: rule.step(leaf, Y),
        "a list": lambda rule, leaf: rule.step(list(leaf), Y),
        "a stream": lambda rule, leaf: [rule.observe(leaf[t], Y, steps=3) for t in range(3)],
    }
    found = {}
    for way, step in ways.items():
        torch.manual_seed(0)
        network = nn.Sequential(linear(6, 5), lif(), linear(5, 3)).double()
        rule = make_rule(case, network, input_shape=(6,))
        leaf = x.clone().requires_grad_()
        step(rule, leaf)
        found[way] = {"input": leaf.grad, **learned(rule)} if way != "one by one" else learned(rule)
    plain = found.pop("one by one")
    for grads in found.values():
        assert_same(found["a sequence"], grads)
        assert_same(plain, {k: grads[k] for k in plain})


def test_what_is_frozen_when_the_rule_is_built_has_its_place_all_the_same() -> None:
    found = []
    for frozen in (True, False):
        network = spiking_output()
        network.requires_grad_(not frozen)
        torch.manual_seed(3)
        rule = clocked.DFA(network)
        assert list(rule.layer_sizes) == ["la"]
        assert all(p.requires_grad != frozen for p in network.parameters())
        network.requires_grad_(True)
        assert "never" not in rule.describe()
        rule.step(X.double(), Y, steps=3)
        found.append(learned(rule))
    assert_same(*found)


def test_a_thawed_parameter_of_a_neuron_is_refused() -> None:
    network = nn.Sequential(linear(6, 5), Gain(), linear(5, 3))
    network[1].gain.requires_grad_(False)
    rule = clocked.DFA(network, input_shape=(6,))
    network[1].gain.requires_grad_(True)
    with pytest.raises(InputError, match=r"\['1.gain'\]"):
        rule.step(X, Y, steps=2)


class Count(nn.Module):
    """Counts its calls in a buffer that it rebinds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return x


def test_buffers_of_the_network_count_once() -> None:
    """Not when the rule is built, once a step with a second pass, and not if a step fails."""
    network = nn.Sequential(linear(6, 5), Count(), nn.BatchNorm1d(5), lif(), linear(5, 3))
    rule = clocked.ZO(network, input_shape=(6,), points="two-point")
    assert network[1].calls == 0
    rule.step(X, Y, steps=3)
    assert network[1].calls == 3 and network[2].num_batches_tracked == 3
    mean = network[2].running_mean.clone()
    with pytest.raises(InputError):
        rule.step(iter([X, X * float("nan")]), Y, steps=2)
    assert network[1].calls == 3 and torch.equal(network[2].running_mean, mean)


def test_dropout_that_two_passes_do_not_share_is_refused() -> None:
    network = nn.Sequential(linear(6, 5), lif(), nn.Dropout(0.5), linear(5, 3))
    rule = clocked.OPZO(network, input_shape=(6,), points="two-point")
    with pytest.raises(InputError, match="'2' is a Dropout, which draws another mask"):
        rule.step(X, Y, steps=2)
    network.eval()
    rule.step(X, Y, steps=2)
    clocked.OPZO(network.train(), input_shape=(6,)).step(X, Y, steps=2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda x, on: torch.nn.functional.dropout(x, 0.5, on),
        lambda x, on: torch.nn.functional.rrelu(x - 0.5, training=on),
        lambda x, on: x + torch.randn(x.shape, generator=GENERATOR, dtype=x.dtype) if on else x,
    ],
    ids=["dropout", "rrelu", "noise"],
)
def test_other_draws_that_two_passes_do_not_share_are_refused(draw: Any) -> None:
    """In training mode alone, and after it was fine in evaluation mode."""

    class Drawing(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](draw(self[1](self[0](x)), self.training))

    network = Drawing(linear(6, 5), lif(), linear(5, 3)).eval()
    rules = [clocked.OPZO(network, input_shape=(6,), points="two-point")]
    rules.append(clocked.ZO(network, input_shape=(6,), points="one-sided"))
    for rule in rules:
        rule.step(X, Y, steps=2)
        network.train().zero_grad()
        for _ in range(2):
            with pytest.raises(InputError, match="draws random numbers of its own"):
                rule.step(X, Y, steps=2)
        assert all(p.grad is None for p in network.parameters())
        network.eval()
    clocked.OPZO(network.train(), input_shape=(6,)).step(X, Y, steps=2)


def test_an_unknown_chain() -> None:
    with pytest.raises(ConfigurationError, match="within-layers"):
        clocked.DFA(clocked.fc(6, (5,), 3), chain="within")


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
def test_parameters_that_nothing_teaches_are_named(case: str) -> None:
    network = Custom(
        lambda m, x: m.b(m.l(m.a(x))), a=linear(6, 5), l=lif(), b=linear(5, 3), norm=nn.LayerNorm(5)
    )
    with pytest.warns(UserWarning, match=r"\['norm.weight', 'norm.bias'\] nothing") as caught:
        rule = make_rule(case, network)
    assert "reference" in caught[0].filename  # the caller's line, not the library's
    assert "norm.weight" in rule.describe()
    network.norm.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_rule(case, network)


class Gain(clocked.LIF):
    """A neuron with a parameter that `advance`, which runs without autograd, uses."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().advance(current * self.gain.detach(), noise)


@pytest.mark.parametrize("case", ["spatial-bp", *DIRECT])
def test_a_neurons_own_parameters(case: str) -> None:
    network = nn.Sequential(linear(6, 5), Gain(), linear(5, 3))
    with pytest.raises(InputError, match=r"'1' has the trainable parameters \['1.gain'\]"):
        make_rule(case, network, input_shape=(6,))
    network[1].gain.requires_grad_(False)
    make_rule(case, network, input_shape=(6,)).step(X, Y, steps=3)


@pytest.mark.parametrize("setting", ["leak", "threshold"])
def test_a_parameter_is_not_taken_for_a_constant(setting: str) -> None:
    message = f"{setting} is a Parameter that needs a gradient; .*learn_{setting}=True"
    with pytest.raises(InputError, match=message):
        clocked.LIF(**{setting: nn.Parameter(torch.tensor(0.5))})
    neuron = clocked.LIF()
    with pytest.raises(InputError, match=message):
        setattr(neuron, setting, nn.Parameter(torch.full((5,), 0.5)))
    assert not list(neuron.parameters()) and not list(neuron.buffers())


@pytest.mark.parametrize("setting", ["surrogate_width", "scale", "dropout"])
def test_settings_of_neurons_are_numbers(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting} is a Parameter"):
        clocked.LIF(**{setting: nn.Parameter(torch.tensor(0.5))})
    network = clocked.fc(6, (5,), 3)
    rule = clocked.DFA(network)
    setattr(network.lif1, setting, torch.tensor(0.5))
    with pytest.raises(InputError, match=f"{setting} of layer 'lif1' is a Tensor"):
        rule.step(X, Y, steps=2)
    with pytest.raises(InputError, match=f"{setting} of layer 'lif1' is a Tensor"):
        clocked.run(network, X, steps=2)


def test_describe(capsys: pytest.CaptureFixture[str]) -> None:
    network = clocked.fc(6, (5, 4), 3)
    network.linear1.bias.requires_grad_(False)
    rule = clocked.OPZO(network, local_learning="fixed")
    text = rule.describe()
    assert capsys.readouterr().out == text + "\n"
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "M e" in lines["lif1"] and "0.01 times the error of its own read-out" in lines["lif1"]
    assert lines["linear1.weight"].endswith("error of lif1; trace of the input")
    assert lines["linear1.bias"].endswith("never: it is frozen, requires_grad is False")
    assert "error of output;" in lines["readout.weight"]
    assert lines["feedback.0.matrix"].endswith("learns within the rule")
    assert lines["readouts.0.feedback"].endswith("fixed")
    assert lines["readouts.0.weight"].endswith("learns by the optimiser")
    names = {n for n, _ in (*network.named_parameters(), *rule.named_parameters())}
    assert names <= set(lines)


def test_describe_of_backpropagation_and_of_chains() -> None:
    network = clocked.nf_resnet34((2, 16, 16), 3, width=0.05, depths=(1, 1, 1, 1))
    text = clocked.DFA(network, chain="within-layers").describe()
    far = "error of output, backpropagated through other weights; trace of the input"
    assert f"stage4_block1.conv2.weight {far}" in " ".join(text.split())
    assert "stage1_block1.gain" in text and "no trace" in text
    text = clocked.SpatialBP(clocked.fc(6, (5,), 3)).describe()
    assert f"linear1.weight {far}" in " ".join(text.split())
    assert "readout.weight error of output; trace of the input" in " ".join(text.split())


def spiking_output(hidden: bool = True) -> clocked.Network:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {"a": linear(6, 5), "la": lif()} if hidden else {}
    layers |= {"b": linear(5 if hidden else 6, 3), "lb": lif()}
    network = clocked.Network(OrderedDict(layers), (6,)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0)
    return network


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("hidden", [True, False])
@direct
def test_a_last_layer_that_spikes_learns_from_its_own_error(
    case: str, hidden: bool, static: bool
) -> None:
    """Its gradient is that of backpropagation, and it has neither feedback nor noise."""
    x = X.double() if static else torch.stack([X.double() * f for f in (1, 0.5, 2)])
    steps = 3 if static else None
    network = spiking_output(hidden)
    rule = make_rule(case, network)
    assert list(rule.layer_sizes) == (["la"] if hidden else [])
    assert "lb (output neurons)" in rule.describe()
    if rule.perturbation is not None:
        rule.perturbation.scale = 1e-9  # the spikes of both passes are then the same
    result = rule.step(x, Y, steps=steps)
    assert set(result.firing_rates) == ({"la", "lb"} if hidden else {"lb"})
    assert 0.02 < float(result.firing_rates["lb"]) < 0.98
    assert set(result.output.flatten().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    other = spiking_output(hidden)
    clocked.SpatialBP(other).step(x, Y, steps=steps)
    expected = {k: p.grad for k, p in other.b.named_parameters()}
    assert_same(expected, {k: p.grad for k, p in network.b.named_parameters()}, rtol=1e-6)


def test_neurons_that_are_output_and_hidden_stay_hidden() -> None:
    network = Custom(lambda m, x: (lambda s: m.b(s) + s)(m.l(m.a(x))), a=linear(6, 3), l=lif(),
                     b=linear(3, 3))  # fmt: skip
    rule = clocked.DFA(network)
    assert list(rule.layer_sizes) == ["l"]
    rule.step(X, Y, steps=3)
    assert learned(rule)
