import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data import load_spikes, yin_yang
from threefactor.errors import InputError

YIN, YANG, DOT = range(3)


def part_by_angle(x, y):
    """The class of a point, walking round the symbol instead of combining discs.

    The upper half is yang but for the half disc that yin pushes into it on the right, the lower
    half is yin but for the one that yang pushes into it on the left; then come the dots.
    """
    u, v = (
        4 * x - 2,
        4 * y - 2,
    )  # the symbol has radius 2, its two lobes radius 1 at (-1, 0), (1, 0)
    if abs(complex(u, v) - 1) < 0.4 or abs(complex(u, v) + 1) < 0.4:
        return DOT
    if v > 0:
        return YIN if abs(complex(u, v) - 1) < 1 else YANG
    return YANG if abs(complex(u, v) + 1) < 1 else YIN


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_every_sample_lies_where_its_label_says(seed):
    values, labels = yin_yang(60, seed)
    assert values.shape == (60, 4) and values.dtype == np.float64
    assert labels.shape == (60,) and labels.dtype == np.int64
    x, y = values[:, 0], values[:, 1]
    assert (np.hypot(x - 0.5, y - 0.5) <= 0.5).all()
    np.testing.assert_array_equal(values[:, 2:], 1 - values[:, :2])
    assert labels.tolist() == [part_by_angle(*point) for point in values[:, :2]]


def test_the_classes_fill_their_parts_of_the_disc():
    """Each class has the area, and the centre of mass, of a fine grid's points of its part."""
    values, labels = yin_yang(5000, seed=42)
    axis = (np.arange(400) + 0.5) / 400
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    grid = grid[np.hypot(*(grid - 0.5).T) <= 0.5]
    parts = np.array([part_by_angle(*point) for point in grid])
    for part in range(3):
        inside, drawn = grid[parts == part], values[labels == part, :2]
        np.testing.assert_allclose(drawn.mean(0), inside.mean(0), atol=0.02)
        np.testing.assert_allclose(drawn.std(0), inside.std(0), atol=0.02)


@pytest.mark.parametrize("seed", [40, 41, 42])
def test_the_classes_are_balanced(seed):
    counts = np.bincount(yin_yang(3000, seed).labels, minlength=3)
    assert counts.sum() == 3000
    assert abs(counts - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


@pytest.mark.parametrize(
    ("samples", "seed", "counts", "first", "sums"),
    [
        (5000, 42, [1681, 1702, 1617], [0.68030754, 0.45049925], [2528.32245657, 2505.76686175]),
        (1000, 41, [316, 336, 348], [0.68057273, 0.32097339], [496.40889649, 493.64854667]),
        (1000, 40, [350, 316, 334], [0.23409665, 0.40172498], [498.25698935, 488.78023568]),
    ],
    ids=["training", "validation", "test"],
)
def test_the_samples_are_those_of_the_authors_program(samples, seed, counts, first, sums):
    values, labels = yin_yang(samples, seed)
    assert np.bincount(labels).tolist() == counts
    np.testing.assert_allclose(values[0, :2], first, atol=1e-8)
    np.testing.assert_allclose(values[:, :2].sum(0), sums, atol=1e-7)


def test_the_same_seed_gives_the_same_samples_whatever_else_is_drawn():
    first = yin_yang(50, 7)
    np.random.seed(0)  # noqa: NPY002
    again = yin_yang(80, 7)
    np.testing.assert_array_equal(first.values, again.values[:50])
    np.testing.assert_array_equal(first.labels, again.labels[:50])
    assert not np.array_equal(first.values, yin_yang(50, 8).values)


def test_the_set_is_the_published_split():
    data = load_spikes("yin-yang")
    assert (len(data.train_spikes), len(data.test_spikes)) == (5000, 1000)
    assert (data.input_shape, data.outputs, data.classes) == ((5,), 3, ("yin", "yang", "dot"))
    np.testing.assert_array_equal(data.train_labels, yin_yang(5000, 42).labels)
    np.testing.assert_array_equal(data.test_labels, yin_yang(1000, 40).labels)


@pytest.mark.parametrize("window", [0.1, 2.0])
def test_values_are_coded_in_times_with_a_bias(window):
    """With a window of 2.0 the times are those of the literature, in synaptic time constants."""
    data = load_spikes("yin-yang", window=window)
    values = yin_yang(1000, 40).values
    for b in (0, 1, 999):
        times, channels = data.test_spikes.sample(b)
        assert (np.diff(times) >= 0).all() and sorted(channels) == [0, 1, 2, 3, 4]
        expected = [*(0.15 + (2.0 - 0.15) * values[b]), 0.9]
        np.testing.assert_allclose(times[np.argsort(channels)], np.array(expected) * window / 2)


@pytest.mark.parametrize(("samples", "seed"), [(0, 1), (2.0, 1), (True, 1), (1, -1), (1, 2**32)])
def test_numbers_out_of_range_are_refused(samples, seed):
    with pytest.raises(InputError, match=r"(samples|seed) is .*; give a whole number from"):
        yin_yang(samples, seed)
