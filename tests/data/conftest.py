"""Keep the tests away from the real cache folder, Debian's folder and the network."""

import dataclasses
import gzip
import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from data.described import with_files

from threefactor.data import DATASETS, DataFile

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
EMNIST_NAMES = tuple(f"emnist-balanced-{name.replace('t10k', 'test')}" for name in NAMES)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Point the cache to `tmp_path`/cache and Debian's folder to `tmp_path`/debian."""
    monkeypatch.delenv("THREEFACTOR_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    entry = DATASETS["fashion-mnist"]
    debian = (entry.files.debian[0], tmp_path / "debian")
    files = dataclasses.replace(entry.files, debian=debian)
    entry = dataclasses.replace(entry, files=files)
    monkeypatch.setitem(DATASETS, "fashion-mnist", entry)


@pytest.fixture(autouse=True)
def own_machine_only(monkeypatch):
    """Refuse connections to any other machine, and to proxies."""
    connect = socket.socket.connect

    def local_connect(self, address):
        between_processes = self.family == getattr(socket, "AF_UNIX", None)
        assert between_processes or address[0] == "127.0.0.1", f"a test tried to reach {address}"
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

    def write(
        folder: Path, ending: str = ".gz", dot: bool = False, data=arrays, names=NAMES
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in zip(names, data, strict=True):
            stem = f"{name}-ubyte".replace("-idx", ".idx" if dot else "-idx")
            raw = encode(array)
            (folder / f"{stem}{ending}").write_bytes(gzip.compress(raw) if ending else raw)
        return folder

    return write


@pytest.fixture
def tiny(packed, monkeypatch):
    """MNIST's registry entry with the sums of the tiny files and no mirror; returns the entry."""
    files = tuple(DataFile(name, hashlib.md5(body).hexdigest()) for name, body in packed.items())
    entry = with_files(DATASETS["mnist"], *files)
    monkeypatch.setitem(DATASETS, "mnist", entry)
    return entry


class Handler(BaseHTTPRequestHandler):
    """Serves /good/; answers other first folders as their names say."""

    def do_GET(self):
        _, kind, name = self.path.split("/")
        self.server.requests.append(self.path)
        body = self.server.bodies[name]
        status = {"404": 404, "500": 500}.get(kind, 200)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut":
            body = body[: len(body) // 2]
        elif kind == "wrong":
            body = bytes(len(body))
        self.wfile.write(body if status == 200 else bytes(len(body)))

    def log_message(self, *args):
        pass


@pytest.fixture
def server(packed):
    """A server of the tiny files, in `bodies` by name; `requests` lists what it was asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.bodies = dict(packed)
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(server):
    """A function that gives the base URL of a mirror of the kind that `Handler` knows."""
    return lambda kind: f"http://127.0.0.1:{server.server_port}/{kind}/"


@pytest.fixture(scope="session")
def emnist_packed(arrays) -> dict[str, bytes]:
    """The four files in EMNIST's archive by their full names, images stored as there."""
    return {
        f"gzip/{name}-ubyte.gz": gzip.compress(encode(stored_array(array)), mtime=0)
        for name, array in zip(EMNIST_NAMES, arrays, strict=True)
    }


def stored_array(array: np.ndarray) -> np.ndarray:
    """Exchange rows and columns of images, as EMNIST's files have them."""
    return array if array.ndim == 1 else array.transpose(0, 2, 1)


@pytest.fixture(scope="session")
def emnist_zip(emnist_packed) -> bytes:
    """An archive laid out as EMNIST's, with files of other splits beside the balanced ones."""
    others = {"gzip/emnist-mnist-mapping.txt": b"0 48\n", "gzip/emnist-letters.gz": bytes(5000)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in {**others, **emnist_packed}.items():
            archive.writestr(name, body)
    return buffer.getvalue()


@pytest.fixture
def tiny_emnist(emnist_zip, monkeypatch, server):
    """EMNIST's registry entry with the sum of the tiny archive, which `server` has."""
    entry = DATASETS["emnist-balanced"]
    (file,) = entry.files.published
    file = dataclasses.replace(file, md5=hashlib.md5(emnist_zip).hexdigest())
    entry = with_files(entry, file)
    monkeypatch.setitem(DATASETS, "emnist-balanced", entry)
    server.bodies["gzip.zip"] = emnist_zip
    return entry


@pytest.fixture(scope="session")
def recordings() -> dict[str, tuple]:
    """Times (float16 seconds), units and labels of a few samples, for training and testing."""
    generator = np.random.default_rng(1)
    parts = {}
    for part, samples in (("train", 12), ("test", 5)):
        counts = generator.integers(1, 30, samples)
        times = [np.sort(generator.random(n)).astype(np.float16) for n in counts]
        units = [generator.integers(0, 700, n).astype(np.uint16) for n in counts]
        parts[part] = (times, units, np.arange(samples, dtype=np.uint16) % 20)
    return parts


@pytest.fixture(scope="session")
def encode_shd() -> Callable[..., bytes]:
    """The bytes of an HDF5 file in the layout of the SHD, given times, units and labels."""
    h5py = pytest.importorskip("h5py")

    def write(times, units, labels) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as root:
            for name, rows in (("times", times), ("units", units)):
                kind = h5py.vlen_dtype(rows[0].dtype)
                column = root.create_dataset(f"spikes/{name}", (len(rows),), dtype=kind)
                for i, row in enumerate(rows):
                    column[i] = row
            root["labels"] = labels
            root["extra/speaker"] = np.zeros(len(labels), dtype=np.uint16)
            root["extra/keys"] = np.array([b"zero", b"one"])
        return buffer.getvalue()

    return write


@pytest.fixture
def place_shd(recordings, encode_shd) -> Callable[..., Path]:
    """A function that writes shd_train and shd_test into a folder, with an ending."""

    def write(folder: Path, ending: str = ".h5") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in recordings.items():
            name = f"shd_{part}.h5"
            (folder / f"shd_{part}{ending}").write_bytes(wrap(encode_shd(*rows), name, ending))
        return folder

    return write


def wrap(raw: bytes, name: str, ending: str) -> bytes:
    """Compress as the ending says."""
    if ending.endswith(".gz"):
        return gzip.compress(raw)
    if ending.endswith(".zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, raw)
        return buffer.getvalue()
    return raw
