"""From settings or a run folder to a training, or to the live objects of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.training import checkpoint
from threefactor.training.build import begin, build
from threefactor.training.data_record import describe_data
from threefactor.training.loop import Trainer, progress_of
from threefactor.training.progress import Watcher
from threefactor.training.run_folder import RunFolder
from threefactor.training.run_lock import only_one
from threefactor.training.settings import Settings

__all__ = ["open_run", "resume", "train"]


def train(
    settings: Settings,
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    tensorboard: bool = False,
    set_aside: bool = False,
) -> list[dict[str, Any]]:
    """Train from the beginning; return the metrics lines.

    Args:
        settings: the experiment.
        out: the run folder, made here; None keeps nothing on disk.
        data_dir: see `threefactor.data.load`.
        device: where to train, such as "cpu" or "cuda".
        watcher: shown the progress.
        tensorboard: see `Trainer`.
        set_aside: whether what is left in the folder of a run without its config.json is moved to
            `remains-1`, or the next free number, in it; otherwise it is an error.

    Raises:
        ThreefactorError: one of its kinds; see `Trainer`, `build` and `begin`.
    """
    experiment = build(settings, data_dir, device)
    begin(experiment)
    run = None if out is None else RunFolder(out)
    # Refuses what it cannot do before anything is written.
    trainer = Trainer(experiment, run, watcher, tensorboard=tensorboard)
    if run is None:
        return trainer.fit()
    with only_one(run.path):
        if set_aside:
            run.set_aside()
        run.create(settings, describe_data(experiment.data))
        return trainer.fit()


def resume(
    out: str | Path,
    *,
    settings: Settings | None = None,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    watcher: Watcher | None = None,
    tensorboard: bool = False,
) -> list[dict[str, Any]]:
    """Go on with a run from its last checkpoint; return the metrics lines of all epochs.

    The result has the same bits as that of a run never interrupted, on the same machine with the
    same number of threads.

    Args:
        out: the run folder.
        settings: if given, must be those of the run.
        data_dir, device, watcher, tensorboard: as in `train`.

    Raises:
        CheckpointError: if the folder holds no run, one of other settings or other data, one whose
            config.json was changed since, or a corrupt one; or another process or thread works in
            it.
    """
    run = RunFolder(out)
    if run.is_imported:  # refuses a folder without a run before it is locked
        raise CheckpointError(
            f"the network in {run.path} was imported, so there is no training to resume; train "
            "from it with --set start=RUN, or threefactor finetune RUN"
        )
    with only_one(run.path):
        if settings is not None:
            run.check_same(settings)
        experiment = build(run.settings(), data_dir, device)
        run.check_same_data(describe_data(experiment.data))
        if not checkpoint.exists(run.last):
            begin(experiment)
        trainer = Trainer(experiment, run, watcher, tensorboard=tensorboard)
        if checkpoint.exists(run.last):
            trainer.load(run.last)
        return trainer.fit()


def open_run(
    out: str | Path,
    checkpoint_name: str = "last",
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
) -> Trainer:
    """Turn a run folder back into live objects: `trainer.experiment` has network, rule and data.

    The noise of the rule has the scale of the last epoch that was trained. Nothing is written to
    the folder.

    Args:
        out: the run folder.
        checkpoint_name: "last" or "best".
        data_dir, device: as in `train`.

    Raises:
        ConfigurationError: if the name is another one.
        CheckpointError: if the folder holds no run, or the checkpoint is absent or corrupt.
    """
    if checkpoint_name not in ("last", "best"):
        raise ConfigurationError(f"checkpoint is {checkpoint_name!r}; give last or best")
    folder = RunFolder(out)
    settings = folder.settings()
    trainer = Trainer(build(settings, data_dir, device))
    trainer.load(folder.last if checkpoint_name == "last" else folder.best)
    trainer.experiment.rule.set_progress(progress_of(max(trainer.epoch - 1, 0), settings))
    return trainer
