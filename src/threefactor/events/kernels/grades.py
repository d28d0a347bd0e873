"""What learned feedback needs: grades of spikes, sums of them, and products of matrices."""

from __future__ import annotations

import numpy as np

from threefactor.events.compiling import compiled

__all__ = ["grades", "product", "summed"]


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
def summed(first, last, offsets, neurons, values, out):
    """Sum the values of each neuron's spikes in samples first to last - 1, (B, neurons)."""
    for b in range(first, last):
        out[b] = 0
        for k in range(offsets[b], offsets[b + 1]):
            out[b, neurons[k]] += values[k]


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
