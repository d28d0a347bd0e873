"""Train the cheapest committed results again, and say whether they agree with the committed ones.

`make verify`, or `python results/verify.py`, takes the runs of a recipe and a rule, with all their
seeds, as one cell; runs of plugins are left out. Of every recipe it takes the cell whose training
took the least time, and of these the three cheapest whose data is here. It trains every run again
from its `config.json`.

Two cells agree if the means of the test accuracy after the last epoch differ by no more than 4
standard errors of their difference, 4 s sqrt(2 / n) with n seeds. s is the sample standard
deviation of the committed seeds, and at least that of an accuracy p over N test samples,
sqrt(p (1 - p) / N). On the kind of machine that made a result, the same version gives the same
bits; elsewhere, rounding makes another training of the same kind.

The exit status is 1 if a cell does not agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from threefactor.errors import DataError
from threefactor.training import Run, Trainer, build
from threefactor.training.folder.data_record import describe_data

RESULTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Cell:
    """The committed runs of one recipe and one rule, which differ in nothing but the seed."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        """Time that training took, all runs together."""
        return sum(epoch["seconds"] for run in self.runs for epoch in run.metrics)

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy after the last epoch of each run."""
        return [run.metrics[-1]["test_accuracy"] for run in self.runs]

    def bound(self, samples: int) -> float:
        """By how much the means of two cells like this one may differ, given N test samples."""
        found = self.accuracies
        p = statistics.mean(found)
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        return 4 * max(spread, sqrt(p * (1 - p) / samples)) * sqrt(2 / len(found))


def cells(results: Path) -> list[Cell]:
    """Return the cheapest finished cell of every recipe, the cheapest first."""
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for file in sorted(results.glob("*/*/metrics.jsonl")):
        run = Run(file.parent)
        # Others need a checkpoint to begin with, or code that is no part of the library.
        if run.finished and run.settings.start is None and not run.own_code:
            settings = {**run.config["settings"], "seed": None}
            found[file.parent.parent.name, json.dumps(settings, sort_keys=True)].append(run)
    cheapest: dict[str, Cell] = {}
    for (recipe, _), runs in found.items():
        cell = Cell(f"{recipe}, {runs[0].settings.rule.name}", tuple(runs))
        if recipe not in cheapest or cell.seconds < cheapest[recipe].seconds:
            cheapest[recipe] = cell
    return sorted(cheapest.values(), key=lambda cell: cell.seconds)


def again(cell: Cell, data_dir: Path | None) -> tuple[list[float], int]:
    """Train every run of a cell again.

    Returns:
        The test accuracies after the last epoch, and the number of test samples.
    """
    accuracies = []
    for run in cell.runs:
        experiment = build(run.settings, data_dir)
        accuracies.append(Trainer(experiment).fit()[-1]["test_accuracy"])
    return accuracies, describe_data(experiment.data)["test"]


def verify(results: Path, count: int, data_dir: Path | None) -> Iterator[tuple[str, bool]]:
    """Train cells again.

    Yields:
        What is to be said of a cell, and whether it agrees; cells without data count as agreed.
    """
    for cell in cells(results):
        if not count:
            return
        try:
            found, samples = again(cell, data_dir)
        except DataError as problem:
            yield f"{cell.name}: skipped, {str(problem).splitlines()[0]}", True
            continue
        count -= 1
        committed, bound = cell.accuracies, cell.bound(samples)
        difference = statistics.mean(found) - statistics.mean(committed)
        agrees = abs(difference) <= bound
        same = ", every run to the last digit" if found == committed else ""
        yield (
            f"{cell.name}: committed {100 * statistics.mean(committed):.2f} %, "
            f"now {100 * statistics.mean(found):.2f} % ({len(found)} seeds), difference "
            f"{100 * difference:+.2f}, bound {100 * bound:.2f}: "
            f"{'agrees' if agrees else 'DOES NOT AGREE'}{same}",
            agrees,
        )
    if count:
        yield f"{count} more cells were asked for than there is data for", False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=3, help="how many cells to make again")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of committed runs")
    options = parser.parse_args(arguments)
    agree = True
    for text, good in verify(options.results, options.cells, options.data_dir):
        print(text, flush=True)
        agree = agree and good
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
