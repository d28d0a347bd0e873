"""The numbers behind pictures of a network, and what cannot be shown."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from threefactor import analysis, clocked, events
from threefactor.errors import ConfigurationError, InputError
from threefactor.report.drawing import svg
from threefactor.report.figures import Figure, Series, figure_csv
from threefactor.report.pictures import (
    class_figure,
    confusion_figure,
    feedback_figure,
    potential_figure,
    raster_figure,
    weight_figure,
)


@pytest.fixture(scope="module")
def recording():
    torch.manual_seed(0)
    network = clocked.fc(20, (600, 8), 3, threshold=0.2)
    return analysis.record(network, torch.rand(2, 20), steps=6)


def test_a_raster_has_every_spike_of_small_layers_and_neurons_by_lot_of_large_ones(recording):
    figure = raster_figure(recording)
    large, small = figure.series
    layer = recording.layers["lif2"]
    assert small.xs == layer.times.tolist() and small.ys == layer.addresses.tolist()
    assert len(small.xs) > 0 and (large.size, small.size) == (600, 8)
    shown = set(np.random.default_rng(0).choice(600, 500, replace=False).tolist())
    every = recording.layers["lif1"]
    spikes = [*zip(every.times.tolist(), every.addresses.tolist(), strict=True)]
    wanted = [(time, neuron) for time, neuron in spikes if neuron in shown]
    assert [*zip(large.xs, large.ys, strict=True)] == wanted and len(wanted) > 500
    rows = [row for row in figure.rows() if row["series"] == "lif1"]
    assert max(row["y"] for row in rows) > 500  # the numbers of the neurons in the layer
    assert "500 neurons by lot, of lif1 600." in figure.caption
    assert figure.x_range == (0.5, 6.5) and figure.x_label == "time step"
    assert "lif2" in svg(figure)
    assert raster_figure(recording, ["lif2"]).series[0].label == "lif2"
    with pytest.raises(InputError, match=r"'lif3' is no layer .* lif1, lif2"):
        raster_figure(recording, ["lif3"])


def test_a_silent_layer_is_shown_as_such():
    network = clocked.fc(4, (5,), 2, threshold=100.0)
    figure = raster_figure(analysis.record(network, torch.rand(1, 4), steps=2))
    assert figure.rows() == [] and "no spikes" in svg(figure)
    assert figure_csv(figure) == "series,x,y\n"


def test_potentials_have_marks_at_spikes_and_one_threshold(recording):
    figure = potential_figure(recording, "lif2")
    *neurons, threshold = figure.series
    assert threshold.label == "threshold" and set(threshold.ys) == {0.2}
    counts = recording.layers["lif2"].counts()
    spiking = sorted((int(c) for c in counts if c), reverse=True)
    chosen = [int(one.label.removeprefix("neuron ")) for one in neurons]
    assert counts[chosen[0]] == spiking[0] and counts[chosen[-1]] == spiking[-1]
    for i, one in zip(chosen, neurons, strict=True):
        assert sum(one.marked) == counts[i]
        above = [y >= 0.2 for y in one.ys]
        assert above == one.marked
    assert "marked" in figure_csv(figure).splitlines()[0]
    assert [one.label for one in potential_figure(recording, "lif1", [7]).series] == [
        *("neuron 7", "threshold"),
    ]
    for wrong in ([], [8], [-1]):
        with pytest.raises(InputError, match="neuron"):
            potential_figure(recording, "lif2", wrong)


@pytest.mark.parametrize("cap", [2, 30])
def test_neurons_at_their_cap_are_explained(cap):
    network = events.fc(1, (), 1, tau_s=0.02, thresholds=0.005, duration=0.1, max_spikes=cap)
    network.readout.weight.data.fill_(2.0)
    found = analysis.record(network, events.SpikeBatch.from_lists([[0.0]], [[0]], 1))
    figure = potential_figure(found, "readout")
    heights = [y for y in figure.series[0].ys if y > 1.01 * network.readout.theta]
    assert (cap == 2) == bool(heights) == ("is at its cap of spikes" in figure.caption)


def test_counts_in_cells_are_exact():
    counts = Series("samples", [0, 1], [0, 0], values=[12345.0, 0.123456])
    cells = Figure("a", "A", "", "x", "y", (counts,), "cells", x_names=("a", "b"), y_names=("c",))
    assert ">12345<" in svg(cells) and ">0.1235<" in svg(cells)


def test_confusions_are_drawn_with_the_first_class_at_the_top():
    output = torch.eye(3)[[0, 1, 1, 2, 0]]
    found = analysis.confusion(output, torch.tensor([0, 1, 2, 2, 0]), ["cat", "dog", "owl"])
    figure = confusion_figure(found)
    rows = {(row["y"], row["x"]): row["value"] for row in figure.rows()}
    assert rows["owl", "dog"] == 1 and rows["cat", "cat"] == 2 and rows["dog", "owl"] == 0
    assert figure.y_names == ("owl", "dog", "cat") and "80.00 %" in figure.caption
    drawn = svg(figure)
    assert drawn.index(">owl<") and ">2<" in drawn
    bars = class_figure(found).rows()
    assert [(row["x"], row["y"]) for row in bars] == [("cat", 100), ("dog", 100), ("owl", 50)]


def test_weights_are_pictures_where_the_inputs_are():
    torch.manual_seed(0)
    flat = clocked.fc(12, (20,), 2)
    weight = flat.linear1.weight.detach()
    figure = weight_figure(flat, (1, 3, 4))
    assert figure.kind == "pictures" and len(figure.series) == 16 and figure.columns == 4
    for row in figure.rows():
        neuron = int(row["series"].removeprefix("neuron "))
        assert row["value"] == weight[neuron, 4 * row["y"] + row["x"]]
    assert svg(figure).count("<image") == 2  # the pictures and their scale
    colour = weight_figure(flat, (3, 2, 2), neurons=[5])
    assert [one.label for one in colour.series] == [f"neuron 5, channel {c}" for c in range(3)]
    last = colour.rows()[-1]
    assert last["value"] == weight[5, 11]
    matrix = weight_figure(flat, (12,))
    assert matrix.kind == "heatmap" and len(matrix.rows()) == 20 * 12
    assert {(r["y"], r["x"]): r["value"] for r in matrix.rows()}[3, 7] == weight[3, 7]
    exact = events.fc(6, (4,), 2, tau_s=0.1, thresholds=0.1, duration=0.2)
    found = weight_figure(exact, (2, 3)).rows()
    assert found[7]["value"] == exact.layers["lif1"].weight[1, 1]  # neuron 1, row 0, column 1
    conv = nn.Sequential(
        clocked.Conv2d(2, 3, 3), clocked.LIF(), nn.Flatten(), clocked.Linear(12, 2)
    )
    kernels = weight_figure(conv)
    assert len(kernels.series) == 6 and len(kernels.rows()) == 54
    one = nn.Sequential(nn.Conv1d(2, 3, 3), clocked.LIF(), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(InputError, match="neither pictures nor a matrix"):
        weight_figure(one)
    for wrong in ([20], [-1], [0, 0], [], [1.5]):
        with pytest.raises(InputError, match=r"neuron"):
            weight_figure(flat, (1, 3, 4), wrong)
    with pytest.raises(InputError, match="no layer with weights"):
        weight_figure(nn.Sequential(clocked.LIF()))
    with torch.no_grad():
        flat.linear1.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        weight_figure(flat)


def test_feedback_is_drawn_against_the_weights_with_the_angle_of_all_pairs():
    torch.manual_seed(0)
    matrix, other = torch.randn(10, 300), torch.randn(10, 300)
    figure = feedback_figure(matrix, other, "output weights")
    dot = norms = others = 0.0
    for a, b in zip(matrix.flatten().tolist(), other.flatten().tolist(), strict=True):
        dot, norms, others = dot + a * b, norms + a * a, others + b * b
    wanted = math.degrees(math.acos(dot / math.sqrt(norms * others)))
    assert f"is {wanted:.1f} degrees" in figure.caption and "2,000 of 3,000" in figure.caption
    pairs = set(zip(other.flatten().tolist(), matrix.flatten().tolist(), strict=True))
    rows = figure.rows()
    assert len(rows) == 2000 and all((row["x"], row["y"]) in pairs for row in rows)
    assert "no angle" in feedback_figure(matrix, 0 * other, "mean Jacobian").caption
    with pytest.raises(InputError, match="same shape"):
        feedback_figure(matrix, other[:5], "output weights")
    with pytest.raises(InputError, match="not finite"):
        feedback_figure(matrix / 0, other, "output weights")


def test_rows_become_a_data_frame_where_pandas_is(monkeypatch):
    figure = Figure("a", "A", "", "x", "y", (Series("one", [1, 2], [0.5, None]),))
    assert figure.rows()[1] == {"series": "one", "x": 2, "y": None}
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ConfigurationError, match="pip install pandas"):
        figure.to_pandas()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    frame = figure.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == ["series", "x", "y"]
    assert frame["y"][0] == 0.5 and frame["y"].isna()[1]


def test_neurons_outside_of_a_raster_are_refused():
    for size in (None, 2):
        with pytest.raises(InputError, match="outside of its"):
            Figure("a", "A", "", "x", "y", (Series("one", [1], [2], size=size),), "raster")
