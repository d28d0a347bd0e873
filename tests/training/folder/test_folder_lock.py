"""One process and one thread of it trains in a folder; the lock dies with its owner."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import filelock
import pytest

from threefactor import training
from threefactor.errors import CheckpointError
from threefactor.report.runs import read_run
from threefactor.training.folder.lock import LOCK, BusyError, only_one

HOLD = """
import os, sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
child = os.fork() if "fork" in sys.argv else 1
if child:
    print(child, flush=True)
time.sleep(60)
"""


class Holder:
    """Another process that works in a folder."""

    def __init__(self, folder, *options):
        folder.mkdir(exist_ok=True)
        program = [sys.executable, "-c", HOLD, str(folder / LOCK), *options]
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        self.child = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != LOCK}


def test_a_second_process_is_refused_whatever_it_does(small, tmp_path):
    run = tmp_path / "run"
    training.train(small(epochs=1), run)
    before = content(run)
    trainer = training.Trainer(training.build(small(epochs=1)), training.RunFolder(run))
    trainer.load(run / "last")
    with Holder(run) as other:
        for action in (
            lambda: training.train(small(), run),
            lambda: training.resume(run),
            trainer.fit,
        ):
            with pytest.raises(BusyError, match="is being worked on by another process") as refused:
                action()
            assert str(run) in str(refused.value)
            if sys.platform == "linux":
                assert f"PID {other.process.pid}" in str(refused.value)
        assert content(run) == before
        # Who reads is not kept out.
        assert training.open_run(run).epoch == 1
        assert read_run(run).finished
    assert len(training.resume(run)) == 1


def test_a_second_thread_is_refused(small, tmp_path):
    with only_one(tmp_path), only_one(tmp_path):  # the same thread may
        found = []

        def other():
            try:
                training.train(small(epochs=1), tmp_path)
            except BusyError as problem:
                found.append(str(problem))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(found) == 1
    assert "a thread of this one" in found[0] or sys.platform != "linux"
    assert len(training.train(small(epochs=1), tmp_path)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_lock_dies_with_its_owner_whatever_that_forked(tmp_path):
    with Holder(tmp_path / "run", "fork") as other:
        with pytest.raises(BusyError), only_one(tmp_path / "run"):
            pass
        other.process.kill()
        other.process.wait()
        try:
            with only_one(tmp_path / "run"):
                os.kill(other.child, 0)  # it is still there
        finally:
            os.kill(other.child, signal.SIGKILL)


def test_patience_waits_for_the_other_to_leave(tmp_path):
    with Holder(tmp_path) as other:
        threading.Timer(0.5, other.process.kill).start()
        start = time.monotonic()
        with only_one(tmp_path, patience=30.0):
            assert 0.2 < time.monotonic() - start < 20


def test_a_lock_file_that_was_left_is_no_lock(small, tmp_path):
    tmp_path.joinpath(LOCK).write_text("12345")
    assert len(training.train(small(epochs=1), tmp_path)) == 1


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError()]
)
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, problem):
    def acquire(lock, **options):
        open(lock.lock_file, "a").close()
        raise problem

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match=r"cannot be locked .*nobody else works in it"):  # noqa: SIM117
        with only_one(tmp_path):
            pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot make"), only_one(tmp_path / "file/run"):
        pass

    def acquire(lock, **options):
        raise PermissionError(errno.EACCES, "Permission denied", lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(CheckpointError, match=r"cannot write to .*Permission denied.*--out"):  # noqa: SIM117
        with only_one(tmp_path):
            pass
