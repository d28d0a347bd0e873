"""Bytes of all live tensors while convolutional networks train: they do not grow with T."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from threefactor import clocked

STEPS = 16
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
    """Bytes at the start of every forward pass."""
    sizes: list[int] = []
    hook = rule.network.register_forward_pre_hook(lambda *_: sizes.append(live_bytes()))
    rule.step(x, torch.tensor([0, 1, 2]), steps=steps)
    hook.remove()
    return sizes


@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_bytes_do_not_grow_with_time(network: str, rule_name: str, static: bool) -> None:
    torch.manual_seed(0)
    net = NETWORKS[network]()
    rule = clocked.RULES[rule_name](net, **RULES[rule_name])
    x = torch.rand(STEPS, 3, *net.input_shape)
    sizes = bytes_of_steps(rule, x[0] if static else x, STEPS if static else None)
    passes = 1 if rule.second_pass is None else 2
    sizes = sizes[::passes]
    assert len(sizes) == STEPS and sizes[0] > 10_000  # bytes are seen at all
    # Gathering fills its slots in the first steps, and starts again after the sixth.
    assert max(sizes[8:]) <= max(sizes[:8])


def test_the_count_would_notice_a_leak() -> None:
    class Hoarder(clocked.DFA):
        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            self.__dict__.setdefault("hoard", []).append(step.layers[0].activity)
            return super().layer_errors(step)

    net = NETWORKS["conv5"]()
    sizes = bytes_of_steps(Hoarder(net), torch.rand(STEPS, 3, *net.input_shape), None)
    assert max(sizes[8:]) > max(sizes[:8])
