"""Compiled loops over a batch. Each takes a range of samples, or of neurons, and may run beside
others on other ranges; what a sample or neuron gets never depends on how the ranges are cut.
"""

from __future__ import annotations

import math

import numpy as np

from threefactor.events.dynamics import NEVER, compiled, crossing, factor

__all__ = [
    "collect",
    "decay_factors",
    "eligibility_gradient",
    "grades",
    "input_errors",
    "integrate",
    "product",
    "spike_weights",
    "weight_gradient",
]

WORD = 8  # marks of neurons that are looked at together
CROWD = 16  # spikes in a bucket from which on sorting by insertion does not pay
TINY = 1e-300


@compiled
def decay_factors(first, last, offsets, times, tau, duration, out):
    """Fill exp(-dt / tau), dt from each spike to its sample's next, or the end of the simulation.

    Spikes beyond the end are never looked at; theirs is 1.
    """
    for b in range(first, last):
        until = duration
        for z in range(offsets[b + 1] - 1, offsets[b] - 1, -1):
            out[z] = math.exp(min(times[z] - until, 0.0) / tau)
            until = min(times[z], duration)


@compiled
def _update(c, s, weight, a, slow, fast):
    """Decay the states to now and add one input spike."""
    for i in range(len(c)):
        c[i] = c[i] * slow + weight[a, i]
        s[i] = s[i] * fast + weight[a, i]


@compiled
def _update_and_check(c, s, weight, a, slow, fast, theta, theta4, y, y2, yy, mask):
    """As `_update`; also mark the neurons that may fire before the next input spike.

    A neuron can fire only if the parabola has a root, and its peak lies within the interval or
    its end above the threshold. `dynamics.crossing` decides.
    """
    any_hit = False
    for i in range(len(c)):
        wi = weight[a, i]
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
def integrate(
    first, last, offsets, times, addresses, decays, weight, theta, tau, duration, cap,
    counts, capped, out_times, out_neurons, out_parents, out_currents,
):  # fmt: skip
    """Run a layer on samples first to last - 1 and write every spike, interval by interval.

    A spike's parent is the input spike of its sample after which it was emitted. `capped[b]`
    counts the neurons that reached the threshold once more after `cap` spikes. The outputs are
    (B, room); a sample with more spikes than that counts on, but writes no more.
    """
    neurons = weight.shape[1]
    room = out_times.shape[1]
    real = weight.dtype.type
    theta4 = (theta + theta) + (theta + theta)
    c, s = np.empty(neurons, weight.dtype), np.empty(neurons, weight.dtype)
    mask = np.zeros((neurons + WORD - 1) // WORD * WORD, np.uint8)
    words = mask.view(np.uint64)
    fired = np.empty(neurons, np.int32)
    marks = mask[:neurons]
    for b in range(first, last):
        c[:] = 0
        s[:] = 0
        fired[:] = 0
        n = 0
        slow = real(1)
        for z in range(offsets[b], offsets[b + 1]):
            t, y_end = times[z], decays[z]
            if t >= duration:
                break
            if z + 1 < offsets[b + 1] and times[z + 1] == t:
                _update(c, s, weight, addresses[z], slow, slow * slow)
                slow = y_end
                continue
            hit = _update_and_check(
                c, s, weight, addresses[z], slow, slow * slow, theta, theta4,
                y_end, y_end + y_end, y_end * y_end, marks,
            )  # fmt: skip
            slow = y_end
            if not hit:
                continue
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
                            out_parents[b, n] = z - offsets[b]
                            out_currents[b, n] = s[i] * y * y
                        c[i] -= theta / y
                        fired[i] += 1
                        n += 1
        counts[b] = n


@compiled
def _sort(times, order, heads, buckets):
    """Fill `order` with the places of rising times; equal ones keep their order.

    Times spread evenly go into one bucket each and are then nearly sorted; a crowded bucket
    leaves it to a merge sort.
    """
    n = len(times)
    low, high = times.min(), times.max()
    scale = (n - 1) / max(high - low, TINY)
    heads[: n + 1] = 0
    for k in range(n):
        bucket = int((times[k] - low) * scale)
        buckets[k] = bucket
        heads[bucket + 1] += 1
    if heads[: n + 1].max() > CROWD:
        order[:n] = np.argsort(times, kind="mergesort")
        return
    for k in range(n):
        heads[k + 1] += heads[k]
    for k in range(n):
        order[heads[buckets[k]]] = k
        heads[buckets[k]] += 1
    for k in range(1, n):
        place, at = order[k], k
        while at > 0 and times[order[at - 1]] > times[place]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = place


@compiled
def collect(
    first, last, offsets, raw_times, raw_neurons, raw_parents, raw_currents,
    times, neurons, parents, currents,
):  # fmt: skip
    """Copy the spikes of samples first to last - 1 into flat arrays, sorted by time and neuron."""
    room = raw_times.shape[1]
    order, buckets = np.zeros(room, np.int64), np.empty(room, np.int64)
    heads = np.empty(room + 1, np.int64)
    for b in range(first, last):
        total = offsets[b + 1] - offsets[b]
        start = 0
        while start < total:
            stop = start + 1
            while stop < total and raw_parents[b, stop] == raw_parents[b, start]:
                stop += 1
            # The spikes of one interval come by neuron; a stable sort keeps that order in ties.
            order[0] = 0
            if stop - start > 1:
                _sort(raw_times[b, start:stop], order, heads, buckets)
            for k in range(stop - start):
                to, at = offsets[b] + start + k, start + order[k]
                times[to], neurons[to] = raw_times[b, at], raw_neurons[b, at]
                parents[to], currents[to] = raw_parents[b, at], raw_currents[b, at]
            start = stop


@compiled
def spike_weights(
    first, last, in_offsets, in_times, offsets, times, neurons, parents, currents, errors, size,
    theta, tau, exact, fast, slow,
):  # fmt: skip
    r"""Turn the error of each spike, q_k, into v_k = lam_k F_k / y_k, the neuron's resets included.

    .. math:: \lambda_k = q_k + \frac{\theta}{\tau} \sum_{m > k} v_m e^{(t_k - t_m)/\tau}

    `fast` and `slow` get v_k decayed to the time of the spike's parent with tau_s and tau.
    """
    later = np.empty(size, np.float64)
    since = np.empty(size, np.float64)
    ratio = theta / tau
    for b in range(first, last):
        later[:] = 0
        since[:] = 0
        for k in range(offsets[b + 1] - 1, offsets[b] - 1, -1):
            i, t = neurons[k], times[k]
            held = later[i]
            if held != 0:
                held *= math.exp((t - since[i]) / tau)
            v = (errors[k] + ratio * held) * factor(currents[k], theta, tau, exact)
            later[i], since[i] = held + v, t
            decay = math.exp((in_times[in_offsets[b] + parents[k]] - t) / tau)
            slow[k] = v * decay
            fast[k] = v * decay * decay


@compiled
def _step_back(p, q, fast, slow, grad):
    for i in range(len(p)):
        pi = p[i] * fast
        qi = q[i] * slow
        p[i] = pi
        q[i] = qi
        grad[i] += pi - qi


@compiled
def product(first, last, a, b, out):
    """Multiply rows first to last - 1 of a matrix with another.

    Every number is summed in the same order, however many threads there are: BLAS does not.
    """
    for i in range(first, last):
        out[i] = 0
        for k in range(a.shape[1]):
            _add_scaled(out[i], b[k], a[i, k])


@compiled
def _add_scaled(out, values, factor):
    for j in range(len(out)):
        out[j] += factor * values[j]


@compiled
def weight_gradient(
    first, last, in_offsets, in_addresses, decays, offsets, neurons, parents, fast, slow, grad
):
    r"""Add to the gradient of neurons first to last - 1, over all samples, backward in time.

    `grad` has the columns of these neurons alone.

    .. math:: \frac{dL}{dw_{ij}} = \sum_z P_i(t_z) - Q_i(t_z), \quad
              P_i(t) = \sum_{t_k > t} v_k e^{(t - t_k)/\tau_s}, \quad
              Q_i(t) = \sum_{t_k > t} v_k e^{(t - t_k)/\tau}
    """
    p, q = np.empty(last - first, grad.dtype), np.empty(last - first, grad.dtype)
    for b in range(len(in_offsets) - 1):
        k = offsets[b + 1] - 1
        while k >= offsets[b] and not (first <= neurons[k] < last):
            k -= 1
        if k < offsets[b]:
            continue
        p[:] = 0
        q[:] = 0
        begin = in_offsets[b]
        for z in range(begin + parents[k], begin - 1, -1):
            row = grad[in_addresses[z]]
            _step_back(p, q, decays[z] * decays[z], decays[z], row)
            while k >= offsets[b] and parents[k] == z - begin:
                i = neurons[k] - first
                if 0 <= i < last - first:
                    p[i] += fast[k]
                    q[i] += slow[k]
                    row[i] += fast[k] - slow[k]
                k -= 1


@compiled
def input_errors(
    first, last, in_offsets, in_addresses, decays, offsets, neurons, parents, fast, slow, weight,
    tau, out,
):  # fmt: skip
    r"""Return the error of each input spike of samples first to last - 1 by its time.

    .. math:: q_z = \sum_i w_{ij} \left( \frac{P_i(t_z)}{\tau_s} - \frac{Q_i(t_z)}{\tau} \right)
    """
    size = weight.shape[1]
    p, q = np.empty(size, weight.dtype), np.empty(size, weight.dtype)
    real = weight.dtype.type
    rate = real(1 / tau)
    for b in range(first, last):
        p[:] = 0
        q[:] = 0
        k = offsets[b + 1] - 1
        for z in range(in_offsets[b + 1] - 1, in_offsets[b] - 1, -1):
            p *= decays[z] * decays[z]
            q *= decays[z]
            while k >= offsets[b] and parents[k] == z - in_offsets[b]:
                p[neurons[k]] += fast[k]
                q[neurons[k]] += slow[k]
                k -= 1
            row = weight[in_addresses[z]]
            total = real(0)
            for i in range(size):
                total += row[i] * (p[i] + p[i] - q[i])
            out[z] = total * rate


@compiled
def grades(
    first, last, in_offsets, in_addresses, in_grades, offsets, neurons, parents, weight,
    perturbation, out,
):  # fmt: skip
    """Give every spike of samples first to last - 1 its grade.

    A neuron's running grade gains weight times grade at each graded input spike, leaves on the
    neuron's own spike and returns to 0; the neuron's first spike also carries its perturbation.
    """
    size = weight.shape[1]
    running = np.empty(size, weight.dtype)
    silent = np.empty(size, np.bool_)
    for b in range(first, last):
        running[:] = 0
        silent[:] = True
        k = offsets[b]
        for z in range(in_offsets[b], in_offsets[b + 1]):
            grade = in_grades[z]
            if grade != 0:
                row = weight[in_addresses[z]]
                for i in range(size):
                    running[i] += row[i] * grade
            while k < offsets[b + 1] and parents[k] == z - in_offsets[b]:
                i = neurons[k]
                out[k] = running[i]
                if silent[i]:
                    out[k] += perturbation[b, i]
                    silent[i] = False
                running[i] = 0
                k += 1


@compiled
def eligibility_gradient(
    first, last, in_offsets, in_times, in_addresses, offsets, times, neurons, parents, currents,
    errors, theta, tau, exact, grad,
):  # fmt: skip
    r"""Add to the gradient of neurons first to last - 1 by traces that run forward in time.

    The presynaptic traces A_j and B_j grow by 1 at each input spike and decay with tau_s and tau.
    At spike k of neuron i the eligibility of its synapses grows by (equations 13 to 21)

    .. math:: \frac{dt_k}{dw_{ij}} = \frac{F_k}{y_k} \left( A_j(t_k) - B_j(t_k) + R_{ij}(t_k)
              \right), \qquad R_{ij}(t) = \frac{\theta}{\tau} \sum_{t_l < t} e^{(t_l - t)/\tau}
              \frac{dt_l}{dw_{ij}}

    and when the sample is over, the error of the neuron meets its eligibilities. Nothing is kept
    of the past but the traces. `errors` is (B, neurons): one error for all spikes of a neuron.
    """
    inputs = grad.shape[0]
    fast, slow = np.empty(inputs, grad.dtype), np.empty(inputs, grad.dtype)
    size = last - first
    own = np.zeros((size, inputs), grad.dtype)
    eligibility = np.zeros((size, inputs), grad.dtype)
    since = np.empty(size, np.float64)
    real = grad.dtype.type
    ratio = real(theta / tau)
    for b in range(len(in_offsets) - 1):
        fast[:] = 0
        slow[:] = 0
        since[:] = -1.0
        k = offsets[b]
        at = 0.0  # the time to which the presynaptic traces have decayed
        for z in range(in_offsets[b], in_offsets[b + 1]):
            decay = real(math.exp((at - in_times[z]) / tau))
            at = in_times[z]
            fast *= decay * decay
            slow *= decay
            fast[in_addresses[z]] += real(1)
            slow[in_addresses[z]] += real(1)
            while k < offsets[b + 1] and parents[k] == z - in_offsets[b]:
                i = neurons[k] - first
                if 0 <= i < size:
                    y = real(math.exp((at - times[k]) / tau))
                    f = real(factor(currents[k], theta, tau, exact))
                    if since[i] < 0:
                        own[i] = 0
                        eligibility[i] = 0
                    held = real(math.exp((since[i] - times[k]) / tau))
                    for j in range(inputs):
                        own[i, j] *= held
                        change = f * (fast[j] * y * y - slow[j] * y + own[i, j])
                        own[i, j] += ratio * change
                        eligibility[i, j] += change
                    since[i] = times[k]
                k += 1
        for i in range(size):
            if since[i] >= 0:
                error = errors[b, first + i]
                for j in range(inputs):
                    grad[j, first + i] += error * eligibility[i, j]
