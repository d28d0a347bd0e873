"""What a training step costs each of two processes that train as one.

    python benchmarks/processes.py [--json FILE]

`rule.join` makes processes share the samples of a batch. Each row is one network and rule: the
processor time of a step in one process that has the whole batch, and in each of N that have a part
of it, one thread each. The alternatives take turns, and the least of the rounds counts. Less than
1 in the last column is what is gained; 1/N would be all. See docs/several-processes.md.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

import torch

import threefactor
from threefactor import clocked

NETWORKS = {"fc": ((784,), 128, 20), "conv5": ((3, 32, 32), 64, 4)}  # input, batch, steps a round


def child(network: str, rule_name: str) -> None:
    """Train on one batch; the first process prints the median of its processor times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape, batch, repeats = NETWORKS[network]
    net = (
        clocked.fc(784, (800, 800), 10, dropout=0.2)
        if network == "fc"
        else clocked.conv5(shape, 10, width=0.25)
    )
    world = threefactor.World()
    rule = clocked.RULES[rule_name](net)
    rule.join(world)
    parameters = [*net.parameters(), *rule.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, fused=True)
    rows = world.rows(batch)
    x, y = torch.rand(batch, *shape)[rows], torch.randint(0, 10, (batch,))[rows]
    times = []
    for _ in range(2 + repeats):
        start = time.process_time()
        optimizer.zero_grad()
        rule.step(x, y, steps=6)
        optimizer.step()
        times.append(time.process_time() - start)
    if world.rank == 0:
        print(json.dumps(statistics.median(times[2:])))


def measure(network: str, rule: str, processes: int) -> float:
    """Return the seconds of processor time that a step takes in each of so many processes."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [__file__, "--child", network, rule]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rules", nargs="+", choices=clocked.RULES, default=["opzo", "dfa"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="also write the table to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    print(f"{'':16} {'one process, ms':>16} {'each of several':>16} {'ratio':>6}")
    rows = {}
    for network in options.networks:
        for rule in options.rules:
            times: dict[int, list[float]] = {1: [], options.processes: []}
            for _ in range(options.rounds):
                for processes, found in times.items():
                    found.append(measure(network, rule, processes))
            alone, each = (1e3 * min(found) for found in times.values())
            rows[f"{network} {rule}"] = {"alone_ms": alone, "each_ms": each, "ratio": each / alone}
            print(f"{network + ' ' + rule:16} {alone:16.1f} {each:16.1f} {each / alone:6.2f}")
    if options.json:
        document = {
            "command": " ".join(["python", *sys.argv]),
            "processes": options.processes,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.platform(),
            "rows": rows,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
