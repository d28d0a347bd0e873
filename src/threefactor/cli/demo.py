"""`threefactor demo`: both engines and their rules on embedded data; tables and a picture."""

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

CLOCKED = {"spatial-bp": "spatial BP", "opzo": "OPZO", "dfa": "DFA", "zo": "ZO"}
EVENTS = {"exact-bp": "exact BP", "sfdfa": "SFDFA", "dfa": "DFA"}
SHOWN = {
    "digits-fc": ("8x8 digits, 64-200-200-10, clocked network", CLOCKED),
    "digits-events": ("8x8 digits, 64-200-10, exact spike times", EVENTS),
    "yin-yang-events": ("Yin-Yang, 5-100-3, exact spike times", EVENTS),
}


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the numbers.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Fewer or more epochs.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """
    Train both kinds of network on embedded data, each with several rules.

    Clocked networks with spatial BP, OPZO, DFA and ZO, and networks of exact spike times with
    exact BP, SFDFA and DFA, on handwritten digits (scikit-learn's, 8x8) and the Yin-Yang task.
    Nothing to download, about three minutes. Prints a table for each and writes learning_curves.png
    and results.json.
    """
    out.mkdir(parents=True, exist_ok=True)  # fails before the training and not after
    torch.set_num_threads(threads)  # so small a network is slower on more
    changes: dict[str, Any] = {"seed": seed}
    if epochs is not None:
        changes["epochs"] = epochs
    curves: dict[str, dict[str, list[dict[str, Any]]]] = {}
    numbers: dict[str, Any] = {}
    for name, (title, rules) in SHOWN.items():
        try:
            curves[title], numbers[name] = _show(name, title, rules, changes)
        except ConfigurationError as problem:  # the extra of one engine may not be installed
            console.print(str(problem), highlight=False, soft_wrap=True, markup=False)
    document = json.dumps({"seed": seed, "experiments": numbers}, indent=1)
    write_atomically(out / "results.json", document.encode())
    try:
        picture = out / "learning_curves.png"
        draw_curves(curves, picture)
        console.print(f"learning curves: {picture}", highlight=False, soft_wrap=True)
    except ConfigurationError as problem:
        console.print(str(problem), highlight=False, soft_wrap=True, markup=False)


def _show(
    name: str, title: str, rules: dict[str, str], changes: dict[str, Any]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Train a recipe with several rules and print their table; return curves and numbers."""
    histories: dict[str, list[dict[str, Any]]] = {}
    rows: dict[str, dict[str, float]] = {}
    for rule, label in rules.items():
        trainer = training.Trainer(training.build(recipe(name).settings_for(rule, changes)))
        with console.status(f"{title}: training with {label}"):
            histories[label] = trainer.fit()
        rows[label] = summary(histories[label], trainer.experiment.layer_sizes)
        console.print(f"{name}, {label}: test accuracy {rows[label]['test_accuracy']:.2%}")
    unit = trainer.experiment.engine.rate_unit
    console.print(comparison_table(f"{title}: one network, one seed", rows, unit))
    return histories, {"summary": rows, "rate_unit": unit, "epochs": histories}
