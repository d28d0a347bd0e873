"""Which runs make one mean, which are refused, and which are left out with a reason."""

import json

import numpy as np
import pytest

from threefactor.errors import CheckpointError, ConfigurationError
from threefactor.report import collect, published_table
from threefactor.report.comparison import (
    BEST,
    DIFFERENCE,
    LAST,
    accuracy_table,
    cost_table,
    overview_table,
)


def test_seeds_make_a_mean_and_a_deviation(make_run, tmp_path):
    last = [0.91, 0.95, 0.9]
    for seed, accuracy in enumerate(last):
        make_run(f"a{seed}", [0.96, accuracy], seed=seed)
    make_run("b0", [0.5, 0.6], rule="dfa")
    study = collect([tmp_path])
    assert [(g.recipe, g.label, len(g.runs)) for g in study.groups] == [
        ("digits-fc", "OPZO", 3),
        ("digits-fc", "DFA", 1),
    ]
    found = study.groups[0].over_seeds(lambda run: run.last)
    assert found.mean == pytest.approx(np.mean(last))
    assert found.sd == pytest.approx(np.std(last, ddof=1))
    assert study.groups[0].over_seeds(lambda run: run.best).mean == pytest.approx(0.96)
    alone = study.groups[1].over_seeds(lambda run: 100 * run.last)
    assert (alone.sd, alone.text) == (None, "60.00 (1 seed)")


def test_a_folder_given_twice_counts_once(make_run, tmp_path):
    folder = make_run("a0", [0.9])
    assert len(collect([tmp_path, folder.path, tmp_path / "runs"]).runs) == 1


def test_differing_settings_are_refused_and_named(make_run, tmp_path):
    make_run("a0", [0.9], seed=0)
    make_run("a1", [0.8], seed=1, momentum=0.5)
    with pytest.raises(ConfigurationError, match="have no common mean") as problem:
        collect([tmp_path])
    for word in ("rule.options.momentum is 0.99999 in", "a0 but 0.5 in", "a1", "--split"):
        assert word in str(problem.value)
    labels = [group.label for group in collect([tmp_path], split=True).groups]
    assert labels == ["OPZO, momentum=0.99999", "OPZO, momentum=0.5"]


def test_settings_that_read_alike_are_not_pooled(make_run, edit_config, tmp_path):
    """Options of a rule of one's own may be 1 in one run and "1" in another."""
    for seed, value in enumerate([1, "1", None, "None"]):
        folder = make_run(f"a{seed}", [0.5 + 0.1 * seed], seed=seed)
        rule = {"name": "mine", "options": {"kind": value}}
        edit_config(folder, lambda document, rule=rule: document["settings"].update(rule=rule))
    groups = collect([tmp_path], split=True).groups
    labels = [group.label for group in groups]
    assert labels == ["mine, kind=1", "mine, kind='1'", "mine, kind=None", "mine, kind='None'"]
    assert [len(group.runs) for group in groups] == [1, 1, 1, 1]


def test_many_differences_are_not_all_named(make_run, tmp_path):
    make_run("a0", [0.9], seed=0)
    changes = {"momentum": 0.5, "lr": 0.1, "batch_size": 7, "leak": 0.1, "dropout": 0.1, "steps": 3}
    for seed in (1, 2, 3):
        make_run(f"a{seed}", [0.8], seed=seed, **changes)
    with pytest.raises(ConfigurationError, match=r"a1 \(and 2 more\).*and 2 more settings"):
        collect([tmp_path])


def test_one_seed_twice_is_refused(make_run, tmp_path):
    make_run("a0", [0.9])
    make_run("copy", [0.9])
    with pytest.raises(ConfigurationError, match="seed 0; a mean counts each once"):
        collect([tmp_path])


def test_folds_are_one_group_and_each_counts_once(make_run, tmp_path):
    accuracies = [0.90, 0.94, 0.95]
    for fold, accuracy in enumerate(accuracies):
        make_run(f"fold{fold}", [accuracy], folds=3, fold=fold)
    (group,) = collect([tmp_path]).groups
    assert (group.label, len(group.runs)) == ("OPZO, 3 folds", 3)
    found = group.over_seeds(lambda run: run.last)
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.sd == pytest.approx(np.std(accuracies, ddof=1))
    make_run("again", [0.9], folds=3, fold=1)
    with pytest.raises(ConfigurationError, match="seed 0, fold 1; a mean counts each once"):
        collect([tmp_path])


def test_only_runs_of_the_published_settings_have_a_difference(make_run, tmp_path):
    """Others have the published number beside them, and below what is not the recipe's."""
    changes = {"base": "dvs-gesture-conv5", "local_learning": "same-weights", "epochs": 300}
    make_run("a", [0.96] * 300, **changes)
    make_run("b", [0.96] * 2, **{**changes, "epochs": 2, "local_learning": None})
    study = collect([tmp_path])
    table = accuracy_table("dvs-gesture-conv5", study.groups)
    column = table.columns.index(DIFFERENCE)
    found = {row[0]: row[column] for row in table.rows}
    assert found["OPZO (w/ LL)"].value == pytest.approx(96.0 - 96.06)
    assert found["OPZO"] is None
    assert any("OPZO: settings other" in note and "epochs = 2" in note for note in table.notes)


def test_best_epochs_are_compared_with_published_best_epochs(make_run, tmp_path):
    """The figures of SFDFA are the best test epoch of each run; those of OPZO are not."""
    make_run("a", [0.98, 0.99] + [0.97] * 28, base="mnist-events", rule="sfdfa")
    make_run("b", [0.96, 0.95] + [0.98] * 28, base="mnist-events", rule="sfdfa", seed=1)
    (group,) = collect([tmp_path]).groups
    (row,) = rows_of(accuracy_table("mnist-events", [group]))
    published = published_table("sfdfa-table1").value("MNIST 800-10", "SFDFA").mean
    assert row[LAST].mean == pytest.approx(97.5) and row[BEST].mean == pytest.approx(98.5)
    assert row[DIFFERENCE].value == pytest.approx(98.5 - published)
    (row,) = rows_of(overview_table([group]))
    assert row[LAST].mean == pytest.approx(97.5) and row[BEST].mean == pytest.approx(98.5)
    assert row[DIFFERENCE].value == pytest.approx(98.5 - published)


def test_methods_of_the_papers_are_rows_of_their_own(make_run, tmp_path):
    changes = {"base": "dvs-gesture-conv5", "local_learning": "same-weights"}
    make_run("plain", [0.9], base="dvs-gesture-conv5")
    make_run("local", [0.9], **changes)
    make_run("both", [0.9], **changes, intermediate="lif2")
    make_run("noise", [0.9], base="dvs-gesture-conv5", hardware_noise=0.1)
    labels = {group.label for group in collect([tmp_path]).groups}
    assert labels == {"OPZO", "OPZO (w/ LL)", "OPZO (w/ LL&IGL)", "OPZO, noise 0.1"}


def test_fine_tuned_runs_may_start_from_one_run_per_seed(make_run, tmp_path):
    for seed in (0, 1):
        make_run(f"a{seed}", [0.9], seed=seed, start=f"runs/bp-seed{seed}")
    assert len(collect([tmp_path]).groups) == 1
    for seed, digest in ((3, "856830ce1a"), (4, "778de05211")):  # as grids name their folders
        make_run(f"b{seed}", [0.9], rule="dfa", seed=seed, start=f"runs/bp-seed{seed}-{digest}")
    assert [len(group.runs) for group in collect([tmp_path / "runs"]).groups] == [2, 2]
    make_run("a2", [0.9], seed=2, start="runs/other-seed2")
    with pytest.raises(ConfigurationError, match="start is 'runs/bp-seedN'"):
        collect([tmp_path])


def test_an_option_younger_than_a_run_had_its_default(make_run, edit_config, tmp_path):
    old = make_run("a0", [0.9], seed=0)
    make_run("a1", [0.8], seed=1)
    edit_config(old, lambda c: c["settings"]["rule"]["options"].pop("local_learning"))
    (group,) = collect([tmp_path]).groups
    assert len(group.runs) == 2


def test_an_unfinished_run_is_left_out_or_marked(make_run, tmp_path):
    make_run("a0", [0.8, 0.9])
    half = make_run("a1", [0.8, 0.9], seed=1)
    half.metrics_path.write_text(half.metrics_path.read_text().splitlines()[0] + "\n")
    study = collect([tmp_path])
    assert [len(group.runs) for group in study.groups] == [1]
    (left,) = study.left_out
    assert left.path == half.path
    assert "stopped after epoch 1 of 2; resume it with: threefactor train --resume" in left.reason
    labels = [group.label for group in collect([tmp_path], unfinished=True).groups]
    assert labels == ["OPZO", "OPZO (1 of 2 epochs)"]


def _cut(folder):
    text = folder.metrics_path.read_text()
    folder.metrics_path.write_text(text[: len(text) * 3 // 4])


def _twice(folder):
    text = folder.metrics_path.read_text()
    more = text.replace('"epoch": 2', '"epoch": 4').replace('"epoch": 1', '"epoch": 3')
    folder.metrics_path.write_text(text + more)


def _replace(old, new):
    def damage(folder):
        text = folder.metrics_path.read_text()
        assert old in text
        folder.metrics_path.write_text(text.replace(old, new))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "line 2 of metrics.jsonl is cut short"),
        (
            _replace('"epoch": 2', '"epoch": 5'),
            "damaged: it is not that of epoch 2",
        ),
        (
            _replace('"seconds": 1.5', '"seconds": NaN'),
            "line 1 of metrics.jsonl is damaged: seconds is",
        ),
        (
            _replace('"test_accuracy"', '"accuracy"'),
            "damaged: test_accuracy is 'missing'",
        ),
        (_twice, "metrics.jsonl has 4 epochs, and config.json says 2"),
        (lambda f: f.metrics_path.write_bytes(b"\xff\xfe"), "line 1 of metrics.jsonl is cut short"),
        (lambda f: f.metrics_path.write_text(""), "no finished epoch yet"),
        (lambda f: f.metrics_path.unlink(), "metrics.jsonl cannot be read"),
        (lambda f: f.config_path.write_text("{"), "config.json cannot be read"),
        (lambda f: f.config_path.write_text("[1]"), "config.json cannot be read"),
    ],
)
def test_a_damaged_run_is_named_and_left_out(make_run, tmp_path, damage, reason):
    make_run("good", [0.8, 0.9])
    folder = make_run("bad", [0.8, 0.9], seed=1)
    damage(folder)
    study = collect([tmp_path])
    assert len(study.runs) == 1
    (left,) = study.left_out
    assert left.path == folder.path
    assert reason in left.reason


def test_runs_of_other_versions(make_run, edit_config, tmp_path):
    readable, unreadable = make_run("a0", [0.9]), make_run("a1", [0.9], seed=1)
    make_run("a2", [0.9], seed=2)
    edit_config(readable, lambda c: c["environment"].update(threefactor="0.0.9"))

    def newer(document):
        document["environment"]["threefactor"] = "9.0"
        document["settings"]["telepathy"] = True

    edit_config(unreadable, newer)
    study = collect([tmp_path])
    assert "made by threefactor 9.0, and 0." in study.left_out[0].reason
    assert "telepathy" in study.left_out[0].reason
    (remark,) = study.remarks
    assert "different versions of threefactor: 0.0.9, 0." in remark


def test_a_run_that_went_on_in_another_environment_is_remarked_on(make_run, edit_config, tmp_path):
    changed = make_run("a0", [0.8, 0.9])
    edit_config(changed, lambda c: c.update(resumed=[{"epoch": 1.5, "threads": 7}]))
    damaged = make_run("a1", [0.8, 0.9], seed=1)
    edit_config(damaged, lambda c: c.update(resumed=[{"threads": 7}]))
    study = collect([tmp_path])
    (remark,) = study.remarks
    assert "a0 was resumed in another environment after epoch 1.5 (threads 7)" in remark
    (left_out,) = study.left_out
    assert "resumed is [{'threads': 7}]" in left_out.reason
    ((*_, threads),) = cost_table("digits-fc", next(iter(study.recipes.values()))).rows
    assert threads.split(", ")[-1] == "7"


RECORD = {"train": 100, "test": 20, "labels": "ab", "first_inputs": [1.0, 2.0]}


def test_what_settings_do_not_tell_is_remarked_on(make_run, edit_config, tmp_path):
    """Other samples under the same name, changed code, epochs that were added later."""
    folders = [make_run(f"a{seed}", [0.8, 0.9], seed=seed) for seed in range(3)]
    for folder in folders:
        edit_config(folder, lambda document: document.update(data=RECORD))
    assert collect([tmp_path]).remarks == ()
    edit_config(folders[1], lambda document: document["data"].update(labels="cd"))
    edit_config(folders[2], lambda document: document["data"].update(train=90))
    for folder, digest in zip(folders, ("1", "1", "2"), strict=True):
        code = {"mine.py": digest}
        edit_config(folder, lambda d, code=code: d["environment"].update(code=code))
    longer = [{"epoch": 1, "epochs": 2}]
    edit_config(folders[0], lambda document: document.update(extended=longer))
    study = collect([tmp_path])
    assert len(study.groups) == 1
    added, labels, fewer, code = study.remarks
    assert "a0 was trained on after epoch 1, to 2: if learning rate or noise" in added
    assert "a1 was trained on other data than" in labels and "(the labels differ)" in labels
    assert "(100 samples for training in that, 90 in this)" in fewer
    assert code.endswith('user\'s own: {"mine.py": "1"}; {"mine.py": "2"}.')
    edit_config(folders[2], lambda document: document["data"].pop("labels"))
    (left,) = collect([tmp_path]).left_out
    assert "a2" in str(left.path) and "record of the data" in left.reason


def test_folds_have_samples_of_their_own(make_run, edit_config, tmp_path):
    for seed in range(2):
        for fold in range(2):
            folds = {"data.folds": 2, "data.fold": fold}
            folder = make_run(f"a{seed}{fold}", [0.9], seed=seed, **folds)
            record = {**RECORD, "labels": f"of fold {fold}"}
            edit_config(folder, lambda document, record=record: document.update(data=record))
    assert collect([tmp_path]).remarks == ()


def test_nothing_to_report(make_run, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty holds no run"):
        collect([tmp_path / "empty"])
    folder = make_run("a0", [0.9])
    folder.metrics_path.unlink()
    with pytest.raises(CheckpointError, match=r"no finished run to report.*a0: metrics.jsonl"):
        collect([tmp_path])


def test_a_rule_of_ones_own_keeps_its_name(make_run, edit_config, tmp_path):
    folder = make_run("a0", [0.9])
    edit_config(folder, lambda c: c["settings"]["rule"].update(name="mine", options={"k": 1}))
    (group,) = collect([tmp_path]).groups
    assert (group.label, group.settings["rule.options.k"]) == ("mine", 1)
    assert json.dumps(group.settings)


def rows_of(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_the_direct_test_stands_beside_what_fine_tuning_made_of_it(make_run, tmp_path):
    for seed, before in ((0, 0.50), (1, 0.54)):
        run = make_run(f"a{seed}", [0.9], seed=seed, start=f"runs/bp-seed{seed}")
        run.write_start({"start": f"runs/bp-seed{seed}", "test_accuracy": before})
    make_run("plain", [0.8], rule="dfa")
    groups = collect([tmp_path / "runs"]).groups
    tuned, plain = sorted(rows_of(accuracy_table("digits-fc", groups)), key=lambda r: r["seeds"])[
        ::-1
    ]
    assert tuned["direct test, %"].text == "52.00 ± 2.83"
    assert plain["direct test, %"] is None
    assert "published direct test, %" not in tuned


def test_the_published_direct_test_is_found_by_the_noise(make_run):
    run = make_run(
        "noise", [0.6], base="imagenet-nfresnet34-noise", start="pretrained", hardware_noise=0.15
    )
    run.write_start({"start": "pretrained", "test_accuracy": 0.53})
    (group,) = collect([run.path]).groups
    (row,) = rows_of(accuracy_table(group.recipe, [group]))
    assert row["published direct test, %"].mean == 54.01
    assert row["published, %"].mean == 60.96


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"test_accuracy": "x"}', '{"test_accuracy": NaN}']
)
def test_a_damaged_direct_test_leaves_the_run_out(make_run, tmp_path, text):
    make_run("good", [0.9])
    make_run("bad", [0.9], seed=1).start_path.write_text(text)
    study = collect([tmp_path / "runs"])
    assert len(study.runs) == 1
    (left,) = study.left_out
    assert "start.json" in left.reason


def test_there_is_no_difference_for_what_is_not_finished(make_run):
    run = make_run("a0", [0.98], base="mnist-fc", epochs=50)
    (group,) = collect([run.path], unfinished=True).groups
    (row,) = rows_of(accuracy_table(group.recipe, [group]))
    assert row["rule"] == "OPZO (1 of 50 epochs)"
    assert row["published, %"].mean == 98.34
    assert DIFFERENCE not in row
    make_run("a1", [0.98] * 50, base="mnist-fc", seed=1)
    (other,) = collect([run.path.parent / "a1"]).groups
    (row,) = rows_of(accuracy_table(other.recipe, [other]))
    assert row[DIFFERENCE].value == pytest.approx(98.0 - 98.34)
