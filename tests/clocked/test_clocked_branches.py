"""Every rule on networks whose branches meet and skip layers, against the formulas."""

import numpy as np
import pytest
import torch
from reference import branches as slow
from reference.branch_cases import MERGES, MODEL, SHAPES, make, make_inputs, slow_nodes
from reference.clocked_cases import (
    CASES,
    STEPS,
    assert_alive,
    assert_same,
    learned,
    make_data,
    make_rule,
    matrices,
    replay_noise,
)

from threefactor import clocked


def compare(case, network, static):
    rule = make_rule(case, network, input_shape=SHAPES)
    image, audio, labels = make_inputs()
    inputs = {"image": image, "audio": audio}
    if static:
        inputs = {name: x[:1].expand_as(x) for name, x in inputs.items()}
    feedback = [b.detach().t().numpy().copy() for b in matrices(rule)]
    if static:
        result = rule.step({k: x[0] for k, x in inputs.items()}, labels, steps=STEPS)
    else:
        result = rule.step(inputs, labels)
    assert_alive(result)

    name, options = CASES[case]
    sizes = list(rule.layer_sizes.values())
    noise = None
    if "noise_scale" in options:
        noise = [[z.numpy() for z in step] for step in replay_noise(sizes, STEPS, options)]
    expected, out = slow.train(
        name, slow_nodes(network), MODEL, {k: x.flatten(2).numpy() for k, x in inputs.items()},
        labels.numpy(), noise=noise, feedback=feedback, **options,
    )  # fmt: skip
    np.testing.assert_allclose(float(result.loss), out.loss, rtol=1e-10)
    np.testing.assert_allclose(result.output.numpy(), out.output, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose([float(r) for r in result.firing_rates.values()], out.rates)
    wanted = {}
    for layer, (weight, bias) in expected.items():
        wanted[f"{layer}.weight"] = torch.from_numpy(weight)
        wanted[f"{layer}.bias"] = torch.from_numpy(bias)
    found = {k: p.grad.clone() for k, p in network.named_parameters()}
    assert_same({k: wanted[k] for k in found}, found)
    for i, b in enumerate(matrices(rule)):
        np.testing.assert_allclose(b.detach().t(), out.feedback[i], rtol=1e-9, atol=1e-12)
        if b.requires_grad:
            np.testing.assert_allclose(b.grad.t(), out.feedback_grads[i], rtol=1e-9, atol=1e-11)


both_inputs = pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])


@both_inputs
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
def test_branches_equal_their_formulas(case, merge, static):
    compare(case, make(merge), static)


@both_inputs
@pytest.mark.parametrize("case", CASES)
def test_every_rule_on_two_branches(case, static):
    compare(case, make("skip to the read-out"), static)


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
def test_one_neuron_without_a_dimension_of_its_own(case):
    """A layer of one neuron a sample, (B,), learns as one of shape (B, 1)."""

    class One(torch.nn.Module):
        input_shape = (7,)

        def __init__(self, squeezed):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.l, self.b = clocked.Linear(7, 1), clocked.LIF(), clocked.Linear(1, 3)
            self.squeezed = squeezed

        def forward(self, x):
            current = self.a(x)
            if not self.squeezed:
                return self.b(self.l(current))
            return self.b(self.l(current.squeeze(1)).unsqueeze(1))

    x, y = make_data()
    found = []
    for squeezed in (True, False):
        rule = make_rule(case, One(squeezed).double())
        rule.step(2 * x, y)
        found.append(learned(rule))
    assert_same(*found)
