"""The spiking NF-ResNet-34 that Xiao et al. 2022 (OTTT) released, as the start of fine-tuning."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threefactor.clocked import CrossEntropyMSE, SpatialBP, nf_resnet34
from threefactor.clocked.conv import EPSILON
from threefactor.errors import CheckpointError, InputError, ThreefactorError
from threefactor.readable import clipped, readable
from threefactor.recipes import recipe
from threefactor.training import Experiment, RunFolder
from threefactor.training.folder import checkpoint
from threefactor.training.folder.lock import only_one
from threefactor.training.optimizers import make_optimizer, make_scheduler
from threefactor.training.settings import ResNetSettings
from threefactor.training.state import Progress, training_state

__all__ = ["convert", "import_checkpoint", "read_checkpoint"]

FORMAT = "ottt-nfresnet34"
MOST_BYTES = 4 * 2**30
"""Of all that a file unpacks to; the released one has 0.2 GB."""
CHANNELS = 64
"""Of the released network's first convolution."""
DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_SGD = {"momentum": 0.9, "weight_decay": 2e-5}
SOURCE = "Xiao et al. 2022, Online Training Through Time for Spiking Neural Networks, NeurIPS"

_AROUND = {
    **{f"conv1.{part}": f"stem.{part}" for part in ("weight", "bias", "gain")},
    **{f"fc.{part}": f"readout.{part}" for part in ("weight", "bias")},
}
# Training by spike rates wraps convolutions, which adds "op" to their names.
_BLOCK = re.compile(
    r"layer([1-4])\.(\d{1,3})\."
    r"(?:(conv1|conv2|downsample)\.(?:op\.)?(weight|bias|gain)|skipinit_(gain))"
)
_IN_BLOCK = {"conv1": "conv1.", "conv2": "conv2.", "downsample": "shortcut.", None: ""}


def import_checkpoint(file: str | Path, out: str | Path) -> RunFolder:
    """Make a run folder from a released checkpoint, for `start` and `finetuning`.

    Its settings are those with which the authors' script trains by default: spatial BP with traces,
    cross entropy without squared error (c = 0), SGD with momentum, 100 epochs. The file does not
    contain its own settings. `config.json` names the file and its SHA-256. The run can be evaluated
    and analysed, but not resumed.

    Args:
        file: `torch.save` of a dict whose "net" is the network's state; or of the state alone.
        out: the run folder, made here.

    Raises:
        CheckpointError: if the file cannot be read safely or is of another network, or a run is
            in the folder already.
    """
    if not isinstance(file, str | os.PathLike):
        raise InputError(f"file is {clipped(file)}; give the path of a checkpoint")
    path = Path(file)
    state, network = convert(read_checkpoint(path))
    inputs, readout = state["stem.weight"].shape[1], state["readout.weight"]
    changes = {
        "dtype": DTYPES[readout.dtype],
        "network": dataclasses.asdict(network),
        "batch_size": 256,
        "loss": {"kind": "cross-entropy", "mse_weight": 0.0},
        "optimizer": {"name": "SGD", "lr": 0.1, "options": _SGD},
    }
    settings = recipe("imagenet-nfresnet34").settings_for("spatial-bp", changes)
    net = nf_resnet34(
        (inputs, 224, 224), len(readout), width=network.width, depths=network.depths
    ).to(readout.dtype)
    net.load_state_dict(state)
    rule = SpatialBP(net, loss=CrossEntropyMSE(0.0))
    optimizer = make_optimizer(settings.optimizer, net.parameters())
    scheduler = make_scheduler(settings, optimizer)
    experiment = Experiment(settings, None, net, rule, optimizer, scheduler)
    run = RunFolder(out)
    with only_one(run.path):
        run.create(settings, layer_sizes=rule.layer_sizes, imported=_about(path))
        checkpoint.save_state(run.last, training_state(experiment, settings, Progress()))
    return run


def read_checkpoint(file: str | Path) -> dict[str, Tensor]:
    """Return the state of the network in a file of `torch.save`, without running its code.

    Raises:
        CheckpointError: if it is not such a file, holds more than numbers, or is too large.
    """
    path = Path(file)
    shown = readable(str(path))
    try:
        if not path.is_file():
            path.stat()
            raise CheckpointError(f"{shown} is not a file; give the .pth file")
        if not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{shown} is not an archive of torch.save; give the .pth file as it was "
                "downloaded. If a PyTorch before 1.6 wrote it, load it and save it again"
            )
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_BYTES:
            raise CheckpointError(f"{shown} unpacks to {size:,} bytes; expected at most 4 GiB")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except ThreefactorError:
        raise
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{shown} holds more than tensors and plain values, which could run code when it is "
            "loaded; nothing was run. Give a file with the network's state_dict"
        ) from problem
    except OSError as problem:
        raise CheckpointError(f"{shown} cannot be read: {problem.strerror or problem}") from problem
    except Exception as problem:  # a damaged archive fails in many ways
        why = clipped(next(iter(str(problem).splitlines()), type(problem).__name__))
        raise CheckpointError(f"{shown} is damaged: {why}; download it again") from problem
    state = found.get("net", found) if isinstance(found, Mapping) else found
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{shown} holds a value of type {type(state).__name__}; expected a dict whose 'net' is "
            "the state_dict of the network, or this state_dict"
        )
    for name, value in state.items():
        plain = isinstance(value, Tensor) and value.layout is torch.strided
        if not isinstance(name, str) or not plain or not value.is_contiguous():
            raise CheckpointError(
                f"{clipped(name)} in {shown} is not a plain tensor; expected a state_dict"
            )
    return {name: value.detach() for name, value in state.items()}


def convert(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ResNetSettings]:
    r"""Return the state of `clocked.nf_resnet34` with the same outputs, and its settings.

    Names change, and the gains of standardised weights. The authors' variance divides by N - 1 with
    N weights per output channel, ours by N. With S the sum of an output channel's squared
    deviations, the gain takes up the difference:

    .. math:: g = g_\mathrm{theirs} \sqrt{\frac{S + \epsilon}{S \frac{N}{N - 1} + \epsilon}}
              \approx g_\mathrm{theirs} \sqrt{\frac{N - 1}{N}}

    Their epsilon is ours, 1e-4. The width and the depths follow from the tensors, so that smaller
    networks of the same layout are accepted, too.

    Args:
        state: the authors' state_dict, on the CPU.

    Raises:
        CheckpointError: if names, shapes, types or numbers are not those of such a network.
    """
    named, depths = _renamed(state)
    stem = named.get("stem.weight")
    if stem is None or stem.dim() != 4 or not 1 <= len(stem) <= 100 * CHANNELS:
        raise _another("it has no conv1.weight of shape (channels, inputs, 7, 7)")
    width = len(stem) / CHANNELS
    readout = named.get("readout.weight")
    if readout is None or readout.dim() != 2 or len(readout) < 1 or stem.shape[1] < 1:
        raise _another("it has no fc.weight of shape (classes, channels)")
    with torch.device("meta"):
        wanted = nf_resnet34(
            (stem.shape[1], 224, 224), len(readout), width=width, depths=depths
        ).to(readout.dtype if readout.dtype in DTYPES else torch.float32)
    try:
        checkpoint.check_tensors(wanted.state_dict(), named)
    except ValueError as problem:
        raise _another(str(problem)) from problem
    for name, value in named.items():
        if name.endswith(".gain") and value.dim():
            named[name] = value * _ratio(named[name.removesuffix("gain") + "weight"]).to(value)
    first, second, third, fourth = depths
    return named, ResNetSettings(width=width, depths=(first, second, third, fourth))


def _renamed(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[int]]:
    """Return the tensors by our names, and the number of blocks of each stage."""
    named: dict[str, Tensor] = {}
    blocks: list[set[int]] = [set(), set(), set(), set()]
    if not isinstance(state, Mapping):
        raise InputError(
            f"the state is a {type(state).__name__}; give a dict of tensors by name, as of "
            "network.state_dict()"
        )
    for key, value in state.items():
        name, match = _AROUND.get(key), _BLOCK.fullmatch(key)
        if match is not None:
            stage, block, layer, part, gain = match.groups()
            blocks[int(stage) - 1].add(int(block))
            name = f"stage{stage}_block{int(block) + 1}.{_IN_BLOCK[layer]}{part or gain}"
        if name is None or name in named:
            raise _another(f"it has {clipped(key)}" + ("" if name is None else " twice"))
        named[name] = value
    for i, found in enumerate(blocks, start=1):
        if not found or found != set(range(len(found))):
            raise _another(f"the blocks of its layer{i} are {sorted(found)[:10]}")
    return named, [len(found) for found in blocks]


def _ratio(weight: Tensor) -> Tensor:
    """Return our gain over theirs, (C_out, 1, 1, 1), in double precision."""
    n = weight[0].numel()
    if n < 2:
        raise _another("a convolution has one weight per channel, whose variance has no meaning")
    w = weight.double()
    squares = (w - w.mean((1, 2, 3), keepdim=True)).square().sum((1, 2, 3), keepdim=True)
    return ((squares + EPSILON) / (squares * (n / (n - 1)) + EPSILON)).sqrt()


def _another(why: str) -> CheckpointError:
    return CheckpointError(
        f"this is not the NF-ResNet-34 of the OTTT authors' code: {why}. Give the checkpoint of "
        "their train_imagenet.py"
    )


def _about(path: Path) -> dict[str, Any]:
    """Return what config.json says of the file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return {
        "format": FORMAT,
        "file": path.name,
        "sha256": digest.hexdigest(),
        "source": SOURCE,
        "settings": "defaults of the authors' train_imagenet.py; the file does not say its own",
    }
