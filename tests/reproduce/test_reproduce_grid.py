"""Grids of runs: reuse, interruption, failure, damage."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from threefactor import training
from threefactor.cli.app import app
from threefactor.errors import CheckpointError, ConfigurationError, ThreefactorError
from threefactor.recipes import RECIPES, recipe
from threefactor.reproduce import (
    Observer,
    PlannedRun,
    catalog,
    grid,
    planned,
    run_grid,
)
from threefactor.reproduce.grid import Here, _Grid, _Job, _silence
from threefactor.reproduce.planned import prepare, state_of
from threefactor.reproduce.reproduction import Analyser
from threefactor.training import Run, RunFolder, Trainer
from threefactor.training.build import load_samples
from threefactor.training.folder import checkpoint
from threefactor.training.folder.lock import LOCK
from threefactor.training.overrides import parse_assignment

COMMAND = [sys.executable, "-m", "threefactor"]
SMALL = {"hidden": [16], "epochs": 2, "data.train": 60, "data.test": 30, "batch_size": 20}


def plan(rule="dfa", seed=0, **changes):
    return PlannedRun("digits-fc", rule, seed, {**SMALL, **changes})


def command(words):
    """Run `threefactor` in this process, which has imported everything already."""
    CliRunner().invoke(app, words, catch_exceptions=False)


def train_here(given, root):
    """Do what a grid does for a run, in this process; return what it notes."""
    words, notes = prepare(given, root)
    command([*words, "--threads", "1", "--out", str(given.folder(root))])
    return notes


class ChildHere:
    """Stands in for the process of an analysis."""

    code = 0

    def __init__(self, words, log):
        command(words)

    def finish(self):
        pass


def metrics(given, root):
    lines = Run(given.folder(root)).metrics
    return [{k: line[k] for k in ("epoch", "train_loss", "test_loss")} for line in lines]


class Log(Observer):
    def __init__(self):
        self.totals, self.seen, self.ended, self.running = None, [], [], []

    def start(self, epochs, done):
        self.totals = (epochs, done)

    def progress(self, done, running):
        self.seen.append(done)
        self.running.append(running)

    def outcome(self, outcome):
        self.ended.append(outcome.kind)


def test_finished_runs_are_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "POLL", 0.001)  # looks before the short run has ended
    runs = [plan(), plan(seed=1), plan()]
    first = run_grid(runs, tmp_path, jobs=2)
    assert [o.kind for o in first] == ["finished"] * 3
    assert first[0].folder == first[2].folder != first[1].folder
    written = first[0].folder.joinpath("metrics.jsonl").stat().st_mtime_ns
    log = Log()
    # As a grid leaves it that was killed when the run had ended, before it looked.
    first[0].folder.with_name(first[0].folder.name + ".log").write_text("")
    again = run_grid([*runs, plan("opzo")], tmp_path, observer=log)
    assert [o.kind for o in again] == ["finished"] * 4
    assert first[0].folder.joinpath("metrics.jsonl").stat().st_mtime_ns == written
    assert log.totals == (6, 4)
    assert log.seen[-1] == 6
    assert log.running[0].keys() == {"digits-fc opzo-seed0"} and log.running[-1] == {}
    assert not list(tmp_path.glob("*/*.log"))


def test_a_grid_adds_nothing_of_its_own_to_settings_seeds_or_data(tmp_path, own_processes):
    torch.set_num_threads(1)
    given = plan("opzo")
    run_grid([given], tmp_path)
    alone = training.train(given.settings)
    assert [line["test_loss"] for line in alone] == [
        m["test_loss"] for m in metrics(given, tmp_path)
    ]


def test_settings_decide_the_folder(tmp_path):
    folders = {c.folder(tmp_path) for c in (plan(), plan(seed=1), plan("opzo"), plan(lr=1e-4))}
    assert len(folders) == 4
    assert plan().folder(tmp_path) == plan().folder(tmp_path)


def test_a_grid_killed_at_any_moment_goes_on_to_the_same_numbers(tmp_path):
    given = plan("opzo", **{"epochs": 40, "data.train": 400})
    run_grid([given], tmp_path / "whole")
    script = (
        "import sys; from tests_run import given; from threefactor.reproduce import run_grid; "
        "run_grid([given], sys.argv[1])"
    )
    (tmp_path / "tests_run.py").write_text(
        "from threefactor.reproduce import PlannedRun\n"
        f"given = PlannedRun('digits-fc', 'opzo', 0, {dict(given.changes)!r})\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cut")], env=env)
    end = time.monotonic() + 300  # of a busy machine
    while state_of(given, tmp_path / "cut").epochs < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = state_of(given, tmp_path / "cut")
    (outcome,) = run_grid([given], tmp_path / "cut")  # waits until the orphan has stopped
    assert done.kind == "unfinished"
    assert outcome.kind == "finished"
    assert metrics(given, tmp_path / "cut") == metrics(given, tmp_path / "whole")


def test_a_run_that_fails_does_not_stop_the_rest(tmp_path):
    bad = plan(lr=1e38)
    outcomes = run_grid([bad, plan()], tmp_path)
    assert [o.kind for o in outcomes] == ["failed", "finished"]
    assert "in epoch 1 at batch 2, the input of hidden layer" in outcomes[0].notes[0]
    assert "ended with code 1" in outcomes[0].notes[0]


def test_a_run_whose_data_is_absent_says_how_to_get_it(tmp_path):
    absent = PlannedRun("cifar10-conv5", "dfa")
    outcomes = run_grid([absent, plan()], tmp_path / "runs", data_dir=tmp_path / "empty")
    assert [o.kind for o in outcomes] == ["no data", "finished"]
    (note,) = outcomes[0].notes
    advice = f"To download it: threefactor data fetch cifar10 --data-dir {tmp_path / 'empty'}"
    assert note == f"cifar10 was not found. {advice}"


def damage_settings(run):
    run.config_path.write_text('{"settings": ')


def damage_checkpoint(run):
    (tensors,) = run.last.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-10])
    forget_last_epoch(run)


def forget_last_epoch(run):
    run.metrics_path.write_text(run.metrics_path.read_text().splitlines()[0] + "\n")


def write_metrics(content):
    def damage(run):
        run.metrics_path.write_bytes(content)

    return damage


def cut_metrics(run):
    run.metrics_path.write_bytes(run.metrics_path.read_bytes()[:150])


def drop_first_epoch(run):
    run.metrics_path.write_text(run.metrics_path.read_text().splitlines()[1] + "\n")


def drop_a_number(run):
    lines = run.metrics
    del lines[1]["train_loss"]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def lose_environment(run):
    document = json.loads(run.config_path.read_text())
    document["environment"] = None
    run.config_path.write_text(json.dumps(document))


def lose_checkpoint(run):
    shutil.rmtree(run.last)
    forget_last_epoch(run)


DAMAGES = {
    "settings": damage_settings,
    "environment": lose_environment,
    "checkpoint": damage_checkpoint,
    "no checkpoint": lose_checkpoint,
    "no metrics": lambda run: run.metrics_path.unlink(),
    "empty metrics": write_metrics(b""),
    "binary metrics": write_metrics(b"\xff\xfe\x00\x00"),
    "metrics of no object": write_metrics(b"5\n6\n"),
    "cut metrics": cut_metrics,
    "lost epoch": forget_last_epoch,
    "lost first epoch": drop_first_epoch,
    "lost number": drop_a_number,
    "tracked": lambda run: run.tracked_path.write_text('{"batches": "x"}\n{"epoch": 1}\n'),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a grid with a finished run, not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    assert run_grid([plan()], root)[0].kind == "finished"
    return root


@pytest.fixture
def analyser(monkeypatch):
    """Analyses in this process, which has imported everything already."""
    monkeypatch.setattr(grid, "Child", ChildHere)
    return Analyser("smoke")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_runs_are_redone_by_their_process(finished, tmp_path, damage):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    folder = plan().folder(root)
    damage(Run(folder))
    assert state_of(plan(), root).kind in ("broken", "unfinished")
    (note,) = train_here(plan(), root)
    assert note.startswith("redone, since ")
    assert state_of(plan(), root).kind == "finished"
    assert metrics(plan(), root) == metrics(plan(), finished)


def test_a_run_without_the_checkpoint_of_its_last_epoch_is_not_finished(
    finished, tmp_path, monkeypatch
):
    """A kill or a full disk may come between the metrics of an epoch and its checkpoint."""
    whole, folder = plan().folder(finished), plan().folder(tmp_path)
    save = Trainer.save

    def full(trainer, place):
        if trainer.epoch == 2:
            raise CheckpointError("no room")
        save(trainer, place)

    monkeypatch.setattr(Trainer, "save", full)
    with pytest.raises(CheckpointError, match="no room"):
        train_here(plan(), tmp_path)
    monkeypatch.undo()
    assert len(Run(folder).metrics) == 2
    state = state_of(plan(), tmp_path)
    assert (state.kind, state.epochs) == ("unfinished", 1)
    log = Log()
    (outcome,) = run_grid([plan()], tmp_path, observer=log)
    assert outcome.kind == "finished" and log.totals == (2, 1)
    weights = [checkpoint.load_state(run / "last")["network"] for run in (whole, folder)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert metrics(plan(), tmp_path) == metrics(plan(), finished)


def test_a_run_that_stopped_early_is_finished(tmp_path, analyser):
    never_better = {"data.validation": 0.3, "stopping.patience": 1, "stopping.least": 1.0}
    given = plan(epochs=4, **never_better)
    assert train_here(given, tmp_path) == []
    state = state_of(given, tmp_path)
    assert (state.kind, state.epochs) == ("finished", 2)
    (outcome,) = run_grid([given], tmp_path)
    assert outcome.kind == "finished"
    path = analyser("firing", given.folder(tmp_path))
    made = path.stat().st_mtime_ns
    assert analyser("firing", given.folder(tmp_path)).stat().st_mtime_ns == made


@pytest.mark.parametrize("name", ["last", "last/state.json"])
def test_a_finished_run_that_lost_its_checkpoint_is_redone(finished, tmp_path, name):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    lost = plan().folder(root) / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert state_of(plan(), root).kind == "unfinished"
    (note,) = train_here(plan(), root)
    assert note.startswith("redone, since ")
    assert state_of(plan(), root).kind == "finished"


@pytest.mark.parametrize("value", [None, "1", [], float("inf"), float("nan"), -1e400])
def test_times_that_are_no_numbers_do_not_end_a_grid(finished, tmp_path, value):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    run = Run(plan().folder(root))
    line = {**run.metrics[0], "seconds": value}
    run.metrics_path.write_text(json.dumps(line) + "\n")
    state = state_of(plan(), root)
    assert state.kind == "broken" and "seconds is" in state.reason


def test_remains_without_a_configuration_are_set_aside(finished, tmp_path, analyser):
    """Nobody knows what they are: somebody may have moved the file away and want it back."""
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    run = Run(plan().folder(root))
    analyser("firing", run.path)
    before = (run.last / "state.json").read_bytes()
    run.config_path.unlink()
    (note,) = train_here(plan(), root)
    kept = run.path / "remains-1"
    assert note == f"redone, since config.json was gone; what was left is in {kept}"
    assert (kept / "last/state.json").read_bytes() == before
    assert (kept / "analysis").exists() and not (run.path / "analysis").exists()
    assert state_of(plan(), root).kind == "finished"
    damage_settings(run)  # redone, and what was set aside stays
    train_here(plan(), root)
    assert state_of(plan(), root).kind == "finished"
    assert (kept / "last/state.json").read_bytes() == before


def test_a_run_that_was_killed_before_its_first_checkpoint_follows_its_start(finished, tmp_path):
    """The folder of all runs may have been moved since, and the start with it."""
    root = tmp_path / "moved"
    shutil.copytree(finished, root)
    second = PlannedRun("digits-fc", "opzo", 0, plan(lr=1e-4).changes, start=plan())
    folder = second.folder(root)
    before = replace(second.settings, start=str(plan().folder(tmp_path / "before")))
    RunFolder(folder).create(before)
    assert train_here(second, root) == []
    assert state_of(second, root).kind == "finished"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"5", None])
def test_a_damaged_analysis_is_made_anew(finished, tmp_path, analyser, content):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    path = plan().folder(root) / "analysis/firing-smoke.json"
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path) if content is None else path.write_bytes(content)
    assert json.loads(analyser("firing", plan().folder(root)).read_text())["epoch"] == 2


def test_an_analysis_of_an_older_network_is_made_anew(finished, tmp_path, analyser):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    path = analyser("firing", plan().folder(root))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "epoch": 1, "result": {}}))
    assert analyser("firing", plan().folder(root)) == path
    again = json.loads(path.read_text())
    assert again["epoch"] == 2 and again["result"] == document["result"] != {}


def test_the_recorded_command_repeats_the_run(finished, tmp_path):
    words = shlex.split(Run(plan().folder(finished)).config["environment"]["command"])
    assert words[:3] == ["threefactor", "train", "digits-fc"]
    assert words[-2:] == ["--out", str(plan().folder(finished))]
    words[-1] = str(tmp_path / "again")
    subprocess.run([*COMMAND, *words[1:]], check=True, capture_output=True)
    lost = {"seconds", "samples_per_second"}
    first, second = (Run(f).metrics for f in (plan().folder(finished), words[-1]))
    assert [{k: v for k, v in line.items() if k not in lost} for line in first] == [
        {k: v for k, v in line.items() if k not in lost} for line in second
    ]


def test_the_commands_of_all_exhibits_give_the_settings_of_their_runs(tmp_path):
    for one in catalog().values():
        for given in one.runs("quick"):
            words = given.command(tmp_path)
            told = dict(zip(words[2::2], words[3::2], strict=True))
            sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            changes = dict(parse_assignment(text) for text in sets)
            settings = recipe(words[1]).settings_for(
                told["--rule"], {**changes, "seed": int(told["--seed"])}
            )
            start = given.start and str(given.start.folder(tmp_path))
            assert settings == replace(given.settings, start=start)


def test_a_recipe_that_a_script_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "own", recipe("digits-fc"))
    with pytest.raises(ConfigurationError, match="recipe 'own' was made by a script"):
        run_grid([plan(), PlannedRun("own", "dfa")], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_was_redone_is_said(finished, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    cut_metrics(Run(plan().folder(root)))
    (outcome,) = run_grid([plan()], root)
    assert outcome.kind == "finished"
    assert "redone, since" in outcome.notes[0] and "metrics.jsonl is damaged" in outcome.notes[0]


def test_the_time_left_follows_from_the_last_epoch_of_a_run(finished, tmp_path):
    root, log = tmp_path / "runs", Log()
    shutil.copytree(finished, root)
    folder = plan().folder(root)
    forget_last_epoch(Run(folder))
    grid = _Grid([], root, 1, None, [], log, Here())
    grid.training = [
        _Job(one, one.folder(root), SimpleNamespace(code=None), [])
        for one in (plan(), plan("opzo"))
    ]
    grid._collect()
    (line,) = Run(folder).metrics
    assert log.seen == [1]
    assert log.running == [{"digits-fc dfa-seed0": line["seconds"], "digits-fc opzo-seed0": None}]


def of_another_version(document):
    document["environment"]["threefactor"] = "0.0.1"
    return "made by threefactor 0.0.1"


def before_other_numbers(document):
    del document["environment"]["numbers"]
    return "before a change that alters what trainings give"


def on_other_data(document):
    document["data"]["labels"] = "0" * 16
    return "trained on other data (the labels differ)"


def test_a_run_of_more_samples_than_are_at_hand_is_foreign(finished, monkeypatch):
    whole = load_samples

    def smaller(settings, data_dir):
        whole(settings, data_dir).subset(settings.data.train + 1)  # refused: there are not so many

    monkeypatch.setattr(planned, "load_samples", smaller)
    (outcome,) = run_grid([plan()], finished)
    assert outcome.kind == "foreign"
    assert "trained on other data (train is 61; expected" in outcome.notes[0]


def of_other_settings(document):
    document["settings"]["epochs"] += 1
    return "its settings were changed (epochs: 3 there, 2 asked)"


FOREIGN = [of_another_version, before_other_numbers, on_other_data, of_other_settings]


@pytest.mark.parametrize("change", FOREIGN)
def test_foreign_runs_are_neither_used_nor_touched(finished, tmp_path, change):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    run = Run(plan().folder(root))
    document = run.config
    said = change(document)
    run.config_path.write_text(json.dumps(document))
    (outcome,) = run_grid([plan()], root)
    assert outcome.kind == "foreign"
    assert said in outcome.notes[0]
    assert checkpoint.exists(run.last)


def test_a_full_disk_is_said_and_going_on_gives_the_same_numbers(tmp_path, monkeypatch):
    """A limit on the size of files stands in for the disk: processes of the grid inherit it."""
    resource = pytest.importorskip("resource")
    given, small = plan("opzo", hidden=[256]), plan("dfa")
    run_grid([given], tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        outcomes = run_grid([small, given], tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [o.kind for o in outcomes] == ["finished", "failed"]
    log = outcomes[1].folder.with_name(outcomes[1].folder.name + ".log").read_text()
    assert "cannot write" in log and "Make room" in log and "Traceback" not in log
    assert "cannot write" in outcomes[1].notes[0]
    hidden = {path.name for path in outcomes[1].folder.rglob(".*")}
    assert hidden == {LOCK}  # nothing half-written is left
    kept = metrics(small, tmp_path / "full")
    outcomes = run_grid([small, given], tmp_path / "full")
    assert [o.kind for o in outcomes] == ["finished"] * 2
    assert metrics(small, tmp_path / "full") == kept
    assert metrics(given, tmp_path / "full") == metrics(given, tmp_path / "whole")


def test_a_log_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(path, *options, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(ThreefactorError, match="No space left on device; what is finished is kept"):
        run_grid([plan()], tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    assert "the disk is full" in _silence(tmp_path)


def run_all(root):
    return run_grid([plan()], root)


@pytest.mark.parametrize("action", [lambda root: train_here(plan(), root), run_all])
def test_two_processes_do_not_work_in_one_folder(tmp_path, monkeypatch, action):
    fcntl = pytest.importorskip("fcntl")
    for room in ("grid", "planned"):
        monkeypatch.setattr(f"threefactor.reproduce.{room}.PATIENCE", 0.3)
    folder = tmp_path if action is run_all else plan().folder(tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="being worked on by another process"):
            action(tmp_path)
    assert state_of(plan(), tmp_path).kind == "new"


def test_a_run_that_another_process_works_on_does_not_stop_the_rest(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("threefactor.reproduce.planned.PATIENCE", 0.3)
    folder = plan().folder(tmp_path)
    folder.mkdir(parents=True)
    with open(folder / LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        outcomes = run_grid([plan(), plan(seed=1)], tmp_path)
    assert [one.kind for one in outcomes] == ["failed", "finished"]
    assert "being worked on by another process" in outcomes[0].notes[0]


def test_no_jobs_at_all_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="jobs is 0"):
        run_grid([plan()], tmp_path, jobs=0)


def test_a_run_goes_on_with_the_network_of_another(tmp_path):
    before = plan("spatial-bp")
    after = PlannedRun(
        "digits-fc", "dfa", 0, {**SMALL, "hardware_noise": 0.5, "lr": 0.0}, start=before
    )
    (outcome,) = run_grid([after], tmp_path / "here", jobs=2)
    assert outcome.kind == "finished"
    assert state_of(before, tmp_path / "here").kind == "finished"
    weights = [
        checkpoint.load_state(c.folder(tmp_path / "here") / "last")["network"]
        for c in (before, after)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    (tmp_path / "here").rename(tmp_path / "there")
    assert state_of(after, tmp_path / "there").kind == "finished"


def test_a_run_whose_start_fails_is_not_trained(tmp_path):
    bad = plan("spatial-bp", lr=1e38)
    (outcome,) = run_grid([PlannedRun("digits-fc", "dfa", 0, SMALL, start=bad)], tmp_path)
    assert outcome.kind == "failed"
    assert outcome.notes[0] == "spatial-bp-seed0, which it starts from: failed"
    assert not outcome.folder.exists()
