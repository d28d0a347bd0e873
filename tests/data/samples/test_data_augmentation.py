"""Augmentation: what may change and what must not, against a loop over samples."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data import (
    DATASETS,
    Augmentation,
    AugmentedData,
    AugmentedInputs,
    Frames,
    cutout,
    load,
    random_crop,
    random_flip,
)
from threefactor.errors import InputError

shapes = st.one_of(
    st.tuples(*[st.integers(1, 6)] * 2, *[st.integers(2, 7)] * 2),
    st.tuples(*[st.integers(1, 4)] * 3, *[st.integers(2, 7)] * 2),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def numbered(shape):
    """Each value another one, none of them the fill."""
    return torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float32).view(shape)


@settings(max_examples=80, deadline=None)
@given(shapes, st.integers(0, 2**30), st.integers(1, 4))
def test_a_crop_moves_each_sample_as_a_whole(shape, seed, padding):
    batch = numbered(shape)
    found = random_crop(batch, padding, -1.0, seeded(seed))
    down, right = torch.randint(0, 2 * padding + 1, (2, shape[-4], 1), generator=seeded(seed))
    height, width = shape[-2:]
    wide = torch.full((*shape[:-2], height + 2 * padding, width + 2 * padding), -1.0)
    wide[..., padding : padding + height, padding : padding + width] = batch
    for sample in range(shape[-4]):
        top, left = int(down[sample]), int(right[sample])
        expected = wide[..., sample, :, top : top + height, left : left + width]
        assert torch.equal(found[..., sample, :, :, :], expected)


@settings(max_examples=50, deadline=None)
@given(shapes, st.integers(0, 2**30))
def test_a_flip_turns_whole_samples(shape, seed):
    batch = numbered(shape)
    found = random_flip(batch, seeded(seed))
    for before, after in zip(batch.unbind(-4), found.unbind(-4), strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(-1))


@settings(max_examples=50, deadline=None)
@given(shapes, st.integers(0, 2**30), st.integers(1, 9))
def test_a_cutout_blanks_one_square(shape, seed, size):
    batch = numbered(shape)
    found = cutout(batch, size, -1.0, seeded(seed))
    assert torch.equal(found[found != -1], batch[found != -1])
    for sample in (found == -1).unbind(-4):
        planes = sample.reshape(-1, *shape[-2:])
        assert (planes == planes[0]).all(), "the same in all channels and steps"
        rows, columns = planes[0].any(1).nonzero(), planes[0].any(0).nonzero()
        assert 1 <= len(rows) <= size and 1 <= len(columns) <= size
        assert planes[0].sum() == len(rows) * len(columns) > 0
        assert rows.max() - rows.min() == len(rows) - 1


def test_every_shift_and_square_occurs_as_often():
    batch = torch.zeros(20_000, 1, 5, 5)
    batch[:, 0, 2, 2] = 1
    moved = random_crop(batch, 1, 0.0, seeded(0)).mean(0)[0]
    assert torch.allclose(moved[1:4, 1:4], torch.tensor(1 / 9), atol=0.01)
    flipped = random_flip(torch.arange(2.0).expand(20_000, 1, 1, 2), seeded(0))[:, 0, 0, 0]
    assert float(flipped.mean()) == pytest.approx(0.5, abs=0.02)
    centre = cutout(torch.ones(20_000, 1, 5, 5), 1, 0.0, seeded(0)).mean(0)[0]
    assert torch.allclose(centre, torch.tensor(24 / 25), atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (4, 6, 2, 8, 8)])
def test_shape_and_type_are_kept_and_the_seed_decides(shape, dtype):
    augment = Augmentation(padding=2, flip=True, cutout=3)
    batch = torch.rand(shape).to(dtype)
    kept = batch.clone()
    first, again, other = (augment(batch, seeded(seed)) for seed in (1, 1, 2))
    assert first.shape == batch.shape and first.dtype == dtype and first.is_contiguous()
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(batch, kept)
    assert torch.equal(Augmentation()(batch), batch)


def test_the_global_generator_is_used_by_default():
    batch = torch.rand(8, 1, 6, 6)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = Augmentation(padding=2)(batch)
    torch.set_rng_state(state)
    assert torch.equal(first, Augmentation(padding=2)(batch))


def test_training_inputs_are_augmented_and_labels_kept():
    plain = load("digits").subset(30, 10)
    data = AugmentedData(plain, Augmentation(padding=1))
    inputs, labels = data.train
    index = torch.arange(30)
    assert torch.equal(labels, plain.train_labels) and len(inputs) == 30
    assert inputs[index].shape == plain.train_images.shape
    assert not torch.equal(inputs[index], plain.train_images)
    assert not torch.equal(inputs[index], inputs[index]), "anew each time"
    assert torch.equal(data.test[0], plain.test_images)
    assert (data.input_shape, data.outputs, data.name) == ((1, 8, 8), 10, "digits")
    assert len(data.subset(5).train[1]) == 5
    assert inputs.to("cpu")[index].device == torch.device("cpu")
    assert copy.copy(data).outputs == 10
    with pytest.raises(AttributeError):
        _ = data.nothing


def test_sequences_of_frames_are_augmented():
    array = np.random.default_rng(0).random((5, 3, 2, 6, 6), dtype=np.float32)
    batch = AugmentedInputs(Frames(array), Augmentation(flip=True), seeded(0))[[0, 4]]
    assert batch.shape == (3, 2, 2, 6, 6)


def test_the_loop_trains_on_augmented_data_and_resumes(tmp_path):
    import dataclasses

    from threefactor.recipes import RECIPES
    from threefactor.training.build import build
    from threefactor.training.loop import Trainer

    given = dataclasses.replace(RECIPES["digits-fc"].settings, epochs=1)
    losses = []
    for _ in range(2):
        experiment = build(given)
        experiment.data = AugmentedData(experiment.data.subset(200, 50), Augmentation(padding=1))
        losses.append(Trainer(experiment).fit()[-1]["train_loss"])
    assert losses[0] == losses[1]


def test_the_published_ones():
    assert DATASETS["cifar10"].augmentation == Augmentation(padding=4, flip=True, cutout=16)
    assert DATASETS["dvs-cifar10"].augmentation == Augmentation(padding=4)
    assert DATASETS["mnist"].augmentation is None


@pytest.mark.parametrize("given", [{"padding": -1}, {"cutout": 1.5}, {"padding": True}])
def test_settings_without_meaning_are_refused(given):
    with pytest.raises(InputError, match="give a whole number from 0 to"):
        Augmentation(**given)


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"shape \(3, 4\); expected \(B, C, H, W\)"):
        random_flip(torch.zeros(3, 4))


@pytest.mark.parametrize("given", [{"padding": 8}, {"cutout": 8}, {"cutout": 100}])
def test_what_may_leave_nothing_of_the_pictures_is_refused(given):
    digits = load("digits").subset(10, 10)
    with pytest.raises(InputError, match="may leave nothing of pictures of 8x8 pixels"):
        AugmentedData(digits, Augmentation(**given))
    AugmentedData(digits, Augmentation(padding=7, cutout=7))
