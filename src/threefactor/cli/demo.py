"""`threefactor demo`: both engines and their rules on embedded data; tables, picture, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from threefactor import training
from threefactor.cli.console import console, say, show
from threefactor.errors import ConfigurationError
from threefactor.readable import readable
from threefactor.recipes import recipe
from threefactor.report import gather, html_page, study_sections
from threefactor.report.drawing import draw_picture
from threefactor.report.learning import learning_curves
from threefactor.report.names import rule_name
from threefactor.report.runs import ReportedRun
from threefactor.training.engines import ENGINES, engine_of
from threefactor.training.folder.files import write_atomically
from threefactor.training.folder.writer import environment

__all__ = ["demo"]

CLOCKED = ("spatial-bp", "opzo", "dfa", "zo")
EVENTS = ("exact-bp", "sfdfa", "dfa")
SHOWN = {
    "digits-fc": ("8x8 digits, 64-200-200-10, clocked network", CLOCKED),
    "digits-events": ("8x8 digits, 64-200-10, exact spike times", EVENTS),
    "yin-yang-events": ("Yin-Yang, 5-100-3, exact spike times", EVENTS),
}


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the numbers.")] = Path(
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
    Nothing to download, about two minutes. Prints a table for each and writes report.html,
    learning_curves.png and results.json.
    """
    changes: dict[str, Any] = {"seed": seed}
    if epochs is not None:
        changes["epochs"] = epochs
    recipe("digits-fc").settings_for(changes=changes)  # refuses them before anything is made
    ENGINES["fc"].use_threads(threads)  # so small a network is slower on more
    out.mkdir(parents=True, exist_ok=True)  # fails before the training and not after
    runs: list[ReportedRun] = []
    numbers: dict[str, Any] = {}
    for name, (title, rules) in SHOWN.items():
        try:
            trained, numbers[name] = _show(name, title, rules, changes)
        except ConfigurationError as problem:  # the extra of one engine may not be installed
            say(str(problem))
        else:
            runs += trained
    document = json.dumps({"seed": seed, "experiments": numbers}, indent=1)
    write_atomically(out / "results.json", document.encode())
    try:
        _write_pages(runs, out)
    except ConfigurationError as problem:
        say(str(problem))


def _show(
    name: str, title: str, rules: Sequence[str], changes: dict[str, Any]
) -> tuple[list[ReportedRun], dict[str, Any]]:
    """Train a recipe with several rules and print their table; return runs and numbers."""
    runs: list[ReportedRun] = []
    rows: dict[str, dict[str, float]] = {}
    for rule in rules:
        settings, label = recipe(name).settings_for(rule, changes), rule_name(rule)
        trainer = training.Trainer(training.build(settings))
        with console().status(Text(f"{title}: training with {label}")):
            history = trainer.fit()
        sizes = trainer.experiment.layer_sizes
        runs.append(ReportedRun(Path(name, rule), settings, environment(), history, sizes))
        rows[label] = _summary(history, sizes)
        say(f"{name}, {label}: test accuracy {rows[label]['test_accuracy']:.2%}")
    unit = engine_of(trainer.experiment.settings).rate_unit
    show(_comparison_table(f"{title}: one network, one seed", rows, unit))
    epochs = {label: list(run.history) for label, run in zip(rows, runs, strict=True)}
    return runs, {"summary": rows, "rate_unit": unit, "epochs": epochs}


def _summary(history: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> dict[str, float]:
    """Return a row of the table: a run's last epoch, seconds, and rate over all hidden neurons."""
    last = history[-1]
    spikes = sum(last["firing_rates"][name] * n for name, n in sizes.items())
    return {
        "test_accuracy": last["test_accuracy"],
        "test_loss": last["test_loss"],
        "seconds": sum(line["seconds"] for line in history),
        "firing_rate": spikes / max(sum(sizes.values()), 1),
    }


def _comparison_table(title: str, rows: Mapping[str, Mapping[str, float]], rate_unit: str) -> Table:
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


def _write_pages(runs: Sequence[ReportedRun], out: Path) -> None:
    study = gather(runs)
    curves = {
        SHOWN[name][0]: learning_curves(name, groups)[:2] for name, groups in study.recipes.items()
    }
    draw_picture(curves, out / "learning_curves.png")
    say(f"learning curves: {readable(str(out / 'learning_curves.png'))}")
    page = html_page("threefactor demo", study_sections(study))
    write_atomically(out / "report.html", page.encode())
    say(f"all of it, to open in a browser: {readable(str(out / 'report.html'))}")
