"""Which runs a sweep has, and which sweeps are refused."""

import pytest

from threefactor.errors import ConfigurationError
from threefactor.recipes import recipe
from threefactor.sweeps import Range, Sweep, parse_grid


def cells(sweep):
    return [(run.rule, dict(run.changes), run.seed) for run in sweep.runs()]


def test_a_grid_has_all_combinations_that_a_rule_has():
    grid = {"lr": (1e-3, 2e-4), "noise_scale": (0.1, 0.2)}
    sweep = Sweep("digits-fc", ("opzo", "dfa"), grid, {"epochs": 2}, seeds=2)
    found = cells(sweep)
    opzo = [one for one in found if one[0] == "opzo"]
    assert len(opzo) == 2 * 2 * 2
    assert [one for one in found if one[0] == "dfa"] == [
        ("dfa", {"epochs": 2, "optimizer.lr": lr}, seed) for lr in (1e-3, 2e-4) for seed in (0, 1)
    ]
    run = sweep.runs()[0]
    wanted = {"lr": 1e-3, "noise_scale": 0.1, "epochs": 2, "seed": 0}
    assert run.settings == recipe("digits-fc").settings_for("opzo", wanted)
    assert sweep.name_of(run) == "opzo, lr=0.001, noise_scale=0.1, seed 0"
    assert len({one.fingerprint for one in sweep.runs()}) == len(found)


def test_a_kind_of_network_may_be_one_of_the_values():
    sweep = Sweep("digits-saccades-conv", ("dfa",), {"network.kind": ("conv5", "conv9")})
    assert [run.settings.network.kind for run in sweep.runs()] == ["conv5", "conv9"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1,2.5", (1, 2.5)),
        ("a=1e-3", (0.001,)),
        ("a = x, y", ("x", "y")),
        ("a=true,null,x", (True, None, "x")),
        ("a=[1,2],[3]", ([1, 2], [3])),
        ('a={"b": 1}', ({"b": 1},)),
        ("a=1..3", Range(1, 3)),
        ("a=0.1..0.3", Range(0.1, 0.3)),
        ("a=1e-3..1:log", Range(1e-3, 1, True)),
    ],
)
def test_values_are_read(text, values):
    assert parse_grid(text) == ("a", values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "write --grid key=value,value"),
        ("=1,2", "write --grid key=value,value"),
        ("a=", "write --grid key=value,value"),
        ("a=x,", "has an empty value"),
        ("a=1,1.0,1", "a has the value 1 twice"),
        ("a=3..1", "with numbers that rise"),
        ("a=x..y", "low..high"),
        ("a=0..1:log", "with numbers above 0"),
        ("a=1..2:exp", "low..high:log"),
        ("a=1..1e999", "low..high"),
    ],
)
def test_values_that_cannot_be_read(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_grid(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"droput": (0.1,)}}, "unknown setting 'droput'; did you mean 'dropout'"),
        ({"grid": {"name": ("a",)}}, "'name' is not unique"),
        ({"grid": {"lr": (1e-3,), "optimizer.lr": (1e-4,)}}, "optimizer.lr is given twice"),
        ({"grid": {"lr": (1e-3,)}, "changes": {"lr": 1e-4}}, "optimizer.lr is given twice"),
        ({"grid": {"seed": (1, 2)}}, "give --seeds"),
        ({"grid": {"rule": ("dfa",)}}, "give --rule one,other"),
        ({"rules": ("dfa", "dfa")}, "rule 'dfa' is given twice"),
        ({"rules": ("dfx",), "grid": {"lr": (1,)}}, "unknown rule 'dfx'"),
        ({"rules": ("dfa", "dkp"), "grid": {"noise_scale": (0.1,)}}, "unknown setting"),
        ({"grid": {"track.every": (1, 2)}}, "track.every has no effect on a training"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": True}, "seeds is True"),
        ({"seeds": 10**6}, "seeds is 1000000"),
        ({"recipe": "digit-fc", "grid": {"lr": (1,)}}, "unknown recipe"),
    ],
)
def test_a_sweep_that_cannot_be(changes, message):
    given = {"recipe": "digits-fc", "rules": ("opzo",), **changes}
    with pytest.raises(ConfigurationError, match=message):
        Sweep(**given)


def test_a_million_cells_are_refused_before_any_is_made():
    many = tuple(i / 1000 for i in range(1000))
    sweep = Sweep("digits-fc", ("opzo",), {"lr": many, "dropout": many[:-1]}, seeds=3)
    with pytest.raises(ConfigurationError, match="999,000 cells with 3 seeds each, 2,997,000 runs"):
        sweep.runs()


def test_values_out_of_their_bounds_are_refused_before_any_run():
    with pytest.raises(ConfigurationError, match=r"network\.dropout = 7"):
        Sweep("digits-fc", ("opzo",), {"dropout": (0.1, 7)}).runs()
    with pytest.raises(ConfigurationError, match="lr has a range, from which only a search"):
        Sweep("digits-fc", ("opzo",), {"lr": Range(0.1, 0.2)}).runs()
