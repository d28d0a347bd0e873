"""Whole sets of event recordings, written in the official layout and read back."""

import dataclasses
import hashlib
import os
import shutil

import numpy as np
import pytest
import torch
from data.described import with_files
from data.event_files import cifar10_files, gesture_files, nmnist_files, tarred, write, zipped

from threefactor.data import (
    DATASETS,
    available,
    describe,
    fetch,
    load,
    load_events,
    load_spikes,
)
from threefactor.data.sets.dvs_cifar10 import numbers_for_testing
from threefactor.errors import ConfigurationError, DataError


@pytest.fixture
def generator():
    return np.random.default_rng(3)


def bodies(files):
    return {name: body for name, (_, body) in files.items()}


def check(recordings, labels, expected):
    """Compare with (label, events) of each sample."""
    assert len(recordings) == len(labels) == len(expected)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [label for label, _ in expected]
    for found, (_, events) in zip(recordings, expected, strict=True):
        np.testing.assert_array_equal(found, events)


def check_nmnist(data, files):
    for part, (recordings, labels) in {"Train": data.train, "Test": data.test}.items():
        names = [name.split("/") for name in files if name.startswith(part)]
        names.sort(key=lambda name: name[2])
        expected = [(int(name[1]), files["/".join(name)][0]) for name in names]
        check(recordings, labels, expected)


def test_n_mnist_comes_in_the_order_of_mnist(tmp_path, generator):
    files = nmnist_files(generator)
    write(tmp_path / "nmnist", bodies(files))
    data = load_events("nmnist", tmp_path)
    check_nmnist(data, files)
    assert (data.sensor_size, data.outputs, data.name) == ((34, 34), 10, "nmnist")
    part = data.subset(7, 3)
    assert (len(part.train_events), len(part.test_labels)) == (7, 3)
    np.testing.assert_array_equal(part.train_events[6], data.train_events[6])


def test_archives_are_unpacked_once(tmp_path, generator):
    files = nmnist_files(generator)
    folder = tmp_path / "nmnist"
    folder.mkdir()
    for part in ("Train", "Test"):
        chosen = {name: body for name, body in bodies(files).items() if name.startswith(part)}
        (folder / f"{part}.zip").write_bytes(zipped(chosen))
    assert available("nmnist", tmp_path)
    check_nmnist(load_events("nmnist", tmp_path), files)
    assert sorted(os.listdir(folder)) == ["Test", "Test.zip", "Train", "Train.zip"]
    (folder / "Train.zip").unlink()
    check_nmnist(load_events("nmnist", tmp_path), files)


def test_a_damaged_archive_leaves_nothing_behind(tmp_path, generator):
    folder = tmp_path / "nmnist"
    write(
        folder, {k: v for k, v in bodies(nmnist_files(generator)).items() if k.startswith("Test")}
    )
    body = bytearray(zipped(bodies(nmnist_files(generator, test=0))))
    body[300] ^= 0xFF
    (folder / "Train.zip").write_bytes(body)
    with pytest.raises(DataError, match=r"Train\.zip"):
        load_events("nmnist", tmp_path)
    (folder / "Train.zip").write_bytes(zipped({"Other/0/00001.bin": b""}))
    with pytest.raises(DataError, match=r"Train\.zip holds no folder Train"):
        load_events("nmnist", tmp_path)
    (folder / "Train.zip").write_bytes(zipped({"Train/../../evil": b""}))
    with pytest.raises(DataError, match="leads out of its folder"):
        load_events("nmnist", tmp_path)
    assert sorted(os.listdir(folder)) == ["Test", "Train.zip"]
    assert not (tmp_path / "evil").exists()


def test_a_class_without_a_folder_is_refused(tmp_path, generator):
    write(tmp_path / "nmnist", bodies(nmnist_files(generator)))
    (tmp_path / "nmnist/Train/4").rename(tmp_path / "nmnist/other")
    with pytest.raises(DataError, match=r"Train has no folder 4"):
        load_events("nmnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hello.bin", "is not named by a number"),
        ("00001.bin", "are of the same image of MNIST"),
        ("1.bin", "are of the same image of MNIST"),
    ],
)
def test_recordings_of_no_or_of_one_number_are_refused(tmp_path, generator, name, message):
    write(tmp_path / "nmnist", bodies(nmnist_files(generator)))
    shutil.copy(tmp_path / "nmnist/Train/0/00001.bin", tmp_path / "nmnist/Train/3" / name)
    with pytest.raises(DataError, match=message):
        load_events("nmnist", tmp_path)


def test_a_class_that_lost_its_recordings_is_refused_and_hidden_files_are_not_read(
    tmp_path, generator
):
    files = nmnist_files(generator)
    write(tmp_path / "nmnist", bodies(files))
    (tmp_path / "nmnist/Train/3/._00004.bin").write_bytes(b"macOS")
    check_nmnist(load_events("nmnist", tmp_path), files)
    for path in (tmp_path / "nmnist/Train/3").glob("0*.bin"):
        path.unlink()
    with pytest.raises(DataError, match=r"Train/3 holds no recordings"):
        load_events("nmnist", tmp_path)


def test_a_damaged_recording_is_named_when_it_is_read(tmp_path, generator):
    files = nmnist_files(generator)
    write(tmp_path / "nmnist", bodies(files))
    path = next((tmp_path / "nmnist/Train/0").glob("00001.bin"))
    path.write_bytes(path.read_bytes()[:-1])
    data = load_events("nmnist", tmp_path)
    with pytest.raises(DataError, match=r"0/00001\.bin is cut short"):
        data.train_events[0]


def test_gestures_are_cut_out_by_the_tables(tmp_path, generator):
    files, samples = gesture_files(generator)
    write(tmp_path / "dvs-gesture", files)
    data = load_events("dvs-gesture", tmp_path)
    for (recordings, labels), names in (
        (data.train, ("user01_led", "user02_lab")),
        (data.test, ("user24_led",)),
    ):
        expected = []
        for label, start, _, events in (row for name in names for row in samples[name]):
            moved = events.copy()
            moved["t"] -= start
            expected.append((label - 1, moved))
        check(recordings, labels, expected)
    assert data.sensor_size == (128, 128)


def test_gestures_from_the_archive(tmp_path, generator):
    files, _ = gesture_files(generator)
    (tmp_path / "dvs-gesture").mkdir()
    (tmp_path / "dvs-gesture/DvsGesture.tar.gz").write_bytes(tarred(files))
    assert len(load_events("dvs-gesture", tmp_path).train_events) == 10
    assert "found in" in describe("dvs-gesture", tmp_path)


def test_a_file_of_gestures_is_read_once_in_a_row(tmp_path, generator, monkeypatch):
    calls, entry = [], DATASETS["dvs-gesture"]

    def read(path, **given):
        calls.append(path)
        return entry.read(path, **given)

    monkeypatch.setitem(DATASETS, "dvs-gesture", dataclasses.replace(entry, read=read))
    write(tmp_path / "dvs-gesture", gesture_files(generator)[0])
    for _ in load_events("dvs-gesture", tmp_path).train_events:
        pass
    assert len(calls) == 2


HEAD = "class,startTime_usec,endTime_usec\n"


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("trials_to_train.txt", "user01_led.aedat\nuser99_led.aedat\n", r"row 2 names user99_led"),
        ("trials_to_train.txt", "user01_led.aedat\n" * 2, r"row 2 names user01_led.* second time"),
        (
            "trials_to_train.txt",
            "user24_led.aedat\n",
            r"user24_led.* for training, and .* for testing",
        ),
        ("trials_to_train.txt", "../user01_led.aedat\n", r"row 1 names \.\./user01"),
        ("trials_to_test.txt", "\n", "names no recordings"),
        ("user01_led_labels.csv", "class,start,end\n1,2,3\n", r"row 1 is 'class,start,end'"),
        ("user01_led_labels.csv", HEAD + "1,2,3\n12,2,3\n", r"row 3 is '12,2,3'.* from 1 to 11"),
        ("user01_led_labels.csv", HEAD + "1,3,3\n", r"row 2 is '1,3,3'"),
        ("user01_led_labels.csv", HEAD + "1,3\n", r"row 2 is '1,3'"),
        ("user01_led_labels.csv", HEAD, "no rows below its header"),
        ("user01_led_labels.csv", "", "row 1 is ''"),
        ("user01_led_labels.csv", b"\xff\xfe\x00", "is not text, at offset 0"),
    ],
)
def test_lists_and_tables_without_meaning_are_refused(tmp_path, generator, name, body, message):
    write(tmp_path / "dvs-gesture", gesture_files(generator)[0])
    path = tmp_path / "dvs-gesture/DvsGesture" / name
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_events("dvs-gesture", tmp_path)
    assert str(path) in str(caught.value)


def test_a_recording_without_a_table_is_refused(tmp_path, generator):
    write(tmp_path / "dvs-gesture", gesture_files(generator)[0])
    (tmp_path / "dvs-gesture/DvsGesture/user02_lab_labels.csv").unlink()
    with pytest.raises(DataError, match=r"row 2 names user02_lab\.aedat, but .*user02_lab_labels"):
        load_events("dvs-gesture", tmp_path)


def test_a_gesture_without_events_is_refused(tmp_path, generator):
    write(tmp_path / "dvs-gesture", gesture_files(generator)[0])
    table = tmp_path / "dvs-gesture/DvsGesture/user01_led_labels.csv"
    table.write_text(HEAD + "3,90000000,90000001\n")
    with pytest.raises(DataError, match=r"no events from 90000000 .*row 2 of .*labels\.csv"):
        load_events("dvs-gesture", tmp_path).train_events[0]


def test_the_split_of_dvs_cifar10_never_changes():
    parts = [numbers_for_testing(label) for label in range(10)]
    assert all(len(part) == 100 and min(part) >= 0 and max(part) < 1000 for part in parts)
    text = ";".join(",".join(map(str, sorted(part))) for part in parts)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9e0af632d4a7900a"


def test_dvs_cifar10_is_split_by_the_numbers(tmp_path, generator):
    files = cifar10_files(generator)
    write(tmp_path / "dvs-cifar10", bodies(files))
    data = load_events("dvs-cifar10", tmp_path)
    expected = {True: [], False: []}
    for number in (1, 2, 3, 14):
        for label, name in enumerate(data.classes):
            events, _ = files[f"{name}/cifar10_{name}_{number}.aedat"]
            expected[number in numbers_for_testing(label)].append((label, events))
    assert expected[True] and expected[False]
    check(*data.train, expected[False])
    check(*data.test, expected[True])


@pytest.mark.parametrize("name", ["cifar10_cat_1000.aedat", "cifar10_dog_1.aedat", "x.aedat"])
def test_recordings_that_the_split_does_not_know_are_refused(tmp_path, generator, name):
    write(tmp_path / "dvs-cifar10", bodies(cifar10_files(generator)))
    (tmp_path / "dvs-cifar10/cat" / name).touch()
    with pytest.raises(DataError, match=rf"cat/{name} is not a recording of the set"):
        load_events("dvs-cifar10", tmp_path)


def test_absent_sets_say_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"no Train or Train\.zip, Test or Test\.zip") as caught:
        load_events("nmnist", tmp_path)
    assert "threefactor data fetch nmnist" in str(caught.value)
    with pytest.raises(DataError, match=r"by hand only, from\n .*ibm.*\n.*\n.*DvsGesture"):
        fetch("dvs-gesture", tmp_path)


def test_fetch_downloads_and_unpacks_what_is_missing(
    tmp_path, generator, monkeypatch, server, mirror
):
    files = bodies(nmnist_files(generator))
    entry, published = DATASETS["nmnist"], []
    for file, part in zip(entry.files.published, ("Train", "Test"), strict=True):
        body = zipped({name: body for name, body in files.items() if name.startswith(part)})
        server.bodies[f"{part}-address"] = body
        url = mirror("good") + f"{part}-address"
        published.append(dataclasses.replace(file, md5=hashlib.md5(body).hexdigest(), url=url))
    monkeypatch.setitem(DATASETS, "nmnist", with_files(entry, *published))
    write(tmp_path / "nmnist", {k: v for k, v in files.items() if k.startswith("Test")})
    folder = fetch("nmnist", tmp_path)
    assert sorted(os.listdir(folder)) == ["Test", "Train"]
    assert server.requests == ["/good/Train-address"]
    assert len(load_events("nmnist", tmp_path).train_events) == 25
    fetch("nmnist", tmp_path)
    assert len(server.requests) == 1


def test_the_loaders_name_one_another(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds events, not images; use .*load_frames"):
        load("nmnist", tmp_path)
    with pytest.raises(ConfigurationError, match=r"use threefactor\.data\.load_frames"):
        load_spikes("nmnist", tmp_path)
    with pytest.raises(ConfigurationError, match=r"'mnist' holds images.* nmnist, dvs-gesture"):
        load_events("mnist", tmp_path)


def test_real_recordings_in_their_folders(tmp_path):
    from pathlib import Path

    samples = Path(__file__).parents[1] / "real"
    for part, label, number in (("Train", 0, "00002"), ("Test", 1, "00003")):
        body = (samples / f"nmnist-{part.lower()}-{label}-{number}.bin").read_bytes()
        others = {f"{part}/{each}/{each + 10:05d}.bin": body for each in range(10) if each != label}
        write(tmp_path / "nmnist", {f"{part}/{label}/{number}.bin": body, **others})
    data = load_events("nmnist", tmp_path)
    assert (data.train_labels.tolist()[0], data.test_labels.tolist()[0]) == (0, 1)
    assert len(data.train_events[0]) > 1000
