"""Layers and networks of other libraries that do other things than their classes say, or more.

Each of these once gave gradients without a word that were not those of the network.
"""

import copy
import math

import pytest
import torch
from torch import nn

from threefactor import clocked
from threefactor.errors import InputError

X, LABELS = (
    2.0 * torch.rand(4, 5, 8, generator=torch.Generator().manual_seed(0)),
    torch.arange(5).remainder(3),
)


def row(*between, outputs=3):
    return nn.Sequential(nn.Linear(8, 12), *between, nn.Linear(12, outputs))


def step(network, rule=clocked.DFA, **options):
    x = X.to(next(network.parameters()).dtype)
    return rule(network, input_shape=(8,), **options).step(x, LABELS)


def leaky(**options):
    snn = pytest.importorskip("snntorch")
    return snn.Leaky(0.6, threshold=0.3, **{"init_hidden": True, **options})


def jelly(**options):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    return neuron.LIFNode(v_threshold=0.3, **options)


def box():
    norse = pytest.importorskip("norse.torch")
    return norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(0.05)))


def sinabs(kind="LIF", **options):
    layers = pytest.importorskip("sinabs.layers")
    return getattr(layers, kind)(tau_mem=2.0, spike_threshold=torch.tensor(0.2), **options)


# --- classes and objects that were changed ---


def slow_leaky():
    class Slow(type(leaky())):
        def _base_state_function(self, x):
            return 0.99 * self.mem + x

    return Slow(0.6, init_hidden=True)


def patched_leaky():
    layer = leaky()
    layer.state_function = lambda x: 0.99 * layer.mem + x
    return layer


def namesake():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    integrates = neuron.IFNode.single_step_functional_forward
    return type("LIFNode", (neuron.LIFNode,), {"single_step_functional_forward": integrates})()


def patched_box():
    layer, activation = box(), box().activation
    layer.activation = lambda x, state, p, dt: activation(x, state, p, dt / 2)
    return layer


def doubling(base):
    class Doubling(base):
        def forward(self, x):
            return 2.0 * super().forward(x)

    return Doubling


ALTERED = {
    "snntorch, a method overridden": (slow_leaky, "has _base_state_function of its own"),
    "snntorch, another function put in": (patched_leaky, "has state_function of its own"),
    "spikingjelly, a class of the same name": (namesake, "has single_step_functional_forward of"),
    "norse, another function put in": (patched_box, "has activation of its own"),
    "sinabs, forward overridden": (
        lambda: doubling(type(sinabs()))(2.0),
        "a Doubling, has forward of its own in the place of its library's.*trace_decay=",
    ),
}


@pytest.mark.parametrize("case", list(ALTERED))
def test_no_leak_is_taken_from_a_class_that_was_altered(case):
    make, said = ALTERED[case]
    network = WithState(make()) if case.startswith("norse") else row(make())
    with pytest.raises(InputError, match=said):
        clocked.DFA(network, input_shape=(8,))


def test_a_subclass_that_changes_no_dynamics_has_the_leak_of_its_class():
    class Mine(type(leaky())):
        def __init__(self):
            super().__init__(0.6, threshold=0.3, init_hidden=True)

        def fire(self, mem):
            return super().fire(mem)

    rule = clocked.DFA(row(Mine()), input_shape=(8,))
    assert rule.trace_decays["0"] == pytest.approx(0.6)


class Twice(nn.Module):
    def forward(self, x):
        return 2.0 * x


def test_an_overridden_forward_pass_of_sinabs_runs():
    gradients = []
    level = torch.tensor(0.2)
    for neurons in (
        [doubling(type(sinabs()))(2.0, spike_threshold=level)],
        [sinabs(), Twice()],
    ):
        torch.manual_seed(0)
        network = row(*neurons).double()
        result = step(network, clocked.SpatialBP, trace_decay=0.6)
        assert result.firing_rates["1"] > 0.1
        gradients.append([network[0].weight.grad, network[-1].weight.grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_squeezing_layer_whose_forward_pass_is_overridden_is_refused():
    network = row(doubling(type(sinabs("LIFSqueeze", batch_size=5)))(tau_mem=2.0, batch_size=5))
    with pytest.raises(InputError, match="overrides forward of LIFSqueeze of sinabs"):
        step(network)


def test_a_state_that_a_subclass_adds_is_found():
    class Adapting(type(leaky())):
        raised = None

        def forward(self, x):
            level = 0.0 if self.raised is None else self.raised
            spikes = super().forward(x - level)
            self.raised = 0.9 * level + spikes.detach()
            return spikes

    make = lambda: row(Adapting(0.6, threshold=0.3, init_hidden=True))  # noqa: E731
    with pytest.raises(InputError, match="a Adapting, keeps 'raised' from one time step"):
        step(make(), trace_decay=0.6)
    clocked.register_state(Adapting, ("raised",))
    torch.manual_seed(0)
    network = make()
    results = [step(network, trace_decay=0.6).output for _ in range(2)]
    assert torch.equal(*results) and network[1].raised is None


def test_neurons_of_a_base_class_of_spikingjelly():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")

    class Mine(neuron.SimpleBaseNode):
        def neuronal_charge(self, x):
            self.v = 0.9 * self.v + x

    network = row(Mine())
    with pytest.raises(InputError, match=r"Mine, derived from SimpleBaseNode .*register_neuron"):
        step(network)
    clocked.register_neuron(Mine, state=("v",), leak=0.9, rest={"v": 0.0})
    assert step(network).firing_rates["1"] > 0.02


class Doubled(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, 2.0 * weight, bias)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_that_computes_other_products_is_refused(groups):
    network = nn.Sequential(
        Doubled(2, 4, 3, groups=groups), clocked.LIF(), nn.Flatten(), nn.Linear(16, 3)
    )
    with pytest.raises(InputError, match="Doubled keeps no presynaptic trace"):
        clocked.SpatialBP(network, input_shape=(2, 4, 4))


# --- time inside of the forward pass ---


class AllSteps(nn.Module):
    """A network in the way of SpikingJelly, which repeats its input and averages over time."""

    def __init__(self):
        super().__init__()
        self.row = row(jelly(step_mode="m"))

    def forward(self, x):
        return self.row(x.unsqueeze(0).repeat(4, 1, 1)).mean(0)


class Folded(nn.Module):
    """A network in the way of sinabs, with time in the batch or behind it."""

    def __init__(self, kind, **options):
        super().__init__()
        self.row, self.folds = row(sinabs(kind, **options)), bool(options)

    def forward(self, x):
        if not self.folds:
            return self.row(x).sum(1)
        return self.row(x.flatten(0, 1)).unflatten(0, x.shape[:2]).sum(1)


@pytest.mark.parametrize("rule", [clocked.SpatialBP, clocked.DFA, clocked.OPZO])
def test_time_inside_of_the_forward_pass_is_refused(rule):
    with pytest.raises(InputError, match=r"shape \(4, 1, 12\) .*SpikingJelly's step mode 'm'"):
        rule(AllSteps(), input_shape=(8,))
    with pytest.raises(InputError, match=r"shape \(4, 12\) .*the Squeeze layers of sinabs"):
        rule(Folded("LIFSqueeze", batch_size=5), input_shape=(4, 8))
    with pytest.raises(InputError, match=r"gets \(4, 12\) numbers of each sample from the linear"):
        rule(Folded("LIF"), input_shape=(4, 8))


class Positions(nn.Module):
    """Folds two positions of each sample into the batch."""

    def __init__(self):
        super().__init__()
        self.fc, self.neurons, self.out = nn.Linear(4, 12), jelly(), nn.Linear(12, 3)

    def forward(self, x):
        spikes = self.neurons(self.fc(x.reshape(-1, 4)))
        return self.out(spikes.unflatten(0, (len(x), 2)).mean(1))


def test_dimensions_that_are_not_time_are_taken():
    level = torch.tensor(0.2)
    layers = pytest.importorskip("sinabs.layers")
    pictures = nn.Sequential(
        nn.Conv1d(1, 4, 3), layers.LIF(2.0, spike_threshold=level), nn.Flatten(), nn.Linear(24, 3)
    )
    rule = clocked.DFA(pictures, input_shape=(1, 8))
    assert rule.step(X.unsqueeze(2), LABELS).firing_rates["1"] > 0.02
    assert step(Positions(), clocked.SpatialBP).firing_rates["neurons"] > 0.02


def test_a_run_without_a_rule_refuses_time_inside_too():
    with pytest.raises(InputError, match="takes all time steps at once"):
        clocked.run(AllSteps(), X)


class Resetting(nn.Module):
    def __init__(self, neurons, reset):
        super().__init__()
        self.row, self.reset_all = row(neurons), reset

    def forward(self, x):
        self.reset_all(self.row)
        return self.row(x)


def resets():
    jelly_functional = pytest.importorskip("spikingjelly.activation_based.functional")
    yield jelly(), jelly_functional.reset_net
    yield leaky(), pytest.importorskip("snntorch.utils").reset
    yield sinabs(), pytest.importorskip("sinabs").reset_states


def test_a_forward_pass_that_resets_its_neurons_is_refused():
    for neurons, reset in resets():
        with pytest.raises(InputError, match=r"'row\.1' was set to rest in the middle"):
            step(Resetting(neurons, reset))
        assert step(Resetting(neurons, lambda _: None)).firing_rates["row.1"] > 0.02


# --- states that go through the network ---


class WithState(nn.Module):
    """Hands the state of its neurons on, or does something else with it."""

    def __init__(self, neurons, first=None, change=None, read=None):
        super().__init__()
        self.fc, self.neurons, self.out = nn.Linear(8, 12), neurons, nn.Linear(12, 3)
        self.first, self.change, self.read, self.state = first, change, read, None

    def forward(self, x):
        given = () if self.first is None else (self.first,)
        if self.state is not None:
            given = (self.state,)
        spikes, self.state = self.neurons(self.fc(x), *given)
        used = spikes if self.read is None else spikes + self.read(self.state)
        if self.change is not None:
            self.state = self.change(self.state)
        return self.out(used)


def test_neurons_that_return_their_state_in_a_plain_row_are_refused():
    for neurons in (leaky(init_hidden=False), box()):
        with pytest.raises(InputError, match=r"gets a tuple as its input.*SequentialState"):
            step(row(neurons))


def norse_state(v):
    return pytest.importorskip("norse.torch").LIFBoxFeedForwardState(v=v)


def test_a_state_that_the_rule_would_not_follow_is_refused():
    explicit = {"init_hidden": False}
    for first, neurons in (
        (torch.full((1, 12), 0.7), leaky(**explicit)),
        (norse_state(torch.full((1, 12), 0.7)), box()),
    ):
        with pytest.raises(InputError, match="given a state at the beginning that is not at rest"):
            step(WithState(neurons, first=first))
    with pytest.raises(InputError, match="another state than it returned"):
        step(WithState(box(), change=lambda state: state._replace(v=0.5 * state.v)))
    at_rest = WithState(leaky(**explicit), first=torch.zeros(1, 12))
    assert step(at_rest).firing_rates["neurons"] > 0.02


@pytest.mark.parametrize("rule", [clocked.SpatialBP, clocked.DFA, clocked.ZO])
def test_a_network_that_computes_with_potentials_is_refused(rule):
    said = "computes with the state of neuron layer 'neurons' after its step"
    with pytest.raises(InputError, match=said):
        step(WithState(leaky(init_hidden=False), read=lambda mem: mem), rule)
    with pytest.raises(InputError, match=said):
        step(WithState(box(), read=lambda state: state.v), rule)
    detached = WithState(leaky(init_hidden=False), read=lambda mem: mem.detach())
    assert step(detached, rule).firing_rates["neurons"] > 0.02


def test_a_network_that_returns_potentials_or_reads_them_is_refused():
    class Potentials(nn.Module):
        def __init__(self):
            super().__init__()
            self.row, self.last = row(leaky()), leaky(output=True)

        def forward(self, x):
            return self.last(self.row(x))[1]

    with pytest.raises(InputError, match=r"state of neuron layer 'last'.*leave out the last"):
        step(Potentials())

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.row = row(jelly())

        def forward(self, x):
            return self.row(x) + self.row[1].v.mean()

    with pytest.raises(InputError, match=r"state of neuron layer 'row\.1'"):
        step(Reads())


@pytest.mark.parametrize("points", ["one-point", "two-point"])
@pytest.mark.parametrize("kind", ["snntorch", "norse"])
def test_a_stream_gives_back_the_states_that_the_network_kept(kind, points):
    """A stream of single steps, with other work between them, learns what one sequence does."""
    explicit = {"snntorch": lambda: leaky(init_hidden=False), "norse": box}[kind]
    found = []
    for streams in (False, True):
        torch.manual_seed(0)
        network = WithState(explicit()).double()
        generator = torch.Generator().manual_seed(1)
        rule = clocked.OPZO(network, input_shape=(8,), points=points, generator=generator)
        x = X.double()
        if streams:
            for x_t in x:
                rates = rule.observe(x_t, LABELS, steps=len(x)).firing_rates
                assert network.state is None
                clocked.run(network, x[:2, :3])
        else:
            rates = rule.step(x, LABELS).firing_rates
        assert 0.02 < rates["neurons"] < 0.98
        found.append([p.grad for p in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_stream_is_copied_with_the_states_that_the_network_kept():
    rule = clocked.SpatialBP(WithState(leaky(init_hidden=False)), input_shape=(8,))
    rule.observe(X[0], LABELS)
    other = copy.deepcopy(rule)
    outputs = [one.observe(X[1], LABELS).output for one in (rule, other)]
    assert torch.equal(*outputs)


# --- noise, beside our own neurons ---


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("points", ["one-point", "two-point"])
def test_noise_acts_as_on_our_own_neurons(position, points):
    pytest.importorskip("sinabs")
    from sinabs.activation import SingleSpike

    alike = [
        lambda: clocked.LIF(0.5, 0.3),
        lambda: jelly(decay_input=False, v_reset=None),
        lambda: sinabs_like(SingleSpike),
    ]
    outputs = []
    for make in alike:
        torch.manual_seed(0)
        network = row(make()).double()
        rule = clocked.OPZO(
            network, input_shape=(8,), noise_position=position, points=points, noise_scale=0.5,
            generator=torch.Generator().manual_seed(3), trace_decay=0.5,
        )  # fmt: skip
        result = rule.step(X.double(), LABELS)
        assert 0.02 < result.firing_rates["1"] < 0.98
        outputs.append((result.output, network[2].weight.grad))
    for output, gradient in outputs[1:]:
        torch.testing.assert_close(output, outputs[0][0])
        torch.testing.assert_close(gradient, outputs[0][1])


def sinabs_like(spike_fn):
    layers = pytest.importorskip("sinabs.layers")
    return layers.LIF(
        -1.0 / math.log(0.5), spike_fn=spike_fn, norm_input=False,
        spike_threshold=torch.tensor(0.3, dtype=torch.float64),
    )  # fmt: skip
