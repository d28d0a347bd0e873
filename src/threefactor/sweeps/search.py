"""A search: Optuna chooses the cells of a sweep one after the other, from what it saw before.

All that a search knows is in its folder: Optuna's journal of trials, and the run folders. Several
processes may search in one folder at once, on one machine or on several that share it. Each takes
a place of its own (OUT/runs/1, OUT/runs/2, ...), whose trials it finishes first if an earlier
process was stopped in the middle of them.
"""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from threefactor.errors import ConfigurationError, DataError
from threefactor.reproduce.grid import FINISHED, NO_DATA, Executor, Observer, Outcome, run_grid
from threefactor.reproduce.planned import PlannedRun
from threefactor.sweeps.plan import Range, Sweep
from threefactor.sweeps.running import write_description
from threefactor.training import Run
from threefactor.training.best import chosen_by
from threefactor.training.folder.lock import BusyError, only_one
from threefactor.training.scores import lower_is_better

__all__ = ["JOURNAL", "run_search"]

JOURNAL = "optuna.journal"
MOST_TRIALS, MOST_PLACES = 10_000, 1000
PATIENCE = 60.0
"""Seconds to wait for another process that chooses."""
_RULE, _PLACE = "rule", "place"


def run_search(
    sweep: Sweep,
    out: str | Path,
    trials: int,
    *,
    jobs: int = 1,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    observer: Observer | None = None,
    executor: Executor | None = None,
    seed: int = 0,
) -> list[Outcome]:
    """Train cells that Optuna chooses, until the folder has so many trials.

    A trial is a cell with all its seeds. Its value is the test accuracy after the last epoch, mean
    over the seeds, or the mean average precision of labels; minus the root mean square error of
    values; minus the test loss where there is none of these. With validation data it is that of
    these. As many trials are chosen at once as runs are trained at once.

    Args:
        sweep: the rules and values, or ranges of values, to choose from.
        out: its folder.
        trials: how many, of all processes in the folder together.
        jobs, data_dir, device, threads, observer, executor: see `run_grid`.
        seed: of the search. Only a search by one process, with one number of jobs, can be repeated.

    Raises:
        ConfigurationError: if Optuna is not installed; the number is out of its range; or the
            folder holds a search among other values.
        CheckpointError: see `run_grid`.
    """
    if type(trials) is not int or not 1 <= trials <= MOST_TRIALS:
        raise ConfigurationError(
            f"search is {trials!r}; give the number of trials, from 1 to {MOST_TRIALS:,}"
        )
    optuna = _optuna()
    out = Path(out)
    for rule in sweep.rules:  # refuses values that cannot be before anything is written
        names = sweep.names[rule].items()
        ends = {full: _ends(sweep.grid[key]) for key, full in names}
        for side in (0, -1):
            sweep.cell(rule, {full: both[side] for full, both in ends.items()})
    write_description(sweep, out, kind="search")
    search = _Search(optuna, sweep, out, trials)
    options: dict[str, Any] = {
        "jobs": jobs,
        "data_dir": data_dir,
        "device": device,
        "threads": threads,
        "observer": observer,
        "executor": executor,
    }
    outcomes: list[Outcome] = []
    with _free_place(out) as place:
        search.begin(seed + place)
        while chosen := search.unfinished(place) or search.choose(place, jobs):
            outcomes += search.train(chosen, place, options)
    for other in search.places():  # what processes left that were stopped, and did not come back
        with suppress(BusyError), only_one(_root(out, other)):
            if chosen := search.unfinished(other):
                outcomes += search.train(chosen, other, options)
    write_description(sweep, out, outcomes, kind="search")
    return outcomes


class _Search:
    """The trials of a folder, as one process sees them."""

    def __init__(self, optuna: Any, sweep: Sweep, out: Path, trials: int) -> None:
        self.optuna, self.sweep, self.out, self.trials = optuna, sweep, out, trials
        backend = optuna.storages.journal.JournalFileBackend(str(out / JOURNAL))
        self.storage = optuna.storages.JournalStorage(backend)

    def begin(self, seed: int) -> None:
        """Open the study; the seed goes on where an earlier process was stopped."""
        with _choosing(self.out):
            self.study = self.optuna.create_study(
                storage=self.storage, study_name="sweep", direction="maximize", load_if_exists=True
            )
            done = len(self.study.get_trials(deepcopy=False))
        sampler = self.optuna.samplers.TPESampler(seed=seed + done, constant_liar=True)
        self.study.sampler = sampler

    def places(self) -> list[int]:
        """Return the places with trials that are not finished."""
        return sorted({t.user_attrs[_PLACE] for t in self._running() if _PLACE in t.user_attrs})

    def unfinished(self, place: int) -> list[Any]:
        """Return the trials of a place that are not finished."""
        return [t for t in self._running() if t.user_attrs.get(_PLACE) == place]

    def choose(self, place: int, jobs: int) -> list[Any]:
        """Choose the next trials; none if there are enough."""
        chosen: list[Any] = []
        with _choosing(self.out):
            while len(chosen) * self.sweep.seeds < jobs:
                before = self.study.get_trials(deepcopy=False)
                if len(before) >= self.trials:
                    break
                trial = self.study.ask()
                self._suggest(trial)
                trial.set_user_attr(_PLACE, place)
                same = [t for t in before if t.params == trial.params]
                if not self._tell_again(trial.number, same):
                    chosen.append(trial)
        return [t for t in self._running() if t.number in {one.number for one in chosen}]

    def train(self, chosen: Sequence[Any], place: int, options: dict[str, Any]) -> list[Outcome]:
        """Train the cells of trials, and tell the study how they did.

        Raises:
            DataError: if there is no data.
        """
        runs = [run for trial in chosen for run in self._cell(trial)]
        ended = run_grid(runs, _root(self.out, place), **options)
        absent = next((one for one in ended if one.kind == NO_DATA), None)
        if absent is not None:
            raise DataError("; ".join(absent.notes))
        size = self.sweep.seeds
        for number, trial in enumerate(chosen):
            mine = ended[number * size : (number + 1) * size]
            state = self.optuna.trial.TrialState
            if all(one.kind == FINISHED for one in mine):
                value = statistics.fmean(_value(one.folder) for one in mine)
                self.study.tell(trial.number, value)
            else:
                self.study.tell(trial.number, state=state.FAIL)
        return ended

    def _running(self) -> list[Any]:
        state = self.optuna.trial.TrialState.RUNNING
        return [t for t in self.study.get_trials(deepcopy=False) if t.state == state]

    def _suggest(self, trial: Any) -> None:
        """Let a trial choose a rule, and a value of each setting that the rule has.

        Raises:
            ConfigurationError: if the folder holds a search among other values.
        """
        sweep = self.sweep
        try:
            rule = trial.suggest_categorical(_RULE, list(sweep.rules))
            for key in sweep.names[rule]:
                values = sweep.grid[key]
                if not isinstance(values, Range):
                    trial.suggest_categorical(key, [json.dumps(value) for value in values])
                elif type(values.low) is type(values.high) is int:
                    trial.suggest_int(key, values.low, values.high, log=values.log)
                else:
                    trial.suggest_float(key, values.low, values.high, log=values.log)
        except ValueError as problem:
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            raise ConfigurationError(
                f"{self.out} holds a search among other values ({problem}); give those, or another "
                "folder with --out"
            ) from problem

    def _cell(self, trial: Any) -> list[PlannedRun]:
        sweep, rule = self.sweep, trial.params[_RULE]
        values = {
            full: trial.params[key]
            if isinstance(sweep.grid[key], Range)
            else json.loads(trial.params[key])
            for key, full in sweep.names[rule].items()
        }
        return sweep.cell(rule, values)

    def _tell_again(self, number: int, same: Sequence[Any]) -> bool:
        """Give a trial of a cell that was chosen before the value of that; say whether it was."""
        states = self.optuna.trial.TrialState
        done = next((t for t in same if t.state == states.COMPLETE), None)
        if done is not None:
            self.study.tell(number, done.value)
        elif any(t.state == states.RUNNING for t in same):
            self.study.tell(number, state=states.FAIL)
        else:
            return False
        return True


def _ends(values: tuple[Any, ...] | Range) -> tuple[Any, Any]:
    """Return the first and the last of values or of a range."""
    return (values.low, values.high) if isinstance(values, Range) else (values[0], values[-1])


def _value(folder: Path) -> float:
    line = Run(folder).metrics[-1]
    metric = chosen_by(line)
    return float(-line[metric] if lower_is_better(metric) else line[metric])


def _root(out: Path, place: int) -> Path:
    return out / "runs" / str(place)


@contextmanager
def _free_place(out: Path) -> Iterator[int]:
    """Take the first place that no other process has."""
    for place in range(1, MOST_PLACES + 1):
        with ExitStack() as stack:
            try:
                stack.enter_context(only_one(_root(out, place)))
            except BusyError:
                continue
            yield place
            return
    raise ConfigurationError(f"{MOST_PLACES} processes search in {out}; wait for one to end")


def _choosing(out: Path) -> AbstractContextManager[None]:
    """Let one process at a time choose, so that all together choose no more than they should."""
    return only_one(out / "choosing", PATIENCE)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as problem:
        raise ConfigurationError(
            "a search needs Optuna; install it with: pip install 'threefactor[sweep]'"
        ) from problem
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
