"""The accuracies in the README are those of the committed results."""

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {"OPZO": "opzo", "spatial BP": "spatial-bp", "DKP": "dkp", "DFA": "dfa", "ZO": "zo"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def accuracies(recipe, rule):
    """Percent after the last epoch, of every seed, the lowest seed first."""
    files = sorted((ROOT / "results" / recipe).glob(f"{rule}-seed*/metrics.jsonl"))
    lines = [file.read_text().splitlines()[-1] for file in files]
    return [100 * json.loads(line)["test_accuracy"] for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_digits(name):
    mean, deviation = re.search(rf"\| {name} \| ([\d.]+) ± ([\d.]+) % \|", README).groups()
    found = accuracies("digits-fc", NAMES[name])
    assert len(found) == 4
    assert float(mean) == pytest.approx(statistics.mean(found), abs=0.0051)
    assert float(deviation) == pytest.approx(statistics.stdev(found), abs=0.0051)


@pytest.mark.parametrize("name", ["OPZO", "spatial BP", "DFA", "ZO"])
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


EVENTS = {"exact BP": "exact-bp", "SFDFA": "sfdfa", "DFA": "dfa"}
ROW = (
    r"\| (MNIST|Fashion-MNIST|digits|Yin-Yang), [\d-]+ \| ([\w ]+) "
    r"\| (\d+) \| ([\d of]+) \| ([^|]+) % \|"
)


def test_exact_spike_times():
    rows = re.findall(ROW, README)
    assert len(rows) >= 10
    for data, rule, seeds, epochs, quoted in rows:
        found = accuracies(f"{data.lower()}-events", EVENTS[rule])
        assert len(found) == int(seeds), (data, rule)
        mean, _, deviation = quoted.partition(" ± ")
        assert float(mean) == pytest.approx(statistics.mean(found), abs=0.0051)
        if deviation:
            assert float(deviation) == pytest.approx(statistics.stdev(found), abs=0.0051)
        run = ROOT / f"results/{data.lower()}-events/{EVENTS[rule]}-seed0/metrics.jsonl"
        assert len(run.read_text().splitlines()) == int(epochs.split()[0])


def test_jaxsnn_beside_exact_bp():
    path = ROOT / "results/benchmarks/events_yin_yang.json"
    found = json.loads(path.read_text())["yin-yang"]
    medians, minima = re.search(
        r"takes (\d+) times as long .*?; (\d+) times by the minima", README, re.DOTALL
    ).groups()
    assert int(medians) == round(found["train_ratio_of_median"])
    assert int(minima) == round(found["train_ratio_of_min"])
