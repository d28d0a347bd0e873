"""Runs as jobs: on this machine, and of a SLURM whose commands are scripts that really run them."""

import getpass
import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import python
from typer.testing import CliRunner

from threefactor.cli.app import app
from threefactor.cli.batch import executor_of
from threefactor.errors import ConfigurationError
from threefactor.reproduce import Observer, PlannedRun, batch, run_grid
from threefactor.reproduce.batch import ENDED, Batch, Submitted, _Command, minutes_of
from threefactor.reproduce.planned import state_of
from threefactor.training import Run

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="no submitit"),
    pytest.mark.skipif(os.name != "posix", reason="batch systems are those of Unix"),
]
SMALL = {"hidden": [16], "epochs": 2, "data.train": 60, "data.test": 30, "batch_size": 20}
LONG = {**SMALL, "epochs": 12, "data.train": 300, "batch_size": 10}

SBATCH = """#!{python}
import os, re, subprocess, sys
here = {here!r}
text = open(sys.argv[1]).read()
options = dict(re.findall(r"#SBATCH --([a-z-]+)=(.*)", text))
if options.get("partition", "cpu") != "cpu":
    sys.exit(
        f"sbatch: error: invalid partition specified: {{options['partition']}}\\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified"
    )
number = str(1 + len(os.listdir(here + "/scripts")))
os.link(sys.argv[1], f"{{here}}/scripts/{{number}}")
env = {{**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}}
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
words = [sys.executable, here + "/runs_a_job", number]
subprocess.Popen(words, env=env, start_new_session=True, **quiet)
print("Submitted batch job", number)
"""
# Runs the script again if it was queued again; in the queue is what has a file there.
RUNS_A_JOB = """
import os, subprocess, sys
here, number = {here!r}, sys.argv[1]
queued, again = f"{{here}}/queue/{{number}}", f"{{here}}/again/{{number}}"
while True:
    process = subprocess.Popen(["bash", f"{{here}}/scripts/{{number}}"], start_new_session=True)
    with open(queued + ".new", "w") as file:
        file.write(str(process.pid))
    os.rename(queued + ".new", queued)
    process.wait()
    if not os.path.exists(again):
        break
    os.rename(again, again + f".{{process.pid}}")
os.remove(queued)
"""
SQUEUE = """#!/bin/sh
ls {here}/queue
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
  case "$1" in --output|--error) shift 2;; *) shift;; esac
done
"$@" >> {here}/output 2>&1 &
echo $! > {here}/tasks/$SLURM_JOB_ID
wait $!
"""
SCONTROL = """#!/bin/sh
[ "$1" = requeue ] && touch {here}/again/$2
"""


class Notes(Observer):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Slurm:
    """A cluster of one machine."""

    def __init__(self, here):
        self.here = here
        for name in ("bin", "scripts", "queue", "again", "tasks"):
            (here / name).mkdir(parents=True)
        scripts = {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SRUN, "scontrol": SCONTROL}
        for name, text in scripts.items():
            (here / "bin" / name).write_text(text.format(here=str(here), python=sys.executable))
            (here / "bin" / name).chmod(0o755)
        (here / "runs_a_job").write_text(RUNS_A_JOB.format(here=str(here)))

    def signal(self, job, number):
        """Send a signal to the task of a job, as SLURM does to those of a step."""
        os.kill(int((self.here / "tasks" / job).read_text()), number)

    @property
    def submitted(self):
        return len(list((self.here / "scripts").iterdir()))

    def end(self):
        """Kill what still runs."""
        for file in (self.here / "queue").iterdir():
            os.killpg(int(file.read_text()), signal.SIGKILL)
        wait_for(lambda: not any((self.here / "queue").iterdir()))


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    made = Slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path}/slurm/bin{os.pathsep}{os.environ['PATH']}")
    for name, value in (("LOOK", 0.4), ("UNSEEN", 0.5)):
        monkeypatch.setattr(batch, name, value)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def processes(own_processes):
    """A job starts Pythons of its own."""


def plan(seed=0, changes=SMALL):
    return PlannedRun("digits-fc", "dfa", seed, changes)


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def losses(root, changes=SMALL):
    return [line["test_loss"] for line in Run(plan(changes=changes).folder(root)).metrics]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The losses of trainings without jobs and interruptions."""
    root = tmp_path_factory.mktemp("whole")
    runs = [plan(), plan(changes=LONG)]
    assert [one.kind for one in run_grid(runs, root)] == ["finished"] * 2
    return {"small": losses(root), "long": losses(root, LONG)}


def test_jobs_of_slurm_give_the_numbers_of_processes(slurm, tmp_path, whole):
    options = {"account": "lab", "exclusive": True}
    jobs = Batch(
        tmp_path / "batch", "slurm", "1:00:00", "cpu", cpus=2, memory="4G", options=options
    )
    root = tmp_path / "runs"
    outcomes = run_grid([plan(), plan(1)], root, jobs=9, executor=jobs)
    assert [one.kind for one in outcomes] == ["finished"] * 2
    assert losses(root) == whole["small"]
    text = (slurm.here / "scripts" / "1").read_text()
    for line in ("account=lab", "cpus-per-task=2", "mem=4G", "partition=cpu", "time=60"):
        assert f"#SBATCH --{line}\n" in text
    for line in ("exclusive", "requeue", "signal=USR2@120", f"job-name={outcomes[0].folder.name}"):
        assert f"#SBATCH --{line}\n" in text
    assert "--cpus-per-task=2" in text.split("srun")[1]
    assert "wckey" not in text and "gpus" not in text
    assert not list(root.glob("*/*.log"))
    # Given again, nothing is submitted.
    run_grid([plan(), plan(1)], root, executor=jobs)
    assert slurm.submitted == 2


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_is_warned_or_ended_leaves_a_checkpoint(slurm, tmp_path, number, whole):
    """SIGUSR2 comes before the time limit: the job goes back into the queue and on."""
    given, root = plan(changes=LONG), tmp_path / "runs"
    jobs = Batch(tmp_path / "batch", "slurm")
    sent = []

    class Send(Observer):
        def progress(self, done, running):
            if done and not sent:
                sent.append(done)
                slurm.signal("1", number)

    (outcome,) = run_grid([given], root, executor=jobs, observer=Send())
    if number == signal.SIGUSR2:
        assert len(list((slurm.here / "again").iterdir())) == 1
        assert slurm.submitted == 1
    else:
        assert outcome.kind == "failed"
        assert outcome.notes[0].startswith("job 1 ended before its command did; the same command")
        folder = given.folder(root)
        if number == signal.SIGTERM:  # what it did since its last epoch is in the checkpoint
            state = json.loads((folder / "last/state.json").read_text())
            assert "batch" in json.dumps(state)
        (outcome,) = run_grid([given], root, executor=jobs)
        assert slurm.submitted == 2
    assert outcome.kind == "finished"
    assert losses(root, LONG) == whole["long"]


def test_jobs_go_on_without_what_submitted_them_and_are_found_again(slurm, tmp_path, whole):
    script = (
        "import sys; from threefactor.reproduce import *; from threefactor.reproduce import batch; "
        f"batch.LOOK = 0.4; run_grid([PlannedRun('digits-fc', 'dfa', 0, {LONG!r})], sys.argv[1], "
        "executor=batch.Batch(sys.argv[2], 'slurm'))"
    )
    script = script.replace("sys.argv[2]", "__import__('pathlib').Path(sys.argv[2])")
    root, given = tmp_path / "runs", plan(changes=LONG)
    process = python(["-c", script, root, tmp_path / "batch"])
    wait_for(lambda: state_of(given, root, training=True).epochs)
    process.kill()
    process.wait()
    (outcome,) = run_grid([given], root, executor=Batch(tmp_path / "batch", "slurm"))
    assert outcome.kind == "finished"
    assert slurm.submitted == 1
    assert losses(root, LONG) == whole["long"]


def test_ctrl_c_says_which_jobs_go_on(slurm, tmp_path):
    class Stop(Notes):
        def progress(self, done, running):
            raise KeyboardInterrupt

    observer = Stop()
    with pytest.raises(KeyboardInterrupt):
        run_grid(
            [plan(changes=LONG), plan(1, LONG)],
            tmp_path / "runs",
            jobs=2,
            executor=Batch(tmp_path / "batch", "slurm"),
            observer=observer,
        )
    (note,) = observer.notes
    assert note.startswith("2 jobs go on without this command (1, 2). The same")
    assert note.endswith("scancel 1 2")


def test_a_run_that_fails_in_its_job_says_why(slurm, tmp_path):
    bad = plan(changes={**SMALL, "lr": 1e38})
    (outcome,) = run_grid([bad], tmp_path / "runs", executor=Batch(tmp_path / "batch", "slurm"))
    assert outcome.kind == "failed"
    assert outcome.notes[0].startswith("as job 1 it ended with code 1: in epoch 1 at batch 2, ")


def test_a_partition_that_is_not_there(slurm, tmp_path):
    words = ["sweep", "digits-fc", "--rule", "dfa", "--epochs", "1", "--executor", "slurm"]
    words += ["--partition", "nope", "--out", str(tmp_path / "sweep")]
    said = subprocess.run(
        [sys.executable, "-m", "threefactor", *words], capture_output=True, text=True
    )
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    text = " ".join(said.stderr.split())
    assert "sbatch did not take a job: sbatch: error: invalid partition specified: nope;" in text
    assert "Invalid partition name specified. Change --partition" in text
    assert not [path for path in (tmp_path / "sweep/batch").rglob("*") if path.is_file()]
    assert slurm.submitted == 0


def test_a_queue_that_does_not_answer(slurm, tmp_path):
    root, jobs = tmp_path / "runs", Batch(tmp_path / "batch", "slurm")
    place = tmp_path / "batch" / "digits-fc" / plan().folder(root).name
    place.mkdir(parents=True)
    record = {"system": "slurm", "id": "7", "host": "here"}
    (place / "job.json").write_text(json.dumps(record))
    squeue = slurm.here / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ConfigurationError, match="squeue does not answer"):
        run_grid([plan()], root, executor=jobs)
    squeue.write_text(f"#!/bin/sh\nls {slurm.here}/queue\n")
    assert run_grid([plan()], root, executor=jobs)[0].kind == "finished"
    assert getpass.getuser()  # which squeue is asked for


def test_local_jobs_stop_with_what_submitted_them(tmp_path, whole):
    class Stop(Notes):
        def progress(self, done, running):
            if done:
                raise KeyboardInterrupt

    root, given = tmp_path / "runs", plan(changes=LONG)
    jobs = Batch(tmp_path / "batch", "local")
    observer = Stop()
    with pytest.raises(KeyboardInterrupt):
        run_grid([given], root, executor=jobs, observer=observer)
    assert observer.notes == []
    state = state_of(given, root)
    assert state.kind == "unfinished"
    assert run_grid([given], root, executor=jobs)[0].kind == "finished"
    assert losses(root, LONG) == whole["long"]


def test_a_local_job_goes_on_after_its_time_limit(tmp_path, whole):
    """The controller sends its task SIGUSR2 before the limit, and starts it again; here we do."""
    root, given, jobs = tmp_path / "runs", plan(changes=LONG), Batch(tmp_path / "batch", "local")
    sent = []

    class Send(Observer):
        def progress(self, done, running):
            if done and not sent:
                (place,) = (tmp_path / "batch").glob("*/*")
                controller = json.loads((place / "job.json").read_text())["id"]
                tasks = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
                for task in tasks:
                    os.kill(int(task), signal.SIGUSR2)
                sent.append(tasks)

    (outcome,) = run_grid([given], root, executor=jobs, observer=Send())
    assert outcome.kind == "finished" and sent
    (said,) = (tmp_path / "batch").glob("*/*/*_log.out")
    assert said.read_text().count("Requeued job") == 1
    assert losses(root, LONG) == whole["long"]


def test_a_job_that_never_gets_to_a_checkpoint_is_not_queued_for_ever(tmp_path):
    """The commands are stopped before they train, as those that take long to load their data."""
    log, ended = tmp_path / "run.log", tmp_path / ENDED
    given, codes = _Command(["train"], log, ended), []
    for said in ("stopped by SIGTERM", "stopped in epoch 2 after batch 1", *["stopped"] * 3):
        log.write_text(f"error: {said}\n")
        given._child, given._code = SimpleNamespace(ask_to_stop=lambda: None), 143
        codes.append(given.idle)
        again = given.checkpoint()
        if again is not None:
            given = pickle.loads(pickle.dumps(again)).function
    assert codes == [0, 1, 0, 1, 2] and again is None
    job = Submitted(Batch(tmp_path, "local"), "7", tmp_path, log)
    assert job.code == 143
    assert job.failure.startswith("job 7 used up 3 time limits without a checkpoint")


def test_the_command_makes_jobs(tmp_path):
    words = ["sweep", "digits-fc", "--rule", "dfa", "--grid", "lr=1e-3,1e-2", "--set", "hidden=[8]"]
    words += ["--epochs", "1", "--jobs", "2", "--out", str(tmp_path), "--executor", "local"]
    ended = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ended.exit_code == 0
    assert (tmp_path / "sweep.html").exists()
    assert len(list((tmp_path / "batch").glob("digits-fc/*/ended"))) == 2


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:30", 1.5),
        ("1:30:00", 90),
        ("2-12", 3600),
        ("1-0:30", 1470),
        ("1-0:0:30", 1440.5),
    ],
)
def test_times_as_slurm_writes_them(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "-5", "1h", "1:2:3:4", "nan", "1.5", "0:00", "9" * 20])
def test_times_that_are_none(text):
    with pytest.raises(ConfigurationError, match="give it as SLURM writes it"):
        minutes_of(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "pbs"], "unknown executor 'pbs'"),
        (["--partition", "gpu"], "--partition is of jobs"),
        (["--executor", "local", "--partition", "gpu"], "are those of SLURM"),
        (["--executor", "local", "--time", "soon"], "the time is 'soon'"),
        (["--executor", "local", "--gpus", "1"], "--gpus is 1 and --device cpu"),
        (["--executor", "local", "--gpus", "2", "--device", "cuda"], "gpus is 2; a run of a grid"),
        (["--executor", "local", "--threads", "3", "--cpus", "2"], "--cpus is 2 and --threads 3"),
        (["--executor", "slurm", "--sbatch", "time=5"], "give --time"),
        (["--executor", "slurm", "--sbatch", "array=0-3"], "leave it out"),
        (["--executor", "slurm", "--sbatch", "qos=a", "--sbatch", "qos=b"], "given twice"),
    ],
)
@pytest.mark.parametrize("command", [["sweep", "digits-fc"], ["reproduce", "opzo-table1"]])
def test_options_that_do_not_fit(slurm, tmp_path, command, words, said):
    with pytest.raises(ConfigurationError, match=said):
        CliRunner().invoke(
            app, [*command, "--out", str(tmp_path / "out"), *words], catch_exceptions=False
        )
    assert not (tmp_path / "out").exists()


def test_a_job_picks_its_own_device(slurm, tmp_path):
    given = {"threads": 1, "partition": None, "time": None, "cpus": None, "memory": None}
    for device, gpus, got in (("auto", None, 0), ("auto", 1, 1), ("cuda", None, 1)):
        made = executor_of(tmp_path, "slurm", device=device, gpus=gpus, sbatch=None, **given)
        assert made is not None and made.gpus == got


def test_without_slurm_or_submitit(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigurationError, match="sbatch, squeue, srun, scontrol cannot be found"):
        Batch(tmp_path, "slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[cluster\]'"):
        Batch(tmp_path, "local")
    assert Path(tmp_path).exists() and not list(tmp_path.iterdir())
