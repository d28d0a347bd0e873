"""Time and memory of a training step against T, batch, weights, depth and input rate.

    python benchmarks/growth.py [--rule opzo] [--json FILE]

One thing grows at a time from 784-400-400-10 with 64 samples and T = 6. A straight line is fitted
to each: what a step costs at least, and what each further time step, sample, ... adds. Time is that
of the processor, the least of all rounds, in which the points take turns. Memory is what the first
two steps add to the highest resident memory of a process of their own. See docs/growth.md. That of
exact spike times is in events_step.py.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from clocked_memory import peak_mebibytes

from threefactor import clocked
from threefactor.clocked import products


class Point(NamedTuple):
    """A training step to measure.

    `rate` is the share of the input that is a spike, in a sequence; 0 for a constant input.
    """

    steps: int = 6
    batch: int = 64
    width: int = 400
    depth: int = 2
    rate: float = 0.0


def weights(point: Point) -> float:
    """Count the thousands of weights."""
    net = clocked.fc(784, [point.width] * point.depth, 10)
    return sum(p.numel() for p in net.parameters()) / 1000


AXES: dict[str, tuple[list[Point], Callable[[Point], float]]] = {
    "time steps": ([Point(steps=t) for t in (6, 12, 24, 48)], lambda p: p.steps),
    "samples": ([Point(batch=b) for b in (32, 64, 128, 256)], lambda p: p.batch),
    "thousand weights": ([Point(width=n) for n in (200, 400, 800, 1200)], weights),
    "hidden layers": ([Point(depth=d) for d in (1, 2, 4, 8)], lambda p: p.depth),
    "percent of the input spiking": (
        [Point(rate=r) for r in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)],
        lambda p: 100 * p.rate,
    ),
}


def training_step(rule_name: str, point: Point) -> Callable[[], object]:
    """Build a training step without its optimiser."""
    torch.manual_seed(0)
    net = clocked.fc(784, [point.width] * point.depth, 10)
    rule = clocked.RULES[rule_name](net)
    y = torch.randint(0, 10, (point.batch,))
    if point.rate:
        x, steps = (torch.rand(point.steps, point.batch, 784) < point.rate).float(), None
    else:
        x, steps = torch.randn(point.batch, 784), point.steps

    def step() -> None:
        net.zero_grad()
        rule.step(x, y, steps=steps)

    return step


def child(rule_name: str, point: Point) -> None:
    """Print what two steps add to the highest resident memory."""
    torch.set_num_threads(1)
    small = training_step(rule_name, Point(steps=1, batch=1, width=20))
    small()  # loads the code
    step = training_step(rule_name, point)
    before = peak_mebibytes()
    step()
    step()
    print(peak_mebibytes() - before)


def memory(rule_name: str, point: Point) -> float:
    command = [sys.executable, __file__, "--rule", rule_name, "--child", json.dumps(point)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def least_times(rule_name: str, points: Sequence[Point], rounds: int) -> list[float]:
    """Return the least milliseconds of each point; they take turns."""
    steps = [training_step(rule_name, point) for point in points]
    least = [float("inf")] * len(points)
    for _ in range(rounds):
        for i, step in enumerate(steps):
            step()
            start = time.process_time()
            step()
            least[i] = min(least[i], 1e3 * (time.process_time() - start))
    return least


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fit a straight line; `off` is the largest distance from it, as a share of the value."""
    slope, start = np.polyfit(x, y, 1, w=1 / np.maximum(y, 1e-9))
    off = max(abs(start + slope * a - b) / max(b, 1e-9) for a, b in zip(x, y, strict=True))
    return {"start": float(start), "slope": float(slope), "off": float(off)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rule", choices=clocked.RULES, default="opzo")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--points", type=int, help="only the first of each axis")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    if options.child:
        child(options.rule, Point(*json.loads(options.child)))
        return
    torch.set_num_threads(1)
    chosen = {name: AXES[name][0][: options.points] for name in options.axes}
    # While this process is small: Linux counts the memory of who starts another one.
    all_sizes = {name: [memory(options.rule, p) for p in chosen[name]] for name in chosen}
    found = {}
    for name, points in chosen.items():
        x = [AXES[name][1](point) for point in points]
        times, sizes = least_times(options.rule, points, options.rounds), all_sizes[name]
        found[name] = {
            "x": x,
            "ms": times,
            "mib": sizes,
            "time": line(x, times),
            "memory": line(x, sizes),
        }
        print(f"{name}: {', '.join(f'{a:g}' for a in x)}")
        for label, values, fit in (("ms", times, "time"), ("MiB", sizes, "memory")):
            start, slope, off = found[name][fit].values()
            print(
                f"  {label:4}{', '.join(f'{v:.1f}' for v in values)}: "
                f"{start:.2f} + {slope:.4f} x, off by up to {off:.0%}"
            )
    if options.json:
        document = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "compiled products": products.available(),
            "rule": options.rule,
            "rounds": options.rounds,
            "axes": found,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
