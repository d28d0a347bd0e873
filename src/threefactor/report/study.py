"""Runs that belong together, collected from folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.report.grouping import LeftOut, Study, gather
from threefactor.report.runs import Run, read_run

__all__ = ["collect"]


def collect(paths: Iterable[str | Path], *, unfinished: bool = False, split: bool = False) -> Study:
    """Read runs and put together what differs in nothing but the seed.

    Args:
        paths: run folders, or folders that hold some at any depth.
        unfinished: whether runs that have not come to their last epoch are taken in, marked.
        split: whether runs of one recipe and rule with differing settings become groups of their
            own, which otherwise is an error.

    Raises:
        CheckpointError: if a path is no folder, or holds no run that can be used.
        ConfigurationError: if settings differ, or a seed is there twice.

    Example:
        >>> collect(["nowhere"])
        Traceback (most recent call last):
        ...
        threefactor.errors.CheckpointError: nowhere is no folder; give run folders, or folders of \
some
    """
    runs, left_out = [], []
    for folder in _folders(paths):
        try:
            run = read_run(folder)
        except CheckpointError as problem:
            left_out.append(LeftOut(folder, str(problem).removeprefix(f"{folder} holds no run: ")))
            continue
        if run.finished or unfinished:
            runs.append(run)
        else:
            left_out.append(LeftOut(folder, _unfinished(run)))
    if not runs:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in left_out)
        raise CheckpointError(f"there is no finished run to report. {reasons}")
    return replace(gather(runs, split=split), left_out=tuple(left_out))


def _folders(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    if isinstance(paths, (str, Path)):
        raise ConfigurationError(f"paths are {str(paths)!r}; give a list of them")
    for path in map(Path, paths):
        if not path.is_dir():
            raise CheckpointError(f"{path} is no folder; give run folders, or folders of some")
        own = [path / "config.json"] if (path / "config.json").exists() else []
        configs = own or sorted(path.rglob("config.json"))
        if not configs:
            raise CheckpointError(f"{path} holds no run: there is no config.json at any depth")
        for config in configs:
            found.setdefault(config.parent.resolve(), config.parent)
    return list(found.values())


def _unfinished(run: Run) -> str:
    done, epochs = len(run.history), run.settings.epochs
    return (
        f"stopped after epoch {done} of {epochs}; go on with: threefactor train --resume --out "
        f"{run.path}, or add --unfinished to report it as it is"
    )
