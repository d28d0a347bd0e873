"""EMNIST: an archive of which four files are read, whose images are stored on their side."""

import gzip
import shutil

import numpy as np
import pytest
import torch

from threefactor.data import DATASETS, available, describe, fetch, load, load_spikes
from threefactor.data.files import archives as archives_module
from threefactor.errors import DataError

NAME = "emnist-balanced"
LETTER = np.zeros((28, 28), dtype=np.uint8)  # an upright L
LETTER[4:24, 8] = LETTER[23, 8:20] = 255


@pytest.fixture
def names():
    return DATASETS[NAME].files.contents


@pytest.fixture
def unpacked(tmp_path, emnist_packed):
    """A function that writes the four files into a folder, perhaps without compression."""

    def write(folder, plain=False):
        folder.mkdir(parents=True)
        for name, body in emnist_packed.items():
            name = name.removeprefix("gzip/")
            body = gzip.decompress(body) if plain else body
            (folder / (name.removesuffix(".gz") if plain else name)).write_bytes(body)

    return write


def check(data, arrays):
    images, labels, test_images, test_labels = arrays
    np.testing.assert_array_equal(data.train_images.mul(255).round().numpy()[:, 0], images)
    np.testing.assert_array_equal(data.test_images.mul(255).round().numpy()[:, 0], test_images)
    np.testing.assert_array_equal(data.train_labels.numpy(), labels)
    np.testing.assert_array_equal(data.test_labels.numpy(), test_labels)


def test_the_archive_is_fetched_and_four_files_are_kept_of_it(
    tmp_path, tiny_emnist, server, mirror, names, arrays
):
    folder = fetch(NAME, tmp_path, mirrors=[mirror("cut"), mirror("good")])
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert server.requests == ["/cut/gzip.zip", "/good/gzip.zip"]
    check(load(NAME, tmp_path, normalise=False), arrays)
    fetch(NAME, tmp_path, mirrors=[mirror("good")])
    assert len(server.requests) == 2


def test_letters_stand_upright(tmp_path, place, arrays):
    """In the files, the long stroke of an L lies in a row: the columns come one by one."""
    stems = tuple(name.removesuffix("-ubyte.gz") for name in DATASETS[NAME].files.contents)
    stored = np.stack([np.ascontiguousarray(LETTER.T)] * 2)
    assert stored[0, 8].sum() == 20 * 255
    labels = np.array([21, 21], dtype=np.uint8)
    place(tmp_path / NAME, data=(stored, labels, stored, labels), names=stems)
    data = load(NAME, tmp_path, normalise=False)
    assert data.classes[data.train_labels[0]] == "L"
    for images in (data.train_images, data.test_images):
        np.testing.assert_array_equal(images[0, 0].mul(255).numpy(), LETTER)
    spikes = load_spikes(NAME, tmp_path).test_spikes.sample(1)[1]
    np.testing.assert_array_equal(spikes, np.flatnonzero(LETTER))


@pytest.mark.parametrize("plain", [False, True], ids=["packed", "plain"])
@pytest.mark.parametrize("subfolder", ["", "gzip"])
def test_files_from_elsewhere_are_found(tmp_path, unpacked, arrays, subfolder, plain):
    unpacked(tmp_path / NAME / subfolder, plain)
    assert available(NAME, tmp_path)
    check(load(NAME, tmp_path, normalise=False), arrays)


def test_the_archive_alone_is_enough_and_nothing_is_written(tmp_path, emnist_zip, arrays):
    path = tmp_path / NAME / "gzip.zip"
    path.parent.mkdir()
    path.write_bytes(emnist_zip)
    assert f"found in {path.parent}" in describe(NAME, tmp_path)
    check(load(NAME, tmp_path, normalise=False), arrays)
    assert list(path.parent.iterdir()) == [path]


def test_an_archive_that_was_there_is_unpacked_and_kept(
    tmp_path, tiny_emnist, emnist_zip, server, mirror, names
):
    path = tmp_path / NAME / "gzip.zip"
    path.parent.mkdir()
    path.write_bytes(emnist_zip)
    fetch(NAME, tmp_path, mirrors=[mirror("good")])
    assert server.requests == []
    assert sorted(each.name for each in path.parent.iterdir()) == sorted([*names, path.name])


def test_an_incomplete_set_is_completed(tmp_path, tiny_emnist, unpacked, server, mirror, names):
    unpacked(tmp_path / NAME)
    (tmp_path / NAME / names[3]).unlink()
    assert not available(NAME, tmp_path)
    fetch(NAME, tmp_path, mirrors=[mirror("good")])
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == sorted(names)


def test_files_in_two_folders_are_not_mixed(tmp_path, unpacked, names):
    unpacked(tmp_path / NAME / "gzip")
    shutil.move(tmp_path / NAME / "gzip" / names[0], tmp_path / NAME / names[0])
    with pytest.raises(DataError) as caught:
        load(NAME, tmp_path)
    text = str(caught.value)
    assert names[1] in text and "nor gzip.zip" in text
    assert f"threefactor data fetch {NAME}" in text


def test_an_archive_with_a_wrong_sum_is_neither_taken_nor_replaced(
    tmp_path, tiny_emnist, server, mirror
):
    with pytest.raises(DataError, match=r"no mirror delivered gzip\.zip"):
        fetch(NAME, tmp_path, mirrors=[mirror("wrong")])
    assert list((tmp_path / NAME).iterdir()) == []
    path = tmp_path / NAME / "gzip.zip"
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"is not the published file.* left untouched"):
        fetch(NAME, tmp_path, mirrors=[mirror("good")])
    assert path.read_bytes() == b"mine"
    assert server.requests == ["/wrong/gzip.zip"]


def test_a_file_of_ones_own_is_not_overwritten(tmp_path, tiny_emnist, mirror, names):
    path = tmp_path / NAME / names[0]
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="is there already but differs"):
        fetch(NAME, tmp_path, mirrors=[mirror("good")])
    assert path.read_bytes() == b"mine"
    path.unlink()
    fetch(NAME, tmp_path, mirrors=["http://127.0.0.1:9/"])  # the archive is there by now


def test_what_breaks_off_while_unpacking_is_not_taken_for_complete(
    tmp_path, tiny_emnist, server, mirror, monkeypatch, arrays
):
    replace, calls = archives_module.os.replace, []

    def break_off(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(archives_module.os, "replace", break_off)
        with pytest.raises(KeyboardInterrupt):
            fetch(NAME, tmp_path, mirrors=[mirror("good")])
    check(load(NAME, tmp_path, normalise=False), arrays)  # out of the archive, which is whole
    (tmp_path / NAME / "gzip.zip").unlink()
    assert not available(NAME, tmp_path)
    fetch(NAME, tmp_path, mirrors=[mirror("good")])
    check(load(NAME, tmp_path, normalise=False), arrays)


def test_a_damaged_archive_is_an_error_that_names_it(tmp_path, emnist_zip):
    path = tmp_path / NAME / "gzip.zip"
    path.parent.mkdir()
    middle = emnist_zip.index(b"train-images") + 5000
    damaged = emnist_zip[:middle] + bytes(100) + emnist_zip[middle + 100 :]
    for body in (emnist_zip[: len(emnist_zip) // 2], damaged):
        path.write_bytes(body)
        with pytest.raises(DataError, match=r"gzip\.zip is damaged"):
            load(NAME, tmp_path)


def test_swapped_files_are_refused(tmp_path, unpacked, names):
    unpacked(tmp_path / NAME)
    images, labels, *_ = (tmp_path / NAME / name for name in names)
    images.rename(tmp_path / "moved")
    labels.rename(images)
    (tmp_path / "moved").rename(labels)
    with pytest.raises(DataError, match=r"train-images.* shape \(40,\); expected images of 28x28"):
        load(NAME, tmp_path)


def test_the_classes_are_those_of_the_mapping_file():
    codes = [*range(48, 58), *range(65, 91), 97, 98, 100, 101, 102, 103, 104, 110, 113, 114, 116]
    assert DATASETS[NAME].classes == tuple(map(chr, codes))
    assert len(codes) == 47


def test_all_47_labels_pass_and_no_more(tmp_path, place, arrays):
    stems = tuple(name.removesuffix("-ubyte.gz") for name in DATASETS[NAME].files.contents)
    images, labels, test_images, test_labels = arrays
    labels = labels + np.uint8(37)
    place(tmp_path / NAME, data=(images, labels, test_images, test_labels), names=stems)
    data = load(NAME, tmp_path)
    assert (data.outputs, int(data.train_labels.max())) == (47, 46)
    assert data.train_labels.dtype == torch.int64
    place(
        tmp_path / NAME,
        data=(images, labels + np.uint8(1), test_images, test_labels),
        names=stems,
    )
    with pytest.raises(DataError, match=r"holds the label 47; .* has labels 0 to 46"):
        load(NAME, tmp_path)
