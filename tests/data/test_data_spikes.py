"""What `load_spikes` gives of every kind of set, and the data that it gives."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from threefactor.data import ImageData, SpikeData, load, load_spikes
from threefactor.data.encode import latency as coding
from threefactor.errors import ConfigurationError, DataError, InputError
from threefactor.events import SpikeBatch, latency_code


@pytest.fixture(scope="module")
def digits():
    return load_spikes("digits")


def frame(spikes, b, window):
    """The image that a latency code stands for; nan where a pixel spikes more than once."""
    times, addresses = spikes.sample(b)
    image = np.zeros(spikes.size)
    image[addresses] = 1 - times / window
    return image if len(set(addresses)) == len(addresses) else image * np.nan


def check_codes(spikes, images, window):
    """Every pixel of every image can be read off the times; those that are 0 have no spike."""
    assert len(spikes) == len(images) > 0
    flat = images.reshape(len(images), -1)
    assert len(spikes.times) == np.count_nonzero(flat) > 0
    for b, image in enumerate(flat):
        np.testing.assert_allclose(frame(spikes, b, window), image, atol=1e-12)


@pytest.mark.parametrize("window", [0.1, 1, 0.02])
def test_images_are_coded_by_latency(tmp_path, place, arrays, window):
    place(tmp_path / "mnist")
    data = load_spikes("mnist", tmp_path, window)
    check_codes(data.train_spikes, arrays[0] / 255, window)
    check_codes(data.test_spikes, arrays[2] / 255, window)
    np.testing.assert_array_equal(data.train_labels, arrays[1])
    np.testing.assert_array_equal(data.test_labels, arrays[3])
    assert (data.name, data.input_shape, data.outputs) == ("mnist", (784,), 10)


def test_digits_are_scaled_by_their_own_peak(digits):
    images = load("digits", normalise=False)
    check_codes(digits.train_spikes, images.train_images.double().numpy(), 0.1)
    check_codes(digits.test_spikes, images.test_images.double().numpy(), 0.1)
    assert digits.train_spikes.times.min() == 0.0
    assert torch.equal(digits.test_labels, images.test_labels)


def test_blocks_are_joined_in_order(monkeypatch, arrays):
    whole = latency_code(arrays[0], 0.1)
    for block in (1, 7, 40):
        monkeypatch.setattr(coding, "BLOCK", block)
        joined = coding.code_images(arrays[0], 255, 0.1)
        for name in ("offsets", "times", "addresses"):
            np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
        assert joined.size == 784


@pytest.mark.parametrize("name", ["digits", "yin-yang", "shd", "mnist"])
@pytest.mark.parametrize("window", [0, -0.1, float("nan"), float("inf"), True, "0.1", None])
def test_other_windows_are_refused_before_files_are_looked_for(name, window):
    with pytest.raises(InputError, match=r"window is .*; give a number of seconds above 0"):
        load_spikes(name, window=window)


@pytest.mark.parametrize("name", ["shd", "yin-yang"])
def test_load_refuses_sets_of_spikes_and_says_what_to_use(name):
    with pytest.raises(ConfigurationError, match="holds spikes, not images") as caught:
        load(name)
    assert f"load_spikes({name!r})" in str(caught.value)
    assert "digits, mnist, fashion-mnist, emnist-balanced" in str(caught.value)


def test_unknown_names_and_absent_files_are_answered(tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'yin-yang'"):
        load_spikes("ying-yang")
    for name, loader in (("imagenet", "load"), ("simulated-mnist", "load_frames")):
        with pytest.raises(ConfigurationError, match=rf"use threefactor\.data\.{loader}\("):
            load_spikes(name)
    for name in ("mnist", "shd", "emnist-balanced"):
        with pytest.raises(DataError, match=f"threefactor data fetch {name}"):
            load_spikes(name, tmp_path)


def test_a_loop_needs_to_know_train_and_test_alone(digits):
    images = load("digits")
    for data, kind in ((images, torch.Tensor), (digits, SpikeBatch)):
        for (inputs, labels), number in ((data.train, 1437), (data.test, 360)):
            assert isinstance(inputs, kind)
            assert len(inputs) == len(labels) == number
            assert labels.dtype == torch.int64
    assert images.train == (images.train_images, images.train_labels)
    assert images.test[0] is images.test_images and images.test[1] is images.test_labels
    assert digits.train == (digits.train_spikes, digits.train_labels)
    assert digits.test[0] is digits.test_spikes and digits.test[1] is digits.test_labels


def test_subset_takes_the_first_samples_of_spikes(digits):
    part = digits.subset(100, 20)
    assert isinstance(part, SpikeData)
    for spikes, whole, number in (
        (part.train_spikes, digits.train_spikes, 100),
        (part.test_spikes, digits.test_spikes, 20),
    ):
        assert len(spikes) == number
        for b in (0, number - 1):
            for got, expected in zip(spikes.sample(b), whole.sample(b), strict=True):
                np.testing.assert_array_equal(got, expected)
    assert torch.equal(part.train_labels, digits.train_labels[:100])
    assert torch.equal(part.test_labels, digits.test_labels[:20])
    assert (part.classes, part.name, part.input_shape) == (digits.classes, "digits", (64,))
    assert len(digits.subset(test=1).train_spikes) == 1437
    assert len(digits.subset(1437).test_labels) == 360


@pytest.mark.parametrize("number", [0, -1, 1438, 2.0, True, "3"])
def test_both_kinds_of_data_refuse_the_same_subsets_in_the_same_words(digits, number):
    messages = set()
    for data in (digits, load("digits")):
        with pytest.raises(InputError, match=r"train is .*from 1 to 1437, or None") as caught:
            data.subset(train=number)
        messages.add(str(caught.value))
        with pytest.raises(InputError, match=r"test is .*from 1 to 360"):
            data.subset(test=361 if number == 1438 else number)
    assert len(messages) == 1


@pytest.mark.parametrize("kind", [SpikeData, ImageData])
def test_the_data_cannot_be_changed_by_assignment(digits, kind):
    data = digits if kind is SpikeData else load("digits")
    assert isinstance(data, kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_the_import_needs_no_h5py():
    code = """
import sys
sys.modules["h5py"] = None
from threefactor import data
assert data.load_spikes("yin-yang").outputs == 3
assert data.load_spikes("digits").outputs == 10
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
