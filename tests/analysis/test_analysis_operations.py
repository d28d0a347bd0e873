"""Operation counts and costs: by hand, by loops, and beside NeuroBench's own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from threefactor import clocked, events
from threefactor.analysis import cost, operations, training_operations
from threefactor.errors import InputError


def test_one_linear_layer_by_hand():
    net = nn.Sequential(clocked.Linear(3, 2))
    net[0].weight.data = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.0, 0.0]])
    x = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, -1.0]])
    found = operations(net, [(x, torch.zeros(2))], steps=2).layers["0"]
    # Sample 1 meets weights 1 and 0.5; sample 2 meets 2. Two steps, two samples.
    assert found.effective_macs == (2 + 1) * 2 / 2
    assert found.effective_acs == 0
    assert found.dense == 6 * 2
    binary = operations(net, [(x.clamp(-1, 1), torch.zeros(2))], steps=2).layers["0"]
    assert (binary.effective_macs, binary.effective_acs) == (0, (2 + 1) * 2 / 2)


def by_loops(x, weight, stride, padding, pool):
    """Pairs of an input and a weight, both not zero, that meet in a convolution after pooling."""
    b, c, h, w = x.shape
    raw = (x != 0).reshape(b, c, h // pool, pool, w // pool, pool)
    met, spikes = 0, 0
    out = [(n // pool + 2 * padding - 3) // stride + 1 for n in (h, w)]
    for _, i, ky, kx in zip(*np.nonzero(weight), strict=True):
        for y in range(out[0]):
            for z in range(out[1]):
                row, column = y * stride + ky - padding, z * stride + kx - padding
                if 0 <= row < h // pool and 0 <= column < w // pool:
                    square = raw[:, i, row, :, column]
                    met += int(square.any(axis=(1, 2)).sum())
                    spikes += int(square.sum())
    return met, spikes


@pytest.mark.parametrize(("stride", "padding", "pool"), [(1, 1, 1), (2, 0, 1), (1, 1, 2)])
def test_a_convolution_by_loops(stride, padding, pool):
    torch.manual_seed(0)
    layer = clocked.Conv2d(2, 3, 3, stride, padding, pool=pool)
    layer.weight.data[layer.weight.data.abs() < 0.05] = 0
    assert 0 < (layer.weight == 0).sum() < layer.weight.numel()
    net = nn.Sequential(layer, nn.Flatten())
    x = (torch.rand(2, 2, 6, 6) < 0.3).float() * 2.74
    found = operations(net, [(x, torch.zeros(2))], steps=1).layers["0"]
    met, spikes = by_loops(x.numpy(), layer.weight.detach().numpy(), stride, padding, pool)
    assert met > 0
    assert found.effective_macs == met / 2  # 2.74 is no -1, 0 or 1
    assert found.spike_operations == spikes / 2  # but it is a spike
    assert (
        found.dense
        == by_loops(np.ones((1, 2, 6, 6)), np.ones((3, 2, 3, 3)), stride, padding, pool)[0]
    )


def test_standardised_weights_are_counted_as_the_input_meets_them():
    layer = clocked.Conv2d(1, 1, 3, padding=1, standardise=True)
    layer.weight.data.zero_()[0, 0, 0, 0] = 1.0  # the zeros become minus the mean
    net = nn.Sequential(layer, nn.Flatten())
    found = operations(net, [(torch.ones(1, 1, 5, 5), torch.zeros(1))], steps=1).layers["0"]
    assert found.effective_acs == found.dense == 13 * 13


def test_whole_networks_add_up():
    torch.manual_seed(0)
    for net in (
        clocked.conv5((2, 16, 16), 3, width=0.02),
        clocked.nf_resnet34((2, 16, 16), 3, width=0.03, depths=(1, 1, 1, 1)),
    ):
        found = operations(net, [(5 * torch.randn(2, 2, 16, 16), torch.zeros(2))], steps=2)
        assert found.samples == 2 and found.steps == 2
        assert found.total.effective_acs + found.total.effective_macs <= found.total.dense
        assert found.total.spike_operations > 0
        assert found.total.dense == sum(layer.dense for layer in found.layers.values())
        assert not any(module.pathway for module in net.modules() if hasattr(module, "pathway"))
        assert not any(module._forward_pre_hooks for module in net.modules())


def test_exact_spike_times_by_loops(spiking):
    net, batches = spiking
    net.lif2.weight.data[net.lif2.weight.data < 0] = 0
    found = operations(net, batches)
    total = dict.fromkeys(net.layers, 0)
    for x, _ in batches:
        for (name, layer), activity in zip(net.layers.items(), net.run(x), strict=True):
            for t, j in zip(activity.inputs.times, activity.inputs.addresses, strict=True):
                total[name] += sum(w != 0 for w in layer.weight[j].tolist()) * (t < 0.2)
    for name, layer in found.layers.items():
        assert layer.effective_acs == layer.spike_operations == pytest.approx(total[name] / 15)
        assert layer.effective_acs > 0 and layer.effective_macs == 0 and layer.dense is None
    assert found.total.dense is None and found.steps is None
    late = events.SpikeBatch.from_lists([[0.1, 0.3]], [[0, 0]], 6)
    assert operations(net, [(late, None)]).layers["lif1"].effective_acs == 10


def neurobench():
    """NeuroBench's metric; its other parts need audio and event libraries that this does not."""
    pytest.importorskip("neurobench", exc_type=ImportError)
    module = pytest.importorskip(
        "neurobench.metrics.workload.synaptic_operations", exc_type=ImportError
    )
    models = pytest.importorskip("neurobench.models", exc_type=ImportError)
    return module.SynapticOperations(), models.TorchModel


class Loop(nn.Module):
    """A network of this library as NeuroBench runs one: a whole sequence in one call."""

    def __init__(self, net, steps):
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x):
        clocked.reset_state(self.net)
        with torch.no_grad():
            return sum(self.net(x) for _ in range(self.steps))


def convolutional():
    return nn.Sequential(
        clocked.Conv2d(1, 4, 3, padding=1), clocked.LIF(), clocked.Conv2d(4, 5, 3, 2),
        clocked.LIF(), nn.AvgPool2d(2), nn.Flatten(), clocked.Linear(5, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "shape"),
    [(lambda: clocked.fc(12, (20, 15), 4), (12,)), (convolutional, (1, 6, 6))],
    ids=["fc", "conv"],
)
def test_neurobench_counts_the_same(build, shape):
    metric, torch_model = neurobench()
    torch.manual_seed(0)
    net = build()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
            parameter[parameter.abs() < 0.2] = 0.0
    x = torch.randn(7, *shape)
    found = operations(net, [(x, torch.zeros(7))], steps=5).total
    assert found.effective_acs > 0 and found.effective_macs > 0
    model = torch_model(Loop(copy.deepcopy(net), 5))
    model.register_hooks()
    model(x)
    theirs = metric(model, None, (x, torch.zeros(7)))
    assert found.effective_macs == pytest.approx(float(theirs["Effective_MACs"]))
    assert found.effective_acs == pytest.approx(float(theirs["Effective_ACs"]))
    assert found.dense == pytest.approx(float(theirs["Dense"]))


def test_table_5():
    """N hidden layers of n neurons, m outputs: the formulas of the table."""
    n, m = 7, 3
    for depth in (1, 2, 4):
        net = clocked.fc(5, (n,) * depth, m)
        found = cost(net)
        assert found["bp"].memory == found["bp"].operations == (depth - 1) * n**2 + m * n
        assert found["bp"].sequential == depth
        for rule in ("dfa", "opzo"):
            assert found[rule].memory == found[rule].operations == depth * m * n
            assert found[rule].sequential == 1
        assert (found["zo"].memory, found["zo"].operations) == (1, depth * n)
        spiking = events.fc(5, (n,) * depth, m, tau_s=0.1, thresholds=0.1, duration=0.2)
        assert cost(spiking) == {**{k: found[k] for k in ("bp", "dfa")}, "sfdfa": found["dfa"]}


def test_cost_of_a_convolution_by_hand():
    """conv 1->2 on 4x4, pooled to 2x2, conv 2->3 on 2x2, read-out of 12."""
    net = nn.Sequential(
        clocked.Conv2d(1, 2, 3, padding=1), clocked.LIF(),
        clocked.Conv2d(2, 3, 3, padding=1, pool=2), clocked.LIF(), clocked.Linear(12, 5),
    )  # fmt: skip
    found = cost(net, (1, 4, 4))
    # On 2x2 with a border of zeros each pixel meets 4 of the 9 weights.
    assert found["bp"].operations == 4 * 4 * 2 * 3 + 60
    assert found["bp"].memory == 9 * 2 * 3 + 60
    assert found["opzo"].memory == 5 * (2 * 16 + 3 * 4)
    with pytest.raises(InputError, match="input_shape"):
        cost(net)


def test_training_operations_by_hand():
    """6-5-4-3: feedback 3 x (5 + 4), weights 30 + 20 + 12, traces 6 + 5 + 4."""
    net = clocked.fc(6, (5, 4), 3)
    common = {"traces": 15, "local": 9, "weights": 62}
    expected = {
        "spatial-bp": {"feedback": 20 + 12},
        "dfa": {"feedback": 27},
        "dkp": {"feedback": 27, "feedback_learning": 27},
        "zo": {"feedback": 9, "noise": 9},
        "opzo": {"feedback": 27, "feedback_learning": 27, "noise": 9},
    }
    for name, own in expected.items():
        found = training_operations(clocked.RULES[name](net))
        added = found.to_dict()["added"]
        assert {k: v for k, v in added.items() if v} == {**common, **own}
        assert found.total == sum({**common, **own}.values())
        assert found.forward == 62
    two = training_operations(clocked.OPZO(net, points="two-point")).added
    assert two.second_pass == 62
    local = training_operations(clocked.DFA(net, local_learning="learned")).added
    assert local.readouts == 3 * 3 * 9
    middle = training_operations(clocked.OPZO(net, intermediate="lif2")).added
    assert middle.feedback == middle.feedback_learning == 27 + 3 * 5
    assert middle.readouts == 3 * 3 * 4


def test_neurons_that_share_a_row_of_feedback_share_its_products():
    """Two channels of 4 x 4 in squares of 2 x 2: 8 rows for 32 neurons."""
    net = nn.Sequential(
        clocked.Conv2d(1, 2, 3, padding=1), clocked.LIF(), nn.Flatten(), clocked.Linear(32, 3)
    )
    for patch, rows in ((1, 32), (2, 8)):
        rule = clocked.OPZO(net, input_shape=(1, 4, 4), feedback_patch=patch)
        added = training_operations(rule).added
        assert added.feedback == added.feedback_learning == 3 * rows
        assert added.noise == added.local == 32


def test_training_operations_at_spikes_by_hand():
    """One input spike of weight 1 to neuron 0, which spikes once; neuron 1 never does."""
    net = events.fc(1, (2,), 3, tau_s=0.1, thresholds=(0.045, 9.0), duration=0.3, max_spikes=1)
    net.lif1.weight.data = torch.tensor([[1.0, 0.1]])
    batch = (events.SpikeBatch.from_lists([[0.0]], [[0]], 1), torch.tensor([0]))
    assert [a.spikes.counts().tolist() for a in net.run(batch[0])] == [[[1, 0]], [[0, 0, 0]]]
    common = {"traces": 2 * (1 + 1), "local": 1 * 1, "weights": 2 + 6}
    expected = {
        "exact-bp": {"feedback": 3},
        "dfa": {"feedback": 6},
        "sfdfa": {"feedback": 6, "feedback_learning": 6 + 3, "noise": 1},
    }
    for name, own in expected.items():
        found = training_operations(events.RULES[name](net), [batch])
        assert {k: v for k, v in found.to_dict()["added"].items() if v} == {**common, **own}
        assert found.forward == 2 + 3


def test_bad_input(grid, spiking):
    with pytest.raises(InputError, match="no batch"):
        operations(grid[0], [])
    with pytest.raises(InputError, match="no time grid"):
        operations(spiking[0], spiking[1], steps=4)
    with pytest.raises(InputError, match="give batches"):
        training_operations(events.DFA(spiking[0]))
    with pytest.raises(InputError, match="leave batches out"):
        training_operations(clocked.DFA(grid[0]), grid[1])


def test_sequences_of_several_lengths():
    """Operations are a mean over the samples, whatever their length; there is no one T."""
    torch.manual_seed(0)
    net = clocked.fc(3, (5,), 2, threshold=0.3)
    short, long = ((torch.rand(length, 2, 3), torch.zeros(2)) for length in (4, 10))
    each = [operations(net, [one]).total for one in (short, long)]
    both = operations(net, [short, long])
    assert both.total.dense == 7 * (3 * 5 + 5 * 2) and each[0].dense < each[1].dense
    assert both.total.spike_operations == sum(one.spike_operations for one in each) / 2 > 0
    assert both.steps is None and operations(net, [long, long]).steps == 10
