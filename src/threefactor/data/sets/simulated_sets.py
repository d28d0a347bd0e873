"""The data sets of simulated events, one for each set of images."""

from __future__ import annotations

from threefactor.data.dataset import DataSet
from threefactor.data.sets.mnist import IMAGE_SETS

__all__ = ["SIMULATED_SETS"]

SENSOR = (2, 34, 34)  # of `SaccadeSettings`, as N-MNIST's


def _simulated(base: DataSet) -> DataSet:
    return DataSet(
        name=f"simulated-{base.name}",
        title=f"{base.name} as events of a camera, simulated in the manner of N-MNIST",
        shape=SENSOR,
        train=base.train,
        test=base.test,
        classes=base.classes,
        licence=base.licence,
        source=base.source,
        homepage=base.homepage,
        kind="simulated",
        base=base.name,
    )


SIMULATED_SETS = tuple(map(_simulated, IMAGE_SETS))
"""The sets that `load_frames` makes of images, as sequences of frames."""
