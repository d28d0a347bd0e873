"""A digest of code: of a file with what it imports from beside it, or of a package."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["code_digest"]

CODE = (".py", ".so", ".pyd")
DIGITS = 16


def code_digest(path: Path) -> str:
    """Return a digest of a file or package; ends of lines do not count.

    Of a single file it includes the modules beside it that it imports, and that these import, at
    the top or within functions. Of a package (its folder, or the `__init__.py` in it) it includes
    all code in the folder. What is imported from elsewhere does not count.

    Args:
        path: of the file or folder.

    Raises:
        OSError: if a file cannot be read.
    """
    package = path if path.is_dir() else path.parent if path.name == "__init__.py" else None
    if package is not None:
        root, files = package, sorted(f for f in package.rglob("*") if f.suffix in CODE)
    else:
        root, files = path.parent, [path, *sorted(_with_imports(path) - {path})]
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes().replace(b"\r\n", b"\n")
        renamed = package is None and file == path  # a single file may get another name
        name = "" if renamed else file.relative_to(root).as_posix()
        total.update(f"{name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:DIGITS]


def _with_imports(path: Path) -> set[Path]:
    """Return a file and all code beside it that it imports, directly or not."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(file):
            beside = path.parent / name
            if beside.is_dir():
                waiting += [inner for inner in beside.rglob("*") if inner.suffix in CODE]
            elif beside.with_suffix(".py").is_file():
                waiting.append(beside.with_suffix(".py"))
    return found


def _imported(file: Path) -> Iterator[str]:
    """Yield the first parts of the names of modules that a file imports."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # its import says what is wrong
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.module.partition(".")[0]
            else:
                yield from (name.name for name in node.names)
