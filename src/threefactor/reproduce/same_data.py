"""Whether a finished run was trained on the data that is at hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threefactor.errors import DataError, InputError
from threefactor.training import RunFolder, Settings
from threefactor.training.build import load_samples
from threefactor.training.data_record import describe_data, difference

__all__ = ["DataAtHand"]


class DataAtHand:
    """Describes the data below a folder, each set once.

    Args:
        data_dir: see `threefactor.data.data_folder`.
    """

    def __init__(self, data_dir: str | Path | None) -> None:
        self.data_dir = data_dir
        self._known: dict[str, dict[str, Any]] = {}

    def difference(self, run: RunFolder) -> str | None:
        """Say how the data of a run differs from that at hand; None if it does not.

        What is not at hand, or not known of the run, cannot differ.
        """
        there = run.config().get("data")
        if there is None:
            return None
        try:
            return difference(there, self._describe(run.settings()))
        except DataError:
            return None
        except InputError as problem:  # fewer samples at hand than the run asks for
            return str(problem)

    def _describe(self, settings: Settings) -> dict[str, Any]:
        key = json.dumps([settings.network.kind, settings.steps, asdict(settings.data)])
        if key not in self._known:
            self._known[key] = describe_data(load_samples(settings, self.data_dir))
        return self._known[key]
