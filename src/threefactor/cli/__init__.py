"""The command `threefactor`."""

from threefactor.cli.app import main

__all__ = ["main"]
