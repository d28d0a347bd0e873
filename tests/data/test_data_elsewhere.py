"""Files that torchvision, Tonic and SpikingJelly left on disk are read where they lie."""

import dataclasses
import gzip
import hashlib
import pickle

import h5py
import numpy as np
import pytest
import torch
from data.event_files import nmnist_bytes, random_events

from threefactor.data import DATASETS, available, load, load_events, load_spikes
from threefactor.data.formats.pickles import PickledRecords
from threefactor.errors import DataError

CHANCE = np.random.default_rng(0)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_torchvision_leaves_idx_files(tmp_path, name, folder, packed):
    place = tmp_path / folder
    place.mkdir(parents=True)
    pixels = CHANCE.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", np.arange(6))):
            body = idx(array)
            path = place / f"{part}-{kind}-ubyte{'.gz' * packed}"
            path.write_bytes(gzip.compress(body) if packed else body)
    data = load(name, tmp_path, normalise=False)
    torch.testing.assert_close(data.train_images[:, 0], torch.from_numpy(pixels / 255).float())
    other = "mnist" if name != "mnist" else "fashion-mnist"
    assert not available(other, tmp_path)


def test_tonic_and_spikingjelly_leave_folders(tmp_path):
    for root in ("NMNIST", "extract"):
        home = tmp_path / f"of-{root}"
        for part in ("Train", "Test"):
            for label in range(10):
                place = home / root / part / str(label)
                place.mkdir(parents=True)
                (place / f"{label:05}.bin").write_bytes(nmnist_bytes(random_events(CHANCE, 20, 34)))
        assert load_events("nmnist", home).train_labels.tolist() == list(range(10))
    (tmp_path / "SHD").mkdir()
    for part in ("train", "test"):
        with h5py.File(tmp_path / "SHD" / f"shd_{part}.h5", "w") as file:
            group = file.create_group("spikes")
            group.create_dataset("times", (2,), dtype=h5py.vlen_dtype(np.float16))[:] = [
                np.array([0.5], np.float16)
            ] * 2
            group.create_dataset("units", (2,), dtype=h5py.vlen_dtype(np.uint16))[:] = [
                np.array([7], np.uint16)
            ] * 2
            file["labels"] = [3, 4]
    assert load_spikes("shd", tmp_path).train_labels.tolist() == [3, 4]


@pytest.fixture
def pickles(tmp_path, monkeypatch):
    """Write CIFAR-10 as pickles, whose checksums stand for the published ones."""
    folder, sums, all_pixels = tmp_path / "cifar-10-batches-py", [], []
    folder.mkdir()
    for name, _ in DATASETS["cifar10"].files.pickles:
        pixels = CHANCE.integers(0, 256, (3, 3072), dtype=np.uint8)
        content = {"data": pixels, "labels": [1, 2, 3], "filenames": ["a", "b", "c"]}
        body = pickle.dumps(content, protocol=2)
        (tmp_path / name).write_bytes(body)
        sums.append((name, hashlib.md5(body).hexdigest()))
        all_pixels.append(pixels)
    entry = DATASETS["cifar10"]
    files = dataclasses.replace(entry.files, pickles=tuple(sums))
    monkeypatch.setitem(DATASETS, "cifar10", dataclasses.replace(entry, files=files))
    return tmp_path, np.concatenate(all_pixels)


def test_torchvision_leaves_pickles_that_are_read_if_they_are_the_published_ones(pickles):
    root, pixels = pickles
    data = load("cifar10", root, normalise=False)
    both = torch.cat([data.train_images, data.test_images]).reshape(18, -1)
    torch.testing.assert_close(both, torch.from_numpy(pixels / 255).float())
    assert data.test_labels.tolist() == [1, 2, 3]
    (root / "cifar10").mkdir()
    (root / "cifar-10-batches-py").rename(root / "cifar10" / "cifar-10-batches-py")
    assert torch.equal(load("cifar10", root).test_labels, data.test_labels)


class Malicious:
    def __reduce__(self):
        return print, ("run",)


def test_no_other_pickle_is_read(pickles, capsys):
    root, _ = pickles
    path = root / "cifar-10-batches-py" / "test_batch"
    body = pickle.dumps({"data": Malicious(), "labels": [1]})
    path.write_bytes(body)
    with pytest.raises(DataError, match=r"test_batch has the MD5 sum .* may run any code"):
        load("cifar10", root)
    forged = PickledRecords(path, hashlib.md5(body).hexdigest())
    with pytest.raises(DataError, match=r"asks for (builtins|__builtin__)\.print"):
        forged.read()
    assert capsys.readouterr().out == ""


def test_the_published_sums_are_well_formed():
    names = [name for one in ("cifar10", "cifar100") for name in DATASETS[one].files.pickles]
    assert len(names) == 8
    assert len({md5 for _, md5 in names}) == 8
    assert all(len(md5) == 32 and int(md5, 16) for _, md5 in names)
