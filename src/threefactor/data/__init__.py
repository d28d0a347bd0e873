"""Data sets: what they are, where they lie, and how to get, check and load them."""

from threefactor.data.download import fetch
from threefactor.data.folders import DATA_VARIABLE, data_folder
from threefactor.data.idx import read_idx
from threefactor.data.images import ImageData
from threefactor.data.info import available, describe
from threefactor.data.loading import load
from threefactor.data.registry import DATASETS, DataFile, DataSet

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "DataFile",
    "DataSet",
    "ImageData",
    "available",
    "data_folder",
    "describe",
    "fetch",
    "load",
    "read_idx",
]
