"""A stable sort for times that are few, or spread evenly."""

from __future__ import annotations

import numpy as np

from threefactor.events.compiling import compiled

__all__ = ["order_of"]

FEW = 12  # spikes that are sorted by insertion at once
CROWD = 16  # spikes in a bucket from which on sorting by insertion does not pay
TINY = 1e-300


@compiled
def order_of(times, order, heads, buckets):
    """Fill `order` with the places of rising times; equal ones keep their order.

    `heads` and `buckets` are working memory: as long as the most times there can be, `heads` one
    longer.
    """
    if len(times) > FEW:
        _order_by_buckets(times, order, heads, buckets)
        return
    for k in range(len(times)):
        order[k] = k
    _insert(times, order)


@compiled
def _insert(times, order):
    """Sort places that are nearly in the order of their times."""
    for k in range(1, len(times)):
        place, at = order[k], k
        while at > 0 and times[order[at - 1]] > times[place]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = place


@compiled
def _order_by_buckets(times, order, heads, buckets):
    """Fill `order` with the places of rising times.

    Times spread evenly go into one bucket each and are then nearly sorted; a crowded bucket
    leaves it to a merge sort.
    """
    n = len(times)
    low, high = times.min(), times.max()
    scale = (n - 1) / max(high - low, TINY)
    heads[: n + 1] = 0
    for k in range(n):
        # Held within the buckets, whatever the times are.
        bucket = min(max(int((times[k] - low) * scale), 0), n - 1)
        buckets[k] = bucket
        heads[bucket + 1] += 1
    if heads[: n + 1].max() > CROWD:
        order[:] = np.argsort(times, kind="mergesort")
        return
    for k in range(n):
        heads[k + 1] += heads[k]
    for k in range(n):
        order[heads[buckets[k]]] = k
        heads[buckets[k]] += 1
    _insert(times, order)
