"""Download the files of a data set, checked and never half-written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from threefactor.data.dataset import DataFile, DataSet, ImageSet, SimulatedSet
from threefactor.data.files.archives import unpack_files, unpacked
from threefactor.data.files.transfer import progress_bars, quiet, transfer
from threefactor.data.sets.catalog import lookup
from threefactor.data.where import data_folder, debian_advice, found_in
from threefactor.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from threefactor.data.files.transfer import Bar

__all__ = ["fetch"]


def fetch(
    name: str,
    data_dir: str | Path | None = None,
    progress: bool = False,
    mirrors: Sequence[str] | None = None,
) -> Path:
    """Download the files of a data set that are not there yet.

    Each file is tried from the mirrors in turn, written under a temporary name in the same
    folder, compared with its MD5 sum and only then given its name; nothing else stays behind
    when that fails. Files that are there with the right sum are left alone.

    Of an archive, only the files or the folder that are read are unpacked, and the archive is
    removed after that unless it was there before. If they are all there already, nothing is
    downloaded.

    For a simulated set, the files of the set that it is made from are downloaded.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder above the set's own; see `data_folder`.
        progress: show a bar for each file on standard error.
        mirrors: base URLs to use in place of the set's own.

    Returns:
        The folder that holds the files.

    Raises:
        ConfigurationError: the name is unknown, the set needs no download or is not to be
            downloaded by a program, or `mirrors` is empty.
        DataError: a file of that name with other contents is there, which is left untouched; or
            no mirror delivered; or the folder cannot be written to; or an archive is not safe.
    """
    entry = lookup(name)
    if isinstance(entry, SimulatedSet):
        return fetch(entry.base.name, data_dir, progress, mirrors)
    if not entry.files.published:
        raise _no_files(entry)
    given = entry.files.mirrors if mirrors is None else mirrors
    # The files of sets of events have addresses of their own.
    bases = [] if entry.files.folders and mirrors is None else _base_urls(given)
    folder = data_folder(name, data_dir)
    try:
        missing = _missing(entry, folder)
        with quiet(), progress_bars(progress) as bar:
            for file in missing:
                bases = _download(entry, file, folder, bases, bar(file.name))
            _unpack(entry, folder, missing)
    except OSError as error:
        raise DataError(
            f"cannot keep {name!r} in {folder}: {error.strerror or error}; "
            "free some space, set its rights, or name another folder with --data-dir DIR"
        ) from error
    return folder


def _no_files(entry: DataSet) -> ConfigurationError:
    if entry.files.by_hand:
        return ConfigurationError(
            f"{entry.name!r} cannot be downloaded by a program: {entry.files.by_hand}"
        )
    loader = "load" if isinstance(entry, ImageSet) else "load_spikes"
    return ConfigurationError(
        f"{entry.name!r} needs no download (files: {entry.files.not_needed}); "
        f"just load it, threefactor.data.{loader}({entry.name!r})"
    )


def _base_urls(mirrors: Sequence[str]) -> list[str]:
    given = [mirrors] if isinstance(mirrors, str) else list(mirrors)
    if not given:
        raise ConfigurationError("mirrors is empty; give at least one base URL, or None")
    return [base if base.endswith("/") else f"{base}/" for base in given]


def _missing(entry: DataSet, folder: Path) -> list[DataFile]:
    """List the files to download; refuse, before any download, files that are not ours."""
    if any(file.members for file in entry.files.published) and found_in(folder, entry):
        return []
    wanted = _not_unpacked(entry, folder)
    present = [file for file in wanted if (folder / file.name).exists()]
    for file in present:
        _check_present(entry, file, folder / file.name)
    return [file for file in wanted if file not in present]


def _not_unpacked(entry: DataSet, folder: Path) -> list[DataFile]:
    """List the files without those of which the folder is there."""
    if not entry.files.folders:
        return list(entry.files.published)
    return [file for file in entry.files.published if not (folder / file.folder).is_dir()]


def _check_present(entry: DataSet, file: DataFile, path: Path) -> None:
    import pooch

    found = pooch.file_hash(str(path), alg="md5") if path.is_file() else "none, it is no file"
    if found != file.md5:
        raise DataError(
            f"{path} is there already but is not the published file: its MD5 sum is {found}, "
            f"expected {file.md5}. It was left untouched. If it is a repacked copy of your own, "
            f"no download is needed: just load {entry.name!r}. "
            "Otherwise delete it or name another folder with --data-dir DIR"
        )


def _unpack(entry: DataSet, folder: Path, downloaded: list[DataFile]) -> None:
    archives = [file for file in _not_unpacked(entry, folder) if file.members or file.folder]
    if not archives or found_in(folder, entry):
        return
    for file in archives:
        if file.folder:
            unpacked(folder / file.name, file.folder)
        else:
            unpack_files(folder / file.name, file.members, folder)
        if file in downloaded:
            # It is much larger than what is read of it, or there twice.
            (folder / file.name).unlink()


def _download(
    entry: DataSet, file: DataFile, folder: Path, bases: list[str], bar: Bar | None
) -> list[str]:
    """Download one file; return the base URLs with the one that delivered first."""
    reasons = []
    for base in bases or [file.url] * bool(file.url):
        url = base + file.name if bases else base
        reason = transfer(url, folder / file.name, file.md5, file.limit, bar)
        if reason is None:
            return [base, *(other for other in bases if other != base)] if bases else []
        reasons.append(f"  {base}: {reason}")
    failure = f"no mirror delivered {file.name} of the data set {entry.name!r}:"
    if not reasons:
        failure = f"{file.name} of the data set {entry.name!r} is to be had by hand only, from"
        reasons = [f"  {entry.homepage}"]
    raise DataError("\n".join([failure, *reasons, *_by_hand(entry, folder)]))


def _by_hand(entry: DataSet, folder: Path) -> list[str]:
    names = ", ".join(file.name for file in entry.files.published)
    return [
        "Check the connection and try again, or get the files elsewhere and place them by hand:",
        f"  {names}",
        f"  in {folder}",
        *debian_advice(entry),
    ]
