"""A page tells the truth about code of users' own: no description or number of something else."""

import json

import pytest

from threefactor.report import collect, html_page, report_sections

OWN = {"name": "mine", "class": "my.Mine", "file": "my.py", "digest": "ab12", "cite": ""}


def with_code(folder, **parts):
    document = json.loads(folder.config_path.read_text())
    document["own_code"] = {"parts": parts, "plugins": []}
    folder.config_path.write_text(json.dumps(document))


def page_of(path):
    return " ".join(html_page("Page", report_sections([path])).split())


PUBLISHED = "98.34"  # OPZO on MNIST
TITLE = "MNIST, 784-800-800-10"


def test_the_librarys_own_has_its_description_and_number(make_run, tmp_path):
    make_run("a", [0.97], base="mnist-fc")
    page = page_of(tmp_path)
    assert PUBLISHED in page
    assert TITLE in page


@pytest.mark.parametrize("kind", ["rule", "network", "data", "loss"])
def test_a_part_of_ones_own_has_no_published_number(make_run, tmp_path, kind):
    """Even if it has the name of the library's, as who changes RULES by hand may have it."""
    with_code(make_run("a", [0.97], base="mnist-fc"), **{kind: OWN})
    page = page_of(tmp_path)
    assert PUBLISHED not in page
    assert (TITLE in page) == (kind == "rule")  # the network and data are still the recipe's
    assert f"The {kind} mine is not the library&#39;s, my.Mine of my.py (digest ab12)." in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network.hidden": [30]}, "another network.hidden"),
        ({"data.name": "fashion-mnist"}, "another data"),
        ({"network.kind": "conv5"}, "another network"),
    ],
)
def test_another_network_or_data_set_is_another_experiment(make_run, tmp_path, changes, told):
    make_run("a", [0.97], base="mnist-fc", **changes)
    page = page_of(tmp_path)
    assert PUBLISHED not in page
    assert TITLE not in page
    assert f"Trained from the recipe mnist-fc with {told}, so that neither" in page


def test_other_values_are_noted_beside_the_number_as_before(make_run, tmp_path):
    make_run("a", [0.97], base="mnist-fc", lr=0.5)
    page = page_of(tmp_path)
    assert PUBLISHED in page and TITLE in page
    assert "settings other than the recipe&#39;s: epochs = 1" in page


def test_a_recipe_of_ones_own_shows_its_own_title(make_run, tmp_path):
    part = {"name": "mnist-fc", "title": "Something <else>", "file": "my.toml", "digest": None}
    with_code(make_run("a", [0.97], base="mnist-fc"), recipe=part)
    page = page_of(tmp_path)
    assert PUBLISHED not in page and TITLE not in page
    assert "A recipe of one&#39;s own: Something &lt;else&gt;." in page


def test_the_bibtex_of_ones_own_code_is_that_of_the_run(make_run, tmp_path):
    cite = "@article{mine2026, title = {Mine}}"
    with_code(make_run("a", [0.97]), rule={**OWN, "name": "opzo", "cite": cite})
    page = page_of(tmp_path)
    assert cite in page
    assert "xiao2026opzo" not in page  # the rule that has this name is another one


@pytest.mark.parametrize(
    "damage", [5, [], {"parts": 5}, {"parts": {"rule": 5}}, {"parts": {"rule": {"name": 5}}}]
)
def test_a_damaged_record_is_left_out_and_named(make_run, tmp_path, damage):
    folder = make_run("a", [0.97])
    make_run("b", [0.97], seed=1)
    document = json.loads(folder.config_path.read_text())
    document["own_code"] = damage
    folder.config_path.write_text(json.dumps(document))
    (left,) = collect([tmp_path]).left_out
    assert "own_code is" in left.reason
