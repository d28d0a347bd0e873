"""Folders of classes: which samples they hold, how they are split, what is refused."""

import os

import numpy as np
import pytest
import torch
from data.event_files import aedat2_bytes, nmnist_bytes, random_events
from PIL import Image

from threefactor.data.own.huggingface import huggingface
from threefactor.data.own.images import images
from threefactor.data.own.kinds import recognise
from threefactor.data.own.recordings import read_recording, recordings
from threefactor.data.own.spikes import spikes
from threefactor.data.own.survey import survey
from threefactor.data.own.tensors import tensors
from threefactor.errors import ConfigurationError, DataError, InputError


def grey(seed, height=6, width=5):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def write(folder, count=4, classes=("cat", "dog"), start=0, **size):
    """Write grey pictures; those of a class are numbered from `start` on."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            picture = Image.fromarray(grey(100 * label + number, **size))
            picture.save(folder / name / f"{number}.png")
    return folder


def test_pictures_are_normalised_by_those_for_training_and_labelled_by_their_folders(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", 2, start=50)
    found = images(path=str(tmp_path), steps=4)
    assert found.classes == ("cat", "dog")
    assert found.input_shape == (1, 6, 5)
    assert found.train_labels.tolist() == [0, 1] * 4
    raw = np.stack([grey(100 * (n % 2) + n // 2) for n in range(8)]) / 255
    expected = (raw - raw.mean()) / raw.std()
    stored = found.train_samples[:, 0].double()
    torch.testing.assert_close(stored, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    assert found.found["samples"]["test"] == {"cat": 2, "dog": 2}
    assert found.validation is None


def test_a_folder_for_validation_is_a_part_of_its_own(tmp_path):
    for part, start in (("train", 0), ("validation", 20), ("test", 50)):
        write(tmp_path / part, 3, start=start)
    found = images(path=str(tmp_path), steps=4, normalise=False)
    inputs, labels = found.validation
    assert labels.tolist() == [0, 1] * 3
    expected = torch.from_numpy(grey(20)).double() / 255
    torch.testing.assert_close(inputs[0, 0].double(), expected)


def test_a_share_is_of_each_class_and_depends_on_the_seed_alone(tmp_path):
    write(tmp_path, 10)
    parts = [
        images(path=str(tmp_path), steps=4, test_share=0.3, split_seed=seed) for seed in (0, 0, 1)
    ]
    assert parts[0].found["samples"] == {
        "train": {"cat": 7, "dog": 7},
        "test": {"cat": 3, "dog": 3},
    }
    assert torch.equal(parts[0].test_samples, parts[1].test_samples)
    assert not torch.equal(parts[0].test_samples, parts[2].test_samples)


def test_a_list_names_the_samples_for_testing(tmp_path):
    write(tmp_path)
    (tmp_path / "held.txt").write_text("# those of the second camera\ncat/3.png\n./dog/2.png\n\n")
    found = images(path=str(tmp_path), steps=4, test_part="held.txt", normalise=False)
    assert found.found["samples"]["test"] == {"cat": 1, "dog": 1}
    expected = torch.from_numpy(np.stack([grey(3), grey(102)])).double() / 255
    torch.testing.assert_close(found.test_samples[:, 0].double(), expected)
    (tmp_path / "held.txt").write_text("cat/9.png\n")
    with pytest.raises(DataError, match=r"line 1 of .*held\.txt names 'cat/9\.png'"):
        images(path=str(tmp_path), steps=4, test_part="held.txt")
    (tmp_path / "held.txt").write_text("cat/1.png\ndog/1.png")
    (tmp_path / "some.txt").write_text("cat/1.png\ndog/0.png")
    with pytest.raises(DataError, match=r"'cat/1\.png', which is listed for train, too"):
        images(path=str(tmp_path), steps=4, train_part="some.txt", test_part="held.txt")


@pytest.mark.parametrize("load", [images, recordings, spikes, tensors, huggingface])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test_part": "train"}, "'train', 'validation', 'train'; give each another name"),
        ({"test_part": "./train/"}, "give each another name"),
        ({"validation_part": "val", "test_part": "val"}, "trained or chosen by cannot test it"),
        ({"split_seed": 3}, "split_seed is 3 and test_share null, so nothing is chosen at random"),
    ],
)
def test_a_split_that_is_none_is_refused(tmp_path, load, given, message):
    """Above all, no network is tested on what it has learned from."""
    write(tmp_path / "train")
    write(tmp_path / "val")
    with pytest.raises(ConfigurationError, match=message):
        load(path=str(tmp_path), steps=4, **given)
    with pytest.raises(ConfigurationError, match=message):
        survey(tmp_path, options=given)


def test_nothing_says_how_to_split(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigurationError, match=r"--set test_share=0\.2"):
        images(path=str(tmp_path), steps=4)
    write(tmp_path / "two" / "train")
    write(tmp_path / "two" / "val")
    with pytest.raises(ConfigurationError, match=r"no 'test' for testing.*'train', 'val'"):
        images(path=str(tmp_path / "two"), steps=4)
    with pytest.raises(ConfigurationError, match=r"test_share is 0\.2; leave test_share out"):
        images(path=str(tmp_path / "two"), steps=4, test_part="val", test_share=0.2)
    with pytest.raises(ConfigurationError, match="data 'images' has no path"):
        images(steps=4)
    with pytest.raises(InputError, match=r"share is 1\.5"):
        images(path=str(tmp_path), steps=4, test_share=1.5)


def test_pictures_of_several_sizes_are_resized_only_if_asked(tmp_path):
    write(tmp_path, 5)
    write(tmp_path, 2, start=10, height=9)
    with pytest.raises(DataError, match=r"2 sizes \(height x width: 10 of 6x5, 4 of 9x5") as error:
        images(path=str(tmp_path), steps=4, test_share=0.3)
    assert "--set size=64" in str(error.value)
    found = images(path=str(tmp_path), steps=4, test_share=0.3, size=(3, 7))
    assert found.input_shape == (1, 3, 7)
    assert "bilinear" in found.found["resized"]
    whole = Image.fromarray(grey(10, height=9)).resize((7, 3), Image.Resampling.BILINEAR)
    plain = images(path=str(tmp_path), steps=4, test_share=0.3, size=(3, 7), normalise=False)
    stored = torch.cat([plain.train_samples, plain.test_samples])[:, 0]
    target = torch.from_numpy(np.array(whole)).to(stored.dtype) / 255
    assert any(torch.equal(target, one) for one in stored)


def test_grey_and_coloured_pictures_are_not_mixed_unless_asked(tmp_path):
    write(tmp_path, 5)
    Image.fromarray(np.dstack([grey(1)] * 3)).save(tmp_path / "cat" / "c.png")
    with pytest.raises(DataError, match=r"10 pictures .* in shades of grey and 1 in colour"):
        images(path=str(tmp_path), steps=4, test_share=0.3)
    found = images(path=str(tmp_path), steps=4, test_share=0.3, colour="rgb")
    assert found.input_shape == (3, 6, 5)
    assert found.found["turned into colour"] == "10 pictures"


def test_files_that_cannot_be_read_are_named(tmp_path):
    write(tmp_path, 5)
    (tmp_path / "cat" / "broken.png").write_bytes(b"no picture")
    body = (tmp_path / "dog" / "1.png").read_bytes()
    (tmp_path / "dog" / "half.png").write_bytes(body[: len(body) // 2])
    with pytest.raises(DataError, match=r"cannot be read: .*broken\.png"):
        images(path=str(tmp_path), steps=4, test_share=0.3)
    (tmp_path / "cat" / "broken.png").unlink()
    with pytest.raises(DataError, match=r"1 of \d+ files cannot be read: .*half\.png"):
        images(path=str(tmp_path), steps=4, test_share=0.3)


def test_classes_that_cannot_be_learned_are_refused(tmp_path):
    write(tmp_path / "one", classes=("cat",))
    with pytest.raises(DataError, match="holds one class only, 'cat'"):
        images(path=str(tmp_path / "one"), steps=4, test_share=0.3)
    write(tmp_path / "two" / "train")
    write(tmp_path / "two" / "test", classes=("cat", "dog", "emu"))
    with pytest.raises(DataError, match="no images for training of the class 'emu'"):
        images(path=str(tmp_path / "two"), steps=4)
    write(tmp_path / "three")
    (tmp_path / "three" / "emu").mkdir()
    with pytest.raises(DataError, match=r"three/emu' holds no images"):
        images(path=str(tmp_path / "three"), steps=4, test_share=0.3)
    Image.fromarray(grey(1)).save(tmp_path / "two" / "train" / "stray.png")
    with pytest.raises(DataError, match=r"1 images in .* no folder of a class: '.*stray\.png'"):
        images(path=str(tmp_path / "two"), steps=4)
    with pytest.raises(DataError, match="no folders of classes"):
        images(path=str(tmp_path / "one" / "cat"), steps=4, test_share=0.3)


def test_a_class_without_test_samples_and_other_files_are_told(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", classes=("cat",))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("a note")
    found = images(path=str(tmp_path), steps=4)
    assert "'dog'" in found.found["not tested"]
    assert "notes.txt" in found.found["passed over"]


def test_pictures_become_spikes_for_event_driven_networks(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", 2, start=50)
    found = images(path=str(tmp_path), window=0.2)
    assert found.input_shape == (30,)
    times, addresses = found.train_samples[0]
    values = grey(0).reshape(-1)
    np.testing.assert_array_equal(np.sort(addresses), np.flatnonzero(values))
    np.testing.assert_allclose(times, 0.2 * (1 - values[addresses] / 255), atol=1e-9)
    assert len(found.train_samples) == 8


def write_events(folder, classes=("left", "right"), count=4):
    """Write recordings of four formats, three events of which are at the sensor's corner."""
    chance = np.random.default_rng(0)
    written = {}
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            events = random_events(chance, 60, 10, span=5000)
            events["t"] -= events["t"][0]
            place = folder / name / f"{number}"
            match number % 4:
                case 0:
                    np.save(place.with_suffix(".npy"), events)
                case 1:
                    np.savez(place.with_suffix(".npz"), **{f: events[f] for f in "xytp"})
                case 2:
                    place.with_suffix(".bin").write_bytes(nmnist_bytes(events))
                case 3:
                    place.with_suffix(".aedat").write_bytes(aedat2_bytes(events))
            written[label, number] = events
    return written


def test_recordings_of_all_formats_hold_the_same_events(tmp_path):
    written = write_events(tmp_path)
    for (label, number), events in written.items():
        (path,) = (tmp_path / ("left", "right")[label]).glob(f"{number}.*")
        np.testing.assert_array_equal(read_recording(path, (128, 128)), events)


def test_frames_count_every_event_once(tmp_path):
    written = write_events(tmp_path)
    found = recordings(path=str(tmp_path), steps=5, test_share=0.25)
    assert found.steps == 5
    assert found.input_shape == (2, 10, 10)
    assert "10x10" in found.found["sensor"]
    batch = found.train_samples[torch.arange(6)]
    assert batch.shape == (5, 6, 2, 10, 10)
    assert batch.sum(dim=(0, 2, 3, 4)).tolist() == [60.0] * 6
    total = sum(
        np.bincount(events["y"] * 10 + events["x"], minlength=100) for events in written.values()
    )
    both = torch.cat([batch, found.test_samples[torch.arange(2)]], 1).sum(dim=(0, 1, 2))
    np.testing.assert_array_equal(both.reshape(-1).numpy(), total)


def test_events_after_the_last_frame_are_counted(tmp_path, recwarn):
    written = write_events(tmp_path / "data")
    times = np.concatenate([events["t"] for events in written.values()])

    def load(window):
        return recordings(
            path=str(tmp_path / "data"), steps=5, test_share=0.25, frame_window=window
        )

    for _ in ("made", "kept"):
        late = int((times >= 5 * 700).sum())
        with pytest.warns(
            UserWarning, match=f"^{late} of 480 events .* after the last of 5 frames"
        ):
            found = load(700)
        assert f"{late} of 480 events ({late / 480:.1%}) come later" in found.found["frames"]
        inside = [
            part[torch.arange(len(part))].sum()
            for part in (found.train_samples, found.test_samples)
        ]
        assert sum(inside) == 480 - late
    recwarn.clear()
    few = int((times >= 5 * 980).sum())
    assert 0 < few < 48 and f"{few} of 480" in load(980).found["frames"]
    assert "later" not in load(1000).found["frames"]
    assert not recwarn.list


def test_events_become_spikes_for_event_driven_networks(tmp_path):
    written = write_events(tmp_path)
    found = recordings(path=str(tmp_path), test_share=0.25, sensor=(12, 11))
    assert found.train_samples.size == 2 * 12 * 11
    assert len(found.train_samples.times) == 6 * 60
    times, addresses = found.test_samples[0]
    known = [
        {
            (round(float(e["t"]) * 1e-6, 9), (int(e["p"]) * 12 + int(e["y"])) * 11 + int(e["x"]))
            for e in events
        }
        for events in written.values()
    ]
    assert set(zip(times.round(9).tolist(), addresses.tolist(), strict=True)) in known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[["x", "y", "t"]], "lacks p"),
        (lambda e: np.stack([e["x"], e["y"], e["t"]], 1), "whose columns have no names"),
        (lambda e: _with(e, "t", e["t"] * 1e-6, "f8"), "may be any unit; say it"),
        (lambda e: _with(e, "p", e["p"] * 5, "i4"), r"has p of \[0, 5\]"),
        (lambda e: e[::-1], "comes at .* before the previous one"),
        (lambda e: e[:0], "holds no events"),
        (lambda e: np.array([{"a": 1}], object), "Python objects, which only pickle reads"),
    ],
)
def test_recordings_that_say_too_little_are_refused(tmp_path, change, message):
    events = random_events(np.random.default_rng(1), 40, 10)
    path = tmp_path / "a.npy"
    np.save(path, change(events), allow_pickle=True)
    with pytest.raises(DataError, match=message) as error:
        read_recording(path)
    assert "a.npy" in str(error.value)


def _with(events, name, values, kind):
    types = [(field, kind if field == name else events.dtype[field]) for field in "xytp"]
    made = np.empty(len(events), types)
    for field in "xytp":
        made[field] = values if field == name else events[field]
    return made


def test_time_units_and_signed_polarities_are_understood_once_said(tmp_path):
    events = random_events(np.random.default_rng(1), 40, 10)
    other = _with(events, "t", events["t"] * 1e-6, "f8")
    np.save(tmp_path / "a.npy", other)
    events["t"] -= events["t"][0]
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npy", time_unit="s"), events)
    signed = _with(events, "p", np.where(events["p"], 1, -1), "i1")
    np.save(tmp_path / "b.npy", signed)
    np.testing.assert_array_equal(read_recording(tmp_path / "b.npy"), events)


def test_a_time_unit_that_no_file_asks_for_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "all" / name / f"{number}.bin").write_bytes(bytes(10))
    assert recordings(path=str(tmp_path / "all"), steps=2, test_share=0.5).outputs == 2
    with pytest.raises(ConfigurationError, match=r"time_unit is 'ms', and no file .* is \.npy"):
        recordings(path=str(tmp_path / "all"), steps=2, test_share=0.5, time_unit="ms")


def test_the_survey_names_all_that_is_wrong(tmp_path):
    write(tmp_path / "train", 3)
    write(tmp_path / "train", 1, start=20, height=9)
    write(tmp_path / "test", 1)
    (tmp_path / "train" / "cat" / "broken.png").write_bytes(b"no picture")
    Image.fromarray(grey(1)).save(tmp_path / "train" / "stray.png")
    (tmp_path / "test" / "emu").mkdir()
    found = survey(tmp_path)
    assert found.kind == "images"
    assert found.counts["train"] == {"cat": 5, "dog": 4, "emu": 0}
    said = "\n".join(found.problems)
    for part in ("broken.png", "stray.png", "2 sizes"):
        assert part in said
    assert any("byte by byte" in note for note in found.notes)
    assert {one.label for one in found.examples} == {"cat", "dog"}
    whole = survey(tmp_path / "test" / "..", options={"size": 8})
    assert "2 sizes" not in "\n".join(whole.problems)


def test_the_survey_of_recordings_tells_rates_and_durations(tmp_path):
    write_events(tmp_path)
    found = survey(tmp_path, options={"test_share": 0.25})
    assert found.problems == []
    assert found.counts["train"] == {"left": 3, "right": 3}
    assert found.facts["events"].startswith("60 to 60")
    assert "events/s" in found.facts["rate"]
    assert len(found.examples[0].times) == 60


def test_the_kind_is_recognised_by_names_alone(tmp_path):
    write(tmp_path / "a")
    assert recognise(tmp_path / "a") == "images"
    np.save(tmp_path / "a" / "cat" / "x.npy", np.zeros(3))
    with pytest.raises(ConfigurationError, match=r"several kinds \(8 images, 1 events\)"):
        recognise(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="none of the known files"):
        recognise(tmp_path / "b")
    (tmp_path / "b" / "train.npz").touch()
    assert recognise(tmp_path / "b") == "tensors"
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="neither a folder nor a file"):
        recognise(tmp_path / "fifo")
