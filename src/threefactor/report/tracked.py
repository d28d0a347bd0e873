"""What was measured while networks trained (`tracked.jsonl`), as tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from threefactor.report.courses import QUANTITIES, Course, Quantity, courses_of, numbers
from threefactor.report.figures import Figure, Series
from threefactor.report.grouping import Group
from threefactor.report.naming import slug
from threefactor.report.page import Section
from threefactor.report.values import Cell, Number, Table, spread
from threefactor.training.engines import engine_of

__all__ = ["tracked_sections"]


ABOUT = {
    "alignment": "Angle of each layer's gradient to that of backpropagation on the same batch and "
    "weights, mean over the batches in which there is one. Firing-rate regularisation is left out "
    "of both unless it is said. 90 degrees: nothing in common.",
    "feedback": "Feedback connections of the last hidden layer beside the output weights.",
    "firing": "Firing rates on the samples that were measured on, dropout off.",
}


def tracked_sections(
    recipe: str, groups: Sequence[Group], measure: str | None = None
) -> list[Section]:
    """Return a section for each measure that some of the runs have.

    Args:
        recipe: name of the recipe.
        groups: its groups.
        measure: the one that is wanted; None for all.
    """
    names = dict.fromkeys(one.measure for one in QUANTITIES)
    wanted = names if measure is None else [measure]
    return [found for name in wanted for found in _section(recipe, name, groups)]


def _section(recipe: str, measure: str, groups: Sequence[Group]) -> Iterator[Section]:
    quantities = [one for one in QUANTITIES if one.measure == measure]
    courses = [c for q in quantities for group in groups for c in courses_of(group, q)]
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
    tracks = [run.settings.track for group in groups for run in group.runs if run.tracked]
    numbers = sorted({track.samples for track in tracks if track is not None})
    return f"Measured on the first {' or '.join(map(str, numbers))} test samples."


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
    """Show the last moment: a row for each rule and layer."""
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
    return spread(numbers(course.values[-1]), course.quantity.digits)


def _gaps(courses: Sequence[Course]) -> Iterator[str]:
    """Say where there is no number, and why; layers that have the same gaps at once."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in courses:
        gaps = [e for e, mean in zip(one.epochs, one.means, strict=True) if mean is None]
        if gaps:
            where = f"{len(gaps)} of {len(one.epochs)} moments, first at epoch {gaps[0]:.4g}"
            found.setdefault((one.label, f"{where}: {one.why}"), []).append(one.layer)
    for (label, where), layers in found.items():
        yield f"{label}, {', '.join(dict.fromkeys(layers))}: undefined at {where}."
