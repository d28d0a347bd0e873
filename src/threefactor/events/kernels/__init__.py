"""Compiled loops over a batch. Each takes a range of samples, or of neurons, and may run beside
others on other ranges; what a sample or neuron gets never depends on how the ranges are cut.
"""

from threefactor.events.kernels.eligibility import eligibility_gradient
from threefactor.events.kernels.errors import first_times, input_errors, per_spike, spike_weights
from threefactor.events.kernels.forward import integrate, pack, prepare
from threefactor.events.kernels.grades import grades, product, summed
from threefactor.events.kernels.gradient import weight_gradient

__all__ = [
    "eligibility_gradient",
    "first_times",
    "grades",
    "input_errors",
    "integrate",
    "pack",
    "per_spike",
    "prepare",
    "product",
    "spike_weights",
    "summed",
    "weight_gradient",
]
