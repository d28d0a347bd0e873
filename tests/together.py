"""One of several processes that train together and compare with one process: `RANK SIZE FOLDER`.

With one argument more, `adopted`, the networks are those of other libraries.

It writes what it found to `FOLDER/found-RANK.json`: texts by the name of the check, empty if all is
well. The tests of `test_processes.py` read them.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
from reference import clocked_cases, events_cases
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from typing_extensions import Unpack

import threefactor
from threefactor import World, clocked, events, plugins, training
from threefactor.data import from_dataset
from threefactor.data.samples.own import OwnData
from threefactor.errors import (
    CheckpointError,
    ConfigurationError,
    DivergenceError,
    InputError,
    ProcessError,
)
from threefactor.processes import Share
from threefactor.recipes import recipe
from threefactor.training import Trainer, build, fetching
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher

UPDATES, FEW = 20, 4
SMALL = {"data.train": 49, "data.test": 21, "batch_size": 8, "hidden": [12, 9], "dtype": "float64"}
"""The last batch has one sample, which two processes cannot share."""
TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "opzo": ("digits-fc", "opzo", {"track.measures": ["alignment"], "track.every": 3}),
    "opzo-each-step": ("digits-fc", "opzo", {"update": "step"}),
    "zo-hardware": ("digits-fc", "dfa", {"hardware_noise": 0.2}),
    "held-out": (
        "digits-fc",
        "opzo",
        {
            **{"recurrent": True, "learn_leak": True, "feedback_delay": 2, "clip_norm": 0.05},
            **{"validation": 0.3, "stopping.patience": 1, "stopping.least": 0.5, "epochs": 3},
        },
    ),
    "own": (
        "digits-fc",
        "together-rule",
        {"data.name": "together-data", "loss.kind": "together-loss", "epochs": 2},
    ),
    "values": (
        "digits-fc",
        "opzo",
        {
            **{"data.name": "together-values", "loss.kind": "SmoothL1Loss", "epochs": 4},
            **{"validation": 0.3, "optimizer.lr": 0.3},
            "scheduler": {"name": "ReduceLROnPlateau", "options": {"patience": 0, "factor": 0.3}},
        },
    ),
    "labels": (
        "digits-fc",
        "dfa",
        {
            **{"data.name": "together-labels", "loss.kind": "BCEWithLogitsLoss", "epochs": 2},
            **{"track.measures": ["alignment"], "track.every": 3, "optimizer.lr": 0.03},
            "hidden": [40, 30],  # of samples that spike alike, rounding decides who comes first
        },
    ),
    "labels-few": (
        "digits-fc",
        "opzo",
        {"data.name": "together-few", "loss.kind": "BCEWithLogitsLoss", "epochs": 2},
    ),
    "conv": (
        "cifar10-conv5-small",
        "opzo",
        {
            **{"data.name": "together-pictures", "data.train": None, "width": 0.04, "steps": 3},
            **{"data.padding": 1, "data.flip": True, "data.cutout": 2, "clip_value": 0.002},
            "dropout": 0.2,
            "optimizer.options.weight_decay": 0.1,
        },
    ),
    "conv-host": (
        "cifar10-conv5-small",
        "dkp",
        {
            **{"data.name": "together-pictures", "data.train": None, "width": 0.04, "steps": 3},
            **{"data.padding": 0, "data.flip": False, "data.cutout": 0, "data.place": "host"},
            **{"validation": 0.2, "clip_norm": 0.1, "update": "step"},
        },
    ),
    "dkp": ("digits-fc", "dkp", {"dropout": 0.2, "data.place": "host", "clip_value": 0.003}),
    "dfa-each-step": ("digits-fc", "dfa", {"update": "step", "clip_norm": 0.02, "dropout": 0.2}),
    "zo-disk": ("digits-fc", "zo", {"data.place": "disk", "dropout": 0.2, "data.validation": 0.3}),
    "spatial-bp": ("digits-fc", "spatial-bp", {"recurrent": True, "dropout": 0.2}),
    "local-each-step": (
        "digits-fc",
        "opzo",
        {
            **{"rule.options.local_learning": "learned", "update": "step", "learn_leak": True},
            **{"feedback_delay": 1, "optimizer.options.weight_decay": 0.1, "recurrent": True},
        },
    ),
    "single": ("digits-fc", "opzo", {"dtype": "float32", "dropout": 0.2, "optimizer.lr": 1e-4}),
    "exact-bp": ("digits-events", "exact-bp", {"thresholds": [0.1, 0.05, 0.05]}),
    "events-dfa": (
        "digits-events",
        "dfa",
        {"thresholds": [0.1, 0.05, 0.05], "clip_norm": 0.01, "validation": 0.3},
    ),
    "sfdfa": ("digits-events", "sfdfa", {"thresholds": [0.1, 0.05, 0.05], "rate_penalty": 0.1}),
}


def own_data() -> Any:
    """Pictures of a user's own, which a transform changes at random, in a loader."""

    class Shaken(Dataset[Any]):
        def __len__(self) -> int:
            return 49

        def __getitem__(self, i: int) -> Any:
            x = nn.functional.one_hot(torch.tensor(i % 7), 7).double().repeat(3)
            return 3 * x + torch.rand(21), i % 7

    pictures = torch.rand(21, 21, generator=torch.Generator().manual_seed(0))
    still = TensorDataset(pictures, torch.arange(21) % 7)
    return from_dataset(Shaken(), DataLoader(still, batch_size=8), outputs=7, dtype=torch.float64)


def several_targets(kind: str, tests: int) -> Any:
    """Values, or several labels for each sample."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(49 + tests, 21, generator=draw, dtype=torch.float64)
    y = x @ torch.randn(21, 3, generator=draw, dtype=torch.float64)
    y = y if kind == "values" else (y > 0).double()
    return OwnData(x[:49], y[:49], x[49:], y[49:], kind, (21,), 3)


def pictures_of_classes() -> Any:
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(40, 3, 16, 16, generator=draw, dtype=torch.float64)
    y = torch.arange(40) % 4
    return OwnData(x[:25], y[:25], x[25:], y[25:], "pictures", (3, 16, 16), 4)


def focal(output: Tensor, targets: Tensor, *, gamma: float = 2.0) -> Tensor:
    log = torch.log_softmax(output, 1).gather(1, targets[:, None])[:, 0]
    return -((1 - log.exp()) ** gamma) * log


class Correlated(clocked.Rule):
    """Feedback that gathers, in a buffer, what the activity has to do with the error."""

    def __init__(self, network: nn.Module, **options: Unpack[clocked.RuleOptions]) -> None:
        super().__init__(network, **options)
        for i, n in enumerate(self.layer_sizes.values()):
            start = torch.randn(self.outputs, n) / n**0.5
            self.register_buffer(f"m{i}", start.to(next(network.parameters())))

    def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
        found = []
        for i, layer in enumerate(step.layers):
            m, activity = self.get_buffer(f"m{i}"), layer.activity
            assert activity is not None
            found.append(step.error @ self.get_buffer(f"m{i}"))
            change = step.error.t() @ activity
            if self.batch_share is not None:
                self.batch_share.world.add([change])
            m.add_(change, alpha=0.1)
        return found

    def synchronise(self, share: Share) -> None:
        """The changes are those of all processes."""


RULES = ("opzo", "dfa", "dkp", "zo-one-point", "spatial-bp")


def settings_of(name: str, **changes: Any) -> training.Settings:
    kind, rule, own = TRAININGS[name]
    small = {k: v for k, v in SMALL.items() if "data.name" not in own or not k.startswith("data")}
    if "width" in own:
        del small["hidden"]
    return recipe(kind).settings_for(rule, {**small, "epochs": 1, **own, **changes})


def differs(joint: list[Tensor], alone: list[Tensor], tolerance: float) -> str:
    """Say where two lists of tensors differ, in proportion to the largest value."""
    for i, (a, b) in enumerate(zip(joint, alone, strict=True)):
        scale = float(b.abs().max())
        if not float((a - b).abs().max()) <= tolerance * max(scale, 1e-3):
            return f"tensor {i}: {float((a - b).abs().max())} of {scale}"
    return "" if any(float(b.abs().max()) > 0 for b in alone) else "all zero"


def learned(rule: Any, result: Any) -> list[Tensor]:
    state = [*rule.network.state_dict().values(), *rule.state_dict().values()]
    tensors = [t.detach().double().clone() for t in state if isinstance(t, Tensor) and t.numel()]
    return [*tensors, result.loss.double(), *(r.double() for r in result.firing_rates.values())]


def train(
    rule: Any, batches: Callable[[int], tuple[Any, Any]], learn: Any, world: Any, updates: int
) -> Any:
    if world is not None:
        rule.join(world)
    optimizer = torch.optim.AdamW([*rule.network.parameters(), *rule.parameters()], lr=1e-2)
    result = None
    for i in range(updates):
        x, y = batches(i)
        result = learn(rule, x, y, optimizer)
    return learned(rule, result)


def whole_sequence(rule: Any, x: Any, y: Tensor, optimizer: Any) -> Any:
    optimizer.zero_grad()
    result = rule.step(x, y)
    optimizer.step()
    return result


def each_step(rule: Any, x: Tensor, y: Tensor, optimizer: Any) -> Any:
    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return rule.step(x, y, after_step=update)


def stream(rule: Any, x: Tensor, y: Tensor, optimizer: Any) -> Any:
    optimizer.zero_grad()
    for x_t in x[:-1]:
        rule.observe(x_t, y, steps=len(x))
    result = rule.observe(x[-1], y, steps=len(x))
    optimizer.step()
    rule.reset()  # neurons of sinabs have their potentials in the state_dict
    return result


def some_labels(rule: Any, x: Any, y: Tensor, optimizer: Any) -> Any:
    optimizer.zero_grad()
    result = rule.step(x, [None, y, None, y, y])
    optimizer.step()
    return result


def late_stream(rule: Any, x: Tensor, y: Tensor, optimizer: Any) -> Any:
    """A stream whose labels come two steps late, with an update in its middle."""
    rule.reset()
    optimizer.zero_grad()
    for t, x_t in enumerate(x):
        result = rule.observe(x_t, None if t < 2 else y, steps=len(x))
        if t == 3:
            optimizer.step()
    optimizer.step()
    return result


def rows_of(x: Any, rows: slice) -> Any:
    return tuple(part[:, rows] for part in x) if isinstance(x, tuple) else x[:, rows]


def clocked_check(
    world: World, build_rule: Any, data: Any, learn: Any, tolerance: float, updates: int
) -> str:
    def batches(rows: slice) -> Callable[[int], tuple[Any, Any]]:
        def batch(i: int) -> tuple[Any, Any]:
            x, y = data(i)
            return rows_of(x, rows), y[rows]

        return batch

    rows = slice(0, 1) if world.is_first else slice(1, clocked_cases.BATCH)  # unequal
    joint = train(build_rule(), batches(rows), learn, world, updates)
    alone = train(build_rule(), batches(slice(None)), learn, None, updates)
    return differs(joint, alone, tolerance)


def sequence(dtype: torch.dtype, i: int) -> Any:
    return clocked_cases.make_data(seed=i, dtype=dtype)


def pictures(dtype: torch.dtype, i: int) -> Any:
    return clocked_cases.make_pictures(seed=i, dtype=dtype)


TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


class Clocked:
    """Gathers checks of networks on a time grid, by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.checks: dict[str, Callable[[], str]] = {}

    def add(
        self,
        name: str,
        make: Callable[[torch.dtype], Any],
        data: Any = sequence,
        learn: Any = whole_sequence,
        *,
        updates: int = FEW,
        single: bool = False,
    ) -> None:
        """Check in float64 and, if `single`, in float32, too."""
        for dtype, tolerance in list(TOLERANCES.items())[: 1 + single]:
            self.checks[f"{name}-{dtype}"] = partial(
                clocked_check,
                self.world,
                partial(make, dtype),
                partial(data, dtype),
                learn,
                tolerance,
                updates,
            )


def clocked_checks(world: World) -> dict[str, Callable[[], str]]:
    found = Clocked(world)

    def usual(case: str, dtype: torch.dtype, **options: Any) -> Any:
        return clocked_cases.build(case, dtype=dtype, **options)[1]

    def of_pictures(case: str, kind: str, dtype: torch.dtype) -> Any:
        return clocked_cases.build_pictures(case, kind, dropout=0.2, dtype=dtype)[1]

    def local(options: dict[str, Any], dtype: torch.dtype) -> Any:
        torch.manual_seed(1)
        network = clocked_cases.make_network(dtype=dtype)
        return clocked_cases.make_rule("opzo", network, **options)

    for case in clocked_cases.CASES:
        chief = case in RULES
        updates = UPDATES if chief else FEW
        found.add(case, partial(usual, case, dropout=0.2), updates=updates, single=chief)
        if not chief:
            continue
        single = case == "opzo"
        found.add(f"{case}-each", partial(usual, case), learn=each_step, single=single)
        found.add(f"{case}-stream", partial(usual, case), learn=stream, single=single)
        for kind in clocked_cases.PICTURE_NETWORKS:
            found.add(f"{case}-{kind}", partial(of_pictures, case, kind), pictures, single=single)
    for name, options in clocked_cases.LOCAL_CASES.items():
        middle = {"intermediate": "lif2"} if "intermediate" in options else {}
        found.add(f"opzo-{name}", partial(local, {**options, **middle}), single=True)
    return found.checks


class Soft(nn.Module):
    """Neurons of a user's own: a forward pass in PyTorch, with a surrogate gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        v = x if self.v is None else 0.7 * self.v + x
        soft = torch.sigmoid(4 * (v - 1))
        fired = (v > 1).to(x) - soft.detach() + soft
        self.v = v - fired.detach()
        return fired


clocked.register_neuron(Soft, state=("v",), leak=0.7)


class Senses(nn.Module):
    """Two inputs, one hidden layer each."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = clocked.Linear(7, 5), clocked.Linear(4, 6)
        self.lif1, self.lif2 = clocked.LIF(dropout=0.2), clocked.LIF()
        self.readout = clocked.Linear(11, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        both = (self.lif1(self.left(x)), self.lif2(self.right(z)))
        return self.readout(torch.cat(both, 1))


def later_checks(world: World) -> dict[str, Callable[[], str]]:
    """Networks and ways to learn that a step of plain layers does not have."""
    learned = {"learn_leak": True, "learn_threshold": True, "dropout": 0.2}
    kept = {"feedback_meets": "kept-eligibility"}
    networks: dict[str, dict[str, Any]] = {"recurrent": {"recurrent": True}, "learned": learned}
    found = Clocked(world)

    def rule_of(case: str, network: dict[str, Any], dtype: torch.dtype, **options: Any) -> Any:
        torch.manual_seed(1)
        net = clocked_cases.make_network(dtype=dtype, **network)
        return clocked_cases.make_rule(case, net, **options)

    for case in RULES:
        add = partial(found.add, single=case == "opzo")
        for name, options in networks.items():
            add(f"{case}-{name}", partial(rule_of, case, options))
        labels = partial(rule_of, case, {"recurrent": True})
        add(f"{case}-some-labels", labels, learn=some_labels)
        late_labels = partial(rule_of, case, learned, label_delay=2)
        add(f"{case}-late-labels", late_labels, learn=late_stream)
        add(f"{case}-senses", partial(senses, case), two_inputs)
        add(f"{case}-foreign", partial(foreign, case))
        if case in ("opzo", "dfa", "dkp"):
            for name, how in (("arriving", {}), ("kept", kept)):
                late = partial(rule_of, case, {"recurrent": True, **learned}, feedback_delay=2)
                add(f"{case}-{name}", partial(late, **how))
                add(f"{case}-{name}-each", partial(late, **how), learn=each_step)
                add(f"{case}-{name}-stream", partial(late, **how), learn=stream)
            delivered = {**kept, "late_errors": "delivered", "feedback_delay": 2}
            add(f"{case}-delivered", partial(rule_of, case, {}, **delivered))
    return found.checks


def two_inputs(dtype: torch.dtype, i: int) -> Any:
    x, y = sequence(dtype, i)
    return (x, 2 * torch.rand(*x.shape[:2], 4, dtype=x.dtype)), y


def senses(case: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(1)
    network = Senses().to(dtype)
    clocked_cases.strengthen(network)
    return clocked_cases.make_rule(case, network, input_shape=((7,), (4,)))


def row_of_layers(make_neuron: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Sequential:
    """Plain layers of PyTorch with neurons of others."""
    torch.manual_seed(1)
    layers = [nn.Linear(7, 6), make_neuron(), nn.Linear(6, 5), make_neuron(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).to(dtype)


def foreign(case: str, dtype: torch.dtype) -> Any:
    network = row_of_layers(Soft, dtype)
    clocked_cases.strengthen(network)
    return clocked_cases.make_rule(case, network, input_shape=(7,))


def adopted_checks(world: World) -> dict[str, Callable[[], str]]:
    """Networks of other libraries, of those that are installed, under every rule."""
    found = Clocked(world)

    def rule_of(case: str, neurons: Any, gain: float, dtype: torch.dtype) -> Any:
        network: Any = row_of_layers(neurons, dtype)
        with torch.no_grad():
            for layer in network:
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(gain)
                    layer.bias.abs_()
        if type(network[1]).__module__.startswith("norse"):  # whose cells return their state, too
            network = import_module("norse.torch").SequentialState(*network)
        return clocked_cases.make_rule(case, network, input_shape=(7,))

    for library, (neurons, gain) in ADOPTED.items():
        if find_spec(library) is not None:
            for case in RULES:
                make = partial(rule_of, case, neurons, gain)
                learn = whole_sequence if case != "opzo" else stream
                found.add(f"{library}-{case}", make, learn=learn, single=case == "opzo")
    if find_spec("spikingjelly") is not None:
        found.checks["drawn"] = lambda: draws_its_own(
            world, import_module("spikingjelly.activation_based.layer").Dropout(0.3)
        )
    return found.checks


def of_snntorch() -> Any:
    library = import_module("snntorch")
    return library.Leaky(beta=0.6, init_hidden=True, spike_grad=library.surrogate.atan())


def of_spikingjelly() -> Any:
    library = import_module("spikingjelly.activation_based.neuron")
    return library.LIFNode(tau=2.0, decay_input=False)


def of_norse() -> Any:
    library = import_module("norse.torch")
    rates = {"tau_mem_inv": torch.tensor(500.0), "tau_syn_inv": torch.tensor(300.0)}
    return library.LIFCell(p=library.LIFParameters(**rates), dt=0.001)


def of_sinabs() -> Any:
    return import_module("sinabs.layers").LIF(tau_mem=2.0, norm_input=False)


ADOPTED: dict[str, tuple[Callable[[], Any], float]] = {
    "snntorch": (of_snntorch, 1.5),
    "spikingjelly": (of_spikingjelly, 1.5),
    "norse": (of_norse, 6.0),
    "sinabs": (of_sinabs, 2.5),
}
"""Neurons and the gain of the weights before them, by the library."""


def events_check(world: World, name: str, options: dict[str, Any], dtype: Any, tol: float) -> str:
    def make() -> Any:
        net = events_cases.make_network(
            (events_cases.INPUTS, 5, 4, events_cases.OUTPUTS), dtype=dtype
        )
        return events_cases.rule_of(name, net, **options)

    def batches(rows: slice) -> Callable[[int], tuple[Any, Any]]:
        return lambda i: (
            events_cases.make_inputs(5, seed=i)[rows],
            events_cases.make_labels(5, seed=i)[rows],
        )

    joint = train(make(), batches(world.rows(5)), whole_sequence, world, UPDATES)
    alone = train(make(), batches(slice(None)), whole_sequence, None, UPDATES)
    return differs(joint, alone, tol)


def events_checks(world: World) -> dict[str, Callable[[], str]]:
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "exact-bp": ("exact-bp", {"local_gradient": "modified", "rate_penalty": 0.1}),
        "events-dfa": ("dfa", {"rate_penalty": 0.1, "rate_target": 2.0}),
        "sfdfa": ("sfdfa", {"feedback_lr": 0.1}),
        "sfdfa-adam": ("sfdfa", {"feedback_lr": 0.1, "feedback_optimizer": "adam"}),
        "sfdfa-first": ("sfdfa", {"feedback_lr": 0.1, "feedback_first": True}),
        "sfdfa-count": ("sfdfa", {"normalise_by_count": True}),
    }
    found: dict[str, Callable[[], str]] = {}
    for name, (rule, options) in cases.items():
        for dtype, tol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            found[f"{name}-{dtype}"] = lambda r=rule, o=options, d=dtype, t=tol: events_check(
                world, r, o, d, t
            )
    return found


def lines_differ(
    together: list[dict[str, Any]], alone: list[dict[str, Any]], tolerance: float = 1e-9
) -> str:
    """Say where the metrics of some epochs differ, but for how long they took."""
    if len(together) != len(alone):
        return f"{len(together)} epochs together, {len(alone)} alone"
    for line, one in zip(together, alone, strict=True):
        if line.keys() != one.keys():
            return f"{sorted(line)} together, {sorted(one)} alone"
        for key in one.keys() - {"seconds", "samples_per_second"}:
            ours, theirs = line[key], one[key]
            if not isinstance(theirs, dict):
                ours, theirs = {key: ours}, {key: theirs}
            for a, b in zip(ours.values(), theirs.values(), strict=True):
                if not (a == b or abs(a - b) <= tolerance * max(abs(a), 1)):
                    return f"{key} of epoch {one['epoch']}: {line[key]} together, {one[key]} alone"
    return ""


def epoch(world: World, name: str, fetched: int = 1) -> str:
    def run(together: World | None) -> tuple[list[Tensor], list[Any], list[Any]]:
        # As on GPUs, several batches wait until their numbers are fetched.
        with mock.patch.object(fetching, "together_on", return_value=fetched):
            trainer = Trainer(build(settings_of(name)), world=together)
        history = trainer.fit()
        state = trainer.experiment
        tensors = [*state.network.state_dict().values(), *state.rule.state_dict().values()]
        kept = [t.double() for t in tensors if isinstance(t, Tensor)]
        return kept, history, trainer.tracked

    joint, lines, tracked = run(world)
    alone, others, measured = run(None)
    single = settings_of(name).dtype == "float32"
    said = lines_differ(lines, others, 1e-5 if single else 1e-9)
    if said:
        return said
    if len(tracked) != len(measured):
        return f"{len(tracked)} measurements together, {len(measured)} alone"
    return differs(joint, alone, 1e-5 if single else 1e-12)


def expect(kind: type[Exception], words: str, act: Callable[[], object]) -> str:
    try:
        act()
    except kind as problem:
        return "" if words in str(problem) else f"it said: {problem}"
    except Exception as problem:
        return f"it raised {problem!r}"
    return "nothing was refused"


def unsynchronised(world: World) -> str:
    """Rules of a user's own that learn in buffers and do not say how processes agree."""

    class Clocked(clocked.DFA):
        def layer_errors(self, step: clocked.TimeStep) -> Any:
            self.feedback[0].matrix.add_(0.1 * step.output.mean())
            return super().layer_errors(step)

        def moves(self, buffer: str) -> bool:
            return True

    class Events(events.DFA):
        def learn(self, trial: Any) -> None:
            self.feedback[0].matrix.add_(0.1 * trial.counts[0].mean())
            super().learn(trial)

    torch.manual_seed(1)
    x, y = clocked_cases.make_data()
    spikes, labels = events_cases.make_inputs(4), events_cases.make_labels(4)
    sizes = (events_cases.INPUTS, 5, events_cases.OUTPUTS)
    rules: list[tuple[Any, Any]] = [
        (Clocked(clocked_cases.make_network()), (x, y)),
        (Events(events_cases.make_network(sizes)), (spikes, labels)),
    ]
    for rule, batch in rules:
        rule.join(world)
        before = rule.feedback[0].matrix.clone()
        said = expect(InputError, "`synchronise`", partial(rule.step, *batch))
        if said or not torch.equal(before, rule.feedback[0].matrix):
            return f"{type(rule).__name__}: {said or 'feedback moved'}"
        world.end_step()
    return ""


def other_plans(world: World) -> str:
    """Other labelled steps, another number of steps, another call: words in all processes."""
    x, y = clocked_cases.make_data()
    first = world.is_first
    acts: list[Callable[[Any], object]] = [
        lambda rule: rule.step(x, [y, None, y, y, y] if first else [None, y, y, y, y]),
        lambda rule: rule.step(x if first else x[:3], y),
        lambda rule: rule.step(x, y) if first else rule.observe(x[0], y),
        lambda rule: rule.observe(x[0], y if first else None),
    ]
    for act in acts:
        _, rule = clocked_cases.build("opzo")
        rule.join(world)
        said = expect(InputError, "do not do the same", partial(act, rule))
        if said:
            return said
        rule.reset()
        rule.step(x, y)
    options = {"momentum": 0.5 if first else 0.6}
    other = clocked_cases.make_rule("opzo", clocked_cases.make_network(), **options)
    said = expect(ConfigurationError, "network or rule", lambda: other.join(world))
    leaky = clocked_cases.make_network(leak=0.5 if first else 0.6)
    other = clocked_cases.make_rule("opzo", leaky)
    return said or expect(ConfigurationError, "the network's layers", lambda: other.join(world))


def apart(world: World) -> str:
    """What one process alone does to its weights or layers: words before the next update."""
    first = world.is_first

    def update(rule: Any, optimizer: Any) -> None:
        if first:
            optimizer.step()

    def own_step(rule: Any, optimizer: Any) -> None:
        """The first process has momentum of a step of its own, from before `join`."""
        rule.world = None
        if first:
            learn_alone(rule)
            optimizer.step()
        rule.join(world)

    def load(rule: Any, optimizer: Any) -> None:
        state = {name: value + 0.01 * first for name, value in rule.network.state_dict().items()}
        rule.network.load_state_dict(state)

    def feedback(rule: Any, optimizer: Any) -> None:
        if first:
            next(rule.buffers()).mul_(1.1)

    def mode(rule: Any, optimizer: Any) -> None:
        rule.network.train(not first)

    def frozen(rule: Any, optimizer: Any) -> None:
        next(rule.network.parameters()).requires_grad_(not first)

    weights, layers = "the weights or feedback of process 1", "in the same mode"
    cases: list[tuple[str, Callable[[Any, Any], None], str]] = [
        ("update", update, weights),
        ("momentum", own_step, weights),
        ("loaded", load, weights),
        ("feedback", feedback, weights),
        ("mode", mode, layers),
        ("frozen", frozen, layers),
    ]
    for make, batch in ((opzo_case, clocked_cases.make_data()), (sfdfa_case, events_batch())):
        for name, act, words in cases:
            rule = make()
            optimizer = torch.optim.Adam(rule.network.parameters(), lr=0.01)
            rule.join(world)
            rule.step(*batch)
            act(rule, optimizer)
            if name == "momentum":
                optimizer.zero_grad()
                rule.step(*batch)
                optimizer.step()
            said = expect(InputError, words, partial(rule.step, *batch))
            if said:
                return f"{type(rule).__name__}, {name}: {said}"
    return ""


def opzo_case() -> Any:
    return clocked_cases.build("opzo")[1]


def sfdfa_case() -> Any:
    sizes = (events_cases.INPUTS, 5, events_cases.OUTPUTS)
    return events_cases.rule_of("sfdfa", events_cases.make_network(sizes), feedback_lr=0.1)


def events_batch() -> tuple[Any, Tensor]:
    return events_cases.make_inputs(4), events_cases.make_labels(4)


def learn_alone(rule: Any) -> None:
    with torch.random.fork_rng():
        events_rule = isinstance(rule, events.Rule)
        rule.step(*(events_batch() if events_rule else clocked_cases.make_data(seed=5)))


def in_stream(world: World) -> str:
    """An endless stream, in which one process leaves out an update."""
    rule = opzo_case()
    rule.join(world)
    x, y = clocked_cases.make_data()
    optimizer = torch.optim.SGD(rule.network.parameters(), lr=0.1)
    rule.observe(x[0], y)
    if world.is_first:
        optimizer.step()
    return expect(InputError, "the weights or feedback", partial(rule.observe, x[1], y))


def other_noise(world: World) -> str:
    x, y = clocked_cases.make_data()
    network = clocked_cases.make_network()
    scale = clocked.LinearSchedule(0.5, 0.1)
    rule = clocked.OPZO(network, noise_scale=scale)
    rule.join(world)
    rule.set_progress(0.0 if world.is_first else 1.0)
    said = expect(InputError, "noise", partial(rule.step, x, y))
    schedule = clocked.LinearSchedule(0.5, 0.1 if world.is_first else 0.2)
    other = clocked.OPZO(network, noise_scale=schedule)
    said = said or expect(ConfigurationError, "network or rule", partial(other.join, world))
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0 + world.rank]), reduction="none")
    weighted = clocked.DFA(network, loss=loss)
    return said or expect(ConfigurationError, "network or rule", partial(weighted.join, world))


def two_rules(world: World) -> str:
    """Two rules take turns: right in one order, words in two."""
    torch.manual_seed(7)
    rules = [clocked_cases.make_rule("opzo", clocked_cases.make_network()), opzo_case()]
    x, y = clocked_cases.make_data()
    for rule in rules:
        rule.join(world)
    for rule in rules:
        rule.step(x, y)
    turn = rules if world.is_first else rules[::-1]
    return expect(InputError, "the weights or feedback", partial(turn[0].step, x, y))


def no_rows(world: World) -> str:
    """A last batch with fewer rows than processes, in a loop of one's own."""
    said = ""
    for rule, (x, y) in ((opzo_case(), clocked_cases.make_data()), (sfdfa_case(), events_batch())):
        rule.join(world)
        one = slice(0, 1) if world.is_first else slice(0, 0)
        rows = x[one] if isinstance(rule, events.Rule) else x[:, one]
        words = "process 1 refused" if world.is_first else "sample"
        said += expect(InputError, words, partial(rule.step, rows, y[one]))
    return said


def own_ways(world: World) -> str:
    """Joined twice, copied, read back; gradients of several batches before an update."""

    def run(together: World | None, rows: slice) -> list[Tensor]:
        rule = opzo_case()
        optimizer = torch.optim.Adam(rule.network.parameters(), lr=0.01)
        if together is not None:
            rule.join(together)
            rule.join(together)
        for i in range(3):
            optimizer.zero_grad()
            for part in range(2):
                x, y = clocked_cases.make_data(seed=2 * i + part)
                result = rule.step(x[:, rows], y[rows])
            optimizer.step()
        rule = copy.deepcopy(rule)
        result = rule.step(x[:, rows], y[rows])
        return [*learned(rule, result), *(p.grad for p in rule.network.parameters())]

    rows = slice(0, 1) if world.is_first else slice(1, clocked_cases.BATCH)
    said = differs(run(world, rows), run(None, slice(None)), 1e-12)
    rule = opzo_case()
    rule.join(world)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = pickle.loads(pickle.dumps(rule))
    if read.world is not None or "trains alone until" not in str([w.message for w in caught]):
        return "what was read back said nothing"
    return said


def refused_rows(world: World) -> str:
    _, rule = clocked_cases.build("opzo")
    rule.join(world)
    x, y = clocked_cases.make_data()
    bad = x if world.is_first else torch.full_like(x, torch.nan)
    words = "process 1 refused" if world.is_first else "NaN"
    before = rule.feedback[0].matrix.clone()
    said = expect(InputError, words, lambda: rule.step(bad, y))
    if not torch.equal(before, rule.feedback[0].matrix):
        return "feedback moved"
    rule.step(x, y)  # all are in step again
    return said


def spoilt(world: World) -> str:
    """Weights that are NaN in all processes: each says so, and nothing is learned."""
    network, rule = clocked_cases.build("opzo")
    rule.join(world)
    x, y = clocked_cases.make_data()
    rule.step(x, y)
    with torch.no_grad():
        network.linear2.weight[2, 1] = torch.nan
    before = [p.grad.clone() for p in network.parameters()] + [b.clone() for b in rule.buffers()]
    said = expect(DivergenceError, "linear2.weight", lambda: rule.step(x, y))
    now = [*(p.grad for p in network.parameters()), *rule.buffers()]
    if not all(map(torch.equal, before, now)):
        return "a gradient or feedback changed"
    world.end_step()
    return said


def drifted(world: World) -> str:
    _, rule = clocked_cases.build("opzo")
    rule.join(world)
    torch.rand(3 + world.rank)
    x, y = clocked_cases.make_data()
    return expect(InputError, "not in the same state", lambda: rule.step(x, y))


def draws_its_own(world: World, layer: nn.Module) -> str:
    """A layer that draws numbers for the rows of its process, as many in each."""
    torch.manual_seed(1)
    network = nn.Sequential(clocked.Linear(7, 6), clocked.LIF(), layer, clocked.Linear(6, 3))
    rule = clocked.DFA(network.double(), input_shape=(7,))
    rule.join(world)
    x, y = clocked_cases.make_data()
    said = expect(InputError, "draws random numbers", lambda: rule.step(x, y))
    world.end_step()
    return said or ("" if all(p.grad is None for p in network.parameters()) else "it learned")


class Shaky(nn.Module):
    """Noise of a user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


def mixing(world: World) -> str:
    for layer in (nn.BatchNorm1d(6), nn.Dropout(0.3)):
        network = nn.Sequential(clocked.Linear(7, 6), layer, clocked.LIF(), clocked.Linear(6, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rule = clocked.SpatialBP(network.double(), input_shape=(7,))
        rule.join(world)
        x, y = clocked_cases.make_data()
        said = expect(InputError, "train in one process", partial(rule.step, x, y))
        if said:
            return said
    return ""


def other_settings(world: World) -> str:
    found = settings_of("opzo", seed=world.rank)
    return expect(ConfigurationError, "the settings", lambda: Trainer(build(found), world=world))


def too_small(world: World) -> str:
    found = settings_of("opzo", batch_size=1)
    return expect(ConfigurationError, "a batch has 1", lambda: Trainer(build(found), world=world))


STOPPED = ("opzo", "values", "labels", "sfdfa")
"""The trainings that are stopped in an epoch and resumed by another number of processes."""


def stopped(world: World, folder: Path, name: str) -> str:
    """One process gets SIGTERM in its third batch: both stop after the next, and one writes."""

    class Stopper(Watcher):
        batches = 0

        def batch(self, loss: float, accuracy: float | None, samples: int) -> None:
            self.batches += 1
            if self.batches == 3:
                signal.raise_signal(signal.SIGTERM)

    found = settings_of(name, epochs=2)
    act = lambda: training.train(found, folder / name, watcher=Stopper(), world=world)  # noqa: E731
    return expect(InterruptedRunError, "batch 4", act)


def resumed(world: World, folder: Path, name: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # another number of processes
        together = training.resume(folder / name, world=world)
    alone = training.train(settings_of(name, epochs=2))
    return lines_differ(together, alone)


def busy(world: World, out: Path) -> str:
    """Another run in the same folder: all processes hear of it."""
    act = lambda: training.train(settings_of("opzo"), out, world=world)  # noqa: E731
    return expect(CheckpointError, "already holds a run", act)


def other_command(world: World, folder: Path) -> str:
    def act() -> object:
        if world.is_first:
            return training.train(settings_of("opzo"), folder / "new", world=world)
        return training.resume(folder / "opzo", world=world)

    said = expect(ConfigurationError, "the command (train or resume)", act)
    return said or ("a folder was made" if (folder / "new").exists() else "")


OWN_LOSS = """
import threefactor, torch

@threefactor.register_loss("together-other")
def mine(output, targets):
    return {} * torch.nn.functional.cross_entropy(output, targets, reduction="none")
"""


def other_code(world: World, folder: Path) -> str:
    """A plugin of which one machine has another version."""
    path = folder / f"machine-{world.rank}" / "mine.py"
    path.parent.mkdir()
    path.write_text(OWN_LOSS.format(1.0 + world.rank))
    plugins.load(str(path))
    found = settings_of("opzo", **{"loss.kind": "together-other"})
    return expect(ConfigurationError, "other code", lambda: Trainer(build(found), world=world))


def other_environment(world: World) -> str:
    rule = opzo_case()
    if not world.is_first:
        os.environ["THREEFACTOR_KERNELS"] = "0"
    try:
        return expect(ConfigurationError, "THREEFACTOR_KERNELS", lambda: rule.join(world))
    finally:
        os.environ.pop("THREEFACTOR_KERNELS", None)


def died(world: World) -> str:
    """The other process ends: no hang, words, and nothing learned."""
    _, rule = clocked_cases.build("opzo")
    rule.join(world)
    if not world.is_first:
        os._exit(0)
    x, y = clocked_cases.make_data()
    before = [p.detach().clone() for p in rule.network.parameters()]
    said = expect(ProcessError, "lost the others", lambda: rule.step(x, y))
    same = all(map(torch.equal, before, rule.network.parameters()))
    return said if same else "weights changed"


def register() -> None:
    threefactor.register_data("together-data")(own_data)
    threefactor.register_data("together-pictures")(pictures_of_classes)
    for name, kind, tests in (
        ("values", "values", 21),
        ("labels", "labels", 21),
        ("few", "labels", 1),
    ):
        found = several_targets(kind, tests)
        threefactor.register_data(f"together-{name}")(lambda found=found: found)
    threefactor.register_loss("together-loss")(focal)
    threefactor.register_rule("together-rule")(Correlated)


WAYS: tuple[Callable[[World], str], ...] = (
    apart,
    in_stream,
    other_noise,
    two_rules,
    no_rows,
    own_ways,
    unsynchronised,
    other_plans,
    refused_rows,
    drifted,
    mixing,
    other_settings,
    other_environment,
    too_small,
)
"""What users do with `join`: what is right, and what is refused in all processes."""


def main(rank: int, size: int, folder: Path, which: str = "") -> None:
    register()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    meet = f"file://{folder / 'meet'}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    world = World(time_limit=60)
    checks: dict[str, Callable[[], str]] = {}
    if which:
        checks |= adopted_checks(world)
    elif size == 2:
        checks |= clocked_checks(world) | later_checks(world) | events_checks(world)
        checks |= {f"epoch-{name}": lambda name=name: epoch(world, name) for name in TRAININGS}
        checks["epoch-fetched"] = lambda: epoch(world, "held-out", fetched=3)
        for act in WAYS:
            checks[act.__name__] = lambda act=act: act(world)
        checks["drawn"] = lambda: draws_its_own(world, Shaky())
        for name in STOPPED:
            checks[f"stopped-{name}"] = lambda name=name: stopped(world, folder, name)
        checks["busy"] = lambda: busy(world, folder / "opzo")
        checks["code"] = lambda: other_code(world, folder)
        checks["command"] = lambda: other_command(world, folder)
        checks["died"] = lambda: died(world)
    else:
        for name in STOPPED:
            checks[f"resumed-{name}"] = lambda name=name: resumed(world, folder, name)
    found: dict[str, str] = {}
    for name, check in checks.items():
        (folder / f"found-{rank}-{size}.json").write_text(json.dumps({**found, name: "not ended"}))
        try:
            found[name] = check()
        except Exception:
            found[name] = traceback.format_exc()
    (folder / f"found-{rank}-{size}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
