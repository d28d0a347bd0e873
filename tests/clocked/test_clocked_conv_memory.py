"""Bytes of all live tensors while convolutional networks train: they do not grow with T."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from threefactor import clocked

STEPS = 14
NETWORKS: dict[str, Callable[[], clocked.Network]] = {
    "conv5": lambda: clocked.conv5((2, 8, 8), 3, width=0.03),
    "conv9": lambda: clocked.conv9((2, 8, 8), 3, width=0.03),
    "nf_resnet34": lambda: clocked.nf_resnet34(
        (2, 16, 16), 3, width=0.05, depths=(1, 1, 1, 1), dropout=0.1
    ),
}
RULES = {
    "spatial-bp": {},
    "dfa": {"feedback_patch": 2},
    "dkp": {},
    "zo": {"points": "two-point"},
    "opzo": {"points": "two-point", "local_learning": "learned"},
}


@pytest.fixture(autouse=True, scope="module")
def _quick_collection() -> Iterator[None]:
    """Hide all older objects from the collector: only those made here are walked and counted."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def live_bytes() -> int:
    """Bytes of the storages that tensors refer to, each counted once."""
    gc.collect()
    found = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return sum(storages.values())


def bytes_of_steps(rule: clocked.Rule, x: Tensor, steps: int | None) -> list[int]:
    """Bytes at the start of every time step but the first two."""
    passes: list[int | None] = []
    every = 1 if rule.second_pass is None else 2

    def look(*_: object) -> None:
        step, second = divmod(len(passes), every)
        passes.append(live_bytes() if step >= 2 and not second else None)

    hook = rule.network.register_forward_pre_hook(look)
    rule.step(x, torch.tensor([0, 1, 2]), steps=steps)
    hook.remove()
    assert len(passes) == STEPS * every
    return [size for size in passes if size is not None]


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize(
    ("network", "static"),
    [("conv5", False), ("conv5", True), ("conv9", False), ("nf_resnet34", False)],
)
def test_bytes_do_not_grow_with_time(network: str, rule_name: str, static: bool) -> None:
    torch.manual_seed(0)
    net = NETWORKS[network]()
    chain = "within-layers" if network == "nf_resnet34" else "none"
    rule = clocked.RULES[rule_name](net, chain=chain, **RULES[rule_name])
    x = torch.rand(STEPS, 3, *net.input_shape)
    sizes = bytes_of_steps(rule, x[0] if static else x, STEPS if static else None)
    assert sizes[0] > 10_000  # bytes are seen at all
    # Six steps fill the slots in which steps are gathered; the next six fill them again.
    assert max(sizes[6:]) <= max(sizes[:6])


def test_the_count_would_notice_a_leak() -> None:
    class Hoarder(clocked.DFA):
        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            self.__dict__.setdefault("hoard", []).append(step.layers[0].activity)
            return super().layer_errors(step)

    net = NETWORKS["conv5"]()
    sizes = bytes_of_steps(Hoarder(net), torch.rand(STEPS, 3, *net.input_shape), None)
    assert max(sizes[6:]) > max(sizes[:6])
