"""Folders of image files, with a folder for each class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from threefactor.data.arguments import check_dtype, check_whole, given_path
from threefactor.data.encode.pictures import ImageSettings
from threefactor.data.files.tree import files_below
from threefactor.data.samples.image_files import MOST_THREADS, ImageFiles, usual_threads
from threefactor.data.samples.labelled import LabelledData
from threefactor.errors import DataError, InputError

__all__ = ["ENDINGS", "ImageFolderData", "load_image_folder"]

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
LAYOUT = "expected a folder for each class that holds its images, as train/CLASS/NAME.JPEG"
FLAT = (
    "Move each image into the folder of its class, as for training. For ImageNet's val/ the script "
    "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh does so. Do "
    "not number classes by a text file: those of the development kit are in another order than "
    "the folders"
)


@dataclass(frozen=True, eq=False)
class ImageFolderData(LabelledData[ImageFiles]):
    """A data set of image files, which are read batch by batch.

    Args:
        train_images, test_images: N files, of which an index gives (B, 3, H, W).
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: the names of the folders, in alphabetical order.
        name: the key of the set in `DATASETS`, or what `load_image_folder` was given.
        mean, std: of each channel, as in the settings.
    """

    inputs: ClassVar[str] = "images"
    train_images: ImageFiles
    train_labels: Tensor
    test_images: ImageFiles
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, H, W) of one image."""
        return self.train_images.sample_shape


def load_image_folder(
    folder: str | Path,
    settings: ImageSettings | None = None,
    *,
    train: str = "train",
    test: str = "val",
    normalise: bool = True,
    dtype: torch.dtype = torch.float32,
    threads: int | None = None,
    name: str | None = None,
) -> ImageFolderData:
    """List the image files of a folder, which are read when batches are taken.

    The folder holds FOLDER/train/CLASS/NAME.jpg and FOLDER/val/CLASS/NAME.jpg; further folders
    within those of classes are searched as well. Names that begin with a dot, and files that do
    not end as images do, are skipped. Samples come in the order of their names, one of each class
    after the other, so that `subset` is balanced.

    Args:
        folder: the folder of the set.
        settings: how pictures become images; by default as usual with ImageNet.
        train, test: the folders in it.
        normalise: subtract the channels' means and divide by their deviations, which the settings
            give; otherwise pixels are only scaled to 0..1.
        dtype: of the batches: torch.float16, bfloat16, float32 or float64.
        threads: how many read files; by default one for each core, 16 at most.
        name: of the set; by default the folder's.

    Raises:
        ConfigurationError: Pillow is not installed; the extra `threefactor[images]` installs it.
        DataError: a folder is absent, may not be read, has no images, or is met twice by way of
            links; a class has no images, or is in one part only.
            A damaged file is an error when it is read.
        InputError: `dtype` is not one of these, or `threads` is not a whole number of at least 1.
    """
    check_dtype(dtype)
    if threads is None:
        threads = usual_threads()
    check_whole("threads", threads, 1, MOST_THREADS)
    folder, settings = given_path(folder), settings or ImageSettings()
    if not isinstance(settings, ImageSettings):
        raise InputError(f"settings are a {type(settings).__name__}; give ImageSettings")
    training, testing = folder / given_path(train), folder / given_path(test)
    classes, others = _classes(training), _classes(testing)
    if others != classes:
        raise _other_classes(training, classes, testing, others)
    train_paths, train_labels = _in_turn([_images(training / each) for each in classes])
    test_paths, test_labels = _in_turn([_images(testing / each) for each in classes])
    files = partial(
        ImageFiles,
        settings=settings,
        normalise=normalise,
        dtype=dtype,
        threads=threads,
    )
    return ImageFolderData(
        train_images=files(train_paths, training=True),
        train_labels=train_labels,
        test_images=files(test_paths, training=False),
        test_labels=test_labels,
        classes=tuple(classes),
        name=folder.name if name is None else name,
        mean=settings.mean,
        std=settings.std,
    )


def _classes(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in order."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted(entry.name for entry in seen if entry.is_dir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{folder} cannot be read ({reason}); check the path and rights; {LAYOUT}"
        ) from error
    if not names:
        images = sum(_is_image(entry.name) for entry in seen)
        archives = sum(entry.name.endswith(".tar") for entry in seen)
        advice = f". {FLAT}" if images else ". Unpack the archives" if archives else ""
        raise DataError(
            f"{folder} holds {images} images and {archives} .tar archives but no folders of "
            f"classes; {LAYOUT}{advice}"
        )
    return names


def _other_classes(train: Path, there: list[str], test: Path, here: list[str]) -> DataError:
    faults = [
        f"{folder} has {', '.join(more[:5])}{', ...' if len(more) > 5 else ''}, which {other} lacks"
        for folder, names, other, others in ((test, here, train, there), (train, there, test, here))
        if (more := sorted(set(names) - set(others)))
    ]
    return DataError(
        f"{'; '.join(faults)}; expected folders of the same classes in both: complete or remove "
        "these"
    )


def _images(folder: Path) -> list[str]:
    """Return the paths of all images below a folder, in order; links to folders are followed."""
    found = [path for path in files_below(folder) if _is_image(os.path.basename(path))]
    if not found:
        raise DataError(
            f"{folder} holds no images ({', '.join(ENDINGS)}); put those of this class there, or "
            "remove the folder"
        )
    return found


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _in_turn(classes: list[list[str]]) -> tuple[list[str], Tensor]:
    """Return one path of each class after the other, and their labels."""
    samples = [
        (path, label)
        for row in zip_longest(*classes)
        for label, path in enumerate(row)
        if path is not None
    ]
    return [path for path, _ in samples], torch.tensor([label for _, label in samples])
