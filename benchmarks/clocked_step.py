"""Time of one training step, ours and that of the peers that are installed.

    python benchmarks/clocked_step.py [--network conv5] [--profile] [--json FILE]

All contestants train the same network on the same random batch (T = 6) with the same loss at every
step and the same fused AdamW, on one thread: 784-800-800-10 with dropout 0.2 and 128 samples, or
conv5 at half its width on 32 pictures of 3 x 32 x 32; LIF, leak 0.5, soft reset. They take turns, a
few steps each, so a change in the machine's speed hits all of them. Read the ratios, not the
milliseconds. `--profile` shows which parts of our steps take the time. See benchmarks/README.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from peers import peers, spikingjelly_conv
from profiling import report_shares

from threefactor import clocked

Step = Callable[[], object]


class Setting(NamedTuple):
    """A network to train, and what on."""

    shape: tuple[int, ...]
    batch: int
    rounds: int
    repeats: int


SETTINGS = {"fc": Setting((784,), 128, 15, 5), "conv5": Setting((3, 32, 32), 32, 7, 2)}
RULES: dict[str, tuple[str, dict[str, str]]] = {name: (name, {}) for name in clocked.RULES}
RULES["opzo, local learning"] = ("opzo", {"local_learning": "same-weights"})


def ours(name: str, network: str, width: float, x: torch.Tensor, y: torch.Tensor, t: int) -> Step:
    """Build one training step of one of our rules."""
    rule_name, options = RULES[name]
    net = (
        clocked.conv5(x.shape[1:], 10, width=width)
        if network == "conv5"
        else clocked.fc(784, (800, 800), 10, dropout=0.2)
    )
    rule = clocked.RULES[rule_name](net, **options)
    parameters = [*net.parameters(), *rule.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=2e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        rule.step(x, y, steps=t)
        optimizer.step()

    return step


def measure(
    contestants: dict[str, Step],
    rounds: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Let the contestants take turns; return seconds of each step by a clock."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, step in contestants.items():
            step()  # warms the caches up
            for _ in range(repeats):
                start = clock()
                step()
                times[name].append(clock() - start)
    return times


def report(
    times: dict[str, list[float]], reference: str, digits: int = 1
) -> dict[str, dict[str, float]]:
    """Print a table, with so many digits of a millisecond; return it."""
    rows = {}
    base = statistics.median(times[reference])
    fastest = min(times[reference])
    print(f"{'':34} {'median ms':>10} {'min ms':>8} {'ratio of medians':>18} {'of minima':>10}")
    for name, values in times.items():
        median, least = statistics.median(values), min(values)
        rows[name] = {
            "median_ms": 1e3 * median,
            "min_ms": 1e3 * least,
            "ratio_of_medians": median / base,
            "ratio_of_minima": least / fastest,
        }
        print(
            f"{name:34} {1e3 * median:10.{digits}f} {1e3 * least:8.{digits}f} "
            f"{median / base:18.3f} {least / fastest:10.3f}"
        )
    print(f"ratios are to {reference}")
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SETTINGS, default="fc")
    parser.add_argument("--width", type=float, default=0.5, help="of conv5")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--precision",
        choices=("highest", "high", "medium"),
        default="highest",
        help="of PyTorch's products, torch.set_float32_matmul_precision",
    )
    parser.add_argument("--batch", type=int, help="128; 32 for conv5")
    parser.add_argument("--steps", type=int, default=6, help="time steps T")
    parser.add_argument("--rounds", type=int, help="15; 7 for conv5")
    parser.add_argument("--repeats", type=int, help="steps in a row: 5; 2 for conv5")
    parser.add_argument("--rules", nargs="+", choices=RULES, help="all; local learning on conv5")
    parser.add_argument("--profile", action="store_true", help="shares of our rules' steps instead")
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    for field in ("batch", "rounds", "repeats"):
        if getattr(options, field) is None:
            setattr(options, field, getattr(SETTINGS[options.network], field))
    if options.rules is None:
        options.rules = list(RULES if options.network == "conv5" else clocked.RULES)
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision(options.precision)
    torch.manual_seed(0)
    x = torch.randn(options.batch, *SETTINGS[options.network].shape)
    y = torch.randint(0, 10, (options.batch,))
    contestants = {
        f"threefactor {name}": ours(name, options.network, options.width, x, y, options.steps)
        for name in options.rules
    }
    if options.profile:
        rows = report_shares(contestants, options.repeats)
    else:
        if options.network == "conv5":
            others = spikingjelly_conv(x, y, options.steps, options.width)
            reference = "SpikingJelly OTTT"
        else:
            others = peers(x, y, options.steps)
            reference = "SpikingJelly BPTT"
        contestants.update(others)
        if reference not in others:
            reference = next(iter(contestants))
        rows = report(measure(contestants, options.rounds, options.repeats), reference)
    if options.json:
        document = {"torch": torch.__version__, **vars(options), "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
