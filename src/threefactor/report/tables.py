"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

__all__ = ["comparison_table", "summary"]


def summary(history: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> dict[str, float]:
    """Condense the metrics lines of one run.

    Args:
        history: the metrics lines, first epoch first.
        sizes: number of neurons of each hidden layer, by its name.

    Returns:
        Accuracy and loss on the test set after the last epoch, seconds of the whole run, and
        the firing rate over all hidden neurons, in the unit of the metrics.
    """
    last = history[-1]
    spikes = sum(last["firing_rates"][name] * n for name, n in sizes.items())
    return {
        "test_accuracy": last["test_accuracy"],
        "test_loss": last["test_loss"],
        "seconds": sum(line["seconds"] for line in history),
        "firing_rate": spikes / max(sum(sizes.values()), 1),
    }


def comparison_table(title: str, rows: Mapping[str, Mapping[str, float]], rate_unit: str) -> Table:
    """Build a table of rules side by side, from their summaries.

    Args:
        title: above the table.
        rows: what `summary` returned, by the name of the rule.
        rate_unit: of the firing rates, such as "spikes per neuron and step".
    """
    table = Table(title=title, title_justify="left")
    table.add_column("rule")
    for name in ("test accuracy", "test loss", "seconds", rate_unit):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['test_accuracy']:.2%}",
            f"{row['test_loss']:.4f}",
            f"{row['seconds']:.1f}",
            f"{row['firing_rate']:.3f}",
        )
    return table
