"""The command line within this process."""

import io
import sys

import pytest

from threefactor.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["threefactor", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture
def stream(monkeypatch, tmp_path):
    """Run a command with streams of an encoding; return exit code, output and errors as bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THREEFACTOR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments, encoding="utf-8", output=None):
        kept = [io.BytesIO(), io.BytesIO()]
        streams = [io.TextIOWrapper(one, encoding=encoding) for one in kept]
        monkeypatch.setattr(sys, "stdout", streams[0] if output is None else output)
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["threefactor", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        for one in (sys.stdout, sys.stderr):
            if output is None or one is not sys.stdout:
                one.flush()
        out, err = (one.getvalue() for one in kept)
        assert b"Traceback" not in out + err
        return code, out, err

    return call
