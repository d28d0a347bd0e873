"""Numbers of hidden neurons, told from settings alone."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache

import torch
from torch import nn

from threefactor.clocked.neuron import Neuron
from threefactor.data import frame_settings, has_frames
from threefactor.data.sets.catalog import DATASETS
from threefactor.training.engines import CONVOLUTIONAL
from threefactor.training.settings import ConvNetworkSettings, ResNetSettings, Settings

__all__ = ["convolutional_sizes"]

Convolutional = ConvNetworkSettings | ResNetSettings


def convolutional_sizes(settings: Settings) -> dict[str, int]:
    """Return the number of neurons of each hidden layer of a convolutional network, by its name.

    Needs neither the data nor memory for weights: the network is built on PyTorch's meta device,
    and sees one sample without values.

    Args:
        settings: of a run.

    Returns:
        Nothing if the network is not convolutional, or nobody knows the data set.

    Example:
        >>> from threefactor.recipes import recipe
        >>> convolutional_sizes(recipe("cifar10-conv5").settings)
        {'lif1': 131072, 'lif2': 65536, 'lif3': 32768, 'lif4': 8192}
    """
    network, name = settings.network, settings.data.name
    if not isinstance(network, (ConvNetworkSettings, ResNetSettings)) or name not in DATASETS:
        return {}
    return dict(_sizes(network, _sample_shape(name)))


def _sample_shape(name: str) -> tuple[int, ...]:
    """Return (C, H, W) of what the network is shown: of an image, or of a frame of events."""
    shape = DATASETS[name].shape
    size = frame_settings(name).size if has_frames(name) else None
    return shape if size is None else (shape[0], *size)


@cache
def _sizes(given: Convolutional, shape: tuple[int, ...]) -> dict[str, int]:
    options, found = asdict(given), dict[str, int]()
    build = CONVOLUTIONAL[options.pop("kind")]

    def look(name: str, neuron: Neuron) -> None:
        neuron.register_forward_hook(
            lambda module, inputs, output: found.__setitem__(name, output[0].numel())
        )

    with torch.device("meta"), torch.no_grad():
        network: nn.Module = build(shape, 1, **options).eval()  # the read-out's size is no matter
        for name, module in network.named_modules():
            if isinstance(module, Neuron):
                look(name, module)
        network(torch.empty(1, *shape))
    return found
