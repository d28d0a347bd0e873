"""Download the files of a data set, checked and never half-written, within bounds.

pooch compares the sum of a file and gives it its name. Its `HTTPDownloader` is not used, as it has
no bound: it takes an answer of any size for any length of time, and requests reads the bodies of
redirects, and the lines between the chunks of an answer, into memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

import pooch
import requests
from requests.exceptions import RequestException, TooManyRedirects
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from urllib3.exceptions import HTTPError

from threefactor.data.dataset import DataFile, DataSet, ImageSet, SimulatedSet
from threefactor.data.files.archives import unpack_files, unpacked
from threefactor.data.sets.catalog import lookup
from threefactor.data.where import data_folder, debian_advice, found_in
from threefactor.errors import ConfigurationError, DataError

__all__ = ["fetch"]

CHUNK = 1 << 16
TIMEOUT = 30.0  # seconds without an answer
PERIOD, LEAST = 60.0, 60_000  # seconds, in each of which so many bytes have to come
MOST_REDIRECTS = 10
READABLE = 0o644


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
        mirrors: base URLs to use instead of the set's own.

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
        with _progress_bars(progress) as bars:
            for file in missing:
                bases = _download(entry, file, folder, bases, bars)
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
    found = pooch.file_hash(str(path), alg="md5") if path.is_file() else "none, it is not a file"
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
            (folder / file.name).unlink(missing_ok=True)  # another process may be at it


def _download(
    entry: DataSet, file: DataFile, folder: Path, bases: list[str], bars: Progress
) -> list[str]:
    """Download one file; return the base URLs with the one that delivered first."""
    task = bars.add_task(file.name, total=None)
    reasons = []
    for base in bases or [file.url] * bool(file.url):
        url = base + file.name if bases else base
        reason = _transfer(url, folder / file.name, file, bars, task)
        if reason is None:
            return [base, *(other for other in bases if other != base)] if bases else []
        reasons.append(f"  {base}: {reason}")
    failure = f"no mirror delivered {file.name} of the data set {entry.name!r}:"
    if not reasons:
        failure = f"{file.name} of the data set {entry.name!r} can be downloaded by hand only, from"
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


def _transfer(url: str, path: Path, file: DataFile, bars: Progress, task: TaskID) -> str | None:
    """Download `url` to `path` if its MD5 sum is right.

    Args:
        url: an http or https address.
        path: where the checked file goes, at once and whole.
        file: has the sum, and the bytes after which the download is broken off.
        bars, task: show how far it is.

    Returns:
        None on success, else why the server's answer is of no use.

    Raises:
        OSError: the folder cannot be made or written to, whichever the server.
    """
    try:
        pooch.retrieve(
            url,
            f"md5:{file.md5}",
            fname=path.name,
            path=path.parent,
            downloader=_Download(file.limit, bars, task),
        )
    except (RequestException, ValueError) as error:  # pooch: ValueError for a wrong sum
        return " ".join(str(error).split())
    # pooch's temporary file is its owner's only, but folders may be shared.
    with suppress(OSError):
        path.chmod(READABLE)
    return None


class _Download:
    """Takes an answer on a thread of its own, so that no server can hold up the caller.

    A server may send one byte now and then, in any part of its answer, forever.
    """

    def __init__(self, limit: int, bars: Progress, task: TaskID) -> None:
        self.limit, self.bars, self.task = limit, bars, task
        self.count = 0
        self.given_up = False
        self.error: Exception | None = None

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download a file, as pooch asks for it."""
        worker = threading.Thread(target=self._run, args=(url, output_file), daemon=True)
        worker.start()
        seen, since = 0, time.monotonic()
        try:
            while worker.is_alive():
                worker.join(0.2)
                if self.count - seen >= LEAST:
                    seen, since = self.count, time.monotonic()
                elif worker.is_alive() and time.monotonic() - since > PERIOD:
                    raise RequestException(f"less than {LEAST:,} bytes came in {PERIOD:g} seconds")
        finally:
            self.given_up = True
        if self.error is not None:
            raise self.error

    def _run(self, url: str, output_file: str) -> None:
        try:
            with (
                requests.Session() as session,
                _answer(session, url) as response,
                open(output_file, "wb") as file,
            ):
                self._copy(response, file)
        except HTTPError as error:
            self.error = RequestException(str(error))
        except Exception as error:
            self.error = error

    def _copy(self, response: requests.Response, file: IO[bytes]) -> None:
        total = response.headers.get("Content-Length", "")
        expected = int(total) if total.isascii() and total.isdigit() and len(total) < 19 else 0
        while True:
            if max(expected, self.count) > self.limit:
                raise RequestException(
                    f"the answer has {'' if expected else 'more than '}"
                    f"{max(expected, self.count):,} bytes; the file has {self.limit:,} at most"
                )
            # Not iter_content, which reads lines of any length between the chunks of an answer.
            part = response.raw.read(CHUNK, decode_content=False)
            if not part or self.given_up:
                return
            file.write(part)
            self.count += len(part)
            self.bars.update(self.task, completed=self.count, total=expected or None)


def _answer(session: requests.Session, url: str) -> requests.Response:
    """Return the answer of the server, or of those to which it sends us on."""
    # A server that packs or unpacks .gz files on the way would change their sum.
    headers = {"Accept-Encoding": "identity"}
    for _ in range(MOST_REDIRECTS):
        # By ourselves: requests would read the body of each answer to its end.
        response = session.get(
            url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False
        )
        if not response.is_redirect:
            response.raise_for_status()
            return response
        url = urljoin(url, response.headers["location"])
        response.close()
    raise TooManyRedirects(f"more than {MOST_REDIRECTS} redirects")


@contextmanager
def _progress_bars(show: bool) -> Iterator[Progress]:
    """Show bars of downloads on standard error, or nothing; and nothing of pooch's own."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not show) as bars:
            yield bars
    finally:
        logger.setLevel(level)
