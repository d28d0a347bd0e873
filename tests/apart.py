"""A fixture that keeps what a test registers, loads and trusts away from all other tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pooch
import pytest

from threefactor import clocked, events
from threefactor.clocked.foreign import neurons
from threefactor.plugins import loading, registry


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Undo all registrations afterwards; the cache folder of the user, which is empty."""
    tables = [registry._ENTRIES, loading._LOADED, clocked.RULES, events.RULES, neurons._REGISTERED]
    before = [dict(table) for table in tables]
    modules, path, said = set(sys.modules), list(sys.path), set(loading._SAID)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    loading._LOADED.clear()
    yield tmp_path / "cache"
    for table, old in zip(tables, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(old)  # type: ignore[attr-defined]
    for name in set(sys.modules) - modules:
        file = str(getattr(sys.modules[name], "__file__", None) or "")
        if file.startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path
    loading._SAID.clear()
    loading._SAID.update(said)


PLUGIN = """
import torch
from torch import nn

import threefactor
from threefactor import clocked


@threefactor.register_rule("half", cite="@article{half2026,\\n  title = {Half}\\n}")
class Half(clocked.DFA):
    '''DFA with a share of the error.'''

    def __init__(self, network, *, share: float = 0.5, **options):
        super().__init__(network, **options)
        self.share = share

    def layer_errors(self, step):
        return [self.share * error for error in super().layer_errors(step)]


@threefactor.register_neuron(state=("v",), leak=0.5)
class Mine(nn.Module):
    v = None

    def forward(self, x):
        v = x if self.v is None else 0.5 * self.v + x
        spikes = (v >= 1.0).to(x) + torch.sigmoid(v) - torch.sigmoid(v).detach()
        self.v = v - spikes.detach()
        return spikes


@threefactor.register_network("narrow")
def narrow(input_shape, outputs, *, width: int = 8):
    size = torch.Size(input_shape).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), Mine(), nn.Linear(width, outputs))


@threefactor.register_data("coins", cite="@misc{coins, title = {Coins}}")
def coins(*, sides: int = 4, samples: int = 48):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(sides, (samples,), generator=generator)
    x = 3 * torch.nn.functional.one_hot(y, sides).double()
    return (x, y), (x[:16], y[:16])


@threefactor.register_loss("focal")
def focal(output, targets, *, gamma: float = 2.0):
    log = torch.log_softmax(output, 1).gather(1, targets[:, None])[:, 0]
    return -((1 - log.exp()) ** gamma) * log


threefactor.register_recipe(
    "coins-fc",
    {
        "base": "digits-fc",
        "epochs": 1,
        "data": {"name": "coins"},
        "network": {"kind": "narrow", "options": {"width": 5}},
        "rule": {"name": "half"},
    },
    title="Coins with a narrow network",
)
"""
"""A plugin that registers something of every kind."""


@pytest.fixture
def plugin(apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin above as my.py in the current folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my.py"
    file.write_text(PLUGIN)
    return file
