"""The accuracies in the README are those of the committed results."""

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {"OPZO": "opzo", "spatial BP": "spatial-bp", "DKP": "dkp", "DFA": "dfa", "ZO": "zo"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def runs(recipe, rule, seed="*"):
    """Percent after each epoch, of every seed or of one, the lowest seed first."""
    files = sorted((ROOT / "results" / recipe).glob(f"{rule}-seed{seed}/metrics.jsonl"))
    return [
        [100 * json.loads(line)["test_accuracy"] for line in file.read_text().splitlines()]
        for file in files
    ]


def accuracies(recipe, rule, seed="*"):
    """Percent after the last epoch, of every seed or of one."""
    return [epochs[-1] for epochs in runs(recipe, rule, seed)]


@pytest.mark.parametrize("name", NAMES)
def test_digits(name):
    mean, deviation = re.search(rf"\| {name} \| ([\d.]+) ± ([\d.]+) % \|\n", README).groups()
    found = accuracies("digits-fc", NAMES[name])
    assert len(found) == 4
    assert float(mean) == pytest.approx(statistics.mean(found), abs=0.0051)
    assert float(deviation) == pytest.approx(statistics.stdev(found), abs=0.0051)


@pytest.mark.parametrize("name", ["OPZO", "spatial BP", "DKP", "DFA", "ZO"])
def test_mnist(name):
    (quoted,) = re.search(rf"\| {name} \| ([\d.]+) % \| [\d.]+ % \|", README).groups()
    assert float(quoted) == pytest.approx(accuracies("mnist-fc", NAMES[name])[0], abs=0.0051)


def test_three_seeds_of_opzo():
    found = re.search(r"three seeds \(2022, 0, 1\): ([\d.]+) ± ([\d.]+) %", README).groups()
    seeds = accuracies("mnist-fc", "opzo")
    assert len(seeds) == 3
    assert float(found[0]) == pytest.approx(statistics.mean(seeds), abs=0.0051)
    assert float(found[1]) == pytest.approx(statistics.stdev(seeds), abs=0.0051)


def test_times():
    rows = json.loads((ROOT / "results/benchmarks/clocked_step.json").read_text())["rows"]
    for name, rule in NAMES.items():
        quoted = re.search(rf"\| threefactor, {name} \| ([\d.]+); ([\d.]+) \|", README).groups()
        row = rows[f"threefactor {rule}"]
        assert float(quoted[0]) == pytest.approx(row["ratio_of_medians"], abs=0.0051)
        assert float(quoted[1]) == pytest.approx(row["ratio_of_minima"], abs=0.0051)


def test_times_of_convolutions():
    rows = json.loads((ROOT / "results/benchmarks/clocked_step_conv5.json").read_text())["rows"]
    found = re.search(
        r"OPZO's step takes\s+([\d.]+) times .*? medians, ([\d.]+) by the minima, "
        r"and spatial BP's ([\d.]+) and ([\d.]+\d)",
        README,
        re.DOTALL,
    ).groups()
    for rule, medians, minima in (("opzo", *found[:2]), ("spatial-bp", *found[2:])):
        row = rows[f"threefactor {rule}"]
        assert float(medians) == pytest.approx(row["ratio_of_medians"], abs=0.0051)
        assert float(minima) == pytest.approx(row["ratio_of_minima"], abs=0.0051)


def test_memory_does_not_grow():
    low, high = re.search(r"between ([\d.]+)\s+and ([\d.]+) times that at T = 6", README).groups()
    files = sorted((ROOT / "results/benchmarks").glob("clocked_memory*.json"))
    tables = [json.loads(file.read_text())["rows"] for file in files]
    ratios = [row["ratio"] for table in tables for row in table.values()]
    assert len(files) == 4
    assert (float(low), float(high)) == (round(min(ratios), 2), round(max(ratios), 2))


def test_cifar():
    """Every number of the three tables is that of a run, by what its row and column say."""
    folder = "cifar10-conv5-small"
    options = {
        "": "",
        " with local learning": "-ll",
        " with local learning, its weight 1": "-ll-scale1",
    }
    rows = re.findall(
        r"\| (spatial BP|OPZO|DFA|ZO)([\w ,]*?)(?: in place of [\d.]+)? "
        r"\| ([\d.]+) % \| (?:([\d.]+) % )?\| (?:[\d.]+ % )?\|",
        README,
    )
    assert len(rows) == 7
    for rule, option, *seeds in rows:
        for seed, quoted in enumerate(seeds):
            if quoted:
                (found,) = accuracies(folder, f"{NAMES[rule]}{options[option]}", seed)
                assert float(quoted) == pytest.approx(found, abs=0.0051)
    kinds = {
        "gaussian": ("opzo", "opzo-before"),
        "Rademacher": ("opzo-rademacher", "opzo-before-rademacher"),
    }
    for kind, names in kinds.items():
        quoted = re.search(rf"\| {kind} \| ([\d.]+) % \| ([\d.]+) % \| 8", README).groups()
        for text, name in zip(quoted, names, strict=True):
            assert float(text) == pytest.approx(accuracies(folder, name, 1)[0], abs=0.0051)


def test_fashion_mnist():
    section = README.partition("**Fashion-MNIST** with")[2].partition("**CIFAR")[0]
    rows = re.findall(r"\| ([\w ]+) \| ([\d.]+) % \|", section)
    assert len(rows) >= 3
    for rule, quoted in rows:
        (found,) = accuracies("fashion-mnist-fc", NAMES[rule])
        assert float(quoted) == pytest.approx(found, abs=0.0051)


def test_nmnist():
    rows = re.findall(r"\| ([\w ]+) \| ([\d.]+) ± ([\d.]+) % \| [\d.]+ % \|\n", README)
    assert len(rows) == 3
    for rule, mean, deviation in rows:
        files = sorted((ROOT / "results/nmnist-fc").glob(f"{NAMES[rule]}-fold[0-9]/metrics.jsonl"))
        found = [100 * json.loads(f.read_text().splitlines()[-1])["test_accuracy"] for f in files]
        assert len(found) == 5
        assert float(mean) == pytest.approx(statistics.mean(found), abs=0.0051)
        assert float(deviation) == pytest.approx(statistics.stdev(found), abs=0.0051)


def test_fine_tuning_under_noise():
    folder = ROOT / "results/cifar10-conv5-small"
    (direct,) = re.search(r"([\d.]+) % at the direct test", README).groups()
    for rule in ("spatial-bp", "opzo", "dfa", "zo"):
        start = json.loads((folder / f"noise-{rule}-seed0/start.json").read_text())
        assert float(direct) == pytest.approx(100 * start["test_accuracy"], abs=0.0051)
    rows = re.findall(
        r"\| ([\w ]+) \| (\d) \| ([\d.]+) %(?: \(after 1: ([\d.]+) %\))? \|\n", README
    )
    assert len(rows) == 4
    for rule, epochs, last, first in rows:
        (found,) = runs("cifar10-conv5-small", f"noise-{NAMES[rule]}")
        assert len(found) == int(epochs)
        assert float(last) == pytest.approx(found[-1], abs=0.0051)
        assert not first or float(first) == pytest.approx(found[0], abs=0.0051)


EVENTS = {"exact BP": "exact-bp", "SFDFA": "sfdfa", "DFA": "dfa"}
ROW = (
    r"\| (MNIST|Fashion-MNIST|synthetic spoken digits|digits|Yin-Yang), [\d-]+ \| ([\w ]+) "
    r"\| (\d+) \| ([\d of]+) \| ([^|]+) % \| ([^|]+) % \|"
)


def assert_quoted(quoted, found):
    mean, _, deviation = quoted.partition(" ± ")
    assert float(mean) == pytest.approx(statistics.mean(found), abs=0.0051)
    assert bool(deviation) == (len(found) > 1)
    if deviation:
        assert float(deviation) == pytest.approx(statistics.stdev(found), abs=0.0051)


def test_exact_spike_times():
    rows = re.findall(ROW, README)
    assert len(rows) >= 10
    for data, rule, seeds, epochs, last, best in rows:
        recipe = {"synthetic spoken digits": "shd-like"}.get(data, data.lower())
        found = runs(f"{recipe}-events", EVENTS[rule])
        assert len(found) == int(seeds), (data, rule)
        assert len(found[0]) == int(epochs.split()[0])
        assert_quoted(last, [accuracy[-1] for accuracy in found])
        assert_quoted(best, [max(accuracy) for accuracy in found])


def test_jaxsnn_beside_exact_bp():
    path = ROOT / "results/benchmarks/events_yin_yang.json"
    found = json.loads(path.read_text())["yin-yang"]
    medians, minima = re.search(
        r"takes (\d+) times as long .*?; (\d+) times by the minima", README, re.DOTALL
    ).groups()
    assert int(medians) == round(found["train_ratio_of_median"])
    assert int(minima) == round(found["train_ratio_of_min"])
