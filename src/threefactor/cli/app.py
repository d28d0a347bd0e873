"""The commands, and how errors end them."""

from __future__ import annotations

import itertools
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.rich_utils import rich_format_error

from threefactor.cli import analyse, data, demo, importing, report, reproduce, runs, stream, sweep
from threefactor.cli.command import Command
from threefactor.cli.console import console, fail, flush, prepare, say
from threefactor.cli.plugins import PluginCommand
from threefactor.cli.show import show_run
from threefactor.errors import ConfigurationError, ThreefactorError
from threefactor.processes import say_once, tell_torchrun
from threefactor.readable import readable
from threefactor.training.folder.writer import command
from threefactor.training.memory import of_hardware
from threefactor.training.stopping import StoppedBySignal, leave_on_signals, leave_with_parent
from threefactor.version import __version__

__all__ = ["app", "main"]

NARROW = 60  # columns
CALLER = Path(typer.__file__).parent
"""What calls the commands, and so what this library's warnings name as the place they are about."""
UsageError: Any = typer.BadParameter.__base__  # which Typer has under a name of its own

app = typer.Typer(
    name="threefactor",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""
Train spiking neural networks online, forward in time, with three-factor learning rules.

Begin with `threefactor demo`, which trains both engines on embedded data in about two minutes.
`threefactor recipes` lists what can be trained, `threefactor data list` the data sets.
`threefactor --install-completion` makes the Tab key complete commands, recipes and rules.
""",
)
app.command(cls=Command)(demo.demo)
app.command(cls=PluginCommand)(runs.train)
app.command(cls=PluginCommand)(runs.finetune)
app.command(cls=PluginCommand)(runs.evaluate)
app.command(cls=PluginCommand)(analyse.analyse)
app.command("show", cls=PluginCommand)(show_run)
app.command(cls=PluginCommand)(stream.stream)
app.command("import", cls=Command)(importing.import_)
app.command(cls=PluginCommand)(runs.recipes)
app.command(cls=PluginCommand)(sweep.sweep)
app.command(cls=Command)(reproduce.reproduce)
app.command(cls=Command)(report.report)
app.command(cls=PluginCommand)(report.cite)
app.add_typer(data.app, name="data")
MARKUP = {one: one.rich_markup_mode for one in (app, data.app)}


def _version(show: bool) -> None:
    if show:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    del version


def _refuse_nothing(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which as a path would be the current folder."""
    for before, given in itertools.pairwise(["threefactor", *arguments]):
        if not given or (given.startswith("--") and given.endswith("=")):
            raise ConfigurationError(
                f"the argument {given or 'after ' + before} is empty, as of a variable that is not "
                "set; give a value (. is the current folder), or leave it out"
            )


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Print warnings of this library without the line of Typer that called it."""
    usual = warnings.formatwarning

    def shown(message: Any, category: Any, filename: str, lineno: int, line: Any = None) -> str:
        if Path(filename).parent == CALLER:
            return readable(f"warning: {message}", keep="\n\t") + "\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = usual


def main() -> None:
    """Run the command line; errors made on purpose end it with a message and no traceback."""
    leave_on_signals()
    leave_with_parent()
    command.set(shlex.join(["threefactor", *sys.argv[1:]]))
    prepare()
    for one, mode in MARKUP.items():  # Typer's tables of options cut words where there is no room
        one.rich_markup_mode = mode if console().width >= NARROW else None
    try:
        try:
            _refuse_nothing(sys.argv[1:])
            with _warnings_in_words():
                code = app(prog_name="threefactor", standalone_mode=False)
        finally:
            flush()
    except UsageError as problem:
        say_once(problem.format_message(), partial(_explain, problem))
        sys.exit(problem.exit_code)
    except ThreefactorError as problem:
        if problem.said_elsewhere:
            tell_torchrun(str(problem))
        else:
            say_once(str(problem), fail)
        sys.exit(problem.exit_code)
    except OSError as problem:
        say_once(f"{problem.filename or 'a file'}: {problem.strerror or problem}", fail)
        sys.exit(1)
    except (MemoryError, RuntimeError) as problem:
        said = of_hardware(problem)
        if said is None:
            raise
        say_once(str(said), fail)
        sys.exit(1)
    except KeyboardInterrupt:
        say_once("stopped", fail)
        sys.exit(130)
    except StoppedBySignal as stop:
        say_once(f"stopped by {stop.name}", fail)
        raise
    if code == 130:  # what Typer makes of KeyboardInterrupt
        say_once("stopped", fail)
    sys.exit(code)


def _explain(problem: Any, text: str) -> None:
    """Say what is wrong with the options, as Typer does: `text`, and how to get help."""
    del text
    if app.rich_markup_mode is None:
        problem.show()
    else:
        rich_format_error(problem)
