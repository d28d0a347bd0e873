"""Image files, of which threads load the next batch while one is used."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactor.data.arguments import check_dtype, check_whole
from threefactor.data.encode.pictures import ImageSettings
from threefactor.data.files.source import ADVICE, open_file
from threefactor.data.inputs import Batched, read_ahead
from threefactor.errors import ConfigurationError, DataError, InputError
from threefactor.indexing import Index, positions

__all__ = ["Header", "ImageFiles", "header", "opened", "usual_threads"]

# Pillow knows more, some of which start other programs.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
# Others have no one meaning as RGB: Pillow clips values of 16 bits or of no fixed range.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
PEAK = 255
MOST_READS = 1 << 18
LARGEST_SEED = (1 << 63) - 1
BITS_PER_SAMPLE = 258  # a tag of TIFF
MOST_PIXELS = 1 << 26
"""Of a picture, and of what it is resized to. Each takes 4 bytes, in up to three copies at once:
800 MB for each thread. ImageNet's largest has 61 million."""

MOST_BYTES = 5 * MOST_PIXELS  # of a file: more than so many pixels take as they are
MOST_THREADS = 1024
USUAL_THREADS = 16  # from about here on they wait for the interpreter's lock


@dataclass(frozen=True, eq=False)
class ImageFiles(Batched):
    """N image files, of which `files[index]` reads a batch, (B, 3, H, W).

    An index is a slice, a tensor of positions or a list; a number gives one image, (3, H, W).
    Images of 8 bits of any mode become RGB; others are refused. For training, a random part of each
    picture is taken. It depends only on a seed and the sample's number, not on batches or
    threads. `files[index]` draws the seed from PyTorch's global CPU generator, which checkpoints
    save; `batches` is given the seed, and loads ahead.

    Args:
        paths: one file for each sample.
        settings: how a picture becomes an image.
        training: take random parts.
        normalise: subtract `settings.mean` and divide by `settings.std`.
        dtype, device: of the batches.
        threads: how many read files.

    Raises:
        ConfigurationError: Pillow is not installed.
        InputError: `settings` are not `ImageSettings`, `dtype` is not floating point, or `threads`
            is not a whole number of at least 1.
    """

    paths: Sequence[str]
    settings: ImageSettings
    training: bool
    normalise: bool = True
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        _pillow()
        if not isinstance(self.settings, ImageSettings):
            raise InputError(f"settings are a {type(self.settings).__name__}; give ImageSettings")
        check_dtype(self.dtype)
        check_whole("threads", self.threads, 1, MOST_THREADS)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, place: slice | NDArray[np.int64]) -> Tensor:
        """Read a batch, (B, 3, H, W).

        Raises:
            DataError: a file is absent, damaged, or of a mode that cannot be RGB; it is named.
        """
        seed = int(torch.randint(2**62, ())) if self.training else 0
        return _Batch(self, place, seed).result()

    def batches(self, indices: Iterable[Index], seed: int) -> Iterator[Tensor]:
        """Read batch after batch, each while the one before is used.

        Args:
            indices: one for each batch.
            seed: from 0 to 2^63 - 1, a different one in each epoch. It decides, with the sample's
                number, which part of a picture is taken.

        Raises:
            DataError: a file is absent or damaged, when its batch is asked for.
            InputError: the seed is not a whole number of at least 0.
        """
        check_whole("seed", seed, 0, LARGEST_SEED)
        yield from read_ahead(indices, lambda index: _Batch(self, index, seed))

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return 3, self.settings.size, self.settings.size

    def first(self, number: int | None) -> ImageFiles:
        """Return the first files; None keeps all."""
        return replace(self, paths=self.paths[:number])

    def choose(self, index: Tensor) -> ImageFiles:
        """Return the files at some positions."""
        chosen = np.arange(len(self))[positions(index, len(self))]
        return replace(self, paths=[self.paths[i] for i in chosen.tolist()])

    def for_testing(self) -> ImageFiles:
        """Return the same files, of which the centres are taken."""
        return replace(self, training=False)

    def to(self, device: torch.device | str) -> ImageFiles:
        """Return the same files, whose batches go to another device."""
        return replace(self, device=device)

    def read(self, sample: int, seed: int, out: NDArray[Any]) -> None:
        """Read one image into `out`, (3, H, W)."""
        picture = opened(self.paths[sample])
        if self.training:
            image = self.settings.for_training(picture, np.random.default_rng((seed, sample)))
        else:
            width, height = self.settings.resized(*picture.size)
            if width * height > MOST_PIXELS:
                raise DataError(
                    f"{self.paths[sample]} has {picture.width} x {picture.height} pixels and "
                    f"would be resized to {width} x {height}, {MOST_PIXELS:,} at most: cut it"
                )
            image = self.settings.for_testing(picture)
        # NumPy and not PyTorch, which would start threads of its own on each of ours.
        np.divide(np.asarray(image).transpose(2, 0, 1), PEAK, out=out, dtype=out.dtype)
        if self.normalise:
            mean, std = (
                np.array(values, out.dtype)[:, None, None]
                for values in (self.settings.mean, self.settings.std)
            )
            np.divide(np.subtract(out, mean, out=out), std, out=out)


class _Batch:
    """A batch that is being read."""

    def __init__(self, files: ImageFiles, index: Index, seed: int) -> None:
        samples = np.atleast_1d(np.arange(len(files))[positions(index, len(files))])
        kind = np.float64 if files.dtype is torch.float64 else np.float32
        self.files = files
        self.out = np.empty((len(samples), *files.sample_shape), kind)
        pool = _pool(files.threads)
        self.jobs: list[Future[None]] = [
            pool.submit(files.read, sample, seed, out)
            for sample, out in zip(samples.tolist(), self.out, strict=True)
        ]

    def result(self) -> Tensor:
        try:
            for job in self.jobs:
                job.result()
        finally:
            self.cancel()
        return torch.from_numpy(self.out).to(self.files.device, self.files.dtype)

    def cancel(self) -> None:
        """Drop the reads that have not begun."""
        for job in self.jobs:
            job.cancel()


def usual_threads() -> int:
    """Return how many threads read files if nothing else is said: one for each usable core."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), USUAL_THREADS)
    return min(os.cpu_count() or 1, USUAL_THREADS)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="threefactor-images")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has no threads


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ConfigurationError(
            "reading image files needs Pillow; install it with: pip install 'threefactor[images]'"
        ) from error


class _Counted:
    """A file whose reader may ask so often: Pillow looks for some ends byte by byte."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.reads = file, 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > MOST_READS:
            raise ValueError("it has no end, or far too many parts")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _check_header(path: str, picture: Any) -> None:
    """Refuse, before pixels are decoded, what has no one meaning or takes too much memory."""
    mode, bits = picture.mode, _bits(picture)
    if mode not in MODES or bits > 8:
        kind = f"mode {mode}" if mode not in MODES else f"{bits} bits a channel"
        raise DataError(
            f"{path} is a picture of {kind}; expected 8 bits a channel, one of "
            f"{', '.join(MODES)}: convert it yourself, to the range that you mean"
        )
    width, height = picture.size
    if not 0 < width * height <= MOST_PIXELS:
        raise DataError(
            f"{path} has {width} x {height} pixels; expected 1 to {MOST_PIXELS:,}: resize it"
        )


def _bits(picture: Any) -> int:
    """Return the bits of a channel in the file, which Pillow cuts to 8 in some modes."""
    if picture.format == "TIFF":
        return max(map(int, picture.tag_v2.get(BITS_PER_SAMPLE, (1,))))
    found = 8
    for tile in picture.tile:
        decoder, given = tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if picture.format == "PNG" and ";16" in str(given[0]):  # as "RGB;16B"
            found = 16
        if (
            picture.format == "PPM"
            and decoder.startswith("ppm")
            and len(given) > 1
            and given[1] > PEAK
        ):
            found = int(given[1]).bit_length()
    return found


class Header(NamedTuple):
    """Size and colours of a picture, as its file says before it is decoded."""

    height: int
    width: int
    grey: bool
    transparent: bool


def header(path: str, body: bytes | None = None) -> Header:
    """Read the size and colours of a picture.

    Args:
        path: of the file, or a name for messages.
        body: what is in the file, if there is none on disk.

    Raises:
        DataError: the file is absent, damaged at its beginning, or of a mode that cannot be RGB.
    """
    with _picture(path, body) as picture:
        transparent = "A" in picture.mode.upper() or "transparency" in picture.info
        grey = picture.mode in ("1", "L", "LA", "La")
        return Header(picture.height, picture.width, grey, transparent)


def opened(path: str, mode: str = "RGB", body: bytes | None = None) -> Any:
    """Read a picture whole, as "RGB" or, in shades of grey, as "L"; arguments as of `header`.

    Raises:
        DataError: the file is absent, damaged, or of a mode that cannot be RGB.
    """
    with _picture(path, body) as picture:
        picture.load()
        return picture if picture.mode == mode else picture.convert(mode)


@contextmanager
def _picture(path: str, body: bytes | None = None) -> Iterator[Any]:
    """Open a picture whose header was checked; errors of any kind name the file."""
    try:
        with open_file(path) if body is None else io.BytesIO(body) as file:
            size = os.fstat(file.fileno()).st_size if body is None else len(body)
            if size > MOST_BYTES:
                raise DataError(f"{path} has {size:,} bytes; expected at most {MOST_BYTES:,}")
            with _pillow().open(_Counted(file), formats=FORMATS) as picture:
                _check_header(path, picture)
                yield picture
    except DataError:
        raise
    except Exception as error:  # what damage makes Pillow's decoders raise is of many kinds
        if isinstance(error, OSError) and error.errno is not None:
            reason = f"cannot be read ({error.strerror}); check the path and rights"
        else:
            text = " ".join(str(error).partition(" <")[0].split())
            reason = (
                f"is a damaged image file, or not an image ({text or type(error).__name__}); "
                f"{ADVICE}"
            )
        raise DataError(f"{path} {reason}") from error
