"""`threefactor sweep`: one recipe with many settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from threefactor import sweeps
from threefactor.cli import batch
from threefactor.cli.completion import recipe_names
from threefactor.cli.console import say, show
from threefactor.cli.data import DataDir
from threefactor.cli.plugins import Plugins
from threefactor.cli.reproduce import GridBar
from threefactor.cli.runs import Assignments, Data, Device, changes_of
from threefactor.errors import ConfigurationError, ThreefactorError
from threefactor.plugins import name_of_rule
from threefactor.readable import readable
from threefactor.recipes import recipe as find_recipe
from threefactor.report import collect
from threefactor.report.sweeps import ranking_table
from threefactor.report.values import cell_text
from threefactor.training.devices import AUTO, check_device
from threefactor.training.engines import check_threads, engine_of

__all__ = ["sweep"]

SHOWN = 10
"""Cells that the terminal shows; the page has all."""


def sweep(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="What to train: a recipe by name, or a file of one.",
            autocompletion=recipe_names,
        ),
    ],
    rule: Annotated[
        str | None, typer.Option(help="Learning rules, as opzo,dfa. [default: the recipe's]")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=VALUES",
            help="A setting with its values, as lr=1e-3,2e-4; for --search also a range, as "
            "lr=1e-4..1e-2:log. May be repeated.",
        ),
    ] = None,
    own_data: Data = None,
    assignments: Assignments = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each cell, from 0.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    search: Annotated[
        int | None,
        typer.Option(metavar="N", help="Let Optuna choose N cells, in place of a grid."),
    ] = None,
    jobs: batch.Jobs = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each run.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs and page. [default: sweeps/RECIPE]")
    ] = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    executor: batch.ExecutorName = None,
    partition: batch.Partition = None,
    time: batch.TimeLimit = None,
    gpus: batch.Gpus = None,
    cpus: batch.Cpus = None,
    memory: batch.Memory = None,
    sbatch: batch.Sbatch = None,
) -> None:
    """
    Train a recipe with many settings, and rank them on one page.

    `threefactor sweep digits-fc --rule opzo,dfa --grid lr=1e-3,2e-4 --grid noise_scale=0.1,0.2
    --seeds 3 --jobs 2` trains every rule with every combination of the values that it has. You can
    stop it at any time: given again, it goes on; with more values or seeds, it trains what is new.
    `--search 50` lets Optuna choose 50 combinations. Several such commands may search in one
    folder at once.

    `--executor slurm --partition gpu --time 12:00:00 --device cuda` makes each run a job.
    """
    found = find_recipe(name)
    own = [name_of_rule(one.strip()) for one in rule.split(",")] if rule is not None else None
    plan = sweeps.Sweep(
        name,
        tuple(own or [found.settings.rule.name]),
        _grid(grid or []),
        changes_of(assignments, None, epochs, own_data, data_dir),
        seeds,
    )
    folder = out or Path("sweeps") / found.settings.recipe
    check_threads(threads)
    jobs_of = batch.executor_of(
        folder / "batch",
        executor,
        threads=threads,
        device=device,
        partition=partition,
        time=time,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        sbatch=sbatch,
    )
    if executor != "slurm" and device != AUTO:  # each run picks; jobs have other devices
        check_device(device, engine_of(found.settings))
    options: dict[str, Any] = {
        "jobs": batch.jobs_at_once(jobs, jobs_of) if search is None else jobs or 1,
        "executor": jobs_of,
        "data_dir": data_dir,
        "device": device,
        "threads": threads,
    }
    with GridBar(plan.name_of) as bar:
        if search is None:
            sweeps.run_sweep(plan, folder, **options, observer=bar)
        else:
            sweeps.run_search(plan, folder, search, **options, observer=bar)
    page = sweeps.write_page(folder, f"Sweep of {found.settings.recipe}")
    _show_ranking(folder)
    say(f"all cells are ranked in {readable(str(page))}")
    if bar.failed:
        raise ThreefactorError(
            f"{bar.failed} of the runs could not be made or used: see above, and the page. Once "
            "that is mended, give the same command again"
        )


def _grid(texts: list[str]) -> dict[str, tuple[Any, ...] | sweeps.Range]:
    found: dict[str, tuple[Any, ...] | sweeps.Range] = {}
    for text in texts:
        key, values = sweeps.parse_grid(text)
        if key in found:
            raise ConfigurationError(f"--grid {key} is given twice; give all its values at once")
        found[key] = values
    return found


def _show_ranking(folder: Path) -> None:
    for recipe, groups in collect([folder], split=True).recipes.items():
        ranking = ranking_table(recipe, groups)
        table = Table(*ranking.columns, title=f"{ranking.title}, the best {SHOWN}")
        for row in ranking.rows[:SHOWN]:
            table.add_row(*(readable(cell_text(cell)) for cell in row))
        show(table)
