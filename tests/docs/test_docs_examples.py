"""Every script in examples/ runs and finds its own assertions true."""

from __future__ import annotations

import gc
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("script", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(
    script: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, since importing PyTorch takes longer than most of them."""
    monkeypatch.chdir(tmp_path)
    source = script.read_text()
    assert "    assert " in source, "an example asserts its own result"
    assert f"python examples/{script.name}" in source
    gc.collect()  # an example counts the tensors that are alive, and other tests left some
    runpy.run_path(str(script), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "an example leaves no file behind"
