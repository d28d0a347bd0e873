r"""How libraries read the nodes of a NIR graph on a time grid.

NIR's own equations for LIF neurons are

.. math:: \tau \dot v = (v_{leak} - v) + R I, \qquad
          v > v_{threshold}: \text{a spike, and } v = v_{reset}

Forward Euler with the time step dt turns them into
:math:`v[t] = (1 - dt/\tau) v[t-1] + (dt/\tau) (v_{leak} + R I[t])`. Our neurons
:math:`u[t] = \lambda u[t-1] + I[t]` with the reset "zero" are the same with
:math:`\tau = dt / (1 - \lambda)`, :math:`R = \tau / dt`, :math:`v_{leak} = v_{reset} = 0`. For IF
neurons, :math:`\dot v = R I`, R is 1/dt.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from threefactor.errors import ConfigurationError, InputError, unknown_name
from threefactor.readable import clipped

__all__ = ["DIALECTS", "TIME_STEP", "Dialect", "dialect_of", "library", "time_step"]

TIME_STEP = "dt"
"""Where the metadata of a graph keep the time step, in seconds, that it was written with."""


@dataclass(frozen=True)
class Dialect:
    """The conventions of one reader.

    Attributes:
        strict: whether a neuron spikes only above its threshold, as in NIR's equations. Ours spike
            at it, too; a strict reader gets the next lower number as threshold, so that both spike
            at the same potentials.
        uses_r: whether R of a LIF neuron is used. Where it is not, R is 1, and the factor is in the
            weights.
        if_per_step: whether R of an IF neuron counts per time step and not per second.
        reads_if: whether IF neurons are read as such. Where they are not, they are written as LIF
            neurons of 2^60 time steps, whose leak 1 - dt/tau is 1 in double precision.
        sums: whether pooling is written as sums (SumPool2d), with the division in the weights.
        scales: whether Scale nodes are read.
        zero_leak: whether a LIF neuron may forget all, with tau = dt.
        branches: whether a graph may have branches. Norse runs its nodes in an order in which a sum
            may be made before all of it is there, and takes what is missing from the step before.
        nests: whether a recurrent layer is written as a graph of its own, as its reader wants it.
    """

    strict: bool = True
    uses_r: bool = True
    if_per_step: bool = False
    reads_if: bool = True
    sums: bool = False
    scales: bool = False
    zero_leak: bool = True
    nests: bool = False
    branches: bool = True


DIALECTS = {
    "euler": Dialect(scales=True),
    "snntorch": Dialect(reads_if=False, nests=True),
    "spikingjelly": Dialect(strict=False, zero_leak=False),
    "norse": Dialect(uses_r=False, if_per_step=True, sums=True, branches=False),
}
"""The dialects by name. "euler" is NIR's own equations under forward Euler; the others are what
snnTorch 1.0.0, SpikingJelly 2.0.0 and Norse 1.1.0 make of a graph."""


SINABS = (
    "there is no dialect 'sinabs': what it makes of a graph spikes several times in a step, takes "
    "the threshold off for each spike, and bounds the potentials of IF neurons, none of which a "
    "graph can say otherwise; build its layers by hand, with SingleSpike and the time constant "
    "-1/ln(leak), as docs/leaving.md shows"
)


def dialect_of(name: str) -> Dialect:
    """Return a dialect by name.

    Raises:
        ConfigurationError: with the nearest known name, or why there is none for sinabs.
    """
    if name == "sinabs":
        raise ConfigurationError(SINABS)
    if not isinstance(name, str) or name not in DIALECTS:
        raise unknown_name("dialect", name, DIALECTS)
    return DIALECTS[name]


def time_step(dt: float) -> float:
    """Return a time step in seconds, or refuse it."""
    number = isinstance(dt, (int, float, np.number)) and not isinstance(dt, bool)
    if not number or not 0.0 < dt < np.inf:
        raise InputError(f"dt is {clipped(dt)}; give the time step in seconds, above 0")
    return float(dt)


def library() -> Any:
    """Import the package `nir`.

    Raises:
        ConfigurationError: saying how to install it.
    """
    try:
        return importlib.import_module("nir")
    except ImportError as problem:
        raise ConfigurationError(
            "NIR graphs need the package nir; install it with: pip install 'threefactor[nir]'"
        ) from problem
