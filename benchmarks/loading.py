"""Time of taking a batch from a data set, beside the training step that uses it.

    python benchmarks/loading.py [--data-dir DIR] [--json FILE]

For every recipe whose data you have, the script takes batches in the order of training, augmented
as in training. It compares them with steps of DFA, the cheapest rule on a time grid; with exact
spike times, with steps of the recipe's own rule. A ratio above 1 means that loading is the slower
part. See benchmarks/README.md.
"""

import argparse
import json
import statistics
import time

import torch

from threefactor import data
from threefactor.errors import DataError
from threefactor.recipes import RECIPES
from threefactor.training.build import build
from threefactor.training.engines import engine_of
from threefactor.training.experiment import Experiment


def experiment_of(name: str, data_dir: str | None) -> Experiment | None:
    """Build a recipe with DFA; None if its data is absent."""
    settings = RECIPES[name].settings_for("dfa", {"start": None})
    try:
        return build(settings, data_dir)
    except DataError:
        return None


def measure(built: Experiment, batches: int) -> tuple[float, float, int]:
    """Return the median seconds of taking a batch, of a step with it, and the batch's size."""
    inputs, labels = built.data.train
    order = torch.randperm(len(labels)).split(built.settings.batch_size)[: batches + 1]
    taken, trained = [], []
    given = data.batches(inputs, order, 0)
    for index in order:
        start = time.perf_counter()
        x = next(given)
        middle = time.perf_counter()
        built.optimizer.zero_grad()
        engine_of(built.settings).step(built, x, labels[index], lambda: None)
        built.optimizer.step()
        taken.append(middle - start)
        trained.append(time.perf_counter() - middle)
    # The first one finds files that are not in memory, and kernels that are not compiled.
    return statistics.median(taken[1:]), statistics.median(trained[1:]), len(order[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder of the data sets; THREEFACTOR_DATA, or a cache")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--batches", type=int, default=5, help="measured, after one that is not")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    print(f"{'recipe':28} {'batch':>6} {'loading ms':>11} {'step ms':>9} {'ratio':>7}")
    for name in options.recipes:
        built = experiment_of(name, options.data_dir)
        if built is None:
            print(f"{name:28} its data was not found")
            continue
        loading, step, size = measure(built, options.batches)
        rows[name] = {
            "batch": size,
            "loading_ms": 1e3 * loading,
            "step_ms": 1e3 * step,
            "ratio": loading / step,
        }
        print(f"{name:28} {size:6} {1e3 * loading:11.2f} {1e3 * step:9.1f} {loading / step:7.3f}")
    if options.json:
        settings = {"threads": options.threads, "batches": options.batches}
        document = {"torch": torch.__version__, **settings, "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
