"""Errors of spikes by their times, and what a layer's spikes weigh in its gradients, by sample."""

from __future__ import annotations

import math

import numpy as np

from threefactor.events.compiling import compiled, compiled_sum
from threefactor.events.dynamics import factor

__all__ = ["first_times", "input_errors", "per_spike", "spike_weights"]


@compiled
def per_spike(first, last, offsets, neurons, errors, first_only, out):
    """Give each spike of samples first to last - 1 the error of its neuron, (B, neurons).

    With `first_only`, later spikes than a neuron's first get 0.
    """
    silent = np.empty(errors.shape[1], np.bool_)
    for b in range(first, last):
        silent[:] = True
        for k in range(offsets[b], offsets[b + 1]):
            i = neurons[k]
            out[k] = 0 if first_only and not silent[i] else errors[b, i]
            silent[i] = False


@compiled
def first_times(first, last, offsets, times, neurons, duration, out):
    """Fill the time of each neuron's first spike in samples first to last - 1, (B, neurons).

    It is `duration` where there is none.
    """
    for b in range(first, last):
        out[b] = duration
        for k in range(offsets[b + 1] - 1, offsets[b] - 1, -1):
            out[b, neurons[k]] = times[k]


@compiled
def spike_weights(
    first, last, offsets, times, neurons, currents, ys, errors, size, theta, tau, exact,
    fast, slow,
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
            slow[k] = v * ys[k]
            fast[k] = v * ys[k] * ys[k]


@compiled_sum
def _decayed_sum(p, q, fast, slow, row):
    """Decay two rows; return the sum of weights times 2 p - q."""
    total = row[0] * 0
    for i in range(len(p)):
        pi = p[i] * fast
        qi = q[i] * slow
        p[i] = pi
        q[i] = qi
        total += row[i] * (pi + pi - qi)
    return total


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
        begin, end = in_offsets[b], in_offsets[b + 1]
        k = offsets[b + 1] - 1
        after = begin + parents[k] + 1 if k >= offsets[b] else begin
        out[after:end] = 0  # no spike of the layer comes after these
        for z in range(after - 1, begin - 1, -1):
            row = weight[in_addresses[z]]
            total = _decayed_sum(p, q, decays[z] * decays[z], decays[z], row)
            while k >= offsets[b] and parents[k] == z - begin:
                i = neurons[k]
                p[i] += fast[k]
                q[i] += slow[k]
                total += row[i] * (fast[k] + fast[k] - slow[k])
                k -= 1
            out[z] = total * rate
