"""Spike batches: every way to make one, to take part of one, and the coding of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.events_cases import assert_equal_spikes

from threefactor import events
from threefactor.events import SpikeBatch

search = settings(derandomize=True, deadline=None, database=None, max_examples=80)
Samples = list[list[tuple[float, int]]]
SIZE = 5


@st.composite
def samples(draw: Any) -> Samples:
    """Samples of (time, address) in any order, empty ones and ties included."""
    time = st.floats(0, 1e3, allow_subnormal=False) | st.sampled_from([0.0, 0.5, 0.5, 1.0])
    spike = st.tuples(time, st.integers(0, SIZE - 1))
    return draw(st.lists(st.lists(spike, max_size=8), min_size=1, max_size=5))


def batch_of(rows: Samples) -> SpikeBatch:
    return SpikeBatch.from_lists(
        [[t for t, _ in r] for r in rows], [[a for _, a in r] for r in rows], SIZE
    )


def rows_of(batch: SpikeBatch) -> Samples:
    return [
        list(zip(t.tolist(), a.tolist(), strict=True))
        for t, a in (batch.sample(b) for b in range(len(batch)))
    ]


@search
@given(samples())
def test_lists_round_trip(rows: Samples) -> None:
    batch = batch_of(rows)
    assert rows_of(batch) == [sorted(row) for row in rows]
    assert len(batch) == len(rows) and batch.size == SIZE
    assert batch.times.dtype == np.float64 and batch.addresses.dtype == np.int32
    assert batch.offsets.dtype == np.int64
    assert repr(batch) == f"SpikeBatch({len(rows)} samples, {sum(map(len, rows))} spikes, size=5)"


@search
@given(samples(), st.randoms(use_true_random=False))
def test_arrays_in_any_order(rows: Samples, random: Any) -> None:
    flat = [(b, t, a) for b, row in enumerate(rows) for t, a in row]
    random.shuffle(flat)
    which, times, addresses = (list(x) for x in zip(*flat, strict=True)) if flat else ([], [], [])
    made = SpikeBatch.from_arrays(which, times, addresses, SIZE, len(rows))
    assert_equal_spikes(made, batch_of(rows))


@search
@given(samples())
def test_counts(rows: Samples) -> None:
    counts = batch_of(rows).counts()
    assert counts.shape == (len(rows), SIZE) and counts.dtype == np.int64
    for row, b in zip(rows, counts, strict=True):
        assert b.tolist() == [sum(a == j for _, a in row) for j in range(SIZE)]


@search
@given(samples(), st.data())
def test_indexing(rows: Samples, data: Any) -> None:
    """As a list of samples: integer, slice, list, array, tensor and mask."""
    batch, expected = batch_of(rows), [sorted(row) for row in rows]
    n = len(rows)
    one = data.draw(st.integers(-n, n - 1))
    for index in (one, np.int64(one), np.array(one), torch.tensor(one)):
        times, addresses = batch[index]
        assert list(zip(times.tolist(), addresses.tolist(), strict=True)) == expected[one]
    assert rows_of(batch[[one]]) == [expected[one]]
    cut = data.draw(st.slices(n))
    assert rows_of(batch[cut]) == expected[cut]
    many = data.draw(st.lists(st.integers(-n, n - 1), max_size=6))
    for index in (many, np.array(many, dtype=np.int32), torch.tensor(many, dtype=torch.int64)):
        part = batch[index]
        assert rows_of(part) == [expected[i] for i in many] and part.size == SIZE
    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    for index in (mask, np.array(mask), torch.tensor(mask)):
        assert rows_of(batch[index]) == [r for r, keep in zip(expected, mask, strict=True) if keep]


@search
@given(samples())
def test_part_of_a_part(rows: Samples) -> None:
    """A slice is a batch like any other: it can be cut, chosen from, and counted again."""
    batch, expected = batch_of(rows), [sorted(row) for row in rows]
    part = batch[len(rows) // 2 :]
    assert rows_of(part) == expected[len(rows) // 2 :]
    assert rows_of(part[::-1]) == expected[len(rows) // 2 :][::-1]
    assert np.array_equal(part.counts(), batch.counts()[len(rows) // 2 :])
    again = SpikeBatch(part.offsets, part.times, part.addresses, SIZE)
    assert_equal_spikes(again, part)


def test_slices_out_of_range_are_empty() -> None:
    batch = batch_of([[(0.1, 0)], [(0.2, 1)]])
    assert len(batch[5:]) == len(batch[1:0]) == len(batch[2:]) == 0
    assert rows_of(batch[-1:]) == [[(0.2, 1)]]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor], ids=["list", "array", "tensor"])
def test_kinds_of_arguments(kind: Any) -> None:
    times, addresses, which = kind([0.5, 0.25, 0.75]), kind([1, 0, 4]), kind([0, 0, 2])
    expected = [[(0.25, 0), (0.5, 1)], [], [(0.75, 4)]]
    assert rows_of(SpikeBatch(kind([0, 2, 2, 3]), times, addresses, SIZE)) == expected
    assert rows_of(SpikeBatch.from_arrays(which, times, addresses, SIZE, 3)) == expected
    lists = SpikeBatch.from_lists(
        [kind([0.5, 0.25]), [], kind([0.75])], [kind([1, 0]), [], kind([4])], SIZE
    )
    assert rows_of(lists) == expected


@pytest.mark.parametrize("integer", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("real", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_kinds_of_numbers(integer: type, real: type) -> None:
    batch = SpikeBatch(
        np.array([0, 1, 2], integer), np.array([3, 2], real), np.array([4, 0], integer),
        np.int64(SIZE),
    )  # fmt: skip
    assert rows_of(batch) == [[(3.0, 4)], [(2.0, 0)]]


def test_spikes_on_strides_and_read_only_memory() -> None:
    times = np.arange(8.0)[::2]
    times.flags.writeable = False
    addresses = np.arange(8, dtype=np.int32)[::-2]
    batch = SpikeBatch([0, 4], times, addresses, 8)
    assert rows_of(batch) == [[(0.0, 7), (2.0, 5), (4.0, 3), (6.0, 1)]]
    net = events.fc(8, (), 2, tau_s=0.5, thresholds=0.05, duration=8.0)
    with torch.no_grad():
        net.readout.weight.fill_(2.0)
    assert len(net(batch).times) > 4


def test_a_given_array_is_not_sorted_in_place() -> None:
    times, addresses = np.array([0.3, 0.1]), np.array([1, 0], np.int32)
    SpikeBatch([0, 2], times, addresses, SIZE)
    assert times.tolist() == [0.3, 0.1] and addresses.tolist() == [1, 0]


def test_two_spikes_of_one_address_at_once_both_count() -> None:
    """Two spikes of weight 0.5 do what one of weight 1 does."""
    outcomes = []
    for weight, times in ((0.5, [0.01, 0.01]), (1.0, [0.01])):
        net = events.fc(1, (), 1, tau_s=0.02, thresholds=0.2 * 0.04, duration=0.2).double()
        with torch.no_grad():
            net.readout.weight.fill_(weight)
        batch = SpikeBatch.from_lists([times], [[0] * len(times)], 1)
        assert batch.counts().tolist() == [[len(times)]]
        outcomes.append(net(batch).times)
    assert len(outcomes[0]) == 1
    np.testing.assert_allclose(outcomes[0], outcomes[1], rtol=1e-14)


# Recordings


def recording(dtype: list[tuple[str, type]], *rows: tuple[int, ...]) -> np.ndarray:
    return np.array(list(rows), dtype=dtype)


def test_recordings_of_a_camera() -> None:
    """(x, y, p) becomes the address of a frame (polarities, height, width) laid out flat."""
    kind = [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)]
    rng = np.random.default_rng(1)
    width, height = 7, 4
    rows = [
        list(zip(
            rng.integers(width, size=k), rng.integers(height, size=k),
            rng.integers(10**6, size=k), rng.integers(2, size=k), strict=True,
        ))
        for k in (12, 0, 5)
    ]  # fmt: skip
    batch = SpikeBatch.from_events([recording(kind, *r) for r in rows], (width, height, 2))
    assert batch.size == 2 * height * width and len(batch) == 3
    for b, row in enumerate(rows):
        frame = np.zeros((2, height, width), int)
        for x, y, _, p in row:
            frame[p, y, x] += 1
        assert np.array_equal(batch.counts()[b].reshape(frame.shape), frame)
        expected = sorted(t * 1e-6 for _, _, t, _ in row)
        np.testing.assert_allclose(batch.sample(b)[0], expected, rtol=1e-15)


@pytest.mark.parametrize("sensor", [700, (700,), (700, 1), (700, 1, 1), [700, 1, 1]])
def test_recordings_of_sound(sensor: Any) -> None:
    """Channels alone, as in SHD: neither y nor p."""
    events_ = recording([("t", int), ("x", int)], (2_000_000, 699), (5, 0))
    batch = SpikeBatch.from_events([events_], sensor)
    assert batch.size == 700
    assert rows_of(batch) == [[(pytest.approx(5e-6), 0), (2.0, 699)]]


def test_recordings_as_tonic_gives_shd() -> None:
    """Tonic adds an artificial polarity of 1 to a sensor of (700, 1, 1)."""
    events_ = recording([("t", int), ("x", int), ("p", int)], (1000, 3, 1), (2000, 699, 1))
    batch = SpikeBatch.from_events([events_], (700, 1, 1))
    assert batch.addresses.tolist() == [3, 699]


def test_time_unit() -> None:
    events_ = recording([("t", float), ("x", int)], (0.25, 1))
    assert SpikeBatch.from_events([events_], 2, time_unit=1.0).times.tolist() == [0.25]
    assert SpikeBatch.from_events([events_], 2, time_unit=1e-3).times.tolist() == [0.25e-3]


# Latency code


@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3), (4, 1, 2, 3)])
@pytest.mark.parametrize("kind", ["array", "tensor", "list"])
def test_latency_code_of_bytes(shape: tuple[int, ...], kind: str) -> None:
    """Pixel p in 1..255 spikes at window * (1 - p/255); 0 never."""
    pixels = np.random.default_rng(3).integers(0, 4, shape).astype(np.uint8) * 85
    pixels.flat[:3] = [0, 1, 255]
    given = {"array": pixels, "tensor": torch.from_numpy(pixels)}.get(kind, pixels / 255)
    batch = events.latency_code(given.tolist() if kind == "list" else given, window=0.1)
    assert batch.size == 6 and len(batch) == 4
    for b, image in enumerate(pixels.reshape(4, -1)):
        expected = sorted((0.1 * (1 - int(p) / 255), j) for j, p in enumerate(image) if p > 0)
        times, addresses = batch.sample(b)
        np.testing.assert_allclose(times, [t for t, _ in expected], rtol=0, atol=1e-16)
        assert batch.counts()[b].tolist() == (image > 0).astype(int).tolist()
        for t, a in zip(times, addresses, strict=True):
            assert t == pytest.approx(0.1 * (1 - image[a] / 255), abs=1e-15)


def test_every_byte() -> None:
    batch = events.latency_code(np.arange(256, dtype=np.uint8)[None], window=0.2)
    assert len(batch.times) == 255 and batch.addresses.tolist() == list(range(255, 0, -1))
    assert batch.times[0] == 0.0 and batch.times[-1] < 0.2


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64, np.float32])
def test_latency_code_of_floats(kind: Any) -> None:
    values = [[0.25, 0.0, 1.0, 0.5]]
    given = torch.tensor(values, dtype=kind) if kind != np.float32 else np.array(values, kind)
    batch = events.latency_code(given, window=1.0)
    assert rows_of(batch) == [[(0.0, 2), (0.5, 3), (0.75, 0)]]


@search
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4))
def test_latency_code_is_sorted_and_valid(images: list[list[float]]) -> None:
    batch = events.latency_code(images, window=0.1)
    again = SpikeBatch(batch.offsets, batch.times, batch.addresses, batch.size)
    assert_equal_spikes(batch, again)
    assert rows_of(batch) == rows_of(
        SpikeBatch.from_lists(
            [[0.1 * (1 - p) for p in row if p > 0] for row in images],
            [[j for j, p in enumerate(row) if p > 0] for row in images],
            3,
        )
    )


def test_latency_code_of_a_tensor_with_gradient_and_strides() -> None:
    images = torch.rand(3, 4, requires_grad=True)
    plain = images.detach().clone()
    assert_equal_spikes(events.latency_code(images), events.latency_code(plain))
    assert_equal_spikes(events.latency_code(plain.t()), events.latency_code(plain.t().contiguous()))
