"""Plugins are loaded, or refused in words that name them; nothing of a bad one stays."""

import shutil
import sys
from importlib import metadata

import pytest

from threefactor import clocked, plugins
from threefactor.errors import ConfigurationError
from threefactor.plugins import loading, registry
from threefactor.plugins.digest import code_digest

pytest_plugins = ["apart"]
pytestmark = pytest.mark.usefixtures("apart")
RULE = """
import threefactor
from threefactor import clocked
{more}

@threefactor.register_rule("{name}")
class Mine(clocked.DFA):
    pass
"""
PLAIN = "from threefactor import clocked\n\nclass Plain(clocked.DFA):\n    pass\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(others=(), **files):
        for name, text in {**files, **dict(others)}.items():
            file = tmp_path / f"{name}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)

    return write


def test_a_file_registers_all_kinds(plugin):
    found = plugins.load("my.py")
    assert (found.name, found.module, found.path) == ("my.py", "my", str(plugin))
    assert found.registers == (
        *("rule half", "network narrow", "data coins", "loss focal", "recipe coins-fc"),
        "neuron my.Mine",
    )
    assert all(one.plugin == str(plugin) for one in plugins.entries().values())
    assert plugins.load("./my.py") is found
    assert clocked.RULES["half"].__module__ == "my"


def test_a_file_imports_what_lies_beside_it_and_shadows_nothing(write):
    write(
        mine=RULE.format(name="a", more="import beside"), beside="X = 1", torch="raise ValueError"
    )
    assert plugins.load("mine.py").registers == ("rule a",)
    assert sys.modules["beside"].X == 1


def test_a_file_with_the_name_of_a_module_gets_another(write):
    write(torch=RULE.format(name="a", more=""))
    found = plugins.load("torch.py")
    assert found.module == "plugin_torch"
    assert sys.modules["torch"].__file__ != found.path


def test_a_folder_and_a_module(write, tmp_path, monkeypatch):
    init = RULE.format(name="a", more="from . import inner")
    write({"lib/__init__": init, "lib/inner": ""})
    write(other=RULE.format(name="b", more=""))
    with pytest.raises(ConfigurationError, match=r"no such module; there is other.py here: give"):
        plugins.load("other")
    assert plugins.load("./lib").path == str(tmp_path / "lib")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = plugins.load("other")
    assert (found.place, found.by_path) == ("other", False)


def test_a_class_by_its_place(write):
    write(cls=PLAIN)
    assert plugins.name_of_rule("cls.py:Plain") == "cls:Plain"
    assert issubclass(clocked.RULES["cls:Plain"], clocked.DFA)
    assert plugins.name_of_rule("cls.py:Plain") == "cls:Plain"
    assert plugins.name_of_rule("opzo") == "opzo"
    (found,) = plugins.loaded()
    assert found.specs == (f"{found.path}:Plain",)
    with pytest.raises(ConfigurationError, match=r"plugin 'cls\.py' has no class 'Plane'"):
        plugins.load("cls.py:Plane")
    assert "cls:Plane" not in clocked.RULES


def test_a_class_by_its_place_keeps_the_name_that_it_was_registered_under(plugin):
    assert plugins.name_of_rule("my.py:Half") == "half"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_thing", r"No module named 'no_such_thing' \(bad.py, line 1\)"),
        ("x = (", "SyntaxError"),
        ("\n1 / 0", r"ZeroDivisionError: division by zero \(bad.py, line 2\)"),
        ("raise ValueError", "ValueError: without a word"),
        ("import sys; sys.exit(3)", "it ended the program, as a script does"),
        ("x = 1", "plugin 'bad.py' registers nothing; put @threefactor.register_rule"),
        (RULE.format(name="opzo", more=""), "the rule name 'opzo' is taken by threefactor"),
        (RULE.format(name="a", more="") + "\nboom", "NameError: name 'boom' is not defined"),
        (
            RULE.format(name="a", more="") + "\nclocked.RULES['opzo'] = Mine",
            "plugin 'bad.py' replaces the rule 'opzo' in RULES",
        ),
    ],
)
def test_a_bad_plugin_is_named_and_leaves_nothing(write, text, message):
    write(bad=text)
    rules = dict(clocked.RULES)
    with pytest.raises(ConfigurationError, match=message) as raised:
        plugins.load("bad.py")
    assert "bad.py" in str(raised.value)
    assert rules == clocked.RULES
    assert plugins.entries() == {}
    assert plugins.loaded() == ()
    assert "bad" not in sys.modules


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py", "'nowhere.py' is not a file"),
        ("./", "is a folder without __init__.py"),
        ("no_such_module", "there is no such module"),
        ("no.such.module", "No module named 'no'"),
        ("", "give a file or the name of a module"),
        (5, "plugin is 5"),
        ("sys", "has no file"),
        ("my.toml", "is a file that does not end in .py"),
    ],
)
def test_what_is_no_plugin(write, tmp_path, spec, message):
    write()
    (tmp_path / "my.toml").touch()
    with pytest.raises(ConfigurationError, match=message):
        plugins.load(spec)


def test_two_plugins_cannot_have_one_name(plugin, write):
    plugins.load("my.py")
    write(again=RULE.format(name="half", more=""))
    with pytest.raises(ConfigurationError, match=r"'half' is taken by .*my.py"):
        plugins.load("again.py")
    assert clocked.RULES["half"].__module__ == "my"


def test_rules_put_into_the_table_by_hand_count(write):
    write(hand=PLAIN + "\nclocked.RULES['plain'] = Plain\n")
    assert plugins.load("hand.py").registers == ("rule plain",)


def test_code_that_was_changed_is_not_loaded_twice(plugin):
    plugins.load("my.py")
    plugin.write_text(plugin.read_text() + "\n# more\n")
    with pytest.raises(ConfigurationError, match="was changed since this process loaded it"):
        plugins.load("my.py")


def test_the_digest_is_that_of_all_code_beside(write, tmp_path):
    write(a="import b\n", b="def f():\n    from c import X\n", c="X = 1\n", d="Y = 1\n")
    first = code_digest(tmp_path / "a.py")
    write(d="Y = 2\n")
    assert code_digest(tmp_path / "a.py") == first
    write(c="X = 2\n")
    second = code_digest(tmp_path / "a.py")
    assert second != first
    (tmp_path / "c.py").write_bytes(b"X = 2\r\n")
    assert code_digest(tmp_path / "a.py") == second
    write({"p/__init__": "", "p/q": "Z = 1\n"})
    package = code_digest(tmp_path / "p")
    assert code_digest(tmp_path / "p" / "__init__.py") == package
    write({"p/q": "Z = 2\n"})
    assert code_digest(tmp_path / "p") != package


class Point:
    """An entry point of a distribution."""

    dist = None

    def __init__(self, name, value):
        self.name, self.value = name, value


def test_installed_plugins_are_loaded_and_a_broken_one_does_no_harm(write, tmp_path, monkeypatch):
    write(installed_one=RULE.format(name="a", more=""), broken_one="1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [Point("broken", "broken_one"), Point("good", "installed_one")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    with pytest.warns(UserWarning, match="the entry point broken = broken_one .* is left out"):
        plugins.load_installed()
    assert clocked.RULES["a"].__module__ == "installed_one"
    assert [one.installed for one in plugins.loaded()] == [True]
    plugins.load_installed()  # says it once


def record(found, **changes):
    return [{**found.record, **changes}]


def test_a_run_folder_may_use_what_its_user_loaded_before(plugin, apart):
    found = plugins.load("my.py")
    forget()
    plugins.recall(record(found), "run")
    assert [one.digest for one in plugins.loaded()] == [found.digest]
    plugins.recall(record(found), "run")  # it is there
    assert len(plugins.loaded()) == 1


def forget():
    """Be another process."""
    for kind, name in list(registry._ENTRIES):
        plugins.unregister(kind, name)
    for one in plugins.loaded():
        sys.modules.pop(one.module, None)
    loading._LOADED.clear()


@pytest.mark.parametrize("what", ["untrusted", "changed", "gone", "other-place", "other-digest"])
def test_a_run_folder_has_no_other_code_imported(plugin, apart, tmp_path, what):
    """It may come from anybody, with any path and digest in it."""
    found = plugins.load("my.py")
    forget()
    mark = tmp_path / "ran"
    hostile = f"open({str(mark)!r}, 'w').close()\n"
    given, message = record(found), "add --plugin"
    if what == "untrusted":
        shutil.rmtree(apart)
        plugin.write_text(hostile)
        given = record(found, digest=code_digest(plugin))
        message = "That is code which this command would run"
    elif what == "changed":
        plugin.write_text(hostile)
        message = "which was changed since"
    elif what == "gone":
        plugin.unlink()
        message = "which is gone"
    elif what == "other-place":  # trusted code as the alibi of a module that is imported
        (tmp_path / "evil.py").write_text(hostile)
        given = record(found, place="evil")
        sys.path.insert(0, str(tmp_path))
        message = "That is code which this command would run"
    else:
        (tmp_path / "evil.py").write_text(hostile)
        given = record(found, path=str(tmp_path / "evil.py"), place=str(tmp_path / "evil.py"))
        message = "which was changed since"
    with pytest.raises(ConfigurationError, match=message) as raised:
        plugins.recall(given, "run")
    assert "'my.py'" in str(raised.value)
    assert not mark.exists()
    assert plugins.loaded() == ()


@pytest.mark.parametrize("given", [5, [5], [{}], [{"plugin": "a"}], {"a": 1}, "my.py"])
def test_a_damaged_record_is_refused(given):
    with pytest.raises(ConfigurationError, match="is damaged: its plugins are"):
        plugins.recall(given, "run")


def test_where_nothing_can_be_noted_plugins_work_all_the_same(plugin, apart):
    apart.write_text("a file, not a folder")
    found = plugins.load("my.py")
    forget()
    with pytest.raises(ConfigurationError, match="add --plugin"):
        plugins.recall(record(found), "run")
