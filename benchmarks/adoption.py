"""Gradients of rules on networks of other libraries, beside a reference that shares no code.

    python benchmarks/adoption.py --json results/benchmarks/adoption.json

The reference is a plain loop with autograd within a time step (`tests/reference/foreign.py`). For
spatial BP on SpikingJelly's LIF neurons, its own OTTT is a second one, and the larger difference
counts. A difference is the largest of a parameter's gradient, divided by the largest value of the
reference. What a rule refuses has the reason as it tells it. Libraries that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import importlib.util
import inspect
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threefactor import clocked
from threefactor.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference import foreign

STEPS, BATCH, OUTPUTS = 6, 5, 3
LIBRARIES = {
    "PyTorch": "torch",
    "snnTorch": "snntorch",
    "SpikingJelly": "spikingjelly",
    "Norse": "norse",
    "sinabs": "sinabs",
}
BASES = ("clocked", "snntorch", "spikingjelly", "norse", "sinabs")
"""Where the classes of neurons are from."""
NOTHING = 1e-5
NOISE = {"noise_scale": 0.2}
RULES: dict[str, dict[str, Any]] = {
    "spatial-bp": {},
    "dfa": {"feedback_scale": 0.5},
    "dkp": {"feedback_scale": 0.5},
    "zo": NOISE,
    "opzo": {**NOISE, "momentum": 0.5},
}
Make = Callable[[], nn.Module]


@dataclass
class Neurons:
    """Neurons of one class with one setting, and the leaks that they should have."""

    make: Make
    leak: float
    synaptic_leak: float | None = None
    trace_decay: float | None = None
    """Given to the rule where the neurons have no single leak."""
    ottt: Make | None = None
    """The same neurons of SpikingJelly's OTTT."""
    gain: float = 1.5
    """Of the weights, so that the neurons spike now and then."""


Cell = dict[str, Any]
"""What one rule gives on one network: differences by precision, or why it is "refused"."""


def rows_of(neurons: Neurons, layers: str = "Linear") -> tuple[nn.Sequential, tuple[int, ...]]:
    """Return a row of a kind of layers with neurons, and the shape of its input."""
    torch.manual_seed(3)
    make = neurons.make
    first, between, last, shape = LAYERS[layers]()
    row = [*first, make(), *between, last, make(), nn.Linear(last.out_features, OUTPUTS)]
    with torch.no_grad():
        for layer in row:
            if isinstance(layer, foreign.PRODUCTS):
                fan_in = layer.weight[0].numel()
                nn.init.normal_(layer.weight, 0.1, 0.6 / fan_in**0.5)
                layer.weight.mul_(neurons.gain)
                if layer.bias is not None:
                    nn.init.uniform_(layer.bias, -0.1, 0.3)
            elif isinstance(layer, nn.BatchNorm1d | nn.LayerNorm):
                layer.weight.fill_(neurons.gain)
                layer.bias.fill_(neurons.gain / 3)
    kind = type(row[len(first)]).__module__
    if kind.startswith("norse"):
        from norse.torch import SequentialState

        return SequentialState(*row), shape
    return nn.Sequential(*row), shape


Row = tuple[list[nn.Module], list[nn.Module], nn.Linear, tuple[int, ...]]
"""Layers before the first neurons, between them and the last product, that, and the input."""


def _linear(*before: nn.Module, between: Sequence[nn.Module] = ()) -> Row:
    return [nn.Linear(8, 12), *before], list(between), nn.Linear(12, 12), (8,)


def _conv(layer: nn.Module, n: int, *shape: int, between: Sequence[nn.Module] = ()) -> Row:
    return [layer], [*between, nn.Flatten()], nn.Linear(n, 12), shape


LAYERS: dict[str, Callable[[], Row]] = {
    "Linear": _linear,
    "Conv1d": lambda: _conv(nn.Conv1d(2, 3, 3, padding=1), 24, 2, 8),
    "Conv2d": lambda: _conv(nn.Conv2d(2, 4, 3, padding=1), 64, 2, 4, 4),
    "Conv3d": lambda: _conv(nn.Conv3d(1, 2, 2), 16, 1, 3, 3, 3),
    "Conv2d, grouped, strided": lambda: _conv(
        nn.Conv2d(2, 8, 3, 2, padding=1, groups=2), 72, 2, 6, 6
    ),
    "Conv2d, dilated, padded by reflection": lambda: _conv(
        nn.Conv2d(2, 3, 3, padding=2, dilation=2, padding_mode="reflect"), 75, 2, 5, 5
    ),
    "ConvTranspose1d": lambda: _conv(nn.ConvTranspose1d(2, 3, 3, 2), 33, 2, 5),
    "ConvTranspose2d": lambda: _conv(
        nn.ConvTranspose2d(2, 3, 2, 2, output_padding=1, bias=False), 147, 2, 3, 3
    ),
    "ConvTranspose3d": lambda: _conv(nn.ConvTranspose3d(1, 2, 2), 54, 1, 2, 2, 2),
    "Conv2d, AvgPool2d": lambda: _conv(
        nn.Conv2d(2, 4, 3, padding=1), 16, 2, 4, 4, between=[nn.AvgPool2d(2)]
    ),
    "Conv2d, MaxPool2d": lambda: _conv(
        nn.Conv2d(2, 4, 3, padding=1), 16, 2, 4, 4, between=[nn.MaxPool2d(2)]
    ),
    "Linear, BatchNorm1d": lambda: _linear(nn.BatchNorm1d(12)),
    "Linear, LayerNorm": lambda: _linear(nn.LayerNorm(12)),
    "Linear, neurons, LayerNorm": lambda: _linear(between=[nn.LayerNorm(12)]),
    "Linear, neurons, Dropout": lambda: _linear(between=[nn.Dropout(0.3)]),
}


def own() -> dict[str, Neurons]:
    return {
        "LIF": Neurons(clocked.LIF, 0.5),
        "LIF, reset to zero": Neurons(lambda: clocked.LIF(0.7, reset="zero"), 0.7),
        "LIF, leak 1": Neurons(lambda: clocked.LIF(1.0), 1.0),
    }


def snntorch() -> dict[str, Neurons | Make]:
    import snntorch as snn

    def single(leak: float) -> float:  # as snnTorch keeps it
        return torch.tensor(leak).item()

    from snntorch._neurons import leakykernel

    shared = {"init_hidden": True, "spike_grad": snn.surrogate.atan()}

    def leaky(**options: Any) -> Neurons:
        return Neurons(lambda: snn.Leaky(0.6, **shared, **options), single(0.6))

    return {
        "Leaky": leaky(),
        "Leaky, reset at once": leaky(reset_delay=False),
        "Leaky, reset to zero": leaky(reset_mechanism="zero"),
        "Leaky, no reset": leaky(reset_mechanism="none"),
        "Lapicque": Neurons(lambda: snn.Lapicque(R=1.0, C=3.0, **shared), 1 - 1 / 3, gain=3.0),
        "Synaptic": Neurons(lambda: snn.Synaptic(0.5, 0.8, **shared), single(0.8), 0.5),
        "Alpha": lambda: snn.Alpha(0.8, 0.6, **shared),
        "RLeaky": lambda: snn.RLeaky(0.6, linear_features=12, **shared),
        "RSynaptic": lambda: snn.RSynaptic(0.8, 0.6, linear_features=12, **shared),
        "SLSTM": lambda: snn.SLSTM(12, 12, init_hidden=True),
        "SConv2dLSTM": lambda: snn.SConv2dLSTM(1, 1, 3, init_hidden=True),
        "LeakyParallel": lambda: snn.LeakyParallel(12, 12),
        "LeakyKernel": lambda: leakykernel.LeakyKernel(12, 12),
        "StateLeaky": lambda: snn.StateLeaky(0.6, 12),
        "LinearLeaky": lambda: snn.LinearLeaky(0.6, 12, 12),
        "AssociativeLeaky": lambda: snn.AssociativeLeaky(12, 3, 4, 12),
        "DeltaLeaky": lambda: snn.DeltaLeaky(beta=0.6, init_hidden=True),
        "LIF": lambda: snn.LIF(0.6),
        "SpikingNeuron": snn.SpikingNeuron,
    }


def spikingjelly() -> dict[str, Neurons | Make]:
    from spikingjelly.activation_based import neuron

    def lif(**options: Any) -> Neurons:
        tau, plain = options.pop("tau", 2.0), options
        timed = {k: v for k, v in plain.items() if k != "step_mode"}
        surrogate = neuron.LIFNode().surrogate_function
        given = {"decay_input": True, "v_reset": 0.0, "surrogate_function": surrogate}
        return Neurons(
            lambda: neuron.LIFNode(tau, **plain),
            1 - 1 / tau,
            gain=2.5,
            ottt=lambda: neuron.OTTTLIFNode(tau, **{**given, **timed}),
        )

    found: dict[str, Neurons | Make] = {
        "LIFNode": lif(),
        "LIFNode, soft reset": lif(v_reset=None, decay_input=False),
        "LIFNode, soft reset, decayed input": lif(tau=2.5, v_reset=None),
        "LIFNode, hard reset to -0.2": lif(v_reset=-0.2, decay_input=False),
        "LIFNode, step mode m": lif(step_mode="m"),
        "LIFNode, reset in the graph": lif(detach_reset=False),
        "IFNode": Neurons(neuron.IFNode, 1.0),
        "IFNode, soft reset, step mode m": Neurons(
            lambda: neuron.IFNode(v_reset=None, step_mode="m"), 1.0
        ),
        "ParametricLIFNode": Neurons(lambda: neuron.ParametricLIFNode(2.0), 0.5),
        "SimpleIFNode": Neurons(neuron.SimpleIFNode, 1.0),
        "SimpleLIFNode": Neurons(lambda: neuron.SimpleLIFNode(2.0, True), 0.5),
        "QIFNode": Neurons(neuron.QIFNode, 0.5, trace_decay=0.5),
        "EIFNode": Neurons(neuron.EIFNode, 0.5, trace_decay=0.5),
        "IzhikevichNode": Neurons(neuron.IzhikevichNode, 0.5, trace_decay=0.5, gain=3.0),
        "KLIFNode": Neurons(neuron.KLIFNode, 0.5, trace_decay=0.5),
        "ComplementaryLIFNode": Neurons(neuron.ComplementaryLIFNode, 0.5, trace_decay=0.5),
        "CUBALIFNode": Neurons(neuron.CUBALIFNode, 0.75, 0.5),
        "LIAFNode": Neurons(lambda: neuron.LIAFNode(torch.relu, True), 0.5),
        "MPBNLIFNode": Neurons(lambda: neuron.MPBNLIFNode(out_features=12), 0.5, trace_decay=0.5),
        "HalfThresholdIFNode": Neurons(neuron.HalfThresholdIFNode, 1.0),
        "ActivationAwareIFNode": Neurons(neuron.ActivationAwareIFNode, 1.0),
        "ILIFNode": Neurons(lambda: neuron.ILIFNode(2.0), 0.5),
        "TernaryIFNode": Neurons(neuron.TernaryIFNode, 1.0),
        "TernaryLIFNode": Neurons(neuron.TernaryLIFNode, 0.5),
    }
    population = {"act_dim": 2, "dec_pop_dim": 6}
    found |= {
        "OTTTLIFNode": neuron.OTTTLIFNode,
        "SLTTLIFNode": neuron.SLTTLIFNode,
        "RAFNode": neuron.RAFNode,
        "GatedLIFNode": lambda: neuron.GatedLIFNode(4),
        "PSN": lambda: neuron.PSN(4),
        "MaskedPSN": lambda: neuron.MaskedPSN(2, 4),
        "SlidingPSN": lambda: neuron.SlidingPSN(2),
        "DSRIFNode": neuron.DSRIFNode,
        "DSRLIFNode": neuron.DSRLIFNode,
        "NonSpikingIFNode": neuron.NonSpikingIFNode,
        "NonSpikingLIFNode": neuron.NonSpikingLIFNode,
        "NoisyCUBALIFNode": lambda: neuron.NoisyCUBALIFNode(12),
        "NoisyNonSpikingIFNode": lambda: neuron.NoisyNonSpikingIFNode(12),
        "NoisyILCCUBALIFNode": lambda: neuron.NoisyILCCUBALIFNode(**population),
        "ILCIFNode": lambda: neuron.ILCIFNode(**population),
        "ILCLIFNode": lambda: neuron.ILCLIFNode(**population),
        "ILCCUBALIFNode": lambda: neuron.ILCCUBALIFNode(**population),
        "STBIFNode": lambda: neuron.STBIFNode(torch.tensor(1.0), 4),
        "FewSpikeNode": lambda: neuron.FewSpikeNode(_table()),
        "OutlierAwareThresholdNode": lambda: neuron.OutlierAwareThresholdNode(
            _table(), _table(), 1.0
        ),
        "HGNode": lambda: neuron.HGNode([_table(), _table()], torch.tensor([0.5])),
        "FlexSN": lambda: neuron.FlexSN(lambda x, v: ((x > v).to(x), v), 1),
        "BaseNode": neuron.BaseNode,
        "SimpleBaseNode": neuron.SimpleBaseNode,
        "AdaptBaseNode": neuron.AdaptBaseNode,
        "NonSpikingBaseNode": neuron.NonSpikingBaseNode,
        "MPBNBaseNode": lambda: neuron.MPBNBaseNode(out_features=12),
        "ILCBaseNode": lambda: neuron.ILCBaseNode(**population),
        "NoisyBaseNode": lambda: neuron.NoisyBaseNode(12),
        "NoisyILCBaseNode": lambda: neuron.NoisyILCBaseNode(**population),
        "NoisyNonSpikingBaseNode": lambda: neuron.NoisyNonSpikingBaseNode(12),
    }
    return found


def _table() -> Any:
    from spikingjelly.activation_based import neuron

    return neuron.FewSpikeTable(*(torch.tensor([1.0, 0.5]) for _ in range(3)))


def norse() -> dict[str, Neurons | Make]:
    import norse.torch as nt

    def cell(name: str, parameters: Any, leak: float, *rest: Any, **options: Any) -> Neurons:
        kind = getattr(nt, name)
        return Neurons(lambda: kind(p=parameters, dt=0.001), leak, *rest, gain=3.0, **options)

    def number(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    rates = {"tau_mem_inv": number(500.0), "tau_syn_inv": number(300.0)}
    lif = nt.LIFParameters(**rates)
    other = {"trace_decay": 0.5}
    found: dict[str, Neurons | Make] = {
        "LIFBoxCell": cell("LIFBoxCell", nt.LIFBoxParameters(tau_mem_inv=number(400.0)), 0.6),
        "LIFCell": cell("LIFCell", lif, 0.5, 0.7),
        "IAFCell": cell("IAFCell", nt.IAFParameters(), 1.0),
        "LIFRefracCell": cell(
            "LIFRefracCell", nt.LIFRefracParameters(lif=lif, rho_reset=number(1.0)), 0.5, 0.7
        ),
        "LIFExCell": cell("LIFExCell", nt.LIFExParameters(**rates), 0.5, **other),
        "LIFAdExCell": cell("LIFAdExCell", nt.LIFAdExParameters(**rates), 0.5, **other),
        "LIFAdExRefracCell": cell(
            "LIFAdExRefracCell",
            nt.LIFAdExRefracParameters(
                lif_adex=nt.LIFAdExParameters(**rates), rho_reset=number(1.0)
            ),
            0.5,
            **other,
        ),
        "IzhikevichCell": Neurons(
            lambda: nt.IzhikevichCell(nt.tonic_spiking), 0.5, gain=130.0, **other
        ),
    }
    for name in sorted(vars(nt)):
        kind = getattr(nt, name)
        if name in found or not _is_neuron(kind, "norse"):
            continue
        found[name] = lambda kind=kind: kind(**_sizes(kind))
    return found


def _sizes(kind: Any) -> dict[str, Any]:
    """Return what a class of Norse's asks for."""
    from norse.torch import tonic_spiking

    known = {"input_size": 12, "hidden_size": 12, "spiking_method": tonic_spiking}
    known["module"] = nn.Linear(12, 12)
    asked = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in known.items() if name in asked}


def sinabs() -> dict[str, Neurons | Make]:
    from sinabs import layers
    from sinabs.activation import SingleSpike

    decay, slow = math.exp(-1 / 2), math.exp(-1 / 3)
    rest = {"gain": 3.0}

    def recurrent(kind: Any, **options: Any) -> Make:
        return lambda: kind(rec_connect=nn.Linear(12, 12), **options)

    return {
        "LIF": Neurons(lambda: layers.LIF(2.0), decay, **rest),
        "LIF, single spikes": Neurons(
            lambda: layers.LIF(2.0, norm_input=False, spike_fn=SingleSpike), decay
        ),
        "LIF with a current": Neurons(lambda: layers.LIF(3.0, tau_syn=2.0), slow, decay, **rest),
        "LIFSqueeze": Neurons(
            lambda: layers.LIFSqueeze(tau_mem=2.0, batch_size=BATCH), decay, **rest
        ),
        "IAF": Neurons(layers.IAF, 1.0),
        "IAFSqueeze": Neurons(lambda: layers.IAFSqueeze(batch_size=BATCH), 1.0),
        "ALIF": Neurons(lambda: layers.ALIF(2.0, 9.0), decay, **rest),
        "ExpLeak": lambda: layers.ExpLeak(2.0),
        "ExpLeakSqueeze": lambda: layers.ExpLeakSqueeze(tau_mem=2.0, batch_size=BATCH),
        "LIFRecurrent": recurrent(layers.LIFRecurrent, tau_mem=2.0),
        "IAFRecurrent": recurrent(layers.IAFRecurrent),
        "ALIFRecurrent": recurrent(layers.ALIFRecurrent, tau_mem=2.0, tau_adapt=9.0),
    }


def _is_neuron(kind: Any, library: str) -> bool:
    """Return whether a name of a library is a class of neurons, by where it is defined."""
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        return False
    where, name = kind.__module__, kind.__name__
    if library == "snntorch":
        return where.startswith("snntorch._neurons") and name != "RecurrentOneToOne"
    if library == "spikingjelly":
        return where.startswith("spikingjelly.activation_based.neuron")
    if library == "sinabs":
        parts = ("lif", "iaf", "alif", "exp_leak")
        return where in {f"sinabs.layers.{part}" for part in parts}
    parts = ("lif", "lsnn", "iaf", "izhikevich", "leaky_integrator", "coba_lif")
    module = where.rpartition(".")[2]
    return where.startswith("norse.torch.module") and module.startswith(parts)


def public_neurons(library: str) -> set[str]:
    """Return the names of all classes of neurons that a library offers."""
    homes = {
        "snntorch": "snntorch",
        "spikingjelly": "spikingjelly.activation_based.neuron",
        "norse": "norse.torch",
        "sinabs": "sinabs.layers",
    }
    home = importlib.import_module(homes[library])
    return {name for name in dir(home) if _is_neuron(getattr(home, name), library)}


TABLES: dict[str, Callable[[], dict[str, Any]]] = {
    "PyTorch": own,
    "snnTorch": snntorch,
    "SpikingJelly": spikingjelly,
    "Norse": norse,
    "sinabs": sinabs,
}
MAIN = {
    "PyTorch": {"PyTorch": "LIF"},
    "snnTorch": {"snnTorch": "Leaky"},
    "SpikingJelly": {
        "SpikingJelly, step mode s": "LIFNode",
        "SpikingJelly, step mode m": "LIFNode, step mode m",
    },
    "Norse": {"Norse": "LIFBoxCell"},
    "sinabs": {"sinabs": "LIF"},
}
"""The neurons of the table of layers: its columns, by library."""


def installed() -> list[str]:
    return [name for name, package in LIBRARIES.items() if importlib.util.find_spec(package)]


def is_neuron(module: nn.Module) -> bool:
    kind = type(module)
    if isinstance(module, clocked.LIF):
        return True
    return any(_is_neuron(kind, library) for library in BASES[1:])


def measure(neurons: Neurons, rule: str, layers: str = "Linear") -> Cell:
    """Compare one rule on one network with the reference, in both precisions."""
    try:
        return {
            str(dtype).removeprefix("torch."): difference(neurons, rule, layers, dtype)
            for dtype in (torch.float32, torch.float64)
        }
    except InputError as refused:
        return {"refused": str(refused)}


def difference(neurons: Neurons, rule: str, layers: str, dtype: torch.dtype) -> float:
    """Return the largest relative difference of a gradient from the reference."""
    network, shape = rows_of(neurons, layers)
    network = network.to(dtype).train()
    generator = torch.Generator().manual_seed(5)
    inputs = 2.5 * torch.rand(STEPS, BATCH, *shape, generator=generator).to(dtype)
    labels = torch.tensor([0, 2, 1, 1, 0])
    before = copy.deepcopy(network)
    learned, made = learn(network, rule, neurons, inputs, labels)
    noise, hidden = made["noise"], made["hidden"]
    expected = foreign.learn(
        before, list(inputs), labels, neurons.leak, rule=rule, is_neuron=is_neuron,
        synaptic_leak=neurons.synaptic_leak, feedback=made["feedback"],
        noise=[noise[i : i + hidden] for i in range(0, len(noise), hidden)] or None,
        noise_scale=NOISE["noise_scale"], momentum=0.5,
    )  # fmt: skip
    if min(expected.rates) < 0.01:
        raise RuntimeError(f"a layer is silent, so there is nothing to compare: {expected.rates}")
    pairs = [(learned[name], value) for name, value in expected.gradients.items()]
    pairs += list(zip(made["feedback grads"], expected.feedback_gradients, strict=False))
    if rule == "opzo":
        pairs += list(zip(made["feedback after"], expected.feedback, strict=True))
    if set(learned) != set(expected.gradients):
        raise RuntimeError(f"other parameters learn: {sorted(learned)}")
    found = [_relative(pairs)]
    if neurons.ottt is not None and rule == "spatial-bp" and layers in OTTT:
        found.append(beside_ottt(before, neurons, inputs, labels))
    return float(f"{max(found):.2e}")


def _relative(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the largest difference, relative to the largest value of each tensor.

    The gradient of a bias before a batch norm is 0 but for rounding: such tensors are compared with
    the largest value of all.
    """
    largest = max(float(theirs.abs().max()) for _, theirs in pairs)
    found = []
    for ours, theirs in pairs:
        scale = float(theirs.abs().max())
        scale = largest if scale < NOTHING * largest else scale
        found.append(float((ours - theirs).abs().max()) / scale)
    return max(found)


def learn(
    network: nn.Sequential, name: str, neurons: Neurons, inputs: Tensor, labels: Tensor,
    **more: Any,
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # fmt: skip
    """Make one step with a rule; return the gradients by name, and what else it used."""
    shape = tuple(inputs.shape[2:])
    options = dict(RULES[name], **more)
    if neurons.trace_decay is not None:
        options["trace_decay"] = neurons.trace_decay
    if name in ("zo", "opzo"):
        options["generator"] = torch.Generator().manual_seed(7)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of neurons' own parameters, which no error reaches
        rule = clocked.RULES[name](network, input_shape=shape, **options)
        feedback = [part.matrix.detach().clone() for part in getattr(rule, "feedback", [])]
        noise: list[Tensor] = []
        if rule.perturbation is not None:
            draw = rule.perturbation.draw

            def recorded(*given: Any) -> Tensor:
                drawn = draw(*given)
                noise.append(drawn.clone())
                return drawn

            rule.perturbation.draw = recorded  # type: ignore[method-assign]
        torch.manual_seed(2)
        rule.step(inputs, labels)
    torch.manual_seed(2)  # dropout of the reference
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    made = {
        "noise": noise,
        "hidden": len(rule.layer_shapes),
        "feedback": feedback,
        "feedback after": [part.matrix.detach() for part in getattr(rule, "feedback", [])],
        "feedback grads": [
            part.matrix.grad
            for part in getattr(rule, "feedback", [])
            if part.matrix.grad is not None
        ],
    }
    return gradients, made


OTTT = ("Linear", "Conv1d", "Conv2d", "Conv2d, grouped, strided", "Conv2d, AvgPool2d")
"""Kinds of layers that SpikingJelly's OTTT takes with the same meaning."""


def beside_ottt(network: nn.Sequential, neurons: Neurons, inputs: Tensor, labels: Tensor) -> float:
    """Compare spatial BP with SpikingJelly's own OTTT, whose first layer has no trace."""
    from spikingjelly.activation_based import layer

    ours, first = copy.deepcopy(network), next(n for n, _ in network.named_children())
    found, _ = learn(ours, "spatial-bp", neurons, inputs, labels, untraced=[first])
    assert neurons.ottt is not None
    row = [neurons.ottt() if is_neuron(m) else copy.deepcopy(m) for m in network]
    theirs = layer.OTTTSequential(*row).to(inputs.dtype)
    for x_t in inputs:
        output = theirs(x_t)
        _, error = foreign.losses_and_errors(output.detach(), labels, len(inputs))
        (output * error).sum().backward()
    expected = {n: p.grad for n, p in theirs.named_parameters()}
    return _relative([(found[name], value) for name, value in expected.items()])


def adopted(neurons: Neurons | Make) -> Neurons:
    """Return neurons to try; those that should be refused, with any leak."""
    return neurons if isinstance(neurons, Neurons) else Neurons(neurons, 0.5, trace_decay=0.5)


def refusal(make: Make) -> str:
    """Return why a rule refuses a network with these neurons.

    Raises:
        RuntimeError: if it does not.
    """
    network = nn.Sequential(nn.Linear(8, 12), make(), nn.Linear(12, OUTPUTS))
    try:
        clocked.DFA(network, input_shape=(8,), trace_decay=0.5)
    except InputError as refused:
        return str(refused).partition("cannot be trained by a rule: ")[2] or str(refused)
    raise RuntimeError(f"{network[1]} is not refused, and has no leak to compare with")


def all_neurons() -> Iterator[tuple[str, str, Any]]:
    for library in installed():
        for name, neurons in TABLES[library]().items():
            yield library, name, neurons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    neurons: dict[str, dict[str, Any]] = {}
    layers: dict[str, dict[str, Any]] = {}
    for library, name, cell in all_neurons():
        found = neurons.setdefault(library, {})
        if isinstance(cell, Neurons):
            found[name] = {rule: measure(cell, rule) for rule in RULES}
        else:
            found[name] = {"refused": refusal(cell)}
        print(library, name, _short(found[name]), flush=True)
    for library in installed():
        for column, name in MAIN[library].items():
            cell = TABLES[library]()[name]
            for kind in LAYERS:
                row = layers.setdefault(kind, {})
                row[column] = {rule: measure(cell, rule, kind) for rule in RULES}
                print(column, kind, _short(row[column]), flush=True)
    if given.json:
        names = {library: LIBRARIES[library] for library in installed()}
        about = {name: importlib.metadata.version(package) for name, package in names.items()}
        command = ["python", "benchmarks/adoption.py"]
        text = json.dumps(
            {"command": command, "versions": about, "neurons": neurons, "layers": layers}, indent=1
        )
        given.json.write_text(text + "\n", encoding="utf-8")


def _short(cells: dict[str, Any]) -> str:
    """Return one row as text."""
    if "refused" in cells:
        return f"refused: {cells['refused']}"
    return "  ".join(
        f"{rule} refused: {cell['refused']}"
        if "refused" in cell
        else " ".join(f"{value:.0e}" for value in cell.values())
        for rule, cell in cells.items()
    )


if __name__ == "__main__":
    main()
