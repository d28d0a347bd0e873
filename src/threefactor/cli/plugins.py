"""The option `--plugin` of the commands, and what it adds to their help."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from threefactor import plugins, recipes, training
from threefactor.cli.command import Command
from threefactor.errors import ConfigurationError
from threefactor.readable import readable

__all__ = [
    "PluginCommand",
    "Plugins",
    "load_quietly",
    "recall",
    "what_is_registered",
]


def _load(ctx: typer.Context, given: list[str] | None) -> list[str] | None:
    if not ctx.resilient_parsing:  # the Tab key asks
        plugins.load_installed()
        for spec in given or []:
            plugin = plugins.load(spec)
            _check_recipes(plugin.path, spec)
    return given


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="PLUGIN",
        is_eager=True,
        callback=_load,
        help="Code of your own that registers rules, networks, data, losses or recipes: a file "
        "my.py, or a module. It is run. May be repeated.",
    ),
]


class PluginCommand(Command):
    """A command whose help names what plugins registered."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the plugins that are installed or were given before `--help`."""
        plugins.load_installed()
        said = list(what_is_registered())
        if said:
            self.epilog = "From plugins: " + "; ".join(said) + "."
        super().format_help(ctx, formatter)


def what_is_registered() -> Iterator[str]:
    """Say which names plugins registered, kind by kind."""
    for kind in plugins.KINDS:
        names = plugins.entries(kind)
        if names:
            what = {"data": "data", "loss": "losses"}.get(kind, f"{kind}s")
            yield readable(f"{what} {', '.join(names)}")


def recall(run: Path) -> None:
    """Load the plugins that a run remembers, as far as its user trusts them.

    Raises:
        CheckpointError: if the folder holds no run.
        ConfigurationError: names a plugin that cannot be loaded, and says what to do.
    """
    plugins.recall(training.Run(run).own_code.get("plugins", []), run)


def load_quietly(ctx: typer.Context) -> None:
    """Load the plugins that stand in a line which the Tab key completes; errors say nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plugins.load_installed()
        for spec in ctx.params.get("plugin") or []:
            try:
                plugins.load(spec)
            except ConfigurationError:
                continue


def _check_recipes(path: str, spec: str) -> None:
    """Refuse a plugin with a recipe that cannot be trained."""
    for name, one in plugins.entries("recipe").items():
        if one.plugin == path:
            try:
                recipes.recipe(name).settings_for()
            except ConfigurationError as problem:
                raise ConfigurationError(f"plugin {spec!r}: {problem}") from problem
