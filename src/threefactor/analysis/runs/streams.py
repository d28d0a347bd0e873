"""Streams: a trained network meets pictures that turn slowly, and learns from each of them or not.

Each network predicts a picture before it learns from its label, so the running accuracy is one on
pictures that the network has not learned from at this angle.
"""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from threefactor import clocked, data, training
from threefactor.errors import ConfigurationError, DataError, DivergenceError, InputError
from threefactor.modes import evaluating, random_kept
from threefactor.training.optimizers import make_optimizer
from threefactor.training.scores import has_accuracy

__all__ = ["Drift", "adapt", "turned"]

STATIC, ADAPTING = "static", "adapting"
AT_ONCE = 500


@dataclass(frozen=True)
class Drift:
    """What comes along, and how it changes.

    Attributes:
        samples: length of the stream.
        angle: by how many degrees the last picture is turned, anticlockwise; the first is upright,
            and the angle grows evenly.
        labelled: share of the samples that come with a label.
        held_out: test pictures that never enter the stream, for evaluations in between.
        every: samples between two lines of the result.
        window: last samples over which the running accuracy is the mean.
        seed: of the order of the samples, of which have labels, and of the noise of rules.

    Raises:
        ConfigurationError: if a number is out of range.
    """

    samples: int = 9000
    angle: float = 90.0
    labelled: float = 1.0
    held_out: int = 500
    every: int = 250
    window: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "held_out", "every", "window"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} is {value!r}; give a whole number of at least 1")
        if not (_is_number(self.labelled) and 0.0 <= self.labelled <= 1.0):
            raise ConfigurationError(f"labelled is {self.labelled!r}; give a share between 0 and 1")
        if not (_is_number(self.angle) and math.isfinite(self.angle)):
            raise ConfigurationError(f"angle is {self.angle!r}; give a number of degrees")
        if self.every > self.samples:
            raise ConfigurationError(
                f"every is {self.every}, more than the {self.samples} samples of the stream"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Learner:
    """A copy of the trained network, which learns all of it, a part of it, or nothing."""

    def __init__(self, experiment: training.Experiment, lr: float, frozen: Sequence[str]) -> None:
        self.rule: clocked.Rule = copy.deepcopy(experiment.rule)
        self.network = self.rule.network
        still = {id(p) for name in frozen for p in self.network.get_submodule(name).parameters()}
        learned = [
            p
            for p in (*self.network.parameters(), *self.rule.parameters())
            if p.requires_grad and id(p) not in still
        ]
        self.optimizer = make_optimizer(replace(experiment.settings.optimizer, lr=lr), learned)

    def meet(self, x: Tensor, label: Tensor | None, steps: int) -> Tensor:
        """Run one sample from rest, learn if it has a label; return the output before that."""
        self.rule.reset()
        self.rule.zero_grad()
        self.network.zero_grad()
        output = sum(self.rule.observe(x, label, steps=steps).output for _ in range(steps))
        if label is not None:
            self.optimizer.step()
        assert isinstance(output, Tensor)
        if not bool(output.isfinite().all()):
            raise DivergenceError(
                "an output of the adapting network is not finite; give a smaller learning rate"
            )
        return output


def turned(pictures: Tensor, degrees: float) -> Tensor:
    """Turn pictures anticlockwise about their centre, with bilinear interpolation.

    Args:
        pictures: (N, C, H, W); what comes in at the corners has the lowest value of each picture
            and channel.
        degrees: the angle.
    """
    if not degrees % 360:
        return pictures
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    height, width = pictures.shape[2:]
    # Places are in halves of the sides, which may differ.
    places = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    matrix = torch.tensor(places, dtype=pictures.dtype, device=pictures.device)
    grid = functional.affine_grid(
        matrix.expand(len(pictures), 2, 3), list(pictures.shape), align_corners=False
    )
    ground = pictures.amin((2, 3), keepdim=True)
    return functional.grid_sample(pictures - ground, grid, align_corners=False) + ground


def adapt(
    trainer: training.Trainer,
    drift: Drift,
    *,
    lr: float | None = None,
    frozen: Sequence[Sequence[str]] = (),
) -> Iterator[dict[str, Any]]:
    """Let copies of a trained network meet a stream of test pictures that turn; yield lines.

    One copy is static, one adapts, and one more for each of `frozen` adapts but for these layers.
    A sample is shown for the T steps of the training, from rest, by T calls of `observe`; without a
    label with targets None. Then the optimiser steps, of the run's kind and new. Dropout is off,
    and rules that need noise have that of the end of the training. The trainer stays as it is.

    Args:
        trainer: from `training.open_run`, of a network on a time grid and pictures.
        drift: the stream.
        lr: learning rate; a tenth of the run's by default, since each update is of one sample.
        frozen: names of layers, such as ("linear1", "linear2"), for each further copy.

    Yields:
        samples: how many have passed; `labelled` of them had a label.
        angle: of the latest, in degrees.
        accuracy: running accuracy of each copy, a fraction: over the last `window` samples, or
            all, if fewer have passed.
        held_out: accuracy of each copy on the pictures held out, turned by the same angle.
        milliseconds: mean time a sample of each copy since the last line.

    Raises:
        InputError: if the run has exact spike times.
        DataError: if its data are not pictures in memory, or too few.
        ConfigurationError: if a layer is not there, a number is out of range, or labels are late.
        DivergenceError: if an adapting network has an output that is not finite.
    """
    experiment = trainer.experiment
    pictures, labels = _test_pictures(experiment)
    if len(labels) <= drift.held_out:
        raise DataError(
            f"there are {len(labels)} test pictures, and {drift.held_out} of them are to be held "
            "out; hold out fewer"
        )
    if getattr(experiment.rule, "label_delay", 0):
        raise ConfigurationError(
            f"label_delay of the rule is {experiment.rule.label_delay}, and every picture of this "
            "stream has its label while it is shown; for labels that come later, call rule.observe "
            "in a loop of your own"
        )
    lr = experiment.settings.optimizer.lr / 10 if lr is None else lr
    _check_layers(experiment.network, frozen)
    learners: dict[str, _Learner | None] = {STATIC: None, ADAPTING: _Learner(experiment, lr, ())}
    for names in frozen:
        learners[f"{', '.join(names)} frozen"] = _Learner(experiment, lr, names)
    still = copy.deepcopy(experiment.network)
    networks = {name: still if one is None else one.network for name, one in learners.items()}
    for network in networks.values():
        network.eval()
    steps = experiment.steps
    assert steps is not None  # as pictures are shown for a number of steps
    return _lines(drift, learners, networks, pictures, labels, steps)


def _lines(
    drift: Drift,
    learners: dict[str, _Learner | None],
    networks: dict[str, nn.Module],
    pictures: Tensor,
    labels: Tensor,
    steps: int,
) -> Iterator[dict[str, Any]]:
    random = torch.Generator().manual_seed(drift.seed)
    order = torch.randperm(len(labels), generator=random)
    held, pool = order[: drift.held_out], order[drift.held_out :]
    hits: dict[str, deque[bool]] = {name: deque(maxlen=drift.window) for name in learners}
    spent = dict.fromkeys(learners, 0.0)
    labelled = 0
    with random_kept():
        torch.manual_seed(drift.seed)
        for i in range(drift.samples):
            if i % len(pool) == 0:
                pool = pool[torch.randperm(len(pool), generator=random)]
            which = pool[i % len(pool), None]
            angle = drift.angle * i / max(drift.samples - 1, 1)
            x, y = turned(pictures[which], angle), labels[which]
            known = float(torch.rand((), generator=random)) < drift.labelled
            labelled += known
            for name, learner in learners.items():
                start = time.perf_counter()
                if learner is None:
                    output = clocked.run(networks[name], x, steps=steps).output
                else:
                    output = learner.meet(x, y if known else None, steps)
                spent[name] += time.perf_counter() - start
                hits[name].append(bool(output.argmax(1) == y))
            if (i + 1) % drift.every == 0 or i + 1 == drift.samples:
                since = (i % drift.every) + 1
                x, y = turned(pictures[held], angle), labels[held]
                yield {
                    "samples": i + 1,
                    "labelled": labelled,
                    "angle": angle,
                    "accuracy": {name: sum(one) / len(one) for name, one in hits.items()},
                    "held_out": {
                        name: _accuracy(one, x, y, steps) for name, one in networks.items()
                    },
                    "milliseconds": {name: 1000 * s / since for name, s in spent.items()},
                }
                spent = dict.fromkeys(learners, 0.0)


def _accuracy(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> float:
    with evaluating(network):
        parts = (slice(start, start + AT_ONCE) for start in range(0, len(y), AT_ONCE))
        hits = sum(
            int((clocked.run(network, x[part], steps=steps).output.argmax(1) == y[part]).sum())
            for part in parts
        )
    return hits / len(y)


def _test_pictures(experiment: training.Experiment) -> tuple[Tensor, Tensor]:
    if not isinstance(experiment.rule, clocked.Rule):
        raise InputError(
            "the run has exact spike times, whose rules learn from whole batches; a stream needs a "
            "network on a time grid"
        )
    samples = experiment.data
    if isinstance(samples, data.AugmentedData):
        samples = samples.data
    pictures, labels = samples.test
    if not isinstance(pictures, Tensor) or pictures.dim() != 4:
        shape = f" of the shape {tuple(pictures.shape)}" if isinstance(pictures, Tensor) else ""
        raise DataError(
            f"the run was trained on {experiment.settings.data.name!r}, whose samples are a "
            f"{type(pictures).__name__}{shape}; a stream that turns needs pictures in memory, "
            "(N, C, H, W), such as those of digits or mnist"
        )
    if not has_accuracy(labels, experiment.outputs):
        raise DataError(
            f"the run was trained on {experiment.settings.data.name!r}, whose targets are no "
            "classes, so a stream has no accuracy"
        )
    return pictures, labels


def _check_layers(network: nn.Module, frozen: Sequence[Sequence[str]]) -> None:
    known = [
        name
        for name, module in network.named_modules()
        if name and any(True for _ in module.parameters(recurse=False))
    ]
    for names in frozen:
        for name in names:
            if name not in known:
                raise ConfigurationError(
                    f"layer {name!r} to freeze is not one with weights; they are {', '.join(known)}"
                )
        if not set(known) - set(names):
            raise ConfigurationError(
                f"with {', '.join(names)} frozen nothing learns; the static network is there anyway"
            )
