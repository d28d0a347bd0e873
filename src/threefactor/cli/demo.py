"""`threefactor demo`: four rules on embedded data, one table, one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from threefactor import training
from threefactor.cli.console import console
from threefactor.errors import ConfigurationError
from threefactor.recipes import recipe
from threefactor.report.curves import draw_curves
from threefactor.report.tables import comparison_table, summary
from threefactor.training.checkpoint import write_atomically

__all__ = ["demo"]

RULES = {"spatial-bp": "spatial BP", "opzo": "OPZO", "dfa": "DFA", "zo": "ZO"}


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the numbers.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Fewer or more epochs.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """
    Train four rules on handwritten digits: spatial BP, OPZO, DFA, ZO.

    Real data (scikit-learn's 8x8 digits), nothing to download, about a minute. Prints one table
    and writes learning_curves.png and results.json.
    """
    out.mkdir(parents=True, exist_ok=True)  # fails before the training and not after
    torch.set_num_threads(threads)  # so small a network is slower on more
    histories: dict[str, list[dict[str, Any]]] = {}
    rows: dict[str, dict[str, float]] = {}
    changes: dict[str, Any] = {"seed": seed}
    if epochs is not None:
        changes["epochs"] = epochs
    for rule, title in RULES.items():
        settings = recipe("digits-fc").settings_for(rule, changes)
        trainer = training.Trainer(training.build(settings))
        with console.status(f"training with {title}"):
            histories[title] = trainer.fit()
        sizes = trainer.experiment.layer_sizes
        rows[title] = summary(histories[title], sizes)
        console.print(f"{title}: test accuracy {rows[title]['test_accuracy']:.2%}")
    console.print(comparison_table("digits-fc: four rules, one network, one seed", rows))
    document = json.dumps({"seed": seed, "summary": rows, "epochs": histories}, indent=1)
    write_atomically(out / "results.json", document.encode())
    try:
        picture = out / "learning_curves.png"
        draw_curves(histories, picture, "8x8 digits, 64-200-200-10 spiking network")
        console.print(f"learning curves: {picture}", highlight=False, soft_wrap=True)
    except ConfigurationError as problem:
        console.print(str(problem), highlight=False, soft_wrap=True, markup=False)
