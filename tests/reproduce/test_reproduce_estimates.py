"""Estimates of time, against the runs that were made."""

import math
import statistics
from pathlib import Path

import pytest

from threefactor.data.sets.catalog import DATASETS
from threefactor.recipes import recipe
from threefactor.reproduce import catalog
from threefactor.reproduce.estimates import START, milliseconds_per_sample, seconds_for
from threefactor.training import RunFolder

RESULTS = Path(__file__).parents[2] / "results"
RUNS = sorted(RESULTS.glob("*/*/metrics.jsonl"))


def measured(path):
    """Milliseconds per training sample of the faster epochs, since machines were shared."""
    run = RunFolder(path.parent)
    samples = (run.config().get("data") or {}).get("train") or run.settings().data.train or 60000
    samples = {"digits": 1437, "yin-yang": 5000}.get(run.settings().data.name, samples)
    seconds = [line["seconds"] for line in run.metrics()]
    fast = statistics.quantiles(seconds, n=10)[0] if len(seconds) > 1 else seconds[0]
    return 1000 * fast / samples


@pytest.mark.parametrize("kind", ["fc", "events-fc", "conv5"])
def test_they_are_right_on_average(kind):
    runs = [p for p in RUNS if RunFolder(p.parent).settings().network.kind == kind]
    ratios = [
        math.log(milliseconds_per_sample(RunFolder(p.parent).settings()) / measured(p))
        for p in runs
    ]
    assert 1 / 3 < math.exp(statistics.fmean(ratios)) < 3.0


@pytest.mark.parametrize(
    "path", [p for p in RUNS if "mnist" in str(p)], ids=lambda p: p.parent.name
)
def test_they_are_right_within_two_times_on_real_data(path):
    settings = RunFolder(path.parent).settings()
    assert 0.5 < milliseconds_per_sample(settings) / measured(path) < 2.0


def test_rules_differ_as_they_were_measured():
    def of(name, rule):
        return milliseconds_per_sample(recipe(name).settings_for(rule))

    assert of("fashion-mnist-events", "exact-bp") > 2 * of("fashion-mnist-events", "dfa")
    assert of("mnist-fc", "spatial-bp") > 1.2 * of("mnist-fc", "dfa")
    assert of("mnist-fc", "dfa") > 2 * of("digits-fc", "dfa")
    assert of("nmnist-fc", "dfa") > 5 * of("mnist-fc", "dfa")  # 30 steps, and more inputs


def test_no_table_takes_long_at_the_budget_quick():
    for one in catalog().values():
        assert one.seconds("quick", DATASETS) / 2 < 30 * 60, one.name


def test_a_data_set_of_unknown_size_has_an_estimate():
    assert seconds_for("shd-like-events", "dfa", {}) > 30


def test_a_run_by_hand():
    changes = {"epochs": 2, "data.train": 1000}
    weights = 784 * 800 + 800 * 800
    expected = START + 2 * 1000 * (0.105 + 1.95e-7 * weights) / 1000
    assert seconds_for("mnist-fc", "dfa", changes) == pytest.approx(expected)
