"""Pictures of spikes, potentials, confusions, weights and feedback, on axes of Matplotlib.

Each function draws onto `ax`, or onto pyplot's current axes, and returns a `Figure`: what was
drawn, as a value. Its `rows()` are the data, a dict for each point; `to_pandas()` makes a DataFrame
of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from threefactor import analysis
from threefactor.analysis.batches import AnyRule, Batch
from threefactor.analysis.feedback import MEAN_JACOBIAN, OUTPUT_WEIGHTS
from threefactor.errors import ConfigurationError, InputError
from threefactor.readable import clipped
from threefactor.report import pictures
from threefactor.report.drawing import draw, load_matplotlib
from threefactor.report.figures import Figure

__all__ = ["class_accuracy", "confusion", "feedback", "potentials", "raster", "weights"]


def raster(
    network: nn.Module,
    inputs: Any,
    *,
    steps: int | None = None,
    sample: int = 0,
    layers: Sequence[str] | None = None,
    ax: Any = None,
) -> Figure:
    """Draw which neuron spikes when, a band for each layer.

    On a time grid, time steps count from 1. Exact spike times are in seconds; the input and the
    output spike, too. Of layers with more than 500 neurons as many are shown, by lot.

    Args:
        network: of either engine; dropout is off.
        inputs: a batch, as `clocked.run` or `events.run` takes it.
        steps: T, for constant inputs of networks on a time grid.
        sample: which sample of the batch.
        layers: names of the layers; all by default.
        ax: axes of Matplotlib; pyplot's current ones by default.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: if input and network do not fit, there is no such sample or layer, or the
            activity of a layer is no spikes.

    Example:
        >>> import torch
        >>> from threefactor import clocked, plot
        >>> axes = load_matplotlib().figure.Figure().subplots()
        >>> figure = plot.raster(clocked.fc(4, (8,), 3), torch.rand(2, 4), steps=6, ax=axes)
        >>> figure.kind, figure.x_label
        ('raster', 'time step')
    """
    found = analysis.record(network, inputs, steps=steps, sample=sample)
    return _on(ax, pictures.raster_figure(found, layers))


def potentials(
    network: nn.Module,
    inputs: Any,
    layer: str,
    *,
    neurons: Sequence[int] | None = None,
    steps: int | None = None,
    sample: int = 0,
    ax: Any = None,
) -> Figure:
    """Draw membrane potentials of a layer with the threshold; spikes are marked.

    Those of exact spike times are computed by the closed form, at 401 moments and at all spikes.

    Args:
        network, inputs, steps, sample, ax: see `raster`.
        layer: name of the layer.
        neurons: which ones; by default those with the most, a middling number and the fewest
            spikes, of all that spike.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: as for `raster`, or if the layer does not say what its potential is.
    """
    found = analysis.record(network, inputs, steps=steps, sample=sample)
    return _on(ax, pictures.potential_figure(found, layer, neurons))


def confusion(
    output: Tensor, labels: Tensor, *, classes: Sequence[str] = (), ax: Any = None
) -> Figure:
    """Draw how many samples of each class are taken for which.

    Args:
        output: (N, m) of a network, whose largest value is the prediction.
        labels: (N,) class labels.
        classes: a name for each output; their numbers by default.
        ax: see `raster`.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: if these are no classes.
    """
    return _on(ax, pictures.confusion_figure(analysis.confusion(output, labels, classes)))


def class_accuracy(
    output: Tensor, labels: Tensor, *, classes: Sequence[str] = (), ax: Any = None
) -> Figure:
    """Draw the accuracy of each class; arguments and errors are those of `confusion`."""
    return _on(ax, pictures.class_figure(analysis.confusion(output, labels, classes)))


def weights(
    network: nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    ax: Any = None,
) -> Figure:
    """Draw the weights of the first layer as pictures, or as a matrix where inputs are no pictures.

    Args:
        network: of either engine.
        input_shape: of one sample, (C, H, W) or (H, W); the network's own by default.
        neurons: which ones, or output channels; the first ones by default.
        ax: see `raster`.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: if there is no such neuron, or the weights have another shape.
    """
    return _on(ax, pictures.weight_figure(network, input_shape, neurons))


def feedback(
    rule: AnyRule,
    batches: Iterable[Batch] | None = None,
    *,
    layer: str | None = None,
    steps: int | None = None,
    ax: Any = None,
) -> Figure:
    """Draw feedback weights against those they stand for; the caption has the angle.

    Args:
        rule, batches, steps: as for `analysis.feedback_alignment`: the output weights without
            batches, the mean Jacobian with them.
        layer: name of the hidden layer; by default the last one.
        ax: see `raster`.

    Raises:
        ConfigurationError: if matplotlib is not installed.
        InputError: as `analysis.feedback_alignment` raises it, or if there is no such layer.
    """
    pairs = analysis.feedback_beside(rule, batches, steps=steps)
    name = [*pairs][-1] if layer is None else layer
    if not isinstance(name, str) or name not in pairs:
        raise InputError(
            f"of layer {clipped(name)} there is nothing to compare; give one of {', '.join(pairs)}"
        )
    compared_with = OUTPUT_WEIGHTS if batches is None else MEAN_JACOBIAN
    return _on(ax, pictures.feedback_figure(*pairs[name], compared_with))


def _on(ax: Any, figure: Figure) -> Figure:
    """Draw a figure onto axes."""
    load_matplotlib()
    if ax is None:
        import matplotlib.pyplot

        ax = matplotlib.pyplot.gca()
    if not hasattr(ax, "plot") or not hasattr(ax, "pcolormesh"):
        raise ConfigurationError(
            f"ax is {clipped(ax)}; give axes of Matplotlib, as of plt.subplots(), one at a time"
        )
    draw(figure, ax)
    return figure
