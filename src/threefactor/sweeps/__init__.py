"""Sweeps: one recipe with many settings, as a grid or as a search, ranked on one page."""

from threefactor.sweeps.plan import Range, Sweep, parse_grid
from threefactor.sweeps.running import run_sweep, write_page
from threefactor.sweeps.search import run_search

__all__ = ["Range", "Sweep", "parse_grid", "run_search", "run_sweep", "write_page"]
