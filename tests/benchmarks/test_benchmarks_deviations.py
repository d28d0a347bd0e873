"""The script behind the numbers of docs/deviations.md measures what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from threefactor.plugins import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    path = ROOT / "benchmarks" / "deviations.py"
    spec = importlib.util.spec_from_file_location("deviations", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as for a script
        patch.setattr(registry, "_ENTRIES", {**registry._ENTRIES})  # it registers a network
        spec.loader.exec_module(module)
    return module


def test_gradients_and_outputs_are_measured(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SEEDS", (0,))
    monkeypatch.setattr(script, "SIDE", {"fc": 5})
    monkeypatch.setattr(script, "STEPS", 2)
    for row in script.traces().values():
        assert 0.5 < row["cosine"][0] < 1.0
        assert row["size with a trace over without"][0] > 1.0


def test_their_initialisation_is_theirs(script: Any) -> None:
    net, *_ = script.network("fc", 0)
    script.as_in_their_code(net)
    assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    readout = net.readout.weight
    assert torch.std(readout).item() == pytest.approx(0.01, rel=0.1)
    expected = (2 / len(net.linear2.weight)) ** 0.5
    assert torch.std(net.linear2.weight).item() == pytest.approx(expected, rel=0.1)
