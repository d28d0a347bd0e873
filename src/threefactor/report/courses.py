"""What was measured while networks trained (`tracked.jsonl`), as tables and figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threefactor.report.figures import Figure, Series
from threefactor.report.names import slug
from threefactor.report.page import Section
from threefactor.report.runs import ReportedRun
from threefactor.report.study import Group
from threefactor.report.values import Cell, Number, Table, spread
from threefactor.training.engines import engine_of

__all__ = ["tracked_sections"]

ABOUT = {
    "alignment": "Angle of each layer's gradient to that of backpropagation on the same batch and "
    "weights, mean over the batches in which there is one. Firing-rate regularisation is left out "
    "of both gradients unless stated. At 90 degrees they have nothing in common.",
    "feedback": "Feedback connections of the last hidden layer beside the output weights.",
    "firing": "Firing rates without dropout.",
}


@dataclass(frozen=True)
class Quantity:
    """A number of each layer in the lines of `tracked.jsonl`.

    Attributes:
        measure: name of the measure it belongs to.
        path: keys below the measure, down to the layers.
        key: of the number in the dict of a layer.
        name: for people.
        unit: for the axis; None for the unit of firing rates.
        digits: digits after the point in tables.
        drawn: whether to draw it.
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
    """One quantity of one layer during the training of the runs of a group.

    Attributes:
        quantity, layer: what was measured, and where.
        label: of the group.
        epochs: the moments.
        values: for each moment a number of each run, None where it is undefined.
        why: the reason why it is undefined, where it is so for the first time.
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
        return [None if None in one else statistics.fmean(_numbers(one)) for one in self.values]

    @property
    def deviations(self) -> list[float | None] | None:
        """Sample standard deviation over the runs, None where it is undefined; None for one run."""
        if len(self.values[0]) < 2:
            return None
        return [None if None in one else statistics.stdev(_numbers(one)) for one in self.values]


def tracked_sections(
    recipe: str, groups: Sequence[Group], measure: str | None = None
) -> list[Section]:
    """Return a section for each measure that some of the runs took during training.

    Args:
        recipe: name of the recipe.
        groups: its groups.
        measure: the only measure to show; None for all.
    """
    names = dict.fromkeys(one.measure for one in QUANTITIES)
    wanted = names if measure is None else [measure]
    return [found for name in wanted for found in _section(recipe, name, groups)]


def _section(recipe: str, measure: str, groups: Sequence[Group]) -> Iterator[Section]:
    quantities = [one for one in QUANTITIES if one.measure == measure]
    courses = [c for q in quantities for group in groups for c in _courses(group, q)]
    if not courses:
        return
    drawn = dict.fromkeys((c.quantity, c.layer) for c in courses if c.quantity.drawn)
    unit = engine_of(groups[0].runs[0].settings).rate_unit
    figures = [
        figure
        for quantity, layer in drawn
        for figure in _figure(
            recipe, unit, [c for c in courses if (c.quantity, c.layer) == (quantity, layer)]
        )
    ]
    title = f"{recipe}: {measure} while training"
    text = ABOUT[measure] if measure == "feedback" else f"{ABOUT[measure]} {_samples(groups)}"
    yield Section(title, (text,), (_table(recipe, measure, courses),), tuple(figures))


def _samples(groups: Sequence[Group]) -> str:
    numbers = {
        # In whole batches, as `Tracker.batches` cuts them.
        track.samples - track.samples % min(run.settings.batch_size, track.samples)
        for group in groups
        for run in group.runs
        if run.tracked and (track := run.settings.track) is not None
    }
    shown = " or ".join(map(str, sorted(numbers)))
    return f"Measured on the first {shown} test samples."


def _figure(recipe: str, unit: str, courses: Sequence[Course]) -> Iterator[Figure]:
    quantity, layer = courses[0].quantity, courses[0].layer
    series = [
        Series(one.label, one.epochs, one.means, one.deviations)
        for one in courses
        if any(mean is not None for mean in one.means)
    ]
    if not series:
        return
    captions = []
    if any(len(one.values[0]) > 1 for one in courses):
        captions.append("Mean over the seeds; the band is ± one standard deviation.")
    if any(None in one.ys for one in series):
        captions.append("Gaps: undefined, see the notes of the table.")
    yield Figure(
        slug(" ".join([recipe, quantity.measure, *quantity.path, layer])),
        f"{recipe}: {quantity.name}, {layer}",
        " ".join(captions),
        "epoch",
        unit if quantity.unit is None else quantity.unit,
        tuple(series),
    )


def _table(recipe: str, measure: str, courses: Sequence[Course]) -> Table:
    """Show the last moment with a row for each rule and layer."""
    quantities = list(dict.fromkeys(one.quantity for one in courses))
    rows: dict[tuple[str, str], dict[Quantity, Course]] = {}
    for one in courses:
        rows.setdefault((one.label, one.layer), {})[one.quantity] = one
    body = tuple(
        (
            f"{label}, {layer}",
            Number(next(iter(found.values())).epochs[-1], digits=None),
            *(_last(found.get(quantity)) for quantity in quantities),
        )
        for (label, layer), found in rows.items()
    )
    columns = ("rule, layer", "epoch", *(_heading(one) for one in quantities))
    title = f"{recipe}: {measure} at the last moment"
    return Table(title, columns, body, tuple(_gaps(courses)))


def _heading(quantity: Quantity) -> str:
    return f"{quantity.name}, °" if quantity.unit == "degrees" else quantity.name


def _last(course: Course | None) -> Cell:
    if course is None or None in course.values[-1]:
        return None
    return spread(_numbers(course.values[-1]), course.quantity.digits)


def _gaps(courses: Sequence[Course]) -> Iterator[str]:
    """Say where there is no number, and why, in one line for layers with the same gaps."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in courses:
        gaps = [e for e, mean in zip(one.epochs, one.means, strict=True) if mean is None]
        if gaps:
            where = f"{len(gaps)} of {len(one.epochs)} moments, first at epoch {gaps[0]:.4g}"
            found.setdefault((one.label, f"{where}: {one.why}"), []).append(one.layer)
    for (label, where), layers in found.items():
        yield f"{label}, {', '.join(dict.fromkeys(layers))}: undefined at {where}."


def _courses(group: Group, quantity: Quantity) -> Iterator[Course]:
    """Give the course of a quantity in every layer over the runs that measured it."""
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


def _moments(runs: Sequence[ReportedRun]) -> Iterator[list[Mapping[str, Any]]]:
    """Give the lines of all runs for each moment that all of them have."""
    by_batch = [{line["batches"]: line for line in run.tracked} for run in runs]
    for batches in by_batch[0] if by_batch else ():
        if all(batches in one for one in by_batch):
            yield [one[batches] for one in by_batch]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
