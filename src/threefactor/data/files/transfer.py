"""One transfer over HTTP within bounds, and its progress bar."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

if TYPE_CHECKING:
    from requests import Response, Session
    from rich.progress import Progress, TaskID

    Bar = Callable[[int, int], None]

__all__ = ["progress_bars", "quiet", "transfer"]

CHUNK = 1 << 16
TIMEOUT = 30.0  # seconds without an answer
PERIOD, LEAST = 60.0, 60_000  # seconds, in each of which so many bytes have to come
MOST_REDIRECTS = 10
READABLE = 0o644


def transfer(url: str, path: Path, md5: str, limit: int, bar: Bar | None = None) -> str | None:
    """Download `url` to `path` if its MD5 sum is right.

    Args:
        url: an http or https address.
        path: where the checked file goes, at once and whole.
        md5: the expected sum, 32 hexadecimal digits.
        limit: bytes after which the download is broken off.
        bar: is told the bytes that have come, and those to come or 0.

    Returns:
        None on success, else why the server's answer is of no use.

    Raises:
        OSError: the folder cannot be made or written to, whichever the server.
    """
    import pooch
    from requests.exceptions import RequestException

    try:
        pooch.retrieve(
            url,
            f"md5:{md5}",
            fname=path.name,
            path=path.parent,
            downloader=_Download(limit, bar),
        )
    except (RequestException, ValueError) as error:  # pooch: ValueError for a wrong sum
        return " ".join(str(error).split())
    # pooch's temporary file is its owner's only, but folders may be shared.
    with suppress(OSError):
        path.chmod(READABLE)
    return None


class _Download:
    """Takes an answer on a thread of its own, so that no server can hold up the caller.

    A server may send one byte now and then, in any part of its answer, for ever.
    """

    def __init__(self, limit: int, bar: Bar | None) -> None:
        self.limit, self.bar = limit, bar
        self.count = 0
        self.given_up = False
        self.error: Exception | None = None

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download a file, as pooch asks for it."""
        from requests.exceptions import RequestException

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
        import requests
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

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

    def _copy(self, response: Response, file: Any) -> None:
        from requests.exceptions import RequestException

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
            if self.bar is not None:
                self.bar(self.count, expected)


def _answer(session: Session, url: str) -> Response:
    """Return the answer of the server, or of those to which it sends us on."""
    from requests.exceptions import TooManyRedirects

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
def progress_bars(show: bool) -> Iterator[Callable[[str], Bar | None]]:
    """Yield a function that makes the progress bar of a file, or None if none is to be shown."""
    if not show:
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield lambda name: _bar(display, display.add_task(name, total=None))


def _bar(display: Progress, task: TaskID) -> Bar:
    def show(count: int, total: int) -> None:
        display.update(task, completed=count, total=total or None)

    return show
