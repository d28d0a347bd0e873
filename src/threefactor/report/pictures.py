"""Pictures of a network as figures: spikes, potentials, confusion, weights, feedback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from threefactor import events
from threefactor.analysis.alignment import angle
from threefactor.analysis.confusion import Confusion
from threefactor.analysis.recording import INPUT, LayerRecording, Recording
from threefactor.clocked.foreign import layers_of
from threefactor.clocked.synapse import Synapse
from threefactor.errors import InputError
from threefactor.readable import clipped
from threefactor.report.figures import Figure, Series
from threefactor.report.names import slug

__all__ = [
    "MOST_NEURONS",
    "class_figure",
    "confusion_figure",
    "feedback_figure",
    "hidden_layers",
    "potential_figure",
    "raster_figure",
    "weight_figure",
]

MOST_NEURONS = 500
"""Neurons of a layer that a raster shows; of more, as many are drawn by lot."""
ABOVE = 1e-3
"""By which share of the threshold rounding may leave a potential of exact spike times above it."""
MOST_POINTS = 2000
"""Pairs of weights that a scatter shows."""
WEIGHED = 16
"""Neurons whose weights are shown as pictures."""
ROWS = 50
"""Neurons whose weights are shown where the inputs are no picture."""
MOST_SIDE = 64
"""The largest picture of weights that is shown, in pixels of a side."""


def raster_figure(
    recording: Recording, layers: Sequence[str] | None = None, title: str = "spikes"
) -> Figure:
    """Show which neuron spiked when, a band for each layer, the first at the bottom.

    Args:
        recording: of one sample.
        layers: their names; all by default.
        title: of the figure.

    Raises:
        InputError: if there is no such layer, or its activity is no spikes.
    """
    series, shortened = [], []
    for name in recording.layers if layers is None else _listed("layers", layers):
        layer = recording.layer(name)
        layer.check_spikes()
        times, addresses, size = layer.times, layer.addresses, layer.neurons
        if size > MOST_NEURONS:
            shown = np.random.default_rng(0).choice(size, MOST_NEURONS, replace=False)
            seen = np.isin(addresses, shown)
            times, addresses = times[seen], addresses[seen]
            shortened.append(f"{name} {size:,}")
        series.append(Series(name, times.tolist(), addresses.tolist(), size=size))
    if not series:
        raise InputError("the network has no layer of neurons, so there are no spikes to show")
    about = "Each mark is a spike; below its name, the number of neurons of a layer."
    if shortened:
        about += f" {MOST_NEURONS} neurons by lot, of {', '.join(shortened)}."
    on_grid = recording.unit == "time step"
    ends = (0.5, recording.end + 0.5) if on_grid else (0.0, recording.end)
    return Figure(
        slug(title), title, about, _time(recording), "layer", tuple(series), "raster", x_range=ends
    )


def potential_figure(
    recording: Recording,
    layer: str,
    neurons: Sequence[int] | None = None,
    title: str = "membrane potentials",
) -> Figure:
    """Show membrane potentials with the threshold; spikes are marked.

    Args:
        recording: of one sample.
        layer: its name.
        neurons: which ones; by default those with the most, a middling number and the fewest
            spikes, of all that spike.
        title: of the figure.

    Raises:
        InputError: if there is no such layer or neuron, or no potential.
    """
    found = recording.layer(layer)
    chosen = _usual(found) if neurons is None else _listed("neurons", neurons)
    if not chosen:
        raise InputError("no neuron is named; give at least one")
    seen = found.membranes(chosen)
    if not np.isfinite(seen.potentials).all():
        raise InputError(f"potentials of layer {layer!r} are not finite; the training diverged")
    series = [
        Series(
            f"neuron {i}",
            seen.times.tolist(),
            seen.potentials[:, k].tolist(),
            marked=seen.spikes[:, k].tolist(),
        )
        for k, i in enumerate(chosen)
    ]
    thresholds = seen.thresholds
    if not np.isnan(thresholds).any():
        same = bool((thresholds == thresholds[:, :1]).all())
        for k, i in enumerate(chosen[:1] if same else chosen):
            label = "threshold" if same else f"threshold of neuron {i}"
            series.append(Series(label, seen.times.tolist(), thresholds[:, k].tolist()))
    about = "Points are spikes."
    if neurons is None:
        about += " Of the neurons that spike, those with the most, a middling number, the fewest."
    if recording.unit == "s" and (seen.potentials > (1 + ABOVE) * thresholds).any():
        about += (
            " A potential stays above the threshold where a neuron is at its cap of spikes: those "
            "that would follow are not simulated."
        )
    if seen.foreign:
        about += " Potentials are those that the layer keeps at the end of a step."
    if np.isnan(thresholds).any():
        about += " The layer has no threshold that is known."
    return Figure(slug(title), title, about, _time(recording), "potential", tuple(series))


def _usual(layer: LayerRecording) -> list[int]:
    """Return the neurons with the most, a middling number and the fewest spikes, if any spike."""
    counts = layer.counts()
    order = np.argsort(-counts, kind="stable")
    last = max(int((counts > 0).sum()) - 1, 0)
    return list(dict.fromkeys(int(order[place]) for place in (0, last // 2, last)))


def _time(recording: Recording) -> str:
    return "time step" if recording.unit == "time step" else f"time ({recording.unit})"


def confusion_figure(found: Confusion, title: str = "confusion matrix") -> Figure:
    """Show how many samples of each class were taken for which."""
    places = range(len(found.classes))
    series = Series(
        "samples",
        [j for _ in places for j in places],
        [i for i in reversed(places) for _ in places],  # the first class is at the top
        values=[float(count) for row in found.counts for count in row],
    )
    names = tuple(found.classes)
    about = (
        f"Number of samples of each class by what they were taken for; {100 * found.accuracy:.2f} "
        "% are on the diagonal."
    )
    return Figure(
        slug(title), title, about, "taken for", "class", (series,), "cells",
        x_names=names, y_names=names[::-1],
    )  # fmt: skip


def class_figure(found: Confusion, title: str = "accuracy by class") -> Figure:
    """Show the accuracy of each class that has samples."""
    there = [
        (name, 100 * share)
        for name, share in zip(found.classes, found.recall, strict=True)
        if share is not None
    ]
    series = Series("accuracy (%)", [name for name, _ in there], [share for _, share in there])
    gone = len(found.classes) - len(there)
    about = f"{gone} of {len(found.classes)} classes have no sample." if gone else ""
    return Figure(slug(title), title, about, "class", "accuracy (%)", (series,), "bar")


def weight_figure(
    network: nn.Module,
    input_shape: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    title: str = "weights of the first layer",
) -> Figure:
    """Show the weights of the first layer: a picture for each neuron and channel.

    Where the inputs are no picture, a row of numbers for each neuron.

    Args:
        network: of either engine.
        input_shape: of one sample, (C, H, W) or (H, W) of a picture; the network's own by default.
        neurons: which ones, or output channels of a convolution; the first 16 by default, or the
            first 50 where they are no pictures.
        title: of the figure.

    Raises:
        InputError: if there is no such neuron, no layer with weights, or the weights are neither
            those of pictures nor a matrix.
    """
    name, weight = _first_weights(network)
    shape = tuple(getattr(network, "input_shape", None) or ())
    if input_shape is not None:
        shape = tuple(_listed("input_shape", input_shape))
        if any(type(side) is not int for side in shape) or math.prod(shape) < 1:
            raise InputError(f"input_shape is {clipped(input_shape)}; give whole numbers above 0")
    if not bool(weight.isfinite().all()):
        raise InputError(f"weights of layer {name!r} are not finite; the training diverged")
    pictures = _as_pictures(weight, shape)
    if pictures is None and weight.dim() != 2:
        raise InputError(
            f"layer {name!r} has weights of shape {tuple(weight.shape)}, which are neither "
            "pictures nor a matrix"
        )
    chosen = _chosen(name, neurons, len(weight), WEIGHED if pictures is not None else ROWS)
    if pictures is None:
        rows, columns = len(chosen), weight.shape[1]
        series = [
            Series(
                "weight",
                list(range(columns)) * rows,
                [i for i in chosen for _ in range(columns)],
                values=weight[chosen].flatten().tolist(),
            )
        ]
        about = f"Layer {name}; {_which(neurons, rows, len(weight))}."
        return Figure(slug(title), title, about, "input", "neuron", tuple(series), "heatmap")
    channels, height, width = pictures.shape[1:]
    series = []
    for i in chosen:
        for c in range(channels):
            label = f"neuron {i}" + (f", channel {c}" if channels > 1 else "")
            xs, ys = list(range(width)) * height, [y for y in range(height) for _ in range(width)]
            series.append(Series(label, xs, ys, values=pictures[i, c].flatten().tolist()))
    beside = math.ceil(math.sqrt(len(chosen)))
    about = f"Layer {name}; {_which(neurons, len(chosen), len(weight))}, row by row."
    if channels > 1:
        beside = channels * max(1, round(math.sqrt(len(chosen) / channels)))
        about += f" Each has {channels} channels, side by side."
    return Figure(slug(title), title, about, "", "", tuple(series), "pictures", columns=beside)


def _first_weights(network: nn.Module) -> tuple[str, Tensor]:
    """Return name and weights of the first layer, a row for each neuron."""
    if isinstance(network, events.Network):
        name, layer = next(iter(network.layers.items()))
        return name, layer.weight.detach().t()
    for name, found in layers_of(network):
        if isinstance(found, Synapse):
            weight: Any = getattr(found, "weight", None)
            if not isinstance(weight, Tensor) or weight.dim() < 2:
                raise InputError(
                    f"layer {name!r}, a {type(found).__name__}, has no weights of a known shape"
                )
            return name, weight.detach().cpu()
    raise InputError("the network has no layer with weights")


def _as_pictures(weight: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return weights as (neurons, channels, height, width); None if they are no pictures."""
    if weight.dim() == 4:
        return weight
    if len(shape) == 2:
        shape = (1, *shape)
    if weight.dim() != 2 or len(shape) != 3 or math.prod(shape) != weight.shape[1]:
        return None
    picture = min(shape[1:]) > 1 and max(shape[1:]) <= MOST_SIDE
    return weight.reshape(-1, *shape) if picture else None


def _listed(name: str, given: Any) -> list[Any]:
    """Return a list or tuple as a list, or refuse anything else."""
    if not isinstance(given, list | tuple):
        raise InputError(f"{name} is {clipped(given)}; give a list")
    return list(given)


def _chosen(layer: str, neurons: Sequence[int] | None, size: int, usual: int) -> list[int]:
    chosen = list(range(min(size, usual))) if neurons is None else _listed("neurons", neurons)
    for i in chosen:
        if type(i) is not int or not 0 <= i < size:
            raise InputError(
                f"neuron {clipped(i)} is not in layer {layer!r}; give whole numbers from 0 to "
                f"{size - 1}"
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"neurons are {clipped(chosen)}; name each once, and one at least")
    return chosen


def _which(given: Sequence[int] | None, shown: int, size: int) -> str:
    if shown == size:
        return f"all {size} neurons"
    return f"{shown} of {size} neurons" if given is not None else f"the first {shown} of {size}"


def feedback_figure(
    matrix: Tensor, other: Tensor, compared_with: str, title: str = "feedback against weights"
) -> Figure:
    """Show each feedback weight against the one it stands for; the angle is that of all of them.

    Args:
        matrix: feedback of a hidden layer, (m, n).
        other: of the same shape.
        compared_with: what this is, "output weights" or "mean Jacobian".
        title: of the figure.

    Raises:
        InputError: if the shapes differ, or a number is not finite.
    """
    if matrix.shape != other.shape:
        raise InputError(
            f"the feedback has shape {tuple(matrix.shape)} and the {compared_with} "
            f"{tuple(other.shape)}; give two of the same shape"
        )
    ys, xs = (one.detach().flatten().double().cpu().numpy() for one in (matrix, other))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise InputError("feedback or weights are not finite; the training diverged")
    between = angle(matrix, other)
    about = "There is no angle, since one of the two is zero."
    if between is not None:
        about = f"The angle between the two is {between:.1f} degrees; 90 is that of chance."
    total = len(xs)
    if total > MOST_POINTS:
        shown = np.random.default_rng(0).choice(total, MOST_POINTS, replace=False)
        shown.sort()
        xs, ys = xs[shown], ys[shown]
        about += f" {MOST_POINTS:,} of {total:,} pairs by lot; the angle is that of all."
    series = Series("feedback", xs.tolist(), ys.tolist())
    return Figure(slug(title), title, about, compared_with, "feedback", (series,), "points")


def hidden_layers(recording: Recording) -> list[str]:
    """Return the layers of a recording without its input."""
    return [name for name in recording.layers if name != INPUT]
