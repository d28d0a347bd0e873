"""Test accuracy when errors reach the hidden layers d time steps late.

Usage: python benchmarks/delayed_errors.py --json F [--data-dir D] [--seeds 3] [--sets mnist nmnist]

Two sets, both small, so that rules and delays can be compared and no accuracy is a published one:

- mnist: 6,000 digits of MNIST as a constant input for 6 time steps, 3 epochs, tested on 2,000 of
  its test digits;
- nmnist: recordings of N-MNIST as 10 frames of equal numbers of events, 5 epochs: of the training
  recordings that are there, up to 1,000, four fifths in turn with the seed to train, the rest to
  test.

Networks, dropout and optimiser are those of the recipes mnist-fc and nmnist-fc, with the step size
1e-3. Errors still under way when a sample ends are lost. Each run is written to F when it is done,
and runs that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threefactor import clocked, data

DELAYS = (0, 1, 2, 3, 5)
MODES = ("current-eligibility", "kept-eligibility")
SETS: dict[str, dict[str, Any]] = {
    "mnist": {"steps": 6, "epochs": 3, "batch": 128, "mse_weight": 0.05},
    "nmnist": {"steps": 10, "epochs": 5, "batch": 50, "mse_weight": 0.001},
}
RULES = ("opzo", "dfa", "dkp")


def load(name: str, data_dir: str | None, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs and labels to train and to test: images (N, n), or frames (T, N, n)."""
    if name == "mnist":
        digits = data.load("mnist", data_dir=data_dir)
        parts = (digits.train_images[:6000].flatten(1), digits.train_labels[:6000])
        return *parts, digits.test_images[:2000].flatten(1), digits.test_labels[:2000]
    settings = data.FrameSettings(number=SETS["nmnist"]["steps"])
    recordings = data.load_frames("nmnist", data_dir=data_dir, settings=settings)
    count = min(1000, len(recordings.train_labels))
    order = torch.randperm(len(recordings.train_labels), generator=torch.Generator().manual_seed(0))
    frames = recordings.train_frames[order[:count]].flatten(2)
    labels = recordings.train_labels[order[:count]]
    places = torch.arange(count)
    test = places % 5 == seed % 5
    return frames[:, ~test], labels[~test], frames[:, test], labels[test]


def train(name: str, rule_name: str, mode: str, delay: int, seed: int, given: Any) -> float:
    """Return the share of test samples that are recognised after training."""
    train_x, train_y, test_x, test_y = given
    settings = SETS[name]
    torch.manual_seed(seed)
    network = clocked.fc(train_x.shape[-1], (800, 800), 10, dropout=0.2)
    rule = clocked.RULES[rule_name](
        network,
        loss=clocked.CrossEntropyMSE(settings["mse_weight"]),
        feedback_delay=delay,
        feedback_meets=mode,
    )
    parameters = [*network.parameters(), *rule.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=2e-4, fused=True)
    constant = train_x.dim() == 2
    steps = settings["steps"] if constant else None
    order = torch.Generator().manual_seed(seed)
    for epoch in range(settings["epochs"]):
        rule.set_progress(epoch / settings["epochs"])
        for batch in torch.randperm(len(train_y), generator=order).split(settings["batch"]):
            optimizer.zero_grad()
            x = train_x[batch] if constant else train_x[:, batch]
            rule.step(x, train_y[batch], steps=steps)
            optimizer.step()
    right = 0
    network.eval()
    for batch in torch.arange(len(test_y)).split(500):
        x = test_x[batch] if constant else test_x[:, batch]
        output = clocked.run(network, x, steps=steps).output
        right += int((output.argmax(1) == test_y[batch]).sum())
    return right / len(test_y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "commands": [],
        "settings": SETS,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "test_accuracy": {},
    }
    if asked.json.exists():
        found = json.loads(asked.json.read_text())
        if found["settings"] != SETS:
            sys.exit(f"{asked.json} was made with other settings; give another file")
    command = ["python", "benchmarks/delayed_errors.py", *sys.argv[1:]]
    if command not in found["commands"]:
        found["commands"].append(command)
    accuracies: dict[str, float] = found["test_accuracy"]
    for seed in range(asked.seeds):
        for name in asked.sets:
            given = load(name, asked.data_dir, seed)
            for rule in asked.rules:
                for delay in DELAYS:
                    for mode in MODES[: 2 if delay else 1]:  # without delay they are the same
                        key = f"{name} {rule} {mode} delay{delay} seed{seed}"
                        if key in accuracies:
                            continue
                        accuracies[key] = train(name, rule, mode, delay, seed, given)
                        print(f"{key:<48} {accuracies[key]:.2%}", flush=True)
                        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
