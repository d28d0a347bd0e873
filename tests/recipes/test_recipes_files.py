"""Recipes in files: the same as in the library, or refused with file and key."""

import json
from dataclasses import replace

import pytest

import threefactor
from threefactor import plugins
from threefactor.errors import ConfigurationError
from threefactor.recipes import RECIPES, all_recipes, read_recipe, recipe, recipe_toml
from threefactor.recipes.files import from_document, read_document

pytest_plugins = ["apart"]
pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def write(tmp_path):
    def write(text, name="my.toml"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_is_printed_is_the_same_when_it_is_read(name, write):
    file = write(recipe_toml(RECIPES[name]), "any.toml")
    assert from_document(read_document(file), recipe, "any") == (name, RECIPES[name])
    assert read_recipe(file) is RECIPES[name]
    assert plugins.entries("recipe") == {}


def test_a_changed_recipe_needs_a_name_of_its_own(write):
    text = recipe_toml(RECIPES["mnist-fc"]).replace("epochs = 50", "epochs = 6")
    assert text != recipe_toml(RECIPES["mnist-fc"])
    with pytest.raises(ConfigurationError, match=r"my\.toml is called 'mnist-fc', and differs"):
        recipe(str(write(text)))
    made = recipe(str(write(text.replace('recipe = "mnist-fc"', 'recipe = "short"'))))
    assert made.settings == replace(RECIPES["mnist-fc"].settings, recipe="short", epochs=6)
    assert recipe("short") == made
    assert all_recipes()["short"] == made


def test_the_name_is_that_of_the_file_and_the_rest_that_of_the_base(write):
    made = recipe(
        str(
            write(
                """
                base = "digits-fc"
                epochs = 3
                [network]
                hidden = [50]
                [rule]
                name = "dfa"
                [optimizer]
                name = "SGD"
                options = {momentum = 0.9}
                [per_rule.zo]
                optimizer.lr = 1e-4
                """
            )
        )
    )
    base = RECIPES["digits-fc"].settings
    assert made.settings.recipe == "my"
    assert made.settings.network == replace(base.network, hidden=(50,))
    assert made.settings.optimizer.options == {"momentum": 0.9}
    assert made.settings.rule.options == {}
    assert made.settings_for("zo").optimizer.lr == 1e-4
    assert (
        made.settings_for("zo").network.dropout
        == RECIPES["digits-fc"].settings_for("zo").network.dropout
    )


def test_a_network_of_another_kind_takes_nothing_of_the_base(write):
    text = 'base = "digits-saccades-conv"\n[network]\nkind = "fc"\nhidden = [9]\n'
    network = recipe(str(write(text))).settings.network
    assert (network.kind, network.hidden, network.dropout) == ("fc", (9,), 0.2)


def test_a_file_may_be_read_again_after_a_change(write):
    file = write('base = "digits-fc"\nepochs = 3\n')
    assert recipe(str(file)).settings.epochs == 3
    write('base = "digits-fc"\nepochs = 4\n')
    assert recipe(str(file)).settings.epochs == 4
    other = write('recipe = "my"\nbase = "digits-fc"\n', "other.toml")
    with pytest.raises(ConfigurationError, match=r"'my' is taken by .*my\.toml"):
        recipe(str(other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "cannot be read: Invalid value"),
        ("epochs = 3\nepochs = 4", "Cannot overwrite a value"),
        ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("epochs = 0", "epochs = 0"),
        ('epochs = "many"', "epochs = 'many'"),
        ("[network]\nhiden = [3]", "network.hiden"),
        ("[network]\nkind = 'fcc'", "network.kind = 'fcc'"),
        ("[rule]\nname = 'opz'", "did you mean 'opzo'"),
        ("[rule.options]\nmomentun = 1", "momentun"),
        ("base = 'digit-fc'", "did you mean 'digits-fc'"),
        ("base = 5", "unknown recipe 5"),
        ("title = 5", "title is 5; give a text"),
        ("recipe = 5", "recipe is 5; give a text"),
        ("recipe = 'a/b'", "recipe is to be called 'a/b'"),
        ("per_rule = 5", "per_rule is 5"),
        ("[per_rule.opzz]\n'optimizer.lr' = 1e-3", "per_rule.opzz: unknown rule 'opzz'"),
        ("[per_rule.zo]\n'optimizer.lrr' = 1e-3", "per_rule.zo: unknown setting"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(write, text, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        recipe(str(write(text)))
    assert "my.toml" in str(raised.value) or "'a/b'" in str(raised.value)
    assert plugins.entries() == {}


def test_files_that_cannot_be_read(tmp_path, write):
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read: No such file"):
        recipe(str(tmp_path / "nowhere.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"bytes\.toml cannot be read"):
        recipe(str(tmp_path / "bytes.toml"))
    with pytest.raises(ConfigurationError, match="larger than a recipe"):
        recipe(str(write("#" * (2 << 20))))


def test_yaml(write):
    pytest.importorskip("yaml")
    made = recipe(str(write("base: digits-fc\nepochs: 3\nnetwork: {hidden: [50]}\n", "y.yaml")))
    assert (made.settings.recipe, made.settings.network.hidden) == ("y", (50,))
    with pytest.raises(ConfigurationError, match=r"y\.yaml cannot be read: line 1: key 'epochs'"):
        recipe(str(write("epochs: 3\nepochs: 4\n", "y.yaml")))
    with pytest.raises(ConfigurationError, match=r"y\.yaml holds None"):
        recipe(str(write("# nothing\n", "y.yaml")))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        recipe(str(write("a: [", "y.yaml")))
    with pytest.raises(ConfigurationError, match="a recipe cannot have aliases"):
        recipe(str(write("data: &a {name: digits}\nnetwork: *a\n", "y.yaml")))
    with pytest.raises(ConfigurationError, match=r"cannot be read: .*python/object"):
        recipe(str(write("!!python/object/apply:os.system ['true']", "y.yaml")))


def test_words_and_numbers_of_yaml_are_what_they_look_like(write):
    """In YAML 1.1, 010 is 8, 1:30 is 90, no is false, 1e-3 is a text, and << takes fields over."""
    pytest.importorskip("yaml")

    def made(text):
        return recipe(str(write(f"base: digits-fc\n{text}\n", "y.yaml"))).settings

    good = """
optimizer: {lr: 1e-3, options: {weight_decay: 0.1}}
network: {leak: .5, hidden: [8, 7], learn_leak: true}
rule: {options: {momentum: 1.0e+0, antithetic: False}}
scheduler: {name: ~}
data: {train: 30, test: null}"""
    found = made(good)
    assert (found.optimizer.lr, found.optimizer.options["weight_decay"]) == (1e-3, 0.1)
    assert (found.network.leak, found.network.hidden, found.network.learn_leak) == (
        0.5,
        (8, 7),
        True,
    )
    assert found.rule.options["momentum"] == 1 and found.rule.options["antithetic"] is False
    assert found.scheduler.name is None and found.data.train == 30
    for text, said in (
        ("epochs: 010", "epochs = '010'"),
        ("epochs: 1:30", "epochs = '1:30'"),
        ("epochs: 0x10", "epochs = '0x10'"),
        ("epochs: 1_000", "epochs = '1_000'"),
        ("epochs: 2020-01-01", "epochs = '2020-01-01'"),
        ("epochs: .inf", r"epochs = '\.inf'"),
        ("network: {learn_leak: yes}", "learn_leak = 'yes'"),
        ("rule: {options: {antithetic: no}}", "antithetic is 'no'"),
        ("network: {<<: {leak: 0.3}, dropout: 0.1}", r"unknown setting 'network\.<<'"),
    ):
        with pytest.raises(ConfigurationError, match=rf"y\.yaml: .*{said}"):
            made(text)


def test_a_bad_option_of_a_rule_is_refused_with_the_file(write):
    base = 'base = "digits-fc"\n'
    with pytest.raises(ConfigurationError, match=r"my\.toml: momentum is '0\.9'"):
        recipe(str(write(base + '[rule.options]\nmomentum = "0.9"\n')))
    with pytest.raises(ConfigurationError, match=r"my\.toml: per_rule\.dfa: .*is 'x'"):
        recipe(str(write(base + '[per_rule.dfa]\nlocal_scale = "x"\n')))


def test_a_base_is_found_beside_the_file_and_is_not_the_file(write, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write('base = "digits-fc"\nepochs = 7\n', "mother.toml")
    (tmp_path / "elsewhere" / "mother.toml").write_text('base = "digits-fc"\nepochs = 9\n')
    made = recipe(str(write('base = "mother.toml"\nbatch_size = 5\n', "child.TOML")))
    assert (made.settings.epochs, made.settings.batch_size) == (7, 5)
    write('base = "b.toml"\n', "a.toml")
    write('base = "./a.toml"\n', "b.toml")
    with pytest.raises(ConfigurationError, match=r"a\.toml is its own base"):
        recipe(str(tmp_path / "a.toml"))


def test_a_file_of_windows_begins_with_a_mark_and_an_empty_one_is_refused(write):
    made = recipe(str(write('\ufeffbase = "digits-fc"\nepochs = 3\n')))
    assert made.settings.epochs == 3
    with pytest.raises(ConfigurationError, match=r"my\.toml holds \{\}; give settings by name"):
        recipe(str(write("# nothing\n")))


def test_a_recipe_of_a_script():
    threefactor.register_recipe(
        "slow", {"base": "digits-fc", "optimizer": {"lr": 1e-5}}, title="Slow digits"
    )
    assert recipe("slow").title == "Slow digits"
    assert recipe("slow").settings_for("dfa").optimizer.lr == 1e-5
    threefactor.register_recipe("given", RECIPES["digits-fc"].settings)
    assert recipe("given").settings == replace(RECIPES["digits-fc"].settings, recipe="given")
    threefactor.register_recipe("bad", {"epoch": 3})
    with pytest.raises(ConfigurationError, match="recipe 'bad': unknown key 'epoch'"):
        recipe("bad")
    threefactor.register_recipe("worse", 5)
    with pytest.raises(ConfigurationError, match="recipe 'worse' is 5; register Settings"):
        recipe("worse")


def test_values_that_toml_has_to_quote():
    made = replace(RECIPES["digits-fc"], title='a "quoted"\n\\ line\x7f')
    assert json.loads(recipe_toml(made).splitlines()[1].partition(" = ")[2]) == made.title
