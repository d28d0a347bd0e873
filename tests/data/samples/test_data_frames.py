"""Frames against a brute-force loop, the cache, batches with time first, and training on them."""

import dataclasses
import json
import multiprocessing
import os
import sys

import numpy as np
import pytest
import torch
from data.event_files import cifar10_files, gesture_files, nmnist_files, random_events, write
from hypothesis import given, settings
from hypothesis import strategies as st

from threefactor.data import (
    EVENT,
    Frames,
    FrameSettings,
    frames,
    load_events,
    load_frames,
)
from threefactor.data.samples.frame_cache import PREFIX, cached_frames
from threefactor.errors import ConfigurationError, DataError, InputError
from threefactor.recipes import recipe
from threefactor.training.build import load_samples


def brute_force(events, sensor_size, given):
    """One event after the other, and the four neighbours of each point of a resized frame."""
    counts = np.zeros((given.number, 2, *sensor_size))
    for index, (x, y, t, p) in enumerate(events):
        if given.window is not None:
            frame = t // given.window
        else:
            frame = min(index // max(len(events) // given.number, 1), given.number - 1)
        if frame < given.number:
            counts[frame, int(p), y, x] += 1
    if given.size is None:
        return counts
    resized = np.zeros((given.number, 2, *given.size))
    for row in range(given.size[0]):
        for column in range(given.size[1]):
            top = max((row + 0.5) * sensor_size[0] / given.size[0] - 0.5, 0)
            left = max((column + 0.5) * sensor_size[1] / given.size[1] - 0.5, 0)
            for y in (int(top), min(int(top) + 1, sensor_size[0] - 1)):
                for x in (int(left), min(int(left) + 1, sensor_size[1] - 1)):
                    down = top - int(top) if y > int(top) else 1 - (top - int(top))
                    right = left - int(left) if x > int(left) else 1 - (left - int(left))
                    if y == int(top) == sensor_size[0] - 1:
                        down = 0.5
                    if x == int(left) == sensor_size[1] - 1:
                        right = 0.5
                    resized[:, :, row, column] += down * right * counts[:, :, y, x]
    return resized


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(1, 7),
    st.one_of(st.none(), st.integers(1, 400)),
    st.one_of(st.none(), st.just((3, 4)), st.just((9, 9))),
)
def test_frames_are_those_of_a_loop(seed, count, number, window, size):
    events = random_events(np.random.default_rng(seed), count, 9, span=1000)
    events["y"] %= 7
    given = FrameSettings(number, window, size)
    found = frames(events, (7, 9), given)
    assert found.dtype == np.float32 and found.shape == (number, 2, *(size or (7, 9)))
    np.testing.assert_allclose(found, brute_force(events, (7, 9), given), atol=1e-5)


def test_every_event_is_counted_once():
    events = random_events(np.random.default_rng(0), 103, 34)
    found = frames(events, (34, 34), FrameSettings(10))
    assert found.sum(axis=(1, 2, 3)).tolist() == [10] * 9 + [13]
    assert found.sum(axis=(0, 2, 3)).tolist() == [(~events["p"]).sum(), events["p"].sum()]
    area = frames(events, (34, 34), FrameSettings(10, size=(17, 17), mode="area"))
    np.testing.assert_allclose(area.sum() * 4, 103, rtol=1e-5)


def test_a_window_begins_at_its_edge_and_the_rest_is_left_out():
    rows = [(0, 0, t, True) for t in (0, 9_999, 10_000, 19_999, 20_000)]
    events = np.array(rows, dtype=EVENT)
    found = frames(events, (1, 1), FrameSettings(2, window=10_000))
    assert found[:, 1, 0, 0].tolist() == [2, 2]


@pytest.mark.parametrize(
    "given",
    [
        {"number": 0},
        {"number": 2.0},
        {"number": 3, "window": 0},
        {"number": 3, "size": (0, 4)},
        {"number": 3, "size": (4,)},
        {"number": 3, "mode": "cubic"},
    ],
)
def test_settings_without_meaning_are_refused(given):
    with pytest.raises(InputError):
        FrameSettings(**given)


def test_events_outside_the_sensor_are_refused():
    events = np.array([(0, 4, 0, True)], dtype=EVENT)
    with pytest.raises(InputError, match="outside the sensor of 9x4"):
        frames(events, (4, 9), FrameSettings(1))


ANY = np.dtype([("x", "<i4"), ("y", "<i4"), ("t", "<i8"), ("p", "<i4")])


@pytest.mark.parametrize("window", [None, 10])
@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "there are no events"),
        ([(0, 0, 5, 1), (0, 0, 4, 1)], "run backwards"),
        ([(0, 0, -1, 1)], "begin before 0"),
        ([(0, 0, 0, -1), (0, 0, 1, 1)], "p is from -1 to 1"),
        ([(0, 0, 0, 3)], "p is from 3 to 3"),
    ],
)
def test_events_of_ones_own_that_are_no_recording_are_refused(events, message, window):
    with pytest.raises(InputError, match=message):
        frames(np.array(events, dtype=ANY), (4, 9), FrameSettings(2, window))


@pytest.fixture
def nmnist(tmp_path):
    files = nmnist_files(np.random.default_rng(0))
    write(tmp_path / "nmnist", {name: body for name, (_, body) in files.items()})
    return tmp_path


@pytest.fixture
def counted(monkeypatch):
    """How often a recording was made into frames."""
    calls = []
    module = sys.modules["threefactor.data.load"]  # `threefactor.data.load` is the function
    monkeypatch.setattr(module, "frames", lambda *given: calls.append(1) or frames(*given))
    return calls


def test_batches_have_time_first(nmnist):
    data, events = load_frames("nmnist", nmnist), load_events("nmnist", nmnist)
    assert (data.input_shape, data.steps, data.outputs) == ((2, 34, 34), 30, 10)
    given = FrameSettings(30, window=10_000)
    expected = np.stack([frames(each, (34, 34), given) for each in events.train_events])
    everything = expected.swapaxes(0, 1)
    inputs, labels = data.train
    assert len(inputs) == len(labels) == 25
    index = torch.tensor([7, 0, 7, 24])
    for chosen in (index, slice(3, 9), index.tolist(), slice(None)):
        batch = inputs[chosen]
        assert batch.dtype == torch.float32 and batch.is_contiguous()
        rows = index.tolist() if isinstance(chosen, torch.Tensor) else chosen
        np.testing.assert_array_equal(batch, everything[:, rows])
    assert torch.equal(labels, events.train_labels)
    assert data.mean == pytest.approx(expected.mean())
    assert data.std == pytest.approx(expected.std())
    batch.zero_()  # is nobody else's
    np.testing.assert_array_equal(inputs[slice(None)], everything)


def test_subset_and_dtype(nmnist):
    data = load_frames("nmnist", nmnist, dtype=torch.float64)
    part = data.subset(5, 2)
    assert (len(part.train_frames), len(part.test_labels)) == (5, 2)
    assert part.train_frames[slice(None)].dtype == torch.float64
    assert torch.equal(part.train_frames[slice(None)], data.train_frames[slice(0, 5)])
    assert part.train_frames.to("cpu").device == torch.device("cpu")
    with pytest.raises(InputError):
        data.subset(26)


def test_all_steps_share_one_mean_and_deviation(tmp_path):
    files = cifar10_files(np.random.default_rng(1))
    write(tmp_path / "dvs-cifar10", {name: body for name, (_, body) in files.items()})
    data = load_frames("dvs-cifar10", tmp_path)
    assert (data.input_shape, data.steps) == ((2, 48, 48), 10)
    values = data.train_frames[slice(None)].double()
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-4)
    raw = load_frames("dvs-cifar10", tmp_path, normalise=False)
    scaled = (raw.test_frames[slice(None)] - data.mean) / data.std
    assert torch.allclose(data.test_frames[slice(None)], scaled, atol=1e-5)


def test_gestures_become_twenty_frames(tmp_path):
    write(tmp_path / "dvs-gesture", gesture_files(np.random.default_rng(2))[0])
    data, events = load_frames("dvs-gesture", tmp_path), load_events("dvs-gesture", tmp_path)
    assert (data.input_shape, data.steps, len(data.train_labels)) == ((2, 48, 48), 20, 10)
    expected = brute_force(events.test_events[3], (128, 128), FrameSettings(20, size=(48, 48)))
    np.testing.assert_allclose(data.test_frames[[3]][:, 0], expected, rtol=1e-3, atol=1e-6)


def test_frames_are_made_once(nmnist, counted):
    first = load_frames("nmnist", nmnist)
    assert len(counted) == 25 + 12
    assert first.train_frames.array.dtype == np.uint8
    assert isinstance(first.train_frames.array.base, np.memmap)
    again = load_frames("nmnist", nmnist)
    assert len(counted) == 37
    assert torch.equal(first.train_frames[slice(None)], again.train_frames[slice(None)])
    with pytest.warns(UserWarning, match="come after the last of 5 frames"):
        load_frames("nmnist", nmnist, FrameSettings(5, window=10_000))
    assert len(counted) == 74
    # One recording replaced: only its part is made anew.
    path = nmnist / "nmnist/Train/0/00001.bin"
    path.write_bytes(path.read_bytes()[:-5])
    load_frames("nmnist", nmnist)
    assert len(counted) == 74 + 25


def places(folder):
    return sorted(p for p in (folder / "nmnist/frames").iterdir() if p.suffix != ".lock")


def change(path):
    """Another last value, in a file of the same length."""
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


DAMAGE = {
    "cut": lambda place: os.truncate(place / "frames.npy", 5000),
    "header": lambda place: (place / "frames.npy").open("r+b").write(b"XXXX"),
    "no array": lambda place: (place / "frames.npy").unlink(),
    "no about": lambda place: (place / "about.json").unlink(),
    "half an about": lambda place: os.truncate(place / "about.json", 40),
    "another value": lambda place: change(place / "frames.npy"),
    "a list": lambda place: (place / "about.json").write_text("[]"),
    "another key": lambda place: (place / "about.json").write_text(
        json.dumps({**json.loads((place / "about.json").read_text()), "key": {}})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew(nmnist, counted, damage):
    before = load_frames("nmnist", nmnist).train_frames[slice(None)]
    for place in places(nmnist):
        DAMAGE[damage](place)
    after = load_frames("nmnist", nmnist).train_frames[slice(None)]
    assert torch.equal(before, after)
    assert len(counted) == 74
    assert len(places(nmnist)) == 2


def test_what_breaks_off_leaves_nothing_behind(nmnist, monkeypatch):
    path = nmnist / "nmnist/Train/0/00001.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"0/00001\.bin is cut short"):
        load_frames("nmnist", nmnist)
    assert places(nmnist) == []
    path.write_bytes(whole)
    assert len(load_frames("nmnist", nmnist).train_frames) == 25


def test_a_full_disk_is_said_and_leaves_nothing_behind(nmnist):
    """A limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot keep samples in .*File too large; free some"):
            load_frames("nmnist", nmnist)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert places(nmnist) == []
    assert len(load_frames("nmnist", nmnist).train_frames) == 25


def test_frames_take_their_room_before_they_are_mapped(nmnist):
    """A file with holes would be filled when it is mapped: without room that ends the process."""
    load_frames("nmnist", nmnist)
    for place in places(nmnist):
        about = (place / "frames.npy").stat()
        assert about.st_blocks * 512 >= about.st_size > 10_000


def test_what_a_kill_left_is_cleared(nmnist, tmp_path):
    load_frames("nmnist", nmnist, cache_dir=tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    for place in (tmp_path / "whole").glob("*/frames.npy"):
        left = tmp_path / "cut" / f"{PREFIX}{place.parent.name}"
        left.mkdir()
        (left / "frames.npy").write_bytes(place.read_bytes()[:5000])
    load_frames("nmnist", nmnist, cache_dir=tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("*/frames.npy"))) == 2
    assert not list((tmp_path / "cut").glob(f"{PREFIX}*"))


def test_counts_beyond_a_type_take_a_larger_one(tmp_path):
    for high, kind in ((255, np.uint8), (256, np.uint16), (70_000, np.float32)):
        array = np.full((1, 1, 1, 1), high, dtype=np.float32)
        types = ("uint8", "uint16", "float32")
        found = cached_frames(tmp_path, {"high": high}, 1, lambda a=array: iter([a]), types)
        assert found.array.dtype == kind and found.array.item() == high
        assert (found.mean, found.std) == (high, 0)


def test_processes_that_make_the_same_frames_do_not_disturb_each_other(nmnist):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=load_frames, args=("nmnist", nmnist)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(places(nmnist)) == 2


def test_frames_can_be_kept_elsewhere(nmnist, tmp_path, monkeypatch):
    load_frames("nmnist", nmnist, cache_dir=tmp_path / "elsewhere")
    assert not (nmnist / "nmnist/frames").exists()
    assert len(list((tmp_path / "elsewhere").glob("*/frames.npy"))) == 2
    monkeypatch.setattr(os, "access", lambda *given: False)
    load_frames("nmnist", nmnist)
    assert (tmp_path / "cache/threefactor/nmnist/frames").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot keep samples in"):
        load_frames("nmnist", nmnist, cache_dir=tmp_path / "file")


def test_sets_of_images_have_no_frames(tmp_path):
    with pytest.raises(ConfigurationError, match="'mnist' holds images"):
        load_frames("mnist", tmp_path)


def test_frames_of_any_array():
    array = np.arange(2 * 3 * 1 * 2 * 2, dtype=np.float64).reshape(2, 3, 1, 2, 2)
    batch = Frames(array, mean=1.0, std=2.0)[torch.tensor([1])]
    np.testing.assert_allclose(batch[:, 0], (array[1] - 1) / 2)


def test_the_training_loop_learns_from_frames(nmnist):
    from threefactor.recipes import RECIPES
    from threefactor.training import train

    given = RECIPES["mnist-fc"].settings
    given = dataclasses.replace(
        given,
        data=dataclasses.replace(given.data, name="nmnist"),
        network=dataclasses.replace(given.network, hidden=(20,)),
        steps=12,
        epochs=2,
        batch_size=10,
    )
    history = train(given, data_dir=nmnist)
    assert len(history) == 2
    assert history[-1]["train_loss"] < 3
    assert len(places(nmnist)) == 2


def test_recordings_that_run_backwards_are_sorted_if_wanted(nmnist):
    path = next((nmnist / "nmnist/Train/0").glob("00001.bin"))
    body = path.read_bytes()
    path.write_bytes(body[5:10] + body[:5] + body[10:])
    with pytest.raises(DataError, match="--set sort=true"):
        load_frames("nmnist", nmnist)
    given = recipe("nmnist-fc").settings_for("dfa", {"sort": True})
    first = load_samples(given, nmnist).train_frames[:1]
    with pytest.raises(DataError, match="run backwards"):  # not from the cache of sorted ones
        load_frames("nmnist", nmnist)
    path.write_bytes(body)
    assert torch.equal(first, load_frames("nmnist", nmnist).train_frames[:1])


def test_a_recording_that_is_gone_is_named(nmnist):
    (nmnist / "nmnist/Train/0/99999.bin").symlink_to(nmnist / "nowhere")
    with pytest.raises(DataError, match=r"99999\.bin cannot be read \(No such file"):
        load_frames("nmnist", nmnist)


@pytest.mark.parametrize("kind", ["i1", "u4", ">i2", "i8"])
def test_times_of_any_type_fall_into_windows_of_any_length(kind):
    events = np.zeros(3, [("x", "i2"), ("y", "i2"), ("t", kind), ("p", "?")])
    events["t"] = 0, 60, 100
    for window, expected in ((40, [1, 1, 1]), (1 << 40, [3, 0, 0])):
        found = frames(events, (1, 1), FrameSettings(3, window=window))
        assert found.sum((1, 2, 3)).tolist() == expected


@pytest.mark.parametrize("settings", [None, 10, {"number": 3}])
def test_other_settings_are_refused(settings):
    with pytest.raises(InputError, match="give FrameSettings"):
        frames(np.zeros(1, EVENT), (4, 4), settings)


@pytest.mark.parametrize(
    ("array", "given", "message"),
    [
        (np.zeros((2, 3)), {}, r"frames are float64 of shape \(2, 3\)"),
        (np.zeros((1, 1, 1, 2, 2), complex), {}, "complex128"),
        (np.full((1, 1, 1, 2, 2), 0.5), {"dtype": torch.int64}, "dtype is torch.int64"),
        (np.zeros((1, 1, 1, 2, 2)), {"std": 0.0}, "std is 0.0"),
        (np.zeros((1, 1, 1, 2, 2)), {"mean": np.nan}, "mean is nan"),
    ],
)
def test_frames_of_arrays_that_are_none(array, given, message):
    with pytest.raises(InputError, match=message):
        Frames(array, **given)


def test_frames_of_another_byte_order_are_read():
    array = np.arange(8, dtype=">f4").reshape(1, 2, 1, 2, 2)
    assert Frames(array, mean=np.float32(1.0))[0].flatten().tolist() == [i - 1.0 for i in range(8)]


@pytest.mark.parametrize("dtype", [torch.int32, "float32", None])
def test_frames_of_no_floating_point_are_refused(tmp_path, dtype):
    with pytest.raises(InputError, match="dtype is"):
        load_frames("simulated-digits", tmp_path, dtype=dtype)
