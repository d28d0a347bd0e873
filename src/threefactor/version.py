"""The version of this package; read by the build without importing anything else."""

__version__ = "0.1.0"

NUMBERS = 6
"""Raised with every change that alters what a training gives, between versions too.

Grids of runs use no run from before. 2: gradients of fast convolutions lie as their weights do.
3: another number of frames covers the whole recording. 4: exact BP of spike times, and eligibility
traces forward in time, sum in another order. 5: products of matrices on a time grid sum in another
order, on processors with AVX-512 that are not Intel's. 6: there, smaller ones do, too, and the last
steps of a sequence, and "medium" rounds factors to bfloat16; gradients of convolutions sum in
another order, and so does OPZO's feedback of large layers.
"""
