"""Data in the hands of Python: loops end, indices count from either end, workers get copies."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from data.event_files import nmnist_files, write
from data.image_folders import write_folder
from torch.utils.data import DataLoader, TensorDataset

from threefactor.data import (
    Augmentation,
    AugmentedData,
    Frames,
    FrameSettings,
    ImageSettings,
    SaccadeSettings,
    cutout,
    frames,
    load,
    load_events,
    load_frames,
    load_image_folder,
    load_spikes,
    random_crop,
    simulate_saccades,
)
from threefactor.data.samples.augmented import AugmentedInputs
from threefactor.errors import ConfigurationError, DataError, InputError


def place_nmnist(folder, generator):
    files = nmnist_files(generator)
    write(folder / "nmnist", {name: body for name, (_, body) in files.items()})


def sequences():
    values = np.arange(5 * 3 * 2 * 4 * 4, dtype=np.float32).reshape(5, 3, 2, 4, 4)
    return Frames(values, mean=1.0, std=2.0)


@pytest.fixture
def recordings(tmp_path, generator):
    place_nmnist(tmp_path, generator)
    return load_events("nmnist", tmp_path)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def pictures(tmp_path):
    pytest.importorskip("PIL")
    return load_image_folder(write_folder(tmp_path), ImageSettings(size=8, resize=10))


@pytest.fixture(params=["frames", "pictures", "augmented images", "augmented frames"])
def inputs(request):
    """Inputs of N samples and, for each, the sample alone as a tensor."""
    if request.param == "pictures":
        return request.getfixturevalue("pictures").test_images
    if request.param == "augmented images":
        return AugmentedInputs(torch.rand(5, 1, 4, 4), Augmentation())
    if request.param == "augmented frames":
        return AugmentedInputs(sequences(), Augmentation())
    return sequences()


def batch_dimension(batch):
    return batch.dim() - 4  # time comes first in sequences


def test_a_number_gives_one_sample_as_of_a_tensor(inputs):
    whole = inputs[:]
    samples = whole.unbind(batch_dimension(whole))
    count = len(inputs)
    for index in (0, 2, -1, -count, np.int64(1), torch.tensor(1), torch.tensor(-2)):
        assert inputs[index].equal(samples[int(index)])
    for index in (count, -count - 1, 10**30, torch.tensor(count)):
        with pytest.raises((IndexError, InputError)):
            inputs[index]
    with pytest.raises(IndexError, match=f"position {count} is out of range; there are {count}"):
        inputs[[0, count]]


def test_loops_end_and_pair_with_labels(inputs):
    whole = inputs[:]
    samples = whole.unbind(batch_dimension(whole))
    found = list(inputs)
    assert len(found) == len(inputs) == len(samples)
    assert all(one.equal(other) for one, other in zip(found, samples, strict=True))
    assert len(list(zip(inputs, range(100), strict=False))) == len(inputs)
    assert [each.shape for each in reversed(list(inputs))] == [each.shape for each in found]


def test_several_samples_in_every_way(inputs):
    whole, count = inputs[:], len(inputs)
    dimension = batch_dimension(whole)
    chosen = whole.index_select(dimension, torch.tensor([count - 1, 0]))
    mask = torch.zeros(count, dtype=torch.bool)
    mask[1] = True
    for index in ([-1, 0], torch.tensor([-1, 0]), np.array([count - 1, 0]), [count - 1, -count]):
        assert inputs[index].equal(chosen)
    for index in (mask, mask.numpy(), mask.tolist()):
        assert inputs[index].equal(whole.index_select(dimension, torch.tensor([1])))
    assert inputs[-2:].equal(whole.narrow(dimension, count - 2, 2))
    assert inputs[::-1].equal(whole.flip(dimension))
    assert inputs[[]].shape[dimension] == 0


@pytest.mark.parametrize(
    "index",
    [
        *("a", 1.5, None, [0.5], torch.ones(2, 2, dtype=torch.long), [True], object(), (0, 1.5)),
        # Read in another way by tensors than by arrays.
        *((0, 1), (0,), torch.tensor([0, 1], dtype=torch.uint8), np.ma.array([0, 1], mask=[0, 1])),
        *(slice(0.5, None), slice(None, None, 0)),
    ],
)
def test_what_is_no_index_is_refused(inputs, index):
    with pytest.raises(InputError, match="not an index of samples"):
        inputs[index]


def test_recordings_are_sequences(recordings):
    found = recordings.train_events
    first, last = found[0], found[-1]
    assert [len(each) for each in found] == [len(found[i]) for i in range(len(found))]
    for index in ([0, -1], torch.tensor([0, -1]), np.array([0, len(found) - 1])):
        pair = found[index]
        assert (len(pair), pair[0].tolist(), pair[1].tolist()) == (2, first.tolist(), last.tolist())
    assert found[torch.tensor(0)].tolist() == first.tolist()
    with pytest.raises(IndexError):
        found[len(found)]
    with pytest.raises(InputError, match="not an index of samples"):
        found["a"]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.equal(other)
    return one.tolist() == other.tolist()


def test_all_inputs_pickle_and_copy(inputs, recordings):
    for given in (inputs, recordings.train_events, load("digits"), load_spikes("digits")):
        for made in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given), copy.copy(given)):
            if hasattr(given, "train"):
                assert made.train[1].equal(given.train[1]) and made.name == given.name
            else:
                assert len(made) == len(given) and same(made[0], given[0])


def test_augmented_data_pickles(pictures):
    data = AugmentedData(load("digits"), Augmentation(padding=1))
    again = pickle.loads(pickle.dumps(data))
    assert again.name == "digits" and again.augmentation == data.augmentation
    inputs = AugmentedInputs(torch.rand(4, 1, 8, 8), Augmentation(1), torch.Generator())
    assert copy.deepcopy(inputs)[[0, 1]].equal(pickle.loads(pickle.dumps(inputs))[[0, 1]])


def test_the_last_file_of_recordings_does_not_travel(recordings):
    found = recordings.train_events
    size = len(pickle.dumps(found))
    found[0]
    assert len(pickle.dumps(found)) == size


@pytest.fixture
def mapped(tmp_path, generator):
    place_nmnist(tmp_path, generator)
    return load_frames("nmnist", tmp_path, FrameSettings(number=3, window=100_000))


def test_frames_on_disk_travel_by_their_path(mapped):
    found = mapped.train_frames
    assert found.array.nbytes > 20_000
    for given in (found, found.first(2), found.to("cpu")):
        content = pickle.dumps(given)
        assert len(content) < 1000
        again = pickle.loads(content)
        assert len(again) == len(given) and again[:].equal(given[:])
        assert not again.array.flags.writeable
    part = pickle.loads(pickle.dumps(Frames(found.array[1:])))
    assert part[:].equal(Frames(found.array[1:])[:])


def test_frames_whose_file_is_gone_say_so(mapped, tmp_path):
    content = pickle.dumps(mapped.train_frames)
    for path in tmp_path.rglob("frames.npy"):
        path.unlink()
    with pytest.raises(DataError, match=r"frames\.npy, which holds frames, cannot be mapped"):
        pickle.loads(content)


class Pairs(torch.utils.data.Dataset):
    """Inputs and labels, as a loader of PyTorch takes them."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]


def test_workers_of_a_loader_read_frames_and_pictures(mapped, pictures):
    """Under spawn, everything that a worker gets is pickled."""
    for data, inputs in (
        (mapped, mapped.train_frames),
        (pictures, pictures.test_images),
    ):
        labels = (data.train if inputs is mapped.train_frames else data.test)[1]
        loader = DataLoader(
            Pairs(inputs, labels), batch_size=2, num_workers=1, multiprocessing_context="spawn"
        )
        found = torch.cat([batch for batch, _ in loader])
        whole = inputs[:]
        assert found.equal(whole.movedim(batch_dimension(whole), 0))


def test_a_spawned_process_reads_recordings(recordings, tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps(recordings.train_events))
    code = f"import pickle; print(len(pickle.load(open({str(tmp_path / 'pickle')!r}, 'rb'))[-1]))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) == len(recordings.train_events[-1])


def test_a_data_set_of_pytorch_takes_what_loads():
    images, labels = load("digits").train
    assert len(TensorDataset(images, labels)) == len(labels)


@pytest.mark.parametrize("name", [None, 5, [], ("mnist",), b"mnist"])
@pytest.mark.parametrize("function", [load, load_spikes, load_events, load_frames])
def test_what_is_no_name_is_refused(name, function):
    with pytest.raises(ConfigurationError, match="is not the name of a data set"):
        function(name)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ImageSettings(area=3),
        lambda: ImageSettings(aspect=("a", "b")),
        lambda: ImageSettings(mean=None),
        lambda: ImageSettings(std=(1.0, float("nan"), 1.0)),
        lambda: ImageSettings(size=10**9, resize=10**9),
        lambda: frames([1], (2, 2), FrameSettings(2)),
        lambda: frames(np.zeros(3), (2, 2), FrameSettings(2)),
        lambda: frames(np.zeros(1, [("x", "f4"), ("y", "f4"), ("t", "f8"), ("p", "?")]),
                       (2, 2), FrameSettings(2)),
        lambda: frames(np.zeros(1, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")]),
                       (2, 2.5), FrameSettings(2)),
        lambda: frames(np.zeros(1, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")]),
                       (30_000, 30_000), FrameSettings(2)),
        lambda: FrameSettings(1, size=5),
        lambda: FrameSettings(10**12),
        lambda: load("digits").fold("a", 5),
        lambda: load("digits").fold(0, None),
        lambda: load_spikes("digits", window=10**400),
        lambda: load_spikes("digits", window=float("nan")),
        lambda: load("digits", data_dir=5) and load("mnist", data_dir=5),
        lambda: load("mnist", data_dir="~nobody-of-this-name/x"),
        lambda: load_frames("nmnist", settings={"number": 3}),
        lambda: load_image_folder(".", settings=5),
        lambda: SaccadeSettings(steps=1.5),
        lambda: SaccadeSettings(threshold=float("inf")),
        lambda: SaccadeSettings(saccade="a"),
        lambda: simulate_saccades(None),
        lambda: Augmentation(fill=float("nan")),
        lambda: random_crop([[1.0]], 1),
        lambda: random_crop(torch.rand(1, 1, 4, 4), -1),
        lambda: cutout(torch.rand(1, 1, 4, 4), 1.5),
    ],
)  # fmt: skip
def test_arguments_without_meaning_are_refused(call):
    with pytest.raises(InputError, match=r"give|expected"):
        call()
