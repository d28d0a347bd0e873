"""Networks whose weights are computed, hooked, pruned or changed after the rule was built."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from reference.clocked_cases import (
    assert_same,
    build,
    learned,
    make_data,
    make_network,
    make_pictures,
    make_rule,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from threefactor import clocked
from threefactor.errors import InputError

X, Y = make_data()
every_rule = pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
static = pytest.mark.parametrize("static", [True, False], ids=["constant", "sequence"])


class Squared(nn.Module):
    """A parametrisation with a graph of several nodes."""

    def forward(self, w: Tensor) -> Tensor:
        return w * w.abs()


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(layer)


COMPUTED: dict[str, Callable[[nn.Module], object]] = {
    "pruned": lambda m: prune.random_unstructured(m, "weight", 0.4),
    "pruned twice": lambda m: [prune.random_unstructured(m, "weight", 0.2) for _ in range(2)],
    "pruned bias": lambda m: prune.random_unstructured(m, "bias", 0.4),
    "weight norm": lambda m: parametrizations.weight_norm(m),
    "weight norm, by hooks": old_weight_norm,
    "spectral norm": lambda m: parametrizations.spectral_norm(m),
    "own": lambda m: parametrize.register_parametrization(m, "weight", Squared()),
    "weight and bias": lambda m: [
        parametrize.register_parametrization(m, name, Squared()) for name in ("weight", "bias")
    ],
}


def train(case: str, prepare: Callable[[nn.Module], object], at: str, static: bool) -> Any:
    network, rule = build(case)
    torch.manual_seed(9)
    prepare(network.get_submodule(at))
    rule = make_rule(case, network)  # the same noise and feedback for all
    rule.step(X[0] if static else X, Y, steps=5 if static else None)
    return network, rule


@every_rule
@static
@pytest.mark.parametrize("at", ["linear1", "linear2", "readout"])
@pytest.mark.parametrize("computed", COMPUTED)
def test_the_parameters_behind_computed_weights_learn(
    case: str, static: bool, at: str, computed: str
) -> None:
    """The gradient of a plain network with the same weights, carried on by autograd."""
    if computed == "spectral norm":  # estimated anew whenever it is computed in training mode
        prepare = lambda m: COMPUTED[computed](m).eval()  # noqa: E731
    else:
        prepare = COMPUTED[computed]
    network, _ = train(case, prepare, at, static)
    layer = network.get_submodule(at)
    for hook in layer._forward_pre_hooks.values():
        hook(layer, None)  # hook-based ones compute the weight here
    effective = {name: getattr(layer, name) for name in ("weight", "bias")}

    def plain(target: nn.Module) -> None:
        for name, value in effective.items():
            setattr(target, name, nn.Parameter(value.detach().clone()))

    other, _ = train(case, plain, at, static)
    target = other.get_submodule(at)
    leaves = dict(layer.named_parameters())
    grads = torch.autograd.grad(
        [effective["weight"], effective["bias"]],
        list(leaves.values()),
        [target.weight.grad, target.bias.grad],
    )
    expected = dict(zip(leaves, grads, strict=True))
    assert_same(expected, {k: p.grad for k, p in leaves.items()}, rtol=1e-8)
    rest = [n for n, _ in other.named_parameters() if not n.startswith(f"{at}.")]
    assert_same(
        {n: other.get_parameter(n).grad for n in rest},
        {n: network.get_parameter(n).grad for n in rest},
    )


def test_computed_weights_of_convolutions() -> None:
    """Weight and gain, at a time; several steps of an optimiser train them."""
    from reference.clocked_cases import build_pictures

    network, rule = build_pictures("opzo", "conv")
    x, y = make_pictures()
    prune.l1_unstructured(network.conv2, "weight", 0.5)
    parametrize.register_parametrization(network.conv1, "gain", Squared())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):
        optimizer.zero_grad()
        rule.step(x, y)
        optimizer.step()
    after = network.state_dict()
    mask = before["conv2.weight_mask"] == 0
    moved = (after["conv2.weight_orig"] != before["conv2.weight_orig"]) & ~mask
    assert moved.any() and mask.any()
    assert torch.equal(after["conv2.weight_orig"][mask], before["conv2.weight_orig"][mask])
    name = "conv1.parametrizations.gain.original"
    assert not torch.equal(after[name], before[name])


@static
def test_hooks_of_parameters_see_the_whole_gradient_once(static: bool) -> None:
    inputs, steps = (X[0], 20) if static else (X.repeat(4, 1, 1), None)
    _, plain = build("dfa")
    plain.step(inputs, Y, steps=steps)
    expected = {k: p.grad for k, p in plain.network.named_parameters()}
    network, rule = build("dfa")
    seen: list[Tensor] = []
    network.linear1.weight.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))
    network.linear1.bias.register_hook(lambda grad: grad * 2)
    network.readout.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    rule.step(inputs, Y, steps=steps)
    assert_same(
        {
            "weight": expected["linear1.weight"].clamp(-1e-3, 1e-3),
            "bias": expected["linear1.bias"] * 2,
            "readout": expected["readout.weight"],
        },
        {
            "weight": network.linear1.weight.grad,
            "bias": network.linear1.bias.grad,
            "readout": network.readout.weight.grad,
        },
    )
    assert len(seen) == 1 and torch.equal(seen[0], network.readout.weight.grad)


def test_a_synapse_of_ones_own_that_ignores_computed_weights_is_refused() -> None:
    class Plain(clocked.Linear):
        def add_weight_grad(self, delta: Tensor, trace: Tensor) -> None:
            grad = delta.flatten(0, -2).t() @ trace.flatten(0, -2)
            clocked.synapse.accumulate(self.weight, grad)

    network = nn.Sequential(Plain(7, 5), clocked.LIF(), clocked.Linear(5, 3)).double()
    clocked.DFA(network, input_shape=(7,)).step(X, Y)
    prune.random_unstructured(network[0], "weight", 0.5)
    with pytest.raises(InputError, match=r"self\.held"):
        clocked.DFA(network, input_shape=(7,)).step(X, Y)


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "read-out replaced": (
        lambda net: setattr(net, "readout", clocked.Linear(5, 3).double()),
        r"\['readout'\] were replaced",
    ),
    "neuron replaced": (
        lambda net: setattr(net, "lif2", clocked.LIF()),
        r"\['lif2'\] were replaced",
    ),
    "layer added": (
        lambda net: net.add_module("more", clocked.Linear(3, 3).double()),
        r"\['more'\] were replaced, added",
    ),
    "layer of PyTorch's added": (
        lambda net: net.add_module("more", nn.Linear(3, 3).double()),
        r"\['more'\] were replaced, added",
    ),
    "precision": (lambda net: net.float(), r"float64 .*network is torch.float32|are torch.float64"),
    "precision of a layer": (lambda net: net.linear2.float(), r"'linear2.weight' is torch.float32"),
    "leak out of range": (lambda net: setattr(net.lif1, "leak", 1.5), r"leak of layer 'lif1'"),
}


@every_rule
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_changes_that_are_refused(case: str, change: Any, message: str) -> None:
    network, rule = build(case)
    rule.step(X, Y)
    before = learned(rule)
    change(network)
    for _ in range(2):
        with pytest.raises(InputError, match=message):
            rule.step(X, Y)
    if "precision" not in message:
        after = {k: v for k, v in learned(rule).items() if k in before}
        assert all(torch.equal(v, before[k].to(v)) for k, v in after.items())


TAKEN_UP: dict[str, Callable[[Any], object]] = {
    "leak": lambda net: [setattr(m, "leak", 0.8) for m in (net.lif1, net.lif2)],
    "threshold": lambda net: setattr(net.lif1, "threshold", 0.7),
    "surrogate": lambda net: setattr(net.lif2, "surrogate_width", 0.5),
    "dropout": lambda net: setattr(net.lif2, "dropout", 0.3),
    "frozen": lambda net: net.linear1.requires_grad_(False),
    "weights": lambda net: net.load_state_dict({k: v * 1.1 for k, v in net.state_dict().items()}),
    "a weight of its own": lambda net: setattr(
        net.linear2, "weight", nn.Parameter(net.linear2.weight.detach() * 0.9)
    ),
    "pruned": lambda net: prune.l1_unstructured(net.linear2, "weight", 0.5),
    "weight norm": lambda net: parametrizations.weight_norm(net.linear1),
    "evaluation mode": lambda net: net.eval(),
}


@every_rule
@pytest.mark.parametrize("change", TAKEN_UP.values(), ids=TAKEN_UP)
def test_changes_that_are_taken_up(case: str, change: Any) -> None:
    """As by a rule that is built after the change, with the same feedback."""
    found = []
    for late in (True, False):
        network, rule = build(case)
        if not late:
            change(network)
            rule = make_rule(case, network)
        else:
            change(network)
        torch.manual_seed(5)
        rule.step(X, Y)
        found.append(learned(rule))
    assert_same(*found)


@every_rule
def test_both_moved_to_another_precision(case: str) -> None:
    network, rule = build(case)
    network.float()
    rule.float()
    rule.step(X.float(), Y)
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("local", [None, "same-weights", "learned"])
def test_frozen_parameters_of_a_rule_stay(local: str | None) -> None:
    network = clocked.fc(7, (6,), 3).double()
    rule = clocked.DKP(network) if local is None else clocked.OPZO(network, local_learning=local)
    rule.requires_grad_(False)
    rule.step(X * 3, Y)
    assert list(rule.parameters()) and all(p.grad is None for p in rule.parameters())
    assert all(p.grad is not None for p in network.parameters())
    assert "never: it is frozen" in rule.describe()


@pytest.mark.parametrize("name", clocked.RULES)
@pytest.mark.parametrize("call", ["step", "observe"])
def test_every_rule_says_what_to_do_instead_of_half_precision(name: str, call: str) -> None:
    network = clocked.fc(7, (6,), 3)
    rule = clocked.RULES[name](network)
    x, y = torch.rand(2, 7), torch.tensor([0, 1])
    given = {"steps": 2}
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(InputError, match=r"autocast is on.*matmul_precision\('medium'\)"),
    ):
        getattr(rule, call)(x, y, **given)
    for dtype in (torch.bfloat16, torch.float16):
        network.to(dtype)
        with pytest.raises(InputError, match=r"float16; feedback.*matmul_precision\('medium'\)"):
            getattr(rule, call)(x.to(dtype), y, **given)
    assert all(p.grad is None for p in network.parameters())


class Converting(nn.Module):
    """Converts between its layers, or computes them in half precision, as code for GPUs does."""

    input_shape = (7,)

    def __init__(self, convert: Callable[[Tensor], Tensor], at: str) -> None:
        super().__init__()
        self.convert, self.at = convert, at
        self.linear, self.lif, self.readout = clocked.Linear(7, 5), clocked.LIF(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.at == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                current = self.linear(x)
            return self.readout(self.lif(current.float()))
        current = self.linear(x)
        spikes = self.lif(self.convert(current) if self.at == "current" else current)
        output = self.readout(spikes.float())
        return self.convert(output) if self.at == "output" else output


@every_rule
@pytest.mark.parametrize("convert", [Tensor.double, Tensor.half, Tensor.bfloat16])
@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("current", r"hidden layer 'lif' a current in torch\.\w+, and .* torch\.float32"),
        ("output", r"output in torch\.\w+, and its parameters are torch\.float32"),
        ("autocast", r"autocast is on.* in the forward pass of the network.*GradScaler"),
    ],
)
def test_precisions_are_not_mixed_within_a_network(
    case: str, convert: Any, at: str, message: str
) -> None:
    network = Converting(convert, at)
    with pytest.raises(InputError, match=message):
        make_rule(case, network).step(X.float(), Y)
    assert all(p.grad is None for p in network.parameters())
    if at == "autocast":
        with pytest.raises(InputError, match=message):
            clocked.run(network, X.float())


@every_rule
def test_the_default_device_makes_no_difference(case: str) -> None:
    """A network on the CPU, where tensors are made elsewhere by default."""
    found = []
    for with_default in (False, True):
        network, rule = build(case, dtype=torch.float32, dropout=0.2)
        with torch.device("meta") if with_default else nullcontext():
            rule.step(X.float(), Y)
            make_rule(case, network)
        found.append(learned(rule))
    assert_same(*found)


def test_what_torch_compile_takes_in_gives_the_same_numbers() -> None:
    found = []
    for compiled in (False, True):
        network, rule = build("spatial-bp", dtype=torch.float32)
        x = X.float()

        def train(x: Tensor, rule: Any = rule, network: Any = network) -> Tensor:
            loss = rule.step(x * 2, Y).loss * 3
            loss = loss + rule.observe(x[0], Y).loss
            return loss + clocked.run(network, x).output.sum()

        loss = (torch.compile(train, backend="eager") if compiled else train)(x)
        step = torch.compile(rule.step, backend="eager") if compiled else rule.step
        result = step(x, Y)
        found.append({**learned(rule), "loss": loss.detach(), "output": result.output})
    assert_same(*found)


COMPILED: dict[str, Callable[[Any], object]] = {
    "network": lambda net: net.compile(backend="eager"),
    "layer": lambda net: net.linear2.compile(backend="eager"),
    "forward": lambda net: setattr(net, "forward", torch.compile(net.forward, backend="eager")),
}


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("which", COMPILED)
def test_compiled_forward_passes_are_refused(which: str, late: bool) -> None:
    network, rule = build("dfa")
    rule.step(X, Y)
    COMPILED[which](network)
    act = (lambda: rule.step(X, Y)) if late else (lambda: make_rule("dfa", network))
    with pytest.raises(InputError, match=r"is compiled .*give the plain module"):
        act()


def test_fake_quantised_activities_learn() -> None:
    """The ranges that an observer keeps are no state of the network."""
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    made = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, averaging_constant=0.5
    )
    torch.manual_seed(0)
    layers = [clocked.Linear(7, 5), made(), clocked.LIF(), clocked.Linear(5, 3)]
    network = nn.Sequential(*layers)
    rule = clocked.SpatialBP(network, input_shape=(7,))
    x = 3 * X.float()
    rule.step(x, Y)
    low, high = (
        network[1].activation_post_process.min_val,
        network[1].activation_post_process.max_val,
    )
    seen = [network[0](x_t).detach() for x_t in x]
    expected = seen[0].max()
    for current in seen[1:]:
        expected = expected + 0.5 * (current.max() - expected)
    torch.testing.assert_close(high, expected)
    assert low < high and network[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook"]
)
def test_backward_hooks_that_a_rule_would_not_call_are_refused(register: str) -> None:
    calls: list[int] = []
    for case in ("spatial-bp", "dfa", "opzo"):
        network, rule = build(case)
        getattr(network.lif1, register)(lambda *_: calls.append(1))
        if case == "spatial-bp":
            rule.step(X, Y)
            assert len(calls) == len(X)
            continue
        with pytest.raises(InputError, match=r"'lif1' has a backward hook, which \w+ never calls"):
            rule.step(X, Y)
    network, rule = build("dfa")
    getattr(network.linear2, register)(lambda *_: calls.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of inputs that need no gradient
        rule.step(X, Y)
    assert len(calls) == 2 * len(X)


def half(network: nn.Module, rule: clocked.Rule) -> None:
    network.half()
    rule.half()
    rule.step(X.half(), Y)


REFUSED: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "bfloat16": (lambda n, r: (n.bfloat16(), r.step(X.bfloat16(), Y)), "at least float32"),
    "float16": (half, "at least float32"),
    "rule in half precision": (lambda n, r: (r.half(), r.step(X, Y)), r"torch\.float16"),
    "complex": (lambda n, r: (n.to(torch.complex64), r.step(X, Y)), r"torch\.complex64"),
    "integers": (lambda n, r: r.step(X.long(), Y), r"torch\.int64"),
    "booleans": (lambda n, r: r.step(X > 0, Y), r"torch\.bool"),
    "sparse": (lambda n, r: r.step(X[0].to_sparse(), Y, steps=3), r"sparse.*to_dense"),
    "meta": (lambda n, r: r.step(X[0].to("meta"), Y, steps=3), "meta device"),
    "quantised": (
        lambda n, r: r.step(
            torch.quantize_per_tensor(X[0].float(), 0.1, 0, torch.qint8), Y, steps=3
        ),
        "quantised.*dequantize",
    ),
    "nested": (
        lambda n, r: r.step(torch.nested.nested_tensor([X[0], X[1]]), Y, steps=3), "nested"
    ),
    "None": (lambda n, r: r.step(None, Y, steps=3), "NoneType"),
    "sparse targets": (lambda n, r: r.step(X, Y.to_sparse()), "targets are sparse"),
    "meta targets": (lambda n, r: r.step(X, Y.to("meta")), "targets are on the meta"),
    "autocast": (lambda n, r: torch.autocast("cpu")(r.step)(X, Y), "autocast"),
    "autocast of a run": (
        lambda n, r: torch.autocast("cpu")(clocked.run)(n, X), "autocast"
    ),
    "inference mode": (lambda n, r: torch.inference_mode()(r.step)(X, Y), "inference_mode"),
    "built in inference mode": (
        lambda n, r: torch.inference_mode()(clocked.DFA)(n), "inference_mode"
    ),
    "meta network": (lambda n, r: clocked.DFA(n.to("meta")), "meta"),
    "DataParallel": (lambda n, r: clocked.DFA(nn.DataParallel(n)), r"network\.module"),
    "compiled": (lambda n, r: clocked.DFA(torch.compile(n)), "compiled"),
    "no module": (lambda n, r: clocked.DFA(lambda x: x), "expected a torch.nn.Module"),
    "a loss of PyTorch's": (
        lambda n, r: clocked.DFA(n, loss=nn.NLLLoss()), "CrossEntropyLoss makes them of the output"
    ),
    "a mean loss": (
        lambda n, r: clocked.DFA(n, loss=clocked.from_autograd(nn.CrossEntropyLoss())).step(X, Y),
        'reduction="none"',
    ),
    "a loss without error": (
        lambda n, r: clocked.DFA(n, loss=lambda o, y: o.sum(1)).step(X, Y), "expected losses"
    ),
    "a list that is too short": (
        lambda n, r: r.step(list(X[:2]), Y, steps=4, after_step=lambda: 1 / 0), "after 2 time steps"
    ),
    "no loss": (lambda n, r: clocked.DFA(n, loss="cross-entropy"), "the loss is str; expected a"),
    "a network that writes to its input": (
        lambda n, r: clocked.DFA(
            nn.Sequential(nn.ReLU(inplace=True), *n), input_shape=(7,)
        ).step(X, Y),
        "changes its input in place",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused(act: Any, message: str) -> None:
    network, rule = build("dfa")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of quantised and nested tensors
        with pytest.raises(InputError, match=message):
            act(network, rule)


def test_a_constant_input_stays_what_it_was() -> None:
    """Whoever fills its memory anew while the rule works, as readers of NumPy buffers do."""
    found = []
    for change in (False, True):
        _, rule = build("dfa")
        buffer = X[0].numpy().copy()

        def fill(buffer: Any = buffer, change: bool = change) -> None:
            buffer[...] *= 1 + change

        rule.step(torch.from_numpy(buffer), Y, steps=4, after_step=fill)
        found.append(learned(rule))
    assert_same(*found)


def test_a_network_that_writes_to_its_input_leaves_the_data_alone() -> None:
    """Found when the rule is built, on an input of its own."""
    network = nn.Sequential(nn.ReLU(inplace=True), clocked.Linear(7, 3)).double()
    data = X.clone()
    with pytest.raises(InputError, match="in place"):
        clocked.DFA(network, input_shape=(7,)).step(data, Y)
    assert torch.equal(data, X)


def test_distributed_data_parallel_is_refused() -> None:
    """By its name: making one needs a process group."""
    wrapped = type("DistributedDataParallel", (nn.Module,), {})()
    wrapped.module = clocked.fc(7, (6,), 3)
    with pytest.raises(InputError, match=r"network\.module.*rule\.join"):
        clocked.OPZO(wrapped)


@pytest.mark.parametrize("shape", [(9, 1, 8, 8), (9, 8, 8), (9, 1, 2, 32)])
@pytest.mark.parametrize("sequential", [True, False])
def test_images_without_steps(shape: tuple[int, ...], sequential: bool) -> None:
    network = clocked.fc(64, (6,), 3)
    if sequential:
        network = nn.Sequential(*network)
    images, labels = torch.rand(shape), torch.zeros(9, dtype=torch.int64)
    with pytest.raises(InputError, match="steps"):
        clocked.run(network, images)
    with pytest.raises(InputError, match="steps"):
        clocked.DFA(network, input_shape=(64,)).step(images, labels)
    if len(shape) == 4:
        assert clocked.run(network, images, steps=2).output.shape == (9, 3)


@pytest.mark.parametrize("shape", [(9, 1, 64), (9, 2, 64), (9, 2, 1, 8, 8), (9, 2, 8, 8)])
def test_sequences_are_not_taken_for_batches(shape: tuple[int, ...]) -> None:
    network = clocked.fc(64, (6,), 3)
    result = clocked.run(network, torch.rand(shape))
    assert result.steps == 9 and result.output.shape == (shape[1], 3)


def test_a_run_in_half_precision_sums_in_single() -> None:
    """257 spikes of a read-out of 1 are 257, which bfloat16 does not know."""
    layer = clocked.Linear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    network = nn.Sequential(layer).bfloat16()
    result = clocked.run(network, torch.ones(1, 1, dtype=torch.bfloat16), steps=257)
    assert result.output.tolist() == [[257.0, 257.0]]


@every_rule
def test_the_default_precision_makes_no_difference(case: str) -> None:
    found = []
    for default in (torch.float32, torch.float64):
        network, rule = build(case, dtype=torch.float32)
        torch.set_default_dtype(default)
        try:
            rule = make_rule(case, network)
            torch.manual_seed(2)
            result = rule.step(X.float(), Y)
            clocked.run(network, X.float(), targets=Y)
        finally:
            torch.set_default_dtype(torch.float32)
        assert result.output.dtype == result.loss.dtype == torch.float32
        assert all(v.dtype == torch.float32 for v in result.firing_rates.values())
        found.append(learned(rule))
    assert all(torch.equal(found[0][k], v) for k, v in found[1].items())


class Replaced(nn.Module):
    """Runs a network with other values than those that its layers hold."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.input_shape = network, network.input_shape

    def forward(self, x: Tensor) -> Tensor:
        values = {name: p.detach() * 0.5 for name, p in self.network.named_parameters()}
        return torch.func.functional_call(self.network, values, (x,))  # type: ignore[no-any-return]


@pytest.mark.parametrize("steps", [1, 9])
def test_weights_that_a_layer_only_borrows_are_refused(steps: int) -> None:
    """The gradient would be that of other values, and go to the layer's own."""
    network = Replaced(make_network())
    rule = clocked.DFA(network)
    x, y = make_data(steps)
    for call in (lambda: rule.step(x, y), lambda: rule.observe(x[0], y)):
        with pytest.raises(InputError, match="had other weights in the time step than it has now"):
            call()
        assert all(p.grad is None for p in network.parameters())
    assert clocked.run(network, x).output.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("foreign", [False, True])
def test_half_precision_loses_no_spikes(dtype: torch.dtype, foreign: bool) -> None:
    """There are more than float16 can hold, and bfloat16 would count no further than 256."""
    torch.manual_seed(0)
    neuron: nn.Module = clocked.LIF()
    if foreign:
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron").IFNode()
    network = nn.Sequential(nn.Linear(7, 2000), neuron, nn.Linear(2000, 3)).to(dtype)
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.copy_((torch.arange(2000) < 1300) * 3.0)
    rates = clocked.run(network.eval(), torch.zeros(64, 7, dtype=dtype), steps=4).firing_rates
    assert float(rates["1"]) == pytest.approx(0.65, abs=1e-6)
