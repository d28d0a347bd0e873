"""Where metrics go beside metrics.jsonl, if that is asked for: TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError

__all__ = ["TENSORBOARD", "TensorBoard"]

TENSORBOARD = "tensorboard"
"""Name of the folder of its events, in that of the run."""


class TensorBoard:
    """Writes the numbers of each metrics line as scalars.

    Args:
        folder: the run folder; events go into its subfolder `tensorboard`, once `begin` is called.

    Raises:
        ConfigurationError: if TensorBoard is not installed, or cannot write a folder of this name.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as problem:
            raise ConfigurationError(
                "TensorBoard is not installed: pip install 'threefactor[tensorboard]', or leave "
                "tensorboard out"
            ) from problem
        self._make = SummaryWriter
        self._folder = folder / TENSORBOARD
        try:
            str(self._folder).encode()
        except UnicodeEncodeError as problem:
            raise ConfigurationError(
                f"TensorBoard cannot write to {str(folder)!r}, since the name is no Unicode; "
                "choose another folder with --out, or leave tensorboard out"
            ) from problem
        self._writer: Any = None

    def begin(self, epochs_done: int) -> None:
        """Open the events; those of later epochs, of an interrupted run, are hidden."""
        purge = epochs_done + 1 if epochs_done else None
        self._writer = self._make(str(self._folder), purge_step=purge)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one epoch."""
        epoch = line["epoch"]
        for key, value in line.items():
            if isinstance(value, dict):
                for name, number in value.items():
                    self._writer.add_scalar(f"{key}/{name}", number, epoch)
            elif key != "epoch" and value is not None:
                self._writer.add_scalar(key, value, epoch)
        self._writer.flush()
