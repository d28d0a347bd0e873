"""Analyses of finished runs, by name: what `threefactor analyse` calls."""

from threefactor.analysis.runs.analyses import (
    ANALYSES,
    RunView,
    analyse,
    exact_against_modified,
    write_analysis,
)
from threefactor.analysis.runs.streams import Drift, adapt, turned

__all__ = [
    "ANALYSES",
    "Drift",
    "RunView",
    "adapt",
    "analyse",
    "exact_against_modified",
    "turned",
    "write_analysis",
]
