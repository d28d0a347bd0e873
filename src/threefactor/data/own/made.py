"""One's own data, put together of its parts, with what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from threefactor.data.arguments import given_path
from threefactor.data.own.folder import Listing, named
from threefactor.data.samples.own import OwnData
from threefactor.errors import ConfigurationError

__all__ = ["labelled", "place_of"]


def place_of(path: str, data_dir: Path | None, name: str) -> Path:
    """Return where the data lies: a relative path below the data folder, if one was given.

    Raises:
        ConfigurationError: if there is no path.
    """
    if not path:
        raise ConfigurationError(
            f"data {name!r} has no path; give it, as --data {name}:PATH or --set data.path=PATH"
        )
    place = given_path(path)
    return place if data_dir is None else given_path(data_dir) / place


def labelled(
    name: str,
    folder: Path,
    listing: Listing,
    inputs: Mapping[str, Any],
    shape: tuple[int, ...],
    facts: Mapping[str, Any],
    steps: int | None = None,
) -> OwnData:
    """Put together the samples of a folder of classes.

    Args:
        name: of this kind of data.
        folder: where it lies.
        listing: its samples.
        inputs: those of each part.
        shape: of one sample at one time step.
        facts: what else was found, in words.
        steps: T, if samples are sequences.
    """
    labels = {
        part: torch.tensor([sample.label for sample in samples], dtype=torch.int64)
        for part, samples in listing.parts.items()
    }
    found: dict[str, Any] = {"path": str(folder), "split": listing.split}
    found["samples"] = listing.counts
    found.update(facts)
    absent = [name for name, count in listing.counts["test"].items() if not count]
    if absent:
        found["not tested"] = f"the classes {named(absent)}: no samples of them are for testing"
    if listing.passed_over:
        found["passed over"] = (
            f"{len(listing.passed_over)} files that are none by their names: "
            f"{named(listing.passed_over)}"
        )
    held = None
    if len(labels.get("validation", ())):
        held = inputs["validation"], labels["validation"]
    return OwnData(
        train_samples=inputs["train"],
        train_labels=labels["train"],
        test_samples=inputs["test"],
        test_labels=labels["test"],
        name=name,
        input_shape=shape,
        output_count=len(listing.classes),
        classes=listing.classes,
        steps=steps,
        validation=held,
        found=found,
    )
