"""The command line, run as a user would; every error ends with a message and no traceback."""

import json
import re
import shutil
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from threefactor.cli import demo

SMALL = ["--epochs", "2", "--set", "hidden=[20]", "--set", "data.train=64", "--set", "data.test=32"]


def test_train_then_evaluate(run, tmp_path):
    code, out, _ = run("train", "digits-fc", "--rule", "dfa", "--seed", 3, *SMALL)
    assert code == 0
    assert "epoch   2/2" in out
    folder = tmp_path / "runs" / "digits-fc-dfa-seed3"
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    code, out, _ = run("evaluate", folder, "--json")
    assert code == 0
    assert json.loads(out)["test_accuracy"] == last["test_accuracy"]
    code, out, _ = run("evaluate", folder, "--checkpoint", "best")
    assert code == 0
    assert "best checkpoint after" in out


def test_a_recurrent_network_is_a_setting(run, tmp_path):
    assert run("train", "digits-fc", *SMALL, "--set", "recurrent=true", "--out", "r")[0] == 0
    last = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[-1])
    code, out, _ = run("evaluate", "r", "--json")
    assert code == 0 and json.loads(out)["test_accuracy"] == last["test_accuracy"]
    code, _, err = run("train", "digits-fc", *SMALL, "--set", "recurrent=[true, false]")
    assert code == 1 and "there are 1 hidden layers" in err
    code, _, err = run("train", "digits-fc", *SMALL, "--set", "recurrent=yes")
    assert code == 2 and "network.recurrent" in err


def test_resume_of_a_finished_run_and_of_another_configuration(run):
    assert run("train", "digits-fc", *SMALL, "--out", "r")[0] == 0
    assert run("train", "--resume", "--out", "r")[0] == 0
    assert run("train", "digits-fc", *SMALL, "--out", "r", "--resume")[0] == 0
    code, _, err = run("train", "digits-fc", *SMALL, "--rule", "dfa", "--out", "r", "--resume")
    assert code == 1
    assert "rule.name: 'opzo' there, 'dfa' asked" in err
    code, _, err = run("train", "digits-fc", *SMALL, "--out", "r")
    assert code == 1
    assert "already holds a run; add --resume" in err


def test_precision_is_recorded_and_kept(run, tmp_path):
    usual = torch.get_float32_matmul_precision()
    try:
        assert run("train", "digits-fc", *SMALL, "--out", "r", "--precision", "high")[0] == 0
        assert json.loads((tmp_path / "r" / "config.json").read_text())["environment"][
            "precision"
        ] == "high"  # fmt: skip
        torch.set_float32_matmul_precision(usual)
        assert run("train", "--resume", "--out", "r")[0] == 0
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32  # of convolutions
        assert run("train", "digits-fc", *SMALL, "--out", "s", "--precision", "highest")[0] == 0
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(usual)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "digits-fc", "--precision", "hihg"], 2, "did you mean 'high'"),
        (["train", "digit-fc"], 2, "unknown recipe 'digit-fc'; did you mean 'digits-fc'"),
        (["train", "digits-fc", "--rule", "bp"], 2, "unknown rule 'bp'; did you mean 'spatial-bp'"),
        (["train", "digits-fc", "--set", "droput=0"], 2, "did you mean 'dropout'"),
        (["train", "digits-fc", "--set", "dropout"], 2, "write --set key=value"),
        (["train", "digits-fc", "--set", "dropout=2"], 2, "network.dropout = 2"),
        (["train", "digits-fc", "--set", "hidden=[0]"], 2, "network.hidden.0 = 0"),
        (["train", "digits-fc", "--epochs", "0"], 2, "epochs = 0"),
        (["train", "digits-fc", "--set", "data.train=9999"], 1, "9999"),
        (["train", "digits-fc", "--set", "data.name=mnisst"], 2, "did you mean 'mnist'"),
        (["train", "digits-fc", "--device", "tpu0"], 2, "device 'tpu0' cannot be used"),
        (["train"], 2, "give a recipe: digits-fc"),
        (["train", "--resume"], 2, "give --out DIR"),
        (["train", "--resume", "--rule", "dfa", "--out", "r"], 2, "to resume, give either"),
        (["train", "digits-fc", "--out", ""], 2, "the argument after --out is empty"),
        (["report", ""], 2, "the argument after report is empty"),
        (["evaluate", "r", "--data-dir="], 2, "the argument --data-dir= is empty"),
        (["train", "--resume", "--out", "nowhere"], 1, "nowhere holds no run"),
        (["train", "mnist-fc"], 1, "threefactor data fetch mnist"),
        (["evaluate", "nowhere"], 1, "nowhere holds no run"),
        (["data", "info", "minst"], 2, "did you mean 'mnist'"),
        (["data", "fetch", "digits"], 2, "digits"),
        (["frobnicate"], 2, "No such command"),
        (["train", "digits-fc", "--epochs", "x"], 2, "Invalid value for '--epochs'"),
    ],
)
def test_what_bad_input_gets(run, arguments, code, message):
    got, _, err = run(*arguments)
    assert got == code, err
    assert message in " ".join(err.split())


def test_warnings_are_words_and_not_places_in_other_peoples_code(run, monkeypatch):
    def show(*given, **rest):
        print(warnings.formatwarning(*given[:4]), end="", file=sys.stderr)

    monkeypatch.setattr(warnings, "showwarning", show)
    small = ("--set", "hidden=[5]", "--set", "data.train=40", "--set", "data.test=20")
    late = ("--set", "window=0.5", "--epochs", "1", "--out", "r")
    code, _, err = run("train", "digits-events", *small, *late)
    assert code == 0
    assert re.search(r"^warning: 4\d% of the spikes for training come 0.2 s or later", err, re.M)
    assert "typer" not in err and "Warning" not in err


def test_fine_tuning_names_a_run_that_is_given_by_a_dot(run, tmp_path, monkeypatch):
    assert run("train", "digits-fc", *SMALL, "--out", "r")[0] == 0
    (tmp_path / "r/inner").mkdir()
    for where, given in (("r", "."), ("r/inner", "..")):
        monkeypatch.chdir(tmp_path / where)
        out = tmp_path / "r-noise0.1-opzo-seed0"
        code, _, err = run("finetune", given, "--noise", "0.1", "--epochs", "1")
        assert code == 0, err
        shutil.rmtree(out)


def test_a_corrupt_checkpoint_is_an_error_and_not_a_crash(run, tmp_path):
    assert run("train", "digits-fc", *SMALL, "--out", "r")[0] == 0
    (file,) = (tmp_path / "r/last").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    for command in (["evaluate", "r"], ["train", "--resume", "--out", "r"]):
        code, _, err = run(*command)
        assert code == 1
        assert "cut short" in err
    code, _, err = run("evaluate", "r", "--checkpoint", "worst")
    assert (code, "give last or best" in err) == (2, True)


def test_data_commands(run):
    code, out, _ = run("data", "list")
    assert code == 0
    for word in ("digits", "mnist", "fashion-mnist", "60,000"):
        assert word in out
    code, out, _ = run("data", "info", "mnist")
    assert (code, "LeCun" in out) == (0, True)


def test_help_teaches(run):
    for arguments, word in (
        ([], "threefactor demo"),
        (["--help"], "install-completion"),
        (["train", "--help"], "momentum=0.999"),
        (["data", "--help"], "THREEFACTOR_DATA"),
        (["recipes"], "mnist-fc"),
    ):
        _, out, err = run(*arguments)
        assert word in out + err


def test_version(run):
    from threefactor import __version__

    assert run("--version")[1].strip() == __version__


def test_demo_prints_tables_and_writes_a_picture_and_a_page(run, tmp_path):
    code, out, _ = run("demo", "--epochs", 1, "--out", "shown")
    assert code == 0
    for word in ("spatial BP", "OPZO", "DFA", "ZO", "exact BP", "SFDFA", "Yin-Yang"):
        assert word in out
    picture = (tmp_path / "shown/learning_curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    page = (tmp_path / "shown/report.html").read_text(encoding="utf-8")
    assert page.count("<figure") == page.count("<svg") == 12
    shown = json.loads((tmp_path / "shown/results.json").read_text())["experiments"]
    assert set(shown) == {"digits-fc", "digits-events", "yin-yang-events"}
    assert set(shown["digits-fc"]["summary"]) == {"spatial BP", "OPZO", "DFA", "ZO"}
    for name in ("digits-events", "yin-yang-events"):
        assert set(shown[name]["summary"]) == {"exact BP", "SFDFA", "DFA"}
        assert shown[name]["rate_unit"] == "spikes per neuron and sample"


def test_the_demo_without_matplotlib_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name in ("digits-events", "yin-yang-events"):  # one network is enough for that
        monkeypatch.delitem(demo.SHOWN, name)
    code, out, _ = run("demo", "--epochs", 1)
    assert code == 0
    assert "pip install 'threefactor[report]'" in out


def test_tab_completion_offers_names():
    from threefactor.cli import completion

    line = SimpleNamespace(params={})  # what was typed before
    assert completion.recipe_names(line, "mnist-f") == ["mnist-fc"]
    assert completion.recipe_names(line, "mnist-events-d") == [
        "mnist-events-deep",
        "mnist-events-deep-scaled",
    ]
    known = ["spatial-bp", "dfa", "dkp", "zo", "opzo", "exact-bp", "sfdfa"]
    assert completion.rule_names(line, "") == known
    assert completion.dataset_names("f") == ["fashion-mnist"]


def test_the_shell_really_completes(run, monkeypatch, capsys):
    monkeypatch.setenv("_THREEFACTOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "threefactor train digits-fc --rule sp")
    monkeypatch.setenv("COMP_CWORD", "4")
    assert "spatial-bp" in run()[1]


@pytest.mark.parametrize("wrong", [["--rul", "opzo"], ["--epochs", "many"], ["--rule", "ozpo"]])
def test_what_torchrun_started_says_once_what_is_wrong(run, monkeypatch, tmp_path, wrong):
    """The store stands for that of torchrun, the two calls for its processes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    note = tmp_path / "error.json"
    environment = {
        **{"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_ERROR_FILE": str(note)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ends = [run("train", "digits-fc", *wrong) for _ in range(2)]
    assert [code for code, *_ in ends] == [2, 2]
    first, second = (err for *_, err in ends)
    assert wrong[1] in first or wrong[0] in first
    assert not second
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(note))
    assert failure.message["message"] in " ".join(first.split())
