"""Processes of grids: forked, or of their own where a test is about them."""

import subprocess
from types import SimpleNamespace

import pytest
from forked import python

from threefactor.reproduce import grid


@pytest.fixture(scope="package", autouse=True)
def forked_processes():
    """What a grid starts is forked from this process, which has imported everything already."""

    def start(command, **options):
        return python(command[1:], **options)

    with pytest.MonkeyPatch.context() as patch:
        stand_in = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
        patch.setattr(grid, "subprocess", stand_in)
        yield


@pytest.fixture
def own_processes(monkeypatch):
    """What a grid starts is a Python of its own, as for users."""
    monkeypatch.setattr(grid, "subprocess", subprocess)
