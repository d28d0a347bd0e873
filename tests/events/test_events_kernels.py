"""What the kernels refuse before C sees it, and the sort of many spikes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from threefactor import events
from threefactor.events import kernels

ARRAYS: dict[str, tuple[Any, str]] = {
    "single precision": (np.ones((3, 2), np.float32), "argument 3 of product is float32"),
    "whole numbers": (np.ones((3, 2), np.int64), "argument 3 of product is int64"),
    "columns": (np.ones((3, 4))[:, ::2], "not C contiguous"),
    "read-only": (np.broadcast_to(1.0, (3, 2)), "not writable|not C contiguous"),
}


@pytest.mark.parametrize(("b", "message"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_another_kind_are_refused(b: Any, message: str) -> None:
    a, out = np.arange(6.0).reshape(2, 3), np.zeros((2, 2))
    with pytest.raises(TypeError, match=message):
        kernels.product(2, 1, a, b, out)
    assert not out.any()
    kernels.product(2, 1, a, np.array(b, np.float64), out)
    assert np.array_equal(out, a @ np.ones((3, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("late", [False, True], ids=["all at once", "and one later"])
def test_crowds_are_sorted_by_time_and_neuron(dtype: torch.dtype, late: bool) -> None:
    """Hundreds of spikes of one interval: equal times, nearly equal ones, and one far from them."""
    random, size = np.random.default_rng(1), 700
    layer = events.Layer(1, size, tau_s=0.1, threshold=0.02, duration=2.0, max_spikes=1).to(dtype)
    values = np.full(size, 2.0)
    if late:
        values[::3] += 1e-4 * random.random(len(values[::3]))
        values[350] = 0.401
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(values))
    spikes = layer(events.SpikeBatch.from_lists([[0.0]], [[0]], 1))
    times, neurons = spikes.sample(0)
    assert np.array_equal(np.sort(neurons), np.arange(size))
    assert np.array_equal(np.lexsort((neurons, times)), np.arange(size))
    assert len(np.unique(times)) > 10 if late else len(np.unique(times)) == 1
    if late:
        assert neurons[-1] == 350 and times[-1] > 2 * times[-2]
