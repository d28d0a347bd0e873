"""Folds of the training samples, of every kind of data."""

import numpy as np
import pytest
import torch

from threefactor import data, training
from threefactor.data import Augmentation, AugmentedData, FrameData, Frames
from threefactor.errors import ConfigurationError, InputError
from threefactor.recipes import recipe

CLASSES = ("a", "b", "c")


def frame_data(labels):
    """Frames of which each value is the number of its sample."""
    array = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1, 1)
    array = np.broadcast_to(array, (len(labels), 2, 1, 3, 3))
    frames, labels = Frames(array), torch.tensor(labels)
    return FrameData(frames, labels, frames.first(1), labels[:1], CLASSES, "made-up", 0.0, 1.0)


def numbers(inputs):
    """The numbers of the samples that are in some frames."""
    return inputs[slice(0, len(inputs))][0, :, 0, 0, 0].int().tolist()


def test_folds_part_the_training_samples_and_keep_the_share_of_each_class():
    labels = [0] * 10 + [1] * 20 + [2] * 5
    whole = frame_data(labels)
    tested = []
    for number in range(5):
        part = whole.fold(number, 5)
        train, test = numbers(part.train[0]), numbers(part.test[0])
        assert sorted(train + test) == list(range(35))
        assert part.test[1].bincount().tolist() == [2, 4, 1]
        # Samples kept their labels.
        assert part.train[1].tolist() == [labels[i] for i in train]
        assert part.test[1].tolist() == [labels[i] for i in test]
        tested += test
    assert sorted(tested) == list(range(35))


def test_folds_are_drawn_at_random_and_always_alike():
    first, again = (numbers(frame_data([0] * 30).fold(1, 3).test[0]) for _ in range(2))
    assert first == again
    assert first != list(range(10, 20))


@pytest.mark.parametrize(("number", "folds"), [(0, 1), (0, 6), (2, 2), (-1, 2)])
def test_a_fold_that_there_is_not(number, folds):
    with pytest.raises(InputError, match=f"fold {number} of {folds}.*2 to 5 folds"):
        frame_data([0] * 10 + [1] * 5).fold(number, folds)


def test_images_and_spikes_have_the_same_folds():
    images, spikes = data.load("digits"), data.load_spikes("digits")
    folds = [each.fold(2, 4) for each in (images, spikes)]
    assert folds[0].test[1].tolist() == folds[1].test[1].tolist()
    assert len(folds[0].train[0]) == len(folds[1].train[0]) == len(folds[0].train[1])
    assert folds[0].mean == images.mean


def test_augmentation_stays_with_the_training_samples():
    shifted = AugmentedData(frame_data([0] * 8), Augmentation(padding=1)).fold(0, 2)
    torch.manual_seed(0)
    batch = shifted.train[0][torch.arange(4)]
    assert (batch == 0).any()  # what comes in from outside
    assert sorted(numbers(shifted.test[0]) + numbers(shifted.data.train[0])) == list(range(8))


def test_a_run_tests_on_its_fold():
    changes = {"folds": 5, "fold": 3, "epochs": 1}
    built = training.build(recipe("digits-fc").settings_for("dfa", changes))
    assert len(built.data.train[1]) + len(built.data.test[1]) == 1437
    expected = data.load("digits").fold(3, 5).test[1]
    assert torch.equal(built.data.test[1], expected)


def test_folds_without_meaning_are_refused():
    with pytest.raises(ConfigurationError, match=r"data.folds = 1"):
        recipe("digits-fc").settings_for("dfa", {"folds": 1})
    with pytest.raises(InputError, match="fold 5 of 5"):
        training.build(recipe("digits-fc").settings_for("dfa", {"folds": 5, "fold": 5}))
