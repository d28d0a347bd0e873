"""Devices by name, and the one that `auto` picks, on machines with and without GPUs."""

import json
from contextlib import nullcontext

import pytest
import torch
from typer.testing import CliRunner

from threefactor import training
from threefactor.cli.app import app
from threefactor.errors import ConfigurationError
from threefactor.modes import random_kept
from threefactor.recipes import recipe
from threefactor.reproduce.reproduction import Analyser
from threefactor.training.devices import check_device, choose_device
from threefactor.training.engines import ENGINES


class Others:
    """A world of processes of which this is one, and what the others bring."""

    def __init__(self, size, rank, found=()):
        self.size, self.local_rank, self.is_first, self.found = size, rank, rank == 0, found

    def gather(self, numbers):
        return torch.tensor([numbers, *([one] for one in self.found)], dtype=torch.float64)


@pytest.fixture
def gpus(monkeypatch):
    """Let PyTorch see some GPUs, whose tensors are those of this CPU."""
    real = torch.ones

    def show(count):
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
        monkeypatch.setattr(torch, "ones", lambda *size, device, **given: real(*size, **given))

    return show


def test_auto_takes_the_cpu_where_there_is_no_gpu(small, small_events, gpus):
    if torch.version.cuda is None and torch.version.hip is None:
        chosen = choose_device("auto", small())
        assert chosen.device == "cpu" and "is built without CUDA" in chosen.why
    gpus(0)
    chosen = choose_device("auto", small())
    assert chosen.device == "cpu" and "sees no GPU" in chosen.why


def test_auto_takes_a_gpu_that_the_engine_can_use(small, small_events, gpus, monkeypatch):
    gpus(2)
    chosen = choose_device("auto", small())
    assert (chosen.device, chosen.why) == ("cuda:0", "Card 0")
    chosen = choose_device("auto", small_events())
    assert chosen.device == "cpu" and chosen.why == "event-driven networks run on the CPU"

    def broken(*size, device, **given):
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    chosen = choose_device("auto", small())
    assert chosen.device == "cpu" and "no kernel image is available" in chosen.why


def test_processes_that_train_together_get_gpus_of_their_own(small, small_events, gpus):
    gpus(2)
    for rank in (0, 1):
        world = Others(2, rank, [0.0])
        assert choose_device("auto", small(), world).device == f"cuda:{rank}"
        assert choose_device("cuda", small(), world).device == f"cuda:{rank}"
        assert choose_device(f"cuda:{rank}", small(), world).device == f"cuda:{rank}"
        assert choose_device("auto", small_events(), world).device == "cpu"
    with pytest.raises(ConfigurationError, match="each on a GPU of its own: give cuda"):
        choose_device("cuda:1", small(), Others(2, 0))
    chosen = choose_device("auto", small(), Others(2, 0, [1.0]))
    assert (chosen.device, chosen.why) == ("cpu", "another process has no GPU")
    chosen = choose_device("auto", small(), Others(3, 0, [1.0, 1.0]))
    assert (chosen.device, chosen.why) == ("cpu", "there are 2 GPUs for 3 processes")


@pytest.mark.parametrize(
    ("count", "given", "said"),
    [
        (2, "cuda:7", "no GPU of this number. Devices here: cpu, cuda:0 .Card 0., cuda:1 .Card 1."),
        (0, "cuda", "sees no GPU; nvidia-smi lists .* Devices here: cpu; give one of them, or"),
        (1, "meta", "it has shapes and no values"),
        (1, "nonsense", "PyTorch knows no device of this name"),
        (1, "", "PyTorch knows no device of this name"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(gpus, count, given, said):
    gpus(count)
    with pytest.raises(ConfigurationError, match=f"device '{given}' cannot be used: .*{said}"):
        check_device(given, ENGINES["fc"])


@pytest.mark.skipif(torch.xpu.is_available(), reason="the device is there")
def test_a_device_of_another_kind():
    with pytest.raises(ConfigurationError, match="'xpu' cannot be used: PyTorch does not compute"):
        check_device("xpu", ENGINES["fc"])


def test_a_device_without_double_precision(monkeypatch):
    class Single:
        def __add__(self, other):
            return self

        def double(self):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch, "ones", lambda *size, device, **given: Single())
    with pytest.raises(ConfigurationError, match=r"Cannot convert a MPS Tensor to float64"):
        check_device("mps", ENGINES["fc"])


def test_the_device_that_was_used_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = [
        *("--set", "data.train=32", "--set", "data.test=16"),
        *("--set", "hidden=[8]", "--epochs", "1", "--device", "auto"),
    ]
    for name, said in (("digits-fc", "CUDA"), ("digits-events", "run on the CPU")):
        more = ["--set", "thresholds=[0.1,0.1]"] if name == "digits-events" else []
        done = CliRunner().invoke(app, ["train", name, "--out", name, *few, *more])
        assert done.exit_code == 0, done.output
        if not torch.cuda.is_available():
            assert "device cpu: " in done.stderr and said in done.stderr
            assert "device" not in done.stdout
            config = json.loads((tmp_path / name / "config.json").read_text())
            assert config["environment"]["device"] == "cpu"
    run = ["--device", "auto", "--json"]
    done = CliRunner().invoke(app, ["evaluate", "digits-fc", *run])
    assert json.loads(done.stdout)["epoch"] == 1
    settings = recipe("digits-fc").settings_for("dfa", {"data.train": 16, "data.test": 16})
    here = "cuda" if torch.cuda.is_available() else "cpu"
    made = training.build(settings, device="auto")
    assert next(made.network.parameters()).device.type == here


def test_a_measurement_counts_on_whatever_device_auto_made_it(tmp_path):
    made = {"device": "cuda:0", "threads": 1, "epoch": 3, "result": {}}
    file = tmp_path / "measured-cost-quick.json"
    file.write_text(json.dumps(made))
    for device, done in (("auto", True), ("cuda:0", True), ("cpu", False)):
        assert Analyser("quick", device=device)._is_done("measured-cost", file, 3) is done


def test_random_numbers_drawn_aside_begin_no_work_on_gpus(gpus, monkeypatch):
    """`torch.random.fork_rng()` does so on all of them, and warns where there are several."""
    torch.manual_seed(3)
    with random_kept():
        torch.manual_seed(4)
        torch.rand(5)
    drawn = torch.rand(2)
    assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(3)))
    gpus(2)
    forked = []
    monkeypatch.setattr(
        torch.random, "fork_rng", lambda devices: forked.append([*devices]) or nullcontext()
    )
    for used, kept in ((False, []), (True, [0, 1])):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        with random_kept():
            assert forked.pop() == kept
