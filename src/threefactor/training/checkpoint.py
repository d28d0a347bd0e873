"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, both or neither.

A checkpoint is a folder. `state.json` holds the structure of the state, and names the file of
tensors with its size and checksum; replacing `state.json` is the one atomic moment at which a new
checkpoint takes the place of the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from threefactor.errors import CheckpointError

__all__ = [
    "exists",
    "load_state",
    "random_state",
    "save_state",
    "set_random_state",
    "write_atomically",
]

STATE = "state.json"


def exists(folder: Path) -> bool:
    """Whether the folder holds a checkpoint."""
    return (folder / STATE).is_file()


def save_state(folder: Path, state: Any) -> None:
    """Write a nested state of dicts, lists, plain values and tensors as a checkpoint.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; the checkpoint that
            was there before stays.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, tensors)
    content = save(tensors)
    name = f"tensors-{uuid.uuid4().hex[:12]}.safetensors"
    about = {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _make(folder)
    write_atomically(folder / name, content)
    try:
        write_atomically(folder / STATE, json.dumps({"tensors": about, "state": tree}).encode())
    except CheckpointError:
        (folder / name).unlink(missing_ok=True)
        raise
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CheckpointError(f"cannot make {folder}: {problem.strerror}") from problem


def load_state(folder: Path) -> Any:
    """Read a checkpoint.

    Raises:
        CheckpointError: if it is absent, cut short or corrupt.
    """
    try:
        document = json.loads((folder / STATE).read_bytes())
        about, tree = document["tensors"], document["state"]
        content = (folder / about["file"]).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise CheckpointError(
            f"{folder} holds no complete checkpoint ({problem}); "
            "use another one of the run (best or last), or start the run anew"
        ) from problem
    if len(content) != about["bytes"] or hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise CheckpointError(
            f"{folder / about['file']} is not the file that was saved: {len(content)} bytes, "
            f"expected {about['bytes']} with SHA-256 {about['sha256'][:12]}...; "
            "it was cut short or changed. Use another checkpoint of the run, or start it anew"
        )
    try:
        return _decode(tree, load(content))
    except (SafetensorError, KeyError) as problem:
        raise CheckpointError(f"{folder} cannot be read: {problem}") from problem


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there complete or not at all, also after a power cut.

    Raises:
        CheckpointError: if it cannot be written; a file that was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write {path}: {problem.strerror}; what was saved before is still there. "
            "Make room or choose another folder, then resume"
        ) from problem


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[_encode(k, tensors), _encode(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(v, tensors) for v in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"a {type(value).__name__} cannot be saved without pickle; "
        "state may hold tensors, numbers, strings, lists, tuples and dicts"
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    items = [_decode(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items


def random_state() -> dict[str, Any]:
    """The state of PyTorch's global random number generators, on the CPU and on every GPU."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
