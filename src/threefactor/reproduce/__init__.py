"""Tables and figures of the papers by name: grids of runs that survive interruption."""

from threefactor.reproduce.catalog import catalog, experiment
from threefactor.reproduce.cells import Cell
from threefactor.reproduce.experiments import Experiment, Row
from threefactor.reproduce.grid import Outcome, Watcher, run_grid
from threefactor.reproduce.running import listing, reproduce

__all__ = [
    "Cell",
    "Experiment",
    "Outcome",
    "Row",
    "Watcher",
    "catalog",
    "experiment",
    "listing",
    "reproduce",
    "run_grid",
]
