"""Figures 1 to 3 of SFDFA: a single neuron, without data and training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threefactor.analysis import gradient_field, hair_trigger_factors, neuron_trace
from threefactor.report.figures import Figure, Series
from threefactor.report.page import Section

__all__ = ["factor_curves", "field", "trace"]

TAU_S, THRESHOLD = 0.020, 0.010
STEPS = 40  # halvings of the interval in which the critical weight lies


def factor_curves() -> list[Section]:
    """Figure 1: the factor of the local gradient against the slope of the potential."""
    slopes = np.geomspace(0.01, 100.0, 200)
    found = hair_trigger_factors(slopes, tau_s=TAU_S, threshold=THRESHOLD)
    series = (
        Series("exact", found.slopes, found.exact),
        Series("modified", found.slopes, found.modified),
    )
    figure = Figure(
        "sfdfa-figure1",
        "Factor of the local gradient at a spike",
        f"Exact: the inverse of the slope. Modified: never above tau / theta = {found.bound:.3g}.",
        "slope of the potential at the threshold (1/s)",
        "factor (s)",
        series,
        log_x=True,
        log_y=True,
    )
    return [Section("Figure 1: the factor at a spike", figures=(figure,))]


def field() -> list[Section]:
    """Figure 2: the local gradient over the two weights of a neuron with four input spikes."""
    xs, ys, panels = _panels(12)
    arrows = tuple(
        Series(name, xs, ys, us=_directed(panel, 0), vs=_directed(panel, 1))
        for name, panel in panels.items()
    )
    xs, ys, panels = _panels(45)
    sizes = {name: np.linalg.norm(panel, axis=-1).ravel() for name, panel in panels.items()}
    lengths = tuple(
        Series(name, xs, ys, values=np.log10(np.maximum(size, 1e-6)).tolist())
        for name, size in sizes.items()
    )
    label, other = "weight of input 0", "weight of input 1"
    largest = ", ".join(f"{name} {size.max():.3g}" for name, size in sizes.items())
    return [
        Section(
            "Figure 2: field of gradients",
            (
                "The sum of dt/dw over the spikes of one neuron with two inputs and four input "
                f"spikes. Largest length, in seconds per weight: {largest}.",
            ),
            figures=(
                Figure("sfdfa-figure2", "Directions", _EQUAL, label, other, arrows, "quiver"),
                Figure(
                    "sfdfa-figure2-length",
                    "Length of the gradient",
                    "Decimal logarithm; -6 where the neuron is silent.",
                    label,
                    other,
                    lengths,
                    "heatmap",
                ),
            ),
        )
    ]


_EQUAL = "Arrows show the direction of descent of the spike times; all have one length."


def _panels(points: int) -> tuple[list[float], list[float], dict[str, NDArray[np.float64]]]:
    """Return the points of a grid of weights, with the exact and modified gradients there."""
    grid = np.linspace(-0.2, 2.0, points)
    found = gradient_field(grid, tau_s=TAU_S, threshold=THRESHOLD)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    panels = {"exact": np.array(found.exact), "modified": np.array(found.modified)}
    return first.ravel().tolist(), second.ravel().tolist(), panels


def _directed(gradients: NDArray[np.float64], axis: int) -> list[float]:
    """Return one component of arrows of length 1; 0 where the neuron is silent."""
    lengths = np.maximum(np.linalg.norm(gradients, axis=-1), np.finfo(np.float64).tiny)
    return (-gradients[..., axis] / lengths).ravel().tolist()  # type: ignore[no-any-return]


def _critical_weight() -> float:
    """Return a weight of both inputs at which the neuron's second spike only just happens."""
    low, high = 0.0, 4.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        count = len(neuron_trace([middle, middle], tau_s=TAU_S, threshold=THRESHOLD).spike_times)
        low, high = (middle, high) if count < 2 else (low, middle)
    return high


def trace() -> list[Section]:
    """Figure 3: potential, current, factor and local gradient of one neuron at a hair trigger."""
    weight = _critical_weight()
    found = neuron_trace([weight, weight], tau_s=TAU_S, threshold=THRESHOLD)
    milliseconds = [1000 * t for t in found.times]
    spikes = [1000 * t for t in found.spike_times]
    theta = [found.theta] * len(milliseconds)
    course = (
        Series("potential", milliseconds, found.potential),
        Series("current", milliseconds, found.current),
        Series("threshold", milliseconds, theta),
    )
    factors = (
        Series("exact", spikes, found.exact_factors),
        Series("modified", spikes, found.modified_factors),
    )
    gradients = tuple(
        Series(f"{kind}, input {i}", spikes, [abs(row[i]) for row in rows])
        for kind, rows in (
            ("exact", found.exact_gradients),
            ("modified", found.modified_gradients),
        )
        for i in range(2)
    )
    time = "time (ms)"
    return [
        Section(
            "Figure 3: a neuron in time",
            (f"Both weights are {weight:.6f}, at which the second spike only just happens.",),
            figures=(
                Figure("sfdfa-figure3-potential", "Potential", "", time, "potential", course),
                Figure(
                    "sfdfa-figure3-factor", "Factor", "", time, "factor (s)", factors, log_y=True
                ),
                Figure(
                    "sfdfa-figure3-gradient",
                    "Local gradient",
                    "Absolute values.",
                    time,
                    "|dt/dw| (s)",
                    gradients,
                    log_y=True,
                ),
            ),
        )
    ]
