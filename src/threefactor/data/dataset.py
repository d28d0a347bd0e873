"""How a data set is described before it is there: `DataSet` and `DataFile`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

__all__ = ["DataFile", "DataSet"]


@dataclass(frozen=True)
class DataFile:
    """One file of a data set as it is published.

    Args:
        name: the published file name.
        md5: the MD5 sum of the published file, 32 hexadecimal digits.
        members: if the file is an archive, the files in it that are read, with their full names.
        url: where the file lies if not below one of the set's mirrors.
        limit: bytes of the published file at most; a longer download is broken off.
    """

    name: str
    md5: str
    members: tuple[str, ...] = ()
    url: str = ""
    limit: int = 2 << 30


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set without having it.

    Args:
        name: the name that users type, also that of the set's subfolder.
        title: the full name.
        shape: (C, H, W) of one image; (channels,) of a set of spikes; (2, H, W) of the camera of a
            set of events, OFF before ON; (C, H, W) that image files are made into.
        train, test: number of samples published for training and for testing; 0 if it is free.
        licence: under which terms the data may be used, as far as is known.
        source: the publication to cite.
        homepage: where to read more.
        kind: "images", for `load` and `load_spikes`; "spikes", for `load_spikes` alone; "events",
            recordings of event cameras, for `load_events` and `load_frames`; "simulated", events
            made from images, for `load_frames`; "image files", for `load`, which reads them batch
            by batch.
        reader: the key of the function that reads the files among those of the set's kind, such
            as `threefactor.data.sets.readers.READERS`.
        classes: one name per label, in the order of the labels; none if folders name them.
        class_folders: if so, how many.
        files: the published files, none if the set needs no download. Sets of idx files list
            training images, training labels, test images, test labels, here or as the members
            of one archive; sets of spikes list the training file, then the test file.
        mirrors: base URLs under each of which all the files lie, best first.
        trees: if the files are archives that are used as whole folders, the folder in each; or,
            without files, the folders.
        endings: what may follow the name of a file without .gz, in the order of preference.
        own_files: the files of a set that users make themselves, training before test.
        origin: what to say of the files of a set that needs no download.
        by_hand: how a set is to be had that no program may download.
        base: the set from which a simulated one is made.
        needs: what must be installed to read the files, beyond the library itself.
        debian_package, debian_folder: Debian's package of the set and where it installs the files.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    train: int
    test: int
    licence: str
    source: str
    homepage: str
    kind: Literal["images", "spikes", "events", "simulated", "image files"] = "images"
    reader: str = ""
    classes: tuple[str, ...] = ()
    class_folders: int = 0
    files: tuple[DataFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    endings: tuple[str, ...] = (".gz", "")
    own_files: tuple[str, ...] = ()
    origin: str = ""
    by_hand: str = ""
    base: str = ""
    needs: str = ""
    debian_package: str | None = None
    debian_folder: Path | None = None

    @property
    def contents(self) -> tuple[str, ...]:
        """The names of what is read: folders, own files, members of archives, published files."""
        return (
            self.trees
            or self.own_files
            or tuple(
                PurePosixPath(name).name
                for file in self.files
                for name in (file.members or (file.name,))
            )
        )

    @property
    def subfolders(self) -> tuple[str, ...]:
        """The folders into which other programs unpack the archives, beside the set's own."""
        parents = (PurePosixPath(name).parent for file in self.files for name in file.members)
        return tuple(dict.fromkeys(str(parent) for parent in parents if parent.name))
