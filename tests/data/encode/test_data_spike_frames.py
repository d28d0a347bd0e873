"""Recorded spikes, summed into frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from threefactor.data import FrameSettings, frame_settings, has_frames, load_frames
from threefactor.data.encode.framing import spike_frames
from threefactor.errors import ConfigurationError, InputError
from threefactor.events import SpikeBatch


def brute(times, units, channels, number, window):
    """One spike after another; microseconds from 0 on."""
    counts = np.zeros((number, 1, 1, channels))
    for time, unit in zip(times, units, strict=True):
        frame = round(float(time) * 1e6) // window
        if frame < number:
            counts[frame, 0, 0, unit] += 1
    return counts


def test_every_spike_is_in_its_frame():
    generator = np.random.default_rng(0)
    samples = []
    for n in (40, 0, 300):
        times = generator.random(n) * 0.02
        times[: n // 2] = generator.integers(0, 20, n // 2) / 1000  # on the borders of frames
        samples.append((times, generator.integers(0, 6, n)))
    spikes = SpikeBatch.from_lists(*zip(*samples, strict=True), size=6)
    made = list(spike_frames(spikes, FrameSettings(number=15, window=1_000)))
    assert len(made) == 3 and made[1].sum() == 0
    for (times, units), frames in zip(samples, made, strict=True):
        np.testing.assert_array_equal(frames, brute(times, units, 6, 15, 1_000))
        assert frames.dtype == np.float32
    assert made[2].sum() < 300 and made[2].max() > 1  # some come later, some meet


def test_frames_of_equally_many_spikes():
    spikes = SpikeBatch.from_lists([[0.5, 0.1, 0.2, 0.9, 0.3]], [[0, 1, 1, 0, 1]], size=2)
    (frames,) = spike_frames(spikes, FrameSettings(number=2))
    assert frames[:, 0, 0].tolist() == [[0, 2], [2, 1]]


def test_times_beyond_all_frames_and_too_many_values():
    spikes = SpikeBatch.from_lists([[1e300, 0.0]], [[0, 1]], size=2)
    (frames,) = spike_frames(spikes, FrameSettings(number=3, window=10))
    assert frames[:, 0, 0].tolist() == [[0, 1], [0, 0], [0, 0]]
    with pytest.raises(InputError, match="too many"):
        next(spike_frames(spikes, FrameSettings(number=1_000_000, window=1, size=(1, 300))))


def test_channels_may_be_resized():
    spikes = SpikeBatch.from_lists([[0.0, 0.0, 0.0]], [[0, 1, 3]], size=4)
    (frames,) = spike_frames(spikes, FrameSettings(1, window=9, size=(1, 2), mode="area"))
    assert frames.tolist() == [[[[1.0, 0.5]]]]


def test_spoken_digits_by_name(tmp_path, place_shd, recordings):
    place_shd(tmp_path / "shd")
    assert has_frames("shd") and has_frames("shd-like") and not has_frames("yin-yang")
    usual = frame_settings("shd")
    assert (usual.number, usual.window) == (100, 14_000)
    data = load_frames("shd", tmp_path)
    assert (data.input_shape, data.steps, data.outputs) == ((1, 1, 700), 100, 20)
    times, units, labels = recordings["test"]
    frames = data.test_frames[slice(None)]
    for i in range(len(labels)):
        np.testing.assert_array_equal(frames[:, i], brute(times[i], units[i], 700, 100, 14_000))
    np.testing.assert_array_equal(data.test_labels, labels)
    assert len(list((tmp_path / "shd").glob("frames/*/frames.npy"))) == 2


def test_frames_follow_the_files(tmp_path, place_shd, encode_shd, recordings):
    """What is kept is of these spikes and settings, and of no others."""
    folder = place_shd(tmp_path / "shd")
    first = load_frames("shd", tmp_path, FrameSettings(number=10, window=140_000))
    times, units, labels = recordings["test"]
    units = [np.full_like(units[0], 5), *units[1:]]
    (folder / "shd_test.h5").write_bytes(encode_shd(times, units, labels))
    again = load_frames("shd", tmp_path, FrameSettings(number=10, window=140_000))
    assert torch.equal(again.train_frames[:], first.train_frames[:])
    assert not torch.equal(again.test_frames[:], first.test_frames[:])
    assert again.test_frames[0].sum() == again.test_frames[0][..., 5].sum() > 0


def test_many_spikes_after_the_last_frame_are_told(tmp_path, place_shd, recordings, recwarn):
    place_shd(tmp_path / "shd")
    every = np.concatenate([t for part in recordings.values() for t in part[0]])
    late = int((np.rint(every.astype(np.float64) * 1e6) >= 50_000).sum())
    assert late > 0.1 * len(every)
    for _ in ("made", "kept"):
        said = f"^{late} of {len(every)} events .* after the last of 5 frames of 10000 us"
        with pytest.warns(UserWarning, match=said):
            load_frames("shd", tmp_path, FrameSettings(number=5, window=10_000))
    recwarn.clear()
    load_frames("shd", tmp_path)
    load_frames("shd", tmp_path, FrameSettings(number=5))
    assert not recwarn.list


def test_what_has_no_frames_is_refused():
    for name in ("yin-yang", "mnist"):
        with pytest.raises(ConfigurationError, match=r"not events or recorded spikes.*shd-like"):
            load_frames(name)
