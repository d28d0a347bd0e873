"""What belongs to each table and figure."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from threefactor.errors import ConfigurationError
from threefactor.report.published import find_published, published_tables
from threefactor.reproduce import catalog, exhibit, listing
from threefactor.reproduce.budgets import BUDGETS, changes_for
from threefactor.reproduce.planned import PlannedRun
from threefactor.training.folder.run import plain_settings

TRAINED = ("test accuracy", "firing rate")


def test_every_published_table_has_its_name():
    parts = {"opzo-table4-epochs", "opzo-table4-direct"}
    shown = published_tables().keys() - parts
    assert shown <= catalog().keys()
    assert {f"sfdfa-figure{i}" for i in range(1, 11)} <= catalog().keys()
    assert {"opzo-figure2", "opzo-figure3-nmnist", "opzo-figure3-dvs-cifar10"} <= catalog().keys()


@pytest.mark.parametrize(
    ("name", "count"),
    [("opzo-table1", 32), ("opzo-table2", 4), ("opzo-table3", 10), ("opzo-table8", 18)],
)
def test_there_is_a_row_for_every_published_number(name, count):
    rows = [row for row in exhibit(name).rows if row.in_paper]
    assert len(rows) == count
    values = published_tables()[name].values
    assert count == sum(value is not None for line in values for value in line)


@pytest.mark.parametrize("name", ["opzo-table1", "opzo-table2", "opzo-table3", "sfdfa-table1"])
def test_rows_stand_beside_the_numbers_of_their_own_table(name):
    for row in exhibit(name).rows:
        settings = plain_settings(row.runs("paper")[0].settings)
        sources = {found.source for found in find_published(settings)}
        table = published_tables()[name].where
        assert any(source.endswith(table) for source in sources) == row.in_paper, row


BY_TABLE = {
    name: [value.mean for line in table.values for value in line if value and value.mean]
    for name, table in published_tables().items()
    if table.quantity == "test accuracy" and name in catalog()
}


@pytest.mark.parametrize("name", sorted(BY_TABLE.keys() - {"opzo-table4"}))
def test_every_row_has_the_number_of_its_own_table(name):
    one = exhibit(name)
    found = [one.published(row) for row in one.rows if row.in_paper]
    assert {p.table for p in found} == {name}
    assert sorted(p.mean for p in found) == sorted(BY_TABLE[name])
    assert all(one.published(row) is None for row in one.rows if not row.in_paper)


def test_numbers_of_special_rows_by_hand():
    def of(name):
        one = exhibit(name)
        found = {row.method: one.published(row) for row in one.rows if row.in_paper}
        return {method: p and p.mean for method, p in found.items()}

    assert of("opzo-table2") == {
        "OPZO": 85.73,
        "OPZO, noise position before": 84.37,
        "OPZO, noise distribution rademacher": 85.69,
        "OPZO, noise position before, noise distribution rademacher": 84.03,
    }
    assert of("sfdfa-figure4") == {
        "SFDFA, exact gradient": None,  # nobody printed it
        "SFDFA, modified gradient": 98.56,
    }
    noisy = of("opzo-table4")
    assert noisy["ZO, noise 0.1"] == 52.42 and noisy["OPZO, noise 0.15"] == 60.96
    assert of("opzo-table7-cifar-10")["DFA"] == 79.9  # the accuracy, of table 1


def test_the_rows_of_a_table_are_different_runs():
    for one in catalog().values():
        prints = [row.runs("paper")[0].fingerprint for row in one.rows]
        assert len(set(prints)) == len(prints), one.name


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_run_has_settings_in_every_budget(budget):
    for one in catalog().values():
        for row in one.rows:
            runs = row.runs(budget)
            assert all(run.settings.rule.name == row.rule for run in runs)
            assert len(runs) == (3 if budget == "paper" else 1)


@pytest.mark.parametrize("name", ["opzo-table1", "opzo-table2", "opzo-table3", "opzo-table8"])
def test_different_runs_have_different_names(name):
    runs = [run for row in exhibit(name).rows for run in row.runs("smoke")]
    named = {(run.recipe, run.name): run.fingerprint for run in runs}
    assert len(named) == len({run.fingerprint for run in runs})


def test_the_paper_budget_is_the_recipe_itself():
    (row,) = [
        r
        for r in exhibit("opzo-table1").rows
        if (r.recipe, r.method) == ("cifar10-conv5", "OPZO (w/ LL)")
    ]
    settings = row.runs("paper")[0].settings
    assert (settings.epochs, settings.seed, settings.data.train) == (300, 2022, None)
    assert settings.rule.options["local_learning"] == "same-weights"
    smoke = row.runs("smoke")[0].settings
    assert (smoke.epochs, smoke.data.train, smoke.network.width) == (1, 100, 0.03)
    assert smoke.rule.options == settings.rule.options


def test_fine_tuning_starts_from_runs_of_its_own_size():
    for row in exhibit("opzo-table4").rows:
        (run,) = row.runs("smoke")
        assert run.settings.hardware_noise in (0.1, 0.15, 0.5)
        networks = [replace(c.settings.network, dropout=0.0) for c in (run, run.start)]
        assert networks[0] == networks[1]
        assert run.start.settings.hardware_noise is None


def test_figures_9_and_10_are_of_the_same_runs_and_track_them():
    figures = [exhibit(f"sfdfa-figure{i}") for i in (9, 10)]
    first, second = ([run.fingerprint for run in one.runs("paper")] for one in figures)
    assert first == second
    assert [one.tracked for one in figures] == ["alignment", "feedback"]
    for run in (run for one in figures for run in one.runs("smoke")):
        assert {"alignment", "feedback"} <= set(run.settings.track.measures)
        assert run.settings.track.every == 1
    assert {row.rule for row in figures[0].rows if row.in_paper} == {"sfdfa", "dfa"}


def test_runs_keep_the_folders_that_they_had_before_there_were_younger_settings():
    values = asdict(PlannedRun("digits-fc", "dfa").settings)
    assert values.pop("track") is None
    assert values["data"].pop("sort") is False
    assert values["data"].pop("options") == {}
    assert values["data"].pop("place") == "auto"
    assert values.pop("start_prefix") == ""
    assert values["rule"]["options"].pop("untraced") == []
    before = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
    assert PlannedRun("digits-fc", "dfa").fingerprint == before
    assert PlannedRun("digits-fc", "dfa", changes={"track": {}}).fingerprint != before


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'opzo-table1'"):
        exhibit("ozpo-table1")


def test_the_list_tells_data_that_is_found_from_absent_data(tmp_path):
    catalog.cache_clear()
    entries = {one.exhibit.name: one for one in listing(tmp_path)}
    assert not any("rows" in vars(one) for one in catalog().values()), "the list makes no rows"
    first = entries["opzo-table1"]
    assert first.found == ("digits", "simulated-digits")
    assert set(first.absent) >= {"mnist", "cifar10", "nmnist", "dvs-gesture"}
    assert entries["sfdfa-figure1"].found == entries["sfdfa-figure1"].absent == ()


def test_exhibits_name_the_recipes_of_their_rows():
    for one in catalog().values():
        assert set(one.recipes) == {row.recipe for row in one.rows}, one.name


def test_a_budget_never_trains_longer_than_the_rule_does():
    """Fine-tuning by spatial BP takes one epoch, whatever the budget gives the others."""
    for name in ("cifar10-conv5-small-noise", "imagenet-nfresnet34-noise"):
        assert changes_for(name, "quick", "spatial-bp")["epochs"] == 1
        assert changes_for(name, "quick", "opzo")["epochs"] == 3
    rows = {row.rule: row for row in exhibit("opzo-table4").rows if row.data == "digits-fc-noise"}
    rates = {rule: row.runs("paper")[0].settings.optimizer.lr for rule, row in rows.items()}
    assert rates["zo"] == pytest.approx(rates["opzo"] / 10)
    assert rows["spatial-bp"].runs("paper")[0].settings.epochs == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mnist-fc", {"epochs": 3, "data.train": 30000}),
        ("nmnist-fc", {"epochs": 3, "data.train": 6000}),  # 30 steps in place of 6
        ("mnist-events", {"epochs": 3}),
        (
            "dvs-gesture-conv5",  # 20 steps
            {"epochs": 3, "data.train": 450, "data.test": 450, "network.width": 0.25},
        ),
        ("digits-fc", {}),
    ],
)
def test_the_budget_quick_by_hand(name, changes):
    assert changes_for(name, "quick", "opzo" if "events" not in name else "sfdfa") == changes
