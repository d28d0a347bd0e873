"""Learning curves with the exact and the modified local gradient (SFDFA, figure 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from threefactor import training
from threefactor.training.build import option_names
from threefactor.training.overrides import override
from threefactor.training.settings import Settings

__all__ = ["exact_against_modified"]


def exact_against_modified(
    settings: Settings, *, data_dir: str | Path | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Train twice, alike but for the local gradient; return the metrics of every epoch.

    Both runs have the seed of the settings: the same initial weights, feedback and order of data.

    Args:
        settings: of a network of exact spike times, such as
            ``recipe("digits-events").settings_for("sfdfa")``.
        data_dir: see `threefactor.data.load`.

    Returns:
        Metrics as in `metrics.jsonl`, under "exact" and "modified".

    Raises:
        ConfigurationError: if the rule has no such option: the network has a time grid.

    Source: Bacho & Chu (SFDFA), section 3.1, figure 4.
    """
    found = {}
    for kind in ("exact", "modified"):
        changes = {"local_gradient": kind, "track": None}  # only the metrics are wanted
        changed = override(settings, changes, option_names(settings))
        found[kind] = training.train(changed, data_dir=data_dir)
    return found
