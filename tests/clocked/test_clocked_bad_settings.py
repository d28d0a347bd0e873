"""Bad settings, networks that no rule can train, rules of one's own that err, DKP's warning."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.clocked_cases import build, make_data, make_network
from torch import Tensor, nn

from threefactor import clocked
from threefactor.errors import ConfigurationError, InputError

NAN = float("nan")


def zo(**options: Any) -> clocked.ZO:
    return clocked.ZO(make_network(), **options)


def opzo(**options: Any) -> clocked.OPZO:
    return clocked.OPZO(make_network(), **options)


def row(*layers: nn.Module, shape: tuple[int, ...] = (7,)) -> clocked.Network:
    return clocked.Network(OrderedDict((f"layer{i}", m) for i, m in enumerate(layers)), shape)


class Twice(nn.Module):
    """Uses its synapse, or its neurons, twice in one time step."""

    input_shape = (7,)

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.first, self.again = clocked.Linear(7, 7), clocked.Linear(7, 7)
        self.lif, self.lif_again = clocked.LIF(), clocked.LIF()

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif(self.first(x))
        again = self.first if self.what == "synapse" else self.again
        lif = self.lif if self.what == "neurons" else self.lif_again
        return lif(again(x))


LINEAR, LIF = clocked.Linear, clocked.LIF


class OwnLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x).abs()


BAD_INPUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "noise scale 0": (lambda: zo(noise_scale=0.0), r"noise scale is 0.0 .*above 0"),
    "noise scale -1": (lambda: opzo(noise_scale=-1.0), r"noise scale is -1.0 .*above 0"),
    "noise scale NaN": (lambda: opzo(noise_scale=NAN), r"noise scale is nan .*above 0"),
    "noise scale inf": (lambda: zo(noise_scale=float("inf")), r"noise scale is inf"),
    "schedule from 0": (lambda: zo(noise_scale=lambda p: p), r"noise scale is 0.0 .*progress 0"),
    "noise lost beside spikes": (
        lambda: clocked.ZO(make_network(dtype=torch.float32), noise_scale=1e-8),
        r"noise scale is 1e-08 at training progress 0.0; .*float32, noise below 1e-07 is lost",
    ),
    "schedule that gets lost": (
        lambda: opzo(noise_scale=lambda p: 0.2 * (1 - p) + 1e-17),
        r"noise scale is 1e-17 at training progress 1.0; .*float64",
    ),
    "momentum as text": (lambda: opzo(momentum="0.9"), r"momentum is '0.9', a str; give a number"),
    "momentum True": (lambda: opzo(momentum=True), r"momentum is True, a bool; give a number"),
    "progress as text": (lambda: opzo().set_progress("0.5"), r"progress is '0.5', a str"),
    "pairs as text": (lambda: zo(antithetic="no"), r"antithetic is 'no'; give True or False"),
    "divided as text": (lambda: opzo(divide_by_scale="no"), r"divide_by_scale is 'no'; give True"),
    "learning leak as text": (lambda: LIF(learn_leak="no"), r"learn_leak is 'no'; give True"),
    "standardised as text": (
        lambda: clocked.Conv2d(1, 2, 3, standardise="no"),
        r"standardise is 'no'; give True or False",
    ),
    "feedback scale as text": (
        lambda: clocked.DFA(make_network(), feedback_scale="1"),
        r"feedback_scale is '1', a str; give a number",
    ),
    "feedback scale infinite": (
        lambda: clocked.DFA(make_network(), feedback_scale=float("inf")),
        r"feedback_scale is inf; give a number above 0",
    ),
    "local scale True": (
        lambda: clocked.DFA(make_network(), local_learning="fixed", local_scale=True),
        r"local_scale is True, a bool; give a number",
    ),
    "share of squares as text": (lambda: clocked.CrossEntropyMSE("0"), r"mse_weight is '0', a str"),
    "momentum 1": (lambda: opzo(momentum=1.0), r"momentum is 1.0; .*at least 0 and below 1"),
    "momentum -0.1": (lambda: opzo(momentum=-0.1), r"momentum is -0.1; .*below 1"),
    "momentum NaN": (lambda: opzo(momentum=NAN), r"momentum is nan"),
    "feedback scale 0": (
        lambda: clocked.DFA(make_network(), feedback_scale=0.0),
        r"feedback_scale is 0.0; .*above 0",
    ),
    "feedback scale -1": (
        lambda: clocked.DKP(make_network(), feedback_scale=-1.0),
        r"feedback_scale is -1.0; .*above 0",
    ),
    "trace decay 1.5": (
        lambda: clocked.DFA(make_network(), trace_decay=1.5),
        r"trace_decay is 1.5; .*between 0 and 1",
    ),
    "untraced text": (
        lambda: clocked.DFA(make_network(), untraced="linear1"),
        r"untraced is 'linear1'; give a list of names",
    ),
    "dropout 1": (lambda: LIF(dropout=1.0), r"dropout is 1.0; .*below 1"),
    "dropout -0.1": (lambda: clocked.fc(7, (6,), 3, dropout=-0.1), r"dropout is -0.1"),
    "leak 1.5": (lambda: clocked.fc(7, (6,), 3, leak=1.5), r"leak is 1.5; .*0 to 1"),
    "reset soft": (lambda: LIF(reset="soft"), r"reset is 'soft'; give 'subtract' .* or 'zero'"),
    "leak NaN": (lambda: LIF(leak=NAN), r"leak is nan; .*0 to 1"),
    "threshold 0": (lambda: LIF(threshold=0.0), r"threshold is 0.0; .*above 0"),
    "width 0": (lambda: LIF(surrogate_width=0.0), r"surrogate_width is 0.0; .*above 0"),
    "activity scale 0": (lambda: LIF(scale=0.0), r"scale is 0.0; .*above 0"),
    "no inputs": (lambda: clocked.fc(0, (6,), 3), r"sizes are \[0, 6, 3\].*at least 1"),
    "layer of 0": (lambda: clocked.fc(7, (6, 0), 3), r"sizes are \[7, 6, 0, 3\].*at least 1"),
    "layer of True": (lambda: clocked.fc(7, (True,), 3), r"True.*whole number"),
    "layer of 2.5": (lambda: clocked.fc(7, (2.5,), 3), r"2\.5.*whole number"),
    "negative outputs": (lambda: clocked.fc(7, (6,), -3), r"-3.*at least 1"),
    "linear layer with a forward pass of its own": (
        lambda: clocked.DFA(row(LINEAR(7, 6), LIF(), OwnLinear(6, 3))),
        r"layer 'layer2' .*OwnLinear keeps no presynaptic trace.*Write a clocked\.Synapse",
    ),
    "product of two inputs": (
        lambda: clocked.DFA(row(LINEAR(7, 6), LIF(), nn.Bilinear(6, 6, 3))),
        r"layer 'layer2' .*Bilinear keeps no presynaptic trace",
    ),
    "recurrent layer of PyTorch's": (
        lambda: clocked.run(row(nn.LSTM(7, 7)), torch.zeros(1, 7), steps=2),
        r"layer 'layer0' .*LSTM keeps no presynaptic trace",
    ),
    "no parameters": (lambda: clocked.DFA(row(LIF())), r"no parameters"),
    "no input_shape": (
        lambda: clocked.DFA(nn.Sequential(LINEAR(7, 6), LIF(), LINEAR(6, 3))),
        r"no attribute input_shape; give input_shape=",
    ),
    "wrong input_shape": (
        lambda: clocked.DFA(row(LINEAR(7, 6), LIF(), LINEAR(6, 3), shape=(8,))),
        r"does not run on one sample of shape \(8,\)",
    ),
    "output not (batch, m)": (
        lambda: clocked.DFA(row(LINEAR(7, 6), nn.Unflatten(1, (2, 3)))),
        r"network returned \(1, 2, 3\); expected a \(batch, outputs\)",
    ),
    "synapse used twice": (
        lambda: clocked.DFA(Twice("synapse")),
        r"Linear.* used twice in one time step.*a layer of its own",
    ),
    "neurons used twice": (
        lambda: clocked.DFA(Twice("neurons")),
        r"'lif' is used twice in one time step.*a layer of its own",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_setting(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


UNKNOWN = {
    "distribution in a list": (
        lambda: zo(noise_distribution=["gaussian"]),
        r"unknown noise distribution \['gaussian'\].*Known: gaussian",
    ),
    "distribution": (
        lambda: zo(noise_distribution="gausian"),
        r"unknown noise distribution 'gausian'; did you mean 'gaussian'\? Known: .*sphere",
    ),
    "position": (
        lambda: opzo(noise_position="behind"),
        r"unknown noise position 'behind'.* Known: after, before",
    ),
    "points of ZO": (
        lambda: zo(points="two-points"),
        r"'two-points'; did you mean 'two-point'\? Known: one-point, one-sided, two-point",
    ),
    "layer without a trace": (
        lambda: clocked.DFA(make_network(), untraced=["lif1"]),
        r"unknown synapse layer in untraced: 'lif1'; .* Known: linear1, linear2, readout",
    ),
    "points of OPZO": (
        lambda: opzo(points="one-sided"),
        r"'one-sided'.* Known: one-point, two-point",
    ),
}


@pytest.mark.parametrize(("make", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("what", ["synapse", "neurons"])
def test_network_of_a_refused_rule_is_left_at_rest(what: str) -> None:
    network = Twice(what)
    with pytest.raises(InputError, match="used twice"):
        clocked.DFA(network)
    assert network.training
    for layer in network.modules():
        assert all(getattr(layer, kind, None) is None for kind in ("state", "probe", "pathway"))
    network(torch.zeros(2, 7))  # used on its own, it is a plain module


def test_given_input_shape() -> None:
    network = nn.Sequential(LINEAR(7, 6), LIF(), LINEAR(6, 3)).double()
    rule = clocked.DFA(network, input_shape=(7,))
    assert rule.layer_sizes == {"1": 6} and rule.outputs == 3
    rule.step(*make_data())
    assert network[0].weight.grad.abs().max() > 0


def test_input_that_does_not_fit_a_network_of_ones_own() -> None:
    """The rule knows the input's shape, whatever module the network is."""
    network = nn.Sequential(LINEAR(7, 6), LIF(), LINEAR(6, 3)).double()
    rule = clocked.DFA(network, input_shape=(7,))
    x, y = make_data()
    with pytest.raises(InputError, match=r"\(4, 5\)"):
        rule.step(x[..., :5], y)


OWN_ERRORS: dict[str, tuple[Callable[[Tensor], list[Tensor]], str]] = {
    "too few": (lambda e: [e.new_zeros(4, 6)], r"gave 1 errors; expected one .* 2 hidden layers"),
    "too many": (lambda e: [e.new_zeros(4, 6)] * 3, r"gave 3 errors; expected one .* 2 hidden"),
    "none": (lambda e: [], r"gave 0 errors; expected one .* 2 hidden"),
    "wrong size": (
        lambda e: [e.new_zeros(4, 6), e.new_zeros(4, 6)],
        r"shape \(4, 6\) for hidden layer 'lif2', whose activity has shape \(4, 5\)",
    ),
    "transposed": (
        lambda e: [e.new_zeros(6, 4), e.new_zeros(4, 5)],
        r"shape \(6, 4\) for hidden layer 'lif1', whose activity has shape \(4, 6\)",
    ),
}


@pytest.mark.parametrize(("give", "message"), OWN_ERRORS.values(), ids=OWN_ERRORS)
def test_own_rule_that_errs(give: Callable[[Tensor], list[Tensor]], message: str) -> None:
    class Own(clocked.Rule):
        def layer_errors(self, step: clocked.TimeStep) -> list[Tensor]:
            return give(step.error)

    network = make_network()
    rule = Own(network)
    with pytest.raises(InputError, match=message):
        rule.step(*make_data())
    for layer in network.modules():
        assert all(getattr(layer, kind, None) is None for kind in ("state", "probe", "pathway"))
    assert all(p.grad is None for p in network.parameters())


def train_dkp(trained: str, rounds: int, accumulate: int = 1) -> list[warnings.WarningMessage]:
    network, rule = build("dkp")
    parameters = [*network.parameters()] + ([*rule.parameters()] if trained == "both" else [])
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(rounds):
            optimizer.zero_grad()
            for _ in range(accumulate):
                rule.step(*make_data())
            optimizer.step()
    return [w for w in caught if "DKP" in str(w.message)]


def test_dkp_warns_once_when_its_feedback_is_not_trained() -> None:
    caught = train_dkp("network", 4)
    assert len(caught) == 1, f"{len(caught)} warnings; documented: once"
    assert issubclass(caught[0].category, UserWarning) and caught[0].filename == __file__
    assert "rule.parameters() to the optimiser" in str(caught[0].message)


@pytest.mark.parametrize("options", [{"local_learning": "same-weights"}, {"intermediate": "lif2"}])
def test_read_outs_of_hidden_layers_that_are_not_trained_are_told_of(options: Any) -> None:
    for trained in (False, True):
        network = clocked.fc(4, (6, 5), 3)
        rule = clocked.OPZO(network, **options)
        given = [*network.parameters(), *(rule.parameters() if trained else ())]
        optimizer = torch.optim.SGD(given, lr=0.1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(3):
                rule.step(torch.rand(2, 4), torch.tensor([0, 2]), steps=3)
                optimizer.step()
        assert [str(w.message) for w in told if "rule.parameters()" in str(w.message)] == (
            [] if trained else [str(told[0].message)]
        )
        assert trained or "OPZO's read-out of a hidden layer" in str(told[0].message)


def test_dkp_does_not_warn_when_its_feedback_is_trained() -> None:
    assert not train_dkp("both", 4)


def test_dkp_does_not_warn_of_accumulated_gradients() -> None:
    """Gradients add up over steps, so an optimiser step every second batch is sound."""
    assert not train_dkp("both", 3, accumulate=2)
