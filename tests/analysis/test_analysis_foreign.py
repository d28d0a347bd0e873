"""Measures of networks of other libraries' layers beside those of our own with the same weights."""

import dataclasses
from collections import OrderedDict
from functools import partial

import pytest
import torch
from reference.foreign_cases import NEURONS, Same, jelly, leaky
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from threefactor import analysis, clocked
from threefactor.analysis import measured
from threefactor.analysis.sizes import fan_out, sizes
from threefactor.clocked.foreign import layers_of
from threefactor.errors import InputError

PICTURE = (1, 5, 5)


NAMES = dict(zip(["conv", "lif1", "hidden", "lif2", "readout"], "01345", strict=True))


def twins(make_neuron, dtype=torch.float64):
    """Our layers, and layers of PyTorch with another's neurons and the same weights."""
    torch.manual_seed(0)
    layers = {
        "conv": clocked.Conv2d(1, 3, 3, padding=1),
        "lif1": clocked.LIF(),
        "hidden": clocked.Linear(75, 12),
        "lif2": clocked.LIF(),
        "readout": clocked.Linear(12, 4),
    }
    ours = clocked.Network(OrderedDict(layers), PICTURE)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.mul_(1.5)
            if name.endswith("bias"):
                parameter.uniform_(0.1, 0.5)
        ours.hidden.weight[:, ::4] = 0.0
    theirs = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), make_neuron(), nn.Flatten(), nn.Linear(75, 12),
        make_neuron(), nn.Linear(12, 4),
    )  # fmt: skip
    weights = zip(theirs.parameters(), ours.parameters(), strict=True)
    with torch.no_grad():
        for theirs_parameter, ours_parameter in weights:
            theirs_parameter.copy_(ours_parameter)
    theirs.input_shape = PICTURE
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.rand(5, *PICTURE, generator=generator, dtype=dtype),
         torch.randint(4, (5,), generator=generator))
        for _ in range(3)
    ]  # fmt: skip
    return ours.to(dtype), theirs.to(dtype), batches


def close(ours, theirs, tolerance):
    """Equal records, whose names are those of the two networks, up to rounding."""
    if dataclasses.is_dataclass(ours):
        ours, theirs = ([getattr(r, f.name) for f in dataclasses.fields(r)] for r in (ours, theirs))
    if isinstance(ours, dict):
        assert [NAMES.get(name, name) for name in ours] == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(ours, list):
        for one, other in zip(ours, theirs, strict=True):
            close(one, other, tolerance)
    elif isinstance(ours, float | Tensor):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    else:
        assert ours == theirs


def potential_of(network, x):
    """The largest potential in four time steps."""
    network.reset()
    found = []
    with torch.no_grad():
        for _ in range(4):
            network(x)
            found += [float(m.state[0].max()) for m in network if isinstance(m, clocked.LIF)]
    network.reset()
    return max(found)


def rule_on(network, name="opzo", **options):
    torch.manual_seed(3)
    if name in ("opzo", "zo"):
        options["generator"] = torch.Generator().manual_seed(4)
    return clocked.RULES[name](network, **options)


MEASURES = {
    "firing": lambda net, data: analysis.firing(net, data, steps=4),
    "operations": lambda net, data: analysis.operations(net, data, steps=4),
    "sizes": lambda net, data: sizes(net),
    "cost": lambda net, data: analysis.cost(net),
    "mean jacobian": lambda net, data: analysis.mean_jacobian(net, (x for x, _ in data), steps=4),
    "training operations, opzo": lambda net, data: analysis.training_operations(rule_on(net)),
    "training operations, bp": lambda net, data: analysis.training_operations(
        rule_on(net, "spatial-bp")
    ),
    "alignment, dfa": lambda net, data: analysis.alignment(rule_on(net, "dfa"), data, steps=4),
    "feedback and output weights": lambda net, data: analysis.feedback_alignment(
        rule_on(net, "dfa")
    ),
    "feedback and mean jacobian": lambda net, data: analysis.feedback_alignment(
        rule_on(net, "dkp"), data, steps=4
    ),
    "variance": lambda net, data: analysis.gradient_variance(
        {"opzo": rule_on(net), "bp": rule_on(net, "spatial-bp")}, data, steps=4, warmup=data[:1]
    ),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("library", NEURONS)
def test_the_same_numbers_as_our_own_layers(library, measure):
    # snnTorch computes spikes in single precision, whatever the network.
    single = library == "snntorch"
    ours, theirs, batches = twins(NEURONS[library], torch.float32 if single else torch.float64)
    rates = analysis.firing(ours, batches, steps=4).layers
    assert all(0.02 < layer.rate < 0.98 for layer in rates.values())
    # Above twice the threshold, snnTorch's reset is another.
    assert all(potential_of(ours, x) < 2.0 for x, _ in batches)
    before = {k: v.clone() for k, v in theirs.state_dict().items()}
    found = MEASURES[measure](theirs, batches)
    # Angles near 0 degrees are the arc of rounding errors.
    tolerance = 2e-3 if single else 1e-9
    close(MEASURES[measure](ours, batches), found, tolerance)
    after = theirs.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], v) for k, v in before.items())
    assert not any("forward" in vars(m) or m._forward_pre_hooks for m in theirs.modules())
    assert all(p.requires_grad and p.grad is None for p in theirs.parameters())


def test_time_and_memory(monkeypatch):
    monkeypatch.setattr(measured, "_peak_of", lambda *given: (1.0, 2.0))
    _, network, batches = twins(Same)
    rules = {name: partial(clocked.RULES[name], input_shape=PICTURE) for name in ("dfa", "opzo")}
    found = analysis.measured_cost(network, rules, batches[0], steps=3, repeats=1)
    assert found["opzo"].fastest > 0 and found["dfa"].state_bytes == 8 * 4 * (75 + 12)


def test_memory_of_a_network_that_cannot_be_sent_to_a_process():
    class Hidden(Same):
        pass

    network = nn.Sequential(nn.Linear(4, 5), Hidden(), nn.Linear(5, 3))
    batch = (torch.rand(2, 4), torch.zeros(2, dtype=torch.int64))
    rules = {"dfa": partial(clocked.DFA, input_shape=(4,))}
    with pytest.raises(InputError, match=r"pickle cannot write them.*Hidden"):
        analysis.measured_cost(network, rules, batch, steps=2, repeats=1)


def test_time_of_a_network_that_holds_a_graph():
    network = nn.Sequential(nn.Linear(4, 5), leaky(), nn.Linear(5, 3))
    network(torch.rand(2, 4))
    state = network[1].mem
    assert state.requires_grad
    batch = (torch.rand(2, 4), torch.zeros(2, dtype=torch.int64))
    rules = {"dfa": partial(clocked.DFA, input_shape=(4,))}
    with pytest.raises(InputError, match="cannot be copied, probably because its neurons hold"):
        analysis.measured_cost(network, rules, batch, steps=2, repeats=1)
    network.input_shape = (4,)
    assert analysis.firing(network, [batch], steps=2).samples == 2
    assert sizes(network).hidden == {"1": 5}
    assert network[1].mem is state


CONVOLUTIONS = {
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 5, 6)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2), (2, 7, 6)),
    "cyclic": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 4, 4)),
    "mirrored": (lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), (2, 6)),
    "in time": (lambda: nn.Conv1d(2, 3, 4, stride=2), (2, 9)),
    "in space": (lambda: nn.Conv3d(1, 2, 2, padding=1), (1, 3, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 3, 4)),
    "transposed, grouped": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (4, 5)),
    "over the last dimension": (lambda: nn.Linear(4, 3), (2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("which", CONVOLUTIONS)
def test_fan_out_by_one_input_after_the_other(which, dense):
    make, shape = CONVOLUTIONS[which]
    torch.manual_seed(0)
    layer = make().double()
    with torch.no_grad():
        layer.weight[torch.rand_like(layer.weight) < 0.3] = 0.0
    ((_, view),) = layers_of(layer)
    before = layer.weight.clone()
    found = fan_out(view, torch.Size((2, *shape)), dense=dense)
    assert torch.equal(layer.weight, before) and layer.weight.requires_grad
    twin = make().double()
    with torch.no_grad():
        twin.weight.copy_(torch.ones_like(before) if dense else (before != 0))
        twin.bias.zero_()
        expected = torch.zeros(shape, dtype=torch.float64)
        for place in range(expected.numel()):
            one = torch.zeros(expected.numel(), dtype=torch.float64)
            one[place] = 1.0
            expected.view(-1)[place] = twin(one.view(1, *shape)).sum()
    torch.testing.assert_close(found, expected)
    assert found.sum() > 0


@pytest.mark.parametrize("layer", [nn.Linear, clocked.Linear])
def test_fan_out_of_weights_that_are_computed(layer):
    made = layer(4, 3)
    with torch.no_grad():
        made.weight[:, 1] = 0.0
    ((_, view),) = layers_of(parametrizations.spectral_norm(made))
    before = made.weight.clone()
    assert fan_out(view, torch.Size((1, 4))).tolist() == [3, 0, 3, 3]
    assert fan_out(view, torch.Size((1, 4)), dense=True).tolist() == [3, 3, 3, 3]
    assert "weight" in made.parametrizations
    made.eval()
    torch.testing.assert_close(made.weight, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [clocked.LIF, Same, jelly], ids=["ours", "own", "spikingjelly"])
def test_neurons_of_the_output_are_not_hidden(make):
    network = nn.Sequential(nn.Linear(6, 8), make(), nn.Linear(8, 3), make())
    network.input_shape = (6,)
    found = sizes(network)
    assert found.hidden == {"1": 8} and found.outputs == 3
    assert [s.hidden_input for s in found.synapses.values()] == [False, True]
    assert (
        analysis.cost(network)["dfa"].memory
        == 3 * 8
        == sum(b.matrix.numel() for b in clocked.DFA(network).feedback)
    )


def synaptic():
    snn = pytest.importorskip("snntorch")
    return snn.Synaptic(
        alpha=0.9, beta=0.6, init_hidden=True, spike_grad=snn.surrogate.fast_sigmoid(4)
    )


def test_neurons_with_a_synaptic_current():
    """Backpropagation beside the rule has the traces of the rule: of a trace, or none at all."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), synaptic(), nn.Linear(8, 8), synaptic(),
                            nn.Linear(8, 3))  # fmt: skip
    network.input_shape = (6,)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    data = [(3 * torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1]))]
    for untraced in ((), ("0",)):
        rule = clocked.SpatialBP(network, untraced=untraced)
        count = analysis.training_operations(rule).added.traces
        found = analysis.alignment(rule, data, steps=6).layers
        assert all(layer.angle < 1e-3 for layer in found.values())
        assert count == 2 * (8 + 8) + (0 if untraced else 2 * 6)


def test_norms_keep_their_statistics():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Same(), nn.Linear(8, 3))
    network.input_shape = (6,)
    rule = clocked.DFA(network, chain="within-layers")
    data = [(3 * torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1])) for _ in range(2)]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    analysis.alignment(rule, data, steps=2)
    analysis.gradient_variance({"dfa": rule}, data, steps=2)
    analysis.mean_jacobian(network, [x for x, _ in data], steps=2)
    analysis.firing(network, data, steps=2)
    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert network.training and all(m.training for m in network)
    rule.step(*data[0], steps=2)
    assert not torch.equal(network[1].running_mean, before["1.running_mean"])


def test_explicit_state_and_step_modes():
    snn = pytest.importorskip("snntorch")

    class Explicit(nn.Module):
        input_shape = (6,)

        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.readout = nn.Linear(6, 8), snn.Leaky(beta=0.5), nn.Linear(8, 3)
            self.mem = None

        def forward(self, x):
            spikes, self.mem = self.lif(self.fc(x), self.mem)
            return self.readout(spikes)

    network = Explicit()
    torch.nn.init.constant_(network.fc.bias, 0.5)
    data = [(2 * torch.rand(5, 6), torch.zeros(5, dtype=torch.int64))]
    assert sizes(network).hidden == {"lif": 8}
    assert analysis.firing(network, data, steps=4).layers["lif"].rate > 0.05
    assert analysis.operations(network, data, steps=4).layers["readout"].spike_operations > 0
    jacobian = analysis.mean_jacobian(network, [data[0][0]], steps=4)["lif"]
    torch.testing.assert_close(jacobian, network.readout.weight.detach())
    assert network.mem is None


class Rounds(Same):
    """Its spikes are 1 up to rounding, as a surrogate was added and taken off."""

    def forward(self, x):
        fired = super().forward(x)
        return (fired.detach() + torch.sigmoid(3 * x)) - torch.sigmoid(3 * x).detach()


def test_spikes_up_to_rounding_are_spikes():
    ours, theirs, batches = twins(Rounds, torch.float32)
    ran = []
    hook = theirs[5].register_forward_hook(lambda m, given, out: ran.append(given[0]))
    found = analysis.operations(theirs, batches, steps=4).layers
    hook.remove()
    assert any(((x != 0) & (x != 1)).any() for x in ran)
    expected = analysis.operations(ours, batches, steps=4).layers
    assert found["5"].spike_operations == expected["readout"].spike_operations > 0
