"""threefactor.plot: a few lines of Python, on axes of one's own."""

import pytest
import torch

from threefactor import clocked, events, plot
from threefactor.errors import ConfigurationError, InputError

figures = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def axes():
    return figures.Figure().subplots()


def test_each_function_draws_onto_axes(axes):
    torch.manual_seed(0)
    network = clocked.fc(12, (9, 8), 3, threshold=0.2)
    rule, x = clocked.DFA(network), torch.rand(4, 12)
    output, labels = torch.rand(20, 3), torch.randint(3, (20,))
    found = [
        plot.raster(network, x, steps=5, sample=3, ax=axes),
        plot.potentials(network, x, "lif2", steps=5, neurons=[1], ax=axes),
        plot.confusion(output, labels, classes=("a", "b", "c"), ax=axes),
        plot.class_accuracy(output, labels, ax=axes),
        plot.weights(network, input_shape=(3, 4), ax=axes),
        plot.feedback(rule, ax=axes),
        plot.feedback(rule, [(x, labels[:4])], layer="lif1", steps=5, ax=axes),
    ]
    kinds = ["raster", "line", "cells", "bar", "pictures", "points", "points"]
    assert [figure.kind for figure in found] == kinds
    assert all(figure.rows() for figure in found)
    assert found[6].x_label == "mean Jacobian" and len(axes.lines) >= 4


def test_exact_spike_times_too(axes):
    network = events.fc(6, (5,), 3, tau_s=0.1, thresholds=0.02, duration=0.2)
    x = events.latency_code(torch.rand(2, 6))
    figure = plot.raster(network, x, ax=axes)
    assert [one.label for one in figure.series] == ["input", "lif1", "readout"]
    assert figure.x_label == "time (s)" and axes.get_xlim() == (0.0, 0.2)
    plot.potentials(network, x, "readout", ax=axes)
    assert plot.feedback(events.SFDFA(network), ax=axes).x_label == "output weights"


def test_without_axes_those_of_pyplot_are_used():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    try:
        plot.class_accuracy(torch.rand(5, 2), torch.tensor([0, 1, 0, 1, 1]))
        assert len(pyplot.gca().patches) == 2
    finally:
        pyplot.close("all")


def test_what_cannot_be_drawn_is_refused_in_words(axes, monkeypatch):
    network = clocked.fc(4, (5,), 2)
    with pytest.raises(InputError, match="SpatialBP has no feedback"):
        plot.feedback(clocked.SpatialBP(network), ax=axes)
    with pytest.raises(InputError, match="give one of lif1"):
        plot.feedback(clocked.DFA(network), layer="lif2", ax=axes)
    with pytest.raises(InputError, match="no class labels"):
        plot.confusion(torch.rand(3, 2), torch.rand(3, 2), ax=axes)
    with pytest.raises(InputError):  # a batch of another shape
        plot.raster(network, torch.rand(2, 5), steps=3, ax=axes)
    with pytest.raises(ConfigurationError, match="give axes of Matplotlib"):
        plot.weights(network, ax=figures.Figure().subplots(1, 2))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[report\]'"):
        plot.weights(network, ax=axes)
