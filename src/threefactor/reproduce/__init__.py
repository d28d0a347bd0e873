"""Tables and figures of the papers by name: grids of runs that survive interruption."""

from threefactor.reproduce.cells import Cell
from threefactor.reproduce.grid import Outcome, run_grid

__all__ = ["Cell", "Outcome", "run_grid"]
