"""threefactor: spiking networks that learn online, forward in time, without backpropagation."""

from threefactor import clocked, events
from threefactor.errors import ThreefactorError
from threefactor.processes import World
from threefactor.version import __version__

__all__ = ["ThreefactorError", "World", "__version__", "clocked", "events"]
