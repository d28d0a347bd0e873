"""The analyses of a finished run, by name: what `threefactor analyse` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from threefactor import clocked, data, events
from threefactor.analysis import comparison
from threefactor.analysis.activity import firing
from threefactor.analysis.alignment import alignment
from threefactor.analysis.batches import AnyRule, Batch, cut, evaluating
from threefactor.analysis.cost import cost
from threefactor.analysis.feedback import feedback_alignment
from threefactor.analysis.hair_triggers import hair_triggers
from threefactor.analysis.learning_curves import exact_against_modified
from threefactor.analysis.measured import LENGTHS, measured_cost, memory_against_steps
from threefactor.analysis.operations import operations
from threefactor.analysis.records import Record
from threefactor.analysis.training_operations import training_operations
from threefactor.analysis.variance import gradient_variance
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.training.loop import Trainer

__all__ = ["ANALYSES", "RunView", "analyse"]


@dataclass(frozen=True)
class RunView:
    """A run as the analyses see it.

    Attributes:
        trainer: from `training.open_run`.
        samples: how many training samples to use at most; None for all.
        data_dir: see `threefactor.data.load`; for analyses that train anew.
        lengths: numbers of time steps against which memory is measured.
    """

    trainer: Trainer
    samples: int | None = None
    data_dir: str | Path | None = None
    lengths: tuple[int, ...] = LENGTHS

    @property
    def network(self) -> Any:
        """The network as trained."""
        return self.trainer.experiment.network

    @property
    def rule(self) -> AnyRule:
        """The rule with what it learned."""
        return self.trainer.experiment.rule  # type: ignore[no-any-return]

    @property
    def steps(self) -> int | None:
        """T for constant inputs; None for sequences and exact spike times."""
        return self.trainer.experiment.steps

    def fresh_rules(self) -> dict[str, AnyRule]:
        """Every rule of the engine, as if training began here."""
        noisy = self.trainer.experiment.settings.hardware_noise is not None
        return comparison.fresh_rules(self.rule, noisy_hardware=noisy)

    def batches(self) -> Iterator[Batch]:
        """The training data in batches of the run's size, as they are: nothing is augmented."""
        settings = self.trainer.experiment.settings
        samples = self.trainer.experiment.data
        if isinstance(samples, data.AugmentedData):
            samples = samples.data
        inputs, labels = samples.train
        return cut(inputs, labels, settings.batch_size, self.samples)

    def first(self) -> Batch:
        """The first batch."""
        return next(self.batches())


def analyse(name: str, view: RunView) -> Any:
    """Run an analysis of a run; return nested plain values.

    Dropout is off; the network, its rule and the random generators are left as they were.

    Raises:
        ConfigurationError: if there is no analysis of that name, or it has no meaning for the run.
        InputError: if the run's network or rule cannot be analysed so.
    """
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    with evaluating(view.network), torch.random.fork_rng():
        return _plain(ANALYSES[name](view))


def _variance(view: RunView) -> Record:
    """Gradient variance per layer of every rule, on the run's weights (OPZO, figure 2)."""
    rules = {**view.fresh_rules(), "this run's rule": view.rule}
    rules.pop("dkp", None)  # until an optimiser moves its feedback, it is DFA
    return gradient_variance(rules, view.batches(), steps=view.steps, warmup=_warmup(view))


def _warmup(view: RunView) -> Iterator[Batch]:
    """Batches, again and again, until feedback has been updated `comparison.WARMUP` times."""
    updates = 0
    while updates < comparison.WARMUP:
        for batch in view.batches():
            yield batch
            updates += _updates(view, batch)
            if updates >= comparison.WARMUP:
                return


def _updates(view: RunView, batch: Batch) -> int:
    """Once a batch with exact spike times, once a time step else."""
    if isinstance(view.rule, events.Rule):
        return 1
    return view.steps or len(batch[0])


def _alignment(view: RunView) -> Record:
    """Angle of each layer's gradient to that of backpropagation (SFDFA, figure 9)."""
    return alignment(view.rule, view.batches(), steps=view.steps)


def _feedback(view: RunView) -> Record:
    """Angle of the feedback to output weights or mean Jacobian (SFDFA, figure 10; OPZO)."""
    if isinstance(view.rule, events.Rule):
        return feedback_alignment(view.rule)
    return feedback_alignment(view.rule, view.batches(), steps=view.steps)


def _firing(view: RunView) -> Record:
    """Firing rates, silent and saturated neurons (OPZO, table 7)."""
    return firing(view.network, view.batches(), steps=view.steps)


def _operations(view: RunView) -> Record:
    """Synaptic operations by NeuroBench's definitions (OPZO, table 7)."""
    return operations(view.network, view.batches(), steps=view.steps)


def _training_operations(view: RunView) -> dict[str, Record]:
    """Operations that training adds, for every rule of the engine and the run's own."""
    rules = {**view.fresh_rules(), "this run's rule": view.rule}
    rules.pop("opzo, 1/alpha", None)  # the same operations
    spikes = isinstance(view.rule, events.Rule)
    return {
        name: training_operations(rule, view.batches() if spikes else None)
        for name, rule in rules.items()
    }


def _cost(view: RunView) -> dict[str, Any]:
    """Memory and operations to bring errors to the hidden layers (OPZO, table 5)."""
    shape = view.rule.sample_shape if isinstance(view.rule, clocked.Rule) else None
    return dict(cost(view.network, shape))


def _measured_cost(view: RunView) -> dict[str, Any]:
    """Time and peak memory of every rule of the engine, side by side (OPZO, table 6)."""
    total = len(view.trainer.experiment.data.train[1])
    return dict(
        measured_cost(
            view.network,
            comparison.makers(view.rule),
            view.first(),
            steps=view.steps,
            samples=total,
        )
    )


def _memory(view: RunView) -> dict[str, Any]:
    """Peak memory of every rule of a clocked network against the number of time steps."""
    x, y = view.first()
    x = x if view.steps is not None or isinstance(view.rule, events.Rule) else x[0]
    return {
        name: memory_against_steps(view.network, make, (x, y), view.lengths)
        for name, make in comparison.makers(view.rule).items()
    }


def _hair_triggers(view: RunView) -> Record:
    """Spikes that only just reach the threshold, and what they do to the gradient (SFDFA)."""
    return hair_triggers(view.network, view.batches())


def _learning_curves(view: RunView) -> dict[str, Any]:
    """Train anew with exact and modified local gradient (SFDFA, figure 4): two whole runs."""
    if not isinstance(view.rule, events.Rule):
        raise ConfigurationError("only networks of exact spike times have two local gradients")
    settings = view.trainer.experiment.settings
    return dict(exact_against_modified(settings, data_dir=view.data_dir))


ANALYSES: dict[str, Callable[[RunView], Any]] = {
    "variance": _variance,
    "alignment": _alignment,
    "feedback": _feedback,
    "firing": _firing,
    "operations": _operations,
    "training-operations": _training_operations,
    "cost": _cost,
    "measured-cost": _measured_cost,
    "memory": _memory,
    "hair-triggers": _hair_triggers,
    "learning-curves": _learning_curves,
}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return value
