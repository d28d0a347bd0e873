"""CIFAR's Python version: pickles, which are read only if they are the published files.

A pickle may run any code. So the checksum of the whole file is compared before any of it is read,
and nothing but arrays and plain values is made of it even then.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from threefactor.data.files.source import LARGEST, Source
from threefactor.errors import DataError

__all__ = ["PickledRecords"]

ARRAYS = {
    (f"numpy.{core}.multiarray", name)
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


@dataclass(frozen=True)
class PickledRecords(Source):
    """A file of CIFAR's Python version, read as the same file of the binary version.

    Args:
        path: the file.
        md5: the published MD5 sum; nothing else is read.
    """

    md5: str

    def read(self, limit: int = LARGEST) -> bytearray:
        """Return the records: the label, or coarse and fine label, and 3 x 32 x 32 pixels of each.

        Raises:
            DataError: the file is absent, or not the published one.
        """
        body = Source(self.path).read(limit)
        found = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if found != self.md5:
            raise DataError(
                f"{self} has the MD5 sum {found}, and the published file {self.md5}; it is a "
                "pickle, which may run any code, so no other is read: fetch the data set again"
            )
        content: Any = _Arrays(io.BytesIO(body), encoding="latin1").load()
        keys = ["labels"] if "labels" in content else ["coarse_labels", "fine_labels"]
        labels = [np.asarray(content[key], np.uint8)[:, None] for key in keys]
        return bytearray(np.concatenate([*labels, content["data"]], axis=1).tobytes())


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise DataError(f"a pickle asks for {module}.{name}; expected arrays and plain values")
        return super().find_class(module, name)
