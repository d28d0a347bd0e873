"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError

__all__ = ["draw_curves"]

# Okabe and Ito's palette keeps apart for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_curves(
    experiments: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], path: Path
) -> None:
    """Draw test error and training loss against the epoch: one row per experiment.

    Args:
        experiments: for the title of each row, metrics lines by the name of the curve.
        path: the picture to write; its suffix (.png, .svg, .pdf) gives the format.

    Raises:
        ConfigurationError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError as problem:
        raise ConfigurationError(
            "drawing needs matplotlib; install it with: pip install 'threefactor[plot]'"
        ) from problem
    figure = Figure(figsize=(10, 4.2 * len(experiments)), layout="constrained")
    rows = figure.subfigures(len(experiments), 1, squeeze=False)[:, 0]
    for row, (title, histories) in zip(rows, experiments.items(), strict=True):
        row.suptitle(title)
        left, right = row.subplots(1, 2)
        for i, (name, history) in enumerate(histories.items()):
            epochs = [line["epoch"] for line in history]
            style = {"color": _COLOURS[i % len(_COLOURS)], "label": name, "linewidth": 1.8}
            left.plot(epochs, [100 - 100 * line["test_accuracy"] for line in history], **style)
            right.plot(epochs, [line["train_loss"] for line in history], **style)
        left.set(xlabel="epoch", ylabel="test error (%)", yscale="log")
        right.set(xlabel="epoch", ylabel="training loss", yscale="log")
        left.legend(frameon=False)
        for axes in (left, right):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
    figure.savefig(path, dpi=150)
