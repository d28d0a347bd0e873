"""How the functions of this package are compiled, and where the result is kept.

Numba keeps what it compiled as long as the file of the function is as it was. A kernel also holds
what it calls from other files, so the folder of the results is named by a digest of all of them: a
formula that changes in one file is never answered by a kernel compiled from the old one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["compiled", "compiled_sum", "digest", "inlined"]

HERE = Path(__file__).parent
_CONFIG: Any = numba.config
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
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


def _keeping(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles at the first call; its result is kept on disk."""
    decorate: Any = numba.njit(**options)

    def decorator(function: Any) -> Any:
        before = _CONFIG.CACHE_DIR  # what NUMBA_CACHE_DIR says; looked at when a function is made
        _CONFIG.CACHE_DIR = str(Path(before or HERE / "__pycache__") / f"kernels-{_DIGEST}")
        try:
            return decorate(function)
        finally:
            _CONFIG.CACHE_DIR = before

    return decorator


_DIGEST = digest(HERE)
compiled = _keeping(**_OPTIONS)
# Sums may be taken in any fixed order, so that they use the whole width of the processor.
compiled_sum = _keeping(**{**_OPTIONS, "fastmath": {"contract", "nsz", "reassoc"}})
inlined = _keeping(inline="always", **_OPTIONS)
