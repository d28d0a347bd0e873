"""Keep the tests away from the real cache folder, Debian's folder and the network."""

import dataclasses
import gzip
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import pytest

from threefactor.data import DATASETS, DataFile

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Point the cache to `tmp_path`/cache and Debian's folder to `tmp_path`/debian."""
    monkeypatch.delenv("THREEFACTOR_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    entry = dataclasses.replace(DATASETS["fashion-mnist"], debian_folder=tmp_path / "debian")
    monkeypatch.setitem(DATASETS, "fashion-mnist", entry)


@pytest.fixture(autouse=True)
def own_machine_only(monkeypatch):
    """Refuse connections to any other machine, and to proxies."""
    connect = socket.socket.connect

    def local_connect(self, address):
        assert address[0] == "127.0.0.1", f"a test tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_connect)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def encode(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def encode_idx() -> Callable[[np.ndarray], bytes]:
    """The bytes of an array in the official layout."""
    return encode


@pytest.fixture(scope="session")
def arrays() -> tuple[np.ndarray, ...]:
    """Forty training and ten test images of 28x28 pixels, with labels."""
    generator = np.random.default_rng(0)
    sets = []
    for samples in (40, 10):
        sets.append(generator.integers(0, 256, (samples, 28, 28), dtype=np.uint8))
        sets.append(np.arange(samples, dtype=np.uint8) % 10)
    return tuple(sets)


@pytest.fixture(scope="session")
def packed(arrays) -> dict[str, bytes]:
    """The four files as published: official names, compressed."""
    return {
        f"{name}-ubyte.gz": gzip.compress(encode(array), mtime=0)
        for name, array in zip(NAMES, arrays, strict=True)
    }


@pytest.fixture
def place(arrays) -> Callable[..., Path]:
    """A function that writes the four files into a folder; `ending` and `dot` set their names."""

    def write(folder: Path, ending: str = ".gz", dot: bool = False, data=arrays) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in zip(NAMES, data, strict=True):
            stem = f"{name}-ubyte".replace("-idx", ".idx" if dot else "-idx")
            raw = encode(array)
            (folder / f"{stem}{ending}").write_bytes(gzip.compress(raw) if ending else raw)
        return folder

    return write


@pytest.fixture
def tiny(packed, monkeypatch):
    """MNIST's registry entry with the sums of the tiny files and no mirror; returns the entry."""
    files = tuple(DataFile(name, hashlib.md5(body).hexdigest()) for name, body in packed.items())
    entry = dataclasses.replace(DATASETS["mnist"], files=files, mirrors=())
    monkeypatch.setitem(DATASETS, "mnist", entry)
    return entry
