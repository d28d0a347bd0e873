"""The published numbers are complete, and found for the runs that they belong to."""

import pytest

from threefactor import clocked, events
from threefactor.errors import ConfigurationError
from threefactor.recipes import RECIPES, recipe
from threefactor.report import find_published, published_table, published_tables
from threefactor.report.citing import references
from threefactor.training.folder.run import plain_settings


def numbers(base, rule, quantity="test accuracy", **changes):
    settings = plain_settings(recipe(base).settings_for(rule, changes))
    return [(p.mean, p.sd, p.source) for p in find_published(settings, quantity)]


@pytest.mark.parametrize(
    ("base", "rule", "changes", "expected"),
    [
        ("mnist-fc", "opzo", {}, [(98.34, 0.1, "OPZO, table 1"), (98.44, None, "OPZO, table 8")]),
        ("mnist-fc", "spatial-bp", {}, [(98.38, 0.02, "OPZO, table 1")]),
        ("mnist-fc", "dkp", {}, [(98.14, None, "OPZO, table 8")]),
        ("nmnist-fc", "zo", {}, [(72.9, 1.14, "OPZO, table 1")]),
        (
            "dvs-gesture-conv5",
            "opzo",
            {"local_learning": "same-weights"},
            [(96.06, 0.33, "OPZO, table 1")],
        ),
        ("dvs-gesture-conv5", "opzo", {"local_learning": "fixed"}, []),
        ("cifar100-conv9", "dfa", {}, [(54.17, 0.54, "OPZO, table 3")]),
        ("cifar100-conv9", "dfa", {"intermediate": None}, [(52.94, 0.2, "OPZO, table 3")]),
        (
            "cifar10-conv5",
            "opzo",
            {"noise_distribution": "rademacher", "noise_position": "before"},
            [(84.03, 0.23, "OPZO, table 2")],
        ),
        (
            "imagenet-nfresnet34-noise",
            "zo",
            {"hardware_noise": 0.15},
            [(30.32, None, "OPZO, table 4")],
        ),
        ("mnist-events", "dfa", {}, [(98.42, 0.06, "SFDFA, table 1")]),
        ("shd-events", "sfdfa", {}, [(54.63, 1.16, "SFDFA, table 1")]),
        ("emnist-events", "exact-bp", {}, [(85.75, 0.06, "SFDFA, table 1")]),
        ("digits-fc", "opzo", {}, []),
        ("fashion-mnist-fc", "opzo", {}, []),
        ("cifar10-conv5-small", "opzo", {}, []),
    ],
)
def test_what_stands_beside_a_run(base, rule, changes, expected):
    assert numbers(base, rule, **changes) == expected


def test_firing_rates_by_layer():
    settings = plain_settings(recipe("cifar10-conv5").settings_for("dfa"))
    found = {p.layer: p.mean for p in find_published(settings, "firing rate")}
    assert found == {
        "lif1": 0.1769,
        "lif2": 0.3787,
        "lif3": 0.4314,
        "lif4": 0.4149,
        "total": 0.2759,
    }
    assert set(found) - {"total"} == {
        name
        for name, m in clocked.conv5((3, 32, 32), width=0.1).named_modules()
        if isinstance(m, clocked.LIF)
    }


def test_every_published_accuracy_can_be_met():
    """Each cell of a table of accuracies belongs to some recipe with some settings."""
    known = {
        name: plain_settings(r.settings_for("opzo" if name in _clocked() else "sfdfa"))
        for name, r in RECIPES.items()
    }
    for table in published_tables().values():
        for line in (*table.columns, *table.rows):
            for key, wanted in {**table.match, **(line.match or {})}.items():
                if key == "recipe":
                    assert wanted in RECIPES
                elif key == "rule.name":
                    assert wanted in {**clocked.RULES, **events.RULES}
                else:
                    wanting = [n for n in RECIPES if (n in _clocked()) == (table.paper == "opzo")]
                    assert all(key in known[name] for name in wanting), key


def _clocked():
    return [name for name, r in RECIPES.items() if r.settings.steps is not None]


def test_tables_are_whole():
    tables = published_tables()
    assert len(tables) == 12
    for table in tables.values():
        assert len(table.values) == len(table.rows)
        assert all(len(row) == len(table.columns) for row in table.values)
    assert published_table("opzo-table5").value("BP", "memory").text == "(N-1)n^2 + mn"
    assert published_table("opzo-table6").value("OPZO", "memory, GB").mean == 2.9
    assert published_table("opzo-table4").value("0.15", "Direct test").mean == 54.01
    assert published_table("opzo-table1").value("OPZO (w/ LL)", "MNIST") is None
    settings = plain_settings(recipe("mnist-fc").settings_for("opzo"))
    assert {p.key for p in find_published(settings)} <= set(references())


def test_unknown_names():
    with pytest.raises(ConfigurationError, match="did you mean 'opzo-table1'"):
        published_table("opzo-tabel1")
    with pytest.raises(ConfigurationError, match="unknown column 'EMNIST'"):
        published_table("opzo-table1").value("OPZO", "EMNIST")
