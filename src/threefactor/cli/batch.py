"""The options with which runs become jobs of a batch system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from threefactor.errors import ConfigurationError
from threefactor.reproduce.batch import Batch
from threefactor.training.devices import AUTO

__all__ = [
    "Cpus",
    "ExecutorName",
    "Gpus",
    "Jobs",
    "Memory",
    "Partition",
    "Sbatch",
    "TimeLimit",
    "executor_of",
    "jobs_at_once",
]

MOST_JOBS = 10_000
PANEL = "Batch systems"

Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, help="Runs that train at once. [default: 1; all, where SLURM has the queue]"
    ),
]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Make each run a job: slurm; local, to try that on this machine.",
        rich_help_panel=PANEL,
    ),
]
Partition = Annotated[str | None, typer.Option(help="Partition of SLURM.", rich_help_panel=PANEL)]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="Limit of a job, as 90 (minutes), 12:00:00 or 2-12. A run that takes longer is "
        "queued again and resumed. [default: 4:00:00]",
        rich_help_panel=PANEL,
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(help="GPUs of a job. [default: 1 for --device cuda]", rich_help_panel=PANEL),
]
Cpus = Annotated[
    int | None,
    typer.Option(min=1, help="CPUs of a job. [default: --threads]", rich_help_panel=PANEL),
]
Memory = Annotated[str | None, typer.Option(help="Memory of a job, as 16G.", rich_help_panel=PANEL)]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Another option of sbatch, as account=lab; may be repeated.",
        rich_help_panel=PANEL,
    ),
]


def executor_of(
    folder: Path,
    name: str | None,
    *,
    threads: int,
    device: str,
    partition: str | None,
    time: str | None,
    gpus: int | None,
    cpus: int | None,
    memory: str | None,
    sbatch: list[str] | None,
) -> Batch | None:
    """Return what starts the runs; None for processes of this machine.

    Args:
        folder: for the files of the jobs.
        name: of the batch system.
        threads, device: of each run.
        partition, time, gpus, cpus, memory, sbatch: the options, None if they are not given.

    Raises:
        ConfigurationError: if an option is given without a batch system, or does not fit.
    """
    given: dict[str, Any] = {
        "partition": partition,
        "time": time,
        "gpus": gpus,
        "cpus": cpus,
        "memory": memory,
        "sbatch": sbatch,
    }
    if name is None:
        for key, value in given.items():
            if value is not None:
                raise ConfigurationError(
                    f"--{key} is of jobs, and the runs are processes of this machine: give "
                    "--executor slurm, too, or leave it out"
                )
        return None
    on_gpu = device.startswith("cuda")
    if gpus and not on_gpu and device != AUTO:
        raise ConfigurationError(
            f"--gpus is {gpus} and --device {device}, which would leave them idle; give --device "
            "cuda or auto, too"
        )
    if cpus is not None and cpus < threads:
        raise ConfigurationError(f"--cpus is {cpus} and --threads {threads}; give as many CPUs")
    options = {key: value for key, value in given.items() if value is not None}
    options.update(gpus=int(on_gpu) if gpus is None else gpus, cpus=cpus or threads)
    return Batch(folder, name, options=_options(options.pop("sbatch", [])), **options)


def jobs_at_once(jobs: int | None, executor: Batch | None) -> int:
    """Return how many runs train at once."""
    queued = executor is not None and executor.system == "slurm"
    return jobs or (MOST_JOBS if queued else 1)


def _options(texts: list[str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    for text in texts:
        key, equals, value = text.removeprefix("--").partition("=")
        if key in found:
            raise ConfigurationError(f"--sbatch {key} is given twice")
        found[key] = value if equals else True
    return found
