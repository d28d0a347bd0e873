"""Counted and measured cost of training, beside tables 5 and 6 of the OPZO paper."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from threefactor.report.figures import Figure, Series
from threefactor.report.names import rule_name
from threefactor.report.published import Line, PublishedTable, published_table
from threefactor.report.values import Cell, Number, Table, without_empty_columns

__all__ = ["cost_tables", "measured_tables", "memory_figure", "memory_tables"]

Result = Mapping[str, Mapping[str, Any]]
"""The result of an analysis, by rule."""

BASE = "spatial-bp"
COUNTED = ("memory", "operations")
SECONDS, GIGABYTES = "seconds per epoch", "memory, GB"


def cost_tables(title: str, result: Result) -> tuple[Table, ...]:
    """Show the numbers of the analysis "cost" beside the formulas of table 5."""
    table = published_table("opzo-table5")
    rows: list[tuple[Cell, ...]] = []
    for line in table.rows:
        found = result.get(line.title.lower())
        if found is not None:
            cells = (_counted(table, line, found, name) for name in COUNTED)
            rows.append((line.title, *itertools.chain(*cells), found["sequential"]))
    titles = [line.title.lower() for line in table.rows]
    for key, own in ((k, v) for k, v in result.items() if k not in titles):  # as SFDFA
        here = ((None, own[name]) for name in COUNTED)
        rows.append((rule_name(key), *itertools.chain(*here), own["sequential"]))
    kinds = (f"{name}, {what}" for name in COUNTED for what in ("formula", "here"))
    columns = ("rule", *kinds, "layers in turn")
    notes = (
        f"Formulas: OPZO, {table.where}, orders of magnitude; {table.note}.",
        "Here: numbers stored, and operations for each error that is sent back (on a time grid at "
        "each step), with the network's true sizes. Learning the feedback is not counted.",
        "Layers in turn: hidden layers that wait for one another.",
    )
    return (Table(title, columns, tuple(rows), notes),)


def measured_tables(title: str, result: Result) -> tuple[Table, ...]:
    """Show the numbers of the analysis "measured-cost" beside table 6: time, and memory."""
    base = BASE if BASE in result else next(iter(result))
    table = published_table("opzo-table6") if base == BASE else None
    lines = {_key(line): line for line in table.rows} if table is not None else {}
    rows = [
        (rule_name(key), result.get(key, {}), lines.get(key))
        for key in [*result, *(key for key in lines if key not in result)]
    ]
    times = tuple(
        (
            name,
            *(_number(own.get(f"seconds_per_{what}")) for what in ("epoch", "batch")),
            _ratio(own, result[base], "relative_time"),
            *_printed(table, line, SECONDS),
        )
        for name, own, line in rows
    )
    sizes = tuple(
        (
            name,
            _number(own.get("peak_mebibytes")),
            _ratio(own, result[base], "peak_mebibytes"),
            *(_number(own.get(what)) for what in ("growth_mebibytes", "state_bytes")),
            *_printed(table, line, GIGABYTES),
        )
        for name, own, line in rows
    )
    ratio = f"\N{MULTIPLICATION SIGN} {rule_name(base)}"
    time = ("s per epoch", "s per batch", ratio, "published, s per epoch", f"published, {ratio}")
    size = ("peak, MiB", ratio, "of it training, MiB", "rule's state, bytes", "published, GB")
    notes = _published_notes(table)
    return (
        _measured(f"{title}: time", time, times, (_TURNS, *notes)),
        _measured(f"{title}: memory", (*size, f"published, {ratio}"), sizes, (_PEAK, *notes)),
    )


def memory_tables(title: str, result: Result) -> tuple[Table, ...]:
    """Show the analysis "memory": peak memory against the number of time steps T."""
    steps = next(iter(result.values()))["steps"]
    columns = ("rule", *(f"T = {t}, MiB" for t in steps), "last \N{MINUS SIGN} first, MiB")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            rule_name(key),
            *(Number(peak, 1) for peak in found["peak_mebibytes"]),
            Number(found["peak_mebibytes"][-1] - found["peak_mebibytes"][0], 1, signed=True),
        )
        for key, found in result.items()
    )
    return (Table(title, columns, rows, (_MEMORY,)),)


def memory_figure(name: str, title: str, result: Result) -> Figure:
    """Draw the analysis "memory": a line per rule, flat if memory does not grow with T."""
    series = tuple(
        Series(rule_name(key), found["steps"], found["peak_mebibytes"])
        for key, found in result.items()
    )
    labels = ("time steps T", "peak memory (MiB)")
    return Figure(name, title, _MEMORY, *labels, series, log_x=True, from_zero=True)


_TURNS = "The rules take turns: compare ratios. Seconds depend on what else the machine did."
_PEAK = (
    "Peak: memory of a process that trains with this rule alone, including PyTorch. Of it "
    "training: the increase after network and data were there."
)
_MEMORY = "Peak memory of a process that trains with sequences of T steps, including PyTorch."


def _counted(table: PublishedTable, line: Line, found: Mapping[str, Any], name: str) -> list[Cell]:
    formula = table.value(line.title, name)
    return [formula.text if formula is not None else None, found[name]]


def _key(line: Line) -> str:
    """Return the name that an analysis has for the rule of a published row, or the row's title."""
    if line.match is None:
        return line.title
    local = line.match.get("rule.options.local_learning")
    return str(line.match["rule.name"]) + (" (w/ LL)" if local else "")


def _ratio(found: Mapping[str, Any], base: Mapping[str, Any], name: str) -> Cell:
    """Return the ratio of a number to that of spatial BP, if there are both."""
    own, other = found.get(name), base.get(name)
    return Number(own / other) if own is not None and other else None


def _measured(
    title: str,
    columns: tuple[str, ...],
    rows: tuple[tuple[Cell, ...], ...],
    notes: tuple[str, ...],
) -> Table:
    return without_empty_columns(Table(title, ("rule", *columns), rows, notes))


def _printed(table: PublishedTable | None, line: Line | None, column: str) -> tuple[Cell, Cell]:
    """Return a published number and its ratio to that of spatial BP in the same code style."""
    if table is None or line is None:
        return None, None
    (base,) = (one.title for one in table.rows if _key(one) == BASE)
    own, other = (table.value(title, column) for title in (line.title, base))
    if own is None or other is None or own.mean is None or not other.mean:
        return None, None
    return Number(own.mean, None), Number(own.mean / other.mean)


def _number(value: float | None) -> Cell:
    return value if value is None or isinstance(value, int) else Number(value, digits=None)


def _published_notes(table: PublishedTable | None) -> tuple[str, ...]:
    if table is None:
        return ()
    note = (
        f"Published: OPZO, {table.where}, {table.note}; ratios to spatial BP in the same code "
        "style. The machine is another one, and the network too, except for dvs-cifar10-conv5: "
        "only ratios can be compared."
    )
    return (note,)
