"""Simulated saccades: number of events, balance of polarities, a scalar loop, the way to frames."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data import (
    DATASETS,
    EVENT,
    SaccadeSettings,
    available,
    fetch,
    has_frames,
    load,
    load_events,
    load_frames,
    simulate_saccades,
)
from threefactor.data.encode import saccades as saccades_module
from threefactor.errors import ConfigurationError, InputError


def pictures(seed, count=3, size=4):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def one_pixel(values, interval, threshold):
    """The events of one pixel, value after value and threshold after threshold."""
    kept, events = values[0], []
    for step, (before, now) in enumerate(itertools.pairwise(values)):
        sign = 1 if now > kept else -1
        while abs(now - kept) >= threshold * (1 - 1e-6):
            kept += sign * threshold
            share = min(max((kept - before) / (now - before), 0), 1)
            events.append((int((step + share) * interval), sign > 0))
    return events


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**30), st.sampled_from(["log", "linear"]), st.sampled_from([0.07, 0.3]))
def test_each_pixel_is_that_of_a_loop(seed, intensity, threshold):
    given = SaccadeSettings(intensity, threshold, sensor=6, picture=4, reach=1.0, steps=7)
    images = pictures(seed)
    views = np.stack(list(saccades_module._views(images, given)))
    found = simulate_saccades(images, given)
    for sample, events in enumerate(found):
        assert events.dtype == EVENT and (np.diff(events["t"]) >= 0).all()
        for pixel in range(36):
            mine = events[(events["y"] == pixel // 6) & (events["x"] == pixel % 6)]
            expected = one_pixel(views[:, sample, pixel].tolist(), 100_000 / 7, threshold)
            assert mine["p"].tolist() == [p for _, p in expected]
            times = np.array([t for t, _ in expected], dtype=float)
            assert (np.abs(mine["t"] - times) <= 1).all(), "but for rounding"


def test_the_picture_moves_along_the_triangle():
    """A bright dot is seen where the corners are, bilinearly nowhere else."""
    given = SaccadeSettings(sensor=34, picture=28, intensity="linear", steps=4)
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 10, 20] = 1
    views = [view.reshape(34, 34) for view in saccades_module._views(image, given)]
    assert len(views) == 13
    for step, (x, y) in {0: (-3, -3), 4: (0, 3), 8: (3, -3), 12: (-3, -3)}.items():
        assert views[step][3 + 10 + y, 3 + 20 + x] == pytest.approx(1, abs=1e-5)
    for view in views:
        assert view.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(views[0], views[-1])


@pytest.mark.parametrize("intensity", ["log", "linear"])
def test_every_pixel_has_as_many_on_as_off_events(intensity):
    images = load("digits", normalise=False).train_images[:8]
    for events in simulate_saccades(images, SaccadeSettings(intensity)):
        balance = np.zeros((34, 34), dtype=int)
        np.add.at(balance, (events["y"], events["x"]), np.where(events["p"], 1, -1))
        assert (balance == 0).all()
        assert events["t"].min() >= 0 and events["t"].max() < 300_000
        thirds = np.histogram(events["t"], 3, (0, 300_000))[0] / len(events)
        assert (thirds > 0.2).all(), "three saccades, each with events"


def test_the_number_of_events_is_that_of_the_contrast():
    """Of an edge of height h, each pixel that it crosses has floor(h / threshold) events a time."""
    image = torch.zeros(1, 1, 28, 28)
    image[..., 14:] = 1
    for intensity, contrast in (("linear", 1.0), ("log", math.log(1.1 / 0.1))):
        given = SaccadeSettings(intensity, contrast / 4.0)
        (events,) = simulate_saccades(image, given)
        crossed = events[(events["y"] > 6) & (events["y"] < 27) & (np.abs(events["x"] - 16.5) < 2)]
        # -3 to 0 to 3 to -3: the four pixels next to the edge are passed once to and once fro.
        assert len(crossed) == 20 * 4 * 2 * 4
    few = simulate_saccades(image, SaccadeSettings(threshold=0.6))[0]
    assert len(few) < len(simulate_saccades(image, SaccadeSettings(threshold=0.3))[0])


def test_a_grey_field_has_events_at_its_edges_alone():
    image = torch.full((1, 1, 28, 28), 0.5)
    (events,) = simulate_saccades(image)
    inside = (events["x"] > 6) & (events["x"] < 27) & (events["y"] > 6) & (events["y"] < 27)
    assert len(events) and not inside.any()
    assert [len(each) for each in simulate_saccades(torch.zeros(2, 1, 28, 28))] == [0, 0]


def test_any_images_are_taken():
    colour = pictures(1, 2, 28).expand(2, 4, 28, 28)  # the mean of 4 is exact
    grey = simulate_saccades(colour[:, :1])
    for found, expected in zip(simulate_saccades(colour), grey, strict=True):
        np.testing.assert_array_equal(found, expected)
    for size in (8, 28, 32, 64):
        found = simulate_saccades(np.random.default_rng(0).random((2, 3, size, size)))
        assert all(each["x"].min() >= 0 and each["x"].max() < 34 for each in found)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(28, 28), r"shape \(28, 28\)"),
        (torch.zeros(0, 1, 28, 28), r"shape \(0, 1"),
        (torch.full((1, 1, 28, 28), -0.1), "outside 0 to 1"),
        (torch.full((1, 1, 28, 28), float("nan")), "outside 0 to 1"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        simulate_saccades(images)


@pytest.mark.parametrize("given", [{"intensity": "square"}, {"threshold": 0}, {"steps": True}])
def test_settings_without_meaning_are_refused(given):
    with pytest.raises(InputError):
        SaccadeSettings(**given)


def test_simulated_frames_by_name(tmp_path, monkeypatch, place, arrays):
    place(tmp_path / "mnist")
    assert has_frames("simulated-mnist") and has_frames("nmnist")
    assert not has_frames("mnist") and not has_frames("simulated-shd")
    data = load_frames("simulated-mnist", tmp_path)
    assert data.name == "simulated-mnist"
    assert (data.input_shape, data.steps, data.outputs) == ((2, 34, 34), 30, 10)
    np.testing.assert_array_equal(data.train_labels, arrays[1])
    events = simulate_saccades(torch.from_numpy(arrays[2][:, None] / 255))
    totals = data.test_frames[slice(None)].sum((0, 2, 3, 4))
    np.testing.assert_array_equal(totals, [len(each) for each in events])
    assert len(list((tmp_path / "simulated-mnist").glob("frames/*/frames.npy"))) == 2
    monkeypatch.setattr("threefactor.data.sets.simulated.simulate_saccades", None)
    again = load_frames("simulated-mnist", tmp_path)
    assert torch.equal(again.train_frames[slice(None)], data.train_frames[slice(None)])


def test_every_set_of_images_has_a_simulated_one_of_the_sensors_size():
    names = {name for name, entry in DATASETS.items() if entry.kind == "images"}
    made = {entry.base.name: entry for entry in DATASETS.values() if entry.kind == "simulated"}
    assert made.keys() == names
    sensor = SaccadeSettings().sensor
    for base, entry in made.items():
        assert entry.shape == (2, sensor, sensor) and has_frames(entry.name)
        assert (entry.train, entry.test) == (DATASETS[base].train, DATASETS[base].test)


def test_simulated_sets_are_fetched_and_refused_by_other_loaders(tmp_path, tiny, mirror):
    assert not available("simulated-mnist", tmp_path)
    assert fetch("simulated-mnist", tmp_path, mirrors=[mirror("good")]) == tmp_path / "mnist"
    assert available("simulated-mnist", tmp_path)
    for loader, match in ((load, r"use threefactor\.data\.load_frames"), (load_events, "recorded")):
        with pytest.raises(ConfigurationError, match=match):
            loader("simulated-mnist", tmp_path)


def test_a_simulated_set_of_nothing_is_unknown(tmp_path):
    for name in ("simulated-nothing", "simulated-shd"):
        with pytest.raises(ConfigurationError, match="unknown data set"):
            load_frames(name, tmp_path)


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (torch.zeros(1, 1, 4, 4), 5, "give SaccadeSettings"),
        (np.zeros((1, 1, 4, 4), complex), None, "complex"),
        (torch.zeros(1, 1, 4, 4, device="meta"), None, "not an array of numbers"),
        ([["a"]], None, "not an array of numbers"),
    ],
)
def test_what_is_no_image_is_refused(images, settings, message):
    with pytest.raises(InputError, match=message):
        simulate_saccades(images, settings)
