"""PyTorch's datasets and loaders as data for training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from threefactor.data.arguments import check_dtype, check_whole
from threefactor.data.samples.own import OwnData
from threefactor.errors import InputError
from threefactor.indexing import Index, positions
from threefactor.readable import clipped

__all__ = ["DatasetInputs", "from_dataset"]

Pairs = Dataset[Any] | DataLoader[Any]
Time = Literal["batch-first", "time-first"]
READ_AT_ONCE = 256
MOST_BYTES = 32 << 30


def from_dataset(
    train: Pairs,
    test: Pairs,
    *,
    outputs: int,
    validation: Pairs | None = None,
    classes: Sequence[str] = (),
    time: Time | None = None,
    length: int | None = None,
    dtype: torch.dtype = torch.float32,
    name: str = "dataset",
) -> OwnData:
    """Make data for training of PyTorch datasets, or of loaders of them.

    A dataset with a length is read batch by batch, in the order that the training wants. If it is
    given as a `DataLoader`, its `collate_fn` and its worker processes are used. Randomness of its
    transforms (of `torch`, `numpy` and `random`) is seeded for each batch, so a run can be repeated
    and resumed. All targets are read once, before; every batch is checked to have the same again,
    and inputs of one shape.

    An `IterableDataset`, or a loader of one, is read once, and its samples are kept in memory: one
    pass is an epoch, or `length` samples.

    Args:
        train, test: datasets whose samples are pairs of an input and a target.
        outputs: number of outputs of a network for them, the number of classes.
        validation: a dataset that chooses the best epoch.
        classes: a name for each output.
        time: for sequences: "batch-first" if a batch is (B, T, ...), as of samples (T, ...);
            "time-first" if `collate_fn` makes it (T, B, ...). None for inputs without time.
        length: how many samples of an iterable `train` are read; None for all.
        dtype: of the inputs.
        name: of the data.

    Raises:
        InputError: a sample is no pair of tensors, inputs differ in shape, targets are no class
            labels or do not fit `outputs`, or a loader has a sampler of its own, which the training
            loop could not heed.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> x, y = torch.rand(20, 4), torch.arange(20) % 2
        >>> data = from_dataset(TensorDataset(x, y), TensorDataset(x, y), outputs=2)
        >>> data.input_shape, len(data.train[1])
        ((4,), 20)
    """
    check_whole("outputs", outputs, 1, 1 << 31)
    check_dtype(dtype)
    if time not in (None, "batch-first", "time-first"):
        raise InputError(f"time is {clipped(time)}; give 'batch-first', 'time-first' or None")
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError(f"classes are {clipped(classes)}; give a list of names")
    if classes and len(classes) != outputs:
        raise InputError(f"there are {len(classes)} classes and {outputs} outputs; give as many")
    if length is not None:
        check_whole("length", length, 1, 1 << 40)
    parts = {"train": train, "test": test}
    if validation is not None:
        parts["validation"] = validation
    read = {
        part: _read(part, source, time, dtype, length if part == "train" else None)
        for part, source in parts.items()
    }
    found = {part: inputs for part, (inputs, _) in read.items()}
    shape, kind = found["train"].shape, read["train"][1]
    for part, inputs in found.items():
        if read[part][1].is_floating_point != kind.is_floating_point:
            raise InputError(
                f"inputs of {part} are {read[part][1]}, and those of train {kind}, so that only "
                "one of them seems to be scaled; give all parts the same transforms"
            )
        if inputs.shape != shape:
            raise InputError(
                f"inputs of {part} have the shape {inputs.shape}, and those of train {shape}; give "
                "samples of one shape, as by a transform that resizes"
            )
        _check_targets(part, inputs.targets, outputs)
    held = found.get("validation")
    return OwnData(
        train_samples=found["train"],
        train_labels=found["train"].targets,
        test_samples=found["test"],
        test_labels=found["test"].targets,
        name=name,
        input_shape=shape,
        output_count=outputs,
        classes=tuple(map(str, classes)),
        steps=found["train"].steps,
        validation=None if held is None else (held, held.targets),
    )


@dataclass(frozen=True, eq=False)
class DatasetInputs:
    """The inputs of a dataset, batch by batch; see `from_dataset`.

    Args:
        dataset: with a length, whose samples are pairs.
        targets: of the chosen samples, as they were read before.
        places: positions of the chosen samples in the dataset.
        shape: of one sample at one time step.
        steps: T of a sequence; None without time.
        collate: makes a batch of a list of samples.
        loading: further arguments of the `DataLoader`, as num_workers.
        time: which dimension of a batch is time.
        dtype, device: of the batches.
        batch_size: of the loader that was given; the settings must have the same.
    """

    dataset: Any
    targets: Tensor
    places: Tensor
    shape: tuple[int, ...]
    steps: int | None
    collate: Callable[[list[Any]], Any]
    loading: dict[str, Any]
    time: Time | None
    dtype: torch.dtype
    device: torch.device | str = "cpu"
    batch_size: int | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Index) -> Tensor:
        """Read a batch in this process."""
        place = positions(index, len(self))
        chosen = torch.arange(len(self))[place if not isinstance(place, int) else [place]]
        seed = int(torch.randint(2**62, ()))
        batch = self.collate(_Seeded(self.dataset, seed).__getitems__(self.places[chosen].tolist()))
        return self._checked(batch, chosen)

    def batches(self, indices: Iterable[Index], seed: int) -> Iterator[Tensor]:
        """Read batch after batch, by the workers of the loader if it has any.

        Args:
            indices: one for each batch.
            seed: from which all randomness of the transforms comes.

        Raises:
            InputError: a batch has other targets than before, or inputs of another shape.
        """
        every = torch.arange(len(self))
        chosen = [every[positions(index, len(self))] for index in indices]
        loader = DataLoader(
            _Seeded(self.dataset, seed),
            batch_sampler=[self.places[one].tolist() for one in chosen],
            collate_fn=self.collate,
            generator=torch.Generator().manual_seed(seed % 2**63),
            **self.loading,
        )
        for batch, index in zip(loader, chosen, strict=True):
            yield self._checked(batch, index)

    def first(self, number: int | None) -> DatasetInputs:
        """Return the first samples; None keeps all."""
        return replace(self, targets=self.targets[:number], places=self.places[:number])

    def choose(self, index: Tensor) -> DatasetInputs:
        """Return the samples at some positions."""
        return replace(self, targets=self.targets[index], places=self.places[index])

    def to(self, device: torch.device | str) -> DatasetInputs:
        """Return the same, whose batches are on another device."""
        return replace(self, device=device)

    def _checked(self, batch: Any, index: Tensor) -> Tensor:
        inputs, targets = _pair(batch, "a batch")
        shape, _ = _shape(inputs, self.time, "a batch", len(targets))
        if shape != self.shape:
            raise InputError(
                f"inputs of a batch have the shape {shape}, and those of others {self.shape}; give "
                "samples of one shape"
            )
        if not torch.equal(targets.to(self.targets.dtype), self.targets[index]):
            raise InputError(
                f"the targets of a batch are {clipped(targets.tolist())}, and were "
                f"{clipped(self.targets[index].tolist())} when the dataset was read before; a "
                "sample must have the same target whenever it is asked for"
            )
        moved = inputs.transpose(0, 1) if self.time == "batch-first" else inputs
        return moved.to(self.device, self.dtype)


class _Seeded(Dataset[Any]):
    """A dataset that is seeded for each batch that is taken from it, whoever takes it."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, place: int) -> Any:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: list[int]) -> list[Any]:
        with _seeded(hash((self.seed, *places)) % 2**32):
            return [self.dataset[place] for place in places]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed all random generators, and put them back."""
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)  # noqa: NPY002


class _Kept(Dataset[Any]):
    """Samples of an iterable, kept in memory."""

    def __init__(self, inputs: list[Tensor], targets: list[Tensor]) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.inputs[place], self.targets[place]


def _read(
    part: str, source: Pairs, time: Time | None, dtype: torch.dtype, length: int | None
) -> tuple[DatasetInputs, torch.dtype]:
    """Read all targets of a dataset, and the shape of its inputs; return their dtype, too."""
    loader = source if isinstance(source, DataLoader) else None
    dataset: Any = source.dataset if isinstance(source, DataLoader) else source
    tensors = isinstance(dataset, tuple) and all(isinstance(x, Tensor) for x in dataset)
    samples = isinstance(dataset, Iterable) or hasattr(dataset, "__getitem__")
    named = isinstance(dataset, Mapping) and 0 not in dataset
    if tensors or named or isinstance(dataset, str | Tensor) or not samples:
        raise InputError(
            f"{part} is {clipped(dataset)}; give a torch.utils.data.Dataset or DataLoader of pairs "
            "of input and target, such as TensorDataset(inputs, targets)"
        )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        dataset, loader = _kept(part, source, time, length), None
        time = None if time is None else "batch-first"
    elif length is not None:
        raise InputError(
            f"length is {length}, and {part} has a length of its own, {len(dataset)}; leave it "
            "out, or take a torch.utils.data.Subset"
        )
    collate, loading = default_collate, {}
    if loader is not None:
        _check_sampler(part, loader)
        collate, loading = loader.collate_fn, _loading(loader)
    if not len(dataset):
        raise InputError(f"the dataset for {part} has no samples; give one at least")
    parts = list(range(0, len(dataset), READ_AT_ONCE))
    reader = DataLoader(
        _Seeded(dataset, 0),
        batch_sampler=[
            list(range(start, min(start + READ_AT_ONCE, len(dataset)))) for start in parts
        ],
        collate_fn=collate,
        generator=torch.Generator().manual_seed(0),
        **loading,
    )
    targets, shapes, kinds = [], set(), set()
    try:
        for batch in reader:
            inputs, labels = _pair(batch, part)
            shapes.add(_shape(inputs, time, part, len(labels)))
            kinds.add(inputs.dtype)
            targets.append(labels)
    except IndexError as problem:
        raise InputError(
            f"the length of the dataset for {part} is {len(dataset)}, and a sample below cannot be "
            f"read ({clipped(str(problem))}); let its __len__ say how many samples there are"
        ) from problem
    if len(kinds) > 1 or any(kind.is_complex for kind in kinds):
        raise InputError(
            f"inputs of {part} are {', '.join(sorted(map(str, kinds)))}; give real numbers of one "
            "dtype, such as the magnitude of complex ones"
        )
    if len({shape for shape, _ in shapes}) > 1:
        raise InputError(
            f"inputs of {part} have several shapes ({clipped(sorted(shapes))}); give samples of "
            "one shape, as by a transform that resizes"
        )
    shape, steps = next(iter(shapes))
    made = DatasetInputs(
        dataset,
        torch.cat(targets),
        torch.arange(len(dataset)),
        shape,
        steps,
        collate,
        loading,
        time,
        dtype,
        batch_size=None if loader is None else loader.batch_size,
    )
    return made, next(iter(kinds))


def _kept(part: str, source: Any, time: Time | None, length: int | None) -> _Kept:
    """Read an iterable once."""
    loaded = isinstance(source, DataLoader)
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    size = 0
    for item in source:
        given, labels = _pair(item if loaded else default_collate([item]), part)
        given = given.transpose(0, 1) if loaded and time == "time-first" else given
        pairs = zip(given, labels, strict=True)
        for one, label in islice(pairs, None if length is None else length - len(inputs)):
            inputs.append(one.clone())
            targets.append(label.clone())
            size += one.nbytes
        if length is not None and len(inputs) >= length:
            break
        if size > MOST_BYTES:
            raise InputError(
                f"{part} gives more than {MOST_BYTES:,} bytes, which are kept in memory; give "
                "length, how many samples an epoch has"
            )
    if length is not None and len(inputs) < length:
        raise InputError(f"{part} ends after {len(inputs)} samples, and length is {length}")
    return _Kept(inputs, targets)


def _pair(batch: Any, what: str) -> tuple[Tensor, Tensor]:
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not pair or not all(isinstance(one, Tensor) for one in batch):
        kinds = [type(one).__name__ for one in batch] if isinstance(batch, (tuple, list)) else batch
        raise InputError(
            f"a batch of {what} is {clipped(kinds)}; give samples that are pairs of an input and a "
            "target, both tensors or numbers, as by transform=ToTensor()"
        )
    return batch[0], batch[1]


def _shape(
    inputs: Tensor, time: Time | None, what: str, samples: int
) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of a sample at one time step, and the number of steps."""
    place = 1 if time == "time-first" else 0
    if inputs.dim() <= place or inputs.shape[place] != samples:
        raise InputError(
            f"a batch of {what} has inputs of the shape {tuple(inputs.shape)} and {samples} "
            f"targets, and time is {time!r}; give an input for each target. What a loader makes of "
            "samples (T, ...) is 'batch-first', unless its collate_fn puts time first"
        )
    if time is None:
        return tuple(inputs.shape[1:]), None
    if inputs.dim() < 3:
        raise InputError(
            f"a batch of {what} has the shape {tuple(inputs.shape)}, and time is {time!r}; give "
            "samples with time and at least one dimension more"
        )
    return tuple(inputs.shape[2:]), int(inputs.shape[1 if time == "batch-first" else 0])


def _check_targets(part: str, targets: Tensor, outputs: int) -> None:
    whole = not (targets.is_floating_point() or targets.is_complex())
    table = whole and targets.dim() == 2 and targets.shape[1] == outputs > 1
    if table and bool((targets.sum(1) == 1).all()) and int(targets.max()) == 1:
        raise InputError(
            f"targets of {part} are one-hot; give the number of the class of each sample, as by "
            "target_transform=lambda y: y.argmax()"
        )
    if not (whole and targets.dim() == 1):
        return  # not classes: the loss says what it takes
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= outputs:
        raise InputError(
            f"targets of {part} are from {low} to {high}, and outputs is {outputs}; number the "
            "classes from 0 on, and give as many outputs as classes"
        )


def _check_sampler(part: str, loader: DataLoader[Any]) -> None:
    """Refuse a loader that leaves samples out, or takes some more often than others."""
    if loader.batch_size is None or type(loader.sampler) not in (RandomSampler, SequentialSampler):
        raise InputError(
            f"the loader of {part} chooses samples by {type(loader.sampler).__name__} of its own, "
            "and the training loop has every sample once an epoch, in an order from its seed; "
            "leave the sampler out, or write a loop of your own with rule.step"
        )
    sampler: Any = loader.sampler
    if isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(loader.dataset)  # type: ignore[arg-type]
    ):
        raise InputError(
            f"the loader of {part} draws {sampler.num_samples} samples, some of them repeatedly, "
            "and the training loop has every sample once an epoch; leave the sampler out"
        )
    count, size = len(loader.dataset), loader.batch_size  # type: ignore[arg-type]
    if loader.drop_last and count % size:
        raise InputError(
            f"the loader of {part} has drop_last=True, so it leaves out {count % size} of {count} "
            "samples, and the training loop has every sample once an epoch; leave drop_last out, "
            "or take a torch.utils.data.Subset"
        )


def _loading(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return how a loader works, but for what it chooses."""
    found: dict[str, Any] = {
        "num_workers": loader.num_workers,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
    }
    if loader.num_workers:
        found["multiprocessing_context"] = loader.multiprocessing_context
        found["prefetch_factor"] = loader.prefetch_factor
    return found
