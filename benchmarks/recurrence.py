"""Feed-forward and recurrent networks on a temporal task: spoken digits as frames.

Usage: python benchmarks/recurrence.py --data-dir D [--rules spatial-bp opzo] [--json F]

Spike trains in the layout of SHD, in D/shd-like, become frames of equal time. A network of one
hidden layer learns them, with and without recurrence. Both get the same search: every leak with
every learning rate, on a fifth of the training samples that is held out. The pair with the highest
accuracy there is then trained on all training samples, with three seeds, and tested once, after the
last epoch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threefactor import clocked, data

BATCH = 64
LEAKS, RATES = (0.5, 0.9, 0.97), (1e-3, 3e-3)
RULES: dict[str, dict[str, Any]] = {
    "spatial-bp": {},
    "opzo": {"noise_scale": clocked.LinearSchedule(0.2, 0.01), "momentum": 0.999},
}


@dataclass(frozen=True)
class Trial:
    """One training."""

    rule: str
    recurrent: bool
    leak: float
    lr: float
    seed: int
    epochs: int
    hidden: int


def train(trial: Trial, given: tuple[Any, Tensor], tested: tuple[Any, Tensor]) -> dict[str, Any]:
    """Train a network, and return its accuracy and loss on what it did not see."""
    torch.manual_seed(trial.seed)
    network = clocked.fc(
        700, (trial.hidden,), 20, recurrent=trial.recurrent, leak=trial.leak, dropout=0.2
    )
    loss = clocked.CrossEntropyMSE(0.001)
    rule = clocked.RULES[trial.rule](network, loss=loss, **RULES[trial.rule])
    optimizer = torch.optim.AdamW([*network.parameters(), *rule.parameters()], lr=trial.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trial.epochs)
    frames, labels = given
    for epoch in range(trial.epochs):
        rule.set_progress(epoch / trial.epochs)
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            result = rule.step(frames[batch], labels[batch])
            optimizer.step()
        scheduler.step()
    frames, labels = tested
    out = clocked.run(network.eval(), frames[:], targets=labels, loss=loss)
    assert out.loss is not None
    return {
        "accuracy": float((out.output.argmax(1) == labels).float().mean()),
        "loss": float(out.loss),
        "firing_rate": float(next(iter(result.firing_rates.values()))),
    }


def compare(rule: str, digits: data.FrameData, given: argparse.Namespace) -> dict[str, Any]:
    """Search and train both networks with a rule."""
    fold = digits.fold(0, 5)
    found: dict[str, Any] = {}
    for name, recurrent in (("feed-forward", False), ("recurrent", True)):
        search = []
        for leak, lr in itertools.product(LEAKS, RATES):
            trial = Trial(rule, recurrent, leak, lr, 0, given.epochs, given.hidden)
            search.append({"leak": leak, "lr": lr, **train(trial, fold.train, fold.test)})
            print(f"{rule:<11} {name:<13} held out {search[-1]}", flush=True)
        best = max(search, key=lambda one: one["accuracy"])
        tests = []
        for seed in range(given.seeds):
            trial = Trial(
                rule, recurrent, best["leak"], best["lr"], seed, given.epochs, given.hidden
            )
            tests.append({"seed": seed, **train(trial, digits.train, digits.test)})
            print(f"{rule:<11} {name:<13} test     {tests[-1]}", flush=True)
        mean = statistics.mean(one["accuracy"] for one in tests)
        print(f"{rule:<11} {name:<13} mean of {given.seeds} seeds {mean:.2%}", flush=True)
        found[name] = {"search": search, "leak": best["leak"], "lr": best["lr"], "test": tests}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.75, help="that all frames cover")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    window = round(given.seconds * 1e6 / given.frames)
    framing = data.FrameSettings(given.frames, window=window)
    digits = data.load_frames("shd-like", given.data_dir, framing)
    samples = {"train": len(digits.train_labels), "test": len(digits.test_labels)}
    rules = {}
    for rule in given.rules:
        rules[rule] = compare(rule, digits, given)
        if given.json:
            told = {k: v for k, v in vars(given).items() if k not in ("json", "data_dir", "rules")}
            command = ["python", "benchmarks/recurrence.py", "--rules", *given.rules]
            command += [f"--{key}={value}" for key, value in told.items()]
            about = {"torch": torch.__version__, "python": platform.python_version()}
            result = {"command": command, **about, "samples": samples, "rules": rules}
            given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
