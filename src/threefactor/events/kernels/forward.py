"""The forward pass of a layer: from its input spikes to its own, by sample."""

from __future__ import annotations

import math

import numpy as np

from threefactor.events.compiling import compiled
from threefactor.events.dynamics import NEVER, crossing
from threefactor.events.kernels.sorting import order_of

__all__ = ["integrate", "pack", "prepare"]

WORD = 8  # marks of neurons that are looked at together


@compiled
def _decays(times, addresses, inputs, tau, duration, out):
    """Fill exp(-dt / tau), dt from each spike of a sample to the next, or the simulation's end.

    Spikes beyond the end are never looked at; theirs is 1. Return whether the times rise from 0 or
    later, and all addresses are below `inputs`.
    """
    until, next_time = duration, np.inf
    sound = True
    for z in range(len(times) - 1, -1, -1):
        sound &= times[z] <= next_time and 0 <= addresses[z] < inputs
        next_time = times[z]
        dt = times[z] - until
        out[z] = math.exp(dt / tau) if dt < 0.0 else 1.0
        until = min(times[z], duration)
    return sound and next_time >= 0.0


@compiled
def _update(c, s, weight, slow, fast):
    """Decay the states to now and add one input spike."""
    for i in range(len(c)):
        c[i] = c[i] * slow + weight[i]
        s[i] = s[i] * fast + weight[i]


@compiled
def _update_and_check(c, s, weight, slow, fast, theta, theta4, y, y2, yy, mask):
    """As `_update`; also mark the neurons that may fire before the next input spike.

    A neuron can fire only if the parabola has a root, and its peak lies within the interval or
    its end above the threshold. `dynamics.crossing` decides.
    """
    any_hit = False
    for i in range(len(c)):
        wi = weight[i]
        ci = c[i] * slow + wi
        si = s[i] * fast + wi
        c[i] = ci
        s[i] = si
        rising_to_end = ci * y - si * yy >= theta
        hit = (si >= theta) & (ci * ci >= theta4 * si) & ((ci >= si * y2) | rising_to_end)
        mask[i] = hit
        any_hit |= hit
    return any_hit


@compiled
def _finite(weight, first, last):
    """Whether rows first to last - 1 hold nothing infinite and no NaN."""
    largest = np.finfo(weight.dtype).max
    wrong = False
    for j in range(first, last):
        row = weight[j]
        for i in range(len(row)):
            wrong |= not abs(row[i]) <= largest
    return not wrong


@compiled
def prepare(
    first, last, offsets, times, addresses, weight, tau, duration, decays, wrong,
):  # fmt: skip
    """Look at samples first to last - 1 before `integrate`; fill the decays between spikes.

    `wrong[0]` becomes the number of a sample whose spikes are not what they should be: nothing is
    to be read or written beyond the arrays. `wrong[1]` becomes 0 if a weight is not finite; each
    sample looks at a share of the weights, such that all samples together answer for all.
    """
    inputs, batch = len(weight), len(offsets) - 1
    for b in range(first, last):
        begin, end = offsets[b], offsets[b + 1]
        if not 0 <= begin <= end <= len(times) or not _decays(
            times[begin:end], addresses[begin:end], inputs, tau, duration, decays[begin:end]
        ):
            wrong[0] = b
        if not _finite(weight, inputs * b // batch, inputs * (b + 1) // batch):
            wrong[1] = 0


@compiled
def integrate(
    first, last, offsets, times, addresses, weight, theta, tau, duration, cap,
    decays, counts, totals, capped, out_times, out_neurons, out_parents, out_currents,
    out_ys, out_order,
):  # fmt: skip
    """Run a layer on samples first to last - 1 and write every spike, interval by interval.

    `out_order` has the places of a sample's spikes in the order of time and neuron. A spike's
    parent is the input spike of its sample after which it was emitted, its y the decay
    since then. `capped[b]` counts the neurons that reached the threshold once more after `cap`
    spikes. The outputs are (B, room); a sample with more spikes than that counts on in
    `totals[b]`, but writes no more. The spikes must be those that `prepare` found sound.
    """
    neurons, room = weight.shape[1], out_times.shape[1]
    real = weight.dtype.type
    theta4 = (theta + theta) + (theta + theta)
    c, s = np.empty(neurons, weight.dtype), np.empty(neurons, weight.dtype)
    mask = np.zeros((neurons + WORD - 1) // WORD * WORD, np.uint8)
    words = mask.view(np.uint64)
    fired = np.empty(neurons, np.int32)
    marks = mask[:neurons]
    buckets, heads = np.empty(room, np.int32), np.empty(room + 1, np.int32)
    for b in range(first, last):
        begin, end = offsets[b], offsets[b + 1]
        c[:] = 0
        s[:] = 0
        fired[:] = 0
        n = 0
        slow = real(1)
        for z in range(begin, end):
            t, y_end = times[z], decays[z]
            if t >= duration:
                break
            row = weight[addresses[z]]
            if z + 1 < end and times[z + 1] == t:
                _update(c, s, row, slow, slow * slow)
                slow = y_end
                continue
            hit = _update_and_check(
                c, s, row, slow, slow * slow, theta, theta4, y_end, y_end + y_end, y_end * y_end,
                marks,
            )  # fmt: skip
            slow = y_end
            if not hit:
                continue
            before = n
            for word in range(len(words)):
                if words[word] == 0:
                    continue
                for i in range(word * WORD, min(word * WORD + WORD, neurons)):
                    while mask[i]:
                        y = crossing(c[i], s[i], theta, y_end)
                        if y == NEVER:
                            break
                        if fired[i] >= cap:
                            capped[b] += fired[i] == cap
                            fired[i] = cap + 1
                            s[i] = -np.inf  # never asked again
                            break
                        if n < room:
                            out_times[b, n] = t - tau * math.log(y)
                            out_neurons[b, n] = i
                            out_parents[b, n] = z - begin
                            out_currents[b, n] = s[i] * y * y
                            out_ys[b, n] = y
                        c[i] -= theta / y
                        fired[i] += 1
                        n += 1
            if n <= room:
                places = out_order[b, before:n]
                order_of(out_times[b, before:n], places, heads, buckets)
                places += before
        totals[b] = n
        for i in range(neurons):
            counts[b, i] = min(fired[i], cap)


@compiled
def pack(
    first, last, offsets, raw_times, raw_neurons, raw_parents, raw_currents, raw_ys, raw_order,
    times, neurons, parents, currents, ys,
):  # fmt: skip
    """Copy the spikes of samples first to last - 1 into flat arrays, sorted by time and neuron."""
    for b in range(first, last):
        start = offsets[b]
        for k in range(start, offsets[b + 1]):
            at = raw_order[b, k - start]
            times[k], neurons[k] = raw_times[b, at], raw_neurons[b, at]
            parents[k], currents[k], ys[k] = raw_parents[b, at], raw_currents[b, at], raw_ys[b, at]
