"""threefactor: spiking networks that learn online, forward in time, without backpropagation."""

from threefactor import clocked, events
from threefactor.errors import ThreefactorError
from threefactor.version import __version__

__all__ = ["ThreefactorError", "__version__", "clocked", "events"]
