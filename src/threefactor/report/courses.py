"""What was measured while networks trained, quantity by quantity, over the runs of a group."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threefactor.report.grouping import Group
from threefactor.report.runs import Run

__all__ = ["QUANTITIES", "Course", "Quantity", "courses_of", "numbers"]


@dataclass(frozen=True)
class Quantity:
    """A number per layer in the lines of `tracked.jsonl`.

    Attributes:
        measure: its measure; path: the keys below it; key: of the number in a layer's dict.
        name: for people; unit: on the axis, None for that of firing rates.
        digits: shown in tables.
        drawn: whether there are figures of it.
    """

    measure: str
    path: tuple[str, ...]
    key: str
    name: str
    unit: str | None
    digits: int
    drawn: bool = True

    def layers(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the dicts of the layers; none where the line does not have the measure."""
        place: Any = line.get(self.measure, {})
        for part in self.path:
            place = place.get(part, {})
        return place  # type: ignore[no-any-return]


_MODIFIED = "angle to BP by the modified local gradient"
QUANTITIES = (
    Quantity("alignment", ("bp",), "angle", "angle to BP", "degrees", 1),
    Quantity("alignment", ("modified_bp",), "angle", _MODIFIED, "degrees", 1),
    Quantity(
        "alignment",
        ("bp_with_rates",),
        "angle",
        "to BP, with the rate penalty",
        "degrees",
        1,
        False,
    ),
    Quantity("feedback", (), "angle", "angle of feedback and output weights", "degrees", 1),
    Quantity("feedback", (), "cosine", "cosine of them", "", 3, False),
    Quantity("firing", (), "rate", "firing rate", None, 4),
)


@dataclass(frozen=True)
class Course:
    """One quantity of one layer, over the training of the runs of a group.

    `values` has for each moment one number per run, None where it is undefined; `why`: the first
    time that it is.
    """

    quantity: Quantity
    label: str
    layer: str
    epochs: tuple[float, ...]
    values: tuple[tuple[float | None, ...], ...]
    why: str

    @property
    def means(self) -> list[float | None]:
        """Mean over the runs; None where it is undefined in one of them."""
        return [None if None in one else statistics.fmean(numbers(one)) for one in self.values]

    @property
    def deviations(self) -> list[float | None] | None:
        """Sample standard deviation over the runs, None where there is no mean; or of one run."""
        if len(self.values[0]) < 2:
            return None
        return [None if None in one else statistics.stdev(numbers(one)) for one in self.values]


def courses_of(group: Group, quantity: Quantity) -> Iterator[Course]:
    """Give the course of a quantity in every layer, of the runs that have it."""
    runs = [run for run in group.runs if run.tracked and quantity.layers(run.tracked[0])]
    moments = list(_moments(runs))
    if not moments:
        return
    for layer in quantity.layers(moments[0][0]):
        entries = [[quantity.layers(line)[layer] for line in lines] for lines in moments]
        values = tuple(tuple(entry[quantity.key] for entry in one) for one in entries)
        gaps = [entry for one in entries for entry in one if entry[quantity.key] is None]
        why = gaps[0]["note"].partition(": ")[2] if gaps else ""
        epochs = tuple(float(lines[0]["epoch"]) for lines in moments)
        yield Course(quantity, group.label, layer, epochs, values, why)


def _moments(runs: Sequence[Run]) -> Iterator[list[Mapping[str, Any]]]:
    """Give the lines of all runs for each moment that all of them have."""
    by_batch = [{line["batches"]: line for line in run.tracked} for run in runs]
    for batches in by_batch[0] if by_batch else ():
        if all(batches in one for one in by_batch):
            yield [one[batches] for one in by_batch]


def numbers(values: Sequence[float | None]) -> list[float]:
    """Return what is there."""
    return [value for value in values if value is not None]
