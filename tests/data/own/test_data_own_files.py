"""Files of tensors and of spikes: what they hold, how they are split, what is refused."""

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from threefactor.data.own.spikes import spikes
from threefactor.data.own.survey import survey
from threefactor.data.own.tensors import tensors
from threefactor.errors import ConfigurationError, DataError

CHANCE = np.random.default_rng(0)
X = CHANCE.random((30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def save(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return str(path)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_one_file_is_split_by_a_share_or_by_its_arrays(tmp_path, ending):
    path = save(tmp_path / f"a{ending}", inputs=X, labels=Y)
    found = tensors(path=path, steps=3, test_share=0.2)
    assert found.found["samples"]["test"] == {"0": 2, "1": 2, "2": 2}
    both = torch.cat([found.train_samples, found.test_samples])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, X.tolist()))
    for row, label in zip(found.test_samples, found.test_labels, strict=True):
        assert Y[(row.numpy() == X).all(1).argmax()] == label
    path = save(tmp_path / f"b{ending}", x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6])
    found = tensors(path=path, steps=3, inputs_key="x", labels_key="y")
    assert torch.equal(found.test_samples, torch.from_numpy(X[:6]))
    assert found.output_count == 3


def test_a_folder_has_a_file_for_each_part(tmp_path):
    save(tmp_path / "train.npz", inputs=X, labels=Y)
    save(tmp_path / "test.safetensors", inputs=X[:5], labels=Y[:5])
    save(tmp_path / "validation.npz", inputs=X[5:9], labels=Y[5:9])
    found = tensors(path=str(tmp_path), steps=3, normalise=True)
    assert torch.equal(found.validation[1], torch.from_numpy(Y[5:9]))
    expected = (X[5:9] - X.mean(dtype=np.float64)) / X.std(dtype=np.float64)
    torch.testing.assert_close(found.validation[0].double(), torch.from_numpy(expected).double())
    with pytest.raises(ConfigurationError, match="has a part for testing"):
        tensors(path=str(tmp_path), steps=3, test_share=0.2)
    save(tmp_path / "train.safetensors", inputs=X, labels=Y)
    with pytest.raises(DataError, match=r"both train\.npz and train\.safetensors"):
        tensors(path=str(tmp_path), steps=3)


def test_sequences_have_time_first_in_a_batch(tmp_path):
    x = CHANCE.integers(0, 3, (30, 5, 4), dtype=np.uint8)
    path = save(tmp_path / "a.npz", inputs=x, labels=Y)
    found = tensors(path=path, steps=5, sequences=True, test_share=0.2)
    assert (found.steps, found.input_shape) == (5, (4,))
    batch = found.test_samples[torch.tensor([1, 0])]
    assert batch.shape == (5, 2, 4)
    assert batch.dtype == torch.float32
    assert torch.equal(batch[:, 1], found.test_samples[0])
    with pytest.raises(DataError, match="sequences is true"):
        tensors(
            path=save(tmp_path / "b.npz", inputs=X, labels=Y),
            steps=5,
            sequences=True,
            test_share=0.2,
        )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["cat", "dog", "emu"] * 10), r"holds strings \('cat', 'dog', 'emu'\).*unique"),
        (Y.astype(np.float32), r"holds float32; .*astype\('int64'\).*data.targets=values"),
        (np.eye(3)[Y], r"is one-hot, of shape \(30, 3\); .*argmax\(1\)"),
        (Y[:, None], r"has the shape \(30, 1\); give \(N,\): labels\[:, 0\]"),
        (Y[:29], "30 samples in 'inputs' and labels of the shape"),
        (Y - 1, "labels in .* are from -1 to 1"),
        (Y * 2, "no sample for training .* has the label '1', '3', of 0 to 4"),
        (Y * 0, "one class only"),
        (np.array([object()] * 30, dtype=object), "Python objects"),
    ],
)
def test_labels_of_other_kinds_are_refused_with_file_and_key(tmp_path, labels, message):
    path = tmp_path / "a.npz"
    np.savez(path, inputs=X, labels=labels)
    with pytest.raises(DataError, match=message) as error:
        tensors(path=str(path), steps=3, test_share=0.2)
    assert "a.npz" in str(error.value)
    if labels.dtype.kind != "O" and len(labels) == 30:
        assert survey(path, options={"test_share": 0.2}).problems


def test_numbers_and_several_labels_are_targets_once_said(tmp_path):
    path = save(tmp_path / "a.npz", inputs=X, labels=X[:, 0].astype(np.float64))
    found = tensors(path=path, steps=3, test_share=0.2, targets="values")
    assert found.train_labels.shape == (24, 1)
    assert torch.equal(found.train_labels[:, 0], found.train_samples[:, 0])
    several = (X > 0.5).astype(np.int64)
    path = save(tmp_path / "b.npz", inputs=X, labels=several)
    assert tensors(path=path, steps=3, test_share=0.2, targets="labels").output_count == 4
    path = save(tmp_path / "c.npz", inputs=X, labels=several * 2)
    with pytest.raises(DataError, match="other numbers than 0 and 1"):
        tensors(path=path, steps=3, test_share=0.2, targets="labels")


def test_parts_of_other_units_do_not_pass_without_a_word(tmp_path):
    bytes_, labels = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10, np.arange(6) % 2
    np.savez(tmp_path / "train.npz", inputs=bytes_, labels=labels)
    np.savez(tmp_path / "test.npz", inputs=bytes_[:4] / 255, labels=labels[:4])
    message = "holds float64, and those for training uint8, which may be other units"
    with pytest.raises(DataError, match=message):
        tensors(path=str(tmp_path), steps=2)
    np.savez(tmp_path / "train.npz", inputs=bytes_.astype(float), labels=labels)
    found = tensors(path=str(tmp_path), steps=2).found["inputs"]
    assert found == "shape (4,), train from 0 to 230, test from 0 to 0.588235"
    np.savez(tmp_path / "train.npz", inputs=bytes_, labels=labels)
    np.savez(tmp_path / "test.npz", inputs=bytes_[:4].astype(np.int64), labels=labels[:4])
    assert tensors(path=str(tmp_path), steps=2).test_samples.max() == 150


def test_inputs_that_are_no_numbers_are_refused(tmp_path):
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match="'inputs', holds NaN"):
        tensors(path=save(tmp_path / "a.npz", inputs=bad, labels=Y), steps=3, test_share=0.2)
    with pytest.raises(DataError, match=r"no array 'labels', but 'inputs', 'y'"):
        tensors(path=save(tmp_path / "b.npz", inputs=X, y=Y), steps=3, test_share=0.2)
    (tmp_path / "c.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"c\.npz"):
        tensors(path=str(tmp_path / "c.npz"), steps=3, test_share=0.2)
    (tmp_path / "d.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match=r"d\.safetensors is a damaged"):
        tensors(path=str(tmp_path / "d.safetensors"), steps=3, test_share=0.2)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path):
    body = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    body += b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
    (tmp_path / "x" / "a").mkdir(parents=True)
    (tmp_path / "x" / "a" / "1.npy").write_bytes(body + b"\n" + b"\0" * 16)
    found = survey(tmp_path / "x", options={"test_share": 0.2})
    assert any("its header says 8,000,000,000,000" in one for one in found.problems)


def write_spikes(path, count=12, classes=3, channels=7):
    with h5py.File(path, "w") as file:
        group = file.create_group("spikes")
        times = group.create_dataset("times", (count,), dtype=h5py.vlen_dtype(np.float32))
        units = group.create_dataset("units", (count,), dtype=h5py.vlen_dtype(np.uint16))
        for number in range(count):
            chance = np.random.default_rng(number)
            times[number] = np.sort(chance.random(9)).astype(np.float32)
            units[number] = [*chance.integers(0, channels, 8), channels - 1]
        file["labels"] = np.arange(count) % classes
    return path


def test_spikes_keep_their_times_or_are_counted_in_steps(tmp_path):
    write_spikes(tmp_path / "train.h5")
    write_spikes(tmp_path / "test.h5", 6)
    found = spikes(path=str(tmp_path))
    assert found.input_shape == (7,)
    assert len(found.train_samples.times) == 12 * 9
    counted = spikes(path=str(tmp_path), steps=4, duration=0.8)
    batch = counted.train_samples[torch.arange(12)]
    expected = np.zeros((4, 12, 7))
    for sample, (times, units) in enumerate(found.train_samples):
        for time, unit in zip(times, units, strict=True):
            if time <= 0.8:
                expected[min(int(time * 4 / 0.8), 3), sample, unit] += 1
    np.testing.assert_array_equal(batch.numpy(), expected)
    late = sum(int((part.times > 0.8).sum()) for part in (found.train_samples, found.test_samples))
    assert late > 0
    assert f"{late} later spikes are left out" in counted.found["steps"]


@pytest.mark.parametrize(
    ("steps", "duration", "message"),
    [(4, 0.0, "is 0; give seconds"), (4, -1.0, "is -1; give"), (None, 0.8, "has none: leave it")],
)
def test_a_duration_that_has_no_meaning_is_not_passed_over(tmp_path, steps, duration, message):
    path = write_spikes(tmp_path / "all.h5")
    with pytest.raises(ConfigurationError, match=f"data.duration .*{message}"):
        spikes(path=str(path), test_share=0.25, steps=steps, duration=duration)


def test_files_of_spikes_are_split_and_checked(tmp_path):
    path = write_spikes(tmp_path / "all.h5")
    with pytest.raises(ConfigurationError, match="test_share"):
        spikes(path=str(path))
    found = spikes(path=str(path), test_share=0.25)
    assert found.found["samples"]["test"] == {"0": 1, "1": 1, "2": 1}
    with pytest.raises(DataError, match=r"has no train\.h5"):
        spikes(path=str(tmp_path))
    with pytest.raises(DataError, match=r"units from .* expected 0 to 4"):
        spikes(path=str(path), test_share=0.25, channels=5)
    one = write_spikes(tmp_path / "one.h5", classes=1)
    with pytest.raises(DataError, match="one class only"):
        spikes(path=str(one), test_share=0.25)
    assert survey(path, options={"test_share": 0.25}).problems == []
    assert "one class only" in survey(one, options={"test_share": 0.25}).problems[0]
