"""Networks as NIR graphs, which other libraries and neuromorphic chips read; needs the extra `nir`.

NIR (the Neuromorphic Intermediate Representation) describes neurons by differential equations,
without a time step. What a reader makes of a graph on its own time grid differs from library to
library: see `dialects`.

Source: Pedersen et al. 2024, *Neuromorphic intermediate representation*.
"""

from threefactor.interop.nir.dialects import DIALECTS, Dialect
from threefactor.interop.nir.exporting import to_nir
from threefactor.interop.nir.importing import from_nir
from threefactor.interop.nir.network import GraphNetwork

__all__ = ["DIALECTS", "Dialect", "GraphNetwork", "from_nir", "to_nir"]
