"""Pythons that are forked from the process of the tests, which has imported the library already.

A Python of its own needs two seconds to get there. A fork stands in where a test is about what a
command or a script does, and not about how its process starts. Where forks are not safe, as on
macOS, a Python of its own starts all the same.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any, NoReturn

FORKS = sys.platform == "linux"


def python(
    words: Sequence[object], env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """Start `python WORDS`: `-m MODULE ...`, `-c CODE ...` or `SCRIPT ...`.

    Args:
        words: the arguments of Python.
        env: environment of the process.
        options: as for `subprocess.Popen`.
    """
    given = [str(word) for word in words]
    if FORKS:
        # A Python ignores SIGPIPE and SIGXFSZ, as this one does already.
        options.update(preexec_fn=lambda: _interpret(given, env), restore_signals=False)
    return subprocess.Popen([sys.executable, *given], env=env, **options)


def output(words: Sequence[object], **options: Any) -> str:
    """Run `python WORDS` to its end; return what it printed.

    Raises:
        AssertionError: if it failed, with what it said.
    """
    pipe = subprocess.PIPE
    process = python(words, stdout=pipe, stderr=pipe, text=True, **options)
    said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    return said


def _interpret(words: Sequence[str], env: Mapping[str, str] | None) -> NoReturn:
    """Be the Python of a new process, which has its standard streams already."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as if a program had been loaded
    # multiprocessing would write to the file of the tests' own tracker, which is closed now.
    tracker: Any = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None
    if env is not None:
        os.environ.clear()
        os.environ.update(env)

    def act() -> None:
        first, *others = words
        if first == "-m":
            sys.argv = [first, *others[1:]]
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = [first, *others[1:]]
            exec(others[0], {"__name__": "__main__"})
        else:
            sys.argv = list(words)
            sys.path.insert(0, os.path.dirname(first))
            runpy.run_path(first, run_name="__main__")

    carry_out(act)


def carry_out(act: Callable[[], object]) -> NoReturn:
    """Be a forked process that acts and ends, with the exit code that a Python would have."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout = os.fdopen(1, "w", 1, closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, closefd=False)
        act()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
        os._exit(code)
