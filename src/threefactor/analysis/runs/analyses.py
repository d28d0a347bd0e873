"""The analyses of a finished run, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from threefactor import clocked, data, events, training
from threefactor.analysis.alignment import alignment
from threefactor.analysis.batches import AnyRule, Batch, cut
from threefactor.analysis.cost import cost, training_operations
from threefactor.analysis.feedback import feedback_alignment
from threefactor.analysis.firing import firing
from threefactor.analysis.hair_triggers import hair_triggers
from threefactor.analysis.measured import LENGTHS, measured_cost, memory_against_steps
from threefactor.analysis.operations import operations
from threefactor.analysis.records import Record
from threefactor.analysis.runs.rules import fresh_rules, makers
from threefactor.analysis.variance import gradient_variance
from threefactor.clocked.inputs import mapped
from threefactor.data.inputs import Varied
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.modes import evaluating, random_kept
from threefactor.training.build import option_names
from threefactor.training.folder.files import make_folder, write_atomically
from threefactor.training.folder.writer import environment

__all__ = ["ANALYSES", "RunView", "analyse", "exact_against_modified", "write_analysis"]


@dataclass(frozen=True)
class RunView:
    """A run as the analyses see it.

    Attributes:
        trainer: from `training.open_run`.
        samples: how many training samples to use at most; None for all.
        checkpoint: which one the trainer was opened at, "last" or "best".
        data_dir: see `threefactor.data.load`; for analyses that train anew.
        lengths: numbers of time steps for which memory is measured.
        warmup: how many times learned feedback is updated before gradients are measured.
    """

    trainer: training.Trainer
    samples: int | None = None
    checkpoint: str = "last"
    data_dir: str | Path | None = None
    lengths: tuple[int, ...] = LENGTHS
    warmup: int = 1000

    @property
    def network(self) -> Any:
        """The network as trained."""
        return self.trainer.experiment.network

    @property
    def rule(self) -> AnyRule:
        """The rule with what it learned."""
        return self.trainer.experiment.rule  # type: ignore[no-any-return]

    @property
    def settings(self) -> training.Settings:
        """The settings of the run."""
        return self.trainer.experiment.settings

    @property
    def steps(self) -> int | None:
        """T for constant inputs; None for sequences and exact spike times."""
        return self.trainer.experiment.steps

    def batches(self) -> Iterator[Batch]:
        """Return the training data in batches of the run's size, without augmentation.

        If there are fewer, all of them are one batch, as in the training.
        """
        experiment = self.trainer.experiment
        samples = experiment.data
        if isinstance(samples, data.AugmentedData):
            samples = samples.data
        inputs, labels = samples.train
        if isinstance(inputs, Varied):  # as the pictures of a folder, cut at random in training
            inputs = inputs.for_testing()
        whole = cut(inputs, labels, min(self.settings.batch_size, len(labels)), self.samples)
        return ((experiment.shaped(x), y) for x, y in whole)

    def all_rules(self) -> dict[str, AnyRule]:
        """Return fresh rules of the run's engine, and the run's own."""
        noisy = self.settings.hardware_noise is not None
        fresh = fresh_rules(self.rule, self.warmup, noisy_hardware=noisy)
        return {**fresh, "this run's rule": self.rule}


def analyse(name: str, view: RunView) -> dict[str, Any]:
    """Run one analysis; return nested plain values.

    Dropout is off. The network, its rule and the random generators are afterwards as they were.

    Args:
        name: a key of `ANALYSES`.
        view: the run.

    Raises:
        ConfigurationError: if there is no analysis of that name, or it has no meaning for the run.
        InputError: if it cannot be made of the run's network or rule.
    """
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    with evaluating(view.network), random_kept():
        found = ANALYSES[name](view)
    if isinstance(found, Record):
        return found.to_dict()
    return {
        key: part.to_dict() if isinstance(part, Record) else part for key, part in found.items()
    }


def write_analysis(
    path: Path, name: str, view: RunView, result: Mapping[str, Any], device: str
) -> None:
    """Write a JSON file with the result of `analyse`, the run it belongs to, and the environment.

    Args:
        path: of the file; its folder is made.
        name: of the analysis.
        view: the run.
        result: what `analyse` returned.
        device: on which it was made, as the user names it.
    """
    made_with = environment(view.settings)
    document = {
        "analysis": name,
        "recipe": view.settings.recipe,
        "rule": view.settings.rule.name,
        "seed": view.settings.seed,
        "checkpoint": view.checkpoint,
        "epoch": view.trainer.epoch,
        "samples": view.samples,
        "device": device,
        "threads": made_with["threads"],
        "environment": made_with,
        "result": result,
    }
    make_folder(path.parent)
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def exact_against_modified(
    settings: training.Settings, *, data_dir: str | Path | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Train twice, with the exact and with the modified local gradient (figure 4).

    Both runs have the seed of the settings, so their initial weights, feedback and order of data
    are the same.

    Args:
        settings: of a network of exact spike times, such as
            ``recipe("digits-events").settings_for("sfdfa")``.
        data_dir: see `threefactor.data.load`.

    Returns:
        Metrics of every epoch as in `metrics.jsonl`, under "exact" and "modified".

    Raises:
        ConfigurationError: if the rule has no such option, because the network has a time grid.

    Source: Bacho & Chu (SFDFA), section 3.1, figure 4.
    """
    found = {}
    for kind in ("exact", "modified"):
        changes = {"local_gradient": kind, "track": None}  # only the metrics are wanted
        changed = training.override(settings, changes, option_names(settings))
        found[kind] = training.train(changed, data_dir=data_dir)
    return found


def _variance(view: RunView) -> Record:
    """Gradient variance per layer of every rule, on the run's weights (OPZO, figure 2)."""
    rules = view.all_rules()
    rules.pop("dkp", None)  # it is DFA until an optimiser changes its feedback
    return gradient_variance(rules, view.batches(), steps=view.steps, warmup=_warmup(view))


def _warmup(view: RunView) -> Iterator[Batch]:
    """Yield batches, again and again, until feedback has been updated `view.warmup` times."""
    updates = 0
    while updates < view.warmup:
        for batch in view.batches():
            yield batch
            # Once a batch with exact spike times, once a time step on a grid.
            updates += 1 if isinstance(view.rule, events.Rule) else view.steps or _length(batch[0])
            if updates >= view.warmup:
                return


def _length(inputs: Any) -> int:
    """Return the number of time steps of a sequence, (T, B, ...), or of several."""
    lengths: list[int] = []
    mapped(inputs, lambda sequence: lengths.append(len(sequence)))
    return lengths[0]


def _alignment(view: RunView) -> Record:
    """Angle between each layer's gradient and that of backpropagation (SFDFA, figure 9)."""
    return alignment(view.rule, view.batches(), steps=view.steps)


def _feedback(view: RunView) -> Record:
    """Angle between feedback and output weights or mean Jacobian (SFDFA, figure 10; OPZO)."""
    if isinstance(view.rule, events.Rule):
        return feedback_alignment(view.rule)
    return feedback_alignment(view.rule, view.batches(), steps=view.steps)


def _firing(view: RunView) -> Record:
    """Firing rates, silent and saturated neurons (OPZO, table 7)."""
    return firing(view.network, view.batches(), steps=view.steps)


def _operations(view: RunView) -> Record:
    """Synaptic operations by NeuroBench's definitions (OPZO, table 7)."""
    return operations(view.network, view.batches(), steps=view.steps)


def _training_operations(view: RunView) -> Mapping[str, Any]:
    """Operations that training adds, for every rule of the engine and the run's own."""
    rules = view.all_rules()
    rules.pop("opzo, 1/alpha", None)  # the same operations as without
    spikes = isinstance(view.rule, events.Rule)
    return {
        name: training_operations(rule, view.batches() if spikes else None)
        for name, rule in rules.items()
    }


def _cost(view: RunView) -> Mapping[str, Any]:
    """Memory and operations to bring errors to the hidden layers (OPZO, table 5)."""
    shape = view.rule.sample_shape if isinstance(view.rule, clocked.Rule) else None
    return cost(view.network, shape)


def _measured_cost(view: RunView) -> Mapping[str, Any]:
    """Time and peak memory of every rule of the engine, side by side (OPZO, table 6)."""
    total = len(view.trainer.experiment.data.train[1])
    return measured_cost(
        view.network, makers(view.rule), next(view.batches()), steps=view.steps, samples=total
    )


def _memory(view: RunView) -> Mapping[str, Any]:
    """Peak memory of every rule of a clocked network, by number of time steps."""
    x, y = next(view.batches())
    if view.steps is None and not isinstance(view.rule, events.Rule):
        x = mapped(x, itemgetter(0))  # the first step of a sequence
    return {
        name: memory_against_steps(view.network, make, (x, y), view.lengths)
        for name, make in makers(view.rule).items()
    }


def _hair_triggers(view: RunView) -> Record:
    """Spikes that barely reach the threshold, and their effect on the gradient (SFDFA)."""
    return hair_triggers(view.network, view.batches())


def _learning_curves(view: RunView) -> Mapping[str, Any]:
    """Learning curves with exact and modified local gradient (SFDFA, figure 4): trains twice."""
    if not isinstance(view.rule, events.Rule):
        raise ConfigurationError("only networks of exact spike times have two local gradients")
    return exact_against_modified(view.settings, data_dir=view.data_dir)


ANALYSES: dict[str, Callable[[RunView], Record | Mapping[str, Any]]] = {
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
