"""Firing rates of a study, beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from threefactor.report.grouping import Group
from threefactor.report.published import find_published
from threefactor.report.runs import Run
from threefactor.report.values import Cell, Spread, Table
from threefactor.training.engines import engine_of
from threefactor.training.sizes import convolutional_sizes

__all__ = ["firing_rates", "firing_table", "layer_sizes", "total_rate"]

ABOUT_PUBLISHED = (
    "Published rates are of the published settings; the notes below the table of accuracies say "
    "which settings of these runs are not."
)


def firing_table(recipe: str, groups: Sequence[Group]) -> Table:
    """Show the firing rate of every hidden layer on the test data after the last epoch."""
    layers = list(dict.fromkeys(layer for group in groups for layer in firing_rates(group)))
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        rates = firing_rates(group)
        rows.append((group.label, len(group.runs), *(rates.get(layer) for layer in layers)))
        published = {p.layer: p.cell for p in find_published(group.settings, "firing rate")}
        if published:
            shown = (_digits(published.get(layer), 4) for layer in layers)
            rows.append((f"{group.label}, published", None, *shown))
    unit = engine_of(groups[0].runs[0].settings).rate_unit
    title = f"{recipe}: firing rates, {unit}"
    notes = (ABOUT_PUBLISHED,) if len(rows) > len(groups) else ()
    return Table(title, ("rule", "seeds", *layers), tuple(rows), notes)


def firing_rates(group: Group) -> dict[str, Spread]:
    """Return the rate of each hidden layer after the last epoch, over seeds.

    "total" is that of all hidden neurons, where the settings tell how many there are.
    """
    names = list(group.runs[0].history[-1]["firing_rates"])
    rates = {name: group.over_seeds(lambda r, n=name: _rate(r, n), digits=4) for name in names}  # type: ignore[misc]
    sizes = layer_sizes(group.runs[0])
    if len(sizes) > 1:
        rates["total"] = group.over_seeds(lambda run: total_rate(run.history[-1], sizes), 4)
    return rates


def layer_sizes(run: Run) -> dict[str, int]:
    """Return the number of neurons by hidden layer, if the settings tell them; else nothing."""
    names = list(run.history[-1]["firing_rates"])
    hidden = getattr(run.settings.network, "hidden", None)
    if hidden is None:
        sizes = convolutional_sizes(run.settings)
        return {name: sizes[name] for name in names} if sizes.keys() == set(names) else {}
    return dict(zip(names, hidden, strict=True)) if len(hidden) == len(names) else {}


def total_rate(epoch: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Return the firing rate over all hidden neurons in an epoch's metrics."""
    rates = epoch["firing_rates"]
    return sum(float(rates[name]) * n for name, n in sizes.items()) / sum(sizes.values())


def _rate(run: Run, layer: str) -> float:
    return float(run.history[-1]["firing_rates"][layer])


def _digits(cell: Spread | None, digits: int) -> Spread | None:
    return None if cell is None else Spread(cell.mean, cell.sd, cell.n, digits)
