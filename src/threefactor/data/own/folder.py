"""Which samples a folder of classes holds, and which part of a split each belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch

from threefactor.data.files.source import Source, listed
from threefactor.data.files.tree import files_below
from threefactor.data.samples.labelled import held_out
from threefactor.errors import ConfigurationError, DataError
from threefactor.readable import clipped

__all__ = [
    "PARTS",
    "Listing",
    "Sample",
    "Split",
    "check_classes",
    "list_folder",
    "list_unsplit",
    "named",
    "part_names",
]

PARTS = ("train", "validation", "test")
MOST_NAMED = 5
LONGEST_LIST = 64 << 20  # bytes of a file that lists samples


def part_names(
    train: str, validation: str, test: str, share: float | None, seed: int
) -> dict[str, str]:
    """Return the name of each part, by the part.

    Args:
        train, validation, test: as given.
        share: of the samples that is chosen for testing; None for none.
        seed: of that choice.

    Raises:
        ConfigurationError: if two parts are the same, or the seed has no effect.
    """
    names = dict(zip(PARTS, (train, validation, test), strict=True))
    if len({os.path.normpath(name) for name in names.values()}) < len(names):
        raise ConfigurationError(
            f"train_part, validation_part and test_part are {named(names.values())}; give each "
            "another name: what a network is trained or chosen by cannot test it"
        )
    if seed and share is None:
        raise ConfigurationError(
            f"split_seed is {seed} and test_share null, so nothing is chosen at random; give both "
            "or none"
        )
    return names


class Sample(NamedTuple):
    """A file and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Split:
    """How samples are divided into parts.

    Attributes:
        train, validation, test: of each part its folder, or a text file that lists its samples.
        test_share: of the samples, chosen at random from each class; None for none.
        seed: of that choice.

    Raises:
        ConfigurationError: see `part_names`.
    """

    train: str = "train"
    validation: str = "validation"
    test: str = "test"
    test_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        part_names(self.train, self.validation, self.test, self.test_share, self.seed)

    def name(self, part: str) -> str:
        """Return the folder or list of a part."""
        return str(getattr(self, part))


@dataclass(frozen=True)
class Listing:
    """The samples of a folder.

    Attributes:
        classes: names, in the order of the labels.
        parts: the samples of each part that is there.
        split: how it was split, in words.
        passed_over: files that are no samples by their names.
        unlabelled: samples that lie in no folder of a class.
        empty: folders of classes without samples.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Sample]]
    split: str
    passed_over: Sequence[str] = ()
    unlabelled: Sequence[str] = ()
    empty: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of samples of each class in each part."""
        found = {part: dict.fromkeys(self.classes, 0) for part in self.parts}
        for part, samples in self.parts.items():
            for sample in samples:
                found[part][self.classes[sample.label]] += 1
        return found


def list_folder(folder: Path, endings: Sequence[str], split: Split, what: str) -> Listing:
    """List the samples of a folder of classes, and divide them.

    The classes are the names of its folders, in alphabetical order; so are the labels. If it has
    folders for training and testing, classes are in these.

    Args:
        folder: of the data.
        endings: of the names of samples, in small letters.
        split: how to divide them.
        what: samples are, for messages.

    Raises:
        ConfigurationError: if nothing says how to divide them.
        DataError: if the folder cannot be read, or has no classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder of {what} as --set data.path=PATH")
    there = {part: (folder / split.name(part)).is_dir() for part in PARTS}
    if there["train"]:
        return _by_folders(folder, endings, split, there, what)
    classes, found = _classes(folder, endings, what)
    lists = {part: folder / split.name(part) for part in PARTS}
    lists = {part: path for part, path in lists.items() if path.is_file()}
    if lists:
        return _by_lists(folder, found, classes, lists, split)
    if split.test_share is None:
        raise ConfigurationError(
            f"{folder} holds the classes {named(classes)} and no folders "
            f"{split.train!r} and {split.test!r}, so nothing says which samples are for testing; "
            "give a share, as --set test_share=0.2, or a text file in it that lists them, a line "
            "each, as --set test_part=test.txt"
        )
    return _by_share(found, classes, split)


def list_unsplit(folder: Path, endings: Sequence[str], what: str) -> Listing:
    """List the samples of a folder of classes as one part, "all"; see `list_folder`.

    Raises:
        DataError: if the folder cannot be read, or has no classes.
    """
    classes, found = _classes(folder, endings, what)
    samples = [Sample(path, n) for n, name in enumerate(classes) for path in found.by_class[name]]
    return Listing(
        tuple(classes),
        {"all": samples},
        "not split",
        found.passed_over,
        found.unlabelled,
        found.empty,
    )


def _by_folders(
    folder: Path, endings: Sequence[str], split: Split, there: Mapping[str, bool], what: str
) -> Listing:
    if split.test_share is not None:
        raise ConfigurationError(
            f"{folder} has a folder {split.train!r}, and test_share is {split.test_share:g}; leave "
            "test_share out, or give the folder that holds the classes as data.path"
        )
    if not there["test"]:
        others = [path.name for path in listed(folder) if path.is_dir()]
        raise ConfigurationError(
            f"{folder} has a folder {split.train!r} for training and no {split.test!r} for testing "
            f"(its folders: {named(others)}); name it, as --set test_part=val"
        )
    parts = {
        part: _classes(folder / split.name(part), endings, what) for part in PARTS if there[part]
    }
    classes = sorted({name for names, _ in parts.values() for name in names})
    numbers = {name: number for number, name in enumerate(classes)}
    samples = {
        part: _in_turn([[Sample(p, numbers[n]) for p in found.by_class.get(n, ())] for n in names])
        for part, (names, found) in parts.items()
    }
    outside = [
        path.name
        for path in listed(folder)
        if path.name not in {split.name(part) for part in parts}
    ]
    return Listing(
        tuple(classes),
        samples,
        f"by the folders {', '.join(split.name(part) for part in parts)}",
        [*outside, *(path for _, found in parts.values() for path in found.passed_over)],
        [path for _, found in parts.values() for path in found.unlabelled],
        [path for _, found in parts.values() for path in found.empty],
    )


def _by_lists(
    folder: Path,
    found: _Found,
    classes: list[str],
    lists: Mapping[str, Path],
    split: Split,
) -> Listing:
    if split.test_share is not None or "test" not in lists:
        raise ConfigurationError(
            f"{folder} has the list{'s' * (len(lists) > 1)} "
            f"{', '.join(path.name for path in lists.values())}, and test_share is "
            f"{split.test_share}; give a list of the samples for testing as test_part, and no share"
        )
    labels = {
        os.path.relpath(path, folder).replace(os.sep, "/"): Sample(path, label)
        for label, name in enumerate(classes)
        for path in found.by_class[name]
    }
    owner: dict[str, str] = {}
    for part, path in lists.items():
        lines = Source(path).read(LONGEST_LIST).decode("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            name = line.strip().replace("\\", "/").removeprefix("./")
            if not name or name.startswith("#"):
                continue
            if name not in labels:
                raise DataError(
                    f"line {number} of {path} names {clipped(name)}, which is no sample in "
                    f"{folder}; give paths from there, as {next(iter(labels))!r}"
                )
            if owner.setdefault(name, part) != part:
                raise DataError(
                    f"line {number} of {path} names {clipped(name)}, which is listed for "
                    f"{owner[name]}, too; give each sample to one part"
                )
    parts: dict[str, list[Sample]] = {
        part: [] for part in PARTS if part in lists or part == "train"
    }
    rest = 0
    for name, sample in labels.items():
        if name not in owner and "train" in lists:
            rest += 1
        else:
            parts[owner.get(name, "train")].append(sample)
    said = f"by the lists {', '.join(path.name for path in lists.values())}"
    said += f"; {rest} samples are in none of them" if rest else ""
    said += "" if "train" in lists else "; all others are for training"
    groups = {
        part: _in_turn([[s for s in samples if s.label == n] for n in range(len(classes))])
        for part, samples in parts.items()
    }
    return Listing(tuple(classes), groups, said, found.passed_over, found.unlabelled, found.empty)


def _by_share(found: _Found, classes: list[str], split: Split) -> Listing:
    assert split.test_share is not None
    samples = [Sample(path, n) for n, name in enumerate(classes) for path in found.by_class[name]]
    labels = torch.tensor([sample.label for sample in samples])
    kept, held = held_out(labels, split.test_share, split.seed)
    parts = {
        part: _in_turn(
            [
                [samples[i] for i in index.tolist() if samples[i].label == n]
                for n in range(len(classes))
            ]
        )
        for part, index in (("train", kept), ("test", held))
    }
    said = f"a share of {split.test_share:g} of each class for testing, seed {split.seed}"
    return Listing(tuple(classes), parts, said, found.passed_over, found.unlabelled, found.empty)


class _Found(NamedTuple):
    by_class: dict[str, list[str]]
    passed_over: list[str]
    unlabelled: list[str]
    empty: list[str]


def _classes(folder: Path, endings: Sequence[str], what: str) -> tuple[list[str], _Found]:
    """Return the names of the classes in a folder, and their files."""
    names = [path.name for path in listed(folder) if path.is_dir()]
    loose = [str(path) for path in listed(folder) if not path.is_dir()]
    if not names:
        raise DataError(
            f"{folder} holds {len(loose)} files and no folders of classes; put the {what} of each "
            "class into a folder of its name"
        )
    found = _Found({}, [], [], [])
    for name in names:
        below = files_below(folder / name)
        for path in below:
            ours = found.by_class.setdefault(name, [])
            (ours if path.lower().endswith(tuple(endings)) else found.passed_over).append(path)
        if not found.by_class.setdefault(name, []):
            found.empty.append(str(folder / name))
    for path in loose:
        labelless = path.lower().endswith(tuple(endings))
        (found.unlabelled if labelless else found.passed_over).append(path)
    return names, found


def check_classes(listing: Listing, folder: Path, what: str) -> None:
    """Refuse samples of which no classifier can be learned, or that nobody has labelled.

    Raises:
        DataError: names the files or classes, and says what to do.
    """
    if listing.unlabelled:
        raise DataError(
            f"{len(listing.unlabelled)} {what} in {folder} lie in no folder of a class: "
            f"{named(listing.unlabelled)}; move each into the folder of its class"
        )
    if listing.empty:
        raise DataError(
            f"{named(listing.empty)} hold{'s' * (len(listing.empty) == 1)} no {what}; put those of "
            "the class there, or remove the folder"
        )
    if len(listing.classes) < 2:
        raise DataError(
            f"{folder} holds one class only, {named(listing.classes)}; give two at least, a folder "
            "each"
        )
    counts = listing.counts
    missing = [name for name, count in counts["train"].items() if not count]
    if missing:
        raise DataError(
            f"{folder} has no {what} for training of the class{'es' * (len(missing) > 1)} "
            f"{named(missing)}, which no network can learn; add some, or remove "
            f"{'these classes' if len(missing) > 1 else 'it'} from the other parts"
        )
    if not any(counts["test"].values()):
        raise DataError(f"{folder} has no {what} for testing; give some")


def named(names: Iterable[str]) -> str:
    """Return the first of some names, and how many more there are."""
    known = list(names)
    shown = ", ".join(clipped(name) for name in known[:MOST_NAMED])
    return shown + (f", and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else "")


def _in_turn(classes: list[list[Sample]]) -> list[Sample]:
    """Return one sample of each class after the other, so that the first ones are balanced."""
    return [one for row in zip_longest(*classes) for one in row if one is not None]
