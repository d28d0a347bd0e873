"""Checkpoints: complete or not there, and no pickle in them."""

import errno
import json
import os

import pytest
import torch

from threefactor.errors import CheckpointError
from threefactor.training import checkpoint
from threefactor.training.checkpoint import load_state, save_state

STATE = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor(3)},
    "numbers": [1, 2.5, None, True, "text", (1, 2)],
    0: {"float": 0.1 + 0.2, "tiny": 5e-324},
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_state_comes_back_to_the_bit(tmp_path):
    save_state(tmp_path / "last", STATE)
    assert same(load_state(tmp_path / "last"), STATE)


def test_only_safetensors_and_json_are_written(tmp_path):
    save_state(tmp_path, STATE)
    save_state(tmp_path, STATE)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0] == "state.json"
    assert names[1].endswith(".safetensors")
    json.loads((tmp_path / "state.json").read_text())


def test_what_would_need_pickle_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="a function cannot be saved without pickle"):
        save_state(tmp_path / "last", {"f": checkpoint.exists})
    assert not (tmp_path / "last").exists()


@pytest.mark.parametrize("keep", [0, 1, 8, 100])
def test_tensors_cut_short_are_noticed(tmp_path, keep):
    save_state(tmp_path, STATE)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"was cut short or changed"):
        load_state(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path):
    save_state(tmp_path, STATE)
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_state(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"tensors": 1, "state": {}}'])
def test_a_state_file_cut_short_is_noticed(tmp_path, content):
    save_state(tmp_path, STATE)
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_state(tmp_path)


def test_absence_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_state(tmp_path / "nowhere")


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, failing_call):
    save_state(tmp_path, {"n": 1, "t": torch.ones(3)})
    calls = 0

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_state(tmp_path, {"n": 2, "t": torch.zeros(3)})
    monkeypatch.undo()
    assert load_state(tmp_path)["n"] == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kill_between_the_two_files_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save_state(tmp_path, {"n": 1})

    class Killed(BaseException):
        pass

    replace = os.replace

    def dies(source, target):
        if str(target).endswith("state.json"):
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(Killed):
        save_state(tmp_path, {"n": 2})
    monkeypatch.undo()
    assert load_state(tmp_path)["n"] == 1
    save_state(tmp_path, {"n": 3})
    assert load_state(tmp_path)["n"] == 3
    assert len(list(tmp_path.glob("tensors-*"))) == 1


def test_random_state_is_restored():
    torch.manual_seed(5)
    state = checkpoint.random_state()
    first = torch.rand(4)
    checkpoint.set_random_state(state)
    assert torch.equal(torch.rand(4), first)
