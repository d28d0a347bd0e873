"""Write every table, sentence and picture that is made from the JSON in this folder.

`make tables`, or `python results/tables.py`, writes

- what stands between `<!-- table: NAME -->` and `<!-- end -->` in the pages of PAGES,
- numbers within a sentence: what stands between `<!--= EXPRESSION -->` and `<!--/-->` there. The
  expression is Python, in the names of this file,
- `picture.svg`, which the README shows,
- `report.md`, all runs in full, as `threefactor report` writes it,
- `figures/`, the figures of FIGURES and DRAWN with their data.

`--out DIR` writes the same files below DIR. The tests do so and compare them with the committed
ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from threefactor.report import (
    Figure,
    Section,
    Series,
    markdown_page,
    published_table,
    report_sections,
    write_figures,
)
from threefactor.training import Run

RESULTS = Path(__file__).resolve().parent
ROOT = RESULTS.parent
PAGES = (
    "README.md",
    "docs/adding-a-rule.md",
    "docs/analysis.md",
    "docs/choosing-a-rule.md",
    "docs/delayed-errors.md",
    "docs/deviations.md",
    "docs/equations.md",
    "docs/first-steps.md",
    "docs/gpu.md",
    "docs/growth.md",
    "docs/other-networks.md",
    "docs/recurrence.md",
    "docs/several-processes.md",
    "docs/streams.md",
    "results/README.md",
)
BEGIN, CLOSE, END = "<!-- table: ", " -->\n", "<!-- end -->"
NUMBER = re.compile(r"<!--= (.+?) -->.*?<!--/-->")

CLOCKED = {"OPZO": "opzo", "spatial BP": "spatial-bp", "DKP": "dkp", "DFA": "dfa", "ZO": "zo"}
EVENTS = {"exact BP": "exact-bp", "SFDFA": "sfdfa", "DFA": "dfa"}
PAPER = {"spatial BP": "Spatial BP & SG"}  # headings of the OPZO paper that differ from ours

FIGURES = {  # a figure of the report, and the runs that it shows: all, if none are named
    "cifar10-conv5-small-test-error": [
        "cifar10-conv5-small/spatial-bp-seed0",
        "cifar10-conv5-small/spatial-bp-seed1",
        "cifar10-conv5-small/spatial-bp-seed2",
        "cifar10-conv5-small/opzo-ll-seed0",
        "cifar10-conv5-small/opzo-ll-seed1",
        "cifar10-conv5-small/opzo-ll-seed2",
        "cifar10-conv5-small/opzo-seed0",
        "cifar10-conv5-small/opzo-seed1",
        "cifar10-conv5-small/opzo-seed2",
        "cifar10-conv5-small/dfa-ll-seed0",
        "cifar10-conv5-small/dfa-ll-seed1",
        "cifar10-conv5-small/dfa-ll-seed2",
        "cifar10-conv5-small/dfa-seed0",
        "cifar10-conv5-small/dfa-seed1",
        "cifar10-conv5-small/dfa-seed2",
        "cifar10-conv5-small/zo-seed0",
        "cifar10-conv5-small/zo-seed1",
        "cifar10-conv5-small/zo-seed2",
    ],
    "mnist-events-test-error": [
        "mnist-events/exact-bp-seed0",
        "mnist-events/sfdfa-seed0",
        "mnist-events/sfdfa-seed1",
        "mnist-events/dfa-seed0",
    ],
    "mnist-events-deep-alignment-bp-lif3": [
        "mnist-events-deep/sfdfa-seed0",
        "mnist-events-deep/sfdfa-seed1",
        "mnist-events-deep/sfdfa-seed2",
        "mnist-events-deep/dfa-seed0",
        "mnist-events-deep/dfa-seed1",
        "mnist-events-deep/dfa-seed2",
    ],
    "mnist-events-deep-feedback-lif3": [
        "mnist-events-deep/sfdfa-seed0",
        "mnist-events-deep/sfdfa-seed1",
        "mnist-events-deep/sfdfa-seed2",
        "mnist-events-deep/dfa-seed0",
        "mnist-events-deep/dfa-seed1",
        "mnist-events-deep/dfa-seed2",
    ],
    "variance-mnist-fc-opzo-seed-0-figure": [],
}

TABLES: dict[str, Callable[[], str]] = {}


def table(make: Callable[[], str]) -> Callable[[], str]:
    """Register a function under its name, with hyphens, for the pages to ask for its text."""
    TABLES[make.__name__.replace("_", "-")] = make
    return make


# Reading


def load(path: str) -> Any:
    """Return what a JSON file of this folder holds."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def metrics(recipe: str, run: str) -> list[list[dict[str, Any]]]:
    """Return the metrics of every epoch of every run whose folder matches, the lowest seed first.

    Raises:
        FileNotFoundError: if no folder matches.
    """
    files = sorted((RESULTS / recipe).glob(f"{run}/metrics.jsonl"))
    if not files:
        raise FileNotFoundError(f"no run matches results/{recipe}/{run}")
    return [Run(file.parent).metrics for file in files]


def accuracies(recipe: str, run: str) -> list[list[float]]:
    """Return the test accuracies in percent: one list for each run, one number for each epoch."""
    return [[100 * epoch["test_accuracy"] for epoch in one] for one in metrics(recipe, run)]


def last(recipe: str, run: str) -> list[float]:
    """Return the test accuracy after the last epoch, in percent, of each run."""
    return [epochs[-1] for epochs in accuracies(recipe, run)]


# Writing


def percent(values: Sequence[float]) -> str:
    """Return a mean in percent, with the sample standard deviation if there are several values."""
    deviation = "" if len(values) == 1 else f" ± {statistics.stdev(values):.2f}"
    return f"{statistics.mean(values):.2f}{deviation} %"


def listed(values: Sequence[float], digits: int = 2, unit: str = " %") -> str:
    """Return values as a sentence lists them, with their unit at the end."""
    *first, end = (f"{value:.{digits}f}" for value in values)
    return (f"{', '.join(first)} and " if first else "") + end + unit


def after(recipe: str, run: str, *epochs: int) -> list[float]:
    """Return the test accuracy in percent after these epochs, the mean of the runs that match."""
    return [statistics.mean(one[epoch - 1] for one in accuracies(recipe, run)) for epoch in epochs]


def gap(recipe: str, rule: str, other: str) -> str:
    """Return by how many points one rule is above another, by the means of their seeds."""
    ours, theirs = (statistics.mean(last(recipe, f"{one}-seed*")) for one in (rule, other))
    return f"{ours - theirs:.1f}"


def paper_gap(name: str, column: str, row: str, other: str) -> str:
    """Return by how many points one row of a published table is above another."""
    return f"{paper(name, row, column) - paper(name, other, column):.1f}"


def paper(name: str, row: str, column: str) -> float:
    """Return a published accuracy in percent."""
    found = published_table(name).value(PAPER.get(row, row), column)
    assert found is not None
    return found.mean


def published(name: str, row: str, column: str) -> str:
    """Return a published accuracy, or nothing where there is none."""
    found = published_table(name).value(PAPER.get(row, row), column)
    return "" if found is None else f"{found.mean:.2f} %"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# Networks on a time grid


@table
def claim() -> str:
    step, medium = (
        load(f"benchmarks/{file}.json")["rows"]["threefactor opzo"]["ratio_of_medians"]
        for file in ("clocked_step", "clocked_step_medium")
    )
    low, high = memory_range()
    seeds = last("mnist-fc", "opzo-seed*")
    cifar = {
        rule: percent(last("cifar10-conv5-small", f"{rule}-seed*"))
        for rule in ("opzo", "opzo-ll", "spatial-bp")
    }
    spatial_bp = last("mnist-fc", "spatial-bp-seed*")
    return (
        f"On MNIST, OPZO reaches {percent(seeds)} test accuracy ({len(seeds)} seeds) without any "
        f"backpropagation.\nBackpropagation within each time step reaches "
        f"{percent(spatial_bp)} ({len(spatial_bp)} seeds). A training step takes "
        f"{step:.2f} times as long as\nSpikingJelly's BPTT on one thread of an AMD processor, and "
        f"{medium:.2f} times at precision\n'medium', which makes PyTorch's matrix products faster "
        f"there, and ours bfloat16.\n"
        f"Peak memory at 600 time steps is {low:.2f} to {high:.2f} times that at 6.\n"
        "In convolutions a gap remains. On 10,000 images of CIFAR-10, OPZO reaches "
        f"{cifar['opzo']}, with local\nlearning {cifar['opzo-ll']}, and backpropagation "
        f"{cifar['spatial-bp']}."
    )


@table
def kernels() -> str:
    all_of_them, without_products, none = (
        load(f"benchmarks/clocked_step_kernels/{file}.json")["rows"]["threefactor opzo"][
            "ratio_of_medians"
        ]
        for file in ("all", "no_products", "none")
    )
    return (
        f"A step of OPZO on MNIST's network takes {all_of_them / none:.2f} of the time that it "
        "takes without a compiler, on\none thread of an AMD processor with AVX-512. On the same "
        f"processor it is {without_products / none:.2f} if PyTorch makes the\nmatrix products, as "
        "it does on Intel's processors."
    )


@table
def mnist() -> str:
    rows = []
    for name, rule in CLOCKED.items():
        runs = metrics("mnist-fc", f"{rule}-seed*")
        full = published("opzo-table8" if name == "DKP" else "opzo-table1", name, "MNIST")
        ends = [run[-1]["firing_rates"].values() for run in runs]
        spikes = ", ".join(f"{statistics.mean(layer):.2f}" for layer in zip(*ends, strict=True))
        accuracy = percent(last("mnist-fc", f"{rule}-seed*"))
        rows.append((name, str(len(runs)), accuracy, full, spikes))
    spikes = "spikes per neuron and step, layers 1 and 2"
    return markdown(("rule", "seeds", "test accuracy", "published", spikes), rows)


THEIR_WEIGHTS = ("spatial BP", "OPZO", "DFA")  # rules that come to the paper with them


def weights_apart() -> str:
    """Return the most by which a rule with the authors' initial weights is off the paper."""
    apart = []
    for name in THEIR_WEIGHTS:
        ours = statistics.mean(last("mnist-fc-authors-weights", f"{CLOCKED[name]}-seed*"))
        apart.append(abs(ours - paper("opzo-table1", name, "MNIST")))
    return f"{max(apart):.2f}"


@table
def mnist_weights() -> str:
    rows = []
    for name in (*THEIR_WEIGHTS, "ZO"):
        ours, theirs = (
            last(folder, f"{CLOCKED[name]}-seed*")
            for folder in ("mnist-fc", "mnist-fc-authors-weights")
        )
        seeds = f"{len(ours)}, {len(theirs)}"
        full = published("opzo-table1", name, "MNIST")
        rows.append((name, seeds, percent(ours), percent(theirs), full))
    return markdown(("rule", "seeds", "our weights", "their weights", "published"), rows)


@table
def fashion_mnist() -> str:
    rows = []
    for name in ("spatial BP", "OPZO", "DFA"):
        found = last("fashion-mnist-fc", f"{CLOCKED[name]}-seed*")
        rows.append((name, str(len(found)), percent(found)))
    return markdown(("rule", "seeds", "test accuracy"), rows)


CIFAR10 = {  # what the table calls them: our runs, the paper's row
    "spatial BP": ("spatial-bp", "spatial BP"),
    "OPZO with local learning": ("opzo-ll", "OPZO (w/ LL)"),
    "OPZO": ("opzo", "OPZO"),
    "DFA with local learning of weight 1": ("dfa-ll-scale1", None),
    "DFA with local learning": ("dfa-ll", "DFA (w/ LL)"),
    "DFA": ("dfa", "DFA"),
    "ZO": ("zo", "ZO"),
}


@table
def cifar10() -> str:
    rows = []
    for name, (run, row) in CIFAR10.items():
        found = last("cifar10-conv5-small", f"{run}-seed*")
        full = "" if row is None else published("opzo-table1", row, "CIFAR-10")
        rows.append((name, str(len(found)), percent(found), full))
    return markdown(("rule", "seeds", "test accuracy", "published, full experiment"), rows)


def local_closes() -> str:
    """Return how much of the gap between OPZO and spatial BP local learning closes."""
    bp, local, without = (
        statistics.mean(last("cifar10-conv5-small", f"{rule}-seed*"))
        for rule in ("spatial-bp", "opzo-ll", "opzo")
    )
    return f"{100 * (local - without) / (bp - without):.0f} %"


def rates(run: str) -> dict[str, float]:
    """Return the firing rates of the layers, the mean of the seeds, and that of all neurons."""
    folder = "cifar10-conv5-small"
    sizes = load(f"{folder}/{run}-seed0/config.json")["layer_sizes"]
    ends = [epochs[-1]["firing_rates"] for epochs in metrics(folder, f"{run}-seed*")]
    ours = {layer: statistics.mean(end[layer] for end in ends) for layer in sizes}
    total = sum(ours[layer] * n for layer, n in sizes.items()) / sum(sizes.values())
    return {**ours, "total": total}


def rates_apart(name: str) -> str:
    """Return the most by which a layer's firing rate lies from the published one."""
    full = published_table("opzo-table7-cifar-10")
    run, row = CIFAR10[name]
    ours = rates(run)
    apart = []
    for column in full.columns:
        theirs = full.value(row or name, column.title)
        if theirs is not None and column.layer != "total":
            apart.append(abs(ours[column.layer] - theirs.mean))
    return f"{max(apart):.2f}"


@table
def cifar10_rates() -> str:
    full = published_table("opzo-table7-cifar-10")
    rows = []
    for name, (run, paper_row) in CIFAR10.items():
        row = PAPER.get(paper_row or "", paper_row)
        if row not in {one.title for one in full.rows}:
            continue
        ours = rates(run)
        theirs = [full.value(row, column.title) for column in full.columns]
        rows.append((name, "measured", *(f"{ours[column.layer]:.3f}" for column in full.columns)))
        rows.append(("", "published", *("" if v is None else f"{v.mean:.3f}" for v in theirs)))
    return markdown(("rule", "", *(column.title for column in full.columns)), rows)


CONV9 = {  # what the table calls them: our runs, the paper's row
    "spatial BP": ("spatial-bp", "spatial BP"),
    "OPZO, LL and IGL": ("opzo-ll-igl", "OPZO (w/ LL&IGL)"),
    "OPZO, LL": ("opzo-ll", "OPZO (w/ LL)"),
    "DFA, LL and IGL": ("dfa-ll-igl", "DFA (w/ LL&IGL)"),
    "DFA, LL": ("dfa-ll", "DFA (w/ LL)"),
}


@table
def cifar10_deeper() -> str:
    rows = []
    for name, (run, row) in CONV9.items():
        found = last("cifar10-conv9-small", f"{run}-seed*")
        full = published("opzo-table3", row, "CIFAR-100")
        rows.append((name, str(len(found)), percent(found), full))
    return markdown(("rule", "seeds", "test accuracy", "published, CIFAR-100 in full"), rows)


@table
def cifar10_noise() -> str:
    rows = []
    for kind, ending in (("Gaussian", ""), ("Rademacher", "-rademacher")):
        ours = [
            percent(last("cifar10-conv5-small", f"opzo{place}{ending}-seed1"))
            for place in ("", "-before")
        ]
        theirs = [
            published("opzo-table2", kind, place) for place in ("after neuron", "before neuron")
        ]
        rows.append((kind, *ours, *theirs))
    head = ("noise", "after the neuron", "before it", "published, after", "published, before")
    return markdown(head, rows)


@table
def fine_tuning() -> str:
    folder = "cifar10-conv5-small"
    rules = ("OPZO", "spatial BP", "DFA", "ZO")
    direct = {
        load(f"{folder}/noise-{CLOCKED[name]}-seed0/start.json")["test_accuracy"] for name in rules
    }
    (start,) = direct  # all begin with the same network
    rows = [("none", "0", percent([100 * start]), "")]
    for name in rules:
        (epochs,) = accuracies(folder, f"noise-{CLOCKED[name]}-seed0")
        rows.append((name, str(len(epochs)), percent(epochs[-1:]), percent(epochs[:1])))
    head = ("rule", "epochs", "test accuracy under noise", "after 1 epoch")
    return markdown(head, rows)


@table
def nmnist() -> str:
    rows = []
    for name in ("spatial BP", "OPZO", "DFA"):
        rule = CLOCKED[name]
        rows.append(
            (
                name,
                percent(last("nmnist-fc", f"{rule}-fold[0-9]")),
                percent(last("nmnist-fc", f"{rule}-batch128-fold0")),
                published("opzo-table1", name, "N-MNIST"),
            )
        )
    head = ("rule", "batches of 32, five folds", "batches of 128, one fold", "published, all data")
    return markdown(head, rows)


@table
def digits() -> str:
    rows = [(name, percent(last("digits-fc", f"{rule}-seed*"))) for name, rule in CLOCKED.items()]
    return markdown(("rule", "test accuracy"), rows)


@table
def variance() -> str:
    rules = load("analysis/variance_mnist.json")["result"]["rules"]
    names = {
        "ZO": "zo",
        "OPZO with the factor $1/\\alpha$": "opzo, 1/alpha",
        "OPZO without it, as in training": "opzo",
        "DFA": "dfa",
    }
    bp = {layer: found["variance"] for layer, found in rules["spatial-bp"].items()}
    rows = [
        (name, *(f"{rules[rule][layer]['variance'] / bp[layer]:,.3f}" for layer in bp))
        for name, rule in names.items()
    ]
    return markdown(("rule", "layer 1", "layer 2", "read-out"), rows)


@table
def other_networks() -> str:
    accuracy = load("benchmarks/other_networks_mnist.json")["test_accuracy"]
    ratios = load("benchmarks/other_networks.json")["ratio"]["OPZO"]
    rows = [
        (name, f"{100 * share:.2f} %", f"{ratios[name]:.2f}" if name in ratios else "")
        for name, share in accuracy.items()
    ]
    head = ("neurons", "test accuracy after 3 epochs", "time of a step, ours 1")
    return markdown(head, rows)


RULE_KEYS = list(CLOCKED.values())


@table
def adoption_precision() -> str:
    found = load("benchmarks/adoption.json")
    cells = [
        cell
        for part in ("neurons", "layers")
        for row in found[part].values()
        for by_rule in row.values()
        if "refused" not in by_rule
        for cell in by_rule.values()
        if "refused" not in cell
    ]
    single = [cell["float32"] for cell in cells]
    libraries = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"Of {len(cells)} cells, the largest difference in double precision is "
        f"{max(cell['float64'] for cell in cells):.0e}. In single precision it is\n"
        f"{max(single):.0e}, and {sum(one <= 1e-6 for one in single)} cells have at most 1e-06. "
        f"Measured with {libraries}."
    )


@table
def adoption_layers() -> str:
    found = load("benchmarks/adoption.json")["layers"]
    columns = list(next(iter(found.values())))
    rows = []
    for kind, row in found.items():
        cells = []
        for column in columns:
            measured = [c for c in row[column].values() if "refused" not in c]
            cell = f"{max(c['float64'] for c in measured):.0e}"
            if len(measured) < len(row[column]):
                names = [n for n, rule in CLOCKED.items() if "refused" not in row[column][rule]]
                cell = f"{', '.join(names)}: {cell}; others: refused"
            cells.append(cell)
        rows.append((kind, *cells))
    return markdown(("layers", *columns), rows)


@table
def adoption_neurons() -> str:
    rows = [
        (library, name, *(f"{cells[rule]['float64']:.0e}" for rule in RULE_KEYS))
        for library, found in load("benchmarks/adoption.json")["neurons"].items()
        for name, cells in found.items()
        if "refused" not in cells
    ]
    return markdown(("library", "neurons", *CLOCKED), rows)


@table
def adoption_refused() -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for library, found in load("benchmarks/adoption.json")["neurons"].items():
        for name, cells in found.items():
            if "refused" in cells:
                reason = cells["refused"].removeprefix(f"{name} of {library} ")
                key = (library, reason.partition("; known are ")[0])
                reasons.setdefault(key, []).append(f"`{name}`")
    rows = [(library, ", ".join(names), why) for (library, why), names in reasons.items()]
    return markdown(("library", "neurons", "what is said"), rows)


@table
def recurrence() -> str:
    rows = []
    for rule, networks in load("benchmarks/recurrence.json")["rules"].items():
        for network, found in networks.items():
            chosen = max(found["search"], key=lambda one: one["accuracy"])
            tested = percent([100 * one["accuracy"] for one in found["test"]])
            rate = statistics.mean(one["firing_rate"] for one in found["test"])
            held_out = f"{100 * chosen['accuracy']:.1f} %"
            rows.append((rule, network, _choice(found), held_out, tested, f"{rate:.2f}"))
    settings = "leak, learning rate, dropout"
    head = ("rule", "network", settings, "held-out speakers", "test", "firing rate")
    return markdown(head, rows)


def _choice(found: dict[str, float]) -> str:
    return f"{found['leak']:g}, {found['lr']:g}, {found['dropout']:g}"


@table
def recurrence_search() -> str:
    rows = []
    for rule, networks in load("benchmarks/recurrence.json")["rules"].items():
        for both in zip(*(found["search"] for found in networks.values()), strict=True):
            shares = [f"{100 * one['accuracy']:.1f} %" for one in both]
            rows.append((rule, _choice(both[0]), *shares))
    head = ("rule", "leak, learning rate, dropout", "feed-forward", "recurrent")
    return markdown(head, rows)


def dropout_gains(network: str) -> str:
    """Return the points that dropout brings at the high learning rate, at both leaks."""
    found = load("benchmarks/recurrence.json")["rules"]["spatial-bp"][network]["search"]
    high = max(one["lr"] for one in found)
    shares = {
        (one["leak"], one["dropout"] > 0): 100 * one["accuracy"]
        for one in found
        if one["lr"] == high
    }
    gains = [share - shares[leak, False] for (leak, dropped), share in shares.items() if dropped]
    return listed(sorted(gains), 1, unit="")


# Errors that come late

DELAYED_SETS = {"mnist": "MNIST, constant input", "nmnist": "N-MNIST, frames"}
MEETS = {"current-eligibility": "current", "kept-eligibility": "kept"}


def delayed() -> dict[tuple[str, str, str], dict[int, list[float]]]:
    """Return the accuracies in percent of each set, rule and mode, by delay."""
    found: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for key, share in load("benchmarks/delayed_errors.json")["test_accuracy"].items():
        name, rule, mode, delay, _ = key.split()
        # Without delay both modes are the same.
        for one in MEETS if delay == "delay0" else (mode,):
            by_delay = found.setdefault((name, rule, one), {})
            by_delay.setdefault(int(delay.removeprefix("delay")), []).append(100 * share)
    return found


def most_lost(name: str, delay: int) -> str:
    """Return the most points that delays up to this one cost any rule in either mode, by means."""
    losses = [
        statistics.mean(row[0]) - statistics.mean(row[d])
        for (one, _, _), row in delayed().items()
        for d in row
        if one == name and d <= delay
    ]
    return f"{max(losses):.1f}"


@table
def delayed_errors() -> str:
    found = delayed()
    delays = sorted({delay for row in found.values() for delay in row})
    names = {rule: name for name, rule in CLOCKED.items()}
    rows = [
        (
            f"{DELAYED_SETS[name]}: {names[rule]}, {MEETS[mode]}",
            *(
                f"{statistics.mean(row[d]):.1f} ({span(row[d], 1)})" if d in row else ""
                for d in delays
            ),
        )
        for (name, rule, mode), row in found.items()
    ]
    return markdown(("accuracy in %, delay d", *(str(d) for d in delays)), rows)


def delayed_figure(name: str) -> Figure:
    """Return the accuracies on one set against the delay."""
    names = {rule: shown for shown, rule in CLOCKED.items()}
    series = []
    for (one, rule, mode), row in delayed().items():
        if one == name:
            delays = sorted(row)
            means = [statistics.mean(row[d]) for d in delays]
            halves = [(max(row[d]) - min(row[d])) / 2 for d in delays]
            series.append(Series(f"{names[rule]}, {MEETS[mode]}", delays, means, halves))
    return Figure(
        f"delayed-errors-{name}",
        f"Errors that come d steps late: {DELAYED_SETS[name]}",
        "Mean over the seeds, and their range; the current and the kept eligibility.",
        "delay d, time steps",
        "test accuracy, %",
        tuple(series),
    )


DRAWN = {f"delayed-errors-{name}": partial(delayed_figure, name) for name in DELAYED_SETS}


# Several processes


@table
def processes() -> str:
    names = {rule: name for name, rule in CLOCKED.items()}
    rows = []
    for key, row in load("benchmarks/processes.json")["rows"].items():
        network, rule = key.split()
        cells = (f"{row['alone_ms']:.0f} ms", f"{row['each_ms']:.0f} ms", f"{row['ratio']:.2f}")
        rows.append((f"`{network}`, {names[rule]}", *cells))
    return markdown(("", "one process", "each of two", "ratio"), rows)


# Precision


def precise(file: str, precision: str, seed: int, option: str = "") -> float:
    """Return the final test accuracy in percent at one precision, of the run with this option."""
    (found,) = (
        run["epochs"][-1]["test_accuracy"]
        for run in load(f"precision/{file}.json")["runs"]
        if run["precision"] == precision and run["seed"] == seed and option in run["command"]
    )
    return float(100 * found)


@table
def precision() -> str:
    kinds = ("highest", "medium")
    found = [[precise("mnist-fc", kind, seed) for kind in kinds] for seed in range(3)]
    rows = [(str(seed), *(f"{one:.2f} %" for one in row)) for seed, row in enumerate(found)]
    rows.append(("mean", *(percent(values) for values in zip(*found, strict=True))))
    return markdown(("seed", *kinds), rows)


# Streams


def stream_lines() -> list[dict[str, Any]]:
    """Return what was measured while MNIST turned, first line first."""
    text = (RESULTS / "mnist-stream" / "stream.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@table
def stream_claim() -> str:
    _, first, *_, end = (line["accuracy"] for line in stream_lines())  # first whole window
    static = f"{100 * first['static']:.0f} to {100 * end['static']:.0f} %"
    return (
        "A trained network can go on learning while it is used. Here MNIST turns to 90 degrees, "
        f"one picture at a time: the\nstatic network falls from {static}, the one that learns "
        f"by OPZO to {100 * end['adapting']:.0f} % (one run; [Streams](docs/streams.md))."
    )


@table
def stream() -> str:
    rows = []
    for line in stream_lines()[1::5] + stream_lines()[-1:]:
        shares = line["accuracy"].values()
        rows.append((f"{line['angle']:.0f}", *(f"{100 * share:.1f}" for share in shares)))
    head = ("degrees", "static", "adapting by OPZO", "only the read-out adapts")
    return markdown(head, list(dict.fromkeys(rows)))


def behind_static(degrees: float) -> str:
    """Return the most points that the adapting copy lies behind the static one until an angle."""
    behind = [
        100 * (line["held_out"]["static"] - line["held_out"]["adapting"])
        for line in stream_lines()
        if line["angle"] <= degrees
    ]
    return f"{max(behind):.1f}"


def least(contestant: str) -> str:
    """Return the least milliseconds of a learning time step."""
    return f"{load('benchmarks/stream.json')['tables']['learning'][contestant]['min_ms']:.2f}"


@table
def stream_step() -> str:
    tables = load("benchmarks/stream.json")["tables"].values()
    rows = [
        (
            shown(name),
            *(
                cell
                for table in tables
                for cell in (f"{table[name]['min_ms']:.2f}", ratios(table[name]))
            ),
        )
        for name in next(iter(tables))
    ]
    head = ("", "least ms", "relative: medians; minima", "with AdamW, least ms", "relative")
    return markdown(head, rows)


@table
def stream_long() -> str:
    rows = [
        (
            f"{row['steps']:,}",
            f"{row['median_us']:.0f}",
            f"{row['min_us']:.0f}",
            f"{row['resident_mib']:.1f}",
        )
        for row in load("benchmarks/stream.json")["stream"]
    ]
    return markdown(("time steps", "median, us a step", "least", "resident MiB"), rows)


# Networks of exact spike times

EXPERIMENTS: tuple[tuple[str, str, str | None], ...] = (  # title, recipe, row of the paper
    ("MNIST, 784-800-10", "mnist-events", "MNIST 800-10"),
    ("Fashion-MNIST, 784-400-400-10", "fashion-mnist-events", "Fashion-MNIST 400-400-10"),
    ("synthetic spoken digits, 700-128-20", "shd-like-events", None),
    ("digits, 64-200-10", "digits-events", None),
    ("Yin-Yang, 5-100-3", "yin-yang-events", None),
)


def beside_paper(best: bool) -> list[float]:
    """Return by how many points the means of best or last epochs are above the published ones."""
    above = []
    for _, recipe, row in EXPERIMENTS:
        for name, rule in EVENTS.items() if row else ():
            runs = accuracies(recipe, f"{rule}-seed*")
            ours = statistics.mean(max(one) if best else one[-1] for one in runs)
            above.append(ours - paper("sfdfa-table1", row or "", name.removeprefix("exact ")))
    return above


def wandering(recipe: str) -> str:
    """Return the deviation of SFDFA's accuracy over its last ten epochs, the mean of the seeds."""
    runs = accuracies(recipe, "sfdfa-seed*")
    return f"{statistics.mean(statistics.stdev(one[-10:]) for one in runs):.2f}"


@table
def events() -> str:
    rows = []
    for title, recipe, row in EXPERIMENTS:
        for name, rule in EVENTS.items():
            found = accuracies(recipe, f"{rule}-seed*")
            wanted = load(f"{recipe}/{rule}-seed0/config.json")["settings"]["epochs"]
            (done,) = {len(one) for one in found}  # a mean is over runs of one length
            epochs = str(done) if done == wanted else f"{done} of {wanted}"
            best = percent([max(one) for one in found])
            heading = name.removeprefix("exact ")
            full = "" if row is None else published("sfdfa-table1", row, heading)
            end = percent([one[-1] for one in found])
            rows.append((title, name, str(len(found)), epochs, end, best, full))
    head = ("data, network", "rule", "seeds", "epochs", "last epoch", "best epoch", "published")
    return markdown(head, rows)


@table
def shd_published() -> str:
    found = (
        f"{name} {published('sfdfa-table1', 'SHD 128-20', name.removeprefix('exact '))}"
        for name in EVENTS
    )
    return f"Published for SHD itself: {', '.join(found)}."


def tracked(run: str) -> dict[int, dict[str, Any]]:
    """Return what a run recorded of its alignment on the way, by the batches trained until then."""
    return {line["batches"]: line for line in Run(RESULTS / run).tracked}


def angle(layer: str, *lines: dict[str, Any]) -> str:
    """Return the angle of a layer to exact BP, the mean of runs."""
    found = [line["alignment"]["bp"][layer]["angle"] for line in lines]
    return "undefined" if None in found else f"{statistics.mean(found):.1f}°"


def cosine(*lines: dict[str, Any]) -> str:
    """Return the cosine of feedback and output weights, the mean of runs."""
    found = [line["feedback"]["lif3"]["cosine"] for line in lines]
    return "undefined" if None in found else f"{statistics.mean(found):.2f}"


def at_end(run: str) -> str:
    """Return the cosine of the feedback and the angle of the last hidden layer after the run."""
    line = tracked(run)[1200 * len(Run(RESULTS / run).metrics)]  # batches of an epoch
    return f"{cosine(line)} and the last hidden layer at {angle('lif3', line)}"


def last_angles(run: str, moments: int) -> list[float]:
    """Return the angles of the last hidden layer to exact BP, at the last moments of a run."""
    lines = list(tracked(run).values())[-moments:]
    return [line["alignment"]["bp"]["lif3"]["angle"] for line in lines]


def late_angle(rule: str) -> str:
    """Return the mean angle of the last hidden layer over the last ten epochs of the seeds."""
    runs = [f"mnist-events-deep/{rule}-seed{seed}" for seed in range(3)]
    means = [statistics.mean(last_angles(run, 60)) for run in runs]
    return f"{statistics.mean(means):.0f}°"


def first_layer_least() -> str:
    """Return the least angle of the first hidden layer to exact BP, of both rules and all seeds."""
    found = [
        line["alignment"]["bp"]["lif1"]["angle"]
        for rule in ("sfdfa", "dfa")
        for seed in range(3)
        for line in tracked(f"mnist-events-deep/{rule}-seed{seed}").values()
    ]
    return f"{math.floor(min(one for one in found if one is not None))}°"


@table
def alignment() -> str:
    courses = [
        [tracked(f"mnist-events-deep/{rule}-seed{seed}") for seed in range(3)]
        for rule in ("sfdfa", "dfa")
    ]
    rows = []
    for batches in (0, 200, 400, 800, 1200, 2800, 6000, 10200, 18000, 36000):
        row = [f"{batches:,}"]
        for course in courses:
            lines = [seed[batches] for seed in course]
            row += [*(angle(layer, *lines) for layer in ("lif3", "lif2", "lif1")), cosine(*lines)]
        rows.append(row)
    columns = ("last hidden layer", "second", "first", "cosine")
    head = ("batches of 50", *(f"{rule}: {name}" for rule in ("SFDFA", "DFA") for name in columns))
    return markdown(head, rows)


@table
def alignment_digits() -> str:
    rows = []
    for name, rule in (("SFDFA", "sfdfa"), ("DFA", "dfa")):
        for seed in range(3):
            run = f"{rule}-seed{seed}"
            *_, line = tracked(f"digits-events-deep/{run}").values()
            angles = (angle(layer, line) for layer in ("lif3", "lif2", "lif1"))
            accuracy = percent(last("digits-events-deep", run))
            rows.append((name, str(seed), *angles, cosine(line), accuracy))
    angles = ("last hidden layer", "second", "first")
    return markdown(("rule", "seed", *angles, "cosine of feedback", "test accuracy"), rows)


@table
def alignment_accuracy() -> str:
    found = (
        f"{name} {listed([*after('mnist-events-deep', f'{rule}-seed[0-9]', 1, 3, 30)])}"
        for name, rule in (("SFDFA", "sfdfa"), ("DFA", "dfa"))
    )
    return f"Test accuracy after epochs 1, 3 and 30, means of the three seeds: {', '.join(found)}."


# Deviations from the authors' code


@table
def deviation_traces() -> str:
    found = load("benchmarks/deviations.json")
    layers = {
        **found["first layer without a trace"],
        "NF-ResNet, read-out": found["read-out of the NF-ResNet without a trace"],
    }
    rows = [
        (layer, span(row["cosine"], 4), span(row["size with a trace over without"], 2))
        for layer, row in layers.items()
    ]
    return markdown(("layer", "cosine", "ratio of sizes"), rows)


@table
def deviation_variance() -> str:
    (found,) = load("benchmarks/deviations.json")["variance with N and with N - 1"].values()
    return (
        "With 34 layers, a quarter of the width, and copied gains, the outputs differ by "
        f"{span([100 * value for value in found], 0)} % of their size."
    )


@table
def deviation_trainings() -> str:
    found = load("benchmarks/deviations.json")["test accuracy, percent"]
    rows = [(training, percent(values)) for training, values in found.items()]
    return markdown(("training", "test accuracy"), rows)


def authors(number: str) -> Any:
    """Return what was measured with the code that the authors of SFDFA released."""
    return load("authors_code.json")["SFDFA, the authors' kernels and Python"][number]


def span(values: Sequence[float], digits: int) -> str:
    """Return the lowest and the highest value, or the one that both are when rounded."""
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


# Benchmarks


def ratios(row: dict[str, float]) -> str:
    """Return the ratio of medians and that of minima."""
    return f"{row['ratio_of_medians']:.2f}; {row['ratio_of_minima']:.2f}"


def shown(contestant: str) -> str:
    """Return a contestant as other tables write it: threefactor opzo is threefactor, OPZO."""
    library, _, rest = contestant.partition(" ")
    rule, comma, option = rest.partition(",")
    ours = {value: name for name, value in CLOCKED.items()}
    return f"{library}, {ours.get(rule, rule)}{comma}{option}"


def step_times(file: str) -> str:
    """Return how long a training step of each contestant takes, the quickest first."""
    rows = load(f"benchmarks/{file}.json")["rows"]
    quickest = sorted(rows, key=lambda name: rows[name]["ratio_of_medians"])
    head = ("", "relative time: medians; minima")
    return markdown(head, [(shown(name), ratios(rows[name])) for name in quickest])


TABLES["step"] = partial(step_times, "clocked_step")
TABLES["step-medium"] = partial(step_times, "clocked_step_medium")
TABLES["step-2-threads"] = partial(step_times, "clocked_step_2_threads")
TABLES["step-conv5"] = partial(step_times, "clocked_step_conv5")


@table
def profile() -> str:
    rows = load("benchmarks/clocked_step_conv5_profile.json")["rows"]
    parts = list(next(iter(rows.values())))
    return markdown(
        ("rule, shares in %", *parts),
        [
            (shown(name), *(f"{100 * row[part]:.1f}" for part in parts))
            for name, row in rows.items()
        ],
    )


MEMORY = {
    "784-800-800-10": "clocked_memory",
    "conv5": "clocked_memory_conv5",
    "conv9": "clocked_memory_conv9",
    "NF-ResNet-34": "clocked_memory_nf_resnet34",
}


def memory_range() -> tuple[float, float]:
    """Return the lowest and the highest ratio of peak memory at T = 600 to that at T = 6."""
    tables = [load(f"benchmarks/{file}.json")["rows"] for file in MEMORY.values()]
    found = [row["ratio"] for rows in tables for row in rows.values()]
    return min(found), max(found)


@table
def memory() -> str:
    files = {name: load(f"benchmarks/{file}.json")["rows"] for name, file in MEMORY.items()}
    rows = [
        (name, *(f"{found[rule]['ratio']:.2f}" for found in files.values()))
        for name, rule in CLOCKED.items()
    ]
    return markdown(("rule", *files), rows)


def added(file: str, what: str) -> str:
    """Return MiB of feedback, or what training with it adds to the process."""
    (row,) = load(f"benchmarks/clocked_memory_feedback_{file}.json")["rows"].values()
    return f"{row['feedback_mib' if what == 'feedback' else 'growth_mib_6']:.1f}"


def picture_bytes() -> float:
    """Return what one more picture of a batch takes while NF-ResNet-34 trains, from 1 to 4."""
    one, four = (
        load(f"benchmarks/clocked_memory_imagenet_{batch}.json")["rows"]["opzo"]["growth_mib_6"]
        for batch in (1, 4)
    )
    return float((four - one) / 3 * 2**20)


def picture_megabytes() -> str:
    return f"{picture_bytes() / 1e6:.0f}"


def imagenet_gigabytes(beside: float) -> str:
    """Return what 64 pictures take, and what is beside them."""
    return f"{64 * picture_bytes() / 1e9 + beside:.1f}"


@table
def growth() -> str:
    rows = []
    for name, axis in load("benchmarks/growth.json")["axes"].items():
        for unit, label in (("ms", "time"), ("mib", "memory")):
            fit, shown_unit = axis[label], {"ms": "ms", "mib": "MiB"}[unit]
            rows.append(
                (
                    name,
                    ", ".join(f"{x:,.0f}" for x in axis["x"]),
                    f"{', '.join(f'{y:.1f}' for y in axis[unit])} {shown_unit}",
                    f"{fit['start']:.1f} + {fit['slope']:.3g} x",
                    f"{100 * fit['off']:.0f} %",
                )
            )
    return markdown(("x", "values of x", "a step", "line", "off it by up to"), rows)


@table
def loading() -> str:
    rows = load("benchmarks/loading.json")["rows"]
    return markdown(
        ("recipe", "batch", "taking it, ms", "a step, ms", "ratio"),
        [
            (
                name,
                str(row["batch"]),
                f"{row['loading_ms']:.2f}",
                f"{row['step_ms']:,.1f}",
                f"{row['ratio']:.4f}",
            )
            for name, row in rows.items()
        ],
    )


@table
def events_step() -> str:
    found = load("benchmarks/events_step.json")
    lines = [row for row in found["rules"] if row["threads"] == 1]
    rows = []
    for row in lines:
        per_event, per_spike, _ = found["fit"][row["what"]]
        rows.append((row["what"], ratios(row), f"{per_event:.2f}", f"{per_spike:.0f}"))
    head = ("", "relative time: medians; minima", "ns a synaptic event", "ns a hidden spike")
    return markdown(head, rows)


@table
def events_memory() -> str:
    rows = load("benchmarks/events_step.json")["memory"]
    return markdown(
        ("samples", "added to peak memory, MiB"),
        [(f"{row['samples']:,}", f"{row['added_mib']:.2f}") for row in rows],
    )


@table
def yin_yang() -> str:
    found = load("benchmarks/events_yin_yang.json")["yin-yang"]
    rows = [
        (
            name,
            f"{row['train_median_s']:.3f}; {row['train_min_s']:.3f}",
            f"{row['test_median_s']:.3f}; {row['test_min_s']:.3f}",
        )
        for name, row in (
            ("jaxsnn 0.3.0", found["jaxsnn"]),
            ("threefactor, exact BP", found["threefactor"]),
        )
    ]
    rows.append(
        (
            "jaxsnn relative to threefactor",
            f"{found['train_ratio_of_median']:.1f}; {found['train_ratio_of_min']:.1f}",
            f"{found['test_ratio_of_median']:.1f}; {found['test_ratio_of_min']:.1f}",
        )
    )
    return markdown(("median; minimum", "epoch of training, s", "test, s"), rows)


@table
def choice() -> str:
    times = load("benchmarks/clocked_step.json")["rows"]
    rows = []
    for name, rule in CLOCKED.items():
        small = "cifar10-conv5-small"  # DKP was not run there
        rows.append(
            (
                name,
                percent(last("mnist-fc", f"{rule}-seed*")),
                "" if name == "DKP" else percent(last(small, f"{rule}-seed*")),
                f"{times[f'threefactor {rule}']['ratio_of_medians']:.2f}",
            )
        )
    head = ("rule", "MNIST, fc", "CIFAR-10 (JPEG) in small, conv5", "time of a step, MNIST")
    return markdown(head, rows)


# The picture


def picture() -> str:
    """Return the README's picture: test error on MNIST, and time of a training step.

    The colours follow the reader's choice of light or dark. The ground is drawn, because a page may
    be dark where the system is light.
    """
    step = load("benchmarks/clocked_step.json")["rows"]
    errors = [
        (name, 100 - statistics.mean(last("mnist-fc", f"{rule}-seed*")))
        for name, rule in CLOCKED.items()
    ]
    times = [
        (shown, step[name]["ratio_of_medians"])
        for shown, name in (
            ("OPZO", "threefactor opzo"),
            ("spatial BP", "threefactor spatial-bp"),
            ("SpikingJelly, BPTT", "SpikingJelly BPTT"),
            ("snnTorch, BPTT", "snnTorch BPTT"),
            ("SpikingJelly, OTTT", "SpikingJelly OTTT"),
        )
    ]
    panels = (
        (20, 90, "Test error on MNIST, %", errors),
        (410, 140, "Time of a training step (BPTT = 1)", times),
    )
    parts = []
    for left, label, title, bars in panels:
        parts.append(f'<text class="title" x="{left}" y="26">{escape(title)}</text>')
        scale = 175 / max(value for _, value in bars)
        for i, (name, value) in enumerate(bars):
            y, width = 44 + 30 * i, scale * value
            kind = "ours" if name == "OPZO" else "other"
            start = left + label
            parts += [
                f'<text x="{start - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{start}" y="{y}" width="{width:.1f}" height="21"/>',
                f'<text x="{start + width + 6:.1f}" y="{y + 15}">{value:.2f}</text>',
            ]
    described = "; ".join(
        f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in bars)
        for _, _, title, bars in panels
    )
    body = "\n".join(parts)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 770 200" role="img" aria-labelledby="t d">
<title id="t">OPZO beside other rules and libraries</title>
<desc id="d">{escape(described)}</desc>
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1f2328; }}
.title {{ font-weight: 600; }}
.ground {{ fill: #ffffff; }}
.ours {{ fill: #0969da; }}
.other {{ fill: #8c959f; }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3; }}
.ground {{ fill: #0d1117; }}
.ours {{ fill: #58a6ff; }}
.other {{ fill: #6e7681; }}
}}
</style>
<rect class="ground" width="770" height="200" rx="6"/>
{body}
</svg>
"""


# All of it


def fill(page: str) -> str:
    """Return a page with every table made anew.

    Raises:
        KeyError: if a table has no function here.
        ValueError: if the end of a table or of a number is missing, or if a number begins a line:
            Markdown would take the whole line for HTML.
    """
    text, *rest = page.split(BEGIN)
    for part in rest:
        name, _, old = part.partition(CLOSE)
        _, end, following = old.partition(END)
        if not end:
            raise ValueError(f"no {END} follows {BEGIN}{name}")
        text += f"{BEGIN}{name}{CLOSE}\n{TABLES[name]()}\n\n{END}{following}"
    text, numbers = NUMBER.subn(_number, text)
    if text.count("<!--=") != numbers or text.count("<!--/-->") != numbers:
        raise ValueError("a number needs <!--= EXPRESSION -->TEXT<!--/-->, within one line")
    return text


def _number(found: re.Match[str]) -> str:
    if not found.string[: found.start()].rpartition("\n")[2].strip(" -"):
        raise ValueError(f"a number stands at the beginning of a line: {found[1]}")
    made = eval(found[1], globals())  # our own pages, which are reviewed as code is
    return f"<!--= {found[1]} -->{made}<!--/-->"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write below")
    out: Path = parser.parse_args(arguments).out.resolve()
    for page in PAGES:
        target = out / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(fill((ROOT / page).read_text(encoding="utf-8")), encoding="utf-8")
    (out / "results" / "picture.svg").write_text(picture(), encoding="utf-8")
    os.chdir(RESULTS)  # the report names runs by their paths from here
    sections = report_sections(["."], split=True, unfinished=True)
    report = markdown_page("Results", sections)
    (out / "results" / "report.md").write_text(report, encoding="utf-8")
    for name, runs in FIGURES.items():
        found = report_sections(runs, unfinished=True) if runs else sections
        shown = [
            replace(section, figures=(figure,), tables=())
            for section in found
            for figure in section.figures
            if figure.name == name
        ]
        write_figures(shown, out / "results" / "figures")
    drawn = tuple(draw() for draw in DRAWN.values())
    write_figures([Section("figures", figures=drawn)], out / "results" / "figures")


if __name__ == "__main__":
    main()
