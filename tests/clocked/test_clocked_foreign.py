"""Networks of other libraries' layers, against a plain loop that runs them layer by layer."""

import copy
import pickle
import re

import pytest
import torch
from reference.foreign import PRODUCTS as PRODUCT_KINDS
from reference.foreign import learn
from torch import nn
from torch.nn.utils import parametrizations

from threefactor import clocked
from threefactor.clocked.foreign import layers_of
from threefactor.errors import InputError

STEPS = 7


def linear(n_in, n_out):
    """A layer of PyTorch whose neurons spike now and then."""
    layer = nn.Linear(n_in, n_out)
    nn.init.normal_(layer.weight, 0.1, 0.6 / n_in**0.5)
    nn.init.uniform_(layer.bias, -0.1, 0.3)
    return layer


class Own(nn.Module):
    """A neuron of a user's own, in plain PyTorch, with a triangle as surrogate."""

    def __init__(self, leak=0.7):
        super().__init__()
        self.leak, self.v = leak, None

    def forward(self, x):
        v = x if self.v is None else self.leak * self.v + x
        soft = torch.clamp(v, 0.0, 2.0) - 0.5 * torch.clamp(v - 1.0, 0.0, 1.0)
        spikes = (v >= 1.0).to(x) + soft - soft.detach()
        self.v = v - spikes.detach()
        return spikes


clocked.register_neuron(Own, state=("v",), leak=lambda layer: layer.leak)


def own():
    return Own()


def leaky(**options):
    snn = pytest.importorskip("snntorch")
    options = {"beta": 0.6, "init_hidden": True, "spike_grad": snn.surrogate.atan(), **options}
    return snn.Leaky(**options)


def lapicque():
    snn = pytest.importorskip("snntorch")
    return snn.Lapicque(R=1.0, C=3.0, init_hidden=True, spike_grad=snn.surrogate.fast_sigmoid(5))


def synaptic(**options):
    snn = pytest.importorskip("snntorch")
    options = {"init_hidden": True, "spike_grad": snn.surrogate.sigmoid(4), **options}
    return snn.Synaptic(alpha=0.5, beta=0.8, **options)


def jelly(kind="LIFNode", **options):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    return getattr(neuron, kind)(**options)


def norse(kind, **options):
    torch_norse = pytest.importorskip("norse.torch")
    p = {
        "LIFBoxCell": lambda: torch_norse.LIFBoxParameters(tau_mem_inv=torch.tensor(400.0)),
        "LIFCell": lambda: torch_norse.LIFParameters(
            tau_mem_inv=torch.tensor(500.0), tau_syn_inv=torch.tensor(300.0)
        ),
    }[kind]()
    return getattr(torch_norse, kind)(p=p, dt=0.001)


def sinabs(kind="LIF", **options):
    layers = pytest.importorskip("sinabs.layers")
    return getattr(layers, kind)(**options)


NEURONS = {
    "own": (own, 0.7, None),
    "snntorch leaky, reset delayed": (leaky, 0.6, None),
    "snntorch leaky, reset at once": (lambda: leaky(reset_delay=False), 0.6, None),
    "snntorch leaky, reset to zero": (lambda: leaky(reset_mechanism="zero"), 0.6, None),
    "snntorch leaky without reset": (lambda: leaky(reset_mechanism="none"), 0.6, None),
    "snntorch leaky, a threshold each": (lambda: leaky(threshold=torch.tensor([0.8])), 0.6, None),
    "snntorch lapicque": (lapicque, 1 - 1 / 3, None),
    "snntorch synaptic": (synaptic, 0.8, 0.5),
    "spikingjelly LIF, hard": (lambda: jelly(tau=2.5), 1 - 1 / 2.5, None),
    "spikingjelly LIF, soft": (
        lambda: jelly(tau=2.0, decay_input=False, v_reset=None),
        0.5,
        None,
    ),
    "spikingjelly LIF, rest elsewhere": (lambda: jelly(tau=2.0, v_reset=-0.2), 0.5, None),
    "spikingjelly LIF, steps at once": (lambda: jelly(tau=2.0, step_mode="m"), 0.5, None),
    "spikingjelly IF": (lambda: jelly("IFNode"), 1.0, None),
    "spikingjelly PLIF": (lambda: jelly("ParametricLIFNode", init_tau=2.0), 0.5, None),
    "norse LIFBox": (lambda: norse("LIFBoxCell"), 0.6, None),
    "norse LIF": (lambda: norse("LIFCell"), 0.5, 0.7),
    "sinabs LIF": (lambda: sinabs(tau_mem=2.0), 0.6065306597, None),
    "sinabs LIF, single spikes": (
        lambda: sinabs(tau_mem=2.0, norm_input=False, spike_fn=single_spike()),
        0.6065306597,
        None,
    ),
    "sinabs LIF with a current": (
        lambda: sinabs(tau_mem=3.0, tau_syn=2.0),
        0.7165313,
        0.6065306597,
    ),
    "sinabs IAF": (lambda: sinabs("IAF"), 1.0, None),
    "sinabs IAF, squeezed": (lambda: sinabs("IAFSqueeze", batch_size=4), 1.0, None),
}


def single_spike():
    return pytest.importorskip("sinabs.activation").SingleSpike


def reset(network):
    for module in network.modules():
        if isinstance(module, Own):
            module.v = None


RULES = ["spatial-bp", "dfa"]
PRODUCTS = {
    "linear": (lambda: linear(8, 12), lambda: linear(12, 9), (8,)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), lambda: linear(24, 9), (2, 8)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, padding=1), lambda: linear(64, 9), (2, 4, 4)),
    "conv2d, circular, strided, grouped": (
        lambda: nn.Conv2d(2, 8, 3, 2, padding=1, groups=2, padding_mode="circular"),
        lambda: linear(72, 9),
        (2, 6, 6),
    ),
    "conv2d, padding same": (
        lambda: nn.Conv2d(2, 2, 2, padding="same"),
        lambda: linear(32, 9),
        (2, 4, 4),
    ),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), lambda: linear(2 * 8, 9), (1, 3, 3, 3)),
    "transposed": (
        lambda: nn.ConvTranspose2d(2, 3, 2, 2, output_padding=1, bias=False),
        lambda: linear(3 * 49, 9),
        (2, 3, 3),
    ),
}


def build(make_neuron, product="linear", gain=1.0):
    first, second, shape = PRODUCTS[product]
    torch.manual_seed(3)
    flatten = [] if product == "linear" else [nn.Flatten()]
    layers = [first(), make_neuron(), *flatten, second(), make_neuron(), linear(9, 3)]
    with torch.no_grad():
        for layer in layers:
            if hasattr(layer, "weight") and isinstance(layer.weight, nn.Parameter):
                layer.weight.mul_(gain)
    if type(layers[1]).__module__.startswith("norse"):  # whose cells return their state, too
        return pytest.importorskip("norse.torch").SequentialState(*layers), shape
    return nn.Sequential(*layers), shape


def is_neuron(layer):
    return not isinstance(layer, (*PRODUCT_KINDS, nn.Flatten))


def compare(network, shape, rule_name, leak, synaptic_leak, tolerance):
    inputs = 2.5 * torch.rand(STEPS, 4, *shape)
    labels = torch.tensor([0, 2, 1, 1])
    options = {"feedback_scale": 0.5} if rule_name == "dfa" else {}
    rule = clocked.RULES[rule_name](network, input_shape=shape, **options)
    feedback = [part.matrix.detach() for part in getattr(rule, "feedback", [])]
    expected = learn(
        network, list(inputs), labels, leak, rule=rule_name, is_neuron=is_neuron,
        synaptic_leak=synaptic_leak, feedback=feedback,
    )  # fmt: skip
    result = rule.step(inputs, labels)
    assert min(expected.rates) > 0.01, expected.rates  # there is something to compare
    torch.testing.assert_close(
        torch.stack(list(result.firing_rates.values())).double(),
        torch.tensor(expected.rates, dtype=torch.float64),
        rtol=1e-5,
        atol=1e-7,
    )
    learned = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert learned.keys() == expected.gradients.keys()
    for name, reference in expected.gradients.items():
        largest = reference.abs().max().item()
        assert largest > 0
        assert (learned[name] - reference).abs().max().item() <= tolerance * largest, name


@pytest.mark.filterwarnings("ignore:.*no error reaches:UserWarning")
@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("which", NEURONS)
def test_gradients_with_the_neurons_of_other_libraries(which, rule_name):
    make, leak, synaptic_leak = NEURONS[which]
    network, shape = build(make, gain=3.0 if "norse" in which or "sinabs" in which else 1.5)
    keys = {name: value.clone() for name, value in network.state_dict().items()}
    compare(network, shape, rule_name, leak, synaptic_leak, 2e-6)
    after = network.state_dict()
    assert list(after) == list(keys) and all(torch.equal(after[k], v) for k, v in keys.items())
    assert not any("forward" in vars(m) or "pathway" in vars(m) for m in network.modules())


@pytest.mark.parametrize("which", NEURONS)
@pytest.mark.parametrize(
    "late",
    [
        {
            "feedback_delay": 2,
            "feedback_meets": "kept-eligibility",
            "late_errors": "delivered",
        },
        {"label_delay": 2},
    ],
    ids=["errors", "labels"],
)
def test_a_time_step_is_kept_until_its_error_or_label_comes(which, late):
    make_neuron, decay, _ = NEURONS[which]
    x = 2 * torch.randn(STEPS, 4, 8, generator=torch.Generator().manual_seed(4))
    y = torch.tensor([0, 1, 2, 0])
    found = []
    for options in ({}, late):
        network, shape = build(make_neuron, gain=2.5)
        torch.manual_seed(5)
        rule = clocked.DFA(network, input_shape=shape, trace_decay=decay, **options)
        if "label_delay" in options:
            for t in range(STEPS + 2):
                rule.observe(x[t % STEPS], y if t >= 2 else None, steps=STEPS)
        else:
            rule.step(x, y)
        found.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    in_time, late_ones = found
    assert in_time.keys() == late_ones.keys()
    for name, grad in in_time.items():
        assert grad.abs().max() > 0
        torch.testing.assert_close(
            late_ones[name], grad, rtol=2e-6, atol=2e-6 * float(grad.abs().max())
        )


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("product", PRODUCTS)
def test_gradients_of_the_layers_of_pytorch(product, rule_name):
    torch.set_default_dtype(torch.float64)
    try:
        network, shape = build(own, product, gain=2.5)
        compare(network, shape, rule_name, 0.7, None, 1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def twins(make_neuron, recurrent=False):
    """A network of this library, and the same of PyTorch's layers with other neurons."""
    torch.manual_seed(0)
    ours = clocked.fc(12, (20, 15), 5, leak=0.5, threshold=1.0, recurrent=recurrent)
    products = [m for m in ours if isinstance(m, clocked.Linear)]
    # Potentials stay below twice the threshold, beyond which snnTorch resets twice.
    with torch.no_grad():
        products[0].bias.add_(0.4)
        products[1].weight.mul_(1.5)
        products[1].bias.add_(0.2)
        for layer in ours:
            if isinstance(layer, clocked.Recurrent):
                layer.synapse.weight.mul_(0.3)
    layers = []
    for layer in ours:
        if isinstance(layer, clocked.Linear):
            layers.append(nn.Linear(layer.in_features, layer.out_features))
        elif isinstance(layer, clocked.Recurrent):
            n = layer.synapse.in_features
            layers.append(clocked.Recurrent(make_neuron(), nn.Linear(n, n, bias=False)))
        else:
            layers.append(make_neuron())
    theirs = nn.Sequential(*layers)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        q.data.copy_(p.data)
    return ours, theirs


SAME_AS_LIF = {
    "spikingjelly": lambda: jelly(
        tau=2.0,
        decay_input=False,
        v_threshold=1.0,
        v_reset=None,
        surrogate_function=pytest.importorskip("spikingjelly.activation_based.surrogate").Sigmoid(
            4.0
        ),
    ),
    "snntorch": lambda: leaky(
        beta=0.5,
        reset_delay=False,
        spike_grad=pytest.importorskip("snntorch.surrogate").sigmoid(4),
    ),
}
EVERY_RULE = {
    "spatial-bp": {},
    "dfa": {},
    "dfa, local learning": {"local_learning": "learned"},
    "dkp": {},
    "zo": {"generator": 3},
    "opzo": {"generator": 3},
    "opzo, two points": {"generator": 3, "points": "two-point"},
    "opzo, noise before": {"generator": 3, "noise_position": "before", "noise_scale": 0.05},
}


@pytest.mark.parametrize("recurrent", [False, True], ids=["", "recurrent"])
@pytest.mark.parametrize("which", EVERY_RULE)
@pytest.mark.parametrize("library", SAME_AS_LIF)
def test_every_rule_as_on_our_own_layers(library, which, recurrent):
    ours, theirs = twins(SAME_AS_LIF[library], recurrent)
    # snnTorch computes spikes and surrogates in single precision, whatever the network.
    dtype, tolerance = (torch.float32, 3e-6) if library == "snntorch" else (torch.float64, 1e-12)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    inputs, labels = torch.rand(7, 12, dtype=dtype), torch.randint(5, (7,))
    made = []
    for network in (ours, theirs):
        options = dict(EVERY_RULE[which])
        if "generator" in options:
            options["generator"] = torch.Generator().manual_seed(options["generator"])
        torch.manual_seed(1)
        rule = clocked.RULES[which.split(",")[0]](network, input_shape=(12,), **options)
        rule.step(inputs, labels, steps=6)
        varying = torch.rand(4, 7, 12, generator=torch.Generator().manual_seed(2))
        rule.step(varying.to(dtype), labels)
        result = [rule.observe(inputs, labels) for _ in range(6)][-1]
        made.append((rule, result))
    (mine, result), (other, their_result) = made
    assert min(result.firing_rates.values()) > 0.02
    torch.testing.assert_close(result.output, their_result.output)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert p.grad.abs().max() > 0
        assert (p.grad - q.grad).abs().max() <= tolerance * p.grad.abs().max()
    for (name, value), their_value in zip(
        mine.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, their_value, msg=name)


@pytest.mark.parametrize("library", SAME_AS_LIF)
def test_a_run_and_an_error_leave_nothing_behind(library):
    _, network = twins(SAME_AS_LIF[library])
    inputs, labels = torch.rand(7, 12), torch.randint(5, (7,))
    before = copy.deepcopy(network)
    plain = [dict(vars(m)) for m in network.modules()]
    rule = clocked.DFA(network, input_shape=(12,))
    expected = clocked.run(network, inputs, steps=5).output
    fail = network[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rule.step(inputs, labels, steps=3)
    fail.remove()
    assert all(p.grad is None for p in network.parameters())
    for module, attributes in zip(network.modules(), plain, strict=True):
        # snnTorch's own forward pass makes an attribute `reset`
        assert vars(module).keys() - {"reset"} == attributes.keys() - {"reset"}
        assert "forward" not in vars(module)
    assert torch.equal(clocked.run(network, inputs, steps=5).output, expected)
    rule.step(inputs, labels, steps=3)
    fresh = clocked.DFA(before, input_shape=(12,))
    fresh.load_state_dict(rule.state_dict())
    fresh.step(inputs, labels, steps=3)
    for p, q in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("library", SAME_AS_LIF)
def test_a_stream_that_is_reset_from_outside_is_refused(library):
    _, network = twins(SAME_AS_LIF[library])
    rule = clocked.DFA(network, input_shape=(12,))
    inputs, labels = 2 * torch.rand(7, 12), torch.randint(5, (7,))
    rule.observe(inputs, labels)
    clocked.run(network, inputs, steps=3)  # leaves the stream alone
    rule.observe(inputs, labels)
    if library == "snntorch":
        pytest.importorskip("snntorch.utils").reset(network)
    else:
        pytest.importorskip("spikingjelly.activation_based.functional").reset_net(network)
    with pytest.raises(InputError, match="reset or run from outside"):
        rule.observe(inputs, labels)
    rule.reset()
    rule.observe(inputs, labels)


def test_a_copy_made_in_the_middle_is_a_plain_network():
    _, network = twins(own)
    rule = clocked.DFA(network, input_shape=(12,))
    inputs, labels = torch.rand(7, 12), torch.randint(5, (7,))
    copies = []
    rule.step(inputs, labels, steps=2, after_step=lambda: copies.append(copy.deepcopy(network)))
    reset(copies[0])
    found = clocked.run(copies[0], inputs, steps=3).output
    assert torch.equal(found, clocked.run(network, inputs, steps=3).output)
    plain = copies[0]
    reset(plain)
    by_hand = sum(plain(inputs) for _ in range(3))
    torch.testing.assert_close(by_hand, found)
    pickle.loads(pickle.dumps(rule))


class ExplicitState(nn.Module):
    """snnTorch's way to keep the state outside of the neurons."""

    input_shape = (12,)

    def __init__(self, keep=True):
        super().__init__()
        self.fc1, self.lif1 = linear(12, 9), leaky(init_hidden=False)
        self.fc2, self.keep, self.mem = linear(9, 3), keep, None

    def forward(self, x):
        mem = self.mem if self.keep else torch.zeros(len(x), 9)
        spikes, self.mem = self.lif1(self.fc1(x), mem)
        return self.fc2(spikes)


@pytest.mark.parametrize("how", ["copied", "pickled"])
def test_a_copy_of_a_rule_shares_the_layers_of_its_network(how):
    """With all who work on the copied network later, as the rule that it is a copy of does."""
    torch.manual_seed(0)
    network = nn.Sequential(linear(12, 9), Own(), linear(9, 3))
    rule = clocked.SpatialBP(network, input_shape=(12,))
    inputs, labels = 2 * torch.rand(5, 4, 12), torch.tensor([0, 1, 2, 0])
    rule.step(inputs, labels)
    made = copy.deepcopy(rule) if how == "copied" else pickle.loads(pickle.dumps(rule))
    made.network.zero_grad()
    assert layers_of(made.network) == made._session.layers
    made.step(inputs, labels, after_step=lambda: clocked.run(made.network, inputs))
    for p, q in zip(network.parameters(), made.network.parameters(), strict=True):
        assert p.grad.abs().max() > 0
        torch.testing.assert_close(q.grad, p.grad)
    made.network.append(nn.Identity())  # which is no other layer
    made.step(inputs, labels)


def test_a_copy_of_a_rule_on_computed_weights():
    torch.manual_seed(0)
    network = nn.Sequential(linear(12, 9), Own(), linear(9, 3))
    parametrizations.weight_norm(network[0])
    rule = clocked.SpatialBP(network, input_shape=(12,))
    made = copy.deepcopy(rule)
    inputs, labels = 2 * torch.rand(5, 4, 12), torch.tensor([0, 1, 2, 0])
    for one in (rule, made):
        one.step(inputs, labels)
    for p, q in zip(network.parameters(), made.network.parameters(), strict=True):
        assert p.grad.abs().max() > 0 and torch.equal(p.grad, q.grad)


class Told(nn.Module):
    """A neuron that a user describes, with one thing or another about it."""

    def __init__(self, what):
        super().__init__()
        self.what, self.v = what, None
        self.inner = nn.Linear(9, 9) if what == "weights" else nn.Identity()

    def forward(self, x):
        v = self.inner(x) if self.v is None else 0.7 * self.v + self.inner(x)
        soft = torch.sigmoid(4 * (v - 1))
        spikes = (v >= 1.0).to(x) + soft - soft.detach()
        self.v = v - spikes.detach()
        return (spikes, v) if self.what == "tuple" else spikes


def of_each(layer):
    return torch.linspace(0.5, 0.9, 9) if layer.what == "leaks" else 0.7


clocked.register_neuron(Told, state=("v",), leak=of_each)


@pytest.mark.parametrize("rule_name", RULES)
def test_weights_inside_of_neurons_are_a_part_of_them(rule_name):
    """They act, and errors go back through them to the current; no rule teaches them."""
    torch.manual_seed(0)
    network = nn.Sequential(linear(12, 9), Told("weights"), linear(9, 3))
    inputs, labels = 4 * torch.rand(STEPS, 4, 12), torch.tensor([0, 1, 2, 0])
    with pytest.warns(UserWarning, match=r"\['1.inner.weight', '1.inner.bias'\] nothing"):
        rule = clocked.RULES[rule_name](network, input_shape=(12,))
    feedback = [part.matrix.detach() for part in getattr(rule, "feedback", [])]
    expected = learn(
        network, list(inputs), labels, 0.7, rule=rule_name, is_neuron=is_neuron, feedback=feedback
    )
    rule.step(inputs, labels)
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == expected.gradients.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    for name, wanted in expected.gradients.items():
        assert wanted.abs().max() > 0
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.filterwarnings("ignore:.*no error reaches:UserWarning")
def test_a_second_pass_through_weights_inside_of_neurons():
    network = nn.Sequential(linear(12, 9), Told("weights"), linear(9, 3))
    rule = clocked.ZO(network, points="two-point", input_shape=(12,))
    rule.step(torch.rand(STEPS, 4, 12), torch.tensor([0, 1, 2, 0]))
    assert network[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("what", "message"),
    [("tuple", "'1', a Told, returned a tuple"), ("leaks", "'1' has no single leak")],
)
def test_neurons_that_were_described_otherwise_are_refused(what, message):
    network = nn.Sequential(linear(12, 9), Told(what), linear(9, 3))
    with pytest.raises(InputError, match=message):
        clocked.DFA(network, input_shape=(12,))


def test_a_graded_spike_is_one_spike():
    rates = []
    for factor in (1.0, 2.5):
        torch.manual_seed(0)
        network = nn.Sequential(linear(12, 9), leaky(graded_spikes_factor=factor), linear(9, 3))
        result = clocked.run(network, 3 * torch.rand(STEPS, 4, 12))
        rates.append(float(result.firing_rates["1"]))
    assert rates[0] == rates[1] > 0.02


def test_explicit_state_is_the_same_as_hidden_state():
    torch.manual_seed(0)
    network = ExplicitState()
    hidden = nn.Sequential(
        copy.deepcopy(network.fc1), leaky(init_hidden=True), copy.deepcopy(network.fc2)
    )
    inputs, labels = torch.rand(5, 4, 12), torch.tensor([0, 1, 2, 0])
    rules = [clocked.SpatialBP(n, input_shape=(12,)) for n in (network, hidden)]
    for rule in rules:
        result = rule.step(inputs, labels)
    assert next(iter(result.firing_rates.values())) > 0.02
    for p, q in zip(network.parameters(), hidden.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    assert network.mem is None  # as it was
    with pytest.raises(InputError, match="another state than it returned"):
        clocked.SpatialBP(ExplicitState(keep=False)).step(inputs, labels)


def test_networks_that_return_the_states_too():
    norse_torch = pytest.importorskip("norse.torch")
    torch.manual_seed(0)
    cell = lambda: norse("LIFBoxCell")  # noqa: E731
    layers = [linear(12, 9), cell(), linear(9, 3)]
    network = norse_torch.SequentialState(*copy.deepcopy(layers))
    with_state = nn.Sequential(linear(12, 3), leaky(init_hidden=True, output=True))
    inputs, labels = 9 * torch.rand(5, 4, 12), torch.tensor([0, 1, 2, 0])
    result = clocked.DFA(network, input_shape=(12,)).step(inputs, labels)
    assert result.output.shape == (4, 3) and result.firing_rates["1"] > 0.02
    assert clocked.DFA(with_state, input_shape=(12,)).step(inputs, labels).output.shape == (4, 3)


class LoopsOverTime(nn.Module):
    input_shape = (12,)

    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.out = linear(12, 9), leaky(), linear(9, 3)

    def forward(self, x):
        return sum(self.out(self.lif(self.fc(x))) for _ in range(4))


class InAList(nn.Module):
    input_shape = (12,)

    def __init__(self):
        super().__init__()
        self.fc, self.neurons, self.out = linear(12, 9), [own()], linear(9, 3)

    def forward(self, x):
        return self.out(self.neurons[0](self.fc(x)))


class WithFunction(nn.Module):
    input_shape = (12,)

    def __init__(self):
        super().__init__()
        self.fc, self.lif = linear(12, 9), own()
        self.weight = nn.Parameter(torch.randn(3, 9))

    def forward(self, x):
        return nn.functional.linear(self.lif(self.fc(x)), self.weight)


def replaced_forward():
    layer = linear(9, 3)
    layer.forward = lambda x: x
    return layer


def compiled():
    layer = linear(9, 3)
    layer.compile()
    return layer


class Hidden(nn.Module):
    """Neurons where PyTorch does not find them, behind one thing or another."""

    input_shape = (12,)

    def __init__(self, place):
        super().__init__()
        self.fc, self.out, self.place = linear(12, 9), linear(9, 3), place
        neuron = Own()
        if place == "nested":
            self.kept = {"all": [(neuron,)]}
        elif place == "object":
            self.kept = type("Box", (), {"neuron": neuron})()
        else:
            self.kept = lambda x: neuron(x)

    def forward(self, x):
        neuron = self.kept
        if self.place == "nested":
            neuron = self.kept["all"][0][0]
        elif self.place == "object":
            neuron = self.kept.neuron
        return self.out(neuron(self.fc(x)))


def inside(wrap, i=0):
    layers = [linear(12, 9), own(), linear(9, 3)]
    layers[i] = wrap(layers[i])
    return nn.Sequential(*layers)


def compiled_whole():
    network = inside(lambda layer: layer)
    network.compile()
    return network


def quantised():
    return torch.ao.quantization.quantize_dynamic(inside(lambda layer: layer), {nn.Linear})


REFUSED = {
    "neurons in a list in a dict": (
        lambda: Hidden("nested"),
        "'kept', a plain dict, where PyTorch",
    ),
    "compiled as a whole": (compiled_whole, r"the network is compiled \(Sequential.compile\)"),
    "compiled by torch.compile": (
        lambda: torch.compile(inside(lambda layer: layer)),
        "network is compiled .OptimizedModule",
    ),
    "a compiled layer inside": (lambda: inside(torch.compile), "layer '0' is compiled .Optimized"),
    "compiled neurons inside": (lambda: inside(torch.compile, 1), "layer '1' is compiled"),
    "quantised": (quantised, "layer '0' is quantised"),
    "DataParallel": (
        lambda: nn.DataParallel(inside(lambda layer: layer)),
        r"inside \(network.module\)",
    ),
    "DataParallel inside": (
        lambda: inside(nn.DataParallel),
        r"layer '0' is wrapped in DataParallel.*0.module",
    ),
    "loops over time": (LoopsOverTime, "used twice in one time step.*loops over time"),
    "neurons in a list": (InAList, "plain list, where PyTorch does not find them"),
    "a function with weights": (WithFunction, r"multiplies with its parameters \['weight'\]"),
    "lazy": (
        lambda: nn.Sequential(linear(12, 9), own(), nn.LazyLinear(3)),
        "whose weights are not made yet",
    ),
    "forward replaced": (
        lambda: nn.Sequential(linear(12, 9), own(), replaced_forward()),
        "forward pass of layer '2' was replaced",
    ),
    "compiled layer": (
        lambda: nn.Sequential(linear(12, 9), own(), compiled()),
        "layer '2' is compiled",
    ),
    "snntorch recurrent": (
        lambda: nn.Sequential(linear(12, 9), recurrent_leaky(), linear(9, 3)),
        "RLeaky of snnTorch brings the spikes .* is clocked.Recurrent",
    ),
    "norse recurrent": (
        lambda: nn.Sequential(linear(12, 9), norse_recurrent(), linear(9, 3)),
        "LIFRecurrentCell of Norse brings the spikes .* is clocked.Recurrent",
    ),
    "spikingjelly recurrent": (
        lambda: nn.Sequential(linear(12, 9), jelly_recurrent(), linear(9, 3)),
        "LinearRecurrentContainer of SpikingJelly brings the spikes .* is clocked.Recurrent",
    ),
    "sinabs recurrent": (
        lambda: nn.Sequential(
            linear(12, 9),
            sinabs("LIFRecurrent", tau_mem=2.0, rec_connect=nn.Linear(9, 9)),
            linear(9, 3),
        ),
        "LIFRecurrent of sinabs brings the spikes .* is clocked.Recurrent",
    ),
    "a recurrent layer around neurons that return their state": (
        lambda: nn.Sequential(
            linear(12, 9), clocked.Recurrent(leaky(init_hidden=False), nn.Linear(9, 9))
        ),
        "returned a tuple; expected their activity alone.*init_hidden=True",
    ),
    "snntorch alpha": (
        lambda: nn.Sequential(linear(12, 9), alpha(), linear(9, 3)),
        "Alpha of snnTorch",
    ),
    "spikingjelly, all steps at once": (
        lambda: nn.Sequential(linear(12, 9), jelly("GatedLIFNode", T=4), linear(9, 3)),
        "GatedLIFNode of SpikingJelly works on all time steps at once",
    ),
    "spikingjelly, made for export": (
        lambda: nn.Sequential(linear(12, 9), exported(), linear(9, 3)),
        "IFNode of spikingjelly.*lynxi_exchange is made for export",
    ),
    "spikingjelly, weights inside": (
        lambda: nn.Sequential(linear(12, 9), jelly_lstm(), linear(9, 3)),
        "SpikingLSTMCell of SpikingJelly has weights inside",
    ),
    "spikingjelly, a state of its own": (
        lambda: nn.Sequential(linear(12, 9), jelly_delay(), jelly(), linear(9, 3)),
        "Delay of SpikingJelly keeps a state.*clocked.register_state",
    ),
    "spikingjelly, its own rule": (
        lambda: nn.Sequential(linear(12, 9), jelly("OTTTLIFNode"), linear(9, 3)),
        "learning rule of its own",
    ),
    "spikingjelly, norm over time": (
        lambda: nn.Sequential(linear(12, 9), jelly_norm(), jelly(), linear(9, 3)),
        "normalises over all time steps",
    ),
    "spikingjelly, nonlinear": (
        lambda: nn.Sequential(linear(12, 9), jelly("QIFNode"), linear(9, 3)),
        "no single leak.*trace_decay",
    ),
    "norse over time": (
        lambda: nn.Sequential(linear(12, 9), norse_over_time(), linear(9, 3)),
        "LIF of Norse",
    ),
    "sinabs, no spikes": (
        lambda: nn.Sequential(linear(12, 9), sinabs("ExpLeak", tau_mem=2.0), linear(9, 3)),
        "ExpLeak of sinabs gives potentials and no spikes; leave it out",
    ),
    "a leak for each neuron": (
        lambda: nn.Sequential(linear(12, 9), leaky(beta=torch.linspace(0.1, 0.9, 9)), linear(9, 3)),
        "no single leak.*trace_decay",
    ),
    "no surrogate": (
        lambda: nn.Sequential(linear(12, 9), leaky(surrogate_disable=True), linear(9, 3)),
        "without a derivative",
    ),
}


def recurrent_leaky():
    snn = pytest.importorskip("snntorch")
    return snn.RLeaky(beta=0.5, linear_features=9, init_hidden=True)


def norse_recurrent():
    return pytest.importorskip("norse.torch").LIFRecurrentCell(9, 9)


def jelly_recurrent():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    return layer.LinearRecurrentContainer(jelly(), 9, 9)


def alpha():
    return pytest.importorskip("snntorch").Alpha(alpha=0.9, beta=0.8, init_hidden=True)


def jelly_norm():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    return layer.BatchNorm1d(9, step_mode="m")


def exported():
    return pytest.importorskip("spikingjelly.activation_based.lynxi_exchange").IFNode()


def jelly_lstm():
    return pytest.importorskip("spikingjelly.activation_based.rnn").SpikingLSTMCell(9, 9)


def jelly_delay():
    return pytest.importorskip("spikingjelly.activation_based.layer").Delay(2)


def norse_over_time():
    return pytest.importorskip("norse.torch").LIF()


@pytest.mark.parametrize("place", ["object", "function"])
def test_a_state_that_nobody_can_find_is_refused(place):
    """Spatial BP would train the network, and carry the state from one sequence into the next."""
    with pytest.raises(InputError, match="keeps a state that no rule finds"):
        clocked.SpatialBP(Hidden(place))


def of_library(library):
    return {
        "snntorch": leaky,
        "spikingjelly": jelly,
        "norse": lambda: norse("LIFBoxCell"),
        "sinabs": lambda: sinabs(tau_mem=2.0),
    }[library]


def row_of(library, *more):
    torch.manual_seed(0)
    make = of_library(library)
    layers = [linear(12, 9), make(), linear(9, 9), make(), *more, linear(9, 3)]
    if library == "norse":
        return pytest.importorskip("norse.torch").SequentialState(*layers)
    return nn.Sequential(*layers)


every_library = pytest.mark.parametrize("library", ["snntorch", "spikingjelly", "norse", "sinabs"])
INPUTS, LABELS = torch.rand(4, 12), torch.tensor([0, 2, 1, 0])


@every_library
def test_states_of_another_batch_are_no_part_of_a_step(library):
    """What somebody's own run left in the neurons does not reach the gradient, nor is it lost."""
    grads = []
    for stale in (False, True):
        network = row_of(library)
        if stale:
            other = 3 * torch.rand(7, 12)
            network(other.unsqueeze(1) if library == "sinabs" else other)
        torch.manual_seed(1)
        clocked.DFA(network, input_shape=(12,)).step(INPUTS, LABELS, steps=4)
        grads.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True)) and len(grads[0]) >= 6


@every_library
@pytest.mark.filterwarnings("ignore:.*no error reaches:UserWarning")
def test_a_network_of_another_library_that_changes_is_refused(library):
    network = row_of(library)
    rule = clocked.DFA(network, input_shape=(12,))
    rule.observe(INPUTS, LABELS)
    with pytest.raises(InputError, match="2 samples follow a stream of 4"):
        rule.observe(INPUTS[:2], LABELS[:2])
    for i, other in ((1, of_library(library)()), (2, linear(9, 9))):
        before, network[i] = network[i], other
        with pytest.raises(InputError, match=rf"\['{i}'\] were replaced"):
            rule.observe(INPUTS, LABELS)
        network[i] = before
        rule.observe(INPUTS, LABELS)  # as it was
    network.append(linear(3, 3))
    with pytest.raises(InputError, match=r"\['5'\] were replaced, added"):
        rule.step(INPUTS, LABELS, steps=2)


@every_library
@pytest.mark.filterwarnings("ignore:.*no error reaches:UserWarning")
def test_layers_used_twice_and_half_precision_are_refused(library):
    network = row_of(library)
    network[3] = network[1]
    with pytest.raises(InputError, match="hidden layer '1' is used twice"):
        clocked.DFA(network, input_shape=(12,))
    shared = linear(9, 9)
    network = row_of(library)
    network[2] = shared
    network = type(network)(*list(network)[:4], shared, of_library(library)(), network[4])
    with pytest.raises(InputError, match="is used twice in one time step, but has one presynaptic"):
        clocked.DFA(network, input_shape=(12,)).step(INPUTS, LABELS, steps=2)
    for dtype in (torch.float16, torch.bfloat16):
        network = row_of(library).to(dtype)
        with pytest.raises(InputError, match="need at least float32"):
            clocked.DFA(network, input_shape=(12,)).step(INPUTS.to(dtype), LABELS, steps=2)


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_adopted_is_refused(which):
    make, message = REFUSED[which]
    network = make()
    before = [vars(m).get("forward") for m in network.modules()]
    with pytest.raises(InputError, match=message):
        clocked.DFA(network, input_shape=(12,))
    assert [vars(m).get("forward") for m in network.modules()] == before


def test_learning_lowers_the_loss_and_the_network_goes_on_alone():
    torch.manual_seed(0)
    network = nn.Sequential(linear(12, 40), own(), linear(40, 3))
    rule = clocked.OPZO(network, input_shape=(12,), momentum=0.99, noise_scale=0.2)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    inputs, labels = torch.rand(30, 12), torch.arange(30) % 3
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(rule.step(inputs, labels, steps=4).loss.item())
        optimizer.step()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    reset(network)
    assert network(inputs).shape == (30, 3)


class Unknown(nn.Module):
    """A neuron of which nobody was told; its state is an attribute, or a buffer."""

    def __init__(self, buffer, detached):
        super().__init__()
        self.detached = detached
        if buffer:
            self.register_buffer("v", torch.zeros(0), persistent=False)
        else:
            self.v = torch.zeros(0)

    def forward(self, x):
        if self.v.shape != x.shape:
            self.v = torch.zeros_like(x)
        v = 0.5 * self.v + x
        spikes = (v > 1).to(x) + torch.sigmoid(v) - torch.sigmoid(v).detach()
        self.v = v.detach() if self.detached else v
        return spikes


class Remembers(nn.Module):
    """A network that feeds its last output back to itself."""

    input_shape = (12,)

    def __init__(self, reads):
        super().__init__()
        self.fc, self.lif, self.reads, self.last = clocked.Linear(12, 3), clocked.LIF(), reads, None

    def forward(self, x):
        current = self.fc(x)
        if self.reads and self.last is not None:
            current = current + self.last
        self.last = self.lif(current).detach()
        return self.last + 0 * current


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("buffer", [True, False])
def test_a_state_that_no_rule_knows_is_refused(buffer, detached):
    network = nn.Sequential(linear(12, 9), Unknown(buffer, detached), clocked.LIF(), linear(9, 3))
    before = network[1].v
    with pytest.raises(InputError, match=r"module '1', a Unknown, keeps 'v' from one time step"):
        clocked.DFA(network, input_shape=(12,))
    assert network[1].v is before


def test_what_a_network_only_writes_down_is_no_state():
    clocked.DFA(Remembers(reads=False))
    with pytest.raises(InputError, match=r"network itself\)', a Remembers, keeps 'last'"):
        clocked.DFA(Remembers(reads=True))


class Delay(nn.Module):
    """The spikes of the step before, as a user would write it."""

    def __init__(self):
        super().__init__()
        self.before = None

    def forward(self, x):
        given = torch.zeros_like(x) if self.before is None else self.before
        self.before = x.detach()
        return given


clocked.register_state(Delay, ("before",))


def test_a_registered_state_begins_at_rest_and_is_left_alone():
    torch.manual_seed(0)
    layers = [linear(12, 9), own(), Delay(), linear(9, 3)]
    network = nn.Sequential(*layers)
    inputs, labels = 2 * torch.rand(6, 4, 12), torch.tensor([0, 1, 2, 0])
    network[2].before = stale = torch.full((4, 9), 7.0)
    rule = clocked.OPZO(network, input_shape=(12,), points="two-point", momentum=0.5)
    result = rule.step(inputs, labels)
    first = [p.grad.clone() for p in network.parameters()]
    assert result.firing_rates["1"] > 0.02 and network[2].before is stale
    network.zero_grad()
    # a stream keeps it, a run in between does not disturb it
    stream = clocked.OPZO(network, input_shape=(12,), points="two-point", momentum=0.5)
    noise = torch.Generator().manual_seed(1)
    stream.perturbation.generator = noise
    outputs = []
    for x_t in inputs:
        outputs.append(stream.observe(x_t, labels, steps=6).output)
        clocked.run(network, inputs)
    plain = clocked.DFA(copy.deepcopy(network), input_shape=(12,))
    by_hand = [plain.observe(x_t, labels, steps=6).output for x_t in inputs]
    torch.testing.assert_close(outputs[0], by_hand[0])  # nothing has come through the delay yet
    assert not torch.equal(outputs[2], outputs[0])
    assert all(torch.isfinite(g).all() for g in first)


def test_the_dropout_of_spikingjelly_keeps_its_mask_for_a_sequence():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    torch.manual_seed(0)
    network = nn.Sequential(linear(12, 40), jelly(v_reset=None), layer.Dropout(0.5), linear(40, 3))
    seen = []
    network[2].register_forward_hook(lambda m, given, out: seen.append(m.mask))
    rule = clocked.DFA(network, input_shape=(12,))
    seen.clear()
    inputs, labels = torch.rand(4, 12), torch.tensor([0, 1, 2, 0])
    rule.step(inputs, labels, steps=3)
    rule.step(inputs, labels, steps=3)
    assert seen[0] is seen[1] is seen[2] and seen[3] is seen[5]
    assert not torch.equal(seen[0], seen[3])
    assert network[2].mask is None


class TwoStates(nn.Module):
    """A neuron of one's own with a current and a potential."""

    def __init__(self):
        super().__init__()
        self.i, self.v = torch.zeros(0), None

    def forward(self, x):
        self.i = x.detach() * 0 + x if self.i.shape != x.shape else 0.5 * self.i.detach() + x
        v = self.i if self.v is None else 0.5 * self.v + self.i
        spikes = (v >= 1.0).to(x) + torch.sigmoid(v) - torch.sigmoid(v).detach()
        self.i, self.v = self.i.detach(), (v - spikes).detach()
        return spikes


@pytest.mark.parametrize(
    ("state", "message"),
    [(("v",), "a TwoStates, keeps 'i' from one"), (("v", "u"), r"has no attributes \['u'\]")],
    ids=["one forgotten", "one absent"],
)
def test_a_state_that_was_described_in_part_is_refused(state, message):
    kind = type("TwoStates", (TwoStates,), {})
    clocked.register_neuron(kind, state=state, leak=0.5)
    with pytest.raises(InputError, match=message):
        clocked.DFA(nn.Sequential(linear(12, 9), kind(), linear(9, 3)), input_shape=(12,))


def test_parameters_of_foreign_neurons_are_named_with_what_to_use():
    class Trained(Own):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

    network = nn.Sequential(linear(12, 9), Trained(), linear(9, 3))
    with pytest.warns(UserWarning, match=r"\['1\.w'\] nothing.*own, \['1\.w'\]: .*learn_leak=True"):
        clocked.DFA(network, input_shape=(12,))


class WithWeight(Own):
    """Its leak is a parameter."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))


class Description(nn.Module):
    """Trained, frozen, forgotten, norm and neurons' own parameters."""

    input_shape = (1, 5, 5)

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.first = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), WithWeight()
        self.fc, self.second = nn.Linear(18, 6), Own()
        self.readout, self.forgotten = nn.Linear(6, 4), nn.Linear(3, 3)
        self.fc.bias.requires_grad_(False)

    def forward(self, x):
        spikes = self.first(self.norm(self.conv(x))).flatten(1)
        return self.readout(self.second(self.fc(spikes)))


@pytest.mark.filterwarnings("ignore:.*no error reaches:UserWarning")
def test_description_of_a_network_of_other_layers():
    """Every layer has its signal, every parameter its teacher and trace, or why it has none."""
    rule = clocked.DFA(Description(), chain="within-layers", untraced=["conv"])
    lines = rule.describe().splitlines()
    said = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if "  " in line[2:])
    signal = "B e, fixed random feedback from the output"
    assert said["first (18 neurons)"] == said["second (6 neurons)"] == signal
    assert said["output (4)"] == "its own error, the gradient of the loss"
    untraced = "error of first; input of the time step, no trace"
    assert said["conv.weight"] == said["norm.weight"] == untraced
    assert said["conv.bias"] == "error of first; no trace, a bias has no input"
    assert said["fc.weight"].startswith("error of second; trace of the input")
    assert said["fc.bias"] == "never: it is frozen, requires_grad is False"
    assert said["first.w"] == "never: it is the neurons' own, and they advance without autograd"
    assert said["forgotten.weight"] == said["forgotten.bias"] == "never: no error reaches it"
    assert said["readout.weight"].startswith("error of output; trace of the input")
    assert said["feedback.0.matrix"] == "fixed"
    named = {name for name, _ in (*rule.network.named_parameters(), *rule.named_buffers())}
    assert named <= said.keys()
    assert any("decay by 0.7 " in line for line in lines)
