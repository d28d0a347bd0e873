"""The tables of docs/other-networks.md: the script measures what it says, of every class."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def load_script() -> Any:
    path = ROOT / "benchmarks" / "adoption.py"
    spec = importlib.util.spec_from_file_location("adoption", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


script = load_script()
others = pytest.mark.parametrize("library", ["snnTorch", "SpikingJelly", "Norse", "sinabs"])


@pytest.fixture(autouse=True)
def instances_of_snntorch() -> Iterator[None]:
    """snnTorch resets all of its layers that were ever made, and fails at a DeltaLeaky at rest."""
    yield
    if "snntorch" in sys.modules:
        kept = sys.modules["snntorch"].SpikingNeuron.instances
        kept[:] = [layer for layer in kept if type(layer).__name__ != "DeltaLeaky"]


def neurons_of(library: str) -> dict[str, Any]:
    pytest.importorskip(script.LIBRARIES[library])
    found: dict[str, Any] = script.TABLES[library]()
    return found


@others
def test_every_class_of_neurons_is_in_the_table(library: str) -> None:
    told = {name.partition(",")[0].partition(" ")[0] for name in neurons_of(library)}
    assert told >= script.public_neurons(script.LIBRARIES[library])


@others
def test_what_is_not_adopted_is_refused_with_a_reason(library: str) -> None:
    reasons = {
        name: script.refusal(make)
        for name, make in neurons_of(library).items()
        if not isinstance(make, script.Neurons)
    }
    assert len(reasons) > 4
    for name, reason in reasons.items():
        assert reason.startswith(f"{name} of {library} ") and len(reason.split()) > 6, reason


CELLS = {
    "PyTorch": ["LIF"],
    "snnTorch": ["Leaky, reset at once", "Synaptic"],
    "SpikingJelly": [
        "LIFNode, soft reset, decayed input", "ComplementaryLIFNode", "CUBALIFNode",
        "TernaryLIFNode",
    ],
    "Norse": ["IAFCell", "LIFRefracCell"],
    "sinabs": ["ALIF", "LIFSqueeze"],
}  # fmt: skip


@pytest.mark.parametrize("rule", script.RULES)
@pytest.mark.parametrize(
    ("library", "name"), [(library, name) for library, names in CELLS.items() for name in names]
)
def test_cells_of_the_neurons_come_out_again(library: str, name: str, rule: str) -> None:
    neurons = neurons_of(library)[name]
    assert script.difference(neurons, rule, "Linear", torch.float64) < 1e-12


@pytest.mark.parametrize("rule", ["spatial-bp", "opzo"])
@pytest.mark.parametrize("kind", ["Conv2d, grouped, strided", "Conv3d", "Linear, BatchNorm1d"])
def test_cells_of_the_layers_come_out_again(kind: str, rule: str) -> None:
    assert script.difference(script.own()["LIF"], rule, kind, torch.float64) < 1e-12


def test_a_wrong_leak_is_seen() -> None:
    """The reference knows the leak by itself: with another one, no cell agrees."""
    neurons = script.own()["LIF"]
    neurons.leak = 0.4
    assert script.difference(neurons, "dfa", "Linear", torch.float64) > 1e-3


def test_the_spatial_rule_is_compared_with_the_ottt_of_spikingjelly() -> None:
    neurons = neurons_of("SpikingJelly")["LIFNode"]
    neurons.ottt = lambda: script.spikingjelly()["LIFNode, soft reset"].ottt()
    assert script.difference(neurons, "spatial-bp", "Linear", torch.float64) > 1e-3


def test_what_was_measured_keeps_its_bounds() -> None:
    found = json.loads((ROOT / "results" / "benchmarks" / "adoption.json").read_text())
    rows = [row for part in ("neurons", "layers") for row in found[part].values()]
    cells = [c for row in rows for found in row.values() if "refused" not in found
             for c in found.values() if "refused" not in c]  # fmt: skip
    assert len(cells) > 600
    assert all(cell["float64"] < 1e-12 and cell["float32"] < 5e-6 for cell in cells)
