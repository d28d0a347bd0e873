"""The share of each part of a training step of our rules, measured by stopwatches."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from threefactor import clocked
from threefactor.clocked import conv, pathway, synapse
from threefactor.clocked.noise import Perturbation
from threefactor.clocked.rules import LocalLearningRule

PARTS: dict[str, list[tuple[Any, str]]] = {
    "products": [
        *((clocked.Linear, name) for name in ("transmit", "add_weight_grad", "input_error")),
        *((clocked.Conv2d, name) for name in ("transmit", "add_weight_grad", "input_error")),
    ],
    "feedback": [(rule, "layer_errors") for rule in (*clocked.RULES.values(), LocalLearningRule)],
    "pooling": [(synapse, "average"), (conv, "average")],
    "neurons": [(clocked.Neuron, "respond"), (clocked.LIF, "respond")],
    "noise": [(Perturbation, "draw")],
    "traces": [(pathway.Pathway, "_follow"), (pathway.Pathway, "learn")],
    "surrogate": [(clocked.Neuron, "delta")],
    "optimiser": [  # AdamW has a step of its own only if it was made before any Adam
        *((kind, "step") for kind in (torch.optim.Adam, torch.optim.AdamW)),
        (torch.optim.Optimizer, "zero_grad"),
    ],
}
"""What the time is spent on; a part that calls another is not charged for it."""
ELEMENTWISE = ("noise", "traces", "surrogate")


class Stopwatch:
    """Seconds of each part, of which one runs at a time."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*PARTS, "rest"), 0.0)
        self.running = "rest"
        self.since = time.perf_counter()

    def switch(self, part: str) -> str:
        """Charge the part that ran until now; return its name."""
        now, before = time.perf_counter(), self.running
        self.seconds[before] += now - self.since
        self.running, self.since = part, now
        return before

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            before = self.switch(part)
            try:
                return function(*args, **options)
            finally:
                self.switch(before)

        return timed


@contextmanager
def watched() -> Iterator[Stopwatch]:
    """Put stopwatches around all parts, and take them away again."""
    with ExitStack() as stack:
        watch = Stopwatch()
        for part, places in PARTS.items():
            for owner, name in places:
                if name in vars(owner):
                    timed = watch.around(part, vars(owner)[name])
                    stack.enter_context(mock.patch.object(owner, name, timed))
        yield watch
        watch.switch("rest")


def report_shares(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Print what share of each contestant's step goes where; return the shares."""
    parts = [*PARTS, "rest"]
    print(f"{'':34}" + "".join(f"{part:>11}" for part in parts) + "  noise, traces, surrogate")
    rows: dict[str, Any] = {}
    for name, step in steps.items():
        step()
        with watched() as watch:
            for _ in range(repeats):
                step()
        total = sum(watch.seconds.values())
        rows[name] = {part: seconds / total for part, seconds in watch.seconds.items()}
        together = sum(rows[name][part] for part in ELEMENTWISE)
        print(
            f"{name:34}"
            + "".join(f"{rows[name][part]:11.1%}" for part in parts)
            + f"{together:26.1%}"
        )
    return rows
