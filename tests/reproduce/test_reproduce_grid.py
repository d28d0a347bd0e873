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
from types import SimpleNamespace

import pytest
import torch

from threefactor.errors import CheckpointError, ConfigurationError, ThreefactorError
from threefactor.recipes import RECIPES, recipe
from threefactor.reproduce import Cell, catalog, run_grid, same_data
from threefactor.reproduce.analysed import analysed
from threefactor.reproduce.cells import State, state_of
from threefactor.reproduce.estimates import seconds_per_epoch
from threefactor.reproduce.grid import Watcher, _Grid, _silence
from threefactor.reproduce.worker import train_cell
from threefactor.training import RunFolder, Trainer, checkpoint
from threefactor.training.build import load_samples
from threefactor.training.overrides import parse_assignment
from threefactor.training.run_lock import LOCK

COMMAND = [sys.executable, "-c", "from threefactor.cli import main; main()"]
SMALL = {"hidden": [16], "epochs": 2, "data.train": 60, "data.test": 30, "batch_size": 20}


def cell(rule="dfa", seed=0, **changes):
    return Cell("digits-fc", rule, seed, {**SMALL, **changes})


def metrics(given, root):
    lines = RunFolder(given.folder(root)).metrics()
    return [{k: line[k] for k in ("epoch", "train_loss", "test_loss")} for line in lines]


class Log(Watcher):
    def __init__(self):
        self.totals, self.seen, self.ended, self.left = None, [], [], []

    def start(self, epochs, done):
        self.totals = (epochs, done)

    def progress(self, done, running, left):
        self.seen.append(done)
        self.left.append(left)

    def outcome(self, outcome):
        self.ended.append(outcome.kind)


def test_finished_cells_are_used_again(tmp_path):
    cells = [cell(), cell(seed=1), cell()]
    first = run_grid(cells, tmp_path, jobs=2)
    assert [o.kind for o in first] == ["finished"] * 3
    assert first[0].folder == first[2].folder != first[1].folder
    written = first[0].folder.joinpath("metrics.jsonl").stat().st_mtime_ns
    log = Log()
    # As a grid leaves it that was killed when the cell had ended, before it looked.
    first[0].folder.with_name(first[0].folder.name + ".log").write_text("")
    again = run_grid([*cells, cell("opzo")], tmp_path, watcher=log)
    assert [o.kind for o in again] == ["finished"] * 4
    assert first[0].folder.joinpath("metrics.jsonl").stat().st_mtime_ns == written
    assert log.totals == (6, 4)
    assert log.seen[-1] == 6
    assert log.left[0] > log.left[-1] == 0
    assert not list(tmp_path.glob("*/*.log"))


def test_a_cell_is_what_the_command_trains(tmp_path):
    """The worker adds nothing of its own to the settings, seeds or data."""
    from threefactor import training

    torch.set_num_threads(1)
    given = cell("opzo")
    run_grid([given], tmp_path)
    alone = training.train(given.settings)
    assert [line["test_loss"] for line in alone] == [
        m["test_loss"] for m in metrics(given, tmp_path)
    ]


def test_settings_decide_the_folder(tmp_path):
    folders = {c.folder(tmp_path) for c in (cell(), cell(seed=1), cell("opzo"), cell(lr=1e-4))}
    assert len(folders) == 4
    assert cell().folder(tmp_path) == cell().folder(tmp_path)


def test_a_grid_killed_at_any_moment_goes_on_to_the_same_numbers(tmp_path):
    given = cell("opzo", **{"epochs": 40, "data.train": 400})
    run_grid([given], tmp_path / "whole")
    script = (
        "import sys; from tests_cell import given; from threefactor.reproduce import run_grid; "
        "run_grid([given], sys.argv[1])"
    )
    (tmp_path / "tests_cell.py").write_text(
        "from threefactor.reproduce import Cell\n"
        f"given = Cell('digits-fc', 'opzo', 0, {dict(given.changes)!r})\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cut")], env=env)
    end = time.monotonic() + 60
    while state_of(given, tmp_path / "cut").epochs < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = state_of(given, tmp_path / "cut")
    (outcome,) = run_grid([given], tmp_path / "cut")  # waits until the orphan has stopped
    assert done.kind == "unfinished"
    assert outcome.kind == "finished"
    assert metrics(given, tmp_path / "cut") == metrics(given, tmp_path / "whole")


def test_a_cell_that_fails_does_not_stop_the_rest(tmp_path):
    bad = cell(lr=1e38)
    outcomes = run_grid([bad, cell()], tmp_path)
    assert [o.kind for o in outcomes] == ["failed", "finished"]
    assert "the loss became" in outcomes[0].notes[0]
    assert "ended with code 1" in outcomes[0].notes[0]


def test_a_cell_whose_data_is_absent_says_how_to_get_it(tmp_path):
    absent = Cell("cifar10-conv5", "dfa")
    outcomes = run_grid([absent, cell()], tmp_path / "runs", data_dir=tmp_path / "empty")
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
    lines = run.metrics()
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
    """The folder of a grid with a finished cell, not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    assert run_grid([cell()], root)[0].kind == "finished"
    return root


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_cells_are_redone_by_their_process(finished, tmp_path, damage):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    folder = cell().folder(root)
    damage(RunFolder(folder))
    assert state_of(cell(), root).kind in ("broken", "unfinished")
    (note,) = train_cell(cell().settings_in(root), folder, None, "cpu")
    assert note.startswith("redone, since ")
    assert state_of(cell(), root).kind == "finished"
    assert metrics(cell(), root) == metrics(cell(), finished)


def test_a_cell_without_the_checkpoint_of_its_last_epoch_is_not_finished(
    finished, tmp_path, monkeypatch
):
    """A kill or a full disk may come between the metrics of an epoch and its checkpoint."""
    whole, folder = cell().folder(finished), cell().folder(tmp_path)
    save = Trainer.save

    def full(trainer, place):
        if trainer.epoch == 2:
            raise CheckpointError("no room")
        save(trainer, place)

    monkeypatch.setattr(Trainer, "save", full)
    with pytest.raises(CheckpointError, match="no room"):
        train_cell(cell().settings_in(tmp_path), folder, None, "cpu")
    monkeypatch.undo()
    assert len(RunFolder(folder).metrics()) == 2
    state = state_of(cell(), tmp_path)
    assert (state.kind, state.epochs) == ("unfinished", 1)
    log = Log()
    (outcome,) = run_grid([cell()], tmp_path, watcher=log)
    assert outcome.kind == "finished" and log.totals == (2, 1)
    weights = [checkpoint.load_state(run / "last")["network"] for run in (whole, folder)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert metrics(cell(), tmp_path) == metrics(cell(), finished)


@pytest.mark.parametrize("name", ["last", "last/state.json"])
def test_a_finished_cell_that_lost_its_checkpoint_is_redone(finished, tmp_path, name):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    lost = cell().folder(root) / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert state_of(cell(), root).kind == "unfinished"
    (note,) = train_cell(cell().settings_in(root), cell().folder(root), None, "cpu")
    assert note.startswith("redone, since ")
    assert state_of(cell(), root).kind == "finished"


@pytest.mark.parametrize("value", [None, "1", [], float("inf"), float("nan"), -1e400])
def test_times_that_are_no_numbers_do_not_end_a_grid(finished, tmp_path, value):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    run = RunFolder(cell().folder(root))
    line = {**run.metrics()[0], "seconds": value}
    run.metrics_path.write_text(json.dumps(line) + "\n")
    state = state_of(cell(), root)
    assert state.kind == "broken" and "seconds is" in state.reason


def test_remains_without_a_configuration_are_set_aside(finished, tmp_path):
    """Nobody knows what they are: somebody may have moved the file away and want it back."""
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    run = RunFolder(cell().folder(root))
    analysed("firing", run.path, "smoke")
    before = (run.last / "state.json").read_bytes()
    run.config_path.unlink()
    (note,) = train_cell(cell().settings_in(root), run.path, None, "cpu")
    kept = run.path / "remains-1"
    assert note == f"redone, since config.json was gone; what was left is in {kept}"
    assert (kept / "last/state.json").read_bytes() == before
    assert (kept / "analysis").exists() and not (run.path / "analysis").exists()
    assert state_of(cell(), root).kind == "finished"
    damage_settings(run)  # redone, and what was set aside stays
    train_cell(cell().settings_in(root), run.path, None, "cpu")
    assert state_of(cell(), root).kind == "finished"
    assert (kept / "last/state.json").read_bytes() == before


def test_a_cell_that_was_killed_before_its_first_checkpoint_follows_its_start(finished, tmp_path):
    """The folder of all runs may have been moved since, and the start with it."""
    root = tmp_path / "moved"
    shutil.copytree(finished, root)
    second = Cell("digits-fc", "opzo", 0, cell(lr=1e-4).changes, start=cell())
    folder = second.folder(root)
    RunFolder(folder).create(second.settings_in(tmp_path / "before"))
    assert train_cell(second.settings_in(root), folder, None, "cpu") == []
    assert state_of(second, root).kind == "finished"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"5", None])
def test_a_damaged_analysis_is_made_anew(finished, tmp_path, content):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    path = cell().folder(root) / "analysis/firing-smoke.json"
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path) if content is None else path.write_bytes(content)
    assert json.loads(analysed("firing", cell().folder(root), "smoke").read_text())["epoch"] == 2


def test_an_analysis_of_an_older_network_is_made_anew(finished, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    path = analysed("firing", cell().folder(root), "smoke")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "epoch": 1, "result": {}}))
    assert analysed("firing", cell().folder(root), "smoke") == path
    again = json.loads(path.read_text())
    assert again["epoch"] == 2 and again["result"] == document["result"] != {}


def test_the_recorded_command_repeats_the_run(finished, tmp_path):
    words = shlex.split(RunFolder(cell().folder(finished)).config()["environment"]["command"])
    assert words[:3] == ["threefactor", "train", "digits-fc"]
    assert words[-2:] == ["--out", str(cell().folder(finished))]
    words[-1] = str(tmp_path / "again")
    subprocess.run([*COMMAND, *words[1:]], check=True, capture_output=True)
    lost = {"seconds", "samples_per_second"}
    first, second = (RunFolder(f).metrics() for f in (cell().folder(finished), words[-1]))
    assert [{k: v for k, v in line.items() if k not in lost} for line in first] == [
        {k: v for k, v in line.items() if k not in lost} for line in second
    ]


def test_the_commands_of_all_experiments_give_the_settings_of_their_cells(tmp_path):
    for one in catalog().values():
        for given in one.cells("quick"):
            words = shlex.split(given.command(tmp_path, ["--threads", "1"]))
            told = dict(zip(words[3:-2:2], words[4:-2:2], strict=True))
            sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            changes = dict(parse_assignment(text) for text in sets)
            settings = recipe(words[2]).settings_for(
                told["--rule"], {**changes, "seed": int(told["--seed"])}
            )
            assert settings == given.settings_in(tmp_path)


def test_a_recipe_that_a_script_made_has_no_command(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "own", recipe("digits-fc"))
    assert Cell("own", "dfa").command(tmp_path, []) is None


def test_what_was_redone_is_said(finished, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    cut_metrics(RunFolder(cell().folder(root)))
    (outcome,) = run_grid([cell()], root)
    assert outcome.kind == "finished"
    assert "redone, since" in outcome.notes[0] and "metrics.jsonl is damaged" in outcome.notes[0]


def test_the_time_left_by_hand(tmp_path):
    """Where epochs took twice their estimate, those that are left are taken to do so, too."""
    short, long = cell(), Cell("digits-saccades-conv", "opzo", changes={"epochs": 3})
    grid = _Grid([short, long], tmp_path, 1, None, [], Watcher())
    grid.waiting = [short, long]
    folders = [one.folder(tmp_path) for one in (short, long)]
    each = [seconds_per_epoch(one.settings) for one in (short, long)]
    assert each[1] > 10 * each[0]
    grid.states = {folders[0]: State("unfinished", 1, 2 * each[0]), folders[1]: State("new")}
    assert grid._left() == pytest.approx(2 * (each[0] + 3 * each[1]))
    grid.jobs = 2
    assert grid._left() == pytest.approx(each[0] + 3 * each[1])


def of_another_version(document):
    document["environment"]["threefactor"] = "0.0.1"
    return "made by threefactor 0.0.1"


def before_other_numbers(document):
    del document["environment"]["numbers"]
    return "before a change that alters what trainings give"


def on_other_data(document):
    document["data"]["labels"] = "0" * 16
    return "trained on other data (the labels are others)"


def test_a_run_of_more_samples_than_are_at_hand_is_foreign(tmp_path, monkeypatch):
    run_grid([cell()], tmp_path)
    whole = load_samples

    def smaller(settings, data_dir):
        whole(settings, data_dir).subset(settings.data.train + 1)  # refused: there are not so many

    monkeypatch.setattr(same_data, "load_samples", smaller)
    (outcome,) = run_grid([cell()], tmp_path)
    assert outcome.kind == "foreign"
    assert "trained on other data (train is 61; expected" in outcome.notes[0]


def of_other_settings(document):
    document["settings"]["epochs"] += 1
    return "its settings were changed (epochs: 3 there, 2 asked)"


FOREIGN = [of_another_version, before_other_numbers, on_other_data, of_other_settings]


@pytest.mark.parametrize("change", FOREIGN)
def test_foreign_runs_are_neither_used_nor_touched(tmp_path, change):
    run_grid([cell()], tmp_path)
    run = RunFolder(cell().folder(tmp_path))
    document = run.config()
    said = change(document)
    run.config_path.write_text(json.dumps(document))
    (outcome,) = run_grid([cell()], tmp_path)
    assert outcome.kind == "foreign"
    assert said in outcome.notes[0]
    assert checkpoint.exists(run.last)


def test_a_full_disk_is_said_and_going_on_gives_the_same_numbers(tmp_path, monkeypatch):
    """A limit on the size of files stands in for the disk: processes of the grid inherit it."""
    resource = pytest.importorskip("resource")
    given, small = cell("opzo", hidden=[256]), cell("dfa")
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
        run_grid([cell()], tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    assert "the disk is full" in _silence(tmp_path)


def train_alone(root):
    return train_cell(cell().settings_in(root), cell().folder(root), None, "cpu")


def run_all(root):
    return run_grid([cell()], root)


@pytest.mark.parametrize("action", [train_alone, run_all])
def test_two_processes_do_not_work_in_one_folder(tmp_path, monkeypatch, action):
    fcntl = pytest.importorskip("fcntl")
    for room in ("grid", "worker"):
        monkeypatch.setattr(f"threefactor.reproduce.{room}.PATIENCE", 0.3)
    folder = cell().folder(tmp_path) if action is train_alone else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="being worked on by another process"):
            action(tmp_path)
    assert state_of(cell(), tmp_path).kind == "new"


def test_no_jobs_at_all_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="jobs is 0"):
        run_grid([cell()], tmp_path, jobs=0)


def test_a_cell_goes_on_with_the_network_of_another(tmp_path):
    before = cell("spatial-bp")
    after = Cell("digits-fc", "dfa", 0, {**SMALL, "hardware_noise": 0.5, "lr": 0.0}, start=before)
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


def test_a_cell_whose_start_fails_is_not_trained(tmp_path):
    bad = cell("spatial-bp", lr=1e38)
    (outcome,) = run_grid([Cell("digits-fc", "dfa", 0, SMALL, start=bad)], tmp_path)
    assert outcome.kind == "failed"
    assert outcome.notes[0] == "spatial-bp-seed0, which it starts from: failed"
    assert not outcome.folder.exists()
