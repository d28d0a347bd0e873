"""`threefactor import`: networks that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from threefactor.cli.console import say
from threefactor.errors import unknown_name
from threefactor.interop import IMPORTERS
from threefactor.readable import readable

__all__ = ["import_"]


def import_(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=f"What the file holds: {', '.join(IMPORTERS)}.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file, as it was downloaded.")],
    out: Annotated[Path, typer.Option(help="Run folder, made here.")],
) -> None:
    """
    Make a run folder from a network that others trained.

    `threefactor import ottt-nfresnet34 FILE.pth --out RUN` takes the spiking NF-ResNet-34 released
    by Xiao et al. 2022. No code in the file is run. `threefactor finetune RUN --noise 0.1` and
    `threefactor train imagenet-nfresnet34-noise --set start=RUN` fine-tune it.
    """
    if kind not in IMPORTERS:
        raise unknown_name("kind of file", kind, IMPORTERS)
    run = IMPORTERS[kind](file, out)
    shown = readable(str(run.path))
    say(f"{shown} holds the network; fine-tune it with: threefactor finetune {shown} --noise 0.1")
