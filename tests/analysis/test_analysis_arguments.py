"""Arguments of the wrong kind: each is refused in words, whichever measure is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from threefactor import analysis, clocked, events, plot
from threefactor.errors import InputError

X, Y = torch.rand(4, 6), torch.tensor([0, 1, 2, 0])
OUTPUT = torch.randn(4, 3)


def network() -> clocked.Network:
    torch.manual_seed(0)
    return clocked.fc(6, (8, 7), 3)


def rule() -> clocked.Rule:
    return clocked.OPZO(network())


def spiking() -> events.Network:
    torch.manual_seed(0)
    return events.fc(6, (8,), 3, tau_s=0.1, thresholds=0.01, duration=0.2)


OF_BATCHES: dict[str, Callable[[Any], object]] = {
    "alignment": lambda batches: analysis.alignment(rule(), batches, steps=2),
    "feedback_alignment": lambda batches: analysis.feedback_alignment(rule(), batches, steps=2),
    "firing": lambda batches: analysis.firing(network(), batches, steps=2),
    "firing of events": lambda batches: analysis.firing(spiking(), batches),
    "gradient_variance": lambda batches: analysis.gradient_variance(
        {"a": rule()}, batches, steps=2
    ),
    "hair_triggers": lambda batches: analysis.hair_triggers(spiking(), batches),
    "operations": lambda batches: analysis.operations(network(), batches, steps=2),
    "training_operations": lambda batches: analysis.training_operations(
        events.DFA(spiking()), batches
    ),
}
NO_BATCHES: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing at all": (lambda: 3, "batches are a int"),
    "a batch alone": (lambda: (X, Y), "a batch is a Tensor"),
    "a tensor": (lambda: X, "batches are a Tensor"),
    "a scalar": (lambda: torch.tensor(1.0), "batches are a Tensor"),
    "tensors": (lambda: [X, X], "a batch is a Tensor"),
    "inputs alone": (lambda: [(X,)], "a batch is a tuple of 1"),
    "three parts": (lambda: [(X, Y, Y)], "a batch is a tuple of 3"),
    "a dict": (lambda: {"x": X}, "batches are a dict"),
    "text": (lambda: "train", "batches are a str"),
}


@pytest.mark.parametrize(("batches", "said"), NO_BATCHES.values(), ids=NO_BATCHES)
@pytest.mark.parametrize("measure", OF_BATCHES.values(), ids=OF_BATCHES)
def test_batches(measure: Callable[[Any], object], batches: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        measure(batches())


OTHERS: dict[str, tuple[Callable[[], object], str]] = {
    "rule": (lambda: analysis.alignment(network(), [(X, Y)]), "the rule is a Network"),  # type: ignore[arg-type]
    "reference": (
        lambda: analysis.alignment(rule(), [(X, Y)], reference=True),  # type: ignore[arg-type]
        "the rule is a bool",
    ),
    "class of a rule": (lambda: analysis.backpropagation(clocked.DFA), "the rule is a ABCMeta"),  # type: ignore[arg-type]
    "rules": (lambda: analysis.gradient_variance([rule()], []), "give a dict"),  # type: ignore[arg-type]
    "feedback": (lambda: analysis.feedback_alignment(network()), "the rule is a Network"),  # type: ignore[arg-type]
    "network": (lambda: analysis.firing([network()], []), "the network is a list"),  # type: ignore[arg-type]
    "Jacobian of a tensor": (
        lambda: analysis.mean_jacobian(network(), X, steps=2),
        "inputs are a Tensor; .*several batches",
    ),
    "Jacobian without hidden layers": (
        lambda: analysis.mean_jacobian(nn.Linear(6, 3), [X], steps=2),
        "no hidden layers",
    ),
    "angle of lists": (lambda: analysis.angle([1.0], [2.0]), "one is a list"),  # type: ignore[arg-type]
    "angle of complex values": (lambda: analysis.cosine(X + 1j, X), "real values.*complex64"),
    "output": (lambda: analysis.confusion(OUTPUT.numpy(), Y), "give a torch.Tensor with values"),  # type: ignore[arg-type]
    "labels": (lambda: analysis.confusion(OUTPUT, Y.tolist()), "give a torch.Tensor with values"),  # type: ignore[arg-type]
    "classes": (lambda: analysis.confusion(OUTPUT, Y, "abc"), "give a list of names"),
    "fewer labels": (lambda: analysis.cut(X, Y[:3], 1), "there are 3 labels"),
    "more labels": (lambda: analysis.cut((X[:2], X), Y, 1), "there are 4 labels"),
    "labels of a list": (lambda: analysis.cut(X, [0, 1, 2, 0], 1), "labels are a list"),  # type: ignore[arg-type]
    "share of a batch": (lambda: analysis.cut(X, Y, 0.5), "size is 0.5"),  # type: ignore[arg-type]
    "no number of samples": (lambda: analysis.cut(X, Y, 2, True), "samples is True"),
    "below": (
        lambda: analysis.hair_triggers(spiking(), [], below="little"),  # type: ignore[arg-type]
        "below is 'little'",
    ),
    "slopes": (
        lambda: analysis.hair_trigger_factors("steep", tau_s=0.1, threshold=0.1),
        "slopes are 'steep'; give real",
    ),
    "complex weights": (lambda: analysis.gradient_field(np.array([1j])), "give real numbers"),
    "train": (lambda: analysis.neuron_trace([1.0], train=[0.1]), "give pairs of time and input"),  # type: ignore[list-item]
    "points": (lambda: analysis.neuron_trace([1.0, 1.0], points=1), "points is 1"),
    "noise": (
        lambda: analysis.record(network(), X, steps=2, perturbation=0.1),  # type: ignore[arg-type]
        r"perturbation is 0\.1; give clocked\.Perturbation",
    ),
}


@pytest.mark.parametrize(("ask", "said"), OTHERS.values(), ids=OTHERS)
def test_other_arguments(ask: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask()


OF_PICTURES: dict[str, tuple[Callable[[], object], str]] = {
    "neurons": (
        lambda: plot.potentials(network(), X, "lif1", neurons=3, steps=2),  # type: ignore[arg-type]
        "neurons is 3; give a list",
    ),
    "layer": (
        lambda: plot.potentials(network(), X, ["lif1"], steps=2),  # type: ignore[arg-type]
        "is no layer of neurons",
    ),
    "layers": (
        lambda: plot.raster(network(), X, steps=2, layers="lif1"),
        "layers is 'lif1'; give a list",
    ),
    "layer of feedback": (
        lambda: plot.feedback(rule(), layer=["lif1"]),  # type: ignore[arg-type]
        "there is nothing to compare",
    ),
    "input_shape": (lambda: plot.weights(network(), input_shape=(2.0, 3)), "give whole numbers"),  # type: ignore[arg-type]
    "no input_shape": (lambda: plot.weights(network(), input_shape=6), "give a list"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("draw", "said"), OF_PICTURES.values(), ids=OF_PICTURES)
def test_pictures(draw: Callable[[], object], said: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match=said):
        draw()
