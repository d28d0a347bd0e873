"""`threefactor stream`: a trained network adapts to pictures that turn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from threefactor import training
from threefactor.analysis.runs import Drift, adapt
from threefactor.cli.console import say
from threefactor.cli.data import DataDir
from threefactor.cli.plugins import Plugins, recall
from threefactor.cli.runs import Device, Threads, use
from threefactor.errors import ConfigurationError
from threefactor.readable import readable
from threefactor.report.drawing import on_paper, svg
from threefactor.report.figures import Figure, Series
from threefactor.report.names import rule_name
from threefactor.training.folder.files import append_line, make_folder, write_atomically
from threefactor.training.folder.writer import environment

__all__ = ["stream"]


def stream(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a trained network.")],
    samples: Annotated[int, typer.Option(help="Length of the stream.")] = Drift.samples,
    angle: Annotated[float, typer.Option(help="Degrees at the end.")] = Drift.angle,
    labelled: Annotated[
        float, typer.Option(help="Share of the samples that have a label.")
    ] = Drift.labelled,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYERS",
            help="Compare with a network in which these layers do not learn, as "
            "linear1,linear2; may be repeated.",
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate. [default: a tenth of the run's]")
    ] = None,
    held_out: Annotated[
        int, typer.Option(help="Test pictures kept for evaluations in between.")
    ] = Drift.held_out,
    every: Annotated[
        int | None,
        typer.Option(
            help=f"Samples between two lines. [default: {Drift.every}, or all of a shorter stream]"
        ),
    ] = None,
    window: Annotated[
        int, typer.Option(help="Samples that the running accuracy is the mean of.")
    ] = Drift.window,
    seed: Annotated[int, typer.Option(help="Seed of order, labels and noise.")] = Drift.seed,
    out: Annotated[
        Path | None, typer.Option(help="Folder of numbers and picture. [default: RUN/stream]")
    ] = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """
    Let a trained network meet test pictures that turn slowly, one at a time.

    One copy is static. One learns from each picture after it has predicted it, by the rule of the
    run. Prints the running accuracy and writes stream.json (settings and environment),
    stream.jsonl (a line each `--every` samples) and stream.svg (with the extra `report`).
    """
    every = min(Drift.every, max(samples, 1)) if every is None else every
    drift = Drift(samples, angle, labelled, held_out, every, window, seed)
    frozen = [tuple(part.strip() for part in one.split(",")) for one in freeze or []]
    recall(run)
    device = use(training.Run(run).settings, device, threads)
    trainer = training.open_run(run, data_dir=data_dir, device=device)
    settings = trainer.experiment.settings
    found = adapt(trainer, drift, lr=lr, frozen=frozen)
    folder = out or run / "stream"
    lines_path = folder / "stream.jsonl"
    make_folder(folder)
    try:
        lines_path.touch(exist_ok=False)  # of several commands at once, one has the folder
    except FileExistsError:
        raise ConfigurationError(
            f"{readable(str(lines_path))} is there already; give another folder with --out"
        ) from None
    document = {
        "recipe": settings.recipe,
        "rule": settings.rule.name,
        "epoch": trainer.epoch,
        "stream": dataclasses.asdict(drift),
        "lr": settings.optimizer.lr / 10 if lr is None else lr,
        "frozen": frozen,
        "environment": environment(settings, device),
    }
    about_path = folder / "stream.json"
    lines: list[dict[str, Any]] = []
    try:
        write_atomically(about_path, (json.dumps(document, indent=1) + "\n").encode())
        for line in found:
            append_line(lines_path, line)
            lines.append(line)
            shown = ", ".join(f"{name} {value:.1%}" for name, value in line["accuracy"].items())
            say(f"{line['samples']} samples, {line['angle']:.0f} degrees: {shown}")
    finally:
        if not lines:  # the corrected command may have the folder
            lines_path.unlink(missing_ok=True)
            about_path.unlink(missing_ok=True)
    try:
        drawn = on_paper(svg(_picture(lines, document)))
    except ConfigurationError as problem:  # the extra is not installed
        say(str(problem))
    else:
        write_atomically(folder / "stream.svg", drawn.encode())
    say(f"all numbers are in {readable(str(folder))}")


def _picture(lines: list[dict[str, Any]], document: dict[str, Any]) -> Figure:
    given = document["stream"]
    rule, recipe = rule_name(document["rule"]), document["recipe"]
    return Figure(
        "stream",
        f"{recipe}: accuracy while the pictures turn",
        f"Running accuracy over {given['window']} samples of networks trained with {rule}, which "
        f"then meet {given['samples']} pictures one at a time; {given['labelled']:.0%} of them "
        "have a label.",
        "degrees turned",
        "running accuracy (%)",
        tuple(
            Series(
                f"adapting by {rule}" if name == "adapting" else name,
                [line["angle"] for line in lines],
                [100 * line["accuracy"][name] for line in lines],
            )
            for name in lines[0]["accuracy"]
        ),
        from_zero=True,
    )
