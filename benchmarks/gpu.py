"""Everything that only a GPU can tell, in one command of at most eight minutes: `make gpu`.

    python benchmarks/gpu.py [--json gpu.json] [--seconds 450] [--device cuda]

It needs PyTorch and the sources, and Triton for the kernels; it installs and downloads nothing.
Most important first, and the JSON is written after every line, so that a run that is cut short has
told what it could:

    right   gradients, feedback, loss and output of every rule and network against the CPU
    quiet   how often a step makes the CPU wait for the GPU: PyTorch's own count
    step    time and memory of a step; products a second, and those of the card
    epoch   conv5 at its full width on CIFAR-10, or on pictures of its size where it is not there
    grow    how the time of a step grows with batch, width and T

Each part has a share of the time and leaves out what does not fit into it: such lines say so. The
command fails if a gradient is wrong or a step waits more than once. `--device cpu --quick`
rehearses all of it with tiny networks.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

SOURCE = Path(__file__).parents[1] / "src" / "threefactor"
if find_spec("threefactor") is None or find_spec("pydantic") is None:
    # A bare machine: the networks and rules alone, without the package's other dependencies.
    package = types.ModuleType("threefactor")
    package.__path__ = [str(SOURCE)]
    sys.modules["threefactor"] = package

from threefactor import clocked  # noqa: E402
from threefactor.clocked import kernels  # noqa: E402
from threefactor.clocked.captured import Captured  # noqa: E402
from threefactor.clocked.noise import Perturbation  # noqa: E402

SHARES = {"right": 0.25, "quiet": 0.05, "step": 0.45, "epoch": 0.13, "grow": 0.12}
"""Of all seconds. What a part leaves over goes to the next."""
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "opzo": ("opzo", {}),
    "dfa": ("dfa", {}),
    "spatial-bp": ("spatial-bp", {}),
    "dkp": ("dkp", {}),
    "zo": ("zo", {}),
    "opzo two-point": ("opzo", {"points": "two-point"}),
    "opzo before": ("opzo", {"noise_position": "before"}),
    "opzo local": ("opzo", {"local_learning": "learned"}),
}
PRECISIONS = ("highest", "high", "medium")
LIMITS = {torch.float64: 1e-9, torch.float32: 2e-3}
"""Of the largest value of a tensor. In float32 a potential may round to the other side of the
threshold, and a spike more or less is seen in every gradient behind it."""


class Network:
    """A network to measure: how it is built, and one sample's shape."""

    def __init__(self, build: Callable[..., nn.Module], shape: tuple[int, ...], **options: Any):
        self.build, self.shape, self.options = build, shape, options

    def rule(self, rule: str, device: torch.device, dtype: torch.dtype) -> clocked.Rule:
        """Build network and rule, the same for each device."""
        torch.manual_seed(0)
        net = self.build().double()
        with torch.no_grad():  # so that the deepest neurons spike
            for part, parameter in net.named_parameters():
                if part.endswith("gain"):
                    parameter.uniform_(2.0, 4.0)
                elif part.endswith("bias"):
                    parameter.uniform_(0.0, 0.8)
                elif parameter.dim() == 2:
                    parameter.mul_(2.0)
        name, options = RULES[rule]
        made = clocked.RULES[name](net, **self.options, **options)
        net.to(device, dtype)
        return made.to(device, dtype)

    def batch(self, size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Draw inputs and labels, the same for each device."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(size, *self.shape, generator=generator, dtype=torch.float64)
        y = torch.randint(0, 10, (size,), generator=generator)
        return x.to(device, dtype), y.to(device)


def resnet(side: int, **options: Any) -> Network:
    shape = (3, side, side)
    return Network(lambda: clocked.nf_resnet34(shape, 10, **options), shape, chain="within-layers")


SMALL = {
    "fc": Network(lambda: clocked.fc(40, (33, 20), 10), (40,)),
    "conv5": Network(lambda: clocked.conv5((3, 16, 16), 10, width=0.1), (3, 16, 16)),
    "conv9": Network(lambda: clocked.conv9((3, 16, 16), 10, width=0.1), (3, 16, 16)),
    "nf-resnet34": resnet(32, width=0.1, depths=(1, 1, 1, 1)),
}
CIFAR = (3, 32, 32)
LARGE = {
    "fc": Network(lambda: clocked.fc(784, (800, 800), 10, dropout=0.2), (784,)),
    "conv5": Network(lambda: clocked.conv5(CIFAR, 10), CIFAR),
    "conv9": Network(lambda: clocked.conv9(CIFAR, 10), CIFAR),
    "nf-resnet34": resnet(224),
}
BATCHES = {"fc": 128, "conv5": 128, "conv9": 128, "nf-resnet34": 32}


class Report:
    """What was found, on disk after every line; and the time that is left."""

    def __init__(self, path: str | None, seconds: float, device: torch.device) -> None:
        self.path, self.start, self.seconds = path, time.monotonic(), seconds
        self.end = self.start
        self.parts: dict[str, list[dict[str, Any]]] = {}
        self.document = {"about": about(device), "seconds": 0.0, **self.parts}

    def begin(self, part: str) -> None:
        self.end = min(self.end, self.start + self.seconds) + SHARES[part] * self.seconds
        self.end = min(self.end, self.start + self.seconds)
        self.parts[part] = []
        print(f"-- {part}", flush=True)

    def line(self, part: str, about: dict[str, Any], find: Callable[[], dict[str, Any]]) -> None:
        """Add what `find` returns, what stopped it, or that there was no time."""
        if time.monotonic() > self.end:
            found: dict[str, Any] = {"left_out": "no time"}
        else:
            try:
                found = find()
            except Exception as problem:  # the other lines are worth having
                text = str(problem).strip().partition("\n")[0]
                found = {"failed": f"{type(problem).__name__}: {text:.300}"}
                if not isinstance(problem, torch.OutOfMemoryError):
                    found["where"] = traceback.format_exc(limit=-3)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        row = {**about, **found}
        self.parts[part].append(row)
        shown = {k: v for k, v in row.items() if k != "where"}
        print(" ".join(f"{k}={_short(v)}" for k, v in shown.items()), flush=True)
        self.write()

    def write(self) -> None:
        self.document.update(self.parts, seconds=round(time.monotonic() - self.start, 1))
        if self.path is not None:
            Path(f"{self.path}.new").write_text(json.dumps(self.document, indent=1) + "\n")
            os.replace(f"{self.path}.new", self.path)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def about(device: torch.device) -> dict[str, Any]:
    """Describe the machine."""
    found: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "triton": None,
        "python": platform.python_version(),
        "device": str(device),
        "kernels": kernels.triton_for(torch.zeros(1, device=device)) is not None,
    }
    if find_spec("triton") is not None:
        import triton

        found["triton"] = triton.__version__
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "card": card.name,
            "memory_gib": card.total_memory / 2**30,
            "capability": list(torch.cuda.get_device_capability(device)),
            "cuda": torch.version.cuda,
        }
    return found


@contextlib.contextmanager
def way(name: str) -> Iterator[None]:
    """Work with the kernels, with them in a graph, or with PyTorch's operations alone."""
    if name != "operations":
        yield
        return
    with mock.patch.object(kernels, "TRITON_DEVICES", ()):
        yield


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Let products of float32, convolutions too, be made in this precision."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(name)
    torch.backends.cudnn.allow_tf32 = name != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


# ---- right ----


@contextlib.contextmanager
def noise_of_the_cpu() -> Iterator[None]:
    """Draw noise on the CPU in double precision, so that every device has the same."""
    generator = torch.Generator().manual_seed(2)

    def draw(self: Perturbation, noise: Tensor | None, like: Tensor, step: int) -> Tensor:
        if noise is not None and self.antithetic and step % 2 == 1:
            return noise.neg_()
        z = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return (self.scale * z).to(like)

    with mock.patch.object(Perturbation, "draw", draw):
        yield


def outcome(
    network: Network, rule: str, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Make two steps, one of a constant input; return all that they leave behind."""
    made = network.rule(rule, device, dtype)
    x, y = network.batch(8, device, dtype)
    with noise_of_the_cpu():
        first = made.step(x, y, steps=4)
        second = made.step(torch.stack([x, 0.5 * x, -x]), y)
    return left_behind(made, first, second)


def left_behind(
    made: clocked.Rule, first: clocked.Result, second: clocked.Result
) -> dict[str, Tensor]:
    """Return loss, output, rates, gradients and feedback in double precision."""
    found = {"output": first.output + second.output}
    assert first.loss is not None and second.loss is not None
    found["loss"] = first.loss + second.loss
    found["firing rates"] = torch.stack(
        [torch.stack(list(r.firing_rates.values())) for r in (first, second)]
    )
    found |= {n: p.grad for n, p in made.network.named_parameters() if p.grad is not None}
    found |= {f"rule {n}": p.grad for n, p in made.named_parameters() if p.grad is not None}
    found |= {f"rule {n}": b for n, b in made.named_buffers()}
    return {name: value.detach().double().cpu() for name, value in found.items()}


def right(network: Network, rule: str, device: torch.device) -> dict[str, Any]:
    """Compare the device with the CPU."""
    found: dict[str, Any] = {"right": True}
    with precision("highest"):
        exact = outcome(network, rule, torch.device("cpu"), torch.float64)
        for dtype, name in ((torch.float64, "float64"), (torch.float32, "float32")):
            for how in ("kernels", "operations"):
                if dtype is torch.float64 and how == "kernels":
                    continue  # kernels take float32
                with way(how):
                    other = outcome(network, rule, device, dtype)
                worst, where = 0.0, ""
                for part, value in exact.items():
                    size = float(value.abs().max())
                    if size > 0:
                        apart = float((other[part] - value).abs().max()) / size
                        if not apart <= worst:
                            worst, where = apart, part
                found[f"{name} {how}"] = worst
                if not worst <= LIMITS[dtype]:
                    found["right"], found["worst"] = False, where
    found |= graph_is_right(network, rule, device)
    if found.get("graph") not in (None, True):
        found["right"] = False
    if not float(exact["firing rates"].min()) > 0:
        found["right"], found["worst"] = False, "a layer is silent: nothing was compared"
    return found


def graph_is_right(network: Network, rule: str, device: torch.device) -> dict[str, Any]:
    """Compare a graph that is replayed with steps as usual: with equal seeds, to rounding."""
    if device.type != Captured.device_type:
        return {}
    outcomes = []
    reason: str | None = None
    for captured in (False, True):
        made = network.rule(rule, device, torch.float32)
        fast = Captured(made)
        torch.manual_seed(3)
        x, y = network.batch(8, device, torch.float32)
        results = []
        for factor in (1.0, 0.7, 0.4):
            step = fast.step if captured else made.step
            results.append(step(factor * x, y, steps=4))
        reason = fast.reason
        outcomes.append(left_behind(made, *results[1:]))
    if reason is not None:
        return {"graph": f"not replayed: {reason}"}
    worst = 0.0
    for part, value in outcomes[0].items():
        size = float(value.abs().max())
        if size > 0:
            worst = max(worst, float((outcomes[1][part] - value).abs().max()) / size)
    return {"graph apart": worst, "graph": worst <= LIMITS[torch.float32] or "other numbers"}


# ---- quiet ----


def quiet(network: Network, rule: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Count how often a step makes the CPU wait."""
    made = network.rule(rule, device, torch.float32)
    x, y = network.batch(batch, device, torch.float32)
    optimizer = torch.optim.AdamW([*made.network.parameters(), *made.parameters()], fused=True)

    def step() -> None:
        optimizer.zero_grad()
        made.step(x, y, steps=3)
        optimizer.step()

    for _ in range(2):
        step()
    if device.type != "cuda":
        return {"waits": None}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in said if "synchroniz" in str(w.message)]
    places = sorted({f"{Path(w.filename).name}:{w.lineno}" for w in waits})
    # The one is the verdict on inputs and labels, before anything is kept.
    return {"waits": len(waits), "places": places, "right": len(waits) <= 1}


# ---- step ----


class Step:
    """A whole training step of ours."""

    def __init__(
        self,
        network: Network,
        rule: str,
        batch: int,
        steps: int,
        device: torch.device,
        *,
        how: str = "kernels",
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        made = network.rule(rule, device, torch.float32)
        made.network.to(memory_format=layout)
        self.captured = Captured(made) if how == "graph" else None
        self.learn = made.step if self.captured is None else self.captured.step
        self.x, self.y = network.batch(batch, device, torch.float32)
        self.steps = steps
        parameters = [*made.network.parameters(), *made.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=2e-4, fused=True)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.learn(self.x, self.y, steps=self.steps)
        self.optimizer.step()


def timed(step: Callable[[], object], device: torch.device, seconds: float) -> dict[str, Any]:
    """Measure the time of a step, and the memory that it needs beyond what was there before it."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(2):  # the second captures, where there is a graph
        step()
    wait()
    found: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        wait()
        found["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 3 or (time.monotonic() < end and len(times) < 200):
        start = time.perf_counter()
        step()
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    return {"median_ms": times[len(times) // 2], "min_ms": times[0], "runs": len(times), **found}


def products(network: nn.Module, sample: Tensor, steps: int) -> float:
    """Count the floating-point operations that the products of a step of direct feedback need.

    Forward at every step and one gradient of the weights for each; the first layer, whose input is
    constant, makes both once.
    """
    layers = [m for m in network.modules() if isinstance(m, clocked.Linear | clocked.Conv2d)]
    counts: list[float] = []

    def count(layer: Any, _: Any, out: Tensor) -> None:
        counts.append(2.0 * layer.weight[0].numel() * out[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
        for module in network.modules():
            if isinstance(module, clocked.Neuron):
                module.reset()
    # Linear layers: an output is one number of weight[0].numel() products; so of convolutions.
    return 2.0 * (counts[0] + steps * sum(counts[1:]))


def card_rate(device: torch.device, size: int) -> dict[str, Any]:
    """Measure what the card makes of one large product, in 10^12 operations a second."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    best = timed(lambda: a @ b, device, 0.5)["min_ms"]
    return {"tera_per_s": 2.0 * size**3 / best / 1e9}


def peers_of(name: str, batch: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Return a training step of each peer that is installed."""
    sys.path.insert(0, str(Path(__file__).parent))
    from peers import peers, spikingjelly_conv

    x, y = LARGE[name].batch(batch, device, torch.float32)
    with torch.device(device):
        return peers(x, y, steps) if name == "fc" else spikingjelly_conv(x, y, steps, 1.0)


def measure_steps(report: Report, networks: dict[str, Network], options: Any) -> None:
    device, quick = options.device, options.quick
    each = 0.0 if quick else 0.4
    for name in PRECISIONS:
        with precision(name):
            size = 64 if quick else 8192
            report.line(
                "step", {"what": "one product", "size": size, "precision": name},
                lambda size=size: card_rate(device, size),
            )  # fmt: skip

    def ours(
        net: str, rule: str, how: str = "kernels", level: str = "highest", t: int = 6,
        batch: int | None = None, layout: torch.memory_format = torch.contiguous_format,
    ) -> None:  # fmt: skip
        size = batch or BATCHES[net]
        if quick:
            size, t = 2, t // 3

        def find() -> dict[str, Any]:
            with way(how), precision(level):
                step = Step(networks[net], rule, size, t, device, how=how, layout=layout)
                found = timed(step, device, each)
            if step.captured is not None:
                found["not_replayed"] = step.captured.reason  # None: it was
            if rule in ("opzo", "dfa"):
                made = networks[net]
                sample = made.batch(1, torch.device("cpu"), torch.float32)[0]
                work = size * products(made.build(), sample, t)
                found["tera_per_s"] = work / found["median_ms"] / 1e9
            return found

        about = {"network": net, "rule": rule, "how": how, "precision": level, "t": t}
        if layout is not torch.contiguous_format:
            about["layout"] = str(layout)
        report.line("step", {**about, "batch": size}, find)

    for net in ("fc", "conv5"):
        for how in ("kernels", "graph", "operations"):
            ours(net, "opzo", how)
        for peer, step in _peers(net, quick, device).items():
            report.line(
                "step", {"network": net, "peer": peer, "t": 6, "batch": BATCHES[net]},
                lambda step=step: timed(step, device, each),
            )  # fmt: skip
        for level in PRECISIONS[1:]:
            ours(net, "opzo", level=level)
    last = torch.channels_last
    ours("conv5", "opzo", level="high", batch=512)
    for how in ("kernels", "graph"):
        ours("conv5", "opzo", how, level="high", batch=512, layout=last)
    for net in list(networks)[2:]:
        for level in ("highest", "high"):
            ours(net, "opzo", level=level)
    for net in ("fc", "conv5"):
        for rule in RULES:
            if rule != "opzo":
                ours(net, rule, level="high")
    for net in ("fc", "conv5"):  # memory that does not grow with T
        ours(net, "opzo", level="high", t=60)
    for net in list(networks)[2:]:
        for rule in ("dfa", "spatial-bp", "opzo local"):
            ours(net, rule, level="high")


def _peers(name: str, quick: bool, device: torch.device) -> dict[str, Any]:
    if quick:
        return {}
    try:
        return peers_of(name, BATCHES[name], 6, device)
    except Exception as problem:  # a peer that this machine lacks or that does not run here
        print(f"peers left out: {type(problem).__name__}: {problem}")
        return {}


# ---- epoch ----


def cifar10() -> tuple[Tensor, Tensor] | None:
    """Read the training pictures, if they are there in the binary version."""
    folder = os.environ.get("THREEFACTOR_DATA")
    files = sorted(Path(folder).glob("cifar10/**/data_batch_*.bin")) if folder else []
    if not files:
        return None
    parts = [torch.frombuffer(bytearray(f.read_bytes()), dtype=torch.uint8) for f in files]
    records = torch.cat(parts).view(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def epoch(network: Network, device: torch.device, quick: bool, end: float) -> dict[str, Any]:
    """Train for an epoch, or until the time is over."""
    found = cifar10()
    if found is None:
        generator = torch.Generator().manual_seed(0)
        count = 64 if quick else 50_000
        images = torch.randint(0, 256, (count, *network.shape), generator=generator)
        found = images.to(torch.uint8), torch.randint(0, 10, (count,), generator=generator)
        source = "random pictures"
    else:
        source = "cifar10"
    if quick:
        found = found[0][:64, :, : network.shape[1], : network.shape[2]], found[1][:64]
    images, labels = (part.to(device) for part in found)
    made = network.rule("opzo", device, torch.float32)
    parameters = [*made.network.parameters(), *made.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=2e-4, fused=True)
    batch = 16 if quick else 128
    order = torch.randperm(len(images), device=device)
    right = torch.zeros((), device=device)
    trained, start = 0, time.monotonic()
    for rows in order.split(batch):
        x = images[rows].to(torch.float32).div_(255.0).sub_(0.5).div_(0.25)
        optimizer.zero_grad()
        result = made.step(x, labels[rows], steps=6)
        optimizer.step()
        right += (result.output.argmax(1) == labels[rows]).sum()
        trained += len(rows)
        if time.monotonic() > end:
            break
    accuracy = float(right) / trained  # waits for the device
    seconds = time.monotonic() - start
    return {
        "source": source,
        "samples": trained,
        "whole": trained == len(images),
        "seconds": seconds,
        "samples_per_s": trained / seconds,
        "train_accuracy": accuracy,
    }


# ---- all of it ----


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--seconds", type=float, default=450.0, help="in all")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to rehearse")
    parser.add_argument("--json", help="write here, after every line")
    options = parser.parse_args()
    device: torch.device = options.device
    if device.type == "cuda" and not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        print(
            f"there is no GPU that PyTorch {torch.__version__}, built {built}, can see: nothing "
            "was measured. --device cpu --quick rehearses on the CPU",
            file=sys.stderr,
        )
        return 2
    if device.type == "cuda":
        torch.cuda.set_device(device)
    networks = {n: SMALL[n] for n in ("fc", "conv5")} if options.quick else LARGE
    report = Report(options.json, options.seconds, device)

    report.begin("right")
    if options.quick:
        for rule in list(RULES)[2:]:
            del RULES[rule]
    rules = list(RULES)
    for rule in rules:
        for name in networks if options.quick else SMALL:
            report.line(
                "right", {"network": name, "rule": rule},
                lambda rule=rule, name=name: right(SMALL[name], rule, device),
            )  # fmt: skip
    report.begin("quiet")
    for name, batch in (("fc", 16), ("conv5", 4), ("nf-resnet34", 2)):
        for rule in rules if name == "fc" else rules[:1]:
            report.line(
                "quiet", {"network": name, "rule": rule},
                lambda name=name, rule=rule, batch=batch: quiet(SMALL[name], rule, batch, device),
            )  # fmt: skip
    report.begin("step")
    measure_steps(report, networks, options)
    report.begin("epoch")
    with precision("high"):
        report.line(
            "epoch", {"network": "conv5", "rule": "opzo", "precision": "high"},
            lambda: epoch(networks["conv5"], device, options.quick, report.end),
        )  # fmt: skip
    report.begin("grow")
    for about, network, batch, steps in growing(options.quick):
        with precision("high"):
            report.line(
                "grow", {**about, "batch": batch, "t": steps, "precision": "high"},
                lambda n=network, b=batch, t=steps: timed(
                    Step(n, "opzo", b, t, device), device, 0.0 if options.quick else 0.3
                ),
            )  # fmt: skip
    lines = [line for part in report.parts.values() for line in part]
    bad = [x for x in lines if x.get("right") is False or ("failed" in x and "median_ms" not in x)]
    print(f"{len(lines)} lines in {time.monotonic() - report.start:.0f} s, {len(bad)} of them bad")
    return 1 if bad else 0


def growing(quick: bool) -> Iterator[tuple[dict[str, Any], Network, int, int]]:
    """Name what grows: batch, T and width, one at a time."""
    if quick:
        yield {"network": "fc", "width": 20}, SMALL["fc"], 4, 2
        return
    for batch in (16, 64, 256, 1024, 4096):
        yield {"network": "fc", "width": 800}, LARGE["fc"], batch, 6
    for steps in (1, 3, 12, 24, 60):
        yield {"network": "fc", "width": 800}, LARGE["fc"], 128, steps
    for width in (100, 400, 1600, 6400):
        wide = Network(lambda w=width: clocked.fc(784, (w, w), 10), (784,))
        yield {"network": "fc", "width": width}, wide, 128, 6
    for batch in (16, 64, 256, 512):
        yield {"network": "conv5", "width": 1.0}, LARGE["conv5"], batch, 6
    for factor in (0.25, 0.5, 2.0):
        wide = Network(lambda f=factor: clocked.conv5(CIFAR, 10, width=f), CIFAR)
        yield {"network": "conv5", "width": factor}, wide, 128, 6


if __name__ == "__main__":
    sys.exit(main())
