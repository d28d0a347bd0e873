"""CIFAR-10 and CIFAR-100, written in the official layout and read back."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch
from data.described import with_files
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data import DATASETS, available, fetch, load, load_spikes
from threefactor.data.files.source import Source
from threefactor.data.sets.cifar import _records
from threefactor.errors import DataError

SETS = {
    "cifar10": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", 1, 10),
    "cifar100": ("cifar-100-binary.tar.gz", "cifar-100-binary", 2, 100),
}


def made(name, samples=7):
    """The files of a set by name: (images, labels, bytes) each."""
    _, _, columns, classes = SETS[name]
    generator = np.random.default_rng(0)
    parts = {}
    for path in DATASETS[name].files.contents:
        images = generator.integers(0, 256, (samples, 3, 32, 32), dtype=np.uint8)
        labels = generator.integers(0, classes, samples, dtype=np.uint8)
        before = [generator.integers(0, 20, samples, dtype=np.uint8)] * (columns - 1)
        columns_first = np.stack([*before, labels], axis=1)
        table = np.concatenate([columns_first, images.reshape(samples, -1)], axis=1)
        parts[path] = (images, labels, table.tobytes())
    return parts


def packed(name, parts):
    folder = SETS[name][1]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        # The order of the published archives is not that in which the files are read.
        for path, (*_, body) in reversed(parts.items()):
            info = tarfile.TarInfo(f"{folder}/{path}")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def check(data, parts):
    *train, test = parts.values()
    for images, labels, expected in (
        (data.train_images, data.train_labels, train),
        (data.test_images, data.test_labels, [test]),
    ):
        raw = np.concatenate([part[0] for part in expected])
        np.testing.assert_array_equal(images.mul(255).round().numpy(), raw)
        np.testing.assert_array_equal(labels, np.concatenate([part[1] for part in expected]))
        assert images.shape[1:] == data.input_shape == (3, 32, 32)


@pytest.fixture(params=SETS)
def name(request):
    return request.param


@pytest.fixture
def parts(name):
    return made(name)


@pytest.fixture
def folder(tmp_path, name, parts):
    folder = tmp_path / name
    folder.mkdir()
    for path, (*_, body) in parts.items():
        (folder / path).write_bytes(body)
    return folder


def test_unpacked_files_are_read(tmp_path, name, folder, parts):
    check(load(name, tmp_path, normalise=False), parts)


def test_the_folder_of_the_archive_is_found(tmp_path, name, folder, parts):
    inner = folder / SETS[name][1]
    inner.mkdir()
    for path in parts:
        (folder / path).rename(inner / path)
    check(load(name, tmp_path, normalise=False), parts)


def test_the_archive_alone_is_enough(tmp_path, name, parts):
    (tmp_path / name).mkdir()
    path = tmp_path / name / SETS[name][0]
    path.write_bytes(packed(name, parts))
    assert available(name, tmp_path)
    check(load(name, tmp_path, normalise=False), parts)
    assert list(path.parent.iterdir()) == [path]


def test_fetch_keeps_what_is_read(tmp_path, name, parts, monkeypatch, server, mirror):
    import dataclasses

    archive, body = SETS[name][0], packed(name, parts)
    entry = DATASETS[name]
    (file,) = entry.files.published
    file = dataclasses.replace(file, md5=hashlib.md5(body).hexdigest())
    monkeypatch.setitem(DATASETS, name, with_files(entry, file))
    server.bodies[archive] = body
    got = fetch(name, tmp_path, mirrors=[mirror("good")])
    assert sorted(path.name for path in got.iterdir()) == sorted(parts)
    check(load(name, tmp_path, normalise=False), parts)


def test_one_mean_and_deviation_for_all_channels(tmp_path, name, folder, parts):
    data = load(name, tmp_path)
    pixels = np.concatenate([images for images, *_ in list(parts.values())[:-1]]) / 255
    assert data.mean == pytest.approx(pixels.mean(), abs=1e-12)
    assert data.std == pytest.approx(pixels.std(), abs=1e-12)
    expected = (pixels - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(data.train_images.numpy(), expected, atol=1e-6)
    assert data.train_images.dtype == torch.float32


def test_classes_are_those_of_the_published_label_files(name):
    classes = DATASETS[name].classes
    assert len(classes) == SETS[name][3]
    # Both sets number their classes alphabetically.
    assert list(classes) == sorted(set(classes))


def test_images_become_spikes(tmp_path, name, folder, parts):
    data = load_spikes(name, tmp_path)
    assert data.input_shape == (3 * 32 * 32,)
    assert len(data.train_spikes) == 7 * (len(parts) - 1)


def test_a_file_cut_short_is_refused_with_its_offset(tmp_path, name, folder, parts):
    path = folder / list(parts)[-1]
    size = 3072 + SETS[name][2]
    path.write_bytes(path.read_bytes()[:-5])
    message = rf"{path.name} is cut short.* 6 records .* from offset {6 * size} on"
    with pytest.raises(DataError, match=message):
        load(name, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{path.name} is empty"):
        load(name, tmp_path)


def test_a_label_out_of_range_is_refused_with_its_offset(tmp_path, name, folder, parts):
    path = folder / next(iter(parts))
    size, columns = 3072 + SETS[name][2], SETS[name][2]
    for column, high in ((columns - 1, SETS[name][3]), (0, 20 if columns == 2 else 10)):
        body = bytearray(path.read_bytes())
        body[3 * size + column] = high
        path.write_bytes(body)
        offset = 3 * size + column
        message = rf"{path.name} holds the label {high} at offset {offset} \(record 3"
        with pytest.raises(DataError, match=message):
            load(name, tmp_path)


def test_a_damaged_archive_is_refused(tmp_path, name, parts):
    (tmp_path / name).mkdir()
    path = tmp_path / name / SETS[name][0]
    path.write_bytes(packed(name, parts)[:-2000])
    with pytest.raises(DataError, match="is damaged"):
        load(name, tmp_path)
    fewer = dict(list(parts.items())[1:])
    path.write_bytes(packed(name, fewer))
    with pytest.raises(DataError, match=rf"holds no .*{next(iter(parts))}"):
        load(name, tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from([(10,), (20, 100)]), st.integers(1, 5))
def test_any_records_come_back(tmp_path_factory, data, ranges, samples):
    shape = (3, 2, 2)
    size = len(ranges) + 12
    body = data.draw(st.binary(min_size=samples * size, max_size=samples * size))
    table = np.frombuffer(body, dtype=np.uint8).reshape(samples, size).copy()
    table[:, : len(ranges)] %= np.array(ranges, dtype=np.uint8)
    images, labels = _records(
        Source(tmp_path_factory.getbasetemp()), table.tobytes(), shape, ranges
    )
    np.testing.assert_array_equal(labels, table[:, len(ranges) - 1])
    np.testing.assert_array_equal(images.reshape(samples, -1), table[:, len(ranges) :])
