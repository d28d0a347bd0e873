"""What a trained network does with its test data, as sections of a page: `threefactor show`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threefactor import clocked, events
from threefactor.analysis.confusion import Confusion, confusion
from threefactor.analysis.feedback import MEAN_JACOBIAN, OUTPUT_WEIGHTS, feedback_beside
from threefactor.analysis.recording import Recording, record
from threefactor.data import DATASETS, batches
from threefactor.errors import InputError, ThreefactorError
from threefactor.modes import evaluating, random_kept
from threefactor.plugins import recall
from threefactor.readable import clipped
from threefactor.report.figures import Figure
from threefactor.report.page import Section
from threefactor.report.pictures import (
    class_figure,
    confusion_figure,
    feedback_figure,
    hidden_layers,
    potential_figure,
    raster_figure,
    weight_figure,
)
from threefactor.report.study import Group
from threefactor.report.values import Number, Table
from threefactor.training.engines import hardware_noise
from threefactor.training.experiment import Experiment
from threefactor.training.loop import Trainer
from threefactor.training.running import open_run

__all__ = ["confusion_of", "recording_of", "spike_sections", "spikes_of_groups"]

MOST_CLASSES = 40
"""Classes of a confusion matrix that is drawn; of more, the most frequent confusions are listed."""
MOST_BARS = 60
"""Classes of which bars are drawn."""
MOST_CONFUSIONS = 20
MOST_LAYERS = 6
"""Layers whose spikes and potentials are shown unless others are named."""
MOST_OUTPUTS = 100
"""Outputs for which the mean Jacobian is computed, which takes a pass backwards for each."""
JACOBIAN_SAMPLES = 20
MOST_RUNS = 6
"""Runs of a report that are opened: the first of each group."""


def spike_sections(
    trainer: Trainer,
    title: str,
    *,
    sample: int = 0,
    layers: Sequence[str] | None = None,
    neurons: Sequence[int] | None = None,
) -> list[Section]:
    """Show a network at work: spikes, potentials, confusions, weights and feedback.

    What cannot be shown is named, with the reason.

    Args:
        trainer: from `training.open_run`.
        title: of the run, which begins the titles of its sections and figures.
        sample: which sample of the test data spikes and potentials are of.
        layers: whose spikes and potentials are shown; the first six by default.
        neurons: whose potentials are shown; the most, middling and least active ones by default.

    Raises:
        InputError: if there is no such sample, layer or neuron.
    """
    experiment = trainer.experiment
    recording, label = recording_of(trainer, sample)
    hidden = hidden_layers(recording)
    wanted = [name for name in recording.layers if name not in hidden[MOST_LAYERS:]]
    wanted = [recording.layer(name).name for name in layers] if layers is not None else wanted
    spikes, static = _Pictures(), _Pictures()
    if layers is None and len(hidden) > MOST_LAYERS:
        spikes.said.append(f"The first {MOST_LAYERS} of {len(hidden)} layers.")
    spiking = [name for name in wanted if recording.layer(name).graded is None]
    for name in (name for name in wanted if name not in spiking):
        spikes.add(partial(raster_figure, recording, [name]))  # says why not
    if spiking:
        spikes.add(partial(raster_figure, recording, spiking, f"{title}: spikes"))
    make: Callable[[], Figure]
    for name in (name for name in wanted if name in hidden):
        make = partial(potential_figure, recording, name, neurons, f"{title}: potentials of {name}")
        if neurons is not None:  # which were asked for
            make()
        spikes.add(make)
    static.add(partial(_weights, experiment, f"{title}: weights of the first layer"))
    for make in _feedback(trainer, title, static):
        static.add(make)
    return [
        _accuracy(trainer, title),
        spikes.section(f"{title}: spikes", _told(sample, label, recording, experiment)),
        static.section(f"{title}: weights and feedback"),
    ]


def spikes_of_groups(groups: Sequence[Group], data_dir: str | Path | None = None) -> list[Section]:
    """Show the network of the first run of each group: those of the first six groups.

    A run that cannot be opened, as without a checkpoint or data, is named with the reason.

    Args:
        groups: of a study, those first that matter most.
        data_dir: see `threefactor.data.load`.
    """
    sections: list[Section] = []
    for group in groups[:MOST_RUNS]:
        run = group.runs[0]
        title = f"{group.recipe}, {group.label}, seed {run.settings.seed}"
        try:
            recall(run.own_code.get("plugins", []), run.path)
            sections += spike_sections(open_run(run.path, data_dir=data_dir), title)
        except ThreefactorError as problem:
            said = f"{run.path} cannot be shown: {problem}."
            sections.append(Section(f"{title}: spikes", (said,), warning=True))
    if len(groups) > MOST_RUNS:
        said = f"Of {len(groups)} groups of runs, the first {MOST_RUNS} are shown at work."
        first = sections[0]
        sections[0] = replace(first, text=(said, *first.text))
    return sections


class _Pictures:
    """Figures, and why some could not be made."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.said: list[str] = []

    def add(self, make: Callable[[], Figure]) -> None:
        try:
            self.figures.append(make())
        except ThreefactorError as problem:
            self.refuse(problem)

    def refuse(self, problem: ThreefactorError) -> None:
        self.said.append(f"Not shown: {problem}.")

    def section(self, title: str, *text: str) -> Section:
        return Section(title, (*text, *dict.fromkeys(self.said)), figures=tuple(self.figures))


def _weights(experiment: Experiment, title: str) -> Figure:
    samples: Any = getattr(experiment.data, "data", experiment.data)
    known = DATASETS.get(experiment.settings.data.name)  # spikes of pixels have lost their places
    shape = getattr(samples, "input_shape", None) if known is None else known.shape
    return weight_figure(experiment.network, shape, title=title)


def _told(sample: int, label: Tensor, recording: Recording, experiment: Experiment) -> str:
    said = f"Sample {sample} of the test data"
    if label.numel() == 1 and not label.is_floating_point():
        outputs = experiment.outputs
        names = _class_names(experiment, outputs) or range(outputs)
        right, taken = int(label), int(recording.output.argmax())
        if 0 <= right < outputs:
            said += f", of class {names[right]}, taken for {names[taken]}"
    return f"{said}."


def recording_of(trainer: Trainer, sample: int = 0) -> tuple[Recording, Tensor]:
    """Record a sample of the test data as it is evaluated; return the target, too.

    Raises:
        InputError: if there is no such sample.
    """
    experiment = trainer.experiment
    inputs, targets = trainer.test
    if type(sample) is not int or not 0 <= sample < len(targets):
        raise InputError(
            f"sample is {clipped(sample)}; the test data has {len(targets)}: give a whole number "
            f"from 0 to {len(targets) - 1}"
        )
    (x,) = batches(inputs, [slice(sample, sample + 1)], seed=0)
    with random_kept():
        torch.manual_seed(experiment.settings.seed)
        found = record(
            experiment.network,
            experiment.shaped(x),
            steps=None if isinstance(experiment.network, events.Network) else experiment.steps,
            perturbation=hardware_noise(experiment.settings),
            loss=experiment.rule.loss if isinstance(experiment.rule, events.Rule) else None,
        )
    return found, targets[sample]


def confusion_of(trainer: Trainer) -> Confusion:
    """Count which classes of the test data are taken for which.

    Raises:
        InputError: if the targets are no classes.
    """
    outputs: list[Tensor] = []
    targets: list[Tensor] = []

    def seen(output: Tensor, target: Tensor) -> None:
        outputs.append(output.detach().cpu())
        targets.append(target.cpu())

    trainer.evaluate(seen)
    output = torch.cat(outputs)
    return confusion(output, torch.cat(targets), _class_names(trainer.experiment, output.shape[1]))


def _class_names(experiment: Experiment, outputs: int) -> Sequence[str]:
    samples: Any = getattr(experiment.data, "data", experiment.data)
    names = getattr(samples, "classes", ())
    known = isinstance(names, (list, tuple)) and len(names) == outputs
    return names if known else ()


def _accuracy(trainer: Trainer, title: str) -> Section:
    name = f"{title}: accuracy by class"
    done, epochs = trainer.epoch, trainer.experiment.settings.epochs
    when = f"After epoch {done} of {epochs}, on the test data."
    try:
        found = confusion_of(trainer)
    except InputError as problem:
        return Section(name, (when, f"Not shown: {problem}."))
    text = (f"{when} {100 * found.accuracy:.2f} % of {sum(found.samples)} samples are right.",)
    figures: list[Figure] = []
    if len(found.classes) <= MOST_CLASSES:
        figures.append(confusion_figure(found, f"{title}: confusion matrix"))
    if len(found.classes) <= MOST_BARS:
        figures.append(class_figure(found, name))
    tables = (_class_table(found, f"{title}: classes"), _confusions(found, f"{title}: confusions"))
    return Section(name, text, tables, tuple(figures))


def _class_table(found: Confusion, title: str) -> Table:
    rows = tuple(
        (name, count, _percent(recall), _percent(precision))
        for name, count, recall, precision in zip(
            found.classes, found.samples, found.recall, found.precision, strict=True
        )
    )
    notes = (
        "Accuracy: share of the samples of the class that are taken for it. Precision: share of "
        "the samples taken for the class that are of it.",
    )
    return Table(title, ("class", "samples", "accuracy, %", "precision, %"), rows, notes)


def _percent(share: float | None) -> Number | None:
    return None if share is None else Number(100 * share)


def _confusions(found: Confusion, title: str) -> Table:
    """List which class was most often taken for which."""
    wrong = [
        (count, i, j)
        for i, row in enumerate(found.counts)
        for j, count in enumerate(row)
        if count and i != j
    ]
    wrong.sort(key=lambda one: (-one[0], one[1], one[2]))
    rows = tuple(
        (found.classes[i], found.classes[j], count, Number(100 * count / found.samples[i]))
        for count, i, j in wrong[:MOST_CONFUSIONS]
    )
    notes = (f"The {MOST_CONFUSIONS} most frequent.",) if len(wrong) > MOST_CONFUSIONS else ()
    columns = ("class", "taken for", "samples", "share of the class, %")
    return Table(title, columns, rows, notes)


def _feedback(trainer: Trainer, title: str, pictures: _Pictures) -> Iterator[Callable[[], Figure]]:
    """Show feedback against the output weights, or the mean Jacobian where they do not fit it."""
    rule = trainer.experiment.rule
    try:
        pairs, compared_with = feedback_beside(rule), OUTPUT_WEIGHTS
    except InputError as problem:
        few = isinstance(rule, clocked.Rule) and rule.outputs <= MOST_OUTPUTS
        if not few or not getattr(rule, "feedback", None):
            pictures.refuse(problem)
            return
        try:
            pairs, compared_with = _beside_jacobian(trainer), MEAN_JACOBIAN
        except ThreefactorError as other:
            pictures.refuse(other)
            return
    if len(pairs) > MOST_LAYERS:
        pictures.said.append(f"Feedback of the first {MOST_LAYERS} of {len(pairs)} layers.")
    for name, pair in islice(pairs.items(), MOST_LAYERS):
        named = f"{title}: feedback of {name} against {compared_with}"
        yield partial(feedback_figure, *pair, compared_with, named)


def _beside_jacobian(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor]]:
    experiment = trainer.experiment
    inputs, targets = trainer.test
    place = slice(0, JACOBIAN_SAMPLES)
    x = experiment.shaped(next(batches(inputs, [place], seed=0)))
    batch = (x, targets[place])
    with evaluating(experiment.network), random_kept():
        return feedback_beside(experiment.rule, [batch], steps=experiment.steps)
