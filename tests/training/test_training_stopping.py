"""What Ctrl-C, SIGTERM and SIGHUP do to a training: a checkpoint of that moment, whatever comes."""

import os
import signal
import sys

import pytest

from threefactor import training
from threefactor.training import stopping
from threefactor.training.folder import checkpoint
from threefactor.training.loop import InterruptedRunError
from threefactor.training.progress import Watcher
from threefactor.training.stopping import StoppedBySignal, leave_if_asked, leave_on_signals

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")


class Send(Watcher):
    """Sends signals to this process during a batch."""

    def __init__(self, batch, *numbers):
        self.left, self.numbers = batch, numbers

    def batch(self, loss, accuracy, samples):
        self.left -= 1
        if self.left == 0:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def moment(run):
    state = checkpoint.load_state(run / "last")
    return state["epoch"], state["sums"]["batch"]


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_leaves_a_checkpoint_of_its_moment(small, tmp_path, name):
    number = getattr(signal, name)
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"whoever started the tests ignores {name}, as nohup does, and so do they")
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    said = "stopped in epoch 2 after batch 3; resume with: threefactor train --resume"
    with pytest.raises(InterruptedRunError, match=said) as end:
        training.train(small(), tmp_path, watcher=Send(10, number))
    assert end.value.exit_code == 128 + number
    assert moment(tmp_path) == (1, 3)
    after = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


@posix
def test_a_stop_does_not_wait_for_an_evaluation(small, tmp_path):
    with pytest.raises(InterruptedRunError, match="stopped in epoch 1 after batch 7;"):
        training.train(small(), tmp_path, watcher=Send(7, signal.SIGTERM))
    assert moment(tmp_path) == (0, 7)
    assert len(training.resume(tmp_path)) == 3


@posix
def test_asked_twice_at_once_is_asked_once(small, tmp_path):
    """A terminal asks the whole group of processes, and what started this one may ask again."""
    with pytest.raises(InterruptedRunError):
        training.train(small(), tmp_path, watcher=Send(3, signal.SIGINT, signal.SIGINT))
    with pytest.raises(InterruptedRunError):
        training.resume(tmp_path, watcher=Send(2, signal.SIGINT, signal.SIGTERM, signal.SIGTERM))
    assert moment(tmp_path) == (0, 5)


@posix
def test_the_second_ctrl_c_stops_at_once(small, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "AT_ONCE", 0.0)
    with pytest.raises(KeyboardInterrupt):
        training.train(small(), tmp_path, watcher=Send(3, signal.SIGINT, signal.SIGINT))
    assert moment(tmp_path) == (0, 0)


@posix
def test_the_second_ctrl_c_does_not_damage_a_checkpoint_that_is_being_written(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(stopping, "AT_ONCE", 0.0)
    save = checkpoint.save_state

    def disturbed(folder, state):
        os.kill(os.getpid(), signal.SIGINT)
        save(folder, state)
        os.kill(os.getpid(), signal.SIGINT)

    trainer = training.Trainer(
        training.build(small()), training.RunFolder(tmp_path), Send(3, signal.SIGINT)
    )
    trainer.watcher.start = lambda *given: monkeypatch.setattr(checkpoint, "save_state", disturbed)
    with pytest.raises(InterruptedRunError):
        trainer.fit()
    monkeypatch.undo()
    assert moment(tmp_path) == (0, 3)


@posix
def test_signals_that_the_user_handles_are_left_to_the_user(small, tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        history = training.train(small(), tmp_path, watcher=Send(3, signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(history) == 3
    assert seen == [signal.SIGTERM]


@posix
def test_a_signal_that_came_while_c_code_ran_is_not_forgotten(small, monkeypatch):
    monkeypatch.setattr(stopping, "_asked", [])
    before = [(n, signal.getsignal(n)) for n in stopping.OTHERS]
    try:
        leave_on_signals()
        leave_if_asked()
        with pytest.raises(StoppedBySignal) as end:  # swallowed there
            os.kill(os.getpid(), signal.SIGTERM)
        assert end.value.code == 143
        with pytest.raises(StoppedBySignal):
            leave_if_asked()
        with pytest.raises(StoppedBySignal):
            training.train(small())
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def test_a_stop_that_was_swallowed_is_not_printed(monkeypatch, capsys):
    """What is raised while an object is deleted, say, is printed by Python and not raised."""
    monkeypatch.setattr(stopping, "_asked", [])
    monkeypatch.setattr(stopping, "_told", [])
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    before = {number: signal.getsignal(number) for number in stopping.OTHERS}

    class Deleted:
        def __init__(self, act):
            self.act = act

        def __del__(self):
            self.act()

    try:
        leave_on_signals()
        Deleted(lambda: signal.raise_signal(signal.SIGTERM))
        assert capsys.readouterr().err == ""
        with pytest.raises(StoppedBySignal):
            leave_if_asked()
        Deleted(lambda: 1 / 0)
        assert "ZeroDivisionError" in capsys.readouterr().err
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
