"""Samples in files: the same batches as in memory, and what damage and changes get."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from threefactor.data import batches
from threefactor.data.files.rows import FileRows
from threefactor.data.formats.unread import unread
from threefactor.data.samples.stored import Stored, moments
from threefactor.errors import DataError

SHAPE = (23, 3, 4)


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def rows(values, tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"header" + values.tobytes())
    return FileRows(path, 6, SHAPE, np.dtype("u1"))


INDICES = [
    slice(None),
    slice(3, 9),
    slice(20, 2, -3),
    np.array([5, 6, 7, 0, 22]),
    np.array([4, 4]),
    np.array([], np.int64),
]


@pytest.mark.parametrize("index", INDICES)
def test_rows_are_those_of_the_array(rows, values, index):
    assert np.array_equal(rows[index], values[index])
    chosen = rows.choose(np.array([3, 1, 4, 1, 5]))
    assert np.array_equal(chosen.choose(slice(1, 4))[:], values[[1, 4, 1]])
    assert np.array_equal(pickle.loads(pickle.dumps(rows))[index], values[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("sequences", [False, True])
def test_batches_have_the_bits_of_what_was_scaled_as_a_whole(rows, values, dtype, sequences):
    whole = torch.from_numpy(values).to(dtype).div_(255).sub_(0.3).div_(0.7)
    made = {"sequences": sequences, "peak": 255.0, "mean": 0.3, "std": 0.7}
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0)).split(5)
    for held in (rows, torch.from_numpy(values)):
        stored = Stored(held, dtype, **made)
        taken = zip(order, batches(stored, order, 0), strict=True)
        for index, batch in taken:
            expected = whole[index].transpose(0, 1) if sequences else whole[index]
            assert torch.equal(batch, expected) and batch.dtype is dtype
            assert torch.equal(stored[index], expected) and batch.is_contiguous()
        assert torch.equal(stored[4], whole[4])
        part = stored.choose(torch.tensor([7, 2])).first(1)[:]
        assert torch.equal(part, whole[7:8].transpose(0, 1) if sequences else whole[7:8])


def test_moments_have_the_same_bits_wherever_the_samples_lie(rows, values, monkeypatch):
    monkeypatch.setattr("threefactor.data.samples.stored.CHUNK", 100)
    found = moments(Stored(rows, torch.float32))
    assert found == moments(torch.from_numpy(values).float())
    assert found == pytest.approx((values.mean(), values.std()), rel=1e-14)


def test_a_file_that_changes_is_noticed(rows, values):
    assert len(rows[:3])
    stat = os.stat(rows.path)
    with rows.path.open("r+b") as file:
        file.seek(6)
        file.write(b"\0")
    os.utime(rows.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(DataError, match="was changed while it was in use"):
        rows[:3]
    with pytest.raises(DataError, match="was changed since it was opened"):
        pickle.loads(pickle.dumps(rows))


def test_a_file_that_is_cut_short_or_absent(rows, tmp_path):
    os.truncate(rows.path, 100)
    with pytest.raises(DataError, match="cut short while it was in use"):
        rows[20:]
    with pytest.raises(DataError, match="is cut short"):
        FileRows(rows.path, 6, SHAPE, np.dtype("u1"))
    with pytest.raises(DataError, match="cannot be read"):
        FileRows(tmp_path / "none", 0, SHAPE, np.dtype("u1"))


def test_a_file_that_is_replaced_is_read_on_as_it_was(rows, values, tmp_path):
    (tmp_path / "new").write_bytes(bytes(6 + values.size))
    os.replace(tmp_path / "new", rows.path)
    assert np.array_equal(rows[:], values)


@pytest.mark.parametrize("kind", ["u1", "i4", "f2", "f4", "f8", "?"])
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_arrays_that_stay_unread(tmp_path, values, kind, ending):
    arrays = {"inputs": values.astype(kind), "labels": np.arange(23)}
    path = tmp_path / f"a.{ending}"
    np.savez(path, **arrays) if ending == "npz" else save_file(arrays, path)
    found = unread(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name][:], array)


def test_arrays_whose_rows_cannot_be_read(tmp_path, values):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, inputs=values)
    with pytest.raises(DataError, match=r"is compressed.*numpy\.savez"):
        unread(path)
    np.savez(path, inputs=np.asfortranarray(values))
    with pytest.raises(DataError, match="lies column by column"):
        unread(path)
    np.savez(path, inputs=np.array([None]))
    with pytest.raises(DataError, match="expected numbers"):
        unread(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="expected arrays alone"):
        unread(path)
    with pytest.raises(DataError, match="cannot be read"):
        unread(tmp_path / "none.npz")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_damaged_files_are_refused_and_nothing_else_happens(tmp_path, values, ending):
    path = tmp_path / f"a.{ending}"
    arrays = {"inputs": values, "labels": np.arange(23)}
    np.savez(path, **arrays) if ending == "npz" else save_file(arrays, path)
    whole, chance = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        body = bytearray(whole[: chance.integers(len(whole))] if chance.random() < 0.3 else whole)
        for place in chance.integers(0, max(len(body), 1), 3):
            if body:
                body[place] = chance.integers(256)
        path.write_bytes(body)
        try:
            for array in unread(path).values():
                array[:1]
        except DataError:
            refused += 1
    assert refused > 50
