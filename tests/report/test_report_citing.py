"""BibTeX of just what was used."""

import re

import pytest

from threefactor import __version__, clocked, data, events
from threefactor.errors import ConfigurationError
from threefactor.recipes import RECIPES, recipe
from threefactor.report import citation
from threefactor.report.citing import REFERENCES, cite_settings, references
from threefactor.training.engines import ENGINES


def keys(text):
    return re.findall(r"^@\w+\{(\w+),$", text, re.M)


@pytest.mark.parametrize(
    ("rule", "base", "expected"),
    [
        (None, None, ["threefactor"]),
        ("opzo", None, ["xiao2026opzo", "xiao2022ottt", "threefactor"]),
        ("dfa", None, ["nokland2016dfa", "threefactor"]),  # both engines have it
        ("exact-bp", None, ["bacho2023tradeoffs", "threefactor"]),
        (
            "dfa",
            "mnist-events",
            ["nokland2016dfa", "bacho2023tradeoffs", "lecun1998gradient", "threefactor"],
        ),
        (
            "dkp",
            "imagenet-nfresnet34",
            [
                "webster2020dkp",
                "xiao2022ottt",
                "brock2021signal",
                "deng2009imagenet",
                "threefactor",
            ],
        ),
        (
            "spatial-bp",
            "digits-saccades-conv",
            [
                "xiao2022ottt",
                "brock2021signal",
                "orchard2015nmnist",
                "alpaydin1998digits",
                "threefactor",
            ],
        ),
    ],
)
def test_what_is_cited(rule, base, expected):
    assert keys(citation(rule, base)) == expected


def test_local_learning_is_cited_when_it_is_used():
    plain = recipe("cifar10-conv5").settings_for("dfa")
    local = recipe("cifar10-conv5").settings_for("dfa", {"local_learning": "fixed"})
    assert "kaiser2020decolle" not in keys(cite_settings([plain]))
    assert {"kaiser2020decolle", "xiao2026opzo"} <= set(keys(cite_settings([local])))
    both = keys(cite_settings([plain, local]))
    assert len(both) == len(set(both)) and both[-1] == "threefactor"


def test_everything_that_can_be_used_has_its_entry():
    assert set(REFERENCES["rule"]) == {*clocked.RULES, *events.RULES}
    assert set(REFERENCES["network"]) == set(ENGINES)
    used = {key for kind in REFERENCES.values() for found in kind.values() for key in found}
    of_data = {name: entry.references for name, entry in data.DATASETS.items()}
    assert all(found or name == "shd-like" for name, found in of_data.items())
    assert used | {key for found in of_data.values() for key in found} <= set(references())
    for name in RECIPES:
        assert len(keys(citation(recipe=name))) >= 3


@pytest.mark.parametrize("key", references())
def test_entries_are_well_formed(key):
    entry = references()[key]
    assert keys(entry) == [key]
    assert entry.count("{") == entry.count("}") and entry.endswith("\n}")
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.M))
    assert {"title", "author"} <= fields.keys()
    assert key == "threefactor" or re.fullmatch(r"\d{4}", fields["year"])
    assert len(fields) == len(entry.splitlines()) - 2


def test_the_version_is_that_of_the_package():
    assert f"version = {{{__version__}}}" in citation()


def test_unknown_names():
    with pytest.raises(ConfigurationError, match="did you mean 'opzo'"):
        citation("ozpo")
    with pytest.raises(ConfigurationError, match="did you mean 'mnist-fc'"):
        citation("opzo", "mnist-fv")
    with pytest.raises(ConfigurationError, match="unknown rule 'opzo'"):
        citation("opzo", "mnist-events")


def test_data_of_ones_own_are_not_asked_for_by_the_name_of_their_kind():
    changes = {"data.name": "tensors", "data.options.path": "x.npz", "loss.kind": "MSELoss"}
    text = cite_settings([recipe("digits-fc").settings_for("dfa", changes)])
    assert "data of one's own (tensors): cite where they come from" in text
    assert "MSELoss" not in text
