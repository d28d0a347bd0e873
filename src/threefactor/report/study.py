"""Runs that belong together, collected from folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
    runs, strange = _of_one_shape(runs)
    left_out += strange
    if not runs:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in left_out)
        raise CheckpointError(f"there is no finished run to report. {reasons}")
    return replace(gather(runs, split=split), left_out=tuple(left_out))


def _of_one_shape(runs: Sequence[Run]) -> tuple[list[Run], list[LeftOut]]:
    """Leave out runs with firing rates of other layers than most of the same settings have.

    Their metrics were changed, since settings decide which layers there are.
    """
    layers: dict[str, Counter[frozenset[str]]] = {}
    found = [(run, _same_layers(run), frozenset(run.history[-1]["firing_rates"])) for run in runs]
    for _, settings, names in found:
        layers.setdefault(settings, Counter())[names] += 1
    kept: list[Run] = []
    left_out: list[LeftOut] = []
    for run, settings, names in found:
        most = layers[settings].most_common(1)[0][0]
        if names == most:
            kept.append(run)
        else:
            said = f"its firing rates are of {sorted(names)}, others have {sorted(most)}"
            left_out.append(LeftOut(run.path, f"metrics.jsonl is damaged: {said}"))
    return kept, left_out


def _same_layers(run: Run) -> str:
    """Return what runs have in common that have the same layers."""
    settings = run.settings
    return repr((settings.recipe, settings.rule.name, settings.network))


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
