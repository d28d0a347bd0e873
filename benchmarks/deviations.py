"""What the differences to the authors' released code change: the numbers of docs/deviations.md.

Everything here is small, embedded data and fresh weights; it takes some minutes on one core.

    python benchmarks/deviations.py --json results/benchmarks/deviations.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from authors_weights import as_in_their_code
from torch import nn

from threefactor import clocked, training
from threefactor.clocked.resnet import ResidualBlock
from threefactor.recipes import recipe

STEPS, BATCH, OUTPUTS = 6, 32, 10
SEEDS = (0, 1, 2)
ACCURACIES = "test accuracy, percent"
SIDE = {"fc": 14, "conv5": 16}


def network(kind: str, seed: int) -> tuple[nn.Module, str, tuple[int, ...]]:
    """Return a fresh network in double precision, the name of its first layer, and its input."""
    torch.manual_seed(seed)
    side = SIDE[kind]
    if kind == "fc":
        size = side * side
        return clocked.fc(size, (100, 100), OUTPUTS, dropout=0.0).double(), "linear1", (size,)
    shape = (3, side, side)
    return clocked.conv5(shape, OUTPUTS, width=0.125).double(), "conv1", shape


def traces() -> dict[str, Any]:
    """The gradient of the first layer without a trace, beside that with one."""
    found: dict[str, Any] = {}
    for kind in SIDE:
        for varies in (False, True):
            pairs = []
            for seed in SEEDS:
                grads = []
                for without in (False, True):
                    net, first, shape = network(kind, seed)
                    rule = clocked.SpatialBP(net, untraced=[first] if without else [])
                    generator = torch.Generator().manual_seed(seed)
                    size = (STEPS, BATCH, *shape) if varies else (BATCH, *shape)
                    x = torch.randn(size, generator=generator, dtype=torch.float64)
                    if varies:  # events: most inputs are silent at most steps
                        x = (x > 1.0).to(x)
                    y = torch.randint(OUTPUTS, (BATCH,), generator=generator)
                    rule.step(x, y, **({} if varies else {"steps": STEPS}))
                    grads.append(net.get_parameter(f"{first}.weight").grad.flatten())
                pairs.append(grads)
            name = f"{kind}, {'varying' if varies else 'constant'} input"
            found[name] = {
                "cosine": [float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs],
                "size with a trace over without": [float(a.norm() / b.norm()) for a, b in pairs],
            }
    return found


def readout_trace() -> dict[str, Any]:
    """The same of the read-out of a small NF-ResNet, which sees no spikes but currents."""
    cosines, sizes = [], []
    for seed in SEEDS:
        grads = []
        for without in (False, True):
            torch.manual_seed(seed)
            net = lively(clocked.nf_resnet34((3, 32, 32), OUTPUTS, width=0.125)).double()
            rule = clocked.SpatialBP(net, untraced=["readout"] if without else [])
            x = torch.randn(8, 3, 32, 32, dtype=torch.float64)
            rule.step(x, torch.arange(8) % OUTPUTS, steps=STEPS)
            grads.append(net.get_parameter("readout.weight").grad.flatten())
        cosines.append(float(torch.cosine_similarity(grads[0], grads[1], dim=0)))
        sizes.append(float(grads[0].norm() / grads[1].norm()))
    return {"cosine": cosines, "size with a trace over without": sizes}


def lively(net: nn.Module) -> nn.Module:
    """Return a residual network whose blocks act: their gains start at 0."""
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            nn.init.constant_(module.gain, 1.0)
        if isinstance(module, clocked.Conv2d):
            nn.init.constant_(module.gain, 2.0)
    return net


def variance() -> dict[str, Any]:
    """NF-ResNet-34 with weights standardised by N - 1 and by N: how far the outputs are apart."""
    found = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        net = lively(clocked.nf_resnet34((3, 64, 64), OUTPUTS, width=0.25)).double()
        x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
        outputs = [clocked.run(net, x, steps=STEPS).output]
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, clocked.Conv2d):
                    n = module.weight[0].numel()
                    module.gain.mul_(math.sqrt((n - 1) / n))
        outputs.append(clocked.run(net, x, steps=STEPS).output)
        found.append(float((outputs[0] - outputs[1]).norm() / outputs[1].norm()))
    return {"relative difference of the output": found}


def last_accuracies(
    name: str, rule: str, changes: Mapping[str, Any], initialise: Callable[[nn.Module], None]
) -> list[float]:
    """Return the percentages after the last epoch, one per seed."""
    found = []
    for seed in SEEDS:
        settings = recipe(name).settings_for(rule, {**changes, "seed": seed, "track": None})
        experiment = training.build(settings)
        initialise(experiment.network)
        lines = training.Trainer(experiment).fit()
        found.append(100.0 * lines[-1]["test_accuracy"])
    return found


def unchanged(net: nn.Module) -> None:
    """Keep PyTorch's default weights."""


CONV = {
    "network": {"kind": "conv5", "width": 0.125, "dropout": 0.0}, "epochs": 8, "batch_size": 64,
    "data.train": 500,
}  # fmt: skip


def clocked_trainings(
    name: str, first: str, changes: Mapping[str, Any]
) -> Iterator[tuple[str, list[float]]]:
    """Accuracies with our choices, with an untraced first layer, and with their weights."""
    for rule in ("spatial-bp", "dfa"):
        untraced = {**changes, "rule.options.untraced": [first]}
        for what, given, initialise in (
            ("", changes, unchanged),
            (", first layer untraced", untraced, unchanged),
            (", their initialisation", changes, as_in_their_code),
        ):
            yield (
                f"{name}, {rule}{what}",
                last_accuracies("digits-fc", rule, given, initialise),
            )


def event_trainings() -> Iterator[tuple[str, list[float]]]:
    """Accuracies with errors before the update of the feedback, and after it."""
    for name in ("digits-events", "digits-events-deep"):
        for first in (False, True):
            what = "feedback first" if first else "errors first"
            changes = {"feedback_first": first}
            yield f"{name}, sfdfa, {what}", last_accuracies(name, "sfdfa", changes, unchanged)


TRAININGS: dict[str, Callable[[], Iterator[tuple[str, list[float]]]]] = {
    "fc": partial(clocked_trainings, "digits-fc", "linear1", {}),
    "events": event_trainings,
    "conv": partial(clocked_trainings, "digits conv5", "conv1", CONV),
}


def main() -> None:
    """Measure, print, and write a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument(
        "--only", nargs="+", choices=["gradients", *TRAININGS], default=["gradients", *TRAININGS],
        help="parts; the file keeps the numbers of the others",
    )  # fmt: skip
    given = parser.parse_args()
    torch.set_num_threads(1)
    path: Path | None = given.json
    found: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}
    if "gradients" in given.only:
        found["first layer without a trace"] = traces()
        found["read-out of the NF-ResNet without a trace"] = readout_trace()
        found["variance with N and with N - 1"] = variance()
    accuracies = found.setdefault(ACCURACIES, {})
    for part in given.only:
        for name, values in TRAININGS[part]() if part in TRAININGS else ():
            accuracies[name] = values
            spread = statistics.stdev(values)
            print(f"{name}: {statistics.mean(values):.2f} ± {spread:.2f} %", flush=True)
    text = json.dumps(found, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
