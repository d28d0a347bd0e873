"""Data sets: what they are, where they lie, and how to get, check and load them.

`sets/` has all that is particular to a data set: origin, checksums, licence, layout and reader.
`formats/` reads file formats. `encode/` turns samples into what networks take. `samples/` is what
the loaders of `threefactor.data.load` return. `own/` reads one's own data. `files/` opens files and
archives that may be damaged or malicious.
"""

from threefactor.data.dataset import (
    DataFile,
    DataSet,
    EventSet,
    Files,
    ImageFolderSet,
    ImageSet,
    SimulatedSet,
    SpikeSet,
)
from threefactor.data.encode.framing import FrameSettings, frames
from threefactor.data.encode.pictures import ImageSettings
from threefactor.data.encode.saccades import SaccadeSettings, simulate_saccades
from threefactor.data.fetch import fetch
from threefactor.data.formats.aedat import read_aedat2, read_aedat3
from threefactor.data.formats.aedat4 import read_aedat4
from threefactor.data.formats.events import EVENT
from threefactor.data.formats.idx import read_idx
from threefactor.data.info import available, describe
from threefactor.data.inputs import Batched, Inputs, LoadsAhead, Movable, batches
from threefactor.data.load import (
    frame_settings,
    has_frames,
    load,
    load_events,
    load_frames,
    load_spikes,
)
from threefactor.data.own.datasets import from_dataset
from threefactor.data.samples.augmented import (
    Augmentation,
    AugmentedData,
    AugmentedInputs,
    cutout,
    random_crop,
    random_flip,
)
from threefactor.data.samples.frames import FrameData, Frames
from threefactor.data.samples.image_files import ImageFiles
from threefactor.data.samples.image_folder import ImageFolderData, load_image_folder
from threefactor.data.samples.images import ImageData
from threefactor.data.samples.own import OwnData, hold_out
from threefactor.data.samples.recordings import EventData
from threefactor.data.samples.spikes import SpikeData
from threefactor.data.sets.catalog import DATASETS
from threefactor.data.sets.nmnist import read_nmnist_file
from threefactor.data.sets.shd import read_shd_file
from threefactor.data.sets.yin_yang import yin_yang
from threefactor.data.where import DATA_VARIABLE, data_folder

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "EVENT",
    "Augmentation",
    "AugmentedData",
    "AugmentedInputs",
    "Batched",
    "DataFile",
    "DataSet",
    "EventData",
    "EventSet",
    "Files",
    "FrameData",
    "FrameSettings",
    "Frames",
    "ImageData",
    "ImageFiles",
    "ImageFolderData",
    "ImageFolderSet",
    "ImageSet",
    "ImageSettings",
    "Inputs",
    "LoadsAhead",
    "Movable",
    "OwnData",
    "SaccadeSettings",
    "SimulatedSet",
    "SpikeData",
    "SpikeSet",
    "available",
    "batches",
    "cutout",
    "data_folder",
    "describe",
    "fetch",
    "frame_settings",
    "frames",
    "from_dataset",
    "has_frames",
    "hold_out",
    "load",
    "load_events",
    "load_frames",
    "load_image_folder",
    "load_spikes",
    "random_crop",
    "random_flip",
    "read_aedat2",
    "read_aedat3",
    "read_aedat4",
    "read_idx",
    "read_nmnist_file",
    "read_shd_file",
    "simulate_saccades",
    "yin_yang",
]
