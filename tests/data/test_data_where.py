import pytest

from threefactor.data import (
    DATASETS,
    ImageFolderSet,
    SimulatedSet,
    available,
    data_folder,
    describe,
    load,
)
from threefactor.errors import ConfigurationError, DataError


def test_data_folder_prefers_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    assert data_folder("mnist") == tmp_path / "cache" / "threefactor" / "mnist"
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "variable"))
    assert data_folder("mnist") == tmp_path / "variable" / "mnist"
    assert data_folder("mnist", tmp_path / "given") == tmp_path / "given" / "mnist"
    monkeypatch.setenv("THREEFACTOR_DATA", "")
    assert data_folder("fashion-mnist") == tmp_path / "cache" / "threefactor" / "fashion-mnist"


def test_data_folder_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert data_folder("mnist", "~/sets") == tmp_path / "sets" / "mnist"


@pytest.mark.parametrize("call", [data_folder, load, available, describe])
def test_an_unknown_name_is_answered_with_the_nearest(call):
    with pytest.raises(ConfigurationError, match="unknown data set 'fashon_mnist'; did you mean"):
        call("fashon_mnist")


@pytest.mark.parametrize("dot", [False, True], ids=["hyphen", "dot"])
@pytest.mark.parametrize("ending", ["", ".gz"], ids=["plain", "packed"])
def test_all_customary_file_names_are_found(tmp_path, place, ending, dot):
    place(tmp_path / "mnist", ending, dot)
    assert available("mnist", tmp_path)
    assert len(load("mnist", tmp_path).train_labels) == 40


def test_a_directory_of_a_files_name_does_not_count(tmp_path, place):
    place(tmp_path / "mnist", "", dot=True)
    (tmp_path / "mnist" / "train-images-idx3-ubyte").mkdir()
    assert len(load("mnist", tmp_path).train_labels) == 40


def test_the_variable_is_honoured(tmp_path, place, monkeypatch):
    place(tmp_path / "sets" / "mnist")
    assert not available("mnist")
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "sets"))
    assert available("mnist")
    assert len(load("mnist").test_labels) == 10


def test_debians_folder_is_used_only_if_no_folder_is_named(tmp_path, place, monkeypatch):
    place(tmp_path / "debian")
    assert len(load("fashion-mnist").train_labels) == 40
    assert f"found in {tmp_path / 'debian'}" in describe("fashion-mnist")
    assert not available("fashion-mnist", tmp_path / "typo")
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "typo"))
    assert not available("fashion-mnist")


def test_the_cache_comes_before_debians_folder_but_only_if_complete(tmp_path, place, arrays):
    place(tmp_path / "debian")
    cache = place(data_folder("fashion-mnist"), data=[array[:7] for array in arrays])
    assert len(load("fashion-mnist").train_labels) == 7
    (cache / "t10k-labels-idx1-ubyte.gz").unlink()
    assert len(load("fashion-mnist").train_labels) == 40


def test_absent_data_are_answered_with_the_command(tmp_path):
    with pytest.raises(DataError) as caught:
        load("mnist")
    text = str(caught.value)
    assert "threefactor data fetch mnist\n" in text
    assert "--data-dir DIR or THREEFACTOR_DATA" in text
    assert f"{tmp_path / 'cache' / 'threefactor' / 'mnist'}: no train-images-idx3-ubyte.gz" in text
    assert "apt" not in text


def test_absent_files_are_listed_with_the_folder_that_was_named(tmp_path, place):
    folder = place(tmp_path / "my sets" / "fashion-mnist")
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", tmp_path / "my sets")
    text = str(caught.value)
    assert f"{folder}: no t10k-images-idx3-ubyte.gz\n" in text
    assert f"threefactor data fetch fashion-mnist --data-dir '{tmp_path / 'my sets'}'" in text
    assert "apt install dataset-fashion-mnist" in text
    assert str(tmp_path / "debian") not in text


def test_debians_folder_is_among_those_looked_in(tmp_path):
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist") as caught:
        load("fashion-mnist")
    assert str(tmp_path / "debian") in str(caught.value)


@pytest.mark.parametrize("name", list(DATASETS))
def test_describe_tells_what_a_set_is_and_whether_it_is_there(tmp_path, name):
    entry = DATASETS[name]
    text = describe(name, tmp_path)
    classes = len(entry.classes) or 1000
    facts = (entry.title, str(entry.train), f"{classes}: ", entry.licence, entry.source)
    for part in facts:
        assert part in text
    assert ("channels (spike times in seconds)" in text) == (entry.kind == "spikes")
    assert ("pip install 'threefactor[data]'" in text) == (name in ("shd", "shd-like"))
    simulated = isinstance(entry, SimulatedSet)
    base = entry.base if simulated else entry
    assert (f"load_frames({name!r}) from {base.name}" in text) == simulated
    if not base.files.contents:
        assert "nothing to download" in text
        return
    folder = tmp_path / base.name
    assert f"not found in {folder}" in text
    way = base.files.by_hand or f"threefactor data fetch {base.name} --data-dir {tmp_path}"
    assert way in text
    folder.mkdir()
    for file in base.files.contents:
        (folder / file).mkdir() if base.files.folders else (folder / file).touch()
    assert f" found in {folder}" in describe(name, tmp_path)
    assert "not found" not in describe(name, tmp_path)
    assert available(name, tmp_path)


def test_digits_are_always_there(tmp_path):
    assert available("digits")
    assert available("digits", tmp_path / "nowhere")
    assert "nothing to download" in describe("digits")


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_entry_is_consistent(name):
    entry = DATASETS[name]
    assert entry.name == name
    others = {"emnist-balanced": 47, "yin-yang": 3, "cifar100": 100, "dvs-gesture": 11}
    others |= {"shd": 20, "shd-like": 20, "dvs-gesture-tonic": 11}
    base = entry.base.name if isinstance(entry, SimulatedSet) else name
    outputs = others.get(base, 10) if entry.kind != "image files" else 0
    assert len(set(entry.classes)) == len(entry.classes) == outputs
    assert len(entry.shape) == (1 if entry.kind == "spikes" else 3)
    files = entry.files
    assert all(len(file.md5) == 32 and int(file.md5, 16) for file in files.published)
    assert all(mirror.endswith("/") for mirror in files.mirrors)
    assert sum(map(bool, (files.published, files.not_needed, files.by_hand))) == 1
    assert bool(files.own_files or files.own_folders) == bool(files.by_hand)
    assert isinstance(entry, ImageFolderSet) == (not entry.classes)
    if entry.kind == "events":
        assert len(files.folders) == len(files.published or files.own_folders)
        assert not files.mirrors
    else:
        assert bool(files.published) == bool(files.mirrors)
        assert len(files.contents) in (0, 2, 4, 6)
