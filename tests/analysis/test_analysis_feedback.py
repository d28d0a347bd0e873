"""Feedback beside output weights and mean Jacobian; the Jacobian by finite differences."""

import pytest
import torch

from threefactor import clocked, events
from threefactor.analysis import feedback_alignment, mean_jacobian
from threefactor.errors import InputError

STEPS = 4


class Smooth(clocked.Neuron):
    """A leaky unit whose local derivative is the true one."""

    leak = 0.5

    def advance(self, current, noise=None):
        potential = current.clone() if self.state is None else current + 0.5 * self.state[0]
        self.state = (potential,)
        return potential.tanh()

    def modulate(self, error, state, gate):
        return error * gate * (1 - state[0].tanh() ** 2)


class TwoPaths(torch.nn.Module):
    """The first hidden layer reaches the output through the second one, and past it."""

    input_shape = (3,)

    def __init__(self):
        super().__init__()
        self.one, self.a = clocked.Linear(3, 5), Smooth()
        self.two, self.b = clocked.Linear(5, 4), Smooth()
        self.out, self.past = clocked.Linear(4, 2), clocked.Linear(5, 2)
        self.shift = None

    def forward(self, x):
        a = self.a(self.one(x))
        if self.shift is not None:
            a = a + self.shift
        return self.out(self.b(self.two(a))) + self.past(a)


def test_against_finite_differences():
    torch.manual_seed(0)
    net = TwoPaths().double()
    x = torch.randn(7, 3, dtype=torch.float64)
    # T = 1: within a time step, while earlier ones stay as they were.
    found = mean_jacobian(net, [x], steps=1)["a"]
    assert found.shape == (2, 5) and found.abs().min() > 1e-4
    for j in range(5):
        outputs = []
        for sign in (1, -1):
            clocked.reset_state(net)
            net.shift = sign * 1e-6 * torch.eye(5, dtype=torch.float64)[j]
            outputs.append(clocked.run(net, x, steps=1).output.mean(0))
        assert torch.allclose((outputs[0] - outputs[1]) / 2e-6, found[:, j], atol=1e-8)
    net.shift = None


def test_spikes_by_the_chain_rule(grid):
    """J_2 = W_out and J_1 = W_out diag(psi) W_2, averaged over samples, steps and batches."""
    net, batches = grid
    found = mean_jacobian(net, (x for x, _ in batches), steps=STEPS)
    w_2, w_out = net.linear2.weight.detach(), net.readout.weight.detach()
    assert torch.allclose(found["lif2"], w_out)
    total, count = torch.zeros(4, 12, dtype=torch.float64), 0
    for x, _ in batches:
        net.reset()
        for _ in range(STEPS):
            net(x)
            s = torch.sigmoid((net.lif2.state[0] - 1.0) / 0.25)
            for psi in s * (1 - s) / 0.25:
                total += w_out @ torch.diag(psi) @ w_2
                count += 1
    assert torch.allclose(found["lif1"], total / count)
    net.requires_grad_(False)
    frozen = mean_jacobian(net, (x for x, _ in batches), steps=STEPS)
    assert torch.allclose(frozen["lif1"], found["lif1"])


def test_convolutions():
    torch.manual_seed(0)
    net = clocked.conv5((2, 16, 16), 3, width=0.02)
    x = torch.randn(2, 2, 16, 16)
    found = mean_jacobian(net, [x], steps=2)
    rule = clocked.OPZO(net)
    assert {k: v.shape[1] for k, v in found.items()} == rule.layer_sizes
    assert torch.allclose(found["lif4"], net.readout.weight)


def test_opzo_learns_the_mean_jacobian():
    """On smooth neurons, where the Jacobian is the true one, for every layer."""
    torch.manual_seed(0)
    net = TwoPaths().double()
    batches = [(torch.randn(200, 3, dtype=torch.float64), torch.randint(0, 2, (200,)))]
    options = {"momentum": 0.998, "divide_by_scale": True, "points": "two-point"}
    rule = clocked.OPZO(net, noise_scale=0.02, **options)
    assert feedback_alignment(rule, batches, steps=2).layers["a"].note.startswith("undefined: the")
    for _ in range(250):
        rule.step(*batches[0], steps=6)
    found = feedback_alignment(rule, batches, steps=6).layers
    for layer in found.values():
        assert layer.cosine > 0.99
        assert layer.scale == pytest.approx(1 - 0.998**1500, abs=0.06)


def test_output_weights(grid, spiking):
    net, _ = grid
    rule = clocked.DFA(net)
    rule.feedback[-1].matrix.copy_(-2.0 * net.readout.weight.detach())
    found = feedback_alignment(rule).layers
    assert list(found) == ["lif2"]
    assert found["lif2"].cosine == pytest.approx(-1.0)
    assert found["lif2"].angle == pytest.approx(180.0)
    assert found["lif2"].scale == pytest.approx(2.0)
    net, _ = spiking
    sfdfa = events.SFDFA(net)
    zero = feedback_alignment(sfdfa).layers["lif2"]
    assert zero.cosine is None and zero.note == "undefined: the feedback is zero"
    with torch.no_grad():
        sfdfa.feedback[-1].matrix.copy_(net.readout.weight.t())
    assert feedback_alignment(sfdfa).layers["lif2"].cosine == pytest.approx(1.0)


def test_bad_input(grid, spiking):
    net, _ = grid
    with pytest.raises(InputError, match="SpatialBP has no feedback"):
        feedback_alignment(clocked.SpatialBP(net))
    with pytest.raises(InputError, match="no batch"):
        mean_jacobian(net, [])
    with pytest.raises(InputError, match="leave batches out"):
        feedback_alignment(events.DFA(spiking[0]), spiking[1])
    residual = clocked.nf_resnet34((3, 64, 64), 4, width=0.02, depths=(1, 1, 1, 1))
    with pytest.raises(InputError, match="the last synapse layer has weights of shape"):
        feedback_alignment(clocked.DFA(residual, chain="within-layers"))
