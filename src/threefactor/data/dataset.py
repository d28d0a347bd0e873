"""How a data set is described before it is there: `DataSet`, with one subclass a kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from torch import Tensor

from threefactor.data.encode.framing import FrameSettings
from threefactor.data.files.source import Source
from threefactor.data.formats.events import Events
from threefactor.data.samples.augmented import Augmentation
from threefactor.data.samples.images import RawImages
from threefactor.data.samples.recordings import Recording
from threefactor.events.spikes import SpikeBatch

__all__ = [
    "DataFile",
    "DataSet",
    "EventSet",
    "Files",
    "FramedSet",
    "ImageFolderSet",
    "ImageSet",
    "SimulatedSet",
    "SpikeSet",
]


@dataclass(frozen=True)
class DataFile:
    """One published file of a data set.

    Args:
        name: the published file name.
        md5: the MD5 sum of the published file, 32 hexadecimal digits.
        members: full names of the files that are read out of it, if it is an archive.
        folder: the folder that is unpacked out of it, if it is an archive of a whole folder.
        url: where the file lies, if not below one of the set's mirrors.
        limit: the most bytes that the published file has; a longer download is stopped.
    """

    name: str
    md5: str
    members: tuple[str, ...] = ()
    folder: str = ""
    url: str = ""
    limit: int = 2 << 30


@dataclass(frozen=True)
class Files:
    """Which files of a data set are read, and how to get them.

    Args:
        published: the files that `fetch` downloads.
        mirrors: base URLs under each of which all published files lie, the best first.
        own_files: names of files that users place themselves.
        own_folders: names of folders that users place themselves.
        by_hand: how to get the files of a set that no program may download.
        not_needed: where the samples come from, if the set has no files.
        endings: what may follow a file name without .gz, the preferred ending first.
        debian: Debian's package of the set, and the folder where it installs the files.
    """

    published: tuple[DataFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    own_files: tuple[str, ...] = ()
    own_folders: tuple[str, ...] = ()
    by_hand: str = ""
    not_needed: str = ""
    endings: tuple[str, ...] = (".gz", "")
    debian: tuple[str, Path] | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders that are read; empty for a set of single files."""
        return self.own_folders or tuple(file.folder for file in self.published if file.folder)

    @property
    def contents(self) -> tuple[str, ...]:
        """The names of what is read: folders, own files, members of archives, published files."""
        return (
            self.folders
            or self.own_files
            or tuple(
                PurePosixPath(name).name
                for file in self.published
                for name in (file.members or (file.name,))
            )
        )

    @property
    def subfolders(self) -> tuple[str, ...]:
        """The folders into which other programs unpack the archives, beside the set's own."""
        parents = (PurePosixPath(name).parent for file in self.published for name in file.members)
        return tuple(dict.fromkeys(str(parent) for parent in parents if parent.name))


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What is known of a data set without having it.

    Args:
        name: the name that users type, and the name of the set's subfolder.
        title: the full name.
        shape: (C, H, W) of an image; (channels,) of spikes; (2, H, W) of an event camera, OFF
            before ON.
        train, test: numbers of published samples; 0 if any number is allowed.
        classes: one name per label, in the order of the labels; empty if folders name them.
        licence: the terms under which the data may be used, as far as they are known.
        source: the publication to cite.
        references: its keys in `threefactor/report/references.bib`, for `threefactor cite`.
        homepage: where to read more.
        files: which files are read, and how to get them.
        augmentation: augmentation of the published results.
        needs: what must be installed to read the files, beyond the library itself.
    """

    kind: ClassVar[str]

    name: str
    title: str
    shape: tuple[int, ...]
    train: int
    test: int
    classes: tuple[str, ...] = ()
    licence: str
    source: str
    references: tuple[str, ...] = ()
    homepage: str
    files: Files
    augmentation: Augmentation | None = None
    needs: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageSet(DataSet):
    """Images in memory, for `load` and `load_spikes`.

    Args:
        read: reads the files, which are given in the order of `files.contents`.
    """

    kind = "images"
    read: Callable[[ImageSet, Sequence[Source]], RawImages]


@dataclass(frozen=True, kw_only=True)
class ImageFolderSet(DataSet):
    """Image files in folders of classes, which `load` reads batch by batch.

    Args:
        class_folders: the number of classes.
    """

    kind = "image files"
    class_folders: int


@dataclass(frozen=True, kw_only=True)
class SpikeSet(DataSet):
    """Spike trains, for `load_spikes` and, if they are recorded, for `load_frames`.

    Args:
        frames: how recorded spikes make frames if nothing else is said; None for none.
        read: reads or makes the spikes and labels for training and for testing, out of the files,
            which are given in the order of `files.contents`, and of the coding window in seconds.
    """

    kind = "spikes"
    frames: FrameSettings | None = None
    read: Callable[
        [SpikeSet, Sequence[Source], float],
        tuple[tuple[SpikeBatch, Tensor], tuple[SpikeBatch, Tensor]],
    ]


@dataclass(frozen=True, kw_only=True)
class FramedSet(DataSet):
    """Events of which `load_frames` makes sequences of frames.

    Args:
        frames: how the published results make frames.
        normalise: whether they normalise the frames.
    """

    frames: FrameSettings
    normalise: bool = False


@dataclass(frozen=True, kw_only=True)
class EventSet(FramedSet):
    """Recordings of an event camera, for `load_events` and `load_frames`.

    Args:
        recordings: lists the recordings for training and for testing in the folders, which are
            given in the order of `files.contents`.
        read: reads one file, given its path and whether to `sort` its events.
    """

    kind = "events"
    recordings: Callable[[EventSet, Sequence[Path]], tuple[list[Recording], list[Recording]]]
    read: Callable[..., Events]


@dataclass(frozen=True, kw_only=True)
class SimulatedSet(FramedSet):
    """Simulated events of a set of images, for `load_frames`.

    Args:
        base: the set of images.
    """

    kind = "simulated"
    base: ImageSet
