"""Several processes that train one network: the numbers of one process, and no hang."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import python
from together import ADOPTED, STOPPED

from threefactor import World, clocked, training
from threefactor.errors import ConfigurationError, ProcessError
from threefactor.processes import say_once, warnings_once

SCRIPT = Path(__file__).parent / "together.py"


def together(folder: Path, size: int, *which: str) -> dict[str, str]:
    """Run the script in several processes; return what each check says, of all that ended."""
    (folder / "meet").unlink(missing_ok=True)
    processes = [
        python([SCRIPT, rank, size, folder, *which], stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    found: dict[str, str] = {}
    for rank in range(size):
        path = folder / f"found-{rank}-{size}.json"
        assert path.exists(), said
        for name, text in json.loads(path.read_text()).items():
            if name == "died" and rank:
                continue  # this one is the process that dies
            found[name] = found.get(name, "") + (text and f"process {rank}: {text}")
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    folder = tmp_path_factory.mktemp("together")
    return together(folder, 2), folder


def test_two_processes_have_the_numbers_of_one(two: Any) -> None:
    """All rules of both engines, 20 updates; whole epochs; what is refused; who stops and dies."""
    found, _ = two
    assert len(found) > 140
    assert not {name: text for name, text in found.items() if text}


def test_networks_of_other_libraries(tmp_path: Path) -> None:
    """snnTorch, SpikingJelly, Norse and sinabs, as far as they are installed."""
    installed = [library for library in ADOPTED if find_spec(library) is not None]
    if not installed:
        pytest.skip("none of the other libraries is installed")
    for library in installed:
        import_module(library)  # once, before the processes are forked
    found = together(tmp_path, 2, "adopted")
    assert len(found) > 5 * len(installed)
    assert not {name: text for name, text in found.items() if text}


@pytest.mark.parametrize("size", [1, 3])
def test_runs_are_resumed_by_another_number_of_processes(
    two: Any, tmp_path: Path, size: int
) -> None:
    """From the middle of an epoch; classes, values and labels."""
    for name in STOPPED:
        shutil.copytree(two[1] / name, tmp_path / name)
    assert together(tmp_path, size) == {f"resumed-{name}": "" for name in STOPPED}
    for name in STOPPED:
        assert training.Run(tmp_path / name).resumed[-1]["processes"] == size


def test_a_world_of_one_changes_nothing() -> None:
    torch.manual_seed(0)
    rule = clocked.OPZO(clocked.fc(4, (8,), 3))
    world = World()
    rule.join(world)
    assert (world.size, world.is_first, rule.world) == (1, True, None)
    assert rule.step(torch.rand(2, 4), torch.tensor([0, 2]), steps=3).output.shape == (2, 3)


@pytest.mark.parametrize(
    ("size", "words"), [("2", "RANK, MASTER_ADDR, MASTER_PORT not set"), ("two", "WORLD_SIZE")]
)
def test_processes_that_cannot_meet(monkeypatch: pytest.MonkeyPatch, size: str, words: str) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigurationError, match=words):
        World()


def test_processes_that_nobody_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at a port that is not served, and nobody comes to the first one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for rank in ("1", "0"):
        environment = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**environment, "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ProcessError, match=f"process {rank} of 2 did not meet the others at"):
            World(time_limit=0.5)
        assert not dist.is_initialized()


@pytest.fixture
def torchruns_store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store that stands for that of torchrun."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {
        **{"WORLD_SIZE": "3", "TORCHELASTIC_USE_AGENT_STORE": "True"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.mark.usefixtures("torchruns_store")
def test_a_warning_that_all_processes_meet_is_shown_once() -> None:
    """The three rounds stand for processes, which show their warnings alike."""
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        for rank in range(3):
            with warnings_once():
                warnings.warn("events come late", stacklevel=1)
                warnings.warn(f"of process {rank} alone", stacklevel=1)
        warnings.warn("events come late", stacklevel=1)  # outside: as ever
    assert shown.count("events come late") == 2
    assert sum("alone" in text for text in shown) == 3


@pytest.mark.usefixtures("torchruns_store")
def test_what_all_processes_meet_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads stand for processes."""
    said: list[str] = []
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda text: say_once(text, said.append), ["alike", "alike", "own"]))
    assert sorted(said) == ["alike", "own"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # another attempt says it again
    say_once("alike", said.append)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")  # nothing in common: all speak
    say_once("alike", said.append)
    assert said.count("alike") == 3
