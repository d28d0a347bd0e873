"""Time and memory of the event-driven engine, and of jaxsnn if it is installed.

    python benchmarks/events_step.py [--json FILE] [--only SECTION ...]

A synaptic event is one input spike that reaches one neuron. Nanoseconds per synaptic event measure
a layer, whatever its width and its number of spikes. Inputs are random spikes with the statistics
of MNIST's images, so the script needs no data. All contestants take turns. Read the ratios. See
benchmarks/README.md.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from threefactor import events
from threefactor.data import yin_yang

Step = Callable[[], object]
RULES = {"exact-bp": events.ExactBP, "dfa": events.DFA, "sfdfa": events.SFDFA}
SECTIONS = ("rules", "widths", "inputs", "rates", "growth", "memory", "yin-yang")
PIXELS, CLASSES, SPIKES, WINDOW = 784, 10, 150, 0.1
BATCHES = 4  # different ones, in turn
YIN_YANG_TRAIN, YIN_YANG_TEST, YIN_YANG_BATCH = 4992, 2944, 64


class Case(NamedTuple):
    """One line of a table."""

    what: str
    threads: int = 1
    width: int = 800
    spikes: int = SPIKES
    threshold: float = 0.2
    batch: int = 50
    layers: int = 1


class Contestant(NamedTuple):
    """A step, what it has to do, and the spikes of a hidden neuron in a sample."""

    step: Step
    synaptic_events: float
    hidden_spikes: float


def mnist_like(samples: int, spikes: int, seed: int) -> events.SpikeBatch:
    """Random spikes with the statistics of MNIST's images in the latency code.

    A sample has 150 +- 41 spikes, most at the centre of the image. Two fifths of its pixels are
    nearly white, many of which spike at once; the others are of any grey.
    """
    random = np.random.default_rng(seed)
    side = np.arange(28) - 13.5
    weight = np.exp(-(side[:, None] ** 2 + side**2) / (2 * 6.5**2)).ravel()
    images = np.zeros((samples, PIXELS), np.uint8)
    for image in images:
        n = int(np.clip(random.normal(spikes, 0.27 * spikes), 1, PIXELS))
        grey, white = random.integers(1, 250, n), random.integers(252, 255, n)
        pixels = random.choice(PIXELS, n, replace=False, p=weight / weight.sum())
        image[pixels] = np.where(random.random(n) < 0.4, white, grey)
    return events.latency_code(images, WINDOW)


def contestant(case: Case) -> Contestant:
    """Build one forward pass or one training step (rule and Adam)."""
    torch.manual_seed(0)
    net = events.fc(
        PIXELS, (case.width,) * case.layers, CLASSES,
        tau_s=0.130, thresholds=(case.threshold, 0.7), duration=0.2,
    )  # fmt: skip
    batches = [mnist_like(case.batch, case.spikes, seed) for seed in range(BATCHES)]
    labels = torch.randint(0, CLASSES, (case.batch,))
    work, hidden = 0.0, 0.0
    for spikes in batches:
        made = events.run(net, spikes).spikes
        given = [len(part.times) / BATCHES for part in (spikes, *made.values())]
        hidden += sum(given[1:-1]) / (case.batch * case.width * case.layers)
        work += given[-2] * CLASSES + sum(given[:-2]) * case.width
    turns = itertools.cycle(batches)
    if case.what == "forward":

        def step() -> None:
            torch.set_num_threads(case.threads)
            events.run(net, next(turns))

    else:
        rule = RULES[case.what](net)
        # A learning rate of 0 costs as much and keeps the firing rates as they are.
        optimizer = torch.optim.Adam(net.parameters(), lr=0.0, fused=True)

        def step() -> None:
            torch.set_num_threads(case.threads)
            optimizer.zero_grad()
            rule.step(next(turns), labels)
            optimizer.step()

    return Contestant(step, work, hidden)


def take_turns(steps: Sequence[Step], rounds: int, repeats: int) -> list[list[float]]:
    """Return the seconds of every repetition of every step."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, row in zip(steps, times, strict=True):
            step()  # warms the caches up
            for _ in range(repeats):
                start = time.perf_counter()
                step()
                row.append(time.perf_counter() - start)
    return times


def table(title: str, cases: Sequence[Case], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure cases in turn; print and return nanoseconds per synaptic event."""
    print(f"\n{title}")
    print(
        f"{'':10} {'threads':>7} {'width':>6} {'spikes':>6} {'threshold':>9} {'hidden':>7} "
        f"{'ns median':>10} {'ns min':>8} {'medians':>8} {'minima':>7}"
    )
    contestants = [contestant(case) for case in cases]
    times = take_turns([c.step for c in contestants], options.rounds, options.repeats)
    rows: list[dict[str, Any]] = []
    for case, c, seconds in zip(cases, contestants, times, strict=True):
        per_event = 1e9 / c.synaptic_events
        median, least = statistics.median(seconds) * per_event, min(seconds) * per_event
        row = {
            **case._asdict(),
            "hidden_spikes_per_neuron": c.hidden_spikes,
            "synaptic_events_per_step": c.synaptic_events,
            "median_ns": median,
            "min_ns": least,
            "ratio_of_medians": median / rows[0]["median_ns"] if rows else 1.0,
            "ratio_of_minima": least / rows[0]["min_ns"] if rows else 1.0,
        }
        rows.append(row)
        print(
            f"{case.what:10} {case.threads:7} {case.width:6} {case.spikes:6} "
            f"{case.threshold:9.3f} {c.hidden_spikes:7.3f} {median:10.3f} {least:8.3f} "
            f"{row['ratio_of_medians']:8.2f} {row['ratio_of_minima']:7.2f}"
        )
    return rows


def fit(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Split the least times on one thread into a part per synaptic event and one per hidden spike.

    Least squares of relative errors over all rows of a kind.
    """
    print("\nfit of the minima on one thread: a * synaptic events + b * hidden spikes")
    found = {}
    for kind in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == kind and row["threads"] == 1]
        work = np.array([row["synaptic_events_per_step"] for row in own])
        spikes = np.array(
            [row["hidden_spikes_per_neuron"] * row["width"] * row["batch"] for row in own]
        )
        seconds = np.array([row["min_ns"] for row in own]) * work
        parts = np.stack([work, spikes], 1) / seconds[:, None]
        (a, b), *_ = np.linalg.lstsq(parts, np.ones(len(own)), rcond=None)
        worst = np.abs(parts @ [a, b] - 1.0).max()
        found[kind] = [float(a), float(b), float(worst)]
        print(f"{kind:10} a = {a:6.3f} ns, b = {b:6.1f} ns, largest error {100 * worst:4.0f} %")
    return found


def growth(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Print and return how time grows with each size, and how far it lies from a straight line."""
    print("\ngrowth of the least time of a step on one thread; the line is a + b * synaptic events")
    found: dict[str, list[dict[str, Any]]] = {}
    for what in ("forward", "sfdfa"):
        base = Case(what, batch=options.batch)
        scales = [n / 10 for n in options.growth]
        axes = {
            "input spikes": [base._replace(spikes=round(600 * x)) for x in scales],
            "batch": [base._replace(batch=max(1, round(4 * options.batch * x))) for x in scales],
            "width": [base._replace(width=round(3200 * x)) for x in scales],
            "depth": [base._replace(width=400, layers=n) for n in (1, 2, 4, 8)],
            "rate": [base._replace(threshold=x) for x in options.thresholds],
        }
        for axis, cases in axes.items():
            contestants = [contestant(case) for case in cases]
            times = take_turns([c.step for c in contestants], options.rounds, options.repeats)
            # At a higher rate, a spike costs more than the synaptic events that it causes.
            hidden = [c.hidden_spikes for c in contestants]
            work = hidden if axis == "rate" else [c.synaptic_events for c in contestants]
            least = [min(row) for row in times]
            b, a = np.polyfit(work, least, 1, w=1.0 / np.array(least))
            rows = []
            for case, c, x, seconds in zip(cases, contestants, work, least, strict=True):
                row = {
                    **case._asdict(),
                    "synaptic_events": c.synaptic_events,
                    "hidden_spikes_per_neuron": c.hidden_spikes,
                    "min_s": seconds,
                    "line_s": float(a + b * x),
                    "times_work": c.synaptic_events / contestants[0].synaptic_events,
                    "times_time": seconds / least[0],
                }
                rows.append(row)
                print(
                    f"{what:8} {axis:12} batch {case.batch:4} spikes {case.spikes:4} "
                    f"width {case.width:5} layers {case.layers} hidden {c.hidden_spikes:6.3f}: "
                    f"{1e3 * seconds:8.3f} ms, line {1e3 * row['line_s']:8.3f} ms; "
                    f"work x {row['times_work']:6.2f}, time x {row['times_time']:6.2f}"
                )
            worst = max(abs(row["line_s"] / row["min_s"] - 1.0) for row in rows)
            print(f"{what:8} {axis:12} largest distance from the line {100 * worst:.0f} %")
            found[f"{what} by {axis}"] = rows
    return found


def reset_peak() -> None:
    """Forget the highest resident memory so far; only Linux can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_mebibytes() -> float:
    """Highest resident memory of this process (kibibytes on Linux, bytes on macOS)."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        found = dict(line.split(":", 1) for line in file)
        return int(found["VmHWM"].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def memory_child(samples: int, batch: int) -> None:
    """Print what one epoch adds to the memory after the data is there and one batch was seen."""
    torch.set_num_threads(1)
    part = mnist_like(min(samples, 500), SPIKES, 0)
    copies = samples // len(part)
    times, addresses = np.empty((copies, len(part.times))), np.empty((copies, len(part.times)), int)
    times[:], addresses[:] = part.times, part.addresses
    lengths = np.tile(np.diff(part.offsets), copies)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    data = events.SpikeBatch(offsets, times.ravel(), addresses.ravel(), PIXELS)
    labels = torch.arange(len(data)) % CLASSES
    net = events.fc(PIXELS, (800,), CLASSES, tau_s=0.130, thresholds=(0.2, 0.7), duration=0.2)
    rule = events.SFDFA(net, rate_penalty=0.1, rate_target=0.2)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    before = 0.0
    for i, chosen in enumerate(torch.randperm(len(data)).split(batch)):
        optimizer.zero_grad()
        rule.step(data[chosen], labels[chosen])
        optimizer.step()
        if i == 0:  # what the data's making took is forgotten
            reset_peak()
            before = peak_mebibytes()
    print(json.dumps({"spikes": len(data.times), "before": before, "peak": peak_mebibytes()}))


def memory(options: argparse.Namespace) -> list[dict[str, float]]:
    """Print and return what training on few and on many samples adds to the memory."""
    print("\nmemory: MiB that an epoch of SFDFA adds after its first batch, data not counted")
    rows = []
    for samples in (options.memory_samples // 10, options.memory_samples):
        command = [sys.executable, __file__, "--child", str(samples), "--batch", str(options.batch)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        added = found["peak"] - found["before"]
        rows.append({"samples": samples, "spikes": found["spikes"], "added_mib": added})
        print(f"{samples:8} samples {found['spikes']:10} spikes {added:8.1f} MiB")
    return rows


class TargetTimes:
    """The loss of jaxsnn's example: squared distance of first spikes from their target times."""

    reads_first_spikes = True

    def __init__(self, tau_s: float) -> None:
        self.true, self.false, self.tau = 0.9 * tau_s, 1.1 * tau_s, 2.0 * tau_s

    def __call__(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients by the output, which is minus the first times."""
        wanted = torch.full_like(output, self.false).scatter_(1, targets.unsqueeze(1), self.true)
        late = (-output - wanted) / self.tau
        return late.square().sum(1), -2.0 / self.tau * late


class YinYang:
    """jaxsnn's example in threefactor: network, code, loss, initial weights, clipping and Adam.

    Every neuron spikes once at most. jaxsnn looks at the first 50 events of the hidden layer only,
    input included; here all of them count, about twice as many.
    """

    def __init__(self, train: int, test: int) -> None:
        torch.manual_seed(0)
        self.tau_s = 5e-3
        self.train, self.labels = self._code(train, 42)
        self.test, self.test_labels = self._code(test, 40)
        self.net = events.fc(
            5, (100,), 3,
            tau_s=self.tau_s, thresholds=2 * self.tau_s, duration=4 * self.tau_s, max_spikes=1,
        )  # fmt: skip
        with torch.no_grad():
            self.net.lif1.weight.normal_(3.0, 1.6)
            self.net.readout.weight.normal_(0.5, 0.8)
        self.rule = events.ExactBP(self.net, loss=TargetTimes(self.tau_s))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=5e-3, fused=True)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.99)
        self.hidden_spikes = 0.0
        self.accuracy = 0.0

    def _code(self, samples: int, seed: int) -> tuple[events.SpikeBatch, Tensor]:
        """Times of 5 spikes: x, y, 1 - x, 1 - y over two synaptic time constants, a bias at 0."""
        values, labels = yin_yang(samples, seed)
        times = np.concatenate([2.0 * self.tau_s * values, np.zeros((samples, 1))], axis=1)
        offsets, addresses = np.arange(samples + 1) * 5, np.tile(np.arange(5), samples)
        return events.SpikeBatch(offsets, times.ravel(), addresses, 5), torch.from_numpy(labels)

    def learn(self) -> None:
        for chosen in torch.randperm(len(self.labels)).split(YIN_YANG_BATCH):
            self.optimizer.zero_grad()
            self.rule.step(self.train[chosen], self.labels[chosen])
            for weight in self.net.parameters():
                weight.grad.mul_(1.0 / self.tau_s).clamp_(-0.01, 0.01)
            self.optimizer.step()
        self.scheduler.step()

    def evaluate(self) -> None:
        result = events.run(self.net, self.test, loss=self.rule.loss)
        self.accuracy = (result.output.argmax(1) == self.test_labels).float().mean().item()
        self.hidden_spikes = len(result.spikes["lif1"].times) / len(self.test)


Epochs = dict[str, list[float]]


def timed(seconds: list[float], function: Step) -> object:
    start = time.perf_counter()
    result = function()
    seconds.append(time.perf_counter() - start)
    return result


def jaxsnn_epochs(epochs: int, train: int, test: int, between: Step) -> tuple[Epochs, float]:
    """Run jaxsnn's example `yinyang_analytical` as it is, epoch by epoch, with a stopwatch.

    Its own stopwatch stops before the computation does, which runs on by itself.
    """
    import jax
    from jaxsnn.base.dataset import data_loader
    from jaxsnn.event.types import OptState
    from jaxsnn.examples.event import yinyang_analytical as example

    found: Epochs = {"train": [], "test": []}

    def epoch(
        update: Any, evaluate: Any, trainset: Any, testset: Any, *rest: Any
    ) -> tuple[Any, tuple[Any, Any, float]]:
        batch_size, test_batch_size, state, _ = rest
        rng, train_rng, test_rng = jax.random.split(state.rng, 3)

        def learn() -> Any:
            batches = data_loader(trainset, batch_size, rng=train_rng)
            return jax.block_until_ready(jax.lax.scan(update, state, batches))

        state, _ = timed(found["train"], learn)
        batches = data_loader(testset, test_batch_size, rng=test_rng)

        def test_all() -> Any:
            return jax.block_until_ready(evaluate(state.params, batches))

        result, _ = timed(found["test"], test_all)
        return OptState(state.opt_state, state.params, rng), (result, state.params, 0.0)

    def scan(function: Any, state: Any, steps: Any) -> tuple[Any, tuple[Any, None, None]]:
        results = []
        for i in steps:
            state, (result, _, _) = function(state, i)
            results.append(result)
            between()
        accuracies = [float(result[1]) for result in results]
        return state, ((None, accuracies), None, None)

    example.epoch, example.scan = epoch, scan
    arguments = ["--epochs", epochs, "--trainset-size", train, "--testset-size", test]
    return found, example.main(example.get_parser().parse_args([str(a) for a in arguments]))


def yin_yang_epochs(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return seconds of an epoch on Yin-Yang, of ours and of jaxsnn's example."""
    print("\nyin-yang: 5-100-3, exact gradients, batches of 64; first epochs apart")
    train, test = options.yin_yang_samples, max(YIN_YANG_BATCH, options.yin_yang_samples // 2)
    if train == YIN_YANG_TRAIN:
        test = YIN_YANG_TEST
    ours = YinYang(train, test)
    seconds: dict[int, Epochs] = {n: {"train": [], "test": []} for n in options.threads}

    def turn() -> None:
        for threads, epochs in seconds.items():
            torch.set_num_threads(threads)
            for _ in range(options.repeats):
                timed(epochs["train"], ours.learn)
                timed(epochs["test"], ours.evaluate)

    document: dict[str, Any] = {"train": train, "test": test}
    if importlib.util.find_spec("jaxsnn") is None:
        print("jaxsnn is not installed: left out (see benchmarks/README.md)")
        for _ in range(options.rounds):
            turn()
    else:
        theirs, accuracy = jaxsnn_epochs(options.rounds + 1, train, test, turn)
        document["jaxsnn"] = summary("jaxsnn", theirs, accuracy)
    print(f"hidden spikes per sample: {ours.hidden_spikes:.1f}")
    for i, (threads, epochs) in enumerate(seconds.items()):
        own = summary(f"threefactor, threads: {threads}", epochs, ours.accuracy)
        own["hidden_spikes_per_sample"] = ours.hidden_spikes
        ratios = {}
        if "jaxsnn" in document:
            for part in ("train", "test"):
                for kind in ("median", "min"):
                    key = f"{part}_{kind}_s"
                    ratios[f"{part}_ratio_of_{kind}"] = document["jaxsnn"][key] / own[key]
            print(
                f"jaxsnn / threefactor, training: {ratios['train_ratio_of_median']:.1f} (medians), "
                f"{ratios['train_ratio_of_min']:.1f} (minima)"
            )
        if i == 0:
            document |= {"threefactor": own, **ratios}
        else:
            document[f"threefactor_{threads}_threads"] = own | ratios
    return document


def summary(name: str, seconds: Epochs, accuracy: float) -> dict[str, float]:
    row = {"accuracy": accuracy, "first_epoch_s": seconds["train"][0]}
    for part, values in seconds.items():
        later = values[1:] or values
        row[f"{part}_median_s"], row[f"{part}_min_s"] = statistics.median(later), min(later)
    print(
        f"{name:22} first {row['first_epoch_s']:7.3f} s, training {row['train_median_s']:7.4f} s "
        f"(min {row['train_min_s']:7.4f}), test {row['test_median_s']:7.4f} s, "
        f"accuracy {accuracy:.3f} after {len(seconds['train'])} epochs"
    )
    return row


def machine() -> str:
    """The processor's name and the cores that this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        name = next((line.split(":", 1)[1].strip() for line in file if "model name" in line), name)
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--widths", type=int, nargs="+", default=[100, 200, 400, 800, 1600, 3200])
    parser.add_argument("--inputs", type=int, nargs="+", default=[75, 150, 300, 600])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.4, 0.2, 0.1, 0.05])
    parser.add_argument("--growth", type=float, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-samples", type=int, default=20_000)
    parser.add_argument("--yin-yang-samples", type=int, default=YIN_YANG_TRAIN)
    parser.add_argument("--json", help="also write the tables to this file")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        memory_child(options.child, options.batch)
        return
    bases = [Case(kind, batch=options.batch) for kind in ("forward", *RULES)]
    cases = {
        "rules": [case._replace(threads=n) for case in bases for n in options.threads],
        "widths": [case._replace(width=n) for case in bases for n in options.widths],
        "inputs": [case._replace(spikes=n) for case in bases for n in options.inputs],
        "rates": [case._replace(threshold=x) for case in bases for x in options.thresholds],
    }
    document: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **vars(options),
    }
    measured: list[dict[str, Any]] = []
    for name, rows in cases.items():
        if name in options.only:
            document[name] = table(f"{name}: nanoseconds per synaptic event", rows, options)
            measured += document[name]
    if any(row["threads"] == 1 for row in measured):
        document["fit"] = fit(measured)
    if "growth" in options.only:
        document["growth"] = growth(options)
    if "memory" in options.only:
        document["memory"] = memory(options)
    if "yin-yang" in options.only:
        document["yin-yang"] = yin_yang_epochs(options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
