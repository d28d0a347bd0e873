"""Peak memory of a training step against the number of time steps, for every rule.

    python benchmarks/clocked_memory.py [--json FILE]

Each measurement is a process of its own that reads its sequence step by step from a generator, and
reports how much its resident memory grew at most while it trained. The rules keep nothing of
earlier steps, so T = 600 should need what T = 6 needs. See benchmarks/README.md.
"""

import argparse
import json
import resource
import subprocess
import sys

import torch

from threefactor import clocked


def peak_mebibytes() -> float:
    """Highest resident memory of this process so far (kibibytes on Linux, bytes on macOS)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def child(rule_name: str, steps: int, batch: int) -> None:
    """Train on two sequences; print the peak and what was there before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = clocked.fc(784, (800, 800), 10, dropout=0.2)
    rule = clocked.RULES[rule_name](net)
    y = torch.randint(0, 10, (batch,))
    before = peak_mebibytes()
    for _ in range(2):
        net.zero_grad()
        rule.step((torch.randn(batch, 784) for _ in range(steps)), y, steps=steps)
    print(json.dumps({"before": before, "peak": peak_mebibytes()}))


def measure(rule_name: str, steps: int, batch: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", rule_name]
    command += ["--steps", str(steps), "--batch", str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=600, help="compared with T = 6")
    parser.add_argument("--rules", nargs="+", default=list(clocked.RULES))
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.steps, options.batch)
        return
    rows = {}
    long_name = f"T={options.steps}"
    print(f"{'rule':12} {'T=6 MiB':>9} {long_name + ' MiB':>11} {'ratio':>7} {'of the growth':>14}")
    for name in options.rules:
        short = measure(name, 6, options.batch)
        long = measure(name, options.steps, options.batch)
        growth = [measured["peak"] - measured["before"] for measured in (short, long)]
        rows[name] = {
            "peak_mib_6": short["peak"],
            "peak_mib_long": long["peak"],
            "ratio": long["peak"] / short["peak"],
            "growth_mib_6": growth[0],
            "growth_mib_long": growth[1],
        }
        print(
            f"{name:12} {short['peak']:9.1f} {long['peak']:11.1f} "
            f"{rows[name]['ratio']:7.3f} {growth[1] / growth[0]:14.3f}"
        )
    if options.json:
        document = {"torch": torch.__version__, "steps": options.steps, "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
