"""Where metrics go beside metrics.jsonl: TensorBoard, if it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["TensorBoard", "open_tensorboard"]


class TensorBoard:
    """Writes the numbers of each metrics line as scalars.

    Args:
        folder: the run folder; events go into its subfolder `tensorboard`.
        epochs_done: later events, of an interrupted run, are hidden.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=epochs_done + 1 if epochs_done else None
        )

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one epoch."""
        epoch = line["epoch"]
        for key, value in line.items():
            if isinstance(value, dict):
                for name, number in value.items():
                    self._writer.add_scalar(f"{key}/{name}", number, epoch)
            elif key != "epoch":
                self._writer.add_scalar(key, value, epoch)
        self._writer.flush()


def open_tensorboard(folder: Path, epochs_done: int) -> TensorBoard | None:
    """Return a writer, or None where the extra `threefactor[tensorboard]` is not installed."""
    try:
        return TensorBoard(folder, epochs_done)
    except ImportError:
        return None
