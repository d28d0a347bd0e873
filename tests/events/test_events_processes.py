"""Other processes: what is compiled once is not compiled again, and Numba is an extra."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMPILE = """
import json, torch
from threefactor import events
from threefactor.events import kernels

torch.manual_seed(0)
net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.05, duration=0.4)
with torch.no_grad():
    for weight in net.parameters():
        weight.copy_(weight.abs() * 4)
inputs = events.latency_code(torch.linspace(0.1, 1, 8).view(2, 4))
labels = torch.tensor([0, 2])
found = [int(events.run(net, inputs[:1]).output.sum())]
events.ExactBP(net).step(inputs, labels)
events.SFDFA(net).step(inputs[[1, 0]], labels)
events.DFA(net, traces="forward").step(inputs[1:], labels[1:])
events.ExactBP(net, loss=events.FirstSpike(0.1, 0.2)).step(inputs, labels)
found += [p.grad.abs().sum().item() for p in net.parameters()]
loaded = {}
for name in kernels.__all__:
    stats = getattr(kernels, name).stats
    loaded[name] = [sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]
print(json.dumps([found, loaded]))
"""

IMPORTS = """
import sys
import threefactor
import threefactor.events
from threefactor.events import SpikeBatch, latency_code, fc
batch = latency_code([[1.0, 0.5]])
assert len(batch.times) == 2
print(sorted(name for name in sys.modules if name.split(".")[0] in ("numba", "llvmlite")))
"""

WITHOUT = """
import sys
sys.modules["numba"] = None
from threefactor import events
from threefactor.errors import ConfigurationError
batch = events.latency_code([[1.0, 0.5]])
for make in (
    lambda: events.fc(2, (), 3, tau_s=0.1, thresholds=0.2, duration=0.2),
    lambda: events.Layer(2, 3, tau_s=0.1, threshold=0.2, duration=0.2),
):
    try:
        make()
    except ConfigurationError as problem:
        print(problem)
"""


def python(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


Said = tuple[list[float], dict[str, list[int]]]


def compile_at(folder: Path) -> Said:
    """Return numbers of a run with kernels from a folder, and how many were found or missed there.

    The first number counts spikes.
    """
    numbers, loaded = json.loads(python(COMPILE, NUMBA_CACHE_DIR=str(folder)))
    assert numbers[0] > 0 and min(numbers) > 0
    return numbers, loaded


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A folder of compiled kernels, and what the run said that made them."""
    folder = tmp_path_factory.mktemp("kernels")
    return folder, compile_at(folder)


def test_nothing_is_compiled_in_a_second_process(kept: tuple[Path, Said]) -> None:
    """Numba's cache serves every kernel the second time, for all rules and sizes."""
    numbers, first = kept[1]
    same, second = compile_at(kept[0])
    assert numbers == same
    assert first.keys() == second.keys() and len(first) >= 7
    for name in first:
        assert first[name] == [0, 1], f"{name} is compiled for several kinds of arguments"
        assert second[name] == [1, 0], f"{name} is compiled again"


def test_kernels_of_other_sources_are_never_loaded(tmp_path: Path) -> None:
    """What a kernel calls from another file counts: all lie in a folder that every source names."""
    from threefactor.events import compiling, dynamics, kernels

    here = compiling.digest(compiling.HERE)
    for function in (dynamics.factor, *(getattr(kernels, name) for name in kernels.__all__)):
        assert f"kernels-{here}" in function.stats.cache_path
    copy = tmp_path / "events"
    shutil.copytree(compiling.HERE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert compiling.digest(copy) == here
    sources = [copy / "compiling.py", copy / "dynamics.py", *(copy / "kernels").glob("*.py")]
    found = {here}
    for source in sources:
        source.write_text(source.read_text() + "\n# changed\n")
        found.add(compiling.digest(copy))
    assert len(found) == len(sources) + 1 >= 9


def test_imports_leave_numba_alone() -> None:
    assert python(IMPORTS) == "[]"


def test_without_numba() -> None:
    """Spikes can be made; a network cannot, and the error names the extra."""
    lines = python(WITHOUT).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "need Numba" in line and "pip install 'threefactor[events]'" in line


FORKED = """
import multiprocessing, torch
from threefactor import events

torch.set_num_threads(2)
net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.05, duration=0.4)
inputs = events.latency_code(torch.rand(6, 4))
expected = events.run(net, inputs).output

def child():
    assert torch.equal(events.run(net, inputs).output, expected)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(5)
print("hangs" if process.is_alive() else process.exitcode)
process.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_process() -> None:
    """A child that is forked after the first use of threads can use them, too."""
    assert python(FORKED) == "0"


def kernels_at(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: bytes(len(data)),
    flipped,
    lambda data: data + b"\0",
]


def test_damaged_kernels_are_compiled_anew(kept: tuple[Path, Said], tmp_path: Path) -> None:
    """Empty, cut, zeros, a bit, longer, another's, a pipe: the result is right, the files whole.

    Those that take long to compile stay whole.
    """
    copy = tmp_path / "kernels"
    shutil.copytree(kept[0], copy)
    changed = [p for p in kernels_at(copy) if p.name.startswith(("errors.", "grades."))]
    assert len(changed) > len(DAMAGES) + 1
    another = changed[-1].read_bytes()
    for i, path in enumerate(changed):
        data = path.read_bytes()
        path.unlink()
        if i < len(DAMAGES):
            path.write_bytes(DAMAGES[i](data))
        elif path is not changed[-1]:
            path.write_bytes(another)
        else:
            os.mkfifo(path)
    assert compile_at(copy)[0] == kept[1][0]
    again = {p.name for p in copy.rglob("*") if p.is_file()}
    assert again == {p.name for p in kernels_at(kept[0])}
    for path in kernels_at(copy):
        content = path.read_bytes()
        assert content[:32] == hashlib.sha256(path.name.encode() + b"\0" + content[32:]).digest()


ONE = """
import torch
from threefactor.events.parallel import product
a, b = torch.rand(3, 4), torch.rand(4, 2)
assert torch.allclose(product(a, b), a @ b)
"""


def test_kernels_that_cannot_be_kept(kept: tuple[Path, Said], tmp_path: Path) -> None:
    """The folder would lie below a file: they are compiled for this process."""
    place = tmp_path / "place"
    place.write_text("not a folder")
    python(ONE, NUMBA_CACHE_DIR=str(place / "below"))
    assert any(path.name.startswith("grades.product-") for path in kernels_at(kept[0]))


def test_folders_of_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's own, or that of the package and then the user's cache; none without a home."""
    from threefactor.events import compiling

    monkeypatch.setattr(compiling._CONFIG, "CACHE_DIR", str(tmp_path))
    assert list(compiling._folders()) == [tmp_path]
    monkeypatch.setattr(compiling._CONFIG, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package, own = compiling._folders()
    assert package == compiling.HERE / "__pycache__" and own == tmp_path / "cache" / "threefactor"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert list(compiling._folders()) == [package]


def test_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that cannot be written leaves nothing, and goes to the next folder."""
    import numba

    from threefactor.events import compiling

    @numba.njit
    def double(x: float) -> float:
        return 2.0 * x

    kept = compiling._Kept(double.py_func)
    kept.folders = [tmp_path / "full", tmp_path / "other"]
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.parent == tmp_path / "full":
            write(path, content[:50])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    double._cache = kept
    assert double(2.0) == 4.0
    assert not list((tmp_path / "full").iterdir())
    (file,) = (tmp_path / "other").iterdir()
    assert file.suffix == ".nbc" and file.stat().st_size > 1000
