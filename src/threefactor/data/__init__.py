"""Data sets: what they are, where they lie, and how to get, check and load them."""

from threefactor.data.aedat import read_aedat2, read_aedat3
from threefactor.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    cutout,
    random_crop,
    random_flip,
)
from threefactor.data.augmented_data import AugmentedData, AugmentedInputs
from threefactor.data.batches import batches
from threefactor.data.download import fetch
from threefactor.data.event_array import EVENT
from threefactor.data.event_data import EventData
from threefactor.data.event_loading import load_events
from threefactor.data.finding import DATA_VARIABLE, data_folder
from threefactor.data.frame_data import FrameData, Frames
from threefactor.data.frame_loading import (
    FRAME_SETTINGS,
    frame_settings,
    has_frames,
    load_frames,
)
from threefactor.data.framing import FrameSettings, frames
from threefactor.data.idx import read_idx
from threefactor.data.image_files import ImageFiles
from threefactor.data.image_folder import ImageFolderData, load_image_folder
from threefactor.data.image_settings import ImageSettings
from threefactor.data.images import ImageData
from threefactor.data.info import available, describe
from threefactor.data.loading import load
from threefactor.data.nmnist import read_nmnist_file
from threefactor.data.registry import DATASETS, DataFile, DataSet
from threefactor.data.saccades import SaccadeSettings, simulate_saccades
from threefactor.data.shd import read_shd_file
from threefactor.data.spike_data import SpikeData
from threefactor.data.spike_loading import load_spikes
from threefactor.data.yin_yang import yin_yang

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
