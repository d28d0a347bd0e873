"""How many weights and neurons a network has, without data or memory for it."""

import pytest

from threefactor import clocked
from threefactor.recipes import recipe
from threefactor.training.memory import counts


class Samples:
    def __init__(self, shape, outputs=10):
        self.input_shape, self.outputs = shape, outputs


def of(name, shape):
    return counts(recipe(name).settings_for("dfa"), Samples(shape))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("cifar10-conv5", (3, 32, 32), (128 * 32**2, 256 * 16**2, 512 * 8**2, 512 * 4**2)),
        ("dvs-cifar10-conv5", (2, 48, 48), (128 * 48**2, 256 * 24**2, 512 * 12**2, 512 * 6**2)),
        # Channels of width 0.125 on the camera's 34 x 34; pooling drops the odd row of 17 x 17.
        ("digits-saccades-conv", (2, 34, 34), (16 * 34**2, 32 * 17**2, 64 * 8**2, 64 * 4**2)),
    ],
)
def test_conv5_by_hand(name, shape, expected):
    assert of(name, shape)[1] == sum(expected)


def test_residual_network_by_hand():
    """224 x 224 is 112 x 112 after the stem, 56 x 56 after its pooling; stages halve it.

    The first block of a stage sees the stage before in its first neurons.
    """
    before = 64
    expected, size = 0, 56
    for blocks, channels in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        after = size if channels == 64 else size // 2
        expected += before * size**2 + channels * after**2 * (2 * blocks - 1)
        before, size = channels, after
    assert of("imagenet-nfresnet34", (3, 224, 224))[1] == expected


def test_they_are_those_of_a_rule_on_the_network():
    settings = recipe("cifar100-conv9").settings_for("dfa", {"width": 0.05})
    net = clocked.conv9((3, 32, 32), 100, width=0.05)
    weights, neurons = counts(settings, Samples((3, 32, 32), 100))
    assert weights == sum(weight.numel() for weight in net.parameters())
    assert neurons == sum(clocked.DFA(net).layer_sizes.values())


def test_fully_connected_networks():
    weights, neurons = of("mnist-fc", (1, 28, 28))
    assert (weights, neurons) == (784 * 800 + 800 * 800 + 800 * 10, 800 + 800 + 10)
