"""Time of one training step of a fully connected network: ours, and the peers installed.

    python benchmarks/clocked_step.py [--json FILE]

All contestants train the same network (784-800-800-10, LIF, leak 0.5, soft reset, dropout 0.2) on
the same random batch (128, T = 6) with the same loss at every step and the same fused AdamW, on
one thread. They take turns, a few steps each, so that a change in the machine's speed hits all of
them; read the ratios, not the milliseconds. See benchmarks/README.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from peers import peers

from threefactor import clocked

Step = Callable[[], object]


def ours(rule_name: str, x: torch.Tensor, y: torch.Tensor, steps: int) -> Step:
    """Build one training step of one of our rules."""
    net = clocked.fc(784, (800, 800), 10, dropout=0.2)
    rule = clocked.RULES[rule_name](net)
    parameters = [*net.parameters(), *rule.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=2e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        rule.step(x, y, steps=steps)
        optimizer.step()

    return step


def measure(contestants: dict[str, Step], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Let the contestants take turns; return seconds of each step."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, step in contestants.items():
            step()  # warms the caches up
            for _ in range(repeats):
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
    return times


def report(times: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Print a table; return it."""
    rows = {}
    base = statistics.median(times[reference])
    fastest = min(times[reference])
    print(f"{'':28} {'median ms':>10} {'min ms':>8} {'ratio of medians':>18} {'of minima':>10}")
    for name, values in times.items():
        median, least = statistics.median(values), min(values)
        rows[name] = {
            "median_ms": 1e3 * median,
            "min_ms": 1e3 * least,
            "ratio_of_medians": median / base,
            "ratio_of_minima": least / fastest,
        }
        print(
            f"{name:28} {1e3 * median:10.1f} {1e3 * least:8.1f} "
            f"{median / base:18.3f} {least / fastest:10.3f}"
        )
    print(f"ratios are to {reference}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6, help="time steps T")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    x = torch.randn(options.batch, 784)
    y = torch.randint(0, 10, (options.batch,))
    contestants = {f"threefactor {name}": ours(name, x, y, options.steps) for name in clocked.RULES}
    others = peers(x, y, options.steps)
    contestants.update(others)
    reference = "SpikingJelly BPTT" if "SpikingJelly BPTT" in others else "threefactor spatial-bp"
    rows = report(measure(contestants, options.rounds, options.repeats), reference)
    if options.json:
        document = {"torch": torch.__version__, **vars(options), "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
