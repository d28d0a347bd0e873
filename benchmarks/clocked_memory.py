"""Peak memory of a training step against the number of time steps, for every rule.

    python benchmarks/clocked_memory.py [--network conv5] [--json FILE]

Each measurement runs in its own process. It reads its sequence step by step from a generator and
reports the largest growth of its resident memory while it trained. The rules keep nothing of
earlier steps, so T = 600 should need as much as T = 6. With `--outputs 1000`, feedback matrices
take most of the memory, and `--patch` makes them smaller. See benchmarks/README.md.
"""

import argparse
import json
import resource
import subprocess
import sys

import torch

from threefactor import clocked

NETWORKS = ("fc", "conv5", "conv9", "nf_resnet34", "imagenet")
SETTINGS = ("steps", "network", "outputs", "patch", "batch")


def peak_mebibytes() -> float:
    """Highest resident memory of this process so far (kibibytes on Linux, bytes on macOS)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def build(name: str, outputs: int) -> clocked.Network:
    """Make one of the networks; the convolutional ones are small, but for that of ImageNet."""
    if name == "fc":
        return clocked.fc(784, (800, 800), outputs, dropout=0.2)
    if name == "imagenet":
        return clocked.nf_resnet34((3, 224, 224), outputs)
    if name == "nf_resnet34":
        return clocked.nf_resnet34((3, 32, 32), outputs, width=0.25, depths=(1, 1, 1, 1))
    return {"conv5": clocked.conv5, "conv9": clocked.conv9}[name]((3, 16, 16), outputs, width=0.25)


def child(rule_name: str, options: argparse.Namespace) -> None:
    """Train on two sequences; print the peak and what was there before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build(options.network, options.outputs)
    given = {"feedback_patch": options.patch} if options.patch > 1 else {}
    if options.network in ("nf_resnet34", "imagenet"):
        given["chain"] = "within-layers"
    rule = clocked.RULES[rule_name](net, **given)
    y = torch.randint(0, options.outputs, (options.batch,))
    feedback = sum(part.matrix.nbytes for part in getattr(rule, "feedback", []))
    before = peak_mebibytes()
    for _ in range(2):
        net.zero_grad()
        inputs = (torch.randn(options.batch, *net.input_shape) for _ in range(options.steps))
        rule.step(inputs, y, steps=options.steps)
    found = {"before": before, "peak": peak_mebibytes(), "feedback": feedback / 2**20}
    print(json.dumps(found))


def measure(rule_name: str, steps: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", rule_name, "--steps", str(steps)]
    for name in ("batch", "network", "outputs", "patch"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=NETWORKS, default="fc")
    parser.add_argument("--outputs", type=int, default=10, help="classes m")
    parser.add_argument("--patch", type=int, default=1, help="feedback_patch of DFA and OPZO")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=600, help="compared with T = 6")
    parser.add_argument("--rules", nargs="+", default=list(clocked.RULES))
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    rows = {}
    long_name = f"T={options.steps}"
    columns = f"{'T=6 MiB':>9} {long_name + ' MiB':>11} {'ratio':>7} {'of the growth':>14}"
    print(f"{'rule':12} {columns} {'feedback MiB':>13}")
    for name in options.rules:
        short = measure(name, 6, options)
        long = measure(name, options.steps, options)
        growth = [measured["peak"] - measured["before"] for measured in (short, long)]
        rows[name] = {
            "peak_mib_6": short["peak"],
            "peak_mib_long": long["peak"],
            "ratio": long["peak"] / short["peak"],
            "growth_mib_6": growth[0],
            "growth_mib_long": growth[1],
            "feedback_mib": short["feedback"],
        }
        print(
            f"{name:12} {short['peak']:9.1f} {long['peak']:11.1f} "
            f"{rows[name]['ratio']:7.3f} {growth[1] / growth[0]:14.3f} {short['feedback']:13.1f}"
        )
    if options.json:
        settings = {name: getattr(options, name) for name in SETTINGS}
        document = {"torch": torch.__version__, **settings, "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
