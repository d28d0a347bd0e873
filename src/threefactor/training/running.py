"""Train from settings, resume a run folder, or open one as live objects.

To resume, `Run` reads what the folder holds, `build` makes the experiment anew from the settings in
it, and `Trainer.load` puts the state of the last checkpoint back (`threefactor.training.state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError, warn_user
from threefactor.processes import World
from threefactor.readable import clipped
from threefactor.training.build import begin, build
from threefactor.training.devices import choose_device
from threefactor.training.folder.data_record import record_of
from threefactor.training.folder.lock import only_one
from threefactor.training.folder.run import Run
from threefactor.training.folder.writer import RunFolder
from threefactor.training.loop import Trainer, progress_of
from threefactor.training.overrides import override
from threefactor.training.own_code import code_digests
from threefactor.training.progress import Watcher
from threefactor.training.settings import Settings

__all__ = ["open_run", "resume", "train"]

COMMAND = "the command (train or resume)"


def train(
    settings: Settings,
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    log: Sequence[str] | None = None,
    set_aside: bool = False,
    world: World | None = None,
) -> list[dict[str, Any]]:
    """Train from the beginning; return the metrics lines.

    Args:
        settings: the experiment.
        out: the run folder, made here; None keeps nothing on disk.
        data_dir: see `threefactor.data.load`.
        device: where to train, as "cpu" or "cuda:1"; "auto" takes a GPU if there is one that the
            engine can use. config.json records the device that it was.
        watcher: shown the progress.
        log: names of loggers, see `Trainer`.
        set_aside: whether to move what is left of an earlier run without its config.json into
            `remains-1`, or the next free number, in the folder. Otherwise it is an error.
        world: processes that all call this and train together; see `Trainer`.

    Raises:
        ThreefactorError: one of its kinds; see `Trainer`, `build` and `begin`.
    """
    world = world or World(meet=False)
    world.check_same(COMMAND, "train")
    device = choose_device(device, settings, world).device
    experiment = build(settings, data_dir, device)
    begin(experiment)
    run = None if out is None else RunFolder(out)
    # Refuses what it cannot do before anything is written.
    trainer = Trainer(experiment, run, watcher, log=log, world=world)
    if run is None:
        return trainer.fit()
    with ExitStack() as lock:

        def begin_folder() -> None:
            lock.enter_context(only_one(run.path))
            if set_aside:
                run.set_aside()
            run.create(settings, record_of(settings, experiment.data), experiment.layer_sizes)

        world.from_first(begin_folder)
        return trainer.fit()


def resume(
    out: str | Path,
    *,
    settings: Settings | None = None,
    epochs: int | None = None,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    log: Sequence[str] | None = None,
    world: World | None = None,
) -> list[dict[str, Any]]:
    """Resume a run from its last checkpoint; return the metrics lines of all epochs.

    The result has the same bits as that of a run never interrupted, on the same machine with the
    same number of threads.

    Args:
        out: the run folder.
        settings: if given, must be those of the run.
        epochs: if given, a finished run gets so many in all. The further ones are trained with the
            learning rates and noise that a training of so many epochs has there.
        data_dir, device, watcher, log, world: as in `train`. There may be more or fewer
            processes than before: the numbers are then the same to rounding, not to the bit.

    Raises:
        CheckpointError: if the folder holds no run, one of other settings or other data, one whose
            config.json was changed since, or a corrupt one; or another process or thread works in
            it.
    """
    run = RunFolder(out)
    world = world or World(meet=False)
    world.check_same(COMMAND, "resume")
    with ExitStack() as lock:

        def enter() -> tuple[Settings, list[dict[str, Any]], bool, bool]:
            if run.read().is_imported:  # refuses a folder that holds no run before it is locked
                raise CheckpointError(
                    f"the network in {run.path} was imported, so there is no training to resume; "
                    "train from it with --set start=RUN, or threefactor finetune RUN"
                )
            lock.enter_context(only_one(run.path))
            there = run.read()
            if settings is not None:
                there.check_settings(settings)
            wanted, extended = there.settings, there.extended
            more = epochs not in (None, wanted.epochs)
            if more:
                wanted = override(wanted, {"epochs": epochs})
                extended = [*extended, there.extension(wanted.epochs)]
            return wanted, extended, more, "last" in there.checkpoints

        wanted, extended, more, begun = world.from_first(enter)
        device = choose_device(device, wanted, world).device
        experiment = build(wanted, data_dir, device)
        world.from_first(lambda: run.read().check_data(record_of(wanted, experiment.data)))
        trainer = Trainer(experiment, run, watcher, log=log, world=world)
        if begun:
            trainer.load(run.last, extended)
        else:
            begin(experiment)
            world.from_first(lambda: run.read().check_start(experiment.start))
        if more:
            world.from_first(lambda: run.extend(wanted.epochs))
        return trainer.fit()


def open_run(
    out: str | Path,
    checkpoint_name: str = "last",
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
) -> Trainer:
    """Open a run folder as live objects: `trainer.experiment` has network, rule and data.

    The noise of the rule has the scale of the last epoch that was trained. Nothing is written to
    the folder.

    Args:
        out: the run folder.
        checkpoint_name: "last" or "best".
        data_dir, device: as in `train`.

    Raises:
        ConfigurationError: if the name is another one.
        CheckpointError: if the folder holds no run, or the checkpoint is absent or corrupt.

    Warns:
        UserWarning: if the data or code of the user's own was changed since the training.
    """
    if checkpoint_name not in ("last", "best"):
        raise ConfigurationError(f"checkpoint is {checkpoint_name!r}; give last or best")
    run = Run(out)
    trainer = Trainer(build(run.settings, data_dir, device))
    code = code_digests(run.settings)
    if (code or None) != (run.code or None):
        warn_user(
            f"{run.path} was trained with other code of your own ({clipped(run.code)}) than it is "
            f"opened with ({clipped(code)}): what you see is not what was trained, unless the "
            "change does not matter"
        )
    trainer.load(run.last if checkpoint_name == "last" else run.best, run.extended)
    differ = run.data_difference(trainer.described.data)
    if differ is not None:
        warn_user(
            f"{run.path} was trained on other data than what was found ({differ}): labels may mean "
            "other classes, and samples for testing may be some that it has learned from. Name the "
            "folder of its data with --data-dir, unless the change is meant"
        )
    trainer.experiment.rule.set_progress(progress_of(max(trainer.epoch - 1, 0), run.settings))
    return trainer
