"""The OTTT authors' NF-ResNet as a run: the same outputs, and no trust in the file."""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from data.image_folders import CLASSES, write_folder
from reference.ottt import Neuron, NFResNet
from torch import Tensor

from threefactor import clocked, training
from threefactor.errors import CheckpointError
from threefactor.interop import convert, import_checkpoint
from threefactor.recipes import finetuning, recipe

CHANNELS, DEPTHS = 4, (1, 2, 1, 1)
STEPS = 4


def theirs(
    dtype: torch.dtype = torch.float64, wrapped: bool = True, depths: Any = DEPTHS
) -> NFResNet:
    """A small network of their layout, as if it were trained: no tensor is at its start."""
    torch.manual_seed(3)
    net = NFResNet(CHANNELS, depths, len(CLASSES), wrapped).to(dtype)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.uniform_(2.0, 4.0)
            elif name.endswith("bias"):
                parameter.uniform_(-0.3, 0.3)
    return net


def saved(path: Path, net: NFResNet | None = None, **more: Any) -> Path:
    """A file in the layout that their script saves."""
    net = theirs(torch.float32) if net is None else net
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    torch.save(
        {
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": schedule.state_dict(),
            "epoch": 99,
            "max_test_acc": 0.65,
            **more,
        },
        path,
    )
    return path


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("depths", [(1, 1, 1, 1), DEPTHS])
def test_outputs_are_theirs_to_the_last_digits(wrapped: bool, depths: tuple[int, ...]) -> None:
    net = theirs(wrapped=wrapped, depths=depths)
    state, settings = convert(net.state_dict())
    ours = clocked.nf_resnet34(
        (3, 64, 64), len(CLASSES), width=settings.width, depths=settings.depths
    ).double()
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours.eval()
    rates = []
    blocks = [module for module in net.modules() if isinstance(module, Neuron)]
    with torch.no_grad():
        for _ in range(STEPS):
            expected, found = net(x), ours(x)
            assert 0.1 < expected.abs().max() < 1e3
            torch.testing.assert_close(found, expected, rtol=2e-14, atol=2e-14)
            rates.append([float(block.spikes.mean()) for block in blocks])
    assert min(map(min, rates[1:])) > 0.02, "hardly a neuron spikes: nothing is compared"


def test_the_gain_takes_up_the_variance() -> None:
    """Without it the outputs differ: the comparison above can fail."""
    net = theirs()
    state, _ = convert(net.state_dict())
    for key in ("conv1.gain", "layer2.0.downsample.op.gain", "layer4.0.conv2.op.gain"):
        name = {"c": "stem.gain"}.get(key[0], f"stage{key[5]}_block1.")
        name += {"d": "shortcut.gain", "c": "conv2.gain"}[key[9]] if name.endswith(".") else ""
        weights = net.state_dict()[key.replace("gain", "weight")][0].numel()
        expected = net.state_dict()[key] * ((weights - 1) / weights) ** 0.5
        torch.testing.assert_close(state[name], expected, rtol=1e-3, atol=0)
        assert not torch.equal(state[name], net.state_dict()[key])


def test_every_tensor_of_the_released_layout_has_a_place() -> None:
    with torch.device("meta"):
        released = NFResNet(64, (3, 4, 6, 3), 1000)
        ours = clocked.nf_resnet34()
    state = {name: torch.randn(value.shape) for name, value in released.state_dict().items()}
    found, settings = convert(state)
    assert len(state) == len(found) == 126
    assert sum(value.numel() for value in found.values()) == 21_797_688
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in ours.state_dict().items()
    }
    assert (settings.width, settings.depths) == (1.0, (3, 4, 6, 3))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data/imagenet", train=2, val=1)
    return tmp_path / "data"


def test_fine_tuning_starts_from_an_imported_run(tmp_path: Path, images: Path) -> None:
    net = theirs(torch.float32)
    file, out = saved(tmp_path / "checkpoint_max.pth", net), tmp_path / "run"
    import_checkpoint(file, out)
    config = json.loads((out / "config.json").read_text())
    assert config["imported"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert config["imported"]["file"] == "checkpoint_max.pth"
    s = training.Run(out).settings
    assert (s.loss.mse_weight, s.optimizer.name, s.optimizer.lr, s.steps) == (0.0, "SGD", 0.1, 6)
    settings = finetuning(out, 0.1, "opzo", {"epochs": 1, "batch_size": 3, "steps": 1})
    assert (settings.optimizer.name, settings.optimizer.lr) == ("AdamW", 2e-6)
    assert (settings.hardware_noise, settings.loss.mse_weight) == (0.1, 0.05)
    assert settings.rule.options["feedback_patch"] == 2
    training.train(settings, tmp_path / "tuned", data_dir=images)
    assert len(training.Run(tmp_path / "tuned").metrics) == 1
    opened = training.open_run(out, data_dir=images).experiment.network
    assert isinstance(opened, torch.nn.Module)
    assert torch.equal(opened.state_dict()["readout.weight"], net.state_dict()["fc.weight"])


def test_the_recipe_of_table_4_starts_from_an_imported_run(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "run"
    import_checkpoint(saved(tmp_path / "file.pth"), out)
    network = {"network.width": CHANNELS / 64, "network.depths": list(DEPTHS)}
    changes = {**network, "start": str(out), "epochs": 1, "batch_size": 3, "steps": 1}
    settings = recipe("imagenet-nfresnet34-noise").settings_for("spatial-bp", changes)
    training.train(settings, tmp_path / "tuned", data_dir=images)
    assert (tmp_path / "tuned" / "start.json").exists()


def test_there_is_no_training_to_resume(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "file.pth"), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"was imported.*--set start=RUN"):
        training.resume(tmp_path / "run")
    with pytest.raises(CheckpointError, match="already holds a run"):
        import_checkpoint(tmp_path / "file.pth", tmp_path / "run")


def changed(**tensors: Any) -> dict[str, Any]:
    """Their state with some tensors replaced; None takes one away."""
    state = dict(theirs(torch.float32).state_dict())
    for name, value in tensors.items():
        state[name.replace("__", ".")] = value
    return {name: value for name, value in state.items() if value is not None}


def without(state: dict[str, Any], part: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if part not in name}


WEIGHT = torch.randn(CHANNELS, 3, 7, 7)
WRONG: dict[str, tuple[Any, str]] = {
    "another network": ({"features.0.weight": torch.ones(3, 3)}, "it has 'features.0.weight'"),
    "no first convolution": (without(changed(), "conv1.weight"), "it has no conv1.weight"),
    "a flat first convolution": (changed(conv1__weight=torch.ones(4, 3)), "no conv1.weight"),
    "no channels": (changed(conv1__weight=torch.ones(0, 3, 7, 7)), "no conv1.weight"),
    "no read-out": (without(changed(), "fc.weight"), "it has no fc.weight"),
    "no stage": (without(changed(), "layer3"), r"the blocks of its layer3 are \[\]"),
    "a gap": (without(changed(), "layer2.0"), r"the blocks of its layer2 are \[1\]"),
    "a block far away": (changed(layer2__999__skipinit_gain=torch.ones(())), r"are \[0, 1, 999\]"),
    "a missing gain": (without(changed(), "skipinit"), r"missing: stage1_block1.gain"),
    "a bias of another shape": (changed(conv1__bias=torch.ones(5)), r"stem.bias is .* \(5,\)"),
    "NaN": (changed(conv1__weight=WEIGHT * torch.nan), "stem.weight holds numbers that are not f"),
    "half precision": (changed(fc__bias=torch.ones(3).half()), "readout.bias is torch.float16"),
    "integers": (changed(fc__weight=torch.ones(3, 32, dtype=torch.int64)), "torch.int64"),
    "the same twice": (
        {**changed(), "layer1.0.conv1.weight": torch.ones(4, 4, 3, 3)},
        "it has 'layer1.0.conv1.weight' twice",
    ),
    "no tensor": (changed(fc__bias=3.0), "'fc.bias' in .* is not a plain tensor"),
    "a sparse tensor": (
        changed(fc__bias=torch.ones(3).to_sparse()),
        "'fc.bias' in .* is not a plain tensor",
    ),
    "an expanded tensor": (
        changed(conv1__weight=torch.ones(1).expand(2**20, 3, 7, 7)),
        "'conv1.weight' in .* is not a plain tensor",
    ),
    "a number": (5, "holds a value of type int; expected a dict whose 'net'"),
    "nothing": ({}, "expected a dict whose 'net'"),
}


@pytest.mark.parametrize("bare", [False, True], ids=["net", "bare"])
@pytest.mark.parametrize(("state", "message"), WRONG.values(), ids=WRONG)
def test_other_networks_are_refused(state: Any, message: str, bare: bool, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    torch.save(state if bare else {"net": state}, file)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(file, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


class Code:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for more in (Code(), argparse.Namespace(lr=0.1)):
        file = saved(tmp_path / "file.pth", args=more)
        with pytest.raises(CheckpointError, match="more than tensors and plain values"):
            import_checkpoint(file, tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_damaged_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved(tmp_path / "file.pth").read_bytes()
    file, out = tmp_path / "bad.pth", tmp_path / "run"

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            import_checkpoint(file, out)

    refused("cannot be read: No such file")
    for content in (b"", b"PK", b"plain text", whole[: len(whole) // 2]):
        file.write_bytes(content)
        refused(r"is not an archive of torch.save")
    middle = len(whole) // 2
    for at in (200, middle, len(whole) - 200):
        file.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        try:
            import_checkpoint(file, tmp_path / str(at))
        except CheckpointError:
            continue
        assert at == middle  # numbers alone were changed, of which the archive has no checksum
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/other", b"data")
    refused("is damaged")
    file.write_bytes(whole)
    monkeypatch.setattr("threefactor.interop.ottt.MOST_BYTES", 1000)
    refused("unpacks to .* bytes; expected at most 4 GiB")
    file.unlink()
    file.mkdir()
    refused("is not a file")


def test_single_precision_is_kept(tmp_path: Path) -> None:
    for dtype, name in ((torch.float32, "float32"), (torch.float64, "float64")):
        file = saved(tmp_path / f"{name}.pth", theirs(dtype))
        run = import_checkpoint(file, tmp_path / name)
        assert run.read().settings.dtype == name
        state = training.folder.checkpoint.load_state(run.last)["network"]
        assert all(isinstance(v, Tensor) and v.dtype == dtype for v in state.values())
