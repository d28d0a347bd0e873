"""Streams of single samples: the time of one learning time step, and whether it stays the same.

    python benchmarks/stream.py [--long 1000000] [--json FILE]

Two parts. In the first, the contestants learn from one time step of one sample, 784-800-800-10:
`rule.observe` with a label, and the same in the peers that are installed, whose states go on and
are cut from autograd's graph after each step. Each has gradients cleared before, as by
`optimizer.zero_grad()`. They take turns. The second table includes a step of AdamW. Times are those
of the processor, on one thread: a step is so short that other work of the machine would count.

In the second, one stream runs for `--long` time steps on a small network, with an update at each:
microseconds a step and resident memory on the way. See benchmarks/README.md.
"""

import argparse
import importlib.util
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from clocked_step import measure, report
from peers import optimizer_for, stand_in_for_torchvision, step_loss
from torch import Tensor, nn
from torch.nn import functional as F

from threefactor import clocked

Step = Callable[[], object]
RULES = ("dfa", "opzo", "zo", "dkp", "spatial-bp")
REFERENCE = "SpikingJelly OTTT"
Samples = Iterator[tuple[Tensor, Tensor]]


def random_samples() -> Samples:
    """Give one sample after the other, (1, 784) and its label, again and again."""
    x, y = (torch.rand(500, 1, 784) < 0.2).float(), torch.randint(0, 10, (500, 1))
    return itertools.cycle(list(zip(x, y, strict=True)))


def learn(output: Tensor, y: Tensor) -> None:
    """Let autograd carry the loss of one time step back."""
    step_loss(output, y, F.one_hot(y, 10).float(), 1).backward()


def ours(name: str, samples: Samples, adamw: bool) -> Step:
    net = clocked.fc(784, (800, 800), 10)
    rule = clocked.RULES[name](net)
    optimizer = optimizer_for(nn.ModuleList([net, rule]))

    def step() -> None:
        optimizer.zero_grad()
        rule.observe(*next(samples))
        if adamw:
            optimizer.step()

    return step


def spikingjelly(samples: Samples, adamw: bool, *, ottt: bool) -> Step:
    """OTTT step by step, or plain LIF layers whose graph ends with each time step."""
    stand_in_for_torchvision()
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    kind = neuron.OTTTLIFNode if ottt else neuron.LIFNode

    def node() -> nn.Module:
        return kind(
            tau=2.0,
            decay_input=False,
            v_threshold=1.0,
            v_reset=None,
            surrogate_function=surrogate.Sigmoid(alpha=4.0),
            detach_reset=True,
            step_mode="s",
        )

    build = layer.OTTTSequential if ottt else nn.Sequential
    net = build(nn.Linear(784, 800), node(), nn.Linear(800, 800), node(), nn.Linear(800, 10))
    optimizer = optimizer_for(net)

    def step() -> None:
        optimizer.zero_grad()
        x, y = next(samples)
        learn(net(x), y)
        if not ottt:
            functional.detach_net(net)
        if adamw:
            optimizer.step()

    return step


def snntorch(samples: Samples, adamw: bool) -> Step:
    import snntorch as snn
    from snntorch import surrogate

    layers = nn.ModuleList([nn.Linear(784, 800), nn.Linear(800, 800), nn.Linear(800, 10)])
    grad = surrogate.sigmoid(slope=4)
    neurons = [snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=False) for _ in range(2)]
    potentials = [n.init_leaky() for n in neurons]
    optimizer = optimizer_for(layers)

    def step() -> None:
        optimizer.zero_grad()
        activity, y = next(samples)
        for i, n in enumerate(neurons):
            activity, potentials[i] = n(layers[i](activity), potentials[i].detach())
        learn(layers[-1](activity), y)
        if adamw:
            optimizer.step()

    return step


def contestants(samples: Samples, adamw: bool) -> dict[str, Step]:
    found = {f"threefactor {name}": ours(name, samples, adamw) for name in RULES}
    if importlib.util.find_spec("spikingjelly") is not None:
        found[REFERENCE] = spikingjelly(samples, adamw, ottt=True)
        found["SpikingJelly LIF, graph cut"] = spikingjelly(samples, adamw, ottt=False)
    if importlib.util.find_spec("snntorch") is not None:
        found["snnTorch Leaky, graph cut"] = snntorch(samples, adamw)
    return found


def resident_mib() -> float:
    """Resident memory of the process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def long_stream(steps: int) -> list[dict[str, float]]:
    """Run one stream, and tell time and memory at powers of ten; every other label is missing."""
    torch.manual_seed(0)
    net = clocked.fc(20, (30, 30), 3)
    rule = clocked.OPZO(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    inputs = (torch.rand(1000, 1, 20) < 0.3).float()
    labels = torch.randint(0, 3, (1000, 1))
    rows: list[dict[str, float]] = []
    marks = [10**k for k in range(3, 10) if 10**k <= steps]
    times: list[float] = []
    print(f"{'time steps':>12} {'us a step, median':>18} {'least':>7} {'resident MiB':>13}")
    for t in range(steps):
        start = time.process_time()
        optimizer.zero_grad()
        rule.observe(inputs[t % 1000], labels[t % 1000] if t % 2 else None)
        optimizer.step()
        times.append(time.process_time() - start)
        del times[:-1000]
        if t + 1 in marks:
            pairs = [a + b for a, b in zip(times[::2], times[1::2], strict=True)]
            rows.append(
                {
                    "steps": t + 1,
                    "median_us": 1e6 * statistics.median(pairs) / 2,
                    "min_us": 1e6 * min(pairs) / 2,
                    "resident_mib": resident_mib(),
                }
            )
            row = rows[-1]
            print(
                f"{t + 1:12} {row['median_us']:18.0f} {row['min_us']:7.0f} "
                f"{row['resident_mib']:13.1f}",
                flush=True,
            )
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", type=int, default=10**6, help="time steps of the second part")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=40, help="steps in a row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="also write the tables to this file")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tables = {}
    for title, adamw in (("learning", False), ("learning and AdamW", True)):
        print(f"\n{title}: one time step of one sample")
        given = contestants(random_samples(), adamw)
        reference = REFERENCE if REFERENCE in given else next(iter(given))
        tables[title] = report(
            measure(given, options.rounds, options.repeats, time.process_time), reference, digits=3
        )
    print("\none stream on 20-30-30-3 with OPZO and SGD")
    rows = long_stream(options.long)
    if options.json:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        document = {
            "command": " ".join(["python", *sys.argv]),
            **versions,
            "machine": platform.platform(),
            "tables": tables,
            "stream": rows,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
