"""Networks as NIR graphs: what comes back, what other libraries make of them, what is refused."""

from __future__ import annotations

import copy
import itertools
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from threefactor import clocked, events
from threefactor.errors import ConfigurationError, DataError, InputError

nir = pytest.importorskip("nir")
from threefactor.interop.nir import DIALECTS, from_nir, to_nir  # noqa: E402

BATCH, STEPS = 8, 30
Build = Callable[..., clocked.Network]


def lively(network: clocked.Network, gain: float = 3.0) -> clocked.Network:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.5)
            elif not name.endswith("gain"):
                parameter.mul_(gain)
    return network


def dense(**neuron: Any) -> clocked.Network:
    torch.manual_seed(0)
    return lively(clocked.fc(12, (30, 25), 5, reset="zero", **neuron))


def pictures(**neuron: Any) -> clocked.Network:
    """Standardised convolutions, pooling in front of a convolution and of the read-out."""
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "conv1": clocked.Conv2d(2, 6, 3, padding=1, standardise=True),
        "lif1": clocked.LIF(reset="zero", scale=1.7, **neuron),
        "conv2": clocked.Conv2d(6, 8, 3, stride=2, padding=1, pool=2),
        "lif2": clocked.LIF(reset="zero", scale=1.7, **neuron),
        "readout": clocked.Linear(8, 4, pool=2),
    }
    return lively(clocked.Network(OrderedDict(layers), (2, 9, 9)))


NETWORKS: dict[str, Build] = {"dense": dense, "pictures": pictures}
every_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
every_leak = pytest.mark.parametrize("leak", [0.0, 0.5, 0.9, 1.0])


def inputs_of(network: clocked.Network, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((STEPS, BATCH, *network.input_shape), generator=generator).to(dtype)


def recorded(network: nn.Module, names: list[str], step: Callable[[], object]) -> list[Tensor]:
    """Call `step` STEPS times; return what the named layers gave, stacked over time."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            found[name].append((made[0] if isinstance(made, tuple) else made).detach().clone())

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        for _ in range(STEPS):
            step()
    for hook in hooks:
        hook.remove()
    return [torch.stack(found[name]) for name in names]


def layers_of(network: clocked.Network) -> list[str]:
    return [n for n, m in network.named_children() if isinstance(m, clocked.LIF)] + ["readout"]


def ours(network: clocked.Network, x: Tensor) -> list[Tensor]:
    frames = iter(x)
    network.eval().reset()
    found = recorded(network, layers_of(network), lambda: network(next(frames)))
    network.reset()
    for name, activity in zip(layers_of(network)[:-1], found, strict=False):
        assert 0.02 < float((activity != 0).float().mean()) < 0.9, name
    return found


def potentials(network: clocked.Network, x: Tensor) -> list[Tensor]:
    """Of every hidden layer, stacked over time."""
    found: dict[str, list[Tensor]] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda layer, given, made, name=name: found.setdefault(name, []).append(
                layer.state[0].clone()
            )
        )
        for name in layers_of(network)[:-1]
    ]
    ours(network, x)
    for hook in hooks:
        hook.remove()
    return [torch.stack(steps) for steps in found.values()]


def compare(network: clocked.Network, x: Tensor, theirs: list[Tensor]) -> None:
    """The same spikes and read-out, up to rounding.

    In one sample at most, a potential may lie so near the threshold that rounding decides; what
    comes after it in this sample may differ.
    """
    *spikes, output = ours(network, x)
    differ = [(a != 0) != (b != 0) for a, b in zip(spikes, theirs, strict=False)]
    odd = sorted({int(b) for layer in differ for b in layer.nonzero()[:, 1]})
    assert len(odd) <= 1
    for b in odd:
        t = min(int(layer[:, b].nonzero()[0, 0]) for layer in differ if layer[:, b].any())
        first = next(i for i, layer in enumerate(differ) if layer[t, b].any())
        there = potentials(network, x)[first][t, b][differ[first][t, b]]
        assert (there - network.lif1.threshold).abs().max() < 1e-5
    rest = [b for b in range(BATCH) if b not in odd]
    expected = output[:, rest]
    torch.testing.assert_close(theirs[-1][:, rest].to(output), expected, rtol=1e-4, atol=1e-4)


@every_network
@pytest.mark.parametrize(
    ("dialect", "leak"),
    [(d, leak) for d in DIALECTS for leak in (0.0, 0.5, 0.9, 1.0) if leak or d != "spikingjelly"],
)
def test_what_comes_back(build: Build, leak: float, dialect: str, tmp_path: Path) -> None:
    network = build(leak=leak)
    path = tmp_path / "network.nir"
    nir.write(path, to_nir(network, dialect=dialect))
    back = from_nir(path, dialect=dialect)
    assert [m.threshold for m in back if isinstance(m, clocked.LIF)] == [1.0, 1.0]
    assert [m.leak for m in back if isinstance(m, clocked.LIF)] == [leak, leak]
    assert back.input_shape == network.input_shape
    assert [type(m) for m in back] == [type(m) for m in network]
    x = inputs_of(network)
    compare(network, x, ours(back, x))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_graph_is_read_with_the_time_step_that_it_was_written_with(
    dialect: str, tmp_path: Path
) -> None:
    network = clocked.fc(6, (9,), 3, leak=0.6, reset="zero")
    path = tmp_path / "network.nir"
    nir.write(path, to_nir(network, dialect=dialect, dt=1e-3))
    assert nir.read(path).metadata == {"dt": 1e-3}
    assert from_nir(path, dialect=dialect).lif1.leak == 0.6
    x = inputs_of(network)
    compare(network, x, ours(from_nir(path, dialect=dialect), x))
    # Another one may be wanted: a tenth of the step forgets a tenth as much.
    assert from_nir(path, dialect=dialect, dt=1e-4).lif1.leak == pytest.approx(0.96)
    graph = nir.read(path)
    graph.metadata["dt"] = "1 ms"
    with pytest.raises(InputError, match="dt is '1 ms'; give the time step in seconds"):
        from_nir(graph, dialect=dialect)


@every_network
def test_double_precision_comes_back(build: Build) -> None:
    network = build(leak=0.7, threshold=0.3).double()
    back = from_nir(to_nir(network))
    x = inputs_of(network, torch.float64)
    compare(network, x, ours(back, x))
    assert back.lif1.threshold == 0.3
    a, b = (clocked.run(net, x).output for net in (network, back))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def stepped(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """Run an imported model whose state goes in and out."""
    frames, state = iter(x), [None]

    def step() -> None:
        _, state[0] = module(next(frames), state[0])

    return step


@every_leak
@every_network
def test_snntorch_spikes_identically(build: Build, leak: float) -> None:
    pytest.importorskip("snntorch")
    snn = pytest.importorskip("snntorch.import_nir")
    network = build(leak=leak)
    x = inputs_of(network)
    model = snn.import_from_nir(to_nir(network, dialect="snntorch"))
    frames = iter(x)
    names = layers_of(network)
    compare(network, x, recorded(model, names, lambda: model(next(frames))))


def test_snntorch_still_reads_if_neurons_as_leaky_ones() -> None:
    """Why the dialect writes LIF neurons of 2^60 steps in their place."""
    pytest.importorskip("snntorch")
    snn = pytest.importorskip("snntorch.import_nir")
    graph = graph_of(a=affine(), b=nir.IF(np.ones(5), np.ones(5)))
    assert float(snn.import_from_nir(graph).b.beta) == pytest.approx(0.9)


@every_leak
@every_network
def test_spikingjelly_spikes_identically(build: Build, leak: float) -> None:
    pytest.importorskip("spikingjelly")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    network = build(leak=leak)
    if leak == 0.0:
        with pytest.raises(InputError, match=r"'lif1' has leak 0.* spikingjelly refuses"):
            to_nir(network, dialect="spikingjelly")
        return
    x = inputs_of(network)
    model = exchange.import_from_nir(to_nir(network, dialect="spikingjelly"))
    compare(network, x, recorded(model, layers_of(network), stepped(model, x)))


@every_leak
@every_network
def test_norse_spikes_identically(build: Build, leak: float) -> None:
    norse = pytest.importorskip("norse.torch")
    network = build(leak=leak)
    x = inputs_of(network)
    model = norse.from_nir(to_nir(network, dialect="norse"), dt=1e-4)
    compare(network, x, recorded(model, layers_of(network), stepped(model, x)))


@pytest.mark.parametrize("dialect", ["snntorch", "norse", "spikingjelly"])
def test_a_potential_at_the_threshold_spikes_everywhere(dialect: str) -> None:
    """Whole numbers as weights and inputs: potentials meet the threshold exactly."""
    torch.manual_seed(0)
    network = clocked.fc(6, (40,), 3, leak=0.5, threshold=2.0, reset="zero")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
    x = torch.randint(-1, 2, (STEPS, BATCH, 6), generator=torch.Generator().manual_seed(1)).float()
    assert (potentials(network, x)[0] == 2.0).float().mean() > 0.02
    graph = to_nir(network, dialect=dialect)
    if dialect == "snntorch":
        pytest.importorskip("snntorch")
        model = pytest.importorskip("snntorch.import_nir").import_from_nir(graph)
        frames = iter(x)
        theirs = recorded(model, layers_of(network), lambda: model(next(frames)))
    elif dialect == "norse":
        model = pytest.importorskip("norse.torch").from_nir(graph, dt=1e-4)
        theirs = recorded(model, layers_of(network), stepped(model, x))
    else:
        exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
        model = exchange.import_from_nir(graph)
        theirs = recorded(model, layers_of(network), stepped(model, x))
    compare(network, x, theirs)


def euler(graph: Any, x: Tensor, dt: float) -> list[Tensor]:
    """NIR's equations of a dense graph, step by step: spikes of its LIF nodes, and read-out."""
    order = ["linear1", "lif1", "linear2", "lif2", "readout"]
    v = dict.fromkeys(order, 0.0)
    found: dict[str, list[Tensor]] = {"lif1": [], "lif2": [], "readout": []}
    for frame in x.double().numpy():
        for name in order:
            node = graph.nodes[name]
            if isinstance(node, nir.Affine):
                frame = frame @ node.weight.T.astype(float) + node.bias
                if name == "readout":
                    found[name].append(torch.from_numpy(frame))
                continue
            u = v[name] + dt / node.tau * (node.v_leak - v[name] + node.r * frame)
            frame = (u > node.v_threshold).astype(float)
            v[name] = np.where(frame == 1.0, node.v_reset, u)
            found[name].append(torch.from_numpy(frame))
    return [torch.stack(steps) for steps in found.values()]


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 1.0])
def test_the_equations_of_nir_give_the_same_spikes(dt: float) -> None:
    network = dense(leak=0.8)
    x = inputs_of(network)
    compare(network, x, euler(to_nir(network, dt=dt), x, dt))
    assert from_nir(to_nir(network, dt=dt), dt=dt).lif1.leak == 0.8


def test_a_whole_network_of_the_library() -> None:
    torch.manual_seed(0)
    network = lively(clocked.conv5((2, 16, 16), 4, width=0.05, reset="zero"), 1.0)
    graph = to_nir(network)
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert kinds.count("AvgPool2d") == 3 and kinds.count("Conv2d") == 4
    assert "Scale" not in kinds  # the scale 2.74 is in the weights
    x = inputs_of(network)
    torch.testing.assert_close(
        clocked.run(from_nir(graph), x).output, clocked.run(network, x).output, rtol=1e-4, atol=1e-3
    )


def test_a_network_that_came_from_nir_learns() -> None:
    network = from_nir(to_nir(pictures()))
    x = inputs_of(network)
    result = clocked.OPZO(network).step(x, torch.arange(BATCH) % 4)
    assert result.loss is not None and network.conv1.weight.grad.abs().max() > 0


def test_layers_of_pytorch_and_computed_weights() -> None:
    """Plain layers, nested rows, dropout, pruned and parametrised weights."""
    torch.manual_seed(0)
    inner = nn.Sequential(
        clocked.Conv2d(1, 4, 3, bias=False), clocked.LIF(reset="zero"), nn.AvgPool2d(2, 1)
    )
    parametrizations.weight_norm(inner[0])
    dense = nn.Linear(36, 6)
    prune.random_unstructured(dense, "weight", 0.5)
    with torch.no_grad():
        inner[0].parametrizations.weight.original0.mul_(4)
    network = nn.Sequential(
        inner, nn.AdaptiveAvgPool2d(3), nn.Dropout(0.5), nn.Flatten(),
        dense, clocked.LIF(0.9, reset="zero"), clocked.Linear(6, 3),
    )  # fmt: skip
    network(torch.zeros(1, 1, 9, 9))  # leaves state
    state = [m.state[0].clone() for m in network.modules() if isinstance(m, clocked.LIF)]
    with pytest.raises(InputError, match=r"pools \(6, 6\) to \(4, 4\)"):
        to_nir(
            nn.Sequential(inner, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)),
            input_shape=(1, 9, 9),
        )
    graph = to_nir(network, input_shape=(1, 9, 9))
    assert network.training
    after = [m.state[0] for m in network.modules() if isinstance(m, clocked.LIF)]
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    assert (graph.nodes["4"].weight == 0).mean() == 0.5
    x = torch.randn(STEPS, BATCH, 1, 9, 9)
    network.eval()
    clocked.reset_state(network)
    with torch.no_grad():
        expected = torch.stack([network(frame) for frame in x])
        back = from_nir(graph)
        assert expected.std() > 0
        torch.testing.assert_close(torch.stack([back(frame) for frame in x]), expected)


def test_a_scale_that_meets_no_weights_is_a_node() -> None:
    layers = {"linear": clocked.Linear(4, 5), "lif": clocked.LIF(scale=2.0, reset="zero")}
    network = lively(clocked.Network(OrderedDict(layers), (4,)))
    graph = to_nir(network)
    assert isinstance(graph.nodes["lif_scale"], nir.Scale)
    assert from_nir(graph).lif.scale == 2.0
    with pytest.raises(InputError, match=r"'output' meets no weights .*reads no Scale"):
        to_nir(network, dialect="norse")


def test_a_soft_reset_is_refused_or_measured() -> None:
    torch.manual_seed(0)
    network = lively(clocked.fc(12, (30, 25), 5, dropout=0.5))
    with pytest.raises(InputError, match=r"lif1, lif2 .* approximate=True and inputs="):
        to_nir(network)
    with pytest.raises(InputError, match="needs inputs="):
        to_nir(network, approximate=True)
    x = inputs_of(network)
    with pytest.warns(UserWarning, match=r"spikes came or went, .*% of the \d+ that there were"):
        graph = to_nir(network, approximate=True, inputs=x)
    assert {m.reset_mode for m in network if isinstance(m, clocked.LIF)} == {"subtract"}
    assert network.training and not network.lif1._forward_hooks
    hard = lively(clocked.fc(12, (30, 25), 5, reset="zero"))
    hard.load_state_dict(network.state_dict())
    a, b = ours(network, x)[:-1], ours(hard, x)[:-1]
    differ = sum(int((i != j).sum()) for i, j in zip(a, b, strict=True))
    assert graph.metadata["spikes_that_differ"] == differ / sum(int(i.sum()) for i in a) > 0.01
    compare(hard, x, ours(from_nir(graph), x))
    # A potential of which nothing stays has nothing to reset.
    assert "spikes_that_differ" not in to_nir(clocked.fc(4, (5,), 3, leak=0.0)).metadata


class Own(nn.Module):
    """A forward pass that NIR cannot express, named by its kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc, self.out = kind, nn.Linear(4, 4), nn.Linear(4, 2)
        self.lif = clocked.LIF(reset="zero")
        self.other = nn.Parameter(torch.ones(2, 4))
        self.before: Any = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.lif(self.fc(x))
        if self.kind == "asks" and h.sum() > 0:
            h = 2 * h
        if self.kind == "function":
            h = torch.sigmoid(h)
        if self.kind == "product":
            h = h * h
        if self.kind == "number":
            h = h + 1.0
        if self.kind == "weights":
            return h @ self.other.t()
        if self.kind == "state":
            given = h if self.before is None else h + self.before
            h, self.before = given, h
        if self.kind == "twice":
            h = self.fc(h)
        if self.kind == "two outputs":
            return self.out(h), h  # type: ignore[return-value]
        return self.out(h)


def own(kind: str) -> Any:
    return to_nir(Own(kind), input_shape=(4,))


class OwnLIF(clocked.LIF):
    pass


def hooked() -> clocked.Network:
    network = dense()
    network.lif1.register_forward_hook(lambda *given: None)
    return network


def patched(kind: type[nn.Linear]) -> nn.Module:
    layer: Any = kind(4, 3)
    layer.forward = lambda x: 2.0 * nn.functional.linear(x, layer.weight, layer.bias)
    return row(layer)


def row(*layers: nn.Module, shape: tuple[int, ...] = (4,)) -> clocked.Network:
    return clocked.Network(OrderedDict((f"a{i}", m) for i, m in enumerate(layers)), shape)


LEAVING: dict[str, tuple[Callable[[], Any], str]] = {
    "asks a value": (lambda: own("asks"), "forward pass cannot be followed: symbolically"),
    "own function": (lambda: own("function"), "forward pass has .*sigmoid.*cannot express"),
    "product": (lambda: own("product"), "forward pass has .*cannot express"),
    "number": (lambda: own("number"), "forward pass has 1.0, which NIR cannot express"),
    "own weights": (lambda: own("weights"), "forward pass has .*cannot express"),
    "own state": (lambda: own("state"), "does more than its layers and sums say"),
    "called twice": (lambda: own("twice"), "'fc' stands in several places"),
    "two outputs": (lambda: own("two outputs"), r"forward pass has \(out, lif\)"),
    "own neuron": (lambda: to_nir(row(OwnLIF(reset="zero"))), "'a0' is a .*OwnLIF"),
    "batch norm": (lambda: to_nir(row(nn.Linear(4, 4), nn.BatchNorm1d(4))), "'a1' .*BatchNorm1d"),
    "hook": (lambda: to_nir(hooked()), "'lif1' has forward hooks"),
    "forward pass of a layer": (lambda: to_nir(patched(clocked.Linear)), "'a0' was replaced on"),
    "forward pass of PyTorch's": (lambda: to_nir(patched(nn.Linear)), "'a0' was replaced on"),
    "no shape": (lambda: to_nir(nn.Sequential(nn.Linear(4, 4))), "give input_shape="),
    "a number as shape": (
        lambda: to_nir(nn.Sequential(nn.Linear(4, 4)), input_shape=4), "input_shape is 4; give"
    ),
    "no module": (lambda: to_nir(4), "the network is a int"),
    "groups": (
        lambda: to_nir(row(clocked.Conv2d(2, 2, 3, groups=2), shape=(2, 5, 5))),
        "'a0' .*in groups",
    ),
    "kernel": (
        lambda: to_nir(row(clocked.Conv2d(2, 2, (1, 3)), shape=(2, 5, 5))), "'a0' .* no square"
    ),
    "circular": (
        lambda: to_nir(row(nn.Conv2d(1, 1, 3, padding_mode="circular"), shape=(1, 5, 5))),
        "'a0' pads with circular",
    ),
    "ceil": (
        lambda: to_nir(row(nn.AvgPool2d(2, ceil_mode=True), shape=(1, 5, 5))), "'a0' .*ceil_mode"
    ),
    "padded": (
        lambda: to_nir(row(nn.AvgPool2d(3, 1, 1), shape=(1, 5, 5))), "'a0' .*with padding"
    ),
    "used twice": (
        lambda: to_nir(row(*[nn.Linear(4, 4)] * 2)), "'a0' stands in several places"
    ),
    "not flattened": (
        lambda: to_nir(row(nn.Linear(4, 4), shape=(3, 4))), r"'a0' has weights for 4 .*Flatten"
    ),
    "half": (lambda: to_nir(dense().half()), "float16; expected float32 or float64"),
    "no weights": (lambda: to_nir(row(clocked.LIF(reset="zero"))), "weights are none"),
    "norse without weights": (
        lambda: to_nir(row(clocked.LIF(reset="zero"), nn.Linear(4, 2)), dialect="norse"),
        "'a0' has no weights before it",
    ),
    "dt": (lambda: to_nir(dense(), dt=0.0), "dt is 0.0; give the time step"),
    "nan": (lambda: to_nir(lively(dense(), float("nan"))), "hold NaN"),
    "another shape": (
        lambda: to_nir(row(nn.Linear(3, 2), clocked.LIF(reset="zero"))),
        r"does not run on samples of its input_shape, \(4,\): mat1",
    ),
    "a leak for each neuron": (
        lambda: to_nir(row(nn.Linear(4, 2), clocked.LIF(torch.tensor([0.2, 0.9]), reset="zero"))),
        "'a1' has a leak for each neuron; only one",
    ),
    "a synaptic current": (
        lambda: to_nir(row(nn.Linear(4, 2), clocked.CubaLIF(reset="zero"))), "CubaLIF.*no NIR node"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEAVING)
def test_what_cannot_leave_is_refused(case: str) -> None:
    make, message = LEAVING[case]
    with pytest.raises(InputError, match=message):
        make()


def test_unknown_dialect_and_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown dialect 'snntroch'.*snntorch"):
        to_nir(dense(), dialect="snntroch")
    with pytest.raises(ConfigurationError, match=r"no dialect 'sinabs'.*spikes several times"):
        to_nir(dense(), dialect="sinabs")
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[nir\]'"):
        to_nir(dense())


def graph_of(**nodes: Any) -> Any:
    """A row from an input of 4 values."""
    all_nodes = {"input": nir.Input(np.array([4])), **nodes, "output": nir.Output(None)}
    names = list(all_nodes)
    edges = list(itertools.pairwise(names))
    return nir.NIRGraph(all_nodes, edges, type_check=False)


def affine(n: int = 5, m: int = 4) -> Any:
    return nir.Affine(np.ones((n, m), np.float32), np.zeros(n, np.float32))


def lif(n: int = 5, **changes: Any) -> Any:
    values = {"tau": 2e-4, "r": 2.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0, **changes}
    return nir.LIF(**{name: np.zeros(n) + value for name, value in values.items()})


def edges(graph: Any, *more: tuple[str, str]) -> Any:
    graph.edges = [*graph.edges, *more]
    return graph


def pool(kind: Any, size: int = 2, stride: int = 2, padding: int = 0) -> Any:
    return kind(*(np.array([n, n]) for n in (size, stride, padding)))


def back(weights: Any = None, **more: Any) -> Any:
    """A row whose neurons 'b' get their spikes back through 'd'."""
    graph = graph_of(a=affine(), b=lif())
    graph.nodes |= {"d": affine(5, 5) if weights is None else weights, **more}
    return edges(graph, *back_edges("d"))


def back_edges(name: str) -> list[tuple[str, str]]:
    return [("b", name), (name, "b")]


def loose(name: str, node: Any) -> Any:
    graph = graph_of(a=affine())
    graph.nodes[name] = node
    return graph


def in_itself() -> Any:
    graph = graph_of(a=affine())
    graph.nodes["g"] = graph
    return graph


def two_inputs() -> Any:
    return edges(graph_of(a=affine(5, 5), input2=nir.Input(np.array([5]))))


COMING: dict[str, tuple[Callable[[], Any], str]] = {
    "not a graph": (lambda: affine(), "the graph is a Affine"),
    "unknown node": (
        lambda: graph_of(a=affine(), b=nir.Threshold(np.ones(5))), "'b' is a nir.Threshold.*known"
    ),
    "several leaks": (
        lambda: graph_of(a=affine(), b=lif(tau=np.array([1, 2, 2, 2, 2]) * 1e-4)),
        "tau of node 'b' has 2 values",
    ),
    "several thresholds": (
        lambda: graph_of(a=affine(), b=lif(v_threshold=np.arange(1, 6))), "v_threshold of node 'b'"
    ),
    "leak": (lambda: graph_of(a=affine(), b=lif(v_leak=0.5)), "'b' has v_leak 0.5; ours|our"),
    "reset": (lambda: graph_of(a=affine(), b=lif(v_reset=-0.5)), "'b' has v_reset -0.5"),
    "threshold": (lambda: graph_of(a=affine(), b=lif(v_threshold=0.0)), "'b' has v_threshold 0.0"),
    "time constant": (lambda: graph_of(a=affine(), b=lif(tau=1e-5)), "'b' has tau 1e-05, below"),
    "nan": (lambda: graph_of(a=affine(), b=lif(tau=np.nan)), r"tau of node 'b' is .*nan"),
    "if per step": (
        lambda: graph_of(a=affine(), b=nir.IF(np.ones(5), np.ones(5))),
        "'b' is an IF neuron with r = 1.*norse",
    ),
    "recurrent weights that go on": (
        lambda: edges(graph_of(a=affine(), b=lif(), c=affine(5, 5)), ("c", "b")),
        "'b' -> 'c' -> 'b' form a cycle; recurrence can be read from the neurons of one layer",
    ),
    "cycle over layers": (
        lambda: edges(
            graph_of(a=affine(), b=lif(), c=affine(5, 5), d=lif(), e=affine(5, 5)), ("e", "b")
        ),
        "form a cycle; recurrence",
    ),
    "cycle without neurons": (
        lambda: edges(graph_of(a=affine(), b=affine(5, 5)), ("b", "a")), "cycle without LIF or IF"
    ),
    "neurons onto themselves": (
        lambda: edges(graph_of(a=affine(), b=lif()), ("b", "b")), "'b' -> 'b' form a cycle; recur"
    ),
    "two recurrent synapses": (
        lambda: edges(back(c=affine(5, 5)), *back_edges("c")),
        "come back to it through 'c' and 'd'|come back to it through 'd' and 'c'",
    ),
    "recurrent weights of another size": (
        lambda: back(weights=affine(4, 5)), "'d' brings the spikes of 'b' back in the shape"
    ),
    "shapes in a sum": (
        lambda: edges(graph_of(a=affine(5), b=affine(6, 5)), ("a", "output")),
        r"'output' gets a sum of the shapes \[\(5,\), \(6,\)\]",
    ),
    "an edge twice": (
        lambda: edges(graph_of(a=affine()), ("input", "a")), "'input' -> 'a' is there 2 times"
    ),
    "two outputs": (
        lambda: graph_of(a=affine(), output2=nir.Output(None)),
        r"Output nodes \['output2', 'output'\]",
    ),
    "leads to nothing": (
        lambda: edges(loose("b", affine(5, 5)), ("a", "b")), "'b', a nir.Affine, has edges to none"
    ),
    "comes from nothing": (
        lambda: edges(loose("b", affine(5, 5)), ("b", "output")), "'b', .*has edges from none"
    ),
    "into the input": (
        lambda: edges(graph_of(a=affine(4)), ("a", "input")), "form a cycle without LIF"
    ),
    "out of the output": (
        lambda: edges(loose("b", affine(5, 5)), ("output", "b"), ("b", "output")), "form a cycle"
    ),
    "a graph in itself": (lambda: in_itself(), "graphs lie within graphs .* holds itself"),
    "a graph with two inputs": (
        lambda: graph_of(a=affine(), g=two_inputs()), "'g' within the graph has the Input nodes"
    ),
    "edge": (lambda: edges(graph_of(a=affine()), ("a", "z")), "'a' -> 'z'"),
    "no shape": (
        lambda: nir.NIRGraph(
            {"input": nir.Input(None), "a": affine(), "output": nir.Output(None)},
            [("input", "a"), ("a", "output")], type_check=False,
        ),
        "'input' does not say the shape",
    ),
    "two inputs": (
        lambda: edges(graph_of(a=affine(), input2=nir.Input(np.array([4])))), "Input nodes"
    ),
    "no weights": (lambda: graph_of(b=lif(4)), "no node with weights"),
    "shape": (lambda: graph_of(a=affine(5, 3)), "'a' has weights for 3 values, and gets"),
    "neurons": (lambda: graph_of(a=affine(), b=lif(6)), r"'b' has neurons of shape \(6,\)"),
    "kernel": (
        lambda: nir.NIRGraph(
            {"input": nir.Input(np.array([1, 2, 2])),
             "a": nir.Conv2d(None, np.ones((1, 1, 3, 3)), 1, 0, 1, 1, np.zeros(1)),
             "output": nir.Output(None)},
            [("input", "a"), ("a", "output")], type_check=False,
        ),
        "kernel of node 'a' is larger",
    ),
    "text": (lambda: graph_of(a=nir.Linear(np.array([["x"]]))), "weight of node 'a' is .*real"),
    "edges": (lambda: edges(graph_of(a=affine()), "a"), "has the edge 'a'"),
    "weights": (
        lambda: graph_of(a=nir.Linear(np.full((5, 4), np.inf))), "weight of node 'a' holds NaN"
    ),
    "pooled vector": (lambda: graph_of(p=pool(nir.AvgPool2d), a=affine()), "'p' pools over"),
    "padded pooling": (
        lambda: graph_of(p=pool(nir.AvgPool2d, padding=1), a=affine()), "'p' pads with zeros"
    ),
    "flattened in part": (
        lambda: nir.NIRGraph(
            {"input": nir.Input(np.array([2, 2, 2])), "f": nir.Flatten(np.array([2, 2, 2]), 1, -1),
             "a": affine(5, 8), "output": nir.Output(None)},
            [("input", "f"), ("f", "a"), ("a", "output")], type_check=False,
        ),
        "'f' flattens the dimensions 1 to -1",
    ),
    "subgraph": (lambda: graph_of(a=affine(), g=graph_of(a=affine())), "'g.a' has weights for 4"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMING)
def test_what_cannot_come_is_refused(case: str) -> None:
    make, message = COMING[case]
    graph = make()
    with pytest.raises(InputError, match=message):
        from_nir(graph)


DAMAGE: list[Any] = [
    None, "x", -1, 0, 1, 2, 3.5, float("nan"), 1e300, True, (0, 0), [1, 2, 3], {},
    {"input": None}, {"input": np.array([3, 3])}, np.array([]), np.array("x"), np.ones(5) * 1j,
    np.array([None, 1], dtype=object), np.array([10**12, 2]), np.ones((2, 2, 2, 2)),
]  # fmt: skip


def test_damaged_graphs_are_read_or_refused() -> None:
    """Parts of nodes and edges replaced by anything: no other error, and no warning."""
    looped = clocked.fc(6, (5, 4), 3, recurrent=True, reset="zero")
    wholes = [to_nir(pictures()), to_nir(looped), to_nir(looped, dialect="snntorch")]
    chance, refused = random.Random(0), 0
    for _ in range(400):
        graph = copy.deepcopy(chance.choice(wholes))
        node = graph.nodes[chance.choice(list(graph.nodes))]
        if chance.random() < 0.7:
            setattr(node, chance.choice(list(vars(node))), chance.choice(DAMAGE))
        names, kind = [*graph.nodes, "nobody"], chance.random()
        if kind < 0.1:
            graph.edges = chance.choice([graph.edges[1:], graph.edges[:-2], ["a"], None])
        elif kind < 0.5:
            graph.edges = [*graph.edges, (chance.choice(names), chance.choice(names))]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                network = from_nir(graph)
                network(torch.zeros(1, *network.input_shape, dtype=network_dtype(network)))
        except InputError:
            refused += 1
    assert 150 < refused < 400


def test_a_graph_of_snntorch_is_read_with_a_warning_of_its_reset() -> None:
    graph = graph_of(a=affine(), b=lif((5,)))
    with pytest.warns(UserWarning, match="b are read with the reset 'zero'.*'subtract'"):
        network = from_nir(graph, dialect="snntorch")
    assert clocked.run(network, torch.ones(2, *network.input_shape), steps=2).steps == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_nir(graph)
        from_nir(to_nir(dense(), dialect="snntorch"), dialect="snntorch")


def network_dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        from_nir(tmp_path / "absent.nir")
    (tmp_path / "bad.nir").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match="cannot be read as a NIR graph"):
        from_nir(tmp_path / "bad.nir")


def test_a_convolution_without_a_bias_has_none() -> None:
    conv = nir.Conv2d((3, 3), np.ones((1, 1, 3, 3), np.float32), 1, 0, 1, 1, None)
    graph = nir.NIRGraph(
        {"input": nir.Input(np.array([1, 3, 3])), "a": conv, "output": nir.Output(None)},
        [("input", "a"), ("a", "output")],
        type_check=False,
    )
    assert from_nir(graph)(torch.ones(1, 1, 3, 3)).item() == 9.0


def test_sums_scales_and_resistance_go_into_the_weights() -> None:
    torch.manual_seed(0)
    weight, conv = np.random.default_rng(0).normal(size=(3, 8)), np.ones((2, 1, 2, 2))
    nodes = {
        "input": nir.Input(np.array([1, 5, 5])),
        "conv": nir.Conv2d((5, 5), conv, 1, 0, 1, 1, np.full(2, 0.5)),
        "lif": lif((2, 4, 4), r=0.5),  # a quarter of the current
        "pool": pool(nir.SumPool2d),
        "twice": nir.Scale(np.full((2, 2, 2), 2.0)),
        "flat": nir.Flatten(np.array([2, 2, 2]), 0, -1),
        "out": nir.Linear(weight),
        "output": nir.Output(None),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(names)), type_check=False)
    network = from_nir(graph)
    x = torch.rand(4, 1, 5, 5, dtype=torch.float64) * 1.8
    current = 0.25 * (torch.nn.functional.conv2d(x, torch.from_numpy(conv)) + 0.5)
    spikes = (current > 1.0).double()
    pooled = torch.nn.functional.avg_pool2d(spikes, 2) * 4 * 2
    expected = pooled.flatten(1) @ torch.from_numpy(weight).T
    assert 0.1 < spikes.mean() < 0.9
    torch.testing.assert_close(network(x), expected)


def fine_euler(graph: Any, sample: tuple[Any, Any], duration: float, dt: float) -> Any:
    """NIR's equations of CubaLIF layers in tiny steps, spikes as Dirac pulses; (time, neuron)."""
    layers = [(graph.nodes[f"{n}_weights"].weight.astype(float), graph.nodes[n])
              for n in graph.nodes if isinstance(graph.nodes[n], nir.CubaLIF)]  # fmt: skip
    state = [(np.zeros(len(w)), np.zeros(len(w))) for w, _ in layers]
    found: list[list[tuple[float, int]]] = [[] for _ in layers]
    times, addresses = sample
    given = np.rint(np.asarray(times) / dt).astype(int)
    for step in range(round(duration / dt)):
        pulses = np.zeros(layers[0][0].shape[1])
        np.add.at(pulses, addresses[given == step], 1.0)
        for k, (weight, node) in enumerate(layers):
            current, v = state[k]
            # Pulses first: the current jumps by w_in S / tau_syn at the moment of a spike.
            current = current + node.w_in * (weight @ pulses) / node.tau_syn
            v = v + dt / node.tau_mem * (node.v_leak - v + node.r * current)
            current = current - dt / node.tau_syn * current
            pulses = (v > node.v_threshold).astype(float)
            v = np.where(pulses == 1.0, node.v_reset, v)
            state[k] = current, v
            found[k] += [((step + 1) * dt, int(i)) for i in np.flatnonzero(pulses)]
    return found


def test_exact_spike_times_obey_the_equations_of_nir(tmp_path: Path) -> None:
    """The spike times of both layers, several spikes a neuron, against 1 microsecond steps."""
    torch.manual_seed(0)
    network = events.fc(
        5, (6,), 3, tau_s=0.02, thresholds=(0.01, 0.012), duration=0.1, max_spikes=100,
        weight_ranges=[(-0.5, 1.5)],
    )  # fmt: skip
    generator = np.random.default_rng(0)
    sample = np.sort(generator.uniform(0, 0.06, 12)), generator.integers(0, 5, 12)
    activities = network.run(events.SpikeBatch.from_lists([sample[0]], [sample[1]], 5))
    path = tmp_path / "events.nir"
    nir.write(path, to_nir(network))
    dt = 1e-6
    found = fine_euler(nir.read(path), sample, 0.1, dt)
    for activity, theirs in zip(activities, found, strict=True):
        mine = sorted(zip(activity.spikes.times, activity.spikes.addresses, strict=True))
        assert len(mine) > 6 and max(activity.counts.ravel()) > 1
        assert len(mine) == len(theirs)
        by_neuron = {n: sorted(t for t, i in mine if i == n) for n in range(6)}
        its = {n: sorted(t for t, i in theirs if i == n) for n in range(6)}
        for n, times in by_neuron.items():
            np.testing.assert_allclose(its[n], times, atol=1e-4)
    with pytest.raises(InputError, match="on a time grid"):
        to_nir(network, dialect="norse")
