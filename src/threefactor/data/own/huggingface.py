"""Pictures in folders that `save_to_disk` of Hugging Face's library datasets wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from threefactor.data.own.folder import Listing, Sample, check_classes, named, part_names
from threefactor.data.own.images import WHAT, of_pictures
from threefactor.data.own.made import place_of
from threefactor.data.samples.image_files import Header, header, opened
from threefactor.data.samples.labelled import held_out
from threefactor.data.samples.own import OwnData
from threefactor.errors import ConfigurationError, DataError

__all__ = ["FILES", "Rows", "huggingface", "read_rows"]

FILES = ("dataset_dict.json", "dataset_info.json")
"""One of these lies in such a folder."""


@dataclass(frozen=True)
class Rows:
    """The pictures of a folder, still as files in memory.

    Attributes:
        listing: names of the samples, as "train[12]", and their labels.
        bodies: the file of each, by its name.
    """

    listing: Listing
    bodies: Mapping[str, bytes]

    def head(self, name: str) -> Header:
        """Read the size and colours of a picture."""
        return header(name, self.bodies[name])

    def decoded(self, name: str, mode: str) -> Any:
        """Read a picture whole."""
        return opened(name, mode, self.bodies[name])


def huggingface(
    *,
    path: str = "",
    image_key: str = "image",
    label_key: str = "label",
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
) -> OwnData:
    """Load pictures with class labels from a folder that `save_to_disk` wrote.

    Pictures lie in a column of the type `Image`, their files in the table itself. Nothing is
    downloaded.

    Args:
        path: the folder; below `data_dir`, if that is given and the path is relative.
        image_key, label_key: names of the columns.
        train_part, validation_part, test_part: names of the splits of a `DatasetDict`.
        test_share: share of each class that is chosen at random for testing, if there is no split
            for it.
        split_seed: of that choice.
        size, colour, normalise: see `images`.
        data_dir, steps, dtype, window: see `images`.

    Raises:
        ConfigurationError: the libraries datasets or Pillow are not installed, or nothing says how
            to split.
        DataError: the folder or a picture cannot be read, a column is missing or of another type,
            or a sample has no label.
    """
    folder = place_of(path, data_dir, "huggingface")
    names = part_names(train_part, validation_part, test_part, test_share, split_seed)
    rows = read_rows(folder, image_key, label_key, names, test_share, split_seed)
    if "test" not in rows.listing.parts:
        raise ConfigurationError(
            f"{folder} has no split {test_part!r}; name it, as --set test_part=NAME, or give a "
            "share, as --set test_share=0.2"
        )
    check_classes(rows.listing, folder, WHAT)
    options = {"size": size, "colour": colour, "normalise": normalise}
    return of_pictures(
        "huggingface", folder, rows.listing, rows.head, rows.decoded, options, steps, dtype, window
    )


def read_rows(
    folder: Path,
    image_key: str,
    label_key: str,
    names: Mapping[str, str],
    share: float | None,
    seed: int,
) -> Rows:
    """Read the tables of a folder; without a split for testing and a share, all is for training.

    Raises:
        ConfigurationError: the library datasets is not installed, or a share is given beside a
            split for testing.
        DataError: see `huggingface`.
    """
    tables = _tables(folder, names)
    parts: dict[str, list[Sample]] = {}
    bodies: dict[str, bytes] = {}
    known: dict[str, tuple[str, ...]] = {}
    for part, table in tables.items():
        known[part], labels = _labels(folder, names[part], table, label_key)
        if known[part] != known["train"]:
            raise DataError(
                f"{folder} has other classes in {names[part]!r} ({named(known[part])}) than in "
                f"{names['train']!r} ({named(known['train'])}); give all splits the same"
            )
        parts[part] = []
        pictures = _pictures(folder, names[part], table, image_key)
        for number, (body, label) in enumerate(zip(pictures, labels, strict=True)):
            name = f"{folder}, {names[part]}[{number}]"
            bodies[name] = body
            parts[part].append(Sample(name, label))
    largest = max((one.label for each in parts.values() for one in each), default=-1)
    classes = known["train"] or tuple(map(str, range(largest + 1)))
    split = f"by the splits {', '.join(names[part] for part in parts)}"
    if "test" in parts and share is not None:
        raise ConfigurationError(
            f"{folder} has a split for testing, and test_share is {share:g}; leave it out"
        )
    if share is not None:
        every = parts["train"]
        kept, held = held_out(torch.tensor([one.label for one in every]), share, seed)
        parts["train"] = [every[n] for n in kept.tolist()]
        parts["test"] = [every[n] for n in held.tolist()]
        split = f"a share of {share:g} of each class for testing, seed {seed}"
    return Rows(Listing(classes, parts, split), bodies)


def _tables(folder: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the table of each part."""
    try:
        import datasets
    except ImportError as problem:
        raise ConfigurationError(
            f"{folder} needs Hugging Face's library datasets; install it with: pip install "
            "'threefactor[huggingface]'"
        ) from problem
    if not any((folder / name).is_file() for name in FILES):
        raise DataError(
            f"{folder} has no {' and no '.join(FILES)}, one of which save_to_disk of the library "
            "datasets writes; give the folder that it made"
        )
    try:
        found: Any = datasets.load_from_disk(str(folder))
    except Exception as problem:  # the library fails in many ways at damaged files
        raise DataError(
            f"{folder} cannot be read by the library datasets ({type(problem).__name__}: "
            f"{str(problem)[:200]}); save it again with save_to_disk"
        ) from problem
    if not isinstance(found, Mapping):
        return {"train": found}
    tables = {part: found[name] for part, name in names.items() if name in found}
    if "train" not in tables:
        raise DataError(
            f"{folder} has the splits {named(map(str, found))}, and not {names['train']!r}; name "
            "that for training, as --set train_part=NAME"
        )
    return tables


def _column(folder: Path, part: str, table: Any, key: str, option: str) -> Any:
    if key not in table.features:
        told = (f"{name} ({_kind(one)})" for name, one in table.features.items())
        raise DataError(
            f"{folder}, {part}, has the columns {', '.join(told)}, and no {key!r}; name it, as "
            f"--set {option}=NAME"
        )
    return table.features[key]


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def _labels(folder: Path, part: str, table: Any, key: str) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of the classes, none if they are numbers, and the label of each row."""
    import datasets

    feature = _column(folder, part, table, key, "label_key")
    where, kind = f"{folder}, {part}, column {key!r}", _kind(feature)
    if not (isinstance(feature, datasets.Value) and kind.startswith(("int", "uint"))) and not (
        isinstance(feature, datasets.ClassLabel)
    ):
        advice = f"make them class labels: dataset.class_encode_column({key!r}).save_to_disk(...)"
        raise DataError(f"{where}, holds {kind}, and classes are meant; {advice}")
    labels = list(table.with_format(None)[key])
    wrong = [n for n, one in enumerate(labels) if one is None or one < 0]
    if wrong:
        raise DataError(
            f"{where}, has no label in {len(wrong)} rows, as {labels[wrong[0]]} in row {wrong[0]}; "
            "leave these out: dataset.filter(...)"
        )
    if isinstance(feature, datasets.ClassLabel):
        return tuple(map(str, feature.names)), labels
    return (), labels


def _pictures(folder: Path, part: str, table: Any, key: str) -> list[bytes]:
    """Return the files of the pictures, none of which is looked for elsewhere."""
    import datasets

    feature = _column(folder, part, table, key, "image_key")
    where = f"{folder}, {part}, column {key!r}"
    if not isinstance(feature, datasets.Image):
        raise DataError(
            f"{where}, holds {_kind(feature)} and no pictures; name the column of pictures, as "
            f"--set image_key=NAME, or make it one: dataset.cast_column({key!r}, datasets.Image())"
        )
    plain = table.with_format(None).cast_column(key, datasets.Image(decode=False))
    found: list[Any] = [row["bytes"] if row is not None else None for row in plain[key]]
    absent = [n for n, body in enumerate(found) if not body]
    if absent:
        raise DataError(
            f"{where}, has no picture in {len(absent)} rows, as in row {absent[0]}, but nothing or "
            "the name of a file elsewhere; save the pictures themselves, with "
            "dataset.map(lambda row: row) before save_to_disk"
        )
    return found
