"""threefactor: spiking networks that learn online, forward in time, without backpropagation."""

from threefactor import clocked, events
from threefactor.clocked import register_neuron
from threefactor.errors import ThreefactorError
from threefactor.plugins.registry import (
    register_data,
    register_loss,
    register_network,
    register_recipe,
    register_rule,
)
from threefactor.processes import World
from threefactor.version import __version__

__all__ = [
    "ThreefactorError",
    "World",
    "__version__",
    "clocked",
    "events",
    "register_data",
    "register_loss",
    "register_network",
    "register_neuron",
    "register_recipe",
    "register_rule",
]
