"""Feed-forward and recurrent networks on a temporal task: spoken digits as frames.

Usage: python benchmarks/recurrence.py --data-dir D [--rules spatial-bp opzo] [--jobs N] [--json F]

Spike trains in the layout of SHD, in D/shd-like, become frames of equal time. A network of one
hidden layer learns them, with and without recurrence. Both get the same search: every leak with
every learning rate and dropout. Speakers of the test set are unknown in training, so that the
search holds out every fourth speaker of the training set (`extra/speaker` of the file). What has
the highest accuracy on them is then trained on all training samples, with three seeds, and tested
once, after the last epoch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from threefactor import clocked, data

BATCH = 64
LEAKS, RATES, DROPOUTS = (0.5, 0.9), (2e-3, 5e-3), (0.0, 0.3)
RULES: dict[str, dict[str, Any]] = {
    "spatial-bp": {},
    "opzo": {"noise_scale": clocked.LinearSchedule(0.2, 0.01), "momentum": 0.999},
}
NETWORKS = {"feed-forward": False, "recurrent": True}
DIGITS: data.FrameData
HELD_OUT: data.FrameData


@dataclass(frozen=True)
class Trial:
    """One training."""

    rule: str
    recurrent: bool
    leak: float
    lr: float
    dropout: float
    seed: int
    epochs: int
    hidden: int
    held_out: bool
    """Whether to test on speakers of the training set, who are left out of the training."""


def prepare(data_dir: str, frames: int, seconds: float) -> None:
    """Load the data of a process."""
    global DIGITS, HELD_OUT
    torch.set_num_threads(1)
    framing = data.FrameSettings(frames, window=round(seconds * 1e6 / frames))
    DIGITS = data.load_frames("shd-like", data_dir, framing)
    with h5py.File(Path(data_dir) / "shd-like" / "train.h5") as file:
        speakers = torch.from_numpy(file["extra/speaker"][:].astype(np.int64))
    held_out = torch.isin(speakers, speakers.unique()[1::4])
    trained, tested = (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
    HELD_OUT = replace(
        DIGITS,
        train_frames=DIGITS.train_frames.choose(trained),
        train_labels=DIGITS.train_labels[trained],
        test_frames=DIGITS.train_frames.choose(tested),
        test_labels=DIGITS.train_labels[tested],
    )


def train(trial: Trial) -> dict[str, Any]:
    """Train a network, and return its accuracy and loss on what it did not see."""
    digits = HELD_OUT if trial.held_out else DIGITS
    torch.manual_seed(trial.seed)
    network = clocked.fc(
        700,
        (trial.hidden,),
        20,
        recurrent=trial.recurrent,
        leak=trial.leak,
        dropout=trial.dropout,
    )
    loss = clocked.CrossEntropyMSE(0.001)
    rule = clocked.RULES[trial.rule](network, loss=loss, **RULES[trial.rule])
    optimizer = torch.optim.AdamW([*network.parameters(), *rule.parameters()], lr=trial.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trial.epochs)
    frames, labels = digits.train
    for epoch in range(trial.epochs):
        rule.set_progress(epoch / trial.epochs)
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            result = rule.step(frames[batch], labels[batch])
            optimizer.step()
        scheduler.step()
    frames, labels = digits.test
    out = clocked.run(network.eval(), frames[:], targets=labels, loss=loss)
    assert out.loss is not None
    return {
        "accuracy": float((out.output.argmax(1) == labels).float().mean()),
        "loss": float(out.loss),
        "firing_rate": float(next(iter(result.firing_rates.values()))),
    }


def compare(rule: str, pool: Executor, given: argparse.Namespace) -> dict[str, Any]:
    """Search and train both networks with a rule."""
    make = partial(Trial, rule, epochs=given.epochs, hidden=given.hidden)
    grid = itertools.product(LEAKS, RATES, DROPOUTS)
    choices = [{"leak": leak, "lr": lr, "dropout": dropout} for leak, lr, dropout in grid]
    seeds = range(given.seeds)
    searches, tests = {}, {}
    for name, recurrent in NETWORKS.items():  # side by side
        trials = [make(recurrent, **choice, seed=0, held_out=True) for choice in choices]
        searches[name] = pool.map(train, trials)
    found: dict[str, Any] = {}
    for name, recurrent in NETWORKS.items():
        search = [{**choice, **one} for choice, one in zip(choices, searches[name], strict=True)]
        best = choices[max(range(len(search)), key=lambda i: search[i]["accuracy"])]
        trials = [make(recurrent, **best, seed=seed, held_out=False) for seed in seeds]
        tests[name] = pool.map(train, trials)
        found[name] = {"search": search, **best}
    for name, one in found.items():
        one["test"] = [{"seed": n, **t} for n, t in zip(seeds, tests[name], strict=True)]
        mean = statistics.mean(test["accuracy"] for test in one["test"])
        print(f"{rule}, {name}: {mean:.2%} on the test set, mean of {given.seeds}", flush=True)
    return found


def write(given: argparse.Namespace, rules: dict[str, Any]) -> None:
    told = {k: getattr(given, k) for k in ("frames", "seconds", "hidden", "epochs", "seeds")}
    command = ["python", "benchmarks/recurrence.py", "--rules", *given.rules]
    command += [f"--{key}={value}" for key, value in told.items()]
    about = {"torch": torch.__version__, "python": platform.python_version()}
    samples = {"train": len(DIGITS.train_labels), "test": len(DIGITS.test_labels)}
    result = {"command": command, **about, "samples": samples, "rules": rules}
    given.json.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.75, help="that all frames cover")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes, which change no number")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    source = (given.data_dir, given.frames, given.seconds)
    prepare(*source)
    rules = {}
    with ProcessPoolExecutor(
        given.jobs, mp_context=get_context("spawn"), initializer=prepare, initargs=source
    ) as pool:
        for rule in given.rules:
            rules[rule] = compare(rule, pool, given)
            if given.json:
                write(given, rules)


if __name__ == "__main__":
    sys.exit(main())
