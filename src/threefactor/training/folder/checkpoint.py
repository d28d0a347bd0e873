"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, both or neither.

A checkpoint is a folder. `state.json` holds the structure of the state, and names the file of
tensors with its size and checksum; it has a checksum of its own. Replacing `state.json` is the one
atomic moment at which a new checkpoint takes the place of the old one, so whoever reads while
another process writes gets the whole old or the whole new one.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from threefactor.errors import CheckpointError
from threefactor.training.folder.files import (
    clear_unfinished,
    make_folder,
    read_bytes,
    read_json,
    shorten,
    write_atomically,
)

__all__ = [
    "check_finite",
    "check_tensors",
    "clear",
    "exists",
    "load_state",
    "random_state",
    "save_state",
    "set_random_state",
]

STATE = "state.json"
TENSORS = re.compile(r"tensors-[0-9a-f]{12}\.safetensors")
MOST_BYTES = 16 * 2**30
"""Of a file of tensors that is read."""
MOST_CHANGES = 1000
"""How often a reader begins again since the checkpoint was replaced meanwhile."""
ADVICE = "use the other one of the run (best or last), or start the run again"


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
    body = {"tensors": about, "state": tree}
    make_folder(folder)
    try:
        write_atomically(folder / name, content)
        write_atomically(folder / STATE, json.dumps({"sha256": _digest(body), **body}).encode())
    finally:
        clear(folder)


def clear(folder: Path) -> None:
    """Remove files of earlier checkpoints, and of one that was cut short.

    Call it only where nobody else writes to the folder.
    """
    clear_unfinished(folder)
    try:
        named = _read(folder)["tensors"]["file"] if exists(folder) else None
    except CheckpointError:  # a damaged one stays as it is: somebody may mend it
        return
    for path in folder.glob("tensors-*.safetensors"):
        if path.name != named:
            try:
                path.unlink(missing_ok=True)
            except OSError:  # such as a disk that became read-only: the file does no harm
                return


def load_state(folder: Path, tensors: bool = True) -> Any:
    """Read a checkpoint.

    Args:
        folder: of the checkpoint; another process may replace it meanwhile.
        tensors: whether to read the tensors; without, None stands for each of them, and of their
            file only the size is looked at.

    Raises:
        CheckpointError: if it is absent, cut short or corrupt.
    """
    document = _read(folder)
    for _ in range(MOST_CHANGES):
        try:
            content = _tensors(folder, document["tensors"], tensors)
            break
        except FileNotFoundError as problem:
            before, document = document, _read(folder)
            if document["tensors"] == before["tensors"]:
                raise _incomplete(folder, problem) from problem
    else:
        raise CheckpointError(f"{folder} is replaced faster than it can be read; try again")
    try:
        return _decode(document["state"], content)
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise CheckpointError(f"{folder} cannot be read: {shorten(problem)}; {ADVICE}") from problem


def _read(folder: Path) -> Any:
    """Return what state.json holds, after checking its checksum."""
    path = folder / STATE
    try:
        document = read_json(path)
        body = {"tensors": document["tensors"], "state": document["state"]}
        about, digest = body["tensors"], _digest(body)
        if set(document) not in ({"sha256", *body}, set(body)):
            raise ValueError(f"it holds {', '.join(sorted(document))}")
        for key, kind in (("file", str), ("bytes", int), ("sha256", str)):
            if type(about[key]) is not kind:
                raise TypeError(f"{key} of the tensors is {about[key]!r:.100}")
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise _incomplete(folder, problem) from problem
    if "sha256" not in document:
        raise CheckpointError(
            f"{path} has no checksum: it was written by an earlier version of threefactor, or "
            "changed. Use it with the version that wrote it, or train the run again"
        )
    if document["sha256"] != digest:
        raise CheckpointError(
            f"{path} is not the file that was saved: its SHA-256 is {digest[:12]}..., and it says "
            f"{document['sha256']!r:.14}...; it was changed. {ADVICE.capitalize()}"
        )
    if not TENSORS.fullmatch(about["file"]):
        raise CheckpointError(
            f"{path} names {about['file']!r:.100} as its tensors; expected the plain name of a "
            f"file beside it, tensors-....safetensors. {ADVICE.capitalize()}"
        )
    return document


def _tensors(folder: Path, about: dict[str, Any], wanted: bool) -> dict[str, Tensor] | None:
    """Read the file of tensors, if it is the one that was saved.

    Raises:
        FileNotFoundError: if it is not there, perhaps since there is a newer one.
    """
    path = folder / about["file"]
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror}") from problem
    whole = size == about["bytes"]
    content = read_bytes(path, MOST_BYTES) if wanted and whole else None
    digest = about["sha256"] if content is None else hashlib.sha256(content).hexdigest()
    if not whole or digest != about["sha256"]:
        raise CheckpointError(
            f"{path} is not the file that was saved: {size} bytes, expected {about['bytes']} with "
            f"SHA-256 {about['sha256'][:12]}...; it was cut short or changed. Use another "
            "checkpoint of the run, or start it again"
        )
    if content is None:
        return None
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as problem:
        raise CheckpointError(f"{path} cannot be read: {shorten(problem)}") from problem


def _incomplete(folder: Path, problem: BaseException) -> CheckpointError:
    return CheckpointError(f"{folder} holds no complete checkpoint ({shorten(problem)}); {ADVICE}")


def _digest(body: dict[str, Any]) -> str:
    """Return the checksum of a document, however it is laid out."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


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


def _decode(value: Any, tensors: dict[str, Tensor] | None) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"{value!r:.100} is not part of a state")
    ((kind, content),) = value.items()
    if kind == "tensor":
        return None if tensors is None else tensors[content]
    if kind == "dict":
        found = {_decode_key(k): _decode(v, tensors) for k, v in content}
        if len(found) != len(content):
            raise ValueError("a key occurs twice")
        return found
    if kind not in ("list", "tuple"):
        raise ValueError(f"{kind!r:.100} is not a kind of value")
    items = [_decode(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items


def _decode_key(key: Any) -> Any:
    if key is None or isinstance(key, (bool, int, float, str)):
        return key
    raise ValueError(f"{key!r:.100} is not a key")


def check_tensors(here: Mapping[str, Any], there: Any) -> None:
    """Refuse tensors that do not fit a module: other names, shapes or types, or not finite.

    Args:
        here: `state_dict` of the module; the module checks what is not a tensor in it.
        there: from a checkpoint.

    Raises:
        ValueError: names what differs.
    """
    if not isinstance(there, Mapping):
        raise ValueError(f"{there!r:.80} holds no tensors")
    if here.keys() != there.keys():
        missing, more = sorted(here.keys() - there.keys()), sorted(map(str, there.keys() - here))
        raise ValueError(f"missing: {', '.join(missing) or '-'}; not known: {', '.join(more)}")
    for name, value in here.items():
        if not isinstance(value, Tensor):
            continue
        found = there[name]
        if not isinstance(found, Tensor):
            raise ValueError(f"{name} is {found!r:.80}, not a tensor")
        if (found.shape, found.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{name} is {found.dtype} of shape {tuple(found.shape)}, expected {value.dtype} "
                f"of shape {tuple(value.shape)}"
            )
        check_finite(name, found)


def check_finite(name: str, value: Tensor) -> None:
    """Refuse a tensor that holds NaN or infinity.

    Raises:
        ValueError: names it.
    """
    if (value.is_floating_point() or value.is_complex()) and not torch.isfinite(value).all():
        raise ValueError(f"{name} holds numbers that are not finite")


def random_state() -> dict[str, Any]:
    """The state of PyTorch's global random number generators, on the CPU and on every GPU."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
