"""Accuracy on MNIST of networks of other libraries' layers beside our own, trained by OPZO.

Usage: python benchmarks/other_networks_mnist.py [--epochs 3] [--seed 0] [--data-dir D] [--json F]

Each network is 784-800-800-10 with the leak 1/2 and the threshold 1, six time steps, a batch of 128
and AdamW at 5e-4, as the recipe mnist-fc begins. Surrogates are of the width of ours where the
library has that shape, else the library's own. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from threefactor import clocked, data


def stack(make: Callable[[], nn.Module], kind: type[nn.Sequential] = nn.Sequential) -> nn.Module:
    layers = (nn.Linear(784, 800), make(), nn.Linear(800, 800), make(), nn.Linear(800, 10))
    return kind(*layers)


def networks() -> dict[str, Callable[[], nn.Module]]:
    found: dict[str, Callable[[], nn.Module]] = {
        "clocked.LIF": lambda: stack(clocked.LIF),
        'clocked.LIF(reset="zero")': lambda: stack(lambda: clocked.LIF(reset="zero")),
    }
    if importlib.util.find_spec("spikingjelly"):
        from spikingjelly.activation_based import neuron, surrogate

        found["SpikingJelly LIFNode"] = lambda: stack(
            lambda: neuron.LIFNode(
                tau=2.0,
                decay_input=False,
                v_reset=None,
                surrogate_function=surrogate.Sigmoid(alpha=4.0),
            )
        )
    if importlib.util.find_spec("snntorch"):
        import snntorch

        found["snnTorch Leaky"] = lambda: stack(
            lambda: snntorch.Leaky(
                beta=0.5, init_hidden=True, spike_grad=snntorch.surrogate.sigmoid(slope=4)
            )
        )
    if importlib.util.find_spec("norse"):
        import norse.torch as norse

        def box() -> nn.Module:
            p = norse.LIFBoxParameters(
                tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(0.5), alpha=torch.tensor(4.0)
            )
            return norse.LIFBoxCell(p=p)

        found["Norse LIFBoxCell"] = lambda: stack(box, norse.SequentialState)
    if importlib.util.find_spec("sinabs"):
        from sinabs.activation import SingleSpike
        from sinabs.layers import LIF

        found["sinabs LIF"] = lambda: stack(
            lambda: LIF(tau_mem=1 / math.log(2), norm_input=False, spike_fn=SingleSpike)
        )
    return found


def train(network: nn.Module, digits: data.ImageData, epochs: int, seed: int) -> float:
    weights = [p for m in network for p in m.parameters() if isinstance(m, nn.Linear)]
    rule = clocked.OPZO(network, input_shape=(784,))
    optimizer = torch.optim.AdamW(weights, lr=5e-4, fused=True)
    images, labels = digits.train_images.flatten(1), digits.train_labels
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        rule.set_progress(epoch / epochs)
        for batch in torch.randperm(len(labels), generator=generator).split(128):
            optimizer.zero_grad()
            rule.step(images[batch], labels[batch], steps=6)
            optimizer.step()
    right = 0
    for part in torch.arange(len(digits.test_labels)).split(1000):
        output = clocked.run(network.eval(), digits.test_images[part].flatten(1), steps=6).output
        right += int((output.argmax(1) == digits.test_labels[part]).sum())
    return right / len(digits.test_labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    digits = data.load("mnist", data_dir=given.data_dir)
    accuracies: dict[str, float] = {}
    for name, make in networks().items():
        torch.manual_seed(given.seed)
        accuracies[name] = train(make(), digits, given.epochs, given.seed)
        print(f"{name:<28} {accuracies[name]:.2%}", flush=True)
        if given.json:
            command = ["python", "benchmarks/other_networks_mnist.py"]
            command += [f"--epochs={given.epochs}", f"--seed={given.seed}"]
            about = {"torch": torch.__version__, "python": platform.python_version()}
            found = {"command": command, **about, "test_accuracy": accuracies}
            given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
