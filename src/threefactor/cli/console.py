"""Where the commands print: results to standard output, errors to standard error."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console", "fail"]

console = Console()


def fail(message: str) -> None:
    """Print an error as plain text, whatever brackets it contains."""
    Console(stderr=True, soft_wrap=True).print(
        f"error: {message}", markup=False, highlight=False, style="red"
    )
