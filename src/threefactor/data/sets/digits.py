"""Digits: the small set of handwritten digits that scikit-learn contains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from threefactor.data.dataset import Files, ImageSet
from threefactor.data.files.source import Source
from threefactor.data.samples.images import RawImages

__all__ = ["DIGITS"]

PEAK = 16


def read_digits(entry: ImageSet, sources: Sequence[Source]) -> RawImages:
    """Read scikit-learn's digits in a fixed split of our own.

    scikit-learn has one part only. `entry.test` samples are set aside for testing by its
    `train_test_split`, stratified by class, with seed 0.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=entry.test, random_state=0, stratify=labels
    )
    return RawImages(images[train], labels[train], images[test], labels[test], PEAK)


DIGITS = ImageSet(
    name="digits",
    title="Optical recognition of handwritten digits (test part, as shipped with scikit-learn)",
    shape=(1, 8, 8),
    train=1437,
    test=360,
    classes=tuple("0123456789"),
    licence="CC BY 4.0 (UCI); the copy in scikit-learn comes under BSD-3-Clause",
    source="E. Alpaydin, C. Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
    references=("alpaydin1998digits",),
    homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    files=Files(not_needed="they come with scikit-learn"),
    read=read_digits,
)
