"""Networks of exact spike times, and a builder."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import nn
from typing_extensions import Unpack

from threefactor.errors import InputError
from threefactor.events.layer import Activity, Layer, LayerOptions, recorded
from threefactor.events.spikes import SpikeBatch

__all__ = ["Network", "check_network", "fc"]


class Network(nn.Sequential):
    """Layers in a row: hidden ones `lif1`, `lif2`, ..., then `readout`.

    A layer may stand in several places; its weights then get the sum of the gradients.
    """

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, first to last.

        Raises:
            InputError: if there is none, or one of another kind.
        """
        found = dict(self._modules)  # named_children() leaves out what is used twice
        wrong = [name for name, layer in found.items() if not isinstance(layer, Layer)]
        if wrong or not found:
            raise InputError(
                f"the network's parts are {list(found)}, of which {wrong} are not "
                "threefactor.events.Layer; build it of such layers alone, at least one"
            )
        return cast("dict[str, Layer]", found)

    def run(self, inputs: SpikeBatch) -> list[Activity]:
        """Return the activity of every layer, first to last.

        It calls the network, so that `network(inputs)` gives the same spikes, with all hooks.

        Raises:
            InputError: if the input does not fit a layer, or the spikes do not go through all
                layers in a row.
        """
        layers = self.layers
        with recorded() as made:
            spikes = self(inputs)
        by_output = {id(activity.spikes): activity for activity in made}
        activities: list[Activity] = []
        while id(spikes) in by_output:
            activities.append(by_output[id(spikes)])
            spikes = activities[-1].inputs
        activities.reverse()
        if [activity.layer for activity in activities] != list(layers.values()):
            raise InputError(
                f"the spikes do not go through {', '.join(layers)} in a row: a hook replaces them, "
                "or the network has a forward of its own; rules cannot follow that"
            )
        return activities


def check_network(network: Any) -> None:
    """Refuse a network of another kind.

    Raises:
        InputError: saying what was given.
    """
    if not isinstance(network, Network):
        raise InputError(
            f"the network is a {type(network).__module__}.{type(network).__name__}; "
            "expected one of threefactor.events, such as events.fc(...)"
        )


def fc(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    thresholds: Sequence[float] | float,
    max_spikes: Sequence[int] | int = 30,
    weight_ranges: Sequence[tuple[float, float]] = ((-1.0, 1.0),),
    **options: Unpack[LayerOptions],
) -> Network:
    """Build a fully connected network of exact spike times.

    Args:
        in_features: number of input addresses.
        hidden: number of neurons of each hidden layer; may be empty.
        out_features: number of output neurons m, which spike too.
        thresholds: theta_hat of each layer, the output's last; or of hidden layers and output,
            two numbers; or one number for all.
        max_spikes: the most spikes of one neuron in one sample, given as `thresholds` are.
        weight_ranges: lowest and highest initial weight of each layer, given as `thresholds` are.
        **options: of all layers:
            `tau_s`, the synaptic time constant in seconds; the membrane's is twice that;
            `duration`, the seconds that are simulated.

    Raises:
        InputError: if a size, time, threshold or cap has no meaning.
        ConfigurationError: if the compiled kernels are missing.

    Example:
        >>> import torch
        >>> from threefactor import events
        >>> net = events.fc(784, (800,), 10, tau_s=0.130, thresholds=(0.2, 0.7), duration=0.2)
        >>> images = torch.rand(5, 1, 28, 28)
        >>> net(events.latency_code(images, window=0.1)).counts().shape
        (5, 10)

    Source: Bacho & Chu (SFDFA), appendix A.
    """
    if not hasattr(hidden, "__iter__") or isinstance(hidden, str):
        raise InputError(f"hidden is {hidden!r}; give the sizes of all hidden layers, as (800,)")
    sizes = [in_features, *hidden, out_features]
    layers = len(sizes) - 1
    names = [f"lif{i}" for i in range(1, layers)] + ["readout"]
    per_layer = zip(
        _per_layer("thresholds", thresholds, layers),
        _per_layer("max_spikes", max_spikes, layers),
        _per_layer("weight_ranges", weight_ranges, layers),
        strict=True,
    )
    return Network(
        OrderedDict(
            (
                name,
                Layer(
                    n_in,
                    n_out,
                    threshold=threshold,
                    max_spikes=most,
                    weight_range=bounds,
                    **options,
                ),
            )
            for name, (n_in, n_out), (threshold, most, bounds) in zip(
                names, itertools.pairwise(sizes), per_layer, strict=True
            )
        )
    )


def _per_layer(name: str, given: Any, layers: int) -> list[Any]:
    """Spread one value over all layers, or two over the hidden ones and the output."""
    try:
        values = [given] if isinstance(given, (int, float, np.number)) else list(given)
    except TypeError as problem:
        message = f"{name} are {given!r}; give one for all layers, or one per layer"
        raise InputError(message) from problem
    if len(values) == 1:
        return values * layers
    if len(values) == 2 and layers > 1:
        return [values[0]] * (layers - 1) + [values[1]]
    if len(values) != layers:
        raise InputError(
            f"{name} are {given} for {layers} layers; give one per layer, "
            "or two, of the hidden layers and the output"
        )
    return values
