import dataclasses
import gzip
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from threefactor.data import (
    DATASETS,
    DataFile,
    Files,
    ImageSet,
    available,
    describe,
    fetch,
    load,
    load_spikes,
)
from threefactor.data.sets.mnist import read_idx_pairs
from threefactor.errors import DataError, InputError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_the_digits_split_never_changes(digits):
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert torch.bincount(digits.test_labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert digits.test_labels[:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]
    weights = torch.arange(1, 361)
    assert int((weights * digits.test_labels).sum()) == 283622
    assert digits.mean == pytest.approx(0.30538339422407795, abs=1e-12)
    assert digits.std == pytest.approx(0.3761191680900195, abs=1e-12)


def test_digits_have_both_parts_of_the_original(digits):
    from sklearn.datasets import load_digits

    raw = load("digits", normalise=False)
    joined = torch.cat([raw.train_images, raw.test_images]).flatten(1).mul(16).round().numpy()
    np.testing.assert_array_equal(
        sorted(map(tuple, joined)), sorted(map(tuple, load_digits().data.astype(np.float32)))
    )


def test_the_data_describe_themselves(digits):
    assert digits.input_shape == (1, 8, 8)
    assert digits.outputs == 10
    assert digits.classes[9] == "9"
    assert digits.name == "digits"
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64


def test_the_training_images_have_mean_zero_and_deviation_one(digits):
    assert float(digits.train_images.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(digits.train_images.std(correction=0)) == pytest.approx(1.0, abs=1e-6)


def test_both_parts_are_normalised_by_the_training_images(tmp_path, place, arrays):
    place(tmp_path / "mnist")
    data = load("mnist", tmp_path)
    pixels = arrays[0] / 255
    assert data.mean == pytest.approx(pixels.mean(), abs=1e-12)
    assert data.std == pytest.approx(pixels.std(), abs=1e-12)
    for images, raw in ((data.train_images, arrays[0]), (data.test_images, arrays[2])):
        expected = (raw[:, None] / 255 - pixels.mean()) / pixels.std()
        np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(data.train_labels.numpy(), arrays[1])
    np.testing.assert_array_equal(data.test_labels.numpy(), arrays[3])
    assert data.input_shape == (1, 28, 28)


def test_without_normalisation_pixels_are_scaled_only(tmp_path, place, arrays):
    place(tmp_path / "mnist")
    data = load("mnist", tmp_path, normalise=False)
    np.testing.assert_allclose(data.test_images.numpy()[:, 0], arrays[2] / 255, rtol=1e-6)
    assert data.mean == pytest.approx(arrays[0].mean() / 255)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_images_come_in_the_type_asked_for(dtype):
    data = load("digits", dtype=dtype)
    assert data.train_images.dtype == data.test_images.dtype == dtype
    assert float(data.train_images.double().mean()) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.complex64])
def test_a_type_that_is_not_floating_point_is_refused(dtype):
    with pytest.raises(InputError, match=r"expected one of torch\.float16"):
        load("digits", dtype=dtype)


def test_fashion_classes_have_names(tmp_path, place):
    place(tmp_path / "fashion-mnist")
    data = load("fashion-mnist", tmp_path)
    assert (data.classes[0], data.classes[9]) == ("T-shirt/top", "Ankle boot")


def test_subset_takes_the_first_samples(digits):
    part = digits.subset(100, 20)
    assert torch.equal(part.train_images, digits.train_images[:100])
    assert torch.equal(part.train_labels, digits.train_labels[:100])
    assert torch.equal(part.test_images, digits.test_images[:20])
    assert torch.equal(part.test_labels, digits.test_labels[:20])
    assert (part.mean, part.classes) == (digits.mean, digits.classes)
    assert len(digits.subset(test=1).train_labels) == 1437
    assert len(digits.subset(1437).test_labels) == 360


@pytest.mark.parametrize("number", [0, -1, 1438, 2.0, True, "3"])
def test_subset_refuses_other_numbers(digits, number):
    with pytest.raises(InputError, match=r"train is .*from 1 to 1437, or None for all"):
        digits.subset(train=number)
    with pytest.raises(InputError, match=r"test is .*from 1 to 360"):
        digits.subset(test=361 if number == 1438 else number)


def test_the_data_cannot_be_changed_by_assignment(digits):
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.mean = 0.0


def misfit(arrays, **changes):
    parts = dict(zip(("images", "labels", "test_images", "test_labels"), arrays, strict=True))
    return list({**parts, **changes}.values())


def test_files_that_do_not_fit_together_are_refused(tmp_path, place, arrays):
    images, labels, *_ = arrays
    cases = {
        "40 images but .*39 labels": {"labels": labels[:39]},
        "holds the label 10; 'mnist' has labels 0 to 9": {"labels": labels + np.uint8(1)},
        r"shape \(40, 27, 28\); expected images of 28x28": {"images": images[:, 1:]},
        r"shape \(40,\); expected images of 28x28": {"images": labels, "labels": images},
        r"t10k-labels.* shape \(40, 28, 28\); expected labels": {"test_labels": images},
        "all pixels of the training images of 'mnist' are equal": {"images": images * 0},
    }
    for message, changes in cases.items():
        place(tmp_path / "mnist", data=misfit(arrays, **changes))
        with pytest.raises(DataError, match=message):
            load("mnist", tmp_path)


def test_a_repacked_copy_is_read_and_a_damaged_one_refused(tmp_path, place, arrays, encode_idx):
    folder = place(tmp_path / "mnist")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(encode_idx(arrays[0]), compresslevel=1))
    assert len(load("mnist", tmp_path).train_labels) == 40
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is a damaged gzip file"):
        load("mnist", tmp_path)


def test_the_import_leaves_slow_packages_out():
    code = (
        "import sys, threefactor.data; print(sorted({'sklearn', 'h5py', 'PIL'} & {*sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_set_of_ones_own_is_one_description(place, tmp_path, packed, mirror, monkeypatch):
    files = tuple(DataFile(name, hashlib.md5(body).hexdigest()) for name, body in packed.items())
    entry = ImageSet(
        name="mine",
        title="My set",
        shape=(1, 28, 28),
        train=40,
        test=10,
        classes=tuple("abcdefghij"),
        licence="mine",
        source="me",
        homepage="https://example.org",
        files=Files(files, mirrors=(mirror("good"),)),
        read=read_idx_pairs,
    )
    monkeypatch.setitem(DATASETS, "mine", entry)
    assert not available("mine", tmp_path)
    assert sorted(path.name for path in fetch("mine", tmp_path).iterdir()) == sorted(packed)
    found = load("mine", tmp_path)
    assert (len(found.train_labels), found.outputs, found.name) == (40, 10, "mine")
    assert load_spikes("mine", tmp_path).train_spikes.size == 784
    assert "My set" in describe("mine", tmp_path)
