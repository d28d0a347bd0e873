"""Sweeps that train: as a grid, resumed and extended; as a search by several processes."""

import json
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

import threefactor
from threefactor import clocked
from threefactor.errors import ConfigurationError
from threefactor.reproduce import grid as engine
from threefactor.reproduce.grid import FAILED, FINISHED
from threefactor.sweeps import Range, Sweep, run_search, run_sweep, search, write_page
from threefactor.training import Run, train

pytest_plugins = ["apart"]
TINY = {"epochs": 1, "hidden": [6], "data.train": 32, "data.test": 16}


class Child:
    """In the place of a process: trains within this one, since to start one takes seconds."""

    started: list[str] = []  # noqa: RUF012
    fails: set[float] = set()  # noqa: RUF012

    def __init__(self, words, log):
        out = Path(words[words.index("--out") + 1])
        Child.started.append(out.name)
        self.code, self.failure = 0, "diverged"
        planned = Child.runs[out]
        if planned.changes.get("optimizer.lr") in Child.fails:
            self.code = 1
            return
        train(planned.settings, out)

    def ask_to_stop(self):
        pass

    def finish(self):
        pass


@pytest.fixture
def children(monkeypatch):
    """Train the runs of grids in this process; the names of those that were trained."""
    Child.started, Child.fails, Child.runs = [], set(), {}
    folder = engine.PlannedRun.folder

    def known(self, root):
        Child.runs[folder(self, root)] = self
        return folder(self, root)

    monkeypatch.setattr(engine.PlannedRun, "folder", known)
    monkeypatch.setattr(engine, "Child", Child)
    monkeypatch.setattr(engine, "POLL", 0.0)
    return Child


def sweep_of(grid, rules=("dfa",), seeds=1, **changes):
    return Sweep("digits-fc", rules, grid, {**TINY, **changes}, seeds)


def test_a_sweep_is_ranked_resumed_and_extended(children, tmp_path):
    small = sweep_of({"lr": (1e-3, 1e-2)}, rules=("opzo", "dfa"))
    ended = run_sweep(small, tmp_path)
    assert [one.kind for one in ended] == [FINISHED] * 4
    first = list(children.started)
    run_sweep(small, tmp_path)
    assert children.started == first
    run_sweep(sweep_of({"lr": (1e-3, 1e-2)}, rules=("opzo", "dfa"), seeds=2), tmp_path)
    assert len(children.started) == 8
    document = json.loads((tmp_path / "sweep.json").read_text())
    assert (document["recipe"], document["rules"], document["seeds"]) == (
        "digits-fc",
        ["opzo", "dfa"],
        2,
    )
    page = write_page(tmp_path, "Sweep")
    text = page.read_text()
    assert "digits-fc: ranking" in text and "4 cells, 8 runs" in text
    scores = {
        name: [
            Run(one.folder).metrics[-1]["test_accuracy"]
            for one in run_sweep(sweep_of({"lr": (name,)}, seeds=2), tmp_path)
        ]
        for name in (1e-3, 1e-2)
    }
    for values in scores.values():
        assert f'data-mean="{50 * sum(values)}"' in text


def test_a_run_that_fails_is_named_on_the_page(children, tmp_path):
    children.fails = {1e-2}
    sweep = sweep_of({"lr": (1e-3, 1e-2)})
    assert [one.kind for one in run_sweep(sweep, tmp_path)] == [FINISHED, FAILED]
    text = write_page(tmp_path, "Sweep").read_text()
    assert "1 of its runs failed and are not ranked: dfa, lr=0.01, seed 0: diverged" in text


def test_a_folder_holds_one_sweep(children, tmp_path):
    run_sweep(sweep_of({"lr": (1e-3,)}), tmp_path)
    with pytest.raises(ConfigurationError, match=r"holds a sweep .*and this is a grid of .*-deep"):
        run_sweep(Sweep("digits-events-deep", ("dfa",), {"lr": (1e-3,)}), tmp_path)
    pytest.importorskip("optuna")
    with pytest.raises(ConfigurationError, match="and this is a search of the recipe"):
        run_search(sweep_of({"lr": (1e-3,)}), tmp_path, 2)


optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="Optuna is not installed")


@optuna
def test_a_search_chooses_within_the_ranges_and_tells_what_it_saw(children, tmp_path):
    grid = {
        "lr": Range(1e-4, 1e-2, log=True),
        "noise_scale": (0.1, 0.2),
        "batch_size": Range(8, 16),
    }
    sweep = sweep_of(grid, rules=("opzo", "dfa"))
    ended = run_search(sweep, tmp_path, 5, jobs=2)
    assert [one.kind for one in ended] == [FINISHED] * 5
    for one in ended:
        settings = one.run.settings
        assert 1e-4 <= settings.optimizer.lr <= 1e-2
        assert 8 <= settings.batch_size <= 16
        if one.run.rule == "opzo":
            assert settings.rule.options["noise_scale"] in (0.1, 0.2)
    study = open_study(tmp_path)
    told = {t.value for t in study.get_trials()}
    assert told == {Run(one.folder).metrics[-1]["test_accuracy"] for one in ended}
    assert run_search(sweep, tmp_path, 5) == []  # there are enough
    assert len(run_search(sweep, tmp_path, 6)) == 1
    assert "6 cells, 6 runs" in write_page(tmp_path, "Search").read_text()


def open_study(out):
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(out / search.JOURNAL))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="sweep", storage=storage)


@optuna
def test_a_trial_that_was_stopped_is_finished_by_the_next_process(children, tmp_path, monkeypatch):
    sweep = sweep_of({"lr": Range(1e-4, 1e-2)})

    def stop(*given, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "run_grid", stop)
        with pytest.raises(KeyboardInterrupt):
            run_search(sweep, tmp_path, 3)
    (left,) = open_study(tmp_path).get_trials()
    assert left.state.name == "RUNNING"
    ended = run_search(sweep, tmp_path, 3)
    assert len(ended) == 3
    assert ended[0].run.changes["optimizer.lr"] == left.params["lr"]
    assert {t.state.name for t in open_study(tmp_path).get_trials()} == {"COMPLETE"}


@optuna
def test_a_cell_is_trained_once_however_often_it_is_chosen(children, tmp_path):
    sweep = sweep_of({"lr": (1e-3, 1e-2)})
    run_search(sweep, tmp_path, 8)
    assert len(children.started) == 2
    trials = open_study(tmp_path).get_trials()
    assert len(trials) == 8
    assert len({t.value for t in trials}) <= 2
    assert "2 cells, 2 runs" in write_page(tmp_path, "Search").read_text()


@optuna
def test_several_searchers_share_the_trials(children, tmp_path, monkeypatch):
    """Threads stand for processes: each takes a place of its own, and no trial is done twice."""
    sweep, seen = sweep_of({"lr": Range(1e-4, 1e-2)}), []
    both = threading.Barrier(2, timeout=60)
    train_trials = search._Search.train

    def together(self, chosen, place, options):
        if place not in seen:
            seen.append(place)
            both.wait()
        return train_trials(self, chosen, place, options)

    monkeypatch.setattr(search._Search, "train", together)
    monkeypatch.setattr(engine, "leave_if_asked", lambda: None)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(run_search(sweep, tmp_path, 6)))
        for _ in range(2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert sorted(seen) == [1, 2]
    assert sum(map(len, found)) == 6 == len(children.started)
    assert len(open_study(tmp_path).get_trials()) == 6


@optuna
@pytest.mark.parametrize(
    ("trials", "grid", "message"),
    [
        (0, {"lr": (1e-3,)}, "search is 0; give the number of trials"),
        (10**6, {"lr": (1e-3,)}, "search is 1000000"),
        (2, {"dropout": Range(0.1, 7.0)}, r"network\.dropout = 7"),
    ],
)
def test_a_search_that_cannot_be(tmp_path, trials, grid, message):
    with pytest.raises(ConfigurationError, match=message):
        run_search(sweep_of(grid), tmp_path, trials)
    assert list(tmp_path.iterdir()) == []


@optuna
def test_a_search_among_other_values_is_refused(children, tmp_path):
    run_search(sweep_of({"lr": (1e-3, 1e-2)}), tmp_path, 1)
    with pytest.raises(ConfigurationError, match="holds a search among other values"):
        run_search(sweep_of({"lr": (1e-3, 5e-2)}), tmp_path, 2)


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[sweep\]'"):
        run_search(sweep_of({"lr": (1e-3,)}), tmp_path, 2)


def test_runs_of_other_code_are_neither_used_nor_changed(children, apart, tmp_path):
    @threefactor.register_rule("mine")
    class Mine(clocked.DFA):
        """The same as DFA."""

    sweep = sweep_of({"lr": (1e-3,)}, rules=("mine",))
    (ended,) = run_sweep(sweep, tmp_path)
    assert ended.kind == FINISHED
    config = ended.folder / "config.json"
    document = json.loads(config.read_text())
    assert list(document["environment"]["code"]) == ["test_sweeps_running.py"]
    document["environment"]["code"] = {"test_sweeps_running.py": "0" * 16}
    config.write_text(json.dumps(document))
    (ended,) = run_sweep(sweep, tmp_path)
    assert ended.kind == "foreign"
    assert "made with other code of your own" in ended.notes[0]
    assert len(children.started) == 1


def test_a_sweep_of_a_recipe_file_names_the_file_in_its_commands(children, apart, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "digits-fc"\nepochs = 1\n[network]\nhidden = [6]\n')
    changes = {"data.train": 32, "data.test": 16}
    sweep = Sweep(str(file), ("dfa",), {"lr": (1e-3, 1e-2)}, changes)
    assert [one.kind for one in run_sweep(sweep, tmp_path / "out")] == [FINISHED] * 2
    assert sweep.runs()[0].command(tmp_path)[:2] == ["train", str(file)]
    assert json.loads((tmp_path / "out/sweep.json").read_text())["recipe"] == "mine"
    assert "digits-fc" not in {part.name for part in (tmp_path / "out/runs").iterdir()}
