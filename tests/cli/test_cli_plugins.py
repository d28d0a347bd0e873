"""`--plugin`, recipe files and `--resume-or-start`, run as a user would."""

import json
from types import SimpleNamespace

import pytest

from threefactor import plugins
from threefactor.cli.completion import recipe_names, rule_names
from threefactor.plugins import loading, registry

pytest_plugins = ["apart"]
SMALL = ["--epochs", "1", "--set", "hidden=[8]", "--set", "data.train=64", "--set", "data.test=16"]


@pytest.fixture
def new_process():
    """Forget what is registered, as the next command does."""

    def forget():
        for kind, name in list(registry._ENTRIES):
            plugins.unregister(kind, name)
        loading._LOADED.clear()

    return forget


def test_a_run_remembers_its_plugin(run, plugin, new_process, apart):
    given = (
        "train",
        "digits-fc",
        "--rule",
        "half",
        "--set",
        "rule.share=0.3",
        *SMALL,
        "--out",
        "r",
    )
    code, _, err = run(*given)
    assert code == 2
    assert "unknown rule 'half'" in err and "name its --plugin" in err
    assert run(*given, "--plugin", "my.py")[0] == 0
    for command in (("evaluate", "r"), ("train", "--resume", "--out", "r"), ("report", "r")):
        new_process()
        assert run(*command)[0] == 0
    new_process()
    code, _, err = run("analyse", "firing", "r")
    assert code == 0, err
    new_process()
    code, _, err = run("finetune", "r", "--noise", "0.1", "--epochs", "1", "--out", "f")
    assert code == 0, err
    document = json.loads((plugin.parent / "f/config.json").read_text())
    assert document["own_code"]["parts"]["rule"]["name"] == "half"


def test_the_code_of_a_strangers_run_is_not_run(run, plugin, new_process, apart, tmp_path):
    assert run("train", "coins-fc", "--plugin", "my.py", "--out", "r")[0] == 0
    for note in (apart / "threefactor" / "plugins").iterdir():
        note.unlink()
    mark = tmp_path / "ran"
    plugin.write_text(f"open({str(mark)!r}, 'w').close()\n{plugin.read_text()}")
    document = json.loads((tmp_path / "r/config.json").read_text())
    document["own_code"]["plugins"][0]["digest"] = plugins.digest.code_digest(plugin)
    (tmp_path / "r/config.json").write_text(json.dumps(document))
    for command in (
        ("evaluate", "r"),
        ("train", "--resume", "--out", "r"),
        ("train", "--resume-or-start", "--out", "r"),
        ("analyse", "firing", "r"),
        ("finetune", "r", "--noise", "0.1"),
    ):
        new_process()
        code, _, err = run(*command)
        assert code == 2
        assert "'my.py'" in err and f"look at it, then add --plugin {plugin}" in err
        assert not mark.exists()
    new_process()
    assert run("report", "r")[0] == 0
    assert not mark.exists()
    assert plugins.loaded() == ()


def test_a_plugin_that_is_gone_or_changed(run, plugin, new_process, tmp_path):
    assert run("train", "coins-fc", "--plugin", "my.py", "--out", "r")[0] == 0
    plugin.write_text(plugin.read_text() + "\n# a remark\n")
    new_process()
    code, _, err = run("train", "--resume", "--out", "r")
    assert code == 2
    assert "'my.py'" in err and "which was changed since" in err
    new_process()
    with pytest.warns(UserWarning, match="was trained with other code of your own"):
        assert run("evaluate", "r", "--plugin", "my.py")[0] == 0
    plugin.rename(tmp_path / "moved.py")
    new_process()
    code, _, err = run("evaluate", "r")
    assert code == 2
    assert "which is gone; give the place of the same code as --plugin PATH" in err
    (tmp_path / "moved.py").write_text(
        (tmp_path / "moved.py").read_text()[: -len("\n# a remark\n")]
    )
    new_process()
    code, _, err = run("evaluate", "r", "--plugin", "moved.py")
    assert code == 0, err


def test_help_lists_and_cite_know_plugins(run, plugin):
    code, out, _ = run("train", "--plugin", "my.py", "--help")
    assert code == 0
    assert "From plugins: rules half; networks narrow; data coins; losses focal" in " ".join(
        out.split()
    )
    code, out, _ = run("recipes", "--plugin", "my.py")
    assert "coins-fc" in out and "Coins with a narrow network" in out
    assert "from plugins: rules half" in out
    code, out, _ = run("cite", "--rule", "half", "--recipe", "coins-fc", "--plugin", "my.py")
    assert "@article{half2026" in out and "@misc{coins" in out
    assert "% network 'narrow' is not part of threefactor" in out


def test_the_tab_key_knows_plugins_and_recipe_files(plugin, tmp_path):
    (tmp_path / "digits-mine.toml").write_text("")
    ctx = SimpleNamespace(params={"plugin": ["nowhere.py", "my.py"]})
    assert rule_names(ctx, "ha") == ["half"]
    assert recipe_names(ctx, "coins") == ["coins-fc"]
    assert "digits-mine.toml" in recipe_names(ctx, "digits-")
    whole = str(tmp_path / "digits-mine.toml")
    assert recipe_names(ctx, whole[:-6]) == [whole]
    assert recipe_names(SimpleNamespace(params={}), "mnist-f") == ["mnist-fc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "plugin 'bad.py' cannot be loaded: ZeroDivisionError"),
        ("x = 1", "plugin 'bad.py' registers nothing"),
        (
            "import threefactor\nthreefactor.register_recipe('r', {'epoch': 3})",
            "plugin 'bad.py': recipe 'r': unknown key 'epoch'; did you mean 'epochs'",
        ),
    ],
)
def test_a_bad_plugin_ends_the_command(run, apart, tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    code, _, err = run("train", "digits-fc", "--plugin", "bad.py")
    assert code == 2
    assert message in " ".join(err.split())


def test_a_rule_by_its_place(run, apart, tmp_path):
    (tmp_path / "cls.py").write_text(
        "from threefactor import clocked\n\nclass Plain(clocked.DFA):\n    pass\n"
    )
    assert run("train", "digits-fc", "--rule", "cls.py:Plain", *SMALL)[0] == 0
    document = json.loads((tmp_path / "runs/digits-fc-cls-Plain-seed0/config.json").read_text())
    assert document["settings"]["rule"]["name"] == "cls:Plain"
    assert run("evaluate", "runs/digits-fc-cls-Plain-seed0")[0] == 0


def test_a_recipe_file_is_trained(run, apart, tmp_path):
    code, out, _ = run("recipes", "--show", "digits-fc")
    assert code == 0
    (tmp_path / "my.toml").write_text(out.replace('recipe = "digits-fc"', "").replace("30", "1"))
    code, _, err = run("train", "my.toml", *SMALL, "--rule", "dfa", "--out", "r")
    assert code == 0, err
    document = json.loads((tmp_path / "r/config.json").read_text())
    assert document["settings"]["recipe"] == "my"
    assert document["own_code"]["parts"]["recipe"]["file"] == "my.toml"
    assert document["own_code"]["plugins"] == []
    assert run("evaluate", "r")[0] == 0
    code, _, err = run("train", "mu.toml")
    assert code == 2
    assert "recipe mu.toml cannot be read" in err


def test_resume_or_start_for_batch_systems(run, tmp_path):
    given = ("train", "digits-fc", "--rule", "dfa", *SMALL, "--resume-or-start")
    code, out, _ = run(*given)
    assert code == 0
    assert "epoch   1/1" in out
    metrics = tmp_path / "runs/digits-fc-dfa-seed0/metrics.jsonl"
    before = metrics.read_bytes()
    code, out, _ = run(*given)
    assert code == 0
    assert "epoch   1/1" not in out
    assert metrics.read_bytes() == before
    code, _, err = run(*given, "--set", "lr=0.5")
    assert code == 1
    assert "is a run of another configuration (optimizer.lr" in err
    code, _, err = run("train", "--resume-or-start", "--out", "new")
    assert code == 2
    assert "give a recipe" in err
