"""The gradient of a layer's weights, by neuron."""

from __future__ import annotations

import numpy as np

from threefactor.events.compiling import compiled

__all__ = ["weight_gradient"]


@compiled
def _step_back(p, q, fast, slow, grad):
    for i in range(len(p)):
        pi = p[i] * fast
        qi = q[i] * slow
        p[i] = pi
        q[i] = qi
        grad[i] += pi - qi


@compiled
def _first_step_back(p, q, fast, slow, grad):
    """As `_step_back`, into memory that holds nothing yet."""
    for i in range(len(p)):
        pi = p[i] * fast
        qi = q[i] * slow
        p[i] = pi
        q[i] = qi
        grad[i] = pi - qi


@compiled
def _walk_back(
    first, last, in_offsets, in_addresses, decays, offsets, neurons, parents, fast, slow, grad,
    touched,
):  # fmt: skip
    """Fill the rows of `grad`, which has the columns of these neurons alone, that get anything."""
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
            address = in_addresses[z]
            row = grad[address]
            if touched[address]:
                _step_back(p, q, decays[z] * decays[z], decays[z], row)
            else:
                _first_step_back(p, q, decays[z] * decays[z], decays[z], row)
                touched[address] = True
            while k >= offsets[b] and parents[k] == z - begin:
                i = neurons[k] - first
                if 0 <= i < last - first:
                    p[i] += fast[k]
                    q[i] += slow[k]
                    row[i] += fast[k] - slow[k]
                k -= 1


@compiled
def weight_gradient(
    first, last, in_offsets, in_addresses, decays, offsets, neurons, parents, fast, slow, grad,
):  # fmt: skip
    r"""Fill the gradient of neurons first to last - 1, over all samples, backward in time.

    .. math:: \frac{dL}{dw_{ij}} = \sum_z P_i(t_z) - Q_i(t_z), \quad
              P_i(t) = \sum_{t_k > t} v_k e^{(t - t_k)/\tau_s}, \quad
              Q_i(t) = \sum_{t_k > t} v_k e^{(t - t_k)/\tau}
    """
    inputs = len(grad)
    touched = np.zeros(inputs, np.bool_)
    # Columns of its own keep a thread from fetching memory that another is changing.
    whole = last - first == grad.shape[1]
    part = grad if whole else np.empty((inputs, last - first), grad.dtype)
    _walk_back(
        first, last, in_offsets, in_addresses, decays, offsets, neurons, parents, fast, slow, part,
        touched,
    )  # fmt: skip
    for j in range(inputs):
        if not touched[j]:
            grad[j, first:last] = 0
        elif not whole:
            grad[j, first:last] = part[j]
