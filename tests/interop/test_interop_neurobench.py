"""NeuroBench's metrics of our networks, beside our own numbers and snnTorch's networks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from reference.branch_cases import SHAPES, make
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from threefactor import analysis, clocked
from threefactor.errors import ConfigurationError, InputError
from threefactor.interop.neurobench import benchmark_model

benchmarks = pytest.importorskip("neurobench.benchmarks")
from neurobench.metrics import static, workload  # noqa: E402
from neurobench.processors.postprocessors import ChooseMaxCount  # noqa: E402

STEPS, BATCH, SAMPLES = 5, 8, 24
STATIC = [static.Footprint, static.ConnectionSparsity, static.ParameterCount]
WORKLOAD = [
    workload.ActivationSparsity,
    workload.ActivationSparsityByLayer,
    workload.SynapticOperations,
    workload.NeuronOperations,
    workload.MembraneUpdates,
    workload.ClassificationAccuracy,
]


def dense(reset: str = "subtract") -> clocked.Network:
    torch.manual_seed(0)
    network = clocked.fc(12, (30, 25), 5, dropout=0.5, reset=reset)
    with torch.no_grad():
        network.linear1.weight.mul_(4)
        network.linear2.weight.mul_(4)
    prune.random_unstructured(network.linear2, "weight", 0.25)
    return network


def pictures(reset: str = "subtract") -> clocked.Network:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "conv1": clocked.Conv2d(2, 6, 3, padding=1, standardise=True),
        "lif1": clocked.LIF(scale=1.7, reset=reset),
        "conv2": clocked.Conv2d(6, 8, 3, stride=2, padding=1, pool=2, bias=False),
        "lif2": clocked.LIF(reset=reset),
        "readout": clocked.Linear(8, 5, pool=2),
    }
    network = clocked.Network(OrderedDict(layers), (2, 9, 9))
    with torch.no_grad():
        network.conv1.gain.fill_(1.5)
        network.conv2.weight.mul_(6)
    return network


def data(network: clocked.Network) -> tuple[Tensor, Tensor]:
    """(samples, T, ...) spikes, as NeuroBench has them, and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((SAMPLES, STEPS, *network.input_shape), generator=generator) < 0.4
    return x.float(), torch.arange(SAMPLES) % 5


def results_of(model: Any, x: Tensor, y: Tensor) -> dict[str, Any]:
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH)
    benchmark = benchmarks.Benchmark(model, loader, [], [ChooseMaxCount()], [STATIC, WORKLOAD])
    return benchmark.run(quiet=True)


@pytest.mark.parametrize("build", [dense, pictures])
@pytest.mark.parametrize("static_input", [True, False])
def test_metrics_equal_our_own(build: Any, static_input: bool) -> None:
    network = build()
    x, y = data(network)
    if static_input:
        x = x[:, 0]
    steps = STEPS if static_input else None
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = results_of(benchmark_model(network, steps=steps), x, y)
    assert network.training and not any(m._forward_hooks for m in network.modules())
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())

    pairs = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    batches = [(a if static_input else a.transpose(0, 1), b) for a, b in pairs]
    counted = analysis.operations(network, batches, steps=steps).total
    assert found["SynapticOperations"] == {
        "Effective_MACs": pytest.approx(counted.effective_macs),
        "Effective_ACs": pytest.approx(counted.effective_acs),
        "Dense": pytest.approx(counted.dense),
    }
    assert counted.effective_acs > 0 and (build is dense or counted.effective_macs > 0)

    firing = analysis.firing(network, batches, steps=steps)
    assert 0.05 < firing.total_rate < 0.9
    assert found["ActivationSparsity"] == pytest.approx(1 - firing.total_rate)
    by_layer = {name: pytest.approx(1 - one.rate) for name, one in firing.layers.items()}
    assert found["ActivationSparsityByLayer"] == by_layer

    outputs = [clocked.run(network.eval(), a, steps=steps).output for a, _ in batches]
    accuracy = (torch.cat(outputs).argmax(1) == y).float().mean()
    assert found["ClassificationAccuracy"] == pytest.approx(float(accuracy))

    if build is dense:
        values = sum(
            layer.weight.numel() + layer.bias.numel() for layer in network if hasattr(layer, "bias")
        )
        zeros = sum(int((layer.weight == 0).sum()) for layer in network if hasattr(layer, "weight"))
        weights = sum(layer.weight.numel() for layer in network if hasattr(layer, "weight"))
        assert found["ParameterCount"] == values and found["Footprint"] == 4 * values
        assert found["ConnectionSparsity"] == round(zeros / weights, 4) > 0.1
    else:  # the gain is in the weights
        assert found["ParameterCount"] == 2 * 6 * 9 + 6 + 6 * 8 * 9 + 8 * 5 + 5


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_metrics_equal_those_of_snntorch(reset: str) -> None:
    """The same network of snnTorch's Leaky neurons; with the reset "zero", the same potentials."""
    snn = pytest.importorskip("snntorch")
    from neurobench.models import SNNTorchModel

    network = dense(reset)
    x, y = data(network)
    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, clocked.LIF):
            delay = reset == "zero"
            neuron = snn.Leaky(0.5, reset_mechanism=reset, init_hidden=True, reset_delay=delay)
            if not delay:
                neuron.mem_reset = torch.zeros_like  # see docs/leaving.md
            layers.append(neuron)
        else:
            plain = nn.Linear(layer.in_features, layer.out_features)
            plain.weight.data, plain.bias.data = layer.weight.detach(), layer.bias.detach()
            layers.append(plain)

    class Theirs(nn.Sequential):
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return super().forward(x), None

    theirs = results_of(SNNTorchModel(Theirs(*layers)), x, y)
    found = results_of(benchmark_model(network), x, y)
    same = ["SynapticOperations", "ActivationSparsity", "ClassificationAccuracy"]
    if reset == "zero":
        same += ["MembraneUpdates", "NeuronOperations"]
    for name in same:
        assert found[name] == theirs[name], name
    assert found["NeuronOperations"]["Neuron Dense Ops"] == 4 * 55 * STEPS
    assert 0 < found["MembraneUpdates"] <= 55 * STEPS
    assert found["NeuronOperations"]["Effective Neuron Ops"] == 4 * found["MembraneUpdates"]


def test_what_cannot_be_counted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(clocked.Linear):
        pass

    class OwnSynapse(clocked.Synapse, nn.Bilinear):
        pass

    benchmark_model(nn.Sequential(Own(4, 3)))
    with pytest.raises(InputError, match=r"'0' is a OwnSynapse, whose operations"):
        benchmark_model(nn.Sequential(OwnSynapse(4, 4, 3)))
    with pytest.raises(InputError, match=r"NeuroBench models"):
        benchmark_model(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(InputError, match=r"takes several inputs"):
        benchmark_model(make("summed"))
    several = make("summed")
    several.input_shape = SHAPES
    with pytest.raises(InputError, match=r"several inputs; NeuroBench gives its models one"):
        benchmark_model(several)
    with pytest.raises(InputError, match=r"steps is 0"):
        benchmark_model(clocked.fc(4, (5,), 3), steps=0)
    from threefactor.interop import neurobench as own

    own._model_class.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "neurobench.models", None)
    with pytest.raises(ConfigurationError, match=r"threefactor\[neurobench\]"):
        benchmark_model(clocked.fc(4, (5,), 3))
    own._model_class.cache_clear()
