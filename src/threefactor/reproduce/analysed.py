"""Analyses of finished cells, kept beside them and used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from threefactor import training
from threefactor.analysis import measured
from threefactor.analysis.runs import RunView, analyse, write_analysis
from threefactor.errors import CheckpointError
from threefactor.training.engines import engine_of
from threefactor.training.files import read_json

__all__ = ["LENGTHS", "SAMPLES", "analysed"]

SAMPLES = {"smoke": None, "quick": 1280, "paper": None}
"""Training samples that an analysis uses; None for all."""

LENGTHS = {"smoke": (2, 20), "quick": measured.LENGTHS, "paper": measured.LENGTHS}
"""Numbers of time steps against which memory is measured."""

MEASURED = ("measured-cost", "memory")
"""Analyses whose result depends on what they are made with."""


def analysed(
    name: str,
    folder: Path,
    budget: str,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> Path:
    """Analyse a finished run, unless that was done; return the file of the result.

    Args:
        name: of the analysis, a key of `analysis.runs.ANALYSES`.
        folder: the run folder.
        budget: decides on how many samples.
        data_dir, device, threads: as in training.

    Raises:
        ThreefactorError: if the run cannot be read or analysed.
    """
    path = folder / "analysis" / f"{name}-{budget}.json"
    settings = training.RunFolder(folder).settings()
    conditions = {"device": device, "threads": threads} if name in MEASURED else {}
    if _complete(path, {"epoch": settings.epochs, **conditions}):
        return path
    engine_of(settings).use_threads(threads)
    trainer = training.open_run(folder, data_dir=data_dir, device=device)
    view = RunView(trainer, SAMPLES[budget], data_dir=data_dir, lengths=LENGTHS[budget])
    write_analysis(path, name, view, analyse(name, view), device)
    return path


def _complete(path: Path, conditions: dict[str, Any]) -> bool:
    """Whether there is a result, made under these conditions."""
    try:
        document = read_json(path)
    except (OSError, CheckpointError):
        return False
    if not isinstance(document, dict) or "result" not in document:
        return False
    return all(document.get(key) == wanted for key, wanted in conditions.items())
