"""Folders of pictures by class, of any one size, grey or in colour."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from threefactor.data.arguments import check_whole
from threefactor.data.encode.latency import code_images
from threefactor.data.files.rows import FileRows
from threefactor.data.own.folder import Listing, Sample, Split, check_classes, list_folder
from threefactor.data.own.made import labelled, place_of
from threefactor.data.samples.frame_cache import cached_frames
from threefactor.data.samples.image_files import Header, header, opened, usual_threads
from threefactor.data.samples.image_folder import ENDINGS
from threefactor.data.samples.images import pixel_statistics
from threefactor.data.samples.own import OwnData
from threefactor.data.samples.stored import Stored
from threefactor.data.where import cache_folder
from threefactor.errors import DataError

__all__ = ["WHAT", "images", "of_pictures", "read_each", "sizes_of"]

WHAT = "images"
LARGEST_SIDE = 8192
MOST_VALUES = 1 << 31
"""Pixels of all pictures together: 8 GiB as single precision."""
PEAK = 255
BLOCK = 1024
"""Pictures that are read together; all of them twice would take too much memory."""
Read = TypeVar("Read")


def images(
    *,
    path: str = "",
    train_part: str = "train",
    validation_part: str = "validation",
    test_part: str = "test",
    test_share: float | None = None,
    split_seed: int = 0,
    size: int | tuple[int, int] | None = None,
    colour: Literal["grey", "rgb"] | None = None,
    normalise: bool = True,
    data_dir: Path | None = None,
    steps: int | None = None,
    dtype: torch.dtype = torch.float32,
    window: float = 0.1,
    room: int | None = None,
) -> OwnData:
    """Load a folder of pictures, a folder for each class.

    Pictures are taken whole: nothing is cut off. All have one size, or are resized to it. They are
    read into memory; or, where that has no room for them, into a file in the user's cache folder,
    from which batches are read.

    Args:
        path: the folder; below `data_dir`, if that is given and the path is relative.
        train_part, validation_part, test_part: folders in it that hold the classes, or text files
            that list samples, one path from the folder a line.
        test_share: share of each class that is chosen at random for testing, if nothing else says
            which are.
        split_seed: of that choice.
        size: pixels on each side, or (height, width), to which pictures are resized, whatever their
            aspect (bilinear, averaging over all pixels that a new one covers).
        colour: "grey" or "rgb", if pictures are of both kinds or to be turned into one of them.
        normalise: subtract the mean of all training pixels and divide by their deviation, for
            networks on a time grid; otherwise pixels are from 0 to 1.
        data_dir, steps, dtype, window: of the experiment. Without `steps`, pictures are coded as
            spikes within `window` seconds, see `events.latency_code`.
        room: bytes that they may take in memory; None for no limit but 2^31 pixels.

    Raises:
        ConfigurationError: Pillow is not installed, or nothing says how to split.
        DataError: the folder or a picture cannot be read, pictures differ in size or kind, or a
            class is missing; files and classes are named.
    """
    folder, what = place_of(path, data_dir, "images"), WHAT
    split = Split(train_part, validation_part, test_part, test_share, split_seed)
    listing = list_folder(folder, ENDINGS, split, what)
    check_classes(listing, folder, what)
    options = {"size": size, "colour": colour, "normalise": normalise}
    return of_pictures(
        "images", folder, listing, header, opened, options, steps, dtype, window, room
    )


def of_pictures(
    name: str,
    folder: Path,
    listing: Listing,
    head: Callable[[str], Header],
    decoded: Callable[[str, str], Any],
    options: Mapping[str, Any],
    steps: int | None,
    dtype: torch.dtype,
    window: float,
    room: int | None = None,
) -> OwnData:
    """Make data of pictures that are listed.

    Args:
        name: of this kind of data.
        folder: where they lie.
        listing: the pictures of each part.
        head: reads the size and colours of a picture.
        decoded: reads a picture as "L" or "RGB".
        options: `size`, `colour`, `normalise`; see `images`.
        steps, dtype, window: see `images`.
        room: see `images`; only for pictures that are files of their own.

    Raises:
        DataError: a picture cannot be read, or pictures differ in size or kind.
    """
    size, colour, normalise = (options[key] for key in ("size", "colour", "normalise"))
    samples = [one for part in listing.parts.values() for one in part]
    headers = read_each([one.path for one in samples], head)
    shape, resized = _shape(folder, samples, headers, size, colour)
    values = len(samples) * int(np.prod(shape))
    to_file = steps is not None and room is not None and values * (1 + dtype.itemsize) > room
    if values > MOST_VALUES and not to_file:
        raise DataError(
            f"{folder} has {values:,} pixels in {len(samples)} pictures of {shape}, more than the "
            f"{MOST_VALUES:,} that are kept in memory; give a smaller size, as --set size=64, or, "
            "for a network on a time grid, --set data.place=disk"
        )
    if to_file:
        return _in_files(folder, listing, headers, shape, resized, normalise, dtype)
    pixels = {
        part: _pixels([one.path for one in found], shape, resized, decoded)
        for part, found in listing.parts.items()
    }
    facts = _facts(headers, shape, resized)
    if steps is None:
        coded = {part: code_images(each, PEAK, window) for part, each in pixels.items()}
        facts["coded"] = f"as one spike for each pixel that is not 0, within {window:g} s"
        return labelled(name, folder, listing, coded, (int(np.prod(shape)),), facts)
    mean, std, facts["normalised"] = _normalisation(pixels["train"], folder, normalise)

    def scaled(part: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(part).to(dtype).div_(PEAK).sub_(mean).div_(std)

    tensors = {part: scaled(each) for part, each in pixels.items()}
    return labelled(name, folder, listing, tensors, shape, facts)


def _in_files(
    folder: Path,
    listing: Listing,
    headers: Sequence[Any],
    shape: tuple[int, int, int],
    resized: bool,
    normalise: bool,
    dtype: torch.dtype,
) -> OwnData:
    """Return the pictures in files of their pixels, which are made if they are not there."""
    parts = {
        part: pixels_in_file([one.path for one in samples], shape, resized)
        for part, samples in listing.parts.items()
        if samples
    }
    facts = _facts(headers, shape, resized)
    mean, std, facts["normalised"] = _normalisation(parts["train"], folder, normalise)
    stored = {
        part: Stored(rows, dtype, peak=PEAK, mean=mean, std=std) for part, rows in parts.items()
    }
    return labelled("images", folder, listing, stored, shape, facts)


def pixels_in_file(paths: Sequence[str], shape: tuple[int, int, int], resized: bool) -> FileRows:
    """Return the pixels of pictures, (N, C, H, W), in a file of the user's cache folder.

    Raises:
        DataError: a picture cannot be read, or the file cannot be written.
    """
    stats = [os.stat(path) for path in paths]
    lines = (
        f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in zip(paths, stats, strict=True)
    )
    digest = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
    key = {"set": "images", "shape": list(shape), "resized": resized, "source": digest}

    def make() -> Iterator[NDArray[Any]]:
        for start in range(0, len(paths), BLOCK):
            yield from _pixels(paths[start : start + BLOCK], shape, resized, opened)

    found = cached_frames(cache_folder() / "own-images", key, len(paths), make, ("uint8",))
    return FileRows.of(found.array)


def read_each(
    paths: Sequence[str], read: Callable[[str], Read], *, refuse: bool = True
) -> list[Read | DataError]:
    """Read files on several threads; all that cannot be read are named together.

    Args:
        paths: of the files.
        read: reads one.
        refuse: whether a file that cannot be read is an error; else it stands in the result.

    Raises:
        DataError: names the files.
    """

    def tried(path: str) -> Read | DataError:
        try:
            return read(path)
        except DataError as problem:
            return problem

    with ThreadPoolExecutor(usual_threads()) as pool:
        found = list(pool.map(tried, paths))
    wrong = [str(one) for one in found if isinstance(one, DataError)]
    if wrong and refuse:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{len(wrong)} of {len(paths)} files cannot be read: {'; '.join(wrong[:3])}{more}. "
            "`threefactor data check` names all of them"
        )
    return found


def sizes_of(headers: Sequence[Any]) -> Counter[str]:
    """Count the sizes of pictures, as "HEIGHTxWIDTH"."""
    return Counter(f"{one.height}x{one.width}" for one in headers if isinstance(one, Header))


def _shape(
    folder: Path,
    samples: Sequence[Sample],
    headers: Sequence[Any],
    size: int | tuple[int, int] | None,
    colour: str | None,
) -> tuple[tuple[int, int, int], bool]:
    """Return (C, H, W) of all pictures, and whether any has to be resized."""
    sizes, greys = sizes_of(headers), sum(one.grey for one in headers)
    if size is None and len(sizes) > 1:
        rare = sizes.most_common()[-1][0]
        example = next(
            one.path
            for one, head in zip(samples, headers, strict=True)
            if f"{head.height}x{head.width}" == rare
        )
        common = ", ".join(f"{number} of {name}" for name, number in sizes.most_common(5))
        raise DataError(
            f"the pictures in {folder} have {len(sizes)} sizes (height x width: {common}"
            f"{', ...' if len(sizes) > 5 else ''}; as {example}); give the size to which all are "
            "resized, as --set size=64 or --set size=[48,64]"
        )
    if colour is None and 0 < greys < len(headers):
        raise DataError(
            f"{greys} pictures in {folder} are in shades of grey and {len(headers) - greys} in "
            "colour; say what all are to be, as --set colour=grey or --set colour=rgb"
        )
    height, width = headers[0].height, headers[0].width
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        for name, value in (("height", height), ("width", width)):
            check_whole(name, value, 1, LARGEST_SIDE)
    grey = greys > 0 if colour is None else colour == "grey"
    return (1 if grey else 3, height, width), set(sizes) != {f"{height}x{width}"}


def _pixels(
    paths: Sequence[str],
    shape: tuple[int, int, int],
    resized: bool,
    decoded: Callable[[str, str], Any],
) -> NDArray[np.uint8]:
    channels, height, width = shape
    found = np.empty((len(paths), *shape), np.uint8)

    def read(path: str) -> NDArray[np.uint8]:
        picture = decoded(path, "L" if channels == 1 else "RGB")
        if resized and picture.size != (width, height):
            from PIL.Image import Resampling

            picture = picture.resize((width, height), Resampling.BILINEAR)
        array = np.asarray(picture, np.uint8)
        if array.shape[:2] != (height, width):
            raise DataError(f"{path} has changed while it was read; give it again")
        return array.reshape(height, width, channels).transpose(2, 0, 1)

    for start in range(0, len(paths), BLOCK):
        arrays: list[Any] = read_each(paths[start : start + BLOCK], read)
        for number, array in enumerate(arrays):
            found[start + number] = array
    return found


def _normalisation(
    pixels: NDArray[np.uint8] | FileRows, folder: Path, normalise: bool
) -> tuple[float, float, str]:
    """Return what to subtract from pixels over their peak, by what to divide, and both in words."""
    if not normalise:
        return 0.0, 1.0, "no"
    mean, std = pixel_statistics(pixels, PEAK)
    if std == 0:
        raise DataError(f"all pixels for training in {folder} are equal; are these the pictures?")
    return mean, std, f"mean {mean:.6f}, deviation {std:.6f}"


def _facts(headers: Sequence[Any], shape: tuple[int, int, int], resized: bool) -> dict[str, Any]:
    channels, height, width = shape
    facts: dict[str, Any] = {
        "pictures": f"{height}x{width} pixels (height x width), "
        + ("shades of grey" if channels == 1 else "colour")
    }
    if resized:
        facts["resized"] = "bilinear, whole pictures, whatever their aspect"
    greys = sum(one.grey for one in headers)
    if channels == 3 and greys:
        facts["turned into colour"] = f"{greys} pictures"
    if channels == 1 and greys < len(headers):
        facts["turned into grey"] = f"{len(headers) - greys} pictures"
    clear = sum(one.transparent for one in headers)
    if clear:
        facts["transparency"] = f"of {clear} pictures, left out"
    return facts
