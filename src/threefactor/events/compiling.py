"""How the functions of this package are compiled, and where the result is kept.

A kernel also holds what it calls from other files, so the folder of the results is named by a
digest of all of them: a formula that changes in one file is never answered by a kernel compiled
from the old one. Each file proves itself by a digest of its own, as a power cut or a full disk may
leave it empty, cut or changed. What cannot be read is compiled anew, what cannot be written is done
without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

__all__ = ["compiled", "compiled_sum", "digest", "inlined"]

HERE = Path(__file__).parent
_CONFIG: Any = numba.config
_REBUILD: Any = CompileResult._rebuild
_DUMPS: Any = dumps
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    # No fast-math but the fusing of products and sums.
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
}


def digest(folder: Path) -> str:
    """Return a short hash of all sources below `folder` that are compiled, or say how."""
    found = hashlib.sha256()
    for path in (
        folder / "compiling.py",
        folder / "dynamics.py",
        *sorted(folder.glob("kernels/*.py")),
    ):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _folders() -> Iterator[Path]:
    """Yield where compiled functions may be kept, the best place first."""
    given = _CONFIG.CACHE_DIR  # what NUMBA_CACHE_DIR says
    if given:
        yield Path(given)
        return
    yield HERE / "__pycache__"
    # No home, or one that does not exist, is a reason to keep nothing and no failure.
    with contextlib.suppress(RuntimeError):
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threefactor"


class _Kept(NullCache):
    """The compiled versions of one function on disk, as Numba asks for them; never an error.

    A version's file holds the SHA-256 of its name and of the rest, and the rest pickled.
    """

    def __init__(self, function: Any) -> None:
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.folders = [folder / f"kernels-{_DIGEST}" for folder in _folders()]

    @property
    def cache_path(self) -> str:
        """The folder where the files are kept if it can be written."""
        return str(self.folders[0])

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the version for a signature, or None if it has to be compiled."""
        target_context.refresh()
        for folder in self.folders:
            with contextlib.suppress(Exception):  # whatever is wrong, the answer is to compile
                path = folder / self._file(sig, target_context.codegen())
                content = path.read_bytes() if path.is_file() else b""
                if content[:32] == _seal(path.name, content[32:]):
                    return _REBUILD(target_context, *pickle.loads(content[32:]))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a version in the first folder that can be written."""
        if data.library.has_dynamic_globals or any(not part.can_cache for part in data.lifted):
            return
        try:
            content = _DUMPS(data._reduce())
        except Exception:  # of Numba or pickle; the function is compiled, which is what matters
            return
        for folder in self.folders:
            path = folder / self._file(sig, data.codegen)
            temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(_seal(path.name, content) + content)
                temporary.replace(path)
                return
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)

    def _file(self, sig: Any, codegen: Any) -> str:
        """Name the file after all that the machine code depends on besides the sources."""
        switches = sorted(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith("NUMBA_") and name != "NUMBA_CACHE_DIR"
        )
        key = (str(sig), codegen.magic_tuple(), numba.__version__, sys.version, switches)
        return f"{self.name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"


def _seal(name: str, content: bytes) -> bytes:
    """Return what proves that a file is whole, and the one that its name says."""
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _keeping(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles at the first call; its result is kept on disk."""

    def decorator(function: Any) -> Any:
        dispatcher: Any = numba.njit(**options)(function)
        dispatcher._cache = _Kept(function)
        return dispatcher

    return decorator


_DIGEST = digest(HERE)
compiled = _keeping(**_OPTIONS)
# Sums may be taken in any fixed order, so that they use the whole width of the processor.
compiled_sum = _keeping(**{**_OPTIONS, "fastmath": {"contract", "nsz", "reassoc"}})
inlined = _keeping(inline="always", **_OPTIONS)
