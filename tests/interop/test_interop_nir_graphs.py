"""Networks with branches and recurrence as NIR graphs; what other libraries make of them."""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from threefactor import clocked
from threefactor.errors import InputError

nir = pytest.importorskip("nir")
from threefactor.interop.nir import DIALECTS, GraphNetwork, from_nir, to_nir  # noqa: E402

STEPS, BATCH = 25, 6


def lively(network: nn.Module, gain: float = 3.0) -> nn.Module:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.5)
            elif not name.endswith("gain"):
                parameter.mul_(gain)
    return network.eval()


def lif(**options: Any) -> clocked.LIF:
    return clocked.LIF(0.6, reset="zero", **options)


class Skips(nn.Module):
    """Two branches of currents, and spikes that skip a layer on their way to the read-out."""

    input_shape = (12,)

    def __init__(self, scale: float = 1.0, share: float = 1.0, around: bool = True) -> None:
        super().__init__()
        self.share, self.around = share, around
        self.first, self.lif1 = nn.Linear(12, 10), lif(scale=scale)
        self.left, self.right = nn.Linear(10, 10), clocked.Linear(10, 10, bias=False)
        self.lif2, self.readout = lif(scale=scale), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lif1(self.first(x))
        g = self.lif2(self.left(h) - self.share * self.right(h))
        return self.readout(self.share * g + h if self.around else -(g * -1.0))


class IntoNeurons(nn.Module):
    """Spikes of one layer that reach the neurons of the next without weights."""

    input_shape = (12,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif1, self.second = nn.Linear(12, 10), lif(), nn.Linear(10, 10)
        self.lif2, self.readout = lif(), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lif1(self.first(x))
        return self.readout(self.lif2(self.second(h) + h))


def recurrent(**options: Any) -> clocked.Network:
    return clocked.fc(12, (10, 9), 4, recurrent=[True, False], leak=0.6, reset="zero", **options)


def recurrent_pictures() -> clocked.Network:
    layers: dict[str, nn.Module] = {
        "conv": clocked.Conv2d(1, 3, 3, padding=1),
        "lif": clocked.Recurrent(lif(scale=1.5), nn.Conv2d(3, 3, 3, padding=1)),
        "readout": clocked.Linear(3 * 9, 4, pool=2),
    }
    return clocked.Network(OrderedDict(layers), (1, 6, 6))


def residual() -> clocked.Network:
    block = {"leak": 0.6, "reset": "zero", "scale": 1.7}
    layers: dict[str, nn.Module] = {
        "stem": clocked.Conv2d(1, 2, 3, standardise=True),
        "one": clocked.ResidualBlock(2, 4, 2, 1.0, **block),  # type: ignore[arg-type]
        "two": clocked.ResidualBlock(4, 4, 1, 1.02, **block),  # type: ignore[arg-type]
        "pool": nn.AdaptiveAvgPool2d(1),
        "readout": clocked.Linear(4, 3),
    }
    network = clocked.Network(OrderedDict(layers), (1, 7, 7))
    for name in ("one", "two"):
        nn.init.constant_(network.get_submodule(name).gain, 0.8)
    return network


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "branches": lambda: Skips(around=False),
    "skips": Skips,
    "skips, scaled": lambda: Skips(scale=1.7),
    "skips, shares": lambda: Skips(share=0.4),
    "into neurons": IntoNeurons,
    "recurrent": recurrent,
    "recurrent, scaled": lambda: recurrent(scale=1.7),
    "recurrent pictures": recurrent_pictures,
    "residual": residual,
}


def made(which: str) -> Any:
    torch.manual_seed(1)
    return lively(BUILDS[which]())


def inputs_of(network: Any) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((STEPS, BATCH, *network.input_shape), generator=generator)


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    clocked.reset_state(network)
    with torch.no_grad():
        found = torch.stack([network(frame) for frame in x])
    clocked.reset_state(network)
    return found


def rates(network: nn.Module, x: Tensor) -> list[float]:
    return [float(rate) for rate in clocked.run(network, x).firing_rates.values()]


def passed(module: nn.Module, x: Tensor) -> Tensor:
    """Run an imported model whose state goes in and out."""
    found, state = [], None
    with torch.no_grad():
        for frame in x:
            output, state = module(frame, state)
            found.append(output)
    return torch.stack(found)


REFUSED = {
    # without Scale nodes, these have nowhere to put a factor
    ("skips, shares", "snntorch"): "reads no Scale",
    ("skips, shares", "spikingjelly"): "reads no Scale",
    ("residual", "snntorch"): "that feed it alone, and snntorch reads no Scale",
    ("residual", "spikingjelly"): "that feed it alone, and spikingjelly reads no Scale",
    **{
        (which, "norse"): "network with branches; norse runs such a graph"
        for which in BUILDS
        if "recurrent" not in which
    },
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("which", BUILDS)
def test_what_comes_back_spikes_the_same(which: str, dialect: str, tmp_path: Path) -> None:
    network = made(which)
    x = inputs_of(network)
    if (which, dialect) in REFUSED:
        with pytest.raises(InputError, match=REFUSED[which, dialect]):
            to_nir(network, dialect=dialect)
        return
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = tmp_path / "network.nir"
    nir.write(path, to_nir(network, dialect=dialect))
    back = from_nir(path, dialect=dialect)
    expected = outputs(network, x)
    assert all(0.02 < rate < 1.8 for rate in rates(network, x)) and expected.std() > 0.1
    torch.testing.assert_close(outputs(back, x), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    again = from_nir(to_nir(back, dialect=dialect), dialect=dialect)
    torch.testing.assert_close(outputs(again, x), expected, rtol=1e-4, atol=1e-4)


def test_what_kind_of_network_comes_back() -> None:
    branched, looped = (from_nir(to_nir(made(which))) for which in ("skips", "recurrent"))
    assert isinstance(branched, GraphNetwork) and isinstance(looped, clocked.Network)
    assert branched.sources["lif2"] == ("left", "right")
    assert set(branched.sources["readout"]) == {"lif1", "lif2"}
    assert isinstance(looped.lif1, clocked.Recurrent)
    assert "left + right -> lif2" in repr(branched)
    assert list(looped.state_dict()) == list(recurrent().state_dict())


@pytest.mark.parametrize("which", ["skips", "recurrent", "into neurons"])
def test_what_comes_back_learns_the_same(which: str) -> None:
    network = made(which)
    back = from_nir(to_nir(network))
    x, labels = inputs_of(network), torch.arange(BATCH) % 4
    options = {} if which == "recurrent" else {"input_shape": (12,)}
    for one in (network, back):
        one.zero_grad()
        clocked.SpatialBP(one, **options).step(x, labels)
    found = {tuple(p.shape): p.grad for p in back.parameters()}
    compared = [p for p in network.parameters() if p.dim() == 2 and p.shape != (10, 10)]
    assert len(compared) >= 2
    for parameter in compared:
        torch.testing.assert_close(found[tuple(parameter.shape)], parameter.grad)


@pytest.mark.parametrize(
    "which",
    ["branches", "skips", "into neurons", "recurrent", "recurrent, scaled", "recurrent pictures"],
)
def test_spikingjelly_spikes_identically(which: str) -> None:
    pytest.importorskip("spikingjelly")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    network = made(which)
    x = inputs_of(network)
    model = exchange.import_from_nir(to_nir(network, dialect="spikingjelly"))
    torch.testing.assert_close(passed(model, x), outputs(network, x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:nirtorch.load is being deprecated")
@pytest.mark.parametrize("which", ["recurrent", "recurrent, scaled", "recurrent pictures"])
def test_norse_spikes_identically(which: str) -> None:
    norse = pytest.importorskip("norse.torch")
    network = made(which)
    x = inputs_of(network)
    model = norse.from_nir(to_nir(network, dialect="norse"), dt=1e-4)
    torch.testing.assert_close(passed(model, x), outputs(network, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "which", ["branches", "skips", "recurrent", "recurrent, scaled", "recurrent pictures"]
)
def test_snntorch_spikes_identically(which: str) -> None:
    pytest.importorskip("snntorch")
    snn = pytest.importorskip("snntorch.import_nir")
    network = made(which)
    x = inputs_of(network)
    model = snn.import_from_nir(to_nir(network, dialect="snntorch"))
    torch.testing.assert_close(passed(model, x), outputs(network, x), rtol=1e-4, atol=1e-4)


def by_hand(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([network(frame) for frame in x])


def test_a_recurrent_network_that_snntorch_wrote() -> None:
    snn = pytest.importorskip("snntorch")
    export = pytest.importorskip("snntorch.export_nir")
    torch.manual_seed(0)
    options = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    network = nn.Sequential(
        nn.Linear(12, 9),
        snn.RLeaky(0.6, linear_features=9, all_to_all=True, **options),
        nn.Linear(9, 7),
        snn.Leaky(torch.full((7,), 0.6), threshold=torch.ones(7), **options),
        nn.Linear(7, 3),
    )
    with torch.no_grad():
        network[1].recurrent.weight.mul_(3)
        network[2].weight.abs_().mul_(3)
    graph = export.export_to_nir(network, torch.zeros(12))
    back = from_nir(graph, dialect="snntorch")
    x = 3 * torch.rand(STEPS, BATCH, 12)
    expected = by_hand(network, x)
    assert min(rates(back, x)) > 0.02
    torch.testing.assert_close(outputs(back, x), expected, rtol=1e-4, atol=1e-4)


def test_a_branched_network_that_spikingjelly_wrote() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    torch.manual_seed(0)
    network = IntoNeurons()
    network.lif1, network.lif2 = neuron.LIFNode(2.5), neuron.IFNode()  # type: ignore[assignment]
    lively(network, 2.0)
    graph = exchange.export_to_nir(network, torch.zeros(1, 12))
    back = from_nir(graph, dialect="spikingjelly")
    x = 3 * torch.rand(STEPS, BATCH, 12)
    assert min(rates(back, x)) > 0.02
    torch.testing.assert_close(outputs(back, x), by_hand(network, x), rtol=1e-4, atol=1e-4)


def test_a_network_that_norse_wrote() -> None:
    """Norse writes dt times its time constants: read with dt squared, they are what they were."""
    norse = pytest.importorskip("norse.torch")
    torch.manual_seed(0)
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=torch.full((9,), 400.0), v_th=torch.ones(9), v_leak=torch.zeros(9)
    )
    cell = norse.LIFBoxCell(parameters, dt=1e-3)
    iaf = norse.IAFCell(norse.IAFParameters(v_th=torch.ones(7)))
    network = norse.SequentialState(nn.Linear(12, 9), cell, nn.Linear(9, 7), iaf, nn.Linear(7, 3))
    graph = norse.to_nir(network, torch.zeros(12), dt=1e-3)
    back = from_nir(graph, dialect="norse", dt=1e-6)
    x = 9 * torch.rand(STEPS, BATCH, 12)
    assert min(rates(back, x)) > 0.02
    torch.testing.assert_close(outputs(back, x), passed(network, x), rtol=1e-4, atol=1e-4)


def weights(n: int, m: int) -> Any:
    return nir.Affine(np.eye(n, m, dtype=np.float32), np.zeros(n, np.float32))


def neurons(n: int, r: float = 2.0) -> Any:
    values = {"tau": 2e-4, "r": r, "v_leak": 0.0, "v_threshold": 0.7, "v_reset": 0.0}
    return nir.LIF(**{name: np.full(n, value) for name, value in values.items()})


def graph(nodes: dict[str, Any], wires: list[tuple[str, str]], n: int = 3, m: int = 3) -> Any:
    ends = {"in": nir.Input(np.array([n])), "out": nir.Output(np.array([m]))}
    return nir.NIRGraph({**ends, **nodes}, wires, type_check=False)


def test_graphs_within_graphs_are_opened() -> None:
    """Two levels; one of the inner graphs only hands on what it gets."""
    plain = graph({}, [("in", "out")])
    inner = graph(
        {"lif.1": neurons(3), "g": plain}, [("in", "lif.1"), ("lif.1", "g"), ("g", "out")]
    )
    whole = graph(
        {"a": weights(3, 3), "g": inner, "b": weights(3, 3)},
        [("in", "a"), ("a", "g"), ("g", "b"), ("b", "out")],
    )
    network = from_nir(whole)
    assert [name for name, _ in network.named_children()] == ["a", "g_lif_1", "b"]
    x = torch.tensor([[0.5, 0.6, 0.8]])
    assert network(x).tolist() == [[0.0, 0.0, 1.0]] and network(x).tolist() == [[1.0, 1.0, 1.0]]


def test_names_that_fall_together_stay_apart() -> None:
    nodes = {"a.b": weights(3, 3), "a_b": neurons(3), "forward": weights(3, 3), "": weights(3, 3)}
    names = ["in", *nodes, "out"]
    network = from_nir(graph(nodes, list(itertools.pairwise(names))))
    assert [name for name, _ in network.named_children()] == ["a_b", "a_b_", "forward_", "node"]
    assert network(torch.ones(1, 3)).tolist() == [[1.0, 1.0, 1.0]]


def test_a_resistance_reaches_all_that_a_neuron_gets() -> None:
    """A quarter of the current: of two synapses, of recurrent weights, of what has no weights."""
    nodes = {
        "a": weights(3, 3), "b": weights(3, 3), "lif": neurons(3, r=0.5), "w": weights(3, 3),
        "c": weights(3, 3),
    }  # fmt: skip
    wires = [("in", "a"), ("in", "b"), ("a", "lif"), ("b", "lif"), ("lif", "c"), ("c", "out")]
    x = torch.tensor([[1.3, 1.5, 2.9]])
    for more in ([], [("lif", "w"), ("w", "lif")]):
        network = from_nir(graph({k: nodes[k] for k in nodes if k != "w" or more}, wires + more))
        potential = spikes = torch.zeros(1, 3)
        for _ in range(9):
            back = spikes if more else 0.0
            potential = 0.5 * potential * (1 - spikes) + 0.25 * (2 * x + back)
            spikes = (potential > 0.7).float()
            assert torch.equal(network(x), spikes)
    direct = from_nir(
        graph({"lif": neurons(3, r=0.5), "c": weights(3, 3)},
              [("in", "lif"), ("lif", "c"), ("c", "out")])
    )  # fmt: skip
    assert direct(torch.tensor([[2.7, 2.9, -1.0]])).tolist() == [[0.0, 1.0, 0.0]]


def test_scaled_branches_and_pooled_branches() -> None:
    """Each branch keeps what is its own: a factor, a pooling, a flattening."""
    generator = np.random.default_rng(0)
    kernel, far = np.array([0.6, 0.9]).reshape(2, 1, 1, 1), generator.normal(size=(3, 8))
    two = {"kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.zeros(2, int)}
    nodes = {
        "conv": nir.Conv2d((4, 4), kernel, 1, 0, 1, 1, np.zeros(2)),
        "lif": nir.LIF(**{k: np.full((2, 4, 4), v) for k, v in
                          {"tau": 2e-4, "r": 2.0, "v_leak": 0.0, "v_threshold": 0.5,
                           "v_reset": 0.0}.items()}),
        "pool": nir.SumPool2d(**two),
        "flat": nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
        "half": nir.Scale(np.full(8, 0.5)),
        "one": nir.Linear(far),
        "other": nir.Linear(2 * far),
        "mean": nir.Scale(np.full(3, -3.0)),
    }  # fmt: skip
    wires = [
        *itertools.pairwise(("in", "conv", "lif", "pool", "flat", "half", "one", "mean", "out")),
        *itertools.pairwise(("flat", "other", "out")),
    ]
    ends = {"in": nir.Input(np.array([1, 4, 4])), "out": nir.Output(np.array([3]))}
    network = from_nir(nir.NIRGraph({**ends, **nodes}, wires, type_check=False))
    x = torch.rand(5, 1, 4, 4, dtype=torch.float64) * 2
    spikes = (torch.nn.functional.conv2d(x, torch.from_numpy(kernel)) > 0.5).double()
    pooled = 4 * torch.nn.functional.avg_pool2d(spikes, 2).flatten(1)
    expected = (-1.5 + 2) * pooled @ torch.from_numpy(far).T
    assert 0.1 < spikes.mean() < 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(network(x), expected)


def test_a_network_of_a_graph_refuses_wires_that_lead_nowhere() -> None:
    layer = nn.Linear(3, 3)
    with pytest.raises(InputError, match=r"'a' gets its input from \['b'\]"):
        GraphNetwork({"a": layer}, {"a": ("b",)}, ("a",), (3,))
    with pytest.raises(InputError, match=r"the output is \['b'\]"):
        GraphNetwork({"a": layer}, {"a": ("",)}, ("b",), (3,))


def test_the_soft_reset_of_a_recurrent_network_is_measured() -> None:
    torch.manual_seed(1)
    network = lively(clocked.fc(12, (10,), 4, recurrent=True))
    with pytest.raises(InputError, match="a spike of lif1 takes the threshold off"):
        to_nir(network)
    with pytest.warns(UserWarning, match="spikes came or went"):
        graph = to_nir(network, approximate=True, inputs=inputs_of(network))
    assert graph.metadata["spikes_that_differ"] > 0.01


def test_recurrent_layers_that_have_no_nodes() -> None:
    for neuron, synapse in (
        (OwnLIF(reset="zero"), nn.Linear(9, 9)),
        (lif(), nn.Sequential(nn.Linear(9, 5), nn.Linear(5, 9))),
    ):
        layers = {"a": nn.Linear(4, 9), "b": clocked.Recurrent(neuron, synapse)}
        with pytest.raises(InputError, match=r"(?s)recurrent layer 'b' has .*one linear"):
            to_nir(clocked.Network(OrderedDict(layers), (4,)))


def test_the_bias_of_a_recurrent_synapse_is_one_of_the_weights_before() -> None:
    """Of weights without a bias, too; and refused where there are none."""
    torch.manual_seed(2)
    layers = {"a": nn.Linear(4, 9, bias=False), "b": clocked.Recurrent(lif(), nn.Linear(9, 9)),
              "c": nn.Linear(9, 2)}  # fmt: skip
    network = lively(clocked.Network(OrderedDict(layers), (4,)))
    graph = to_nir(network)
    assert isinstance(graph.nodes["a"], nir.Affine)
    assert isinstance(graph.nodes["b_synapse"], nir.Linear)
    x = inputs_of(network)
    torch.testing.assert_close(outputs(from_nir(graph), x), outputs(network, x))
    bare = {"b": clocked.Recurrent(lif(), nn.Linear(9, 9)), "c": nn.Linear(9, 2)}
    with pytest.raises(InputError, match=r"'b' has a bias, which readers leave out.*bias=False"):
        to_nir(clocked.Network(OrderedDict(bare), (9,)))


class OwnLIF(clocked.LIF):
    pass
