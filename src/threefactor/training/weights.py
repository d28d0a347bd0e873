"""Weights of a network out of a file: safetensors, or a `state_dict` that `torch.save` wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from threefactor.errors import CheckpointError, ThreefactorError
from threefactor.readable import clipped
from threefactor.training.folder import checkpoint

__all__ = ["ENDINGS", "is_weights_file", "load_weights"]

ENDINGS = (".safetensors", ".pt", ".pth")
MOST_NAMED = 10
CHUNK = 1 << 20


def is_weights_file(start: str | Path) -> bool:
    """Whether a place is that of a file of weights, by its ending, and not of a run folder."""
    return str(start).lower().endswith(ENDINGS)


def load_weights(network: nn.Module, path: str | Path, prefix: str = "") -> str:
    """Give a network the weights in a file; return the SHA-256 of the file.

    The file has exactly the tensors of `network.state_dict()`, by the same names and of the same
    shapes. Floating point numbers take the type of the network. Feedback and what else a rule
    learns is not part of a network, and so is never read.

    Args:
        network: whose weights are replaced; it is as before after any error.
        path: .safetensors; .pt or .pth with a `state_dict`, read with `weights_only=True`.
        prefix: taken off the name of every tensor in the file, such as "module.".

    Raises:
        CheckpointError: if the file cannot be read, or does not fit; names all that differs.
    """
    place = Path(path)
    if not is_weights_file(place):
        raise CheckpointError(
            f"{place} is no file of weights by its name; give one that ends in {_named(ENDINGS)}"
        )
    digest = _digest(place)
    found = _read(place)
    here = network.state_dict()
    problems = list(_differences(here, found, prefix))
    if problems:
        raise CheckpointError(
            f"the weights in {place} are not those of this network ({type(network).__name__}): "
            f"{'; '.join(problems)}.{_advice(here, found, prefix)}"
        )
    network.load_state_dict({name[len(prefix) :]: value for name, value in found.items()})
    return digest


def _digest(place: Path) -> str:
    total = hashlib.sha256()
    try:
        with place.open("rb") as file:
            while part := file.read(CHUNK):
                total.update(part)
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise CheckpointError(f"{place} cannot be read ({why}); check the path") from problem
    return total.hexdigest()


def _read(place: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; no code in it is run."""
    if place.suffix.lower() == ".safetensors":
        try:
            return load_file(place)
        except (SafetensorError, OSError, ValueError, KeyError) as problem:
            raise CheckpointError(
                f"{place} is a damaged .safetensors file ({clipped(str(problem))}); save it again"
            ) from problem
    try:
        found: Any = torch.load(place, map_location="cpu", weights_only=True)
    except ThreefactorError:
        raise
    except Exception as problem:  # a damaged file, or a pickle of anything else
        raise CheckpointError(
            f"{place} holds something else than tensors, or is damaged: a whole network or other "
            "objects are never loaded, since that may run any code. Save the weights alone, as "
            "with torch.save(network.state_dict(), FILE)"
        ) from problem
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{place} holds a {type(found).__name__}; save a state_dict, as with "
            "torch.save(network.state_dict(), FILE)"
        )
    others = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if others:
        inner = [str(key) for key, value in found.items() if isinstance(value, Mapping)]
        which = f", perhaps {inner[0]!r}," if inner else ""
        raise CheckpointError(
            f"{place} holds {_named(others)} that are no tensors, as a checkpoint of a whole "
            f"training does; save the state_dict of the network{which} as a file of its own"
        )
    return {str(key): value for key, value in found.items()}


def _differences(
    here: Mapping[str, Any], found: Mapping[str, Tensor], prefix: str
) -> Iterator[str]:
    other = [name for name in found if not name.startswith(prefix)]
    given = {name[len(prefix) :]: v for name, v in found.items() if name.startswith(prefix)}
    missing = [name for name in here if name not in given]
    more = [name for name in given if name not in here]
    shapes, kinds = [], []
    for name in here.keys() & given.keys():
        ours, theirs = here[name], given[name]
        if not isinstance(ours, Tensor) or ours.shape != theirs.shape:
            there = tuple(getattr(ours, "shape", ()))
            shapes.append(f"{name} is {tuple(theirs.shape)}, and {there} here")
        elif ours.dtype != theirs.dtype and not (
            ours.is_floating_point() and theirs.is_floating_point()
        ):
            kinds.append(f"{name} is {theirs.dtype}, and {ours.dtype} here")
        else:
            try:
                checkpoint.check_finite(name, theirs)
            except ValueError as problem:
                kinds.append(str(problem))
    if other:
        yield f"without the prefix {prefix!r} there: {_named(other)}"
    if missing:
        yield f"missing there: {_named(missing)}"
    if more:
        yield f"not known here: {_named(more)}"
    if shapes:
        yield f"of other shapes: {_named(sorted(shapes))}"
    yield from sorted(kinds)


def _advice(here: Mapping[str, Any], found: Mapping[str, Tensor], prefix: str) -> str:
    """Name the prefix that all names in the file have, if they would fit without it."""
    first = next(iter(here), "")
    names = [name for name in found if name.endswith(first)]
    common = names[0][: len(names[0]) - len(first)] if len(names) == 1 and first else ""
    if not prefix and common and {f"{common}{name}" for name in here} == set(found):
        return f" All names there begin with {common!r}: give --set start_prefix={common}"
    return ""


def _named(names: Any) -> str:
    found = [*names]
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
