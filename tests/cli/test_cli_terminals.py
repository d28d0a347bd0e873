"""Whatever the terminal is and whatever names hold: every command prints, and prints all of it."""

import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from threefactor import clocked, data
from threefactor.cli import console as printing
from threefactor.cli.app import app
from threefactor.recipes import RECIPES, Recipe, recipe
from threefactor.training import RunFolder

SMALL = ["--epochs", "1", "--set", "hidden=[4]", "--set", "data.train=70", "--set", "data.test=70"]
COMMANDS = (
    ["recipes"],
    ["data", "list"],
    ["data", "info", "digits"],
    ["reproduce", "--list"],
    ["cite", "--recipe", "cifar10-conv5"],
    [],
    ["--help"],
    *([name, "--help"] for name in ("train", "analyse", "report", "data", "demo", "finetune")),
)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp932", "cp437", "utf-8"])
def test_every_command_prints_on_any_terminal(stream, encoding):
    for command in COMMANDS:
        code, out, err = stream(*command, encoding=encoding)
        assert code == (0 if command else 2), (command, err)
        text = (out + err).decode(encoding)
        assert len(text) > 40, command
        assert not re.search(r"\\x|\\u|\?\?", text.replace("??? ", "")), (command, text)
    code, _, err = stream("train", "größe→±", encoding=encoding)
    assert code == 2
    assert b"unknown recipe" in err


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("98.5 ± 0.1", "98.5 +- 0.1"),
        ("\N{MINUS SIGN}1 \N{MULTIPLICATION SIGN} 2 ≥ 3 → 4", "-1 x 2 >= 3 -> 4"),
        (
            "“a” \N{LEFT SINGLE QUOTATION MARK}b\N{RIGHT SINGLE QUOTATION MARK} … é ß",
            "\"a\" 'b' ... e ss",
        ),
        ("┏━┓┃│─╭╯⠋", "+-+||-++*"),
        ("日本\udcff", r"\u65e5\u672c\xff"),
    ],
)
def test_what_plain_letters_stand_for(stream, monkeypatch, text, plain):
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    printing.prepare()
    printing.say(text)
    assert kept.getvalue().decode() == f"{plain}\n"


def test_tables_in_a_file_are_as_wide_as_they_need(stream):
    _, out, _ = stream("data", "list")
    text = out.decode()
    assert "…" not in text
    for entry in data.DATASETS.values():
        assert any(entry.title in line for line in text.splitlines())


@pytest.mark.parametrize("columns", ["40", "100"])
def test_tables_on_a_narrow_terminal_hold_every_word(stream, monkeypatch, columns):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", columns)
    for command in (["data", "list"], ["recipes"], ["reproduce", "--list"]):
        _, out, _ = stream(*command)
        text = re.sub(r"\x1b\[[\d;]*m", "", out.decode())
        assert "…" not in text
        words = set(re.findall(r"[\w-]{4,}", text))
        assert {"recipes": "mnist-events-deep-scaled"}.get(command[0], "digits") in words
    _, out, _ = stream("train", "--help")
    assert "…" not in out.decode()


def test_the_width_counts_when_a_command_begins(stream, monkeypatch):
    """Not when the library was imported: a worker of pytest-xdist has another width then."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("LINES", "24")
    for columns in (150, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert columns - 30 < len(stream("recipes")[1].decode().splitlines()[0]) <= columns


NAMES = ["lr[1e-3]bold[red]", "x[/bold]y", "[red]x[/red]", "a\nb", "esc\x1b[31m", ":smile:", "a\tb"]
if sys.platform.startswith("linux"):
    NAMES.append(os.fsdecode(b"bytes-\xff"))
SHOWN = {"a\nb": r"a\nb", "esc\x1b[31m": r"esc\x1b[31m", "a\tb": r"a\tb", NAMES[-1]: r"bytes-\xff"}


@pytest.mark.parametrize("name", NAMES)
def test_folders_have_any_name(stream, name, tmp_path):
    shown = SHOWN.get(name, name)
    code, out, err = stream("train", "digits-fc", "--rule", "dfa", *SMALL, "--out", name)
    assert (code, err) == (0, b"")
    assert f"the run is in {shown}\n" in out.decode()
    code, out, _ = stream("evaluate", name)
    assert code == 0 and out.decode().startswith(f"{shown}, last checkpoint")
    assert stream("analyse", "firing", name, "--out", f"{name}.json")[0] == 0
    for form in ("html", "markdown"):
        code, out, _ = stream("report", name, "--format", form, "--out", f"{name}.{form}")
        assert code == 0 and f"the report is in {shown}.{form}\n" in out.decode()
        assert "\x1b" not in Path(f"{name}.{form}").read_text(encoding="utf-8")
    code, _, err = stream("train", "digits-fc", "--rule", "dfa", *SMALL, "--out", name)
    assert code == 1 and b"already holds a run" in err and b"\x1b" not in err


def test_names_in_the_registries_are_text(stream, monkeypatch):
    class Mine(clocked.DFA):
        pass

    settings = dataclasses.replace(recipe("digits-fc").settings, recipe="[red]mine")
    monkeypatch.setitem(RECIPES, "[red]mine", Recipe("A [b]title[/b]\x1b[31m\nof mine", settings))
    monkeypatch.setitem(clocked.RULES, "mine[x]", Mine)
    _, out, _ = stream("recipes")
    assert "[red]mine" in out.decode() and r"A [b]title[/b]\x1b[31m\nof mine" in out.decode()
    code, out, _ = stream("cite", "--rule", "mine[x]")
    assert (
        code == 0 and "% rule 'mine[x]' is not part of threefactor: ask its author." in out.decode()
    )
    code, out, _ = stream("cite", "--rule", "mine[x]", "--recipe", "[red]mine")
    assert code == 0 and b"xiao2022ottt" in out and b"ask its author" in out
    train = ["train", "[red]mine", "--rule", "mine[x]", *SMALL]
    code, out, _ = stream(*train)
    assert code == 0 and "runs/[red]mine-mine[x]-seed0" in out.decode()
    folder = "runs/[red]mine-mine[x]-seed0"
    commands = (["evaluate", folder], ["analyse", "firing", folder], ["finetune", folder])
    for command in commands:
        assert stream(*command, *(["--epochs", "1"] if "finetune" in command else []))[0] == 0
    monkeypatch.delitem(clocked.RULES, "mine[x]")
    for command in (*commands, ["train", "--resume", "--out", folder]):
        code, _, err = stream(*command)
        assert code == 2
        assert "unknown rule 'mine[x]'" in err.decode()
        assert "register one of your own with threefactor.register_rule" in err.decode()
    code, out, _ = stream("report", folder)
    assert code == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert "mine[x]" in page and "is not part of threefactor" in page


def test_a_reader_that_goes_away_ends_the_command_without_a_word(stream):
    reader, writer = os.pipe()
    os.close(reader)
    output = io.TextIOWrapper(os.fdopen(writer, "wb"), encoding="utf-8")
    for command in (["recipes"], ["cite"], ["train", "--help"]):
        code, _, err = stream(*command, output=output)
        assert (code, err) == (128 + 13, b"")
        break  # what is left of the pipe leads nowhere now


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_a_full_disk_behind_the_output_is_said(stream):
    with open("/dev/full", "wb") as full:
        output = io.TextIOWrapper(full, encoding="utf-8")
        code, _, err = stream("recipes", output=output)
    assert (code, err.decode()) == (1, "error: the output: No space left on device\n")


def test_errors_have_no_colour_where_none_is_wanted(stream, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert b"\x1b[31m" in stream("train", "nothing-such")[2]
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert b"\x1b[31m" not in stream("train", "nothing-such")[2]


def run(*command, **options):
    return subprocess.run([sys.executable, *command], capture_output=True, timeout=100, **options)


def test_the_module_is_the_command_also_without_assertions_and_streams():
    done = run("-O", "-m", "threefactor", "recipes")
    assert done.returncode == 0 and b"mnist-fc" in done.stdout
    close = (
        "import os\n[os.close(n) for n in (0, 1, 2)]\n"
        "os.execv({0!r}, [{0!r}, '-m', 'threefactor', 'recipes'])"
    )
    assert run("-c", close.format(sys.executable)).returncode == 0


def test_what_an_extra_is_missing_for_names_it(tmp_path):
    script = """
import sys
for name in ("h5py", "PIL", "jinja2", "matplotlib", "tensorboard"):
    sys.modules[name] = None
from threefactor.cli import main
from pathlib import Path

def run(*arguments):
    sys.argv = ["threefactor", *arguments]
    print("$", *arguments, flush=True)
    try:
        main()
    except SystemExit as stop:
        print("code", stop.code or 0, flush=True)

small = [*"--epochs 1 --set hidden=[4] --set data.train=20 --set data.test=10".split()]
run("recipes")
run("train", "digits-fc", *small, "--out", "run")
run("report", "run")
run("report", "run", "--format", "markdown")
run("report", "run", "--format", "markdown", "--figures", "pictures", "--out", "r.md")
"""
    done = run("-c", script, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = done.stdout.decode() + done.stderr.decode()
    assert "Traceback" not in said
    assert re.findall(r"^code (\d)", said, re.M) == ["0", "0", "2", "2", "2"], said
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("error")]
    assert [re.findall(r"threefactor\[(\w+)\]", line) for line in errors] == [
        ["report"],
        ["report"],
        ["report"],
    ]
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "pictures").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--threads", "1000000"], 2, "threads is 1000000; this machine has"),
        (["--threads", "0"], 2, "--threads"),
        (["--device", "meta"], 2, "device 'meta' cannot be used"),
        (["--device", "cuda:99"], 2, "device 'cuda:99' cannot be used"),
        (["--seed", "9" * 30], 2, "seed = 9999"),
        (["--seed", "1", "--set", "seed=2"], 2, "seed is given twice, as 2 and as 1"),
        (["--set", "lr=1", "--set", "lr=2"], 2, "lr is given twice, as 1 and as 2"),
        (["--rule", "opzo", "--rule", "dfa"], 2, "'--rule': it is given twice"),
        (["--epochs", "1", "--epochs=1"], 2, "'--epochs': it is given twice"),
        (["--set", "dropout=NaN"], 2, "network.dropout = nan"),
        (["--set", "epochs=" + "9" * 5000], 2, "cannot read 'epochs=99"),
        (["--set", "epochs=" + "[" * 100_000], 2, "cannot read 'epochs=[["),
        (["--set", "recipe=../../x"], 2, "--set does not change it"),
        (["--set", "hidden=[1000000000]"], 2, "needs more than"),
        (["--set", "batch_size=99999999999999999999"], 2, "batch_size = 99999999999999999999"),
        (["--set", "start=" + "a" * 3000], 1, "holds no trained run"),
        (["--set", 'optimizer.options={"lr": 1}'], 2, "learning rate from optimizer.lr"),
        (["--set", "loss.true=[/b]"], 2, "did you mean"),
        (["--out", "/dev/null/x"], 1, "cannot make /dev/null/x"),
    ],
)
def test_a_wrong_value_leaves_nothing_behind(stream, tmp_path, arguments, code, message):
    out = () if "--out" in arguments else ("--out", "run")
    got, _, err = stream("train", "digits-fc", *out, *arguments)
    assert got == code
    assert message in " ".join(err.decode().split())
    assert list(tmp_path.iterdir()) == []


def test_the_tab_key_is_served_where_an_option_is_given_twice():
    train = typer.main.get_command(app).commands["train"]
    words = ["digits-fc", "--rule", "opzo", "--rule", "dfa"]
    assert train.make_context("train", words, resilient_parsing=True).params["rule"] == "dfa"


def test_the_demo_refuses_before_it_makes_anything(stream, tmp_path):
    for arguments in (["--epochs", "0"], ["--seed", "-1"], ["--threads", "100000"]):
        code, _, err = stream("demo", *arguments)
        assert code == 2 and arguments[0].strip("-") in err.decode()
    assert list(tmp_path.iterdir()) == []


def test_memory_that_ends_is_said(stream, monkeypatch):
    def ends(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr("threefactor.cli.runs.training.open_run", ends)
    RunFolder("run").create(recipe("digits-fc").settings)
    code, _, err = stream("evaluate", "run")
    assert code == 1 and b"memory does not suffice" in err


def test_a_gpu_that_fails_is_said(stream, monkeypatch):
    def fails(*_arguments, **_options):
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be")

    monkeypatch.setattr("threefactor.cli.runs.training.open_run", fails)
    RunFolder("run").create(recipe("digits-fc").settings)
    code, _, err = stream("evaluate", "run")
    assert code == 1 and b"a GPU failed (CUDA error: unspecified launch failure)" in err
    assert b"Traceback" not in err
