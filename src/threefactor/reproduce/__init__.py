"""Tables and figures of the papers by name: grids of runs that survive interruption."""

from threefactor.reproduce.catalog import catalog, exhibit
from threefactor.reproduce.exhibits import Exhibit, Row
from threefactor.reproduce.grid import Observer, Outcome, run_grid
from threefactor.reproduce.planned import PlannedRun
from threefactor.reproduce.reproduction import listing, reproduce

__all__ = [
    "Exhibit",
    "Observer",
    "Outcome",
    "PlannedRun",
    "Row",
    "catalog",
    "exhibit",
    "listing",
    "reproduce",
    "run_grid",
]
