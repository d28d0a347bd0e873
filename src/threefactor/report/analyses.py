"""Analyses of runs, as `threefactor analyse --out` writes them, as sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefactor.analysis.records import rows
from threefactor.errors import CheckpointError
from threefactor.report.costs import (
    cost_tables,
    measured_tables,
    memory_figure,
    memory_tables,
)
from threefactor.report.figures import Figure, Series
from threefactor.report.names import rule_name, slug
from threefactor.report.page import Section
from threefactor.report.study import LeftOut
from threefactor.report.values import Cell, Number, Table
from threefactor.training.folder.files import read_json

__all__ = ["Analysis", "analysis_sections", "find_analyses", "read_analyses"]

_PARTS = {"analysis": str, "recipe": str, "rule": str, "seed": int, "result": dict}
MOST = 1e100


@dataclass(frozen=True)
class Shown:
    """The number of an analysis that is drawn as bars, with a group for each layer."""

    measure: str
    label: str
    log: bool = False


FIGURES = {
    "variance": Shown("variance", "variance of the gradient", log=True),
    "alignment": Shown("angle", "angle to backpropagation's gradient (degrees)"),
    "feedback": Shown("angle", "angle of the feedback (degrees)"),
    "firing": Shown("rate", "firing rate"),
    "operations": Shown("spike_operations", "synaptic operations per sample"),
}

TABLES: dict[str, Callable[[str, Mapping[str, Any]], tuple[Table, ...]]] = {
    "cost": cost_tables,
    "measured-cost": measured_tables,
    "memory": memory_tables,
}
"""Tables made for one analysis. For all others, a table shows every number."""


@dataclass(frozen=True)
class Analysis:
    """One analysis of one run.

    Attributes:
        path: of the file.
        name: of the analysis, such as "variance".
        recipe, rule, seed: of the run.
        result: nested dicts, with numbers at their ends.
    """

    path: Path
    name: str
    recipe: str
    rule: str
    seed: int
    result: Mapping[str, Any]

    @property
    def of(self) -> str:
        return f"{self.recipe}, {rule_name(self.rule)}, seed {self.seed}"


def find_analyses(paths: Sequence[str | Path]) -> tuple[list[Analysis], list[LeftOut]]:
    """Read all JSON files in folders named "analysis", at any depth below the paths.

    Returns:
        The analyses, and the files that are not analyses.
    """
    files = {f.resolve(): f for p in paths for f in sorted(Path(p).rglob("analysis/**/*.json"))}
    return read_analyses(files.values())


def read_analyses(files: Iterable[Path]) -> tuple[list[Analysis], list[LeftOut]]:
    """Read files of analyses; return also the files that are not analyses."""
    found, left_out = [], []
    for file in files:
        try:
            given = read_json(file)
            parts = {key: given[key] for key in _PARTS}
            for key, kind in _PARTS.items():
                if type(parts[key]) is not kind:
                    raise TypeError(f"{key} is {parts[key]!r:.60}")
            _check_numbers(parts["result"])
        except (OSError, CheckpointError, ValueError, KeyError, TypeError) as problem:
            reason = str(problem).removeprefix(f"{file} ")
            left_out.append(LeftOut(file, f"it holds no analysis of a run ({reason})"))
            continue
        parts["name"] = parts.pop("analysis")
        found.append(Analysis(file, **parts))
    return found, left_out


def _check_numbers(part: Any) -> None:
    """Refuse numbers that no analysis gives and no figure can show."""
    if isinstance(part, (dict, list)):
        for inner in part.values() if isinstance(part, dict) else part:
            _check_numbers(inner)
    elif isinstance(part, (int, float)) and not abs(part) < MOST:
        raise ValueError("it holds a number that is not finite, or too large")


def analysis_sections(analyses: Sequence[Analysis]) -> list[Section]:
    """Return one section per kind of analysis: tables of all numbers, figures of some."""
    names = dict.fromkeys(one.name for one in analyses)
    return [_section(name, [one for one in analyses if one.name == name]) for name in names]


def _section(name: str, analyses: Sequence[Analysis]) -> Section:
    title = name.replace("-", " ").capitalize()
    runs = Counter(one.of for one in analyses)
    tables: list[Table] = []
    figures: list[Figure] = []
    for one in analyses:
        of = one.of if runs[one.of] == 1 else f"{one.of}, {one.path.stem}"
        try:
            tables += TABLES.get(name, _tables)(f"{title}: {of}", one.result)
            figures += _figures(name, of, one.result)
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
            # A file made by hand, which is shown as it is.
            tables += _tables(f"{title}: {of}", one.result)
    return Section(f"Analysis: {title.lower()}", tables=tuple(tables), figures=tuple(figures))


def _tables(title: str, result: Mapping[str, Any]) -> tuple[Table, ...]:
    """Show a row for every innermost dict, its numbers in columns; equal texts become notes."""
    body = {", ".join(path) or "all": row for path, row in rows(result)}
    columns = list(dict.fromkeys(key for row in body.values() for key in row))
    notes: dict[str, str] = {}
    for key in columns:
        values = [row.get(key) for row in body.values()]
        if len(set(map(str, values))) == 1 and isinstance(values[0], str):
            notes[key] = values[0]
    shown = [key for key in columns if key not in notes]
    cells = tuple((name, *(_cell(row.get(key)) for key in shown)) for name, row in body.items())
    said = tuple(f"{key.replace('_', ' ')}: {text}" for key, text in notes.items())
    return (Table(title, ("", *(key.replace("_", " ") for key in shown)), cells, said),)


def _cell(value: Any) -> Cell:
    if isinstance(value, bool) or value is None:
        return None if value is None else ("yes" if value else "no")
    return Number(value, digits=None) if isinstance(value, float) else value


def _figures(name: str, of: str, result: Mapping[str, Any]) -> Iterator[Figure]:
    file = slug(f"{name} {of} figure")  # the table has the name without
    if name == "memory":
        yield memory_figure(file, f"Memory against time steps: {of}", result)
    shown = FIGURES.get(name)
    series = tuple(_series(result, shown, "")) if shown is not None else ()
    if shown is not None and series:
        yield Figure(
            file,
            f"{shown.label.capitalize()}: {of}",
            "",
            "layer",
            shown.label,
            series,
            kind="bar",
            log_y=shown.log and all(one.positive for one in series),
        )


def _series(part: Mapping[str, Any], shown: Shown, label: str) -> Iterator[Series]:
    """Find the dicts of layers at any depth; the key above them is the label."""
    layers = {
        key: value[shown.measure]
        for key, value in part.items()
        if isinstance(value, dict) and isinstance(value.get(shown.measure), (int, float))
    }
    if layers:
        yield Series(rule_name(label) or shown.label, list(layers), list(layers.values()))
        return
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _series(value, shown, "" if key in ("rules", "layers") else str(key))
