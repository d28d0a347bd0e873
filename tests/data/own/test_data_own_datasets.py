"""PyTorch's datasets and loaders as data: what is read, in which order, what is refused."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
)

from threefactor import training
from threefactor.data import batches, from_dataset
from threefactor.errors import ConfigurationError, InputError
from threefactor.recipes import recipe

X = torch.from_numpy(np.random.default_rng(0).random((40, 64), dtype=np.float32))
Y = torch.arange(40) % 10


class Noisy(Dataset):
    """Samples with noise of three random generators."""

    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
        return X[place] + 0.01 * float(noise), int(Y[place])


class Stream(IterableDataset):
    def __init__(self, number=40):
        self.number = number

    def __iter__(self):
        return iter((X[n % 40], int(Y[n % 40])) for n in range(self.number))


def experiment(data, **changes):
    settings = recipe("digits-fc").settings_for(
        "dfa", {"hidden": [12], "epochs": 2, "batch_size": 8, **changes}
    )
    return replace(training.build(settings), data=data)


def weights(made):
    return torch.cat([p.detach().reshape(-1) for p in made.network.parameters()])


def test_a_dataset_trains_as_its_tensors_do():
    plain = TensorDataset(X, Y)
    runs = []
    for source in (plain, DataLoader(plain, batch_size=8, shuffle=True)):
        made = experiment(from_dataset(source, plain, outputs=10))
        history = training.Trainer(made).fit()
        runs.append((weights(made), history[-1]["test_loss"]))
    stream = experiment(from_dataset(Stream(), plain, outputs=10))
    runs.append((None, training.Trainer(stream).fit()[-1]["test_loss"]))

    class Pairs:
        train = test = (X, Y)
        outputs, input_shape = 10, (64,)

    own = experiment(Pairs())
    loss = training.Trainer(own).fit()[-1]["test_loss"]
    assert all(torch.equal(found, weights(own)) for found, _ in runs[:2])
    assert torch.equal(weights(stream), weights(own))
    assert {one for _, one in runs} == {loss}


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches_as_this_process(context):
    indices = [torch.arange(8), torch.arange(8, 16), torch.tensor([39, 0])]
    alone = from_dataset(Noisy(), Noisy(), outputs=10).train[0]
    loader = DataLoader(Noisy(), batch_size=8, num_workers=2, multiprocessing_context=context)
    many = replace(alone, loading={"num_workers": 2, "multiprocessing_context": context})
    first = list(batches(alone, indices, seed=5))
    for one, other in zip(first, batches(many, indices, seed=5), strict=True):
        assert torch.equal(one, other)
    later = list(batches(alone, indices[1:], seed=5))  # as of a run that was resumed
    assert torch.equal(later[0], first[1])
    another = next(iter(batches(alone, indices, seed=6)))
    assert not torch.equal(another, first[0])
    if context == "fork":
        read = from_dataset(loader, Noisy(), outputs=10).train[0]
        assert read.loading["num_workers"] == 2


def test_reading_leaves_the_random_generators_alone():
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    inputs = from_dataset(Noisy(), Noisy(), outputs=10).train[0]
    list(batches(inputs, [torch.arange(4)], seed=1))
    found = float(torch.rand(())), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    assert found == (float(torch.rand(())), random.random(), np.random.rand())  # noqa: NPY002


@pytest.mark.parametrize("time", ["batch-first", "time-first"])
def test_time_comes_first_in_a_batch(time):
    sequences = torch.rand(20, 5, 3)
    source = TensorDataset(sequences, torch.arange(20) % 2)
    if time == "time-first":

        def collate(samples):
            x, y = zip(*samples, strict=True)
            return torch.stack(x, 1), torch.stack(y)

        source = DataLoader(source, batch_size=4, collate_fn=collate)
    data = from_dataset(source, source, outputs=2, time=time)
    assert (data.steps, data.input_shape) == (5, (3,))
    batch = data.train[0][torch.tensor([7, 2])]
    assert torch.equal(batch, sequences[[7, 2]].transpose(0, 1))


def test_time_that_is_not_where_it_was_said_is_refused():
    source = TensorDataset(torch.rand(20, 5, 3), torch.arange(20) % 2)
    message = r"inputs of the shape \(20, 5, 3\) and 20 targets, and time is 'time-first'"
    with pytest.raises(InputError, match=message):
        from_dataset(source, source, outputs=2, time="time-first")


def test_an_endless_stream_needs_a_length():
    data = from_dataset(Stream(10**9), TensorDataset(X, Y), outputs=10, length=25)
    assert len(data.train[0]) == 25
    loader = DataLoader(Stream(), batch_size=7)
    assert torch.equal(from_dataset(loader, loader, outputs=10).train[1], Y)
    with pytest.raises(InputError, match="ends after 40 samples, and length is 50"):
        from_dataset(Stream(), TensorDataset(X, Y), outputs=10, length=50)
    with pytest.raises(InputError, match="has a length of its own, 40"):
        from_dataset(TensorDataset(X, Y), TensorDataset(X, Y), outputs=10, length=5)


class Odd(Dataset):
    """Samples that a function makes."""

    def __init__(self, make, number=20):
        self.make, self.number = make, number

    def __len__(self):
        return self.number

    def __getitem__(self, place):
        return self.make(place)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: X[n], "give samples that are pairs"),
        (lambda n: (X[n], "cat"), "pairs of an input and a target"),
        (lambda n: (X[n], n), "targets of train are from 0 to 19, and outputs is 10"),
        (lambda n: (X[n], torch.eye(10, dtype=torch.int64)[n % 10]), "are one-hot"),
        (lambda n: (X[n], -1), "from -1 to -1"),
        (lambda n: (X[n].to(torch.complex64), 0), "train are torch.complex64; give real numbers"),
        (lambda n: ((255 * X[n]).byte(), 0), "test are torch.float32, and those of train torch.ui"),
        (lambda n: (X[:15][n], 0), "length of the dataset for train is 20, and a sample below"),
    ],
)
def test_samples_of_other_kinds_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        from_dataset(Odd(make), TensorDataset(X, Y), outputs=10)


def test_what_the_training_loop_cannot_heed_is_refused():
    plain = TensorDataset(X, Y)
    sampler = WeightedRandomSampler(torch.ones(40), 40)
    with pytest.raises(InputError, match="WeightedRandomSampler of its own"):
        from_dataset(DataLoader(plain, batch_size=8, sampler=sampler), plain, outputs=10)
    for part in ((0, 1), (1, 0)):
        loaders = DataLoader(plain, batch_size=8), DataLoader(plain, batch_size=16, drop_last=True)
        with pytest.raises(InputError, match="drop_last=True, so it leaves out 8 of 40"):
            from_dataset(*(loaders[one] for one in part), outputs=10)
    whole = DataLoader(plain, batch_size=8, drop_last=True)
    assert len(from_dataset(whole, whole, outputs=10).train[0]) == 40
    with pytest.raises(InputError, match=r"inputs of test have the shape \(63,\)"):
        from_dataset(plain, TensorDataset(X[:, 1:], Y), outputs=10)
    data = from_dataset(DataLoader(plain, batch_size=16), plain, outputs=10)
    with pytest.raises(ConfigurationError, match="batch_size 16, and the settings 8"):
        training.Trainer(experiment(data))


def test_a_target_that_changes_is_noticed():
    calls = []

    def make(place):
        calls.append(place)
        return X[place], int(Y[place]) if len(calls) <= 40 else 0

    inputs = from_dataset(Odd(make), TensorDataset(X, Y), outputs=10).train[0]
    calls.extend(range(40))
    with pytest.raises(InputError, match="must have the same target"):
        list(batches(inputs, [torch.arange(8)], seed=0))


def test_validation_can_be_held_out_or_given():
    plain = TensorDataset(X, Y)
    data = from_dataset(plain, plain, validation=TensorDataset(X[:10], Y[:10]), outputs=10)
    made = experiment(data)
    assert "validation_loss" in training.Trainer(made).fit()[0]
