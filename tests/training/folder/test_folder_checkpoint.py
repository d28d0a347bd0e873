"""Checkpoints: complete or not there, and no pickle in them."""

import copy
import errno
import json
import os
import threading
import time

import pytest
import torch

from threefactor.errors import CheckpointError
from threefactor.training.folder import checkpoint
from threefactor.training.folder.checkpoint import load_state, save_state

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


def rewrite(folder, change, digest=True):
    """Change state.json, with the checksum of what it then holds, or with the old one."""
    path = folder / "state.json"
    document = json.loads(path.read_text())
    change(document)
    if digest:
        body = {key: document[key] for key in ("tensors", "state") if key in document}
        document["sha256"] = checkpoint._digest(body)
    path.write_text(json.dumps(document))


def set_state(value):
    return lambda document: document.update(state=value)


def test_a_changed_state_is_noticed(tmp_path):
    save_state(tmp_path, {"epoch": 3})
    rewrite(tmp_path, set_state({"dict": [["epoch", 4]]}), digest=False)
    with pytest.raises(CheckpointError, match=r"state\.json is not the file that was saved"):
        load_state(tmp_path)
    rewrite(tmp_path, lambda document: None)
    assert load_state(tmp_path) == {"epoch": 4}
    rewrite(tmp_path, lambda document: document.pop("sha256"), digest=False)
    with pytest.raises(CheckpointError, match="has no checksum"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/dev/zero",
        "/etc/hostname",
        "../last/tensors-0123456789ab.safetensors",
        "tensors-0123456789ab.safetensors/../../x",
        "tensors-0123456789ab.safetensors\n",
        "state.json",
        "",
        "tensors-0123456789ab\0.safetensors",
    ],
)
def test_only_a_plain_name_beside_it_is_read(tmp_path, name):
    save_state(tmp_path, STATE)
    rewrite(tmp_path, lambda document: document["tensors"].update(file=name))
    with pytest.raises(CheckpointError, match="expected the plain name of a file beside it"):
        load_state(tmp_path)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    save_state(tmp_path, STATE)
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    os.mkfifo(file)
    rewrite(tmp_path, lambda document: document["tensors"].update(bytes=0))
    with pytest.raises(CheckpointError, match="is not a file"):
        load_state(tmp_path)
    (tmp_path / "state.json").unlink()
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(CheckpointError, match="is not a file"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        5,
        {},
        [],
        [1, 2],
        {"dict": [[1, 2, 3]]},
        {"dict": [["a", 1], ["a", 2]]},
        {"dict": [[{"list": []}, 1]]},
        {"dict": 5},
        {"dict": [["a", {"x": 1}]]},
        {"dict": [["a", {"tensor": "0", "list": []}]]},
        {"tensor": "99"},
        {"tensor": []},
        {"tensor": None},
        {"list": 5},
        {"other": []},
        {"dict": [["a", [1]]]},
    ],
)
def test_a_state_of_another_structure_is_an_error_of_ours(tmp_path, state):
    save_state(tmp_path, STATE)
    rewrite(tmp_path, set_state(state))
    if state == 5:
        assert load_state(tmp_path) == 5
        return
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path)


DEEP = "[" * 50_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        '{"a":' * 50_000,
        '{"sha256": "", "tensors": {}, "state": ' + "[" * 900 + "]" * 900 + "}",
        '{"sha256": 1, "tensors": null, "state": 1}',
        '{"tensors": {"file": 5, "bytes": 1, "sha256": ""}, "state": 1}',
        '{"tensors": {"file": "", "bytes": true, "sha256": ""}, "state": 1}',
        '{"tensors": {"file": "", "bytes": 1e400, "sha256": ""}, "state": 1}',
        '{"tensors": {"file": "", "bytes": 1, "sha256": ""}, "state": 1, "more": 1}',
        "9" * 5000,
        "NaN",
        "\ud800",
        '"' + "a" * 2**24 + '"',
    ],
)
def test_json_of_any_depth_type_or_size_is_an_error_of_ours(tmp_path, content):
    save_state(tmp_path, STATE)
    (tmp_path / "state.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_state(tmp_path)


@pytest.mark.parametrize("depth", [100, 200, 300, 400])
def test_a_deep_state_is_read_or_an_error_of_ours(tmp_path, depth):
    save_state(tmp_path, STATE)
    state = wanted = 1
    for _ in range(depth):
        state, wanted = {"list": [state]}, [wanted]
    rewrite(tmp_path, set_state(state))
    try:
        assert load_state(tmp_path) == wanted
    except CheckpointError:  # deeper than this interpreter goes
        assert depth > 100


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"tensors": 1, "state": {}}'])
def test_a_state_file_cut_short_is_noticed(tmp_path, content):
    save_state(tmp_path, STATE)
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_state(tmp_path)


def test_absence_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_state(tmp_path / "nowhere")


@pytest.mark.parametrize("failing_call", [1, 2, 3])
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


def test_a_disk_that_fails_after_the_renaming_leaves_the_new_checkpoint(tmp_path, monkeypatch):
    save_state(tmp_path, {"n": 1, "t": torch.ones(3)})
    synced = 0

    def fails(descriptor):
        nonlocal synced
        synced += 1
        if synced == 4:  # of the folder, with the new name in it
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_state(tmp_path, {"n": 2, "t": torch.zeros(3)})
    monkeypatch.undo()
    assert load_state(tmp_path)["n"] == 2
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


def test_what_a_kill_left_is_cleared_by_the_next_checkpoint(tmp_path):
    save_state(tmp_path, STATE)
    kept = {path.name for path in tmp_path.iterdir()}
    (tmp_path / ".state.json.0123abcd").write_text("{")
    (tmp_path / ".tensors-0123456789ab.safetensors.89abcdef").write_bytes(b"12")
    (tmp_path / "tensors-0123456789ab.safetensors").write_bytes(b"12")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "notes.txt"}
    assert same(load_state(tmp_path), STATE)


def test_without_tensors_the_rest_is_read_and_their_file_looked_at(tmp_path):
    save_state(tmp_path, {"n": 1, "t": torch.ones(3)})
    assert load_state(tmp_path, tensors=False) == {"n": 1, "t": None}
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        load_state(tmp_path, tensors=False)
    file.unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_state(tmp_path, tensors=False)


def test_a_reader_gets_a_whole_checkpoint_at_any_moment(tmp_path):
    def state(n):
        return {"n": n, "t": torch.full((1000,), float(n))}

    save_state(tmp_path, state(0))
    stop, seen = threading.Event(), set()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            save_state(tmp_path, state(n))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        deadline = time.monotonic() + 120  # on a machine that others keep busy
        while len(seen) < 50 and time.monotonic() < deadline:
            found = load_state(tmp_path)
            assert same(found, state(found["n"]))
            seen.add(found["n"])
    finally:
        stop.set()
        writer.join()
    assert len(seen) == 50


def test_a_reader_begins_again_if_the_tensors_are_replaced_under_it(tmp_path, monkeypatch):
    save_state(tmp_path, {"n": 1, "t": torch.ones(3)})
    read, between = checkpoint._tensors, iter(range(2, 5))

    def late(folder, about, wanted):
        for n in between:  # three newer ones before this reader comes to the tensors
            save_state(tmp_path, {"n": n, "t": torch.ones(3)})
            break
        return read(folder, about, wanted)

    monkeypatch.setattr(checkpoint, "_tensors", late)
    assert load_state(tmp_path)["n"] == 4


def test_tensors_of_another_module_are_named():
    here = {"w": torch.zeros(2, 3), "b": torch.zeros(2)}
    checkpoint.check_tensors(here, copy.deepcopy(here))
    for there, said in (
        (5, "holds no tensors"),
        ({"w": here["w"]}, "missing: b"),
        ({**here, "c": here["w"]}, "not known: c"),
        ({**here, "w": 5}, "w is 5, not a tensor"),
        ({**here, "w": torch.zeros(3, 2)}, r"w is torch.float32 of shape \(3, 2\), expected"),
        ({**here, "w": torch.zeros(2, 3, dtype=torch.float64)}, "w is torch.float64"),
        ({**here, "b": torch.tensor([0.0, float("nan")])}, "b holds numbers that are not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            checkpoint.check_tensors(here, there)


def test_random_state_is_restored():
    torch.manual_seed(5)
    state = checkpoint.random_state()
    first = torch.rand(4)
    checkpoint.set_random_state(state)
    assert torch.equal(torch.rand(4), first)
