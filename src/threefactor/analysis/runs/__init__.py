"""Analyses of finished runs, by name: what `threefactor analyse` calls."""

from threefactor.analysis.runs.analyses import (
    ANALYSES,
    RunView,
    analyse,
    exact_against_modified,
    write_analysis,
)

__all__ = ["ANALYSES", "RunView", "analyse", "exact_against_modified", "write_analysis"]
