"""Data sets: what they are, where they lie, and how to get, check and load them."""

from threefactor.data.encode.framing import FrameSettings, frames
from threefactor.data.encode.pictures import ImageSettings
from threefactor.data.encode.saccades import SaccadeSettings, simulate_saccades
from threefactor.data.event_loading import load_events
from threefactor.data.fetch import fetch
from threefactor.data.folders import DATA_VARIABLE, data_folder
from threefactor.data.formats.aedat import read_aedat2, read_aedat3
from threefactor.data.formats.events import EVENT
from threefactor.data.formats.idx import read_idx
from threefactor.data.frame_loading import (
    FRAME_SETTINGS,
    frame_settings,
    has_frames,
    load_frames,
)
from threefactor.data.info import available, describe
from threefactor.data.inputs import batches
from threefactor.data.load import load
from threefactor.data.samples.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    cutout,
    random_crop,
    random_flip,
)
from threefactor.data.samples.augmented import AugmentedData, AugmentedInputs
from threefactor.data.samples.frames import FrameData, Frames
from threefactor.data.samples.image_files import ImageFiles
from threefactor.data.samples.image_folder import ImageFolderData, load_image_folder
from threefactor.data.samples.images import ImageData
from threefactor.data.samples.recordings import EventData
from threefactor.data.samples.spikes import SpikeData
from threefactor.data.sets.catalog import DATASETS, DataFile, DataSet
from threefactor.data.sets.nmnist import read_nmnist_file
from threefactor.data.sets.shd import read_shd_file
from threefactor.data.sets.yin_yang import yin_yang
from threefactor.data.spike_loading import load_spikes

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "DATA_VARIABLE",
    "EVENT",
    "FRAME_SETTINGS",
    "Augmentation",
    "AugmentedData",
    "AugmentedInputs",
    "DataFile",
    "DataSet",
    "EventData",
    "FrameData",
    "FrameSettings",
    "Frames",
    "ImageData",
    "ImageFiles",
    "ImageFolderData",
    "ImageSettings",
    "SaccadeSettings",
    "SpikeData",
    "available",
    "batches",
    "cutout",
    "data_folder",
    "describe",
    "fetch",
    "frame_settings",
    "frames",
    "has_frames",
    "load",
    "load_events",
    "load_frames",
    "load_image_folder",
    "load_spikes",
    "random_crop",
    "random_flip",
    "read_aedat2",
    "read_aedat3",
    "read_idx",
    "read_nmnist_file",
    "read_shd_file",
    "simulate_saccades",
    "yin_yang",
]
