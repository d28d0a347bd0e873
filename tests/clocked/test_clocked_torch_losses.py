"""Losses of `torch.nn`: values and errors are PyTorch's, and what has no meaning is refused."""

import pickle

import pytest
import torch
from torch import nn

from threefactor import clocked, events
from threefactor.clocked.torch_losses import TORCH_LOSSES, UNSUPPORTED, from_torch
from threefactor.errors import InputError

B, M = 7, 4
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.0])


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


OUTPUT = seeded(B, M)
CLASSES = torch.arange(B) % M
VALUES = seeded(M, B).t() * 2
LABELS = (seeded(B * 2, M)[:B] > 0).double()
CASES = {
    "cross entropy": (nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES),
    "cross entropy, weights": (nn.CrossEntropyLoss(WEIGHT.double(), reduction="none"), CLASSES),
    "multi-margin": (nn.MultiMarginLoss(p=2, margin=0.7, weight=WEIGHT.double()), CLASSES),
    "mse": (nn.MSELoss(), VALUES),
    "l1": (nn.L1Loss(), VALUES),
    "smooth l1": (nn.SmoothL1Loss(beta=0.3), VALUES),
    "huber": (nn.HuberLoss(delta=0.4), VALUES),
    "bce": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT.double()), LABELS),
    "bce, weights": (nn.BCEWithLogitsLoss(WEIGHT.double()), LABELS),
    "soft margin": (nn.MultiLabelSoftMarginLoss(WEIGHT.double()), LABELS),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_errors_are_those_of_pytorch(case):
    module, targets = CASES[case]
    output = OUTPUT.clone().requires_grad_()
    wanted = module(output, targets).mean()
    (gradient,) = torch.autograd.grad(wanted, output)
    losses, errors = from_torch(module)(OUTPUT, targets)
    assert losses.shape == (B,)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(losses.mean(), wanted)
    torch.testing.assert_close(errors / B, gradient)


@pytest.mark.parametrize("case", CASES)
def test_errors_agree_with_finite_differences(case):
    module, targets = CASES[case]
    loss, step = from_torch(module), 1e-6
    _, errors = loss(OUTPUT, targets)
    for column in range(M):
        moved = OUTPUT.clone()
        moved[:, column] += step
        difference = (loss(moved, targets)[0] - loss(OUTPUT, targets)[0]) / step
        torch.testing.assert_close(errors[:, column], difference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("module", [nn.CrossEntropyLoss(label_smoothing=0.2), nn.MSELoss()])
def test_a_rule_learns_what_autograd_says_of_the_mean_over_samples_and_steps(module):
    """The read-out's gradient, with the loss of `torch.nn` at every time step."""
    torch.manual_seed(0)
    net = clocked.fc(5, (6,), M, threshold=0.3, dropout=0.0).double()
    inputs = torch.rand(3, B, 5, dtype=torch.float64)
    targets = CLASSES if isinstance(module, nn.CrossEntropyLoss) else VALUES
    rule = clocked.SpatialBP(net, loss=module)
    seen = []
    readout = list(net.modules())[-1]
    handle = readout.register_forward_hook(lambda _, x, y: seen.append((x[0].detach(), y)))
    result = rule.step(inputs, targets)
    handle.remove()
    assert len(seen) == 3
    trace, outputs, wanted = 0.0, [], torch.zeros_like(readout.weight)
    decay = rule.trace_decays[next(n for n, m in net.named_modules() if m is readout)]
    for x, y in seen:
        leaf = y.detach().requires_grad_()
        (error,) = torch.autograd.grad(module(leaf, targets) / 3, leaf)
        trace = decay * trace + x
        wanted += error.t() @ trace
        outputs.append(float(module(y.detach(), targets)))
    assert wanted.abs().max() > 0
    torch.testing.assert_close(readout.weight.grad, wanted)
    assert float(result.loss) == pytest.approx(sum(outputs) / 3)


def test_exact_spike_times_take_them_too():
    torch.manual_seed(1)
    net = events.fc(4, (12,), 3, tau_s=0.1, thresholds=0.05, duration=0.2)
    spikes = events.latency_code(torch.rand(5, 4))
    targets = torch.rand(5, 3) * 10
    result = events.ExactBP(net, loss=nn.MSELoss()).step(spikes, targets)
    assert result.output.any()
    assert float(result.loss) == pytest.approx(float(nn.MSELoss()(result.output, targets)))
    found = events.run(net, spikes, targets=targets, loss=nn.L1Loss())
    assert float(found.loss) == pytest.approx(float(nn.L1Loss()(found.output, targets)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.NLLLoss(), "NLLLoss: it takes logarithms .* CrossEntropyLoss makes them"),
        (nn.BCELoss(), "BCEWithLogitsLoss"),
        (nn.CTCLoss(), "reads whole sequences"),
        (nn.MSELoss(reduction="sum"), "reduction='sum'"),
        (nn.CrossEntropyLoss(ignore_index=2), "ignore_index"),
        (nn.CrossEntropyLoss(WEIGHT), "divides by the sum of the weights"),
        (nn.BCEWithLogitsLoss(torch.ones(2, 3)), "weight is .*give numbers"),
    ],
)
def test_losses_that_a_rule_cannot_use_are_refused_by_name(module, message):
    net = clocked.fc(5, (6,), M)
    with pytest.raises(InputError, match=message):
        clocked.OPZO(net, loss=module)
    with pytest.raises(InputError, match=message):
        clocked.run(net, torch.rand(2, 5), steps=1, targets=torch.rand(2, M), loss=module)


def test_every_loss_of_pytorch_is_taken_or_refused_with_a_reason():
    known = {name for name in vars(nn) if name.endswith("Loss")}
    assert known
    assert known <= {*TORCH_LOSSES, *UNSUPPORTED}


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("MSELoss", CLASSES, "torch.int64, and MSELoss .*CrossEntropyLoss"),
        ("MSELoss", VALUES[:, 0], r"shape \(7,\), and MSELoss .*\(7, 4\)"),
        ("MSELoss", VALUES[:, :2], "as many as the network has outputs"),
        ("L1Loss", VALUES * float("nan"), "NaN or infinite"),
        ("BCEWithLogitsLoss", VALUES, "from 0 to 1"),
        ("BCEWithLogitsLoss", LABELS.long(), r"targets.float\(\)"),
        ("CrossEntropyLoss", LABELS, "one class label per sample"),
        ("CrossEntropyLoss", CLASSES.double(), "torch.int64"),
        ("CrossEntropyLoss", CLASSES + 2, "knows classes 0 to 3"),
    ],
)
def test_targets_that_do_not_fit_are_refused(name, targets, message):
    net = clocked.fc(5, (6,), M)
    rule = clocked.DFA(net, loss=TORCH_LOSSES[name]())
    with pytest.raises(InputError, match=message):
        rule.step(torch.rand(B, 5), targets, steps=2)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CrossEntropyLoss", {"label_smoothing": 2.0}, "between 0 and 1"),
        ("CrossEntropyLoss", {"weight": [1.0, -1.0]}, "at least 0"),
        ("CrossEntropyLoss", {"weight": [0.0, 0.0]}, "not all of them 0"),
        ("MultiMarginLoss", {"p": 3}, "takes 1 or 2"),
        ("HuberLoss", {"delta": 0.0}, "above 0"),
        ("SmoothL1Loss", {"beta": -1.0}, "at least 0"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        TORCH_LOSSES[name](**options)


def test_as_many_weights_as_outputs():
    rule = clocked.DFA(clocked.fc(5, (6,), M), loss=TORCH_LOSSES["CrossEntropyLoss"](weight=[1.0]))
    with pytest.raises(InputError, match="has 1 numbers, and the network 4 outputs"):
        rule.step(torch.rand(B, 5), CLASSES, steps=2)


def test_a_loss_can_be_pickled():
    loss = from_torch(nn.CrossEntropyLoss(label_smoothing=0.1))
    again = pickle.loads(pickle.dumps(loss))
    assert torch.equal(again(OUTPUT, CLASSES)[1], loss(OUTPUT, CLASSES)[1])
