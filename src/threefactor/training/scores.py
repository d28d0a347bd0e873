"""Scores of predictions: accuracy of classes, errors of values, precision of labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from threefactor.processes import World

__all__ = [
    "LEADING",
    "LOSS",
    "SCORES",
    "Score",
    "Tally",
    "has_accuracy",
    "leading",
    "lower_is_better",
    "mean_average_precision",
    "shown",
    "task_of",
]


@dataclass(frozen=True)
class Score:
    """A number that says how good predictions are.

    Attributes:
        name: in metrics.jsonl, after `train_`, `validation_` or `test_`.
        title: for people.
        fraction: whether it is one, shown in percent.
        higher: whether higher is better.
    """

    name: str
    title: str
    fraction: bool
    higher: bool

    @property
    def scale(self) -> float:
        """By what it is multiplied where it is shown."""
        return 100.0 if self.fraction else 1.0

    @property
    def heading(self) -> str:
        """Its title, with the unit in which it is shown."""
        return f"{self.title} (%)" if self.fraction else self.title

    def text(self, value: float | None) -> str:
        """Return a value for people; a dash where there is none."""
        return "-" if value is None else f"{value:.2%}" if self.fraction else f"{value:.4f}"


SCORES: Mapping[str, Score] = {
    score.name: score
    for score in (
        Score("accuracy", "accuracy", fraction=True, higher=True),
        Score("rmse", "RMSE", fraction=False, higher=False),
        Score("r2", "R²", fraction=False, higher=True),
        Score("mae", "MAE", fraction=False, higher=False),
        Score("mean_average_precision", "mAP", fraction=True, higher=True),
        Score("f1_macro", "macro F1", fraction=True, higher=True),
        Score("f1_micro", "micro F1", fraction=True, higher=True),
        Score("exact_match", "exact match", fraction=True, higher=True),
    )
}
"""By name, those of a task together, and of these the first is the one to go by."""
LOSS = Score("loss", "loss", fraction=False, higher=False)
"""Judges a network for which there is no score."""
SUMS = {"values": ("absolute", "squared", "spread", "mean"), "labels": ("both", "said", "right")}
EQUAL = 1e-13
"""Share of a mean by which targets may differ from it, by rounding, and are all equal."""
LEADING = ("accuracy", "rmse", "mean_average_precision")


def leading(line: Mapping[str, Any], part: str) -> str:
    """Return what predictions for a part of the data are judged by: a score, or "loss".

    Args:
        line: the metrics of an epoch.
        part: "train", "validation" or "test".
    """
    return next((name for name in LEADING if line.get(f"{part}_{name}") is not None), "loss")


def lower_is_better(metric: str) -> bool:
    """Say whether a number of metrics.jsonl, as `test_rmse`, is better if it is lower."""
    score = SCORES.get(metric.partition("_")[2])
    return score is None or not score.higher


def shown(line: Mapping[str, Any], part: str, most: int = len(SCORES)) -> str:
    """Return the scores of a part of the data for people, the first of them if there are many."""
    found = {
        one.title: one.text(line[f"{part}_{one.name}"])
        for one in SCORES.values()
        if f"{part}_{one.name}" in line
    }
    if len(found) > 1:  # another task than classes, which has no accuracy
        found.pop("accuracy", None)
    return ", ".join(f"{title} {text}" for title, text in [*found.items()][:most])


def has_accuracy(targets: Tensor, outputs: int) -> bool:
    """Whether the data has an accuracy.

    It has one if the targets are one class label for each sample, every label has an output, and
    there are at least two outputs. With a single output the largest is always right.

    Args:
        targets: of a whole data set, (N, ...).
        outputs: of the network.
    """
    labels = not (
        targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool
    )
    if not labels or targets.dim() != 1 or not len(targets) or outputs < 2:
        return False
    low, high = torch.stack(targets.aminmax()).tolist()
    return bool(low >= 0 and high < outputs)


def task_of(loss: Any, targets: Tensor, outputs: int) -> str | None:
    """Return what a network is to predict: "classes", "values", "labels", or None.

    Targets say whether they are classes, see `has_accuracy`. What other numbers mean is for the
    loss to say, by an attribute `predicts`; None if it does not.
    """
    if has_accuracy(targets, outputs):
        return "classes"
    told = getattr(loss, "predicts", None)
    fits = targets.is_floating_point() and targets.shape[1:] == (outputs,)
    return told if told in ("values", "labels") and fits else None


@dataclass
class Tally:
    """Running sums from which scores follow; part of a checkpoint.

    Of values, y the targets and p the predictions: sums over all samples of |p - y|, and for each
    output of (p - y)², with the mean of y and the sum of squared differences from it. Of labels,
    for each the number of times that it was rightly and wrongly said, and missed.

    Attributes:
        task: "values" or "labels".
        samples: how many were added.
        hits: samples of which all labels are right.
        sums: a number for each output, by name.
    """

    task: str
    samples: int = 0
    hits: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)

    def numbers(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return what `add` needs of a batch, on its device: float64 numbers in one dimension.

        Args:
            predictions: (B, m) values, or logits of labels.
            targets: (B, m) values, or labels, which are right from 0.5 on.
        """
        if self.task == "values":
            y = targets.double()
            error, mean = predictions.double() - y, y.mean(0)
            spread = (y - mean).square().sum(0)
            return torch.cat([error.abs().sum(0), error.square().sum(0), spread, mean])
        said, right = predictions > 0, targets >= 0.5
        hits = (said == right).all(1).sum(0, keepdim=True)
        found = torch.cat([(said & right).sum(0), said.sum(0), right.sum(0), hits])
        return found.double()

    def add(self, numbers: Sequence[float], samples: int) -> None:
        """Add a batch.

        Args:
            numbers: what `numbers` returned.
            samples: how many there are in the batch.
        """
        names = SUMS[self.task]
        m = len(numbers) // len(names)
        sums = {name: list(numbers[k * m : k * m + m]) for k, name in enumerate(names)}
        hits = int(numbers[-1]) if self.task == "labels" else 0
        self.merge(Tally(self.task, samples, hits, sums))

    def merge(self, other: Tally) -> None:
        """Add what another one has of other samples."""
        if not other.samples:
            self.sums = self.sums or {name: [0.0] * len(one) for name, one in other.sums.items()}
            return
        before, self.samples = self.samples, self.samples + other.samples
        self.hits += other.hits
        share = other.samples / self.samples
        sums = {name: list(values) for name, values in other.sums.items()}
        for k, mean in enumerate(sums.get("mean", [])):
            # Chan et al. 1983: sums of squares about the mean, put together without cancellation.
            step = mean - (self.sums["mean"][k] if before else 0.0)
            sums["spread"][k] += step * step * before * share
            sums["mean"][k] = step * share
        for name, fresh in sums.items():
            there = self.sums.get(name, [0.0] * len(fresh))
            self.sums[name] = [a + b for a, b in zip(there, fresh, strict=True)]

    def add_up(self, world: World) -> None:
        """Become the tally of all processes, each of which has that of other samples."""
        parts, self.samples, self.hits, self.sums = self._of_all(world), 0, 0, {}
        for part in parts:
            self.merge(part)

    def _of_all(self, world: World) -> list[Tally]:
        """Return the tallies of all processes, which all have the same sums."""
        own = [value for values in self.sums.values() for value in values]
        found = world.gather([self.samples, self.hits, *own]).tolist()
        tallies = []
        for samples, hits, *numbers in found:
            tallies.append(Tally(self.task, int(samples), int(hits)))
            each = len(numbers) // len(self.sums)
            for i, name in enumerate(self.sums):
                tallies[-1].sums[name] = numbers[i * each : (i + 1) * each]
        return tallies

    def scores(self) -> dict[str, float | None]:
        """Return the scores by name; none before the first sample.

        `rmse` and `mae` are over all samples and outputs; `r2` is the mean over the outputs, None
        if the targets of one are all equal. `f1_micro` counts all labels together, `f1_macro` is
        the mean over labels, of which one that is never right nor said counts 0.
        """
        if not self.samples:
            return {}
        if self.task == "values":
            squared, spread = self.sums["squared"], self.sums["spread"]
            numbers = self.samples * len(squared)
            return {
                "rmse": math.sqrt(math.fsum(squared) / numbers),
                "mae": math.fsum(self.sums["absolute"]) / numbers,
                "r2": self._r2(squared, spread),
            }
        both, said, right = (self.sums[key] for key in ("both", "said", "right"))
        each = [_f1(*one) for one in zip(both, said, right, strict=True)]
        return {
            "f1_macro": math.fsum(each) / len(each),
            "f1_micro": _f1(math.fsum(both), math.fsum(said), math.fsum(right)),
            "exact_match": self.hits / self.samples,
        }

    def _r2(self, squared: list[float], spread: list[float]) -> float | None:
        each = []
        for error, total, mean in zip(squared, spread, self.sums["mean"], strict=True):
            if total <= self.samples * (EQUAL * mean) ** 2:
                return None
            each.append(1 - error / total)
        return math.fsum(each) / len(each)

    def damage(self) -> Iterator[str]:
        """Say what is wrong with sums out of a checkpoint, which may hold anything."""
        if self.task not in ("values", "labels"):
            yield f"task is {self.task!r:.80}"
        if type(self.samples) is not int or self.samples < 0:
            yield f"samples is {self.samples!r:.80}"
        elif type(self.hits) is not int or not 0 <= self.hits <= self.samples:
            yield f"hits is {self.hits!r:.80}, of {self.samples} samples"
        wanted = SUMS.get(self.task, ()) if self.samples else ()
        if set(self.sums) != set(wanted) or len({len(one) for one in self.sums.values()}) > 1:
            yield f"sums is {self.sums!r:.80}"
        for name, values in self.sums.items():
            fine = isinstance(values, list) and all(
                type(one) is float and math.isfinite(one) for one in values
            )
            if not fine:
                yield f"{name} is {values!r:.80}, not a list of finite numbers"


def _f1(both: float, said: float, right: float) -> float:
    return 2 * both / (said + right) if said + right else 0.0


def mean_average_precision(
    logits: Tensor, targets: Tensor, gathered: Callable[[Tensor], Tensor] | None = None
) -> float | None:
    r"""Return the mean over labels of their average precision; None if none is ever right.

    .. math:: AP = \sum_k (R_k - R_{k-1}) P_k

    R_k and P_k are recall and precision of all samples whose logit is at least the k-th highest
    value of that label; equal logits count together. Labels that are right for no sample have no
    recall, and are left out.

    Args:
        logits: (N, m); or those of this process's samples alone.
        targets: (N, m) of all samples; a label is right from 0.5 on.
        gathered: of the logits of one label, (n,), makes those of all samples, (N,): so that no
            process holds more than its own and those of one label.

    Source: scikit-learn, `average_precision_score`.
    """
    found = []
    for one, right in zip(logits.T, (targets >= 0.5).T, strict=True):
        if not bool(right.any()):
            continue
        whole = one if gathered is None else gathered(one)
        values, order = whole.sort(descending=True, stable=True)
        hits = right[order].double().cumsum(0)
        ends = torch.ones(len(values), dtype=torch.bool, device=values.device)
        ends[:-1] = values[1:] != values[:-1]
        precision = hits / torch.arange(1, len(hits) + 1, device=hits.device)
        recall = hits / hits[-1]
        gained = torch.diff(recall[ends], prepend=recall.new_zeros(1))
        found.append(float((gained * precision[ends]).sum()))
    return math.fsum(found) / len(found) if found else None
