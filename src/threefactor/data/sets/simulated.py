"""Simulated events: for each set of images, what an event camera would see of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from threefactor.data.dataset import Files, ImageSet, SimulatedSet
from threefactor.data.encode.saccades import SaccadeSettings, simulate_saccades
from threefactor.data.formats.events import Events
from threefactor.data.sets.nmnist import NMNIST

__all__ = ["SACCADES", "simulated", "simulated_events"]

SACCADES = SaccadeSettings()
BLOCK = 32  # images that move at once: their pixels fit into the processor's cache


def simulated(base: ImageSet) -> SimulatedSet:
    """Return the set "simulated-NAME" of a set of images, with frames as of N-MNIST."""
    return SimulatedSet(
        name=f"simulated-{base.name}",
        title=f"{base.name} as events of a camera, simulated like N-MNIST",
        shape=(2, SACCADES.sensor, SACCADES.sensor),
        train=base.train,
        test=base.test,
        classes=base.classes,
        licence=base.licence,
        source=base.source,
        references=(*NMNIST.references, *base.references),
        homepage=base.homepage,
        files=Files(not_needed=f"they are made of {base.name}"),
        base=base,
        frames=NMNIST.frames,
    )


def simulated_events(images: NDArray[np.uint8], peak: int) -> Iterator[Events]:
    """Yield the events of each image.

    Args:
        images: (N, C, H, W).
        peak: the pixel value that stands for full intensity.
    """
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].astype(np.float32) / peak
        yield from simulate_saccades(block, SACCADES)
