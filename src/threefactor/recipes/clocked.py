"""Recipes of networks on a time grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict, Unpack

from threefactor.data import DATASETS
from threefactor.recipes.recipe import Recipe
from threefactor.training.settings import (
    ClockedNetworkSettings,
    ConvNetworkSettings,
    CrossEntropySettings,
    DataSettings,
    OptimizerSettings,
    ResNetSettings,
    RuleSettings,
    Settings,
)

__all__ = ["CLOCKED"]

# Appendix C.2.2 of Xiao et al. 2026 (OPZO): ZO learns more slowly on most sets, without dropout.
_ZO_SLOW = {"optimizer.lr": 2e-5}
_ZO_FC = {"zo": {**_ZO_SLOW, "network.dropout": 0.0}}
_ZO_CONV = {"zo": _ZO_SLOW}
_EVENT_LOSS = CrossEntropySettings(mse_weight=0.001)

# What table 3 adds: the error of the fourth convolution's read-out.
_IGL = {
    rule: {"rule.options.local_learning": "same-weights", "rule.options.intermediate": "lif4"}
    for rule in ("opzo", "dfa")
}


def _data(name: str, train: int | None = None) -> DataSettings:
    """Return the first samples of a data set, or all, augmented as published."""
    given = DATASETS[name].augmentation
    if given is None:
        return DataSettings(name=name, train=train)
    return DataSettings(
        name=name, train=train, padding=given.padding, flip=given.flip, cutout=given.cutout
    )


class _Changes(TypedDict, total=False):
    epochs: int
    batch_size: int
    steps: int
    loss: CrossEntropySettings
    rule: RuleSettings


def _convolutional(
    recipe: str,
    title: str,
    data: DataSettings,
    network: ConvNetworkSettings,
    per_rule: Mapping[str, Mapping[str, Any]] = _ZO_CONV,
    **changes: Unpack[_Changes],
) -> dict[str, Recipe]:
    """Return a recipe by its name, with the settings in which the paper's experiments agree."""
    agreed: _Changes = {"epochs": 300, **changes}
    return {
        recipe: Recipe(
            title, Settings(recipe=recipe, data=data, network=network, **agreed), per_rule
        )
    }


def _deeper(per_rule: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what changes for each rule in table 3, where the feedback rules learn locally."""
    rules = {*per_rule, *_IGL}
    return {rule: {**per_rule.get(rule, {}), **_IGL.get(rule, {})} for rule in rules}


_GESTURE: _Changes = {
    "batch_size": 16,
    "steps": 20,
    "loss": _EVENT_LOSS,
    "rule": RuleSettings("opzo", {"momentum": 0.999999}),
}


def _spoken(title: str, data: str) -> Recipe:
    """Return an experiment with spoken digits as frames, on a recurrent layer."""
    settings = Settings(
        recipe=f"{data}-fc",
        epochs=50,
        batch_size=64,
        steps=100,
        data=DataSettings(name=data),
        network=ClockedNetworkSettings(hidden=(128,), dropout=0.3, recurrent=True),
        loss=_EVENT_LOSS,
        optimizer=OptimizerSettings(lr=5e-3),
    )
    per_rule = {"zo": {"optimizer.lr": 2e-4}, "opzo": {"rule.options.momentum": 0.999}}
    return Recipe(title, settings, per_rule)


_IMAGENET: dict[str, Any] = {
    "batch_size": 64,
    "data": DataSettings(name="imagenet"),
    "network": ResNetSettings(),
}
# The read-out sees the sum of currents, with no neurons between it and the last convolutions.
_CHAINED = {"rule.options.chain": "within-layers"}
# Fine-tuning under noise, table 4: BP trains 1 epoch, the others 5.
_BP_SHORT = {"spatial-bp": {"epochs": 1}}

CLOCKED: dict[str, Recipe] = {
    "digits-fc": Recipe(
        "scikit-learn's 8x8 digits, 64-200-200-10, some ten seconds (embedded data)",
        Settings(
            recipe="digits-fc",
            epochs=30,
            batch_size=64,
            data=DataSettings(name="digits"),
            network=ClockedNetworkSettings(hidden=(200, 200)),
            optimizer=OptimizerSettings(lr=2e-3),
        ),
        per_rule={"zo": {"optimizer.lr": 2e-4, "network.dropout": 0.0}},
    ),
    "digits-fc-noise": Recipe(
        "Fine-tuning of digits-fc under noise of 0.5: table 4 in small (embedded data)",
        Settings(
            recipe="digits-fc-noise",
            epochs=5,
            start="runs/digits-fc-spatial-bp-seed0",
            hardware_noise=0.5,
            batch_size=64,
            data=DataSettings(name="digits"),
            network=ClockedNetworkSettings(hidden=(200, 200)),
            optimizer=OptimizerSettings(lr=2e-4, options={"weight_decay": 0.0}),
        ),
        per_rule={**_BP_SHORT, "zo": {"optimizer.lr": 2e-5}},
    ),
    "digits-saccades-conv": Recipe(
        "Simulated saccades over the 8x8 digits, conv5 of width 0.125 (embedded data)",
        Settings(
            recipe="digits-saccades-conv",
            epochs=10,
            batch_size=32,
            steps=10,
            data=DataSettings(name="simulated-digits"),
            network=ConvNetworkSettings(width=0.125),
            loss=_EVENT_LOSS,
            optimizer=OptimizerSettings(lr=2e-3),
        ),
        per_rule={"zo": {"optimizer.lr": 2e-4}},
    ),
    "mnist-fc": Recipe(
        "MNIST, 784-800-800-10, 50 epochs: OPZO paper, table 1",
        Settings(recipe="mnist-fc", data=DataSettings(name="mnist")),
        per_rule=_ZO_FC,
    ),
    "fashion-mnist-fc": Recipe(
        "Fashion-MNIST with the settings of mnist-fc (not in the paper)",
        Settings(recipe="fashion-mnist-fc", data=DataSettings(name="fashion-mnist")),
        per_rule=_ZO_FC,
    ),
    "nmnist-fc": Recipe(
        "N-MNIST, 2312-800-800-10, 50 epochs: OPZO paper, table 1",
        Settings(recipe="nmnist-fc", data=DataSettings(name="nmnist"), steps=30, loss=_EVENT_LOSS),
        per_rule={"zo": {"network.dropout": 0.0}},
    ),
    "shd-fc": _spoken(
        "Spiking Heidelberg Digits as 100 frames, 700-128-20, recurrent (not in the papers)", "shd"
    ),
    "shd-like-fc": _spoken(
        "Your own spikes in the layout of SHD, settings of shd-fc (not in the papers)", "shd-like"
    ),
    **_convolutional(
        "cifar10-conv5",
        "CIFAR-10, conv5, 300 epochs: OPZO paper, tables 1 and 2",
        _data("cifar10"),
        ConvNetworkSettings(kind="conv5"),
    ),
    **_convolutional(
        "cifar100-conv5",
        "CIFAR-100, conv5, 300 epochs: OPZO paper, table 1",
        _data("cifar100"),
        ConvNetworkSettings(kind="conv5"),
    ),
    **_convolutional(
        "dvs-cifar10-conv5",
        "DVS-CIFAR10, conv5, 300 epochs: OPZO paper, table 1",
        _data("dvs-cifar10"),
        ConvNetworkSettings(kind="conv5", dropout=0.1),
        {"zo": {**_ZO_SLOW, "network.dropout": 0.0}},
        steps=10,
        loss=_EVENT_LOSS,
    ),
    **_convolutional(
        "dvs-gesture-conv5",
        "DVS128 Gesture, conv5, 300 epochs: OPZO paper, table 1",
        DataSettings(name="dvs-gesture"),
        ConvNetworkSettings(kind="conv5"),
        {},
        **_GESTURE,
    ),
    **_convolutional(
        "cifar100-conv9",
        "CIFAR-100, conv9 with local and intermediate learning: OPZO paper, table 3",
        _data("cifar100"),
        ConvNetworkSettings(kind="conv9"),
        _deeper(_ZO_CONV),
    ),
    **_convolutional(
        "dvs-gesture-conv9",
        "DVS128 Gesture, conv9 with local and intermediate learning: OPZO paper, table 3",
        DataSettings(name="dvs-gesture"),
        ConvNetworkSettings(kind="conv9"),
        _deeper({}),
        **_GESTURE,
    ),
    **_convolutional(
        "cifar10-conv5-small",
        "10,000 images of CIFAR-10, conv5 of width 0.25, 20 epochs: an hour on one core",
        _data("cifar10", train=10_000),
        ConvNetworkSettings(kind="conv5", width=0.25),
        epochs=20,
    ),
    **_convolutional(
        "cifar10-conv9-small",
        "10,000 images of CIFAR-10, conv9 of width 0.25, 10 epochs: table 3 in small",
        _data("cifar10", train=10_000),
        ConvNetworkSettings(kind="conv9", width=0.25),
        _deeper(_ZO_CONV),
        epochs=10,
    ),
    **_convolutional(
        "fashion-mnist-conv5-small",
        "10,000 images of Fashion-MNIST, conv5 of width 0.25, 20 epochs (not in the paper)",
        DataSettings(name="fashion-mnist", train=10_000),
        ConvNetworkSettings(kind="conv5", width=0.25),
        epochs=20,
    ),
    "cifar10-conv5-small-noise": Recipe(
        "Fine-tuning of cifar10-conv5-small under noise of 0.5: table 4 in small",
        Settings(
            recipe="cifar10-conv5-small-noise",
            epochs=5,
            start="runs/cifar10-conv5-small-spatial-bp-seed0",
            hardware_noise=0.5,
            data=_data("cifar10", train=10_000),
            network=ConvNetworkSettings(kind="conv5", width=0.25),
            optimizer=OptimizerSettings(lr=2e-5, options={"weight_decay": 0.0}),
        ),
        per_rule={**_BP_SHORT, "zo": {"optimizer.lr": 2e-6}},
    ),
    "imagenet-nfresnet34": Recipe(
        "ImageNet, NF-ResNet-34, 100 epochs, to be fine-tuned later (not in the paper)",
        Settings(
            recipe="imagenet-nfresnet34", epochs=100, rule=RuleSettings("spatial-bp"), **_IMAGENET
        ),
        per_rule=dict.fromkeys(("zo", "dfa", "dkp", "opzo"), _CHAINED),
    ),
    "imagenet-nfresnet34-noise": Recipe(
        "Fine-tuning of imagenet-nfresnet34 under noise of 0.1: OPZO paper, table 4",
        Settings(
            recipe="imagenet-nfresnet34-noise",
            epochs=5,
            start="runs/imagenet-nfresnet34-spatial-bp-seed0",
            hardware_noise=0.1,
            optimizer=OptimizerSettings(lr=2e-6, options={"weight_decay": 0.0}),
            **_IMAGENET,
        ),
        # A row of feedback for each neuron, as published, is 11.7 GB: too much for a GPU of 24 GB
        # beside the activities.
        per_rule={
            **_BP_SHORT,
            "zo": {"optimizer.lr": 2e-7, **_CHAINED},
            "dkp": _CHAINED,
            "dfa": {"rule.options.feedback_patch": 2, **_CHAINED},
            "opzo": {"rule.options.feedback_patch": 2, **_CHAINED},
        },
    ),
}
