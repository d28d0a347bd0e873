"""The commands `threefactor data`, run as a user would."""

import sys

import pytest
from data.described import with_files

from threefactor.cli import main
from threefactor.data import DATASETS


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command; return exit code and everything printed, in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["threefactor", "data", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return code, captured.out + captured.err

    return call


def rows(text):
    return {
        name: line
        for name in DATASETS
        for line in text.splitlines()
        if line[2:].startswith(f"{name} ")
    }


def test_list_tells_kind_and_what_is_at_hand(run, tmp_path, place_shd):
    code, text = run("list", "--data-dir", tmp_path)
    assert code == 0
    assert set(rows(text)) == set(DATASETS)
    for name, row in rows(text).items():
        entry = DATASETS[name]
        counts = [f"{count:,}" if count else "any" for count in (entry.train, entry.test)]
        assert all(count in row for count in counts) and f" {entry.kind} " in row
        own = name.removeprefix("simulated-") in ("digits", "yin-yang")
        assert f" {'yes' if own else 'no'} " in row
    assert "threefactor data fetch NAME" in text
    place_shd(tmp_path / "shd")
    assert " yes " in rows(run("list", "--data-dir", tmp_path)[1])["shd"]


def test_info_describes_spikes_as_channels(run, tmp_path):
    for name, facts in {
        "shd": ("700 channels", "20: zero, one", "CC BY 4.0", "threefactor[data]", "8156"),
        "shd-like": ("700 channels", "as many as your files hold", "write train.h5 and test.h5"),
        "yin-yang": ("5 channels", "3: yin, yang, dot", "nothing to download", "5000"),
        "emnist-balanced": ("1x28x28", "47: 0, 1", "112800", "not found in"),
    }.items():
        code, text = run("info", name, "--data-dir", tmp_path)
        assert code == 0
        for fact in facts:
            assert fact in text


def test_fetch_unpacks_and_says_where(run, tmp_path, tiny_emnist, mirror, monkeypatch):
    entry = with_files(tiny_emnist, *tiny_emnist.files.published, mirrors=(mirror("good"),))
    monkeypatch.setitem(DATASETS, "emnist-balanced", entry)
    code, text = run("fetch", "emnist-balanced", "--data-dir", tmp_path)
    assert (code, f"emnist-balanced is in {tmp_path / 'emnist-balanced'}" in text) == (0, True)
    assert "found in" in run("info", "emnist-balanced", "--data-dir", tmp_path)[1]


def test_fetch_of_what_needs_no_files_says_how_to_load_it(run):
    code, text = run("fetch", "yin-yang")
    assert code == 2
    assert "'yin-yang' needs no download" in text and "load_spikes('yin-yang')" in text
    code, text = run("fetch", "digits")
    assert (code, "threefactor.data.load('digits')" in text) == (2, True)
