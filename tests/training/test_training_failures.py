"""Memory that ends and GPUs that fail: words, a whole checkpoint, nothing half-written."""

import json

import pytest
import torch

from threefactor import training
from threefactor.data.inputs import batches
from threefactor.errors import CheckpointError, ConfigurationError, DeviceError
from threefactor.training import evaluation, fetching, loop
from threefactor.training.folder import checkpoint
from threefactor.training.memory import of_hardware

ASYNCHRONOUS = (
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace "
    "below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
)
FAILED = {
    "assert": f"CUDA error: device-side assert triggered\n{ASYNCHRONOUS}",
    "launch": f"CUDA error: unspecified launch failure\n{ASYNCHRONOUS}",
    "access": f"CUDA error: an illegal memory access was encountered\n{ASYNCHRONOUS}",
    "cublas": "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle)`",
    "cudnn": "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
}
FULL = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.77 GiB of "
    "which 14.88 MiB is free. Process 1 has 15.75 GiB memory in use."
)
Accelerator = getattr(torch, "AcceleratorError", RuntimeError)  # since PyTorch 2.8


def plain(history):
    return [{k: v for k, v in line.items() if "second" not in k} for line in history]


def failing(monkeypatch, where, name, calls, problem):
    """Let a function raise a problem in its n-th call and all that follow."""
    real, count = getattr(where, name), []

    def act(*given, **options):
        count.append(1)
        if len(count) >= calls:
            raise problem
        return real(*given, **options)

    monkeypatch.setattr(where, name, act)


def test_memory_that_ends_in_a_step_says_what_to_lower(small, tmp_path, monkeypatch):
    engine = loop.engine_of(small())
    failing(monkeypatch, engine, "step", 3, torch.OutOfMemoryError(FULL))
    said = (
        r"memory does not suffice \(CUDA out of memory. Tried to allocate 20.00 MiB.*\); give less "
        r"of batch_size \(it is 16\), steps \(6\), network.hidden \(\(24, 16\)\)\.$"
    )
    with pytest.raises(ConfigurationError, match=said):
        training.train(small(), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # the corrected command may have it


def test_samples_that_fill_a_gpu_may_stay_on_the_host(small, monkeypatch):
    trainer = training.Trainer(training.build(small()))
    assert "data.place" not in trainer._what_to_lower()
    trainer._device = torch.device("cuda:0")
    assert "or --set data.place=host" in trainer._what_to_lower()


@pytest.mark.filterwarnings("ignore:memory does not suffice to evaluate")
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *(("memory", place) for place in ("step", "evaluation", "fetch", "checkpoint")),
        *(("launch", place) for place in ("evaluation", "fetch", "checkpoint")),
        *((kind, "step") for kind in FAILED),
    ],
)
def test_what_was_kept_is_whole_and_goes_on(small, tmp_path, monkeypatch, kind, place):
    whole = training.train(small(), tmp_path / "whole")
    run, engine = tmp_path / "run", loop.engine_of(small())
    problem = torch.OutOfMemoryError(FULL) if kind == "memory" else Accelerator(FAILED[kind])
    if place == "evaluation":  # of the second epoch; no batch is small enough
        failing(monkeypatch, engine, "run", 2, problem)
    elif place == "step":
        failing(monkeypatch, engine, "step", 10, problem)
    elif place == "fetch":
        failing(monkeypatch, fetching, "values_of", 10, problem)
    else:  # the fourth that is written, after that of the start, and best and last of an epoch
        failing(monkeypatch, checkpoint, "random_state", 4, problem)
    error = ConfigurationError if kind == "memory" else DeviceError
    with pytest.raises(error) as found:
        training.train(small(), run)
    text = str(found.value)
    assert str(problem).split("\n")[0] in text
    assert f"The checkpoint in {run / 'last'} is whole" in text
    assert f"threefactor train --resume --out {run} goes on from it" in text
    assert ("batch_size (it is 16)" in text) is (kind == "memory")
    assert ("a GPU failed" in text and "nvidia-smi" in text) is (kind != "memory")
    monkeypatch.undo()
    kept = checkpoint.load_state(run / "last")
    assert kept["epoch"] == 1
    names = {path.name for path in run.iterdir()}
    assert names - {".lock"} <= {"config.json", "metrics.jsonl", "last", "best", "run.lock"}, names
    with pytest.raises(CheckpointError, match="batch_size"):
        training.resume(run, settings=small(batch_size=8))
    assert plain(training.resume(run)) == plain(whole)


def test_an_evaluation_that_does_not_fit_goes_on_in_smaller_batches(small, monkeypatch):
    trainer = training.Trainer(training.build(small()))
    usual = trainer.evaluate()
    engine = loop.engine_of(small())
    real, sizes = engine.run, []

    def run(experiment, x, y):
        sizes.append(len(x))
        if len(x) > 6:
            raise torch.OutOfMemoryError(FULL)
        return real(experiment, x, y)

    monkeypatch.setattr(engine, "run", run)
    seen = []
    with pytest.warns(UserWarning, match="memory does not suffice to evaluate more samples"):
        found = trainer.evaluate(lambda output, y: seen.append(len(y)))
    assert sizes == [40, 20, 10, 5, 5, 5, 5, 5, 5, 5, 5] and seen == [5] * 8
    assert found.accuracy == usual.accuracy
    assert found.loss == pytest.approx(usual.loss, rel=1e-6)
    assert found.firing_rates == pytest.approx(usual.firing_rates, rel=1e-6)

    def never(experiment, x, y):
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr(engine, "run", never)
    with pytest.warns(match="memory does not"), pytest.raises(torch.OutOfMemoryError):
        trainer.evaluate()


def test_inputs_are_loaded_again_in_smaller_batches(small, monkeypatch):
    """Where samples are loaded ahead, and memory ends in the middle of the data."""
    trainer = training.Trainer(training.build(small()))
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 16)
    usual = trainer.evaluate()
    full, parts = [True], []

    def load(inputs, indices, seed):
        for index, batch in zip(indices, batches(inputs, indices, seed), strict=True):
            if index.start == 16 and full:
                full.clear()
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
            parts.append((index.start, index.stop))
            yield batch

    monkeypatch.setattr(evaluation, "batches", load)
    with pytest.warns(UserWarning, match="from here on there are 8 in a batch"):
        found = trainer.evaluate()
    assert parts == [(0, 16), (16, 24), (24, 32), (32, 40)]
    assert found.accuracy == usual.accuracy


def test_other_errors_are_not_those_of_hardware():
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("CUDA")):
        assert of_hardware(other) is None
    for text in FAILED.values():
        assert isinstance(of_hardware(Accelerator(text)), DeviceError)
        assert isinstance(of_hardware(RuntimeError(text)), DeviceError)  # before PyTorch 2.8
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"):
        assert isinstance(of_hardware(Accelerator(text)), ConfigurationError)


def test_nothing_is_left_of_a_run_whose_gpu_failed_in_its_first_epoch(small, tmp_path, monkeypatch):
    failing(monkeypatch, loop.engine_of(small()), "step", 3, Accelerator(FAILED["launch"]))
    with pytest.raises(DeviceError, match=r"a GPU failed \(CUDA error: unspecified") as found:
        training.train(small(), tmp_path / "run")
    assert "checkpoint" not in str(found.value)
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    assert len(training.train(small(), tmp_path / "run")) == 3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["environment"]["device"] == "cpu"
