"""`threefactor train`, `finetune`, `evaluate` and `recipes`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from threefactor import plugins, training
from threefactor.cli.completion import recipe_names, rule_names
from threefactor.cli.console import console, remark, say, show
from threefactor.cli.data import DataDir
from threefactor.cli.plugins import Plugins, recall, what_is_registered
from threefactor.data import DATASETS
from threefactor.data.own.kinds import KINDS, recognise
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.plugins import name_of_rule
from threefactor.processes import World, warnings_once
from threefactor.readable import clipped, readable
from threefactor.recipes import RECIPES, all_recipes, finetuning, recipe, recipe_toml
from threefactor.training.devices import AUTO, choose_device
from threefactor.training.engines import engine_of
from threefactor.training.loggers import LOGGERS
from threefactor.training.overrides import parse_assignment
from threefactor.training.progress import EpochLines
from threefactor.training.scores import shown
from threefactor.training.settings import Settings

__all__ = [
    "Assignments",
    "Data",
    "Device",
    "Threads",
    "changes_of",
    "evaluate",
    "finetune",
    "recipes",
    "train",
    "use",
]

Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one that the "
        "network can use."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads. A run repeats to the bit only with the same number."),
]
PRECISIONS = ("highest", "high", "medium")
Precision = Annotated[
    str | None,
    typer.Option(
        help="Of products of float32 matrices: highest, high (TF32) or medium (bfloat16), where "
        "the processor has them; see torch.set_float32_matmul_precision. [default: highest]"
    ),
]
Log = Annotated[
    str | None,
    typer.Option(
        metavar="LOGGERS",
        help=f"Write the metrics for loggers, too: {', '.join(LOGGERS)}, separated by commas; or "
        "none. [default: none, or those that a resumed run has]",
        show_default=False,
    ),
]
RuleName = Annotated[
    str | None,
    typer.Option(
        help="Learning rule; one of your own by its name, or by its place, as mylib:MyRule.",
        autocompletion=rule_names,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]


Start = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Where the network's weights come from: a run folder, or a file .safetensors, .pt or "
        ".pth with a state_dict.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="What to train on: a data set by name; or data of your own, as images:FOLDER, "
        "events:FOLDER, spikes:FILE, tensors:FILE or huggingface:FOLDER, or its place alone.",
    ),
]


def train(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="What to train: a recipe by name, or a file of one (.toml, .yaml).",
            autocompletion=recipe_names,
        ),
    ] = None,
    rule: RuleName = None,
    plugin: Plugins = None,
    seed: Seed = None,
    epochs: Epochs = None,
    own_data: Data = None,
    start: Start = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. [default: runs/RECIPE-RULE-seedN]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    resume_or_start: Annotated[
        bool,
        typer.Option(
            "--resume-or-start",
            help="Resume the run if there is one, else start it: for batch systems.",
        ),
    ] = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
    log: Log = None,
    precision: Precision = None,
) -> None:
    """
    Train a recipe with a rule.

    `threefactor train mnist-fc --rule opzo --seed 0` trains the paper's network with its settings.
    `--set` changes any setting by name, or by full name where two share it:
    `--set epochs=6 --set lr=1e-3 --set "hidden=[400, 400]" --set momentum=0.999`.

    The run folder gets config.json, metrics.jsonl (one line per epoch), and the checkpoints last/
    and best/ (by the accuracy on validation data if there are any, as with
    `--set validation=0.1`, else by test accuracy). Ctrl-C writes a checkpoint. `--resume` continues
    from the last one, on as many threads as before, and ends with the weights of a run never
    interrupted.

    `--resume --out DIR --epochs 80` gives a finished run more epochs.

    `--data images:FOLDER --set test_share=0.2` trains on pictures of your own, a folder for each
    class; `threefactor data check FOLDER` says what it holds.

    `--start weights.safetensors` begins with weights that any program has saved.

    `torchrun --nproc-per-node=4 -m threefactor train mnist-fc` shares each batch out over four
    processes, with the numbers of one process to rounding.

    `--plugin my.py` adds rules, networks, data, losses and recipes of your own. The run folder
    remembers it.
    """
    rule = None if rule is None else name_of_rule(rule)
    resume = resume or (resume_or_start and out is not None and _is_run(out))
    if resume and out is not None and _is_run(out):
        recall(out)
    changes = changes_of(assignments, seed, epochs, own_data, data_dir)
    if start is not None:
        if changes.get("start", start) != start:
            raise ConfigurationError("the start is given twice; give --start alone")
        changes["start"] = start
    settings = _settings(name, rule, changes, resume)
    if out is None:
        if settings is None:
            raise ConfigurationError("give --out DIR, the folder of the run to resume")
        out = Path("runs") / run_name(settings)
        resume = resume or (resume_or_start and _is_run(out))
    run = training.Run(out)
    if resume:
        threads = threads or run.threads
        precision = precision or run.precision
    with _together() as world:
        if resume_or_start:  # another machine may not see the run folder
            begun = resume
            resume = world.from_first(lambda: begun)
        device = use(settings or run.settings, device, threads, precision, world)
        common: dict[str, Any] = {
            "data_dir": data_dir,
            "device": device,
            "watcher": EpochLines(console()),
            "log": _loggers(log),
            "world": world,
        }
        if resume:
            more = changes.get("epochs") if settings is None else None
            history = training.resume(out, settings=settings, epochs=more, **common)
        else:
            assert settings is not None
            _announce(run, world)
            history = training.train(settings, out, set_aside=True, **common)
        _report(history, out, world)


def _loggers(text: str | None) -> list[str] | None:
    """Return the names of loggers that `--log` gives; None if it is not given."""
    if text is None:
        return None
    return [] if text.strip() == "none" else [name.strip() for name in text.split(",")]


def run_name(settings: Settings) -> str:
    """Return the usual name of the folder of a run."""
    rule = settings.rule.name.replace(":", "-")  # no letter of a file's name on Windows
    return f"{settings.recipe}-{rule}-seed{settings.seed}"


def _is_run(out: Path) -> bool:
    return training.Run(out).config_path.exists()


def finetune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder to start from.")],
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of noise on the membrane potentials.")
    ] = None,
    rule: RuleName = None,
    plugin: Plugins = None,
    seed: Seed = None,
    epochs: Epochs = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. [default: RUN-noiseNOISE-RULE-seedN]")
    ] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
    log: Log = None,
    precision: Precision = None,
) -> None:
    """
    Fine-tune the network of a run under the noise of hardware.

    `threefactor finetune RUN --noise 0.1 --rule opzo` adds noise to the membrane potentials at
    every time step, in training and in testing. It first tests the network as it is (start.json),
    then trains it with the settings of its run, a hundredth of the learning rate (a thousandth for
    ZO), no weight decay, and 5 epochs (1 for spatial-bp), which `--set` changes.
    """
    recall(run)
    rule = None if rule is None else name_of_rule(rule)
    settings = finetuning(run, noise, rule, changes_of(assignments, seed, epochs))
    if out is None:
        ending = "" if noise is None else f"-noise{noise:g}"
        place = run.resolve() if run.name in ("", "..") else run
        rule_name = settings.rule.name.replace(":", "-")
        out = place.with_name(f"{place.name}{ending}-{rule_name}-seed{settings.seed}")
    with _together() as world:
        device = use(settings, device, threads, precision, world)
        _announce(training.Run(out), world)
        history = training.train(
            settings,
            out,
            data_dir=data_dir,
            device=device,
            watcher=EpochLines(console()),
            log=_loggers(log),
            set_aside=True,
            world=world,
        )
        _report(history, out, world)


@contextmanager
def _together() -> Iterator[World]:
    """Meet the other processes, if torchrun started several."""
    world = World()
    try:
        with nullcontext() if world.size == 1 else warnings_once():
            yield world
    finally:
        world.leave()


def _announce(run: training.Run, world: World) -> None:
    """Say if what is left of an earlier run will be moved aside."""
    left = run.remains() if world.is_first else []
    if left:
        console().print(
            f"{run.path} holds what is left of a run without its config.json ({', '.join(left)}); "
            "it is moved to a folder remains-N there",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _report(history: list[dict[str, Any]], out: Path, world: World) -> None:
    if not world.is_first:
        return
    say(
        f"test {shown(history[-1], 'test')} after {len(history)} epochs; "
        f"the run is in {readable(str(out))}"
    )


def changes_of(
    assignments: list[str] | None,
    seed: int | None,
    epochs: int | None,
    own_data: str | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Return the settings that options change, by name."""
    changes: dict[str, Any] = {}
    options = {"seed": seed, "epochs": epochs}
    given: list[tuple[str, Any]] = []
    if own_data is not None:
        given += data_named(own_data, data_dir).items()
    given += map(parse_assignment, assignments or [])
    given += [(key, value) for key, value in options.items() if value is not None]
    for key, value in given:
        if key == "recipe":
            raise ConfigurationError(
                "recipe says where the settings come from, and --set does not change it; give "
                "another one as RECIPE"
            )
        if key in changes and changes[key] != value:
            raise ConfigurationError(
                f"{key} is given twice, as {clipped(changes[key])} and as {clipped(value)}"
            )
        changes[key] = value
    return changes


def data_named(text: str, data_dir: Path | None = None) -> dict[str, str]:
    """Return the settings that name data: a set by name, or data of one's own by its place.

    Args:
        text: as given.
        data_dir: the folder from which relative paths count, if it is given.

    Raises:
        ConfigurationError: if the place may hold several kinds.
        DataError: if it holds none that is known.
    """
    kind, colon, path = text.partition(":")
    if colon and kind in KINDS:
        return {"data.name": kind, "data.options.path": path}
    if text in DATASETS or plugins.entry("data", text) is not None:
        return {"data.name": text}
    place = Path(text) if data_dir is None else data_dir / text
    if os.sep not in text and not place.exists():
        known = [*DATASETS, *(f"{kind}:PATH" for kind in KINDS)]
        raise unknown_name("data", text, known)
    return {"data.name": recognise(place), "data.options.path": text}


def _settings(
    name: str | None, rule: str | None, changes: dict[str, Any], resume: bool
) -> Settings | None:
    if name is not None:
        return recipe(name).settings_for(rule, changes)
    if resume and rule is None and changes.keys() <= {"epochs"}:
        return None
    if resume:
        raise ConfigurationError(
            "to resume, give either --resume --out DIR alone (the run's own settings are used), "
            "perhaps with --epochs for a longer training of a finished run, or the recipe with all "
            "its options as at the start"
        )
    raise ConfigurationError(f"give a recipe: {', '.join(RECIPES)}")


def use(
    settings: Settings,
    device: str,
    threads: int | None,
    precision: str | None = None,
    world: World | None = None,
) -> str:
    """Set threads and precision of the settings' engine; return the device, which is there."""
    chosen = choose_device(device, settings, world)
    if device == AUTO and (world is None or world.is_first):
        remark(f"device {chosen.device}: {chosen.why}")
    engine = engine_of(settings)
    if threads is None:  # torchrun allows each process one, and says so
        beside = int(os.environ.get("LOCAL_WORLD_SIZE") or "1")
        whole = torch.get_num_threads()
        threads = whole if beside == 1 else max(1, (os.cpu_count() or 1) // beside)
    engine.use_threads(threads)
    if precision is not None:
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        torch.set_float32_matmul_precision(precision)
    # PyTorch makes convolutions in TF32 on a GPU unless it is told not to.
    torch.backends.cudnn.allow_tf32 = torch.get_float32_matmul_precision() != "highest"
    return chosen.device


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    checkpoint: Annotated[str, typer.Option(help="Which checkpoint: last or best.")] = "last",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """
    Evaluate a trained run on its test data.

    Note that `best` was chosen by looking at the test data, unless the run had validation data:
    then quote `last`.
    """
    recall(run)
    device = use(training.Run(run).settings, device, threads)
    trainer = training.open_run(run, checkpoint, data_dir=data_dir, device=device)
    found = trainer.evaluate()
    line = {
        "run": str(run),
        "checkpoint": checkpoint,
        "epoch": trainer.epoch,
        **found.line("test"),
        "firing_rates": found.firing_rates,
    }
    if as_json:
        say(json.dumps(line))
        return
    rates = ", ".join(f"{layer} {rate:.3f}" for layer, rate in found.firing_rates.items())
    unit = engine_of(trainer.experiment.settings).rate_unit
    say(
        f"{readable(str(run))}, {checkpoint} checkpoint after {trainer.epoch} epochs: test "
        f"{shown(line, 'test')}, loss {found.loss:.4f}; {unit}: {rates}"
    )


def recipes(
    shown: Annotated[
        str | None,
        typer.Option(
            "--show",
            metavar="RECIPE",
            help="Print a recipe as TOML, a file to start your own from.",
            autocompletion=recipe_names,
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """
    List the recipes, or print one.

    `threefactor recipes --show digits-fc > my.toml` prints all settings of a recipe. Change them,
    give it a name of its own (`recipe = "..."`), and train it: `threefactor train my.toml`.
    """
    if shown is not None:
        say(recipe_toml(recipe(shown)).rstrip())
        return
    table = Table("recipe", "what it trains", "data", "epochs")
    for name, entry in all_recipes().items():
        row = (name, entry.title, entry.settings.data.name, str(entry.settings.epochs))
        table.add_row(*map(readable, row))
    show(table)
    for line in what_is_registered():
        say(f"from plugins: {line}")
