"""Numbers of neurons out of settings, without data or weights."""

import pytest

from threefactor import clocked
from threefactor.recipes import recipe
from threefactor.training.engines import CONVOLUTIONAL
from threefactor.training.sizes import convolutional_sizes


def of(name, rule="dfa", **changes):
    return convolutional_sizes(recipe(name).settings_for(rule, changes))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10-conv5", (128 * 32**2, 256 * 16**2, 512 * 8**2, 512 * 4**2)),
        ("dvs-cifar10-conv5", (128 * 48**2, 256 * 24**2, 512 * 12**2, 512 * 6**2)),
        # Channels of width 0.125 on the camera's 34 x 34; pooling drops the odd row of 17 x 17.
        ("digits-saccades-conv", (16 * 34**2, 32 * 17**2, 64 * 8**2, 64 * 4**2)),
    ],
)
def test_conv5_by_hand(name, expected):
    assert of(name) == {f"lif{i}": n for i, n in enumerate(expected, start=1)}


def test_residual_network_by_hand():
    """224 x 224 is 112 x 112 after the stem, 56 x 56 after its pooling; stages halve it."""
    sizes = of("imagenet-nfresnet34")
    assert len(sizes) == 2 * (3 + 4 + 6 + 3)
    assert sizes["stage1_block1.lif1"] == sizes["stage1_block3.lif2"] == 64 * 56**2
    # The first block of a stage sees the stage before in lif1.
    assert sizes["stage2_block1.lif1"] == 64 * 56**2
    assert sizes["stage2_block1.lif2"] == 128 * 28**2
    assert sizes["stage4_block3.lif2"] == 512 * 7**2


def test_they_are_those_of_a_rule_on_the_network():
    settings = recipe("cifar100-conv9").settings_for("dfa", {"width": 0.05})
    net = CONVOLUTIONAL["conv9"]((3, 32, 32), 100, width=0.05)
    assert convolutional_sizes(settings) == clocked.DFA(net).layer_sizes


def test_other_networks_and_unknown_data_have_none():
    assert of("mnist-fc") == of("mnist-events", "sfdfa") == {}
    assert of("cifar10-conv5", **{"data.name": "my-own"}) == {}
