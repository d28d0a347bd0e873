"""The tables and figures of both papers by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from threefactor.errors import unknown_name
from threefactor.reproduce.exhibits import Exhibit, Row, from_rows, from_table
from threefactor.reproduce.single_neuron import factor_curves, field, trace

__all__ = ["catalog", "exhibit"]

Beside = Mapping[str, tuple[str, Mapping[str, Any]]]

# Data that is embedded or easy to get: in rows of its own, which are marked as not in the paper.
_FC: Beside = {"digits-fc": ("digits-fc", {}), "fashion-mnist-fc": ("fashion-mnist-fc", {})}
_SACCADES: Beside = {"digits-saccades-conv": ("digits-saccades-conv", {})}
_CONV: Beside = {**_SACCADES, "cifar10-conv5-small": ("cifar10-conv5-small", {})}
_CONV9: Beside = {
    "digits-saccades-conv, conv9": ("digits-saccades-conv", {"network.kind": "conv9"}),
    "cifar10-conv9-small": ("cifar10-conv9-small", {}),
}
_EXACT: Beside = {
    "digits-events": ("digits-events", {}),
    "yin-yang-events": ("yin-yang-events", {}),
    "shd-like-events": ("shd-like-events", {}),
}
_NOISE: Beside = {
    "digits-fc-noise": ("digits-fc-noise", {"hardware_noise": 0.5}),
    "cifar10-conv5-small-noise": ("cifar10-conv5-small-noise", {"hardware_noise": 0.5}),
}
_STARTS = {
    "imagenet-nfresnet34-noise": ("imagenet-nfresnet34", "spatial-bp"),
    "cifar10-conv5-small-noise": ("cifar10-conv5-small", "spatial-bp"),
    "digits-fc-noise": ("digits-fc", "spatial-bp"),
}


def _curves(number: int, name: str, beside: Beside | None = None) -> Exhibit:
    """Learning curves of the rules with exact spike times on one data set."""
    title = f"SFDFA, figure {number}: learning curves of {name}"
    return from_table("sfdfa-table1", title, name=f"sfdfa-figure{number}", only=name, beside=beside)


def _opzo(*names: str) -> list[Row]:
    """OPZO on data beside that of the paper, for analyses of the run."""
    return [Row(name, "OPZO", name, "opzo", in_paper=False) for name in names]


def _gradients(name: str, in_paper: bool) -> list[Row]:
    """SFDFA with the exact and with the modified local gradient."""
    key = "rule.options.local_gradient"
    return [
        Row(name, f"SFDFA, {kind} gradient", name, "sfdfa", {key: kind}, in_paper)
        for kind in ("exact", "modified")
    ]


def _over_training(number: int, title: str, measure: str) -> Exhibit:
    """A measure taken while the deep network trains; both figures show the same runs."""
    scaled = "mnist-events-deep, hidden weights times 0.1"
    rows = [
        Row(data, method, name, rule, in_paper=in_paper)
        for data, name, in_paper in (
            ("mnist-events-deep", "mnist-events-deep", True),
            (scaled, "mnist-events-deep-scaled", False),
            ("digits-events-deep", "digits-events-deep", False),
        )
        for method, rule in (("SFDFA", "sfdfa"), ("DFA", "dfa"))
    ]
    title = f"SFDFA, figure {number}: {title}"
    return from_rows(f"sfdfa-figure{number}", title, rows, tracked=measure)


def _exhibits() -> list[Exhibit]:
    return [
        from_table("opzo-table1", "OPZO, table 1: test accuracy", beside={**_FC, **_CONV}),
        from_table("opzo-table2", "OPZO, table 2: kinds of noise", beside=_CONV),
        from_table("opzo-table3", "OPZO, table 3: deeper networks", beside=_CONV9),
        from_table(
            "opzo-table4",
            "OPZO, table 4: fine-tuning under the noise of hardware",
            beside=_NOISE,
            start=_STARTS.get,
        ),
        from_rows(
            "opzo-table5",
            "OPZO, table 5: memory and operations of bringing errors back",
            (
                Row("mnist-fc", "OPZO", "mnist-fc", "opzo"),
                *_opzo("digits-fc", "digits-saccades-conv"),
            ),
            analyses={"OPZO": ("cost", "training-operations")},
        ),
        from_rows(
            "opzo-table6",
            "OPZO, table 6: memory and time of training, and memory against T",
            (
                Row("dvs-cifar10-conv5", "OPZO", "dvs-cifar10-conv5", "opzo"),
                *_opzo("digits-fc", "digits-saccades-conv"),
            ),
            analyses={"OPZO": ("measured-cost", "memory")},
        ),
        from_table(
            "opzo-table7-cifar-10",
            "OPZO, table 7: firing rates and operations on CIFAR-10",
            beside=_CONV,
            analyses={"OPZO": ("operations",), "spatial BP": ("operations",)},
        ),
        from_table(
            "opzo-table7-dvs-cifar10",
            "OPZO, table 7: firing rates and operations on DVS-CIFAR10",
            beside=_SACCADES,
            analyses={"OPZO": ("operations",), "spatial BP": ("operations",)},
        ),
        from_table("opzo-table8", "OPZO, table 8: Kolen-Pollack feedback", beside={**_FC, **_CONV}),
        from_rows(
            "opzo-figure2",
            "OPZO, figure 2: variance of the gradient by layer and rule",
            (
                Row("mnist-fc", "OPZO", "mnist-fc", "opzo"),
                *_opzo("digits-fc"),
            ),
            analyses={"OPZO": ("variance",)},
        ),
        from_table(
            "opzo-table1",
            "OPZO, figure 3: learning curves of N-MNIST",
            only="nmnist-fc",
            beside={"digits-fc": ("digits-fc", {})},
            name="opzo-figure3-nmnist",
        ),
        from_table(
            "opzo-table1",
            "OPZO, figure 3: learning curves of DVS-CIFAR10",
            only="dvs-cifar10-conv5",
            beside=_SACCADES,
            name="opzo-figure3-dvs-cifar10",
        ),
        from_table("sfdfa-table1", "SFDFA, table 1: test accuracy", beside=_EXACT),
        Exhibit("sfdfa-figure1", "SFDFA, figure 1: factor at a spike", drawn=factor_curves),
        Exhibit("sfdfa-figure2", "SFDFA, figure 2: field of gradients", drawn=field),
        Exhibit("sfdfa-figure3", "SFDFA, figure 3: a neuron in time", drawn=trace),
        from_rows(
            "sfdfa-figure4",
            "SFDFA, figure 4: exact against modified local gradient",
            (*_gradients("mnist-events", True), *_gradients("digits-events", False)),
        ),
        _curves(5, "mnist-events", {"digits-events": ("digits-events", {})}),
        _curves(6, "emnist-events"),
        _curves(7, "fashion-mnist-events"),
        _curves(8, "shd-events", {"shd-like-events": ("shd-like-events", {})}),
        _over_training(9, "angles to backpropagation while training", "alignment"),
        _over_training(10, "angle of the feedback to the output weights", "feedback"),
    ]


@cache
def catalog() -> dict[str, Exhibit]:
    """Return every table and figure by its name."""
    return {one.name: one for one in _exhibits()}


def exhibit(name: str) -> Exhibit:
    """Return a table or figure by its name.

    Raises:
        ConfigurationError: with the nearest known name.
    """
    if name not in catalog():
        raise unknown_name("table or figure", name, catalog())
    return catalog()[name]
