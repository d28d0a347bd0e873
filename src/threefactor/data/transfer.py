"""One transfer over HTTP with pooch, and its progress bar."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["progress_bars", "quiet", "transfer"]

CHUNK = 1 << 16
TIMEOUT = 30.0  # seconds without an answer
READABLE = 0o644


def transfer(url: str, path: Path, md5: str, bar: object = False) -> str | None:
    """Download `url` to `path` if its MD5 sum is right.

    Args:
        url: an http or https address.
        path: where the checked file goes, at once and whole.
        md5: the expected sum, 32 hexadecimal digits.
        bar: a progress bar as pooch takes it, or False.

    Returns:
        None on success, else why the server's answer is of no use.

    Raises:
        OSError: the folder cannot be made or written to, whichever the server.
    """
    import pooch
    from requests.exceptions import RequestException

    # A server that packs or unpacks .gz files on the way would change their sum.
    headers = {"Accept-Encoding": "identity"}
    downloader = pooch.HTTPDownloader(
        progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT, headers=headers
    )
    try:
        pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader)
    except (RequestException, ValueError) as error:  # pooch: ValueError for a wrong sum
        return " ".join(str(error).split())
    # pooch's temporary file is its owner's only, but folders may be shared.
    with suppress(OSError):
        path.chmod(READABLE)
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pooch from reporting each download on standard error."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def progress_bars(show: bool) -> Iterator[Callable[[str], object]]:
    """Yield a function that makes the progress bar of a file, or False if none is to be shown."""
    if not show:
        yield lambda name: False
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield lambda name: _Bar(display, display.add_task(name, total=None))


class _Bar:
    """A bar of `display` under the four names that pooch uses."""

    def __init__(self, display: Progress, task: TaskID) -> None:
        self._display = display
        self._task = task

    def __setattr__(self, key: str, value: Any) -> None:
        """Start anew at each total, which pooch assigns when a server's answer begins."""
        super().__setattr__(key, value)
        if key == "total":
            self._display.update(self._task, total=value or None, completed=0)

    def update(self, count: int) -> None:
        self._display.advance(self._task, count)

    def reset(self) -> None:
        self._display.update(self._task, completed=0)

    def close(self) -> None:
        self._display.refresh()
