"""Time of a training step on our own layers, and on layers of PyTorch with other neurons.

Usage: python benchmarks/other_networks.py [--batch 128] [--steps 6] [--repeats 20] [--json FILE]

Prints the least processor time of each in milliseconds, and its ratio to our own layers. Libraries
that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from threefactor import clocked


def neurons() -> dict[str, Callable[[], nn.Module]]:
    found: dict[str, Callable[[], nn.Module]] = {}
    if importlib.util.find_spec("spikingjelly"):
        from spikingjelly.activation_based import neuron, surrogate

        found["SpikingJelly LIFNode"] = lambda: neuron.LIFNode(
            tau=2.0,
            decay_input=False,
            v_reset=None,
            surrogate_function=surrogate.Sigmoid(alpha=4.0),
        )
    if importlib.util.find_spec("snntorch"):
        import snntorch

        found["snnTorch Leaky"] = lambda: snntorch.Leaky(
            beta=0.5,
            reset_delay=False,
            init_hidden=True,
            spike_grad=snntorch.surrogate.sigmoid(slope=4),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {"clocked.LIF": clocked.fc(784, (800, 800), 10)}
    for name, make in neurons().items():
        networks[name] = nn.Sequential(
            *(nn.Linear(784, 800), make(), nn.Linear(800, 800), make(), nn.Linear(800, 10))
        )
    found: dict[str, dict[str, float]] = {}
    x, y = torch.rand(given.batch, 784), torch.randint(10, (given.batch,))
    for kind in (clocked.OPZO, clocked.DFA, clocked.SpatialBP):
        rules = {name: kind(net, input_shape=(784,)) for name, net in networks.items()}
        least = dict.fromkeys(rules, float("inf"))
        for _ in range(given.repeats):
            for name, rule in rules.items():
                start = time.process_time()
                rule.step(x, y, steps=given.steps)
                least[name] = min(least[name], time.process_time() - start)
        found[kind.__name__] = {n: seconds / least["clocked.LIF"] for n, seconds in least.items()}
        for name, seconds in least.items():
            ratio = found[kind.__name__][name]
            print(f"{kind.__name__:<10} {name:<22} {1e3 * seconds:6.1f} ms  {ratio:.2f}")
    if given.json:
        command = ["python", "benchmarks/other_networks.py", f"--batch={given.batch}"]
        command += [f"--steps={given.steps}", f"--repeats={given.repeats}"]
        about = {"torch": torch.__version__, "threads": 1, "times": "processor time, least"}
        text = json.dumps({"command": command, **about, "ratio": found}, indent=2)
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
