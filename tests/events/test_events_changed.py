"""Networks, weights and spikes that change after they were made: taken as they are, or refused."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.events_cases import (
    assert_alive,
    assert_equal_spikes,
    make_inputs,
    make_labels,
    make_network,
    rule_of,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader

from threefactor import clocked, events
from threefactor.errors import ConfigurationError, InputError
from threefactor.events import SpikeBatch, kernels

every_rule = pytest.mark.parametrize("name", events.RULES)
SIZES = (6, 5, 4, 3)


def step(rule: events.Rule) -> events.Result:
    torch.manual_seed(5)
    return rule.step(make_inputs(seed=13), make_labels())


# Weights


def replaced(*shape: int) -> Callable[[events.Network], Any]:
    return lambda net: setattr(net.lif1, "weight", nn.Parameter(torch.rand(shape).double()))


def set_data(values: Tensor) -> Callable[[events.Network], Any]:
    return lambda net: setattr(net.lif1.weight, "data", values)


def as_weight(values: Any) -> Callable[[events.Network], Any]:
    def change(net: events.Network) -> None:
        del net.lif1.weight
        net.lif1.weight = values

    return change


DOUBLES = torch.rand(64).double()
CHANGED_WEIGHTS: dict[str, tuple[Callable[[events.Network], Any], str]] = {
    "fewer inputs": (replaced(4, 5), r"weight has shape \(4, 5\); expected \(6, 5\)"),
    "more neurons": (replaced(6, 700), r"weight has shape \(6, 700\); expected \(6, 5\)"),
    "fewer neurons": (replaced(6, 3), r"weight has shape \(6, 3\)"),
    "a vector": (replaced(30), r"weight has shape \(30,\)"),
    "empty": (replaced(0, 5), r"weight has shape \(0, 5\)"),
    "other data": (set_data(torch.rand(2, 5).double()), r"weight has shape \(2, 5\)"),
    "expanded": (set_data(DOUBLES[:1].expand(6, 5)), r"weight has the strides \(0, 0\)"),
    "overlapping": (
        set_data(DOUBLES.as_strided((6, 5), (1, 1))),
        r"weight has the strides \(1, 1\)",
    ),
    "every other": (set_data(DOUBLES[:60].view(6, 10)[:, ::2]), r"weight has the strides"),
    "sparse": (as_weight(torch.rand(6, 5).double().to_sparse()), "weight is torch.sparse_coo"),
    "integers": (as_weight(torch.ones(6, 5, dtype=torch.int64)), "weight is torch.int64"),
    "booleans": (as_weight(torch.ones(6, 5, dtype=torch.bool)), "weight is torch.bool"),
    "complex": (as_weight(torch.ones(6, 5, dtype=torch.complex64)), "weight is torch.complex64"),
    "array": (as_weight(np.ones((6, 5))), "weight is a ndarray; expected a tensor"),
    "nothing": (as_weight(None), "weight is a NoneType; expected a tensor"),
    "infinite": (set_data(torch.full((6, 5), np.inf).double()), "hold NaN or infinite values"),
    "more neurons said": (
        lambda net: setattr(net.lif1, "neurons", 9),
        r"expected \(6, 9\)|replaced or changed",
    ),
}


@pytest.mark.parametrize("use", ["run", *events.RULES])
@pytest.mark.parametrize(("change", "message"), CHANGED_WEIGHTS.values(), ids=CHANGED_WEIGHTS)
def test_changed_weights(use: str, change: Callable[[events.Network], Any], message: str) -> None:
    """After the rule has worked, so that working memory has the old sizes."""
    net, inputs = make_network(), make_inputs(seed=13)
    rule = None if use == "run" else rule_of(use, net)
    for changed in (False, True):
        if changed:
            change(net)
            with pytest.raises(InputError, match=message):
                events.run(net, inputs) if rule is None else step(rule)
        else:
            events.run(net, inputs) if rule is None else step(rule)


@every_rule
@pytest.mark.parametrize("layer", ["lif1", "readout"])
def test_replaced_layers_learn(name: str, layer: str) -> None:
    """The gradients are those of a rule that was built afterwards."""
    grads = []
    for late in (True, False):
        net = make_network(SIZES, seed=3)
        rule = rule_of(name, net) if late else None
        old = getattr(net, layer)
        new = events.Layer(
            old.in_features, old.neurons, tau_s=0.03, threshold=0.02, duration=0.12
        ).double()
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            new.weight.uniform_(-0.5, 1.5, generator=generator)
        setattr(net, layer, new)
        rule = rule or rule_of(name, net)
        assert_alive(step(rule), least=0.1)
        assert rule.layers == list(net.children())
        grads.append([p.grad for p in net.parameters()])
    assert all(map(torch.equal, *grads)) and all(g.abs().max() > 0 for g in grads[0])


@pytest.mark.parametrize("name", ["dfa", "sfdfa"])
@pytest.mark.parametrize("change", ["wider", "gone", "added", "outputs", "feedback"])
def test_feedback_of_other_sizes_is_refused(name: str, change: str) -> None:
    net = make_network(SIZES, seed=3)
    rule = rule_of(name, net)
    step(rule)
    net.zero_grad()
    layer = {"tau_s": 0.02, "threshold": 0.012, "duration": 0.12}
    if change == "wider":
        net.lif1, net.lif2 = events.Layer(6, 7, **layer), events.Layer(7, 4, **layer)
    elif change == "gone":
        del net.lif2
        net.readout = events.Layer(5, 3, **layer)
    elif change == "added":
        net.append(events.Layer(3, 3, **layer))
    elif change == "outputs":
        net.readout = events.Layer(4, 7, **layer)
    else:
        rule.feedback[0].matrix = torch.rand(2, 2)
    net.double()
    with pytest.raises(InputError, match=r"replaced or changed after the rule was built; build a"):
        rule.step(make_inputs(seed=13), make_labels())
    assert all(p.grad is None for p in net.parameters())


def test_exact_bp_takes_the_network_as_it_is() -> None:
    net = make_network(SIZES, seed=3)
    rule = events.ExactBP(net)
    del net.lif2
    net.readout = make_network((5, 3), seed=4).readout
    step(rule)
    assert list(rule.layer_sizes) == ["lif1"] and rule.outputs == 3
    twin = copy.deepcopy(net)
    twin.zero_grad()
    step(events.ExactBP(twin))
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and b.grad.abs().max() > 0


@every_rule
def test_layers_of_two_precisions_run_but_do_not_learn(name: str) -> None:
    net = make_network(seed=3)
    rule = rule_of(name, net)
    net.readout.float()
    assert events.run(net, make_inputs(seed=13)).output.dtype == torch.float32
    with pytest.raises(InputError, match=r"lif1 is torch.float64 and readout torch.float32"):
        step(rule)


def test_frozen_feedback_stays() -> None:
    """`requires_grad_(False)` freezes what SFDFA learns, and draws nothing."""
    rule = rule_of("sfdfa", make_network(SIZES, seed=3), feedback_lr=0.1)
    rule.requires_grad_(False)
    kept, random = [b.matrix.clone() for b in rule.feedback], torch.get_rng_state()
    rule.step(make_inputs(seed=13), make_labels())
    assert all(map(torch.equal, (b.matrix for b in rule.feedback), kept))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad.abs().max() > 0 for p in rule.network.parameters())
    pickle.loads(pickle.dumps(rule)).step(make_inputs(seed=13), make_labels())
    rule.requires_grad_(True).step(make_inputs(seed=13), make_labels())
    assert not any(map(torch.equal, (b.matrix for b in rule.feedback), kept))


def test_the_rate_of_the_feedback_may_be_changed() -> None:
    """From the next step on, as all settings; not where it has changed with the progress."""
    given, labels, moved = make_inputs(seed=13), make_labels(), {}
    for rate in (0.0, 0.1, 0.4):
        net = make_network(SIZES, seed=3)
        torch.manual_seed(5)
        rule = events.SFDFA(net, feedback_lr=0.1, feedback_lr_change=(0.5, 0.2))
        rule.feedback_lr = rate
        rule.step(given, labels)
        moved[rate] = rule.feedback[0].matrix.clone()
    assert not moved[0.0].any() and moved[0.1].any()
    torch.testing.assert_close(moved[0.4], 4 * moved[0.1])
    for progress, rate in ((0.7, 0.2), (0.8, 0.2), (0.2, 0.3)):
        rule.set_progress(progress)
        rule.feedback_lr = 0.3
        rule.step(given, labels)
        assert rule.optimizer.param_groups[0]["lr"] == rate
    for name, value in (
        ("feedback_lr", -1.0),
        ("feedback_first", 1),
        ("feedback_lr_change", [2.0, 1e-3]),
    ):
        other = rule_of("sfdfa", make_network(SIZES, seed=3))
        setattr(other, name, value)
        with pytest.raises(InputError, match=name):
            other.step(given, labels)


def test_weights_of_the_past_are_refused() -> None:
    """An activity shares the memory of the weights, which a step of an optimiser changes."""
    net = make_network(SIZES, seed=3)
    (first, *_) = net.run(make_inputs(seed=13))
    assert np.array_equal(first.weights, net.lif1.weight.detach().numpy())
    with torch.no_grad():
        net.lif1.weight.add_(1.0)
    with pytest.raises(InputError, match="the weights were changed after the layer ran"):
        _ = first.weights
    with torch.inference_mode():
        other = events.fc(2, (), 1, tau_s=0.1, thresholds=0.1, duration=0.1)
        (only,) = other.run(events.SpikeBatch.from_lists([[0.0]], [[0]], 2))
        assert only.weights.shape == (2, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: prune.random_unstructured(layer, "weight", 0.3),
        lambda layer: parametrizations.weight_norm(layer),
        lambda layer: parametrizations.spectral_norm(layer),
        lambda layer: layer.register_parameter("bias", nn.Parameter(torch.zeros(3))),
    ],
    ids=["prune", "weight_norm", "spectral_norm", "bias"],
)
@every_rule
def test_computed_weights_run_but_do_not_learn(name: str, change: Callable[[Any], Any]) -> None:
    net = make_network(seed=3)
    rule = rule_of(name, net)
    change(net.lif1)
    with pytest.raises(InputError, match=r"lif1 has the parameters \[.*no rule trains.*weight"):
        step(rule)
    with pytest.raises(InputError, match="no rule trains"):
        rule_of(name, net)
    assert all(p.grad is None for p in net.parameters())


def test_pruned_weights_run_as_they_are_now() -> None:
    """Also after the parameter behind them has changed, by whatever way they are run."""
    net, inputs = make_network(seed=3), make_inputs(seed=13)
    mask = (torch.arange(30).view(6, 5) % 3 > 0).double()
    prune.custom_from_mask(net.lif1, "weight", mask)
    plain = make_network(seed=3)
    for change in (1.0, 1.3):
        with torch.no_grad():
            net.lif1.weight_orig.mul_(change)
            plain.lif1.weight.mul_(change).mul_(mask)
        wanted = events.run(plain, inputs)
        assert_alive(wanted, least=0.1)
        assert torch.equal(events.run(net, inputs).output, wanted.output)
        assert_equal_spikes(net.lif1.run(inputs).spikes, wanted.spikes["lif1"])
        assert_equal_spikes(net(inputs), wanted.spikes["readout"])


@every_rule
@pytest.mark.parametrize("before", [False, True], ids=["fresh", "added"])
def test_hooks_of_weights(name: str, before: bool) -> None:
    """A hook changes the gradient as in `backward`: the way to train pruned weights."""
    net, plain = make_network(seed=3), make_network(seed=3)
    mask = (torch.arange(30).view(6, 5) % 3 > 0).double()
    rules = [rule_of(name, n) for n in (net, plain)]
    if before:
        for rule in rules:
            step(rule)
    seen: list[Tensor] = []
    net.lif1.weight.register_hook(lambda gradient: gradient * mask)
    net.readout.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    start = plain.lif1.weight.grad.clone() if before else 0.0
    for rule in rules:
        step(rule)
    wanted = start + (plain.lif1.weight.grad - start) * mask
    assert torch.equal(net.lif1.weight.grad, wanted) and (wanted - start).abs().max() > 0
    assert torch.equal(net.readout.weight.grad, plain.readout.weight.grad)
    assert len(seen) == 1 and torch.equal(seen[0], plain.readout.weight.grad)


def test_hooks_that_cannot_work_are_refused() -> None:
    net = make_network(seed=3)
    rule = rule_of("dfa", net)
    hook = net.lif1.register_full_backward_hook(lambda *_: None)
    with pytest.raises(InputError, match="lif1 has backward hooks"):
        step(rule)
    hook.remove()
    seen: list[int] = []
    net.lif1.register_forward_hook(lambda _, __, out: seen.append(len(out.times)))
    step(rule)
    assert seen and seen[0] > 3, "a hook that looks is called"
    net.lif1.register_forward_hook(lambda _, __, out: out[:])
    with pytest.raises(InputError, match="a hook replaces them"):
        step(rule)


@every_rule
def test_layer_in_two_places(name: str) -> None:
    """It gets the sum of the gradients of two layers of the same weights."""
    layer = make_network((5, 5), seed=3, shift=0.3, max_spikes=200).readout
    other = copy.deepcopy(layer)
    shared = events.Network(OrderedDict(a=layer, b=layer))
    apart = events.Network(OrderedDict(a=other, b=copy.deepcopy(layer)))
    inputs, labels = make_inputs(size=5, seed=13), make_labels(outputs=5)
    assert_equal_spikes(shared(inputs), apart(inputs))
    for net in (shared, apart):
        torch.manual_seed(5)
        assert_alive(rule_of(name, net).step(inputs, labels), least=0.1, most=60)
    wanted = sum(p.grad for p in apart.parameters())
    assert torch.equal(layer.weight.grad, wanted) and wanted.abs().max() > 0


HUGE = 1e308


@pytest.mark.parametrize("name", ["tau_s", "threshold", "duration", "max_spikes"])
@pytest.mark.parametrize(
    "value", [0, -1.0, np.nan, np.inf, "a", None, True, 10**400, HUGE, torch.tensor([0.1, 0.2])]
)
def test_settings_changed_to_nonsense(name: str, value: Any) -> None:
    net = make_network()
    setattr(net.lif1, name, value)
    if (name == "max_spikes" and value is True) or (name == "duration" and value is HUGE):
        return
    with pytest.raises(InputError):
        events.run(net, make_inputs(seed=13))


# Spikes


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("local_gradient", "Exact", "unknown local gradient 'Exact'; did you mean 'exact'"),
        ("rate_penalty", np.nan, "rate_penalty is nan"),
        ("rate_target", -1.0, "rate_target is -1.0"),
        ("traces", "Summed", "unknown kind of traces 'Summed'"),
        ("normalise_by_count", 1, "normalise_by_count is 1; give True or False"),
        ("loss", nn.MSELoss, "the loss is MSELoss"),
        ("loss", None, "the loss is NoneType"),
        ("loss", events.FirstSpike(0.05, 0.1), "the loss reads first spikes only"),
    ],
)
def test_rules_changed_to_nonsense(name: str, value: Any, message: str) -> None:
    net = make_network(SIZES)
    rule = events.DFA(net, traces="forward")
    setattr(rule, name, value)
    with pytest.raises((InputError, ConfigurationError), match=message):
        step(rule)
    assert all(p.grad is None for p in net.parameters())


class Told(events.FeedbackRule):
    """Gives the errors that a test says."""

    given: Any = None

    def layer_errors(self, trial: events.Trial) -> Any:
        return self.given(trial)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda trial: None, "layer_errors gave a NoneType; expected a list of one tensor"),
        (lambda trial: trial.counts[0], "layer_errors gave a Tensor; expected a list"),
        (lambda trial: [], "layer_errors gave a list, 0 of them"),
        (lambda trial: [c.to("meta") for c in trial.counts[:-1]], "cannot be read as an array"),
        (lambda trial: [c.to(torch.complex64) for c in trial.counts[:-1]], "expected real numbers"),
        (lambda trial: [c[:, :1].t() for c in trial.counts[:-1]], r"errors are .* of shape \(1"),
    ],
)
@pytest.mark.parametrize("traces", ["summed", "forward"])
def test_errors_of_own_rules_that_are_none(given: Any, message: str, traces: str) -> None:
    net = make_network(SIZES)
    rule = Told(net, traces=traces)
    rule.given = given
    with pytest.raises(InputError, match=message):
        step(rule)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("kind", ["integers", "read-only", "spread", "array"])
def test_errors_of_own_rules_in_another_form(kind: str) -> None:
    """Errors may be of another type or layout: the gradients are those of plain tensors."""

    def form(errors: Tensor) -> Any:
        if kind == "spread":
            return errors[:1].expand_as(errors)
        if kind == "read-only":
            array = errors.numpy().copy()
            array.flags.writeable = False
            return array
        return errors.long() if kind == "integers" else errors.numpy()

    found = []
    for as_given in (False, True):
        net = make_network(SIZES)
        rule = Told(net)
        rule.given = lambda trial, as_given=as_given: [
            form(trial.counts[i]) if as_given else torch.as_tensor(np.array(form(trial.counts[i])))
            for i in range(len(trial.counts) - 1)
        ]
        step(rule)
        found.append([p.grad for p in net.parameters()])
    for plain, other in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, other, rtol=0, atol=0)


class OtherLayer(events.Rule):
    """Gives a layer the activity of another."""

    def learn(self, trial: events.Trial) -> None:
        activity = trial.activities[-1]
        errors = trial.per_spike(-1, trial.error)
        weights = self.spike_weights(activity.layer, activity, errors)
        self.add_gradient(self.layers[0], activity, weights)


class HalfTheWeights(events.Rule):
    def learn(self, trial: events.Trial) -> None:
        activity = trial.activities[-1]
        errors = trial.per_spike(-1, trial.error)
        weights: Any = self.spike_weights(activity.layer, activity, errors)[0]
        self.add_gradient(activity.layer, activity, weights)


@pytest.mark.parametrize(
    ("rule", "message"),
    [(OtherLayer, "that of another layer"), (HalfTheWeights, "a pair of arrays")],
)
def test_gradients_given_in_another_way(rule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        step(rule(make_network(SIZES)))


def test_spikes_cannot_be_changed() -> None:
    times, addresses = np.array([0.1, 0.2]), np.array([0, 1], np.int32)
    offsets = np.array([0, 2])
    batch = SpikeBatch(offsets, times, addresses, 4)
    for given in (times, addresses, offsets):
        given[:] = 99
    tensor = torch.tensor([0.1, 0.2], dtype=torch.float64)
    other = SpikeBatch([0, 2], tensor, [0, 1], 4)
    tensor.fill_(99.0)
    run = events.run(make_network((4, 3), seed=3), make_inputs(size=4, seed=13))
    for spikes in (batch, other, batch[:], batch[[0]], run.spikes["readout"]):
        for name in ("offsets", "times", "addresses", "samples"):
            array = getattr(spikes, name)
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
            with pytest.raises(AttributeError):
                setattr(spikes, name, array)
        with pytest.raises(AttributeError):
            spikes.size = 9
    for spikes in (batch, other):
        assert spikes.times.tolist() == [0.1, 0.2] and spikes.addresses.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("addresses", 10**6), ("addresses", -(10**6)), ("offsets", 10**6), ("offsets", -(10**6)),
        ("times", np.nan), ("times", -1.0), ("times", 1e9),
    ],
)  # fmt: skip
@pytest.mark.parametrize("use", ["run", *events.RULES])
def test_spikes_changed_behind_the_back(use: str, name: str, value: float) -> None:
    """PyTorch writes to read-only memory; kernels look before they run."""
    net = make_network(seed=3)
    batch = make_inputs(seed=13)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(getattr(batch, name))[1] = value
    rule = None if use == "run" else rule_of(use, net)
    with pytest.raises(InputError, match=r"were changed after the SpikeBatch was made"):
        events.run(net, batch) if rule is None else rule.step(batch, make_labels())


def test_container() -> None:
    """A batch is a sequence of samples."""
    batch = SpikeBatch.from_lists([[0.1], [0.2, 0.3], []], [[0], [1, 2], []], 3)
    lists = [(t.tolist(), a.tolist()) for t, a in batch]
    assert lists == [([0.1], [0]), ([0.2, 0.3], [1, 2]), ([], [])]
    assert [(t.tolist(), a.tolist()) for t, a in reversed(batch)] == lists[::-1]
    assert [i for i, _ in zip(range(9), batch, strict=False)] == [0, 1, 2]
    assert batch[-2][0].tolist() == batch.sample(-2)[0].tolist() == [0.2, 0.3]
    for wrong in (3, -4, 10**30):
        for get in (batch.__getitem__, batch.sample):
            with pytest.raises(IndexError) as problem:
                get(wrong)
            assert isinstance(problem.value, InputError)
    together = SpikeBatch.from_lists(*zip(*batch, strict=True), size=3)
    assert_equal_spikes(together, batch)
    for index in (True, np.True_, (0, 1), None, ..., 1.0, torch.tensor([0, 1, 1]).byte(), "a"):
        with pytest.raises(InputError):
            batch[index]
    with pytest.raises(InputError, match="the sample is"):
        batch.sample([0])


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_copies_of_spikes(how: str) -> None:
    batch = make_inputs(seed=13)[1:3]
    twin = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda b: pickle.loads(pickle.dumps(b)),
    }[how](batch)
    assert_equal_spikes(twin, batch)
    assert twin.size == batch.size and not np.shares_memory(twin.times, batch.times)


def joined(samples: list[Any]) -> SpikeBatch:
    return SpikeBatch.from_lists(*zip(*samples, strict=True), size=6)


def test_workers_of_a_loader() -> None:
    batch = make_inputs(5, seed=13)
    loader = DataLoader(
        batch, batch_size=2, num_workers=1, collate_fn=joined, multiprocessing_context="spawn"
    )
    found = list(loader)
    assert [len(part) for part in found] == [2, 2, 1]
    for i, part in enumerate(found):
        assert_equal_spikes(part, batch[2 * i : 2 * i + 2])


# Rules as values


def every_option(name: str) -> dict[str, Any]:
    common = {"loss": events.SpikeCount(5, 1), "rate_penalty": 0.1, "rate_target": 0.2}
    more: dict[str, dict[str, Any]] = {
        "exact-bp": {"local_gradient": "modified"},
        "dfa": {"feedback_scale": 0.5, "traces": "forward", "local_gradient": "exact"},
        "sfdfa": {
            "feedback_lr": 0.1, "feedback_optimizer": "adam", "traces": "forward",
            "normalise_by_count": True, "feedback_lr_change": (0.5, 0.01),
            "feedback_first": True,
            "generator": torch.Generator().manual_seed(4),
        },
    }  # fmt: skip
    return common | more[name]


@every_rule
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_rules_with_every_option(name: str, how: str) -> None:
    rule = rule_of(name, make_network(SIZES, seed=3), **every_option(name))
    step(rule)
    twin = copy.deepcopy(rule) if how == "deepcopy" else pickle.loads(pickle.dumps(rule))
    for r in (rule, twin):
        r.network.zero_grad()
        step(r)
    for a, b in zip(rule.network.parameters(), twin.network.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and a is not b
    for a, b in zip(rule.buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b)


def test_state_of_another_optimiser_is_refused() -> None:
    sgd, adam = (
        rule_of("sfdfa", make_network(SIZES, seed=3), feedback_optimizer=kind)
        for kind in ("sgd", "adam")
    )
    step(adam)
    with pytest.raises(InputError, match="that of another one"):
        sgd.load_state_dict(adam.state_dict())
    damaged = copy.deepcopy(adam.state_dict())
    damaged["_extra_state"]["state"][0]["exp_avg"] = torch.zeros(2, 2)
    with pytest.raises(InputError, match="of other sizes"):
        adam.load_state_dict(damaged)
    for extra in ({}, {"state": 3, "param_groups": [{}]}, None):
        with pytest.raises(InputError, match="is damaged"):
            adam.set_extra_state(extra)
    step(adam)


# Losses, targets, precision


@pytest.mark.parametrize(
    "loss",
    [nn.NLLLoss(), nn.functional.cross_entropy, nn.CrossEntropyLoss, 3,
     lambda o, y: (o.sum(), o), lambda o, y: (o.sum(1), o[:1]), lambda o, y: (o.long(), o)],
    ids=["module", "function", "class", "number", "scalar", "shape", "integers"],
)  # fmt: skip
@every_rule
def test_other_losses_are_told_how(name: str, loss: Any) -> None:
    net = make_network(seed=3)
    with pytest.raises(InputError, match=r"(expected a function|Give one of) .*from_autograd"):
        step(rule_of(name, net, loss=loss))
    assert all(p.grad is None for p in net.parameters())


def test_loss_made_as_told() -> None:
    loss = clocked.from_autograd(nn.CrossEntropyLoss(reduction="none"))
    result = step(rule_of("exact-bp", make_network(seed=3), loss=loss))
    wanted = nn.functional.cross_entropy(result.output, make_labels())
    assert result.loss == pytest.approx(float(wanted))


def test_loss_that_works_in_place() -> None:
    """It gets a copy of the counts."""

    def loss(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        found = events.SpikeCount(5, 1)(output, targets)
        output.fill_(-7.0)
        return found

    rules = [
        rule_of("sfdfa", make_network(seed=3), loss=each)
        for each in (loss, events.SpikeCount(5, 1))
    ]
    results = [step(rule) for rule in rules]
    assert torch.equal(results[0].output, results[1].output) and results[0].output.sum() > 0


@pytest.mark.parametrize(
    "targets",
    [None, make_labels().to("meta"), torch.eye(4)[0].long().to_sparse(), torch.rand(4)],
    ids=["nothing", "meta", "sparse", "continuous"],
)
@every_rule
def test_targets_that_are_none(name: str, targets: Any) -> None:
    with pytest.raises(InputError, match="targets are"):
        rule_of(name, make_network(seed=3)).step(make_inputs(seed=13), targets)


@every_rule
def test_nothing_set_around_a_step_changes_it(name: str) -> None:
    """Autocast, inference mode, the default type of numbers, gradients off or on."""

    def learned() -> list[Tensor]:
        net = make_network(SIZES, seed=3, dtype=torch.float32)
        rule = rule_of(name, net, loss=clocked.from_autograd(lambda o, y: (o @ o.t()).sum(1)))
        step(rule)
        assert net.lif1.weight.dtype == torch.float32
        assert not any(p.grad.is_inference() for p in net.parameters())
        return [*(p.grad for p in net.parameters()), *rule.buffers()]

    plain = learned()
    assert all(x.abs().max() > 0 for x in plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, learned(), plain))
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            assert all(map(torch.equal, learned(), plain))
    net = make_network(SIZES, seed=3, dtype=torch.float32)
    rule = rule_of(name, net, loss=clocked.from_autograd(lambda o, y: (o @ o.t()).sum(1)))
    with torch.inference_mode():
        step(rule)
    assert all(map(torch.equal, [p.grad for p in net.parameters()], plain))
    torch.set_default_dtype(torch.float64)
    try:
        assert events.fc(4, (5,), 3, tau_s=0.1, thresholds=0.2, duration=0.2).lif1.weight.dtype == (
            torch.float32
        )
        assert all(map(torch.equal, learned(), plain))
    finally:
        torch.set_default_dtype(torch.float32)


# A silent output


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            [20.0, 30.0],
            r"all 2 input spikes come at or after the end .* the first at 20 s, the end",
        ),
        ([], "the batch holds no input spike"),
    ],
)
def test_inputs_that_nobody_sees_are_named(times: list[float], message: str) -> None:
    """Times in milliseconds, and no simulation that is long enough."""
    inputs = events.SpikeBatch.from_lists([times], [[0] * len(times)], 6)
    with pytest.warns(UserWarning, match=message):
        events.DFA(make_network(seed=3)).step(inputs, torch.tensor([0]))


@pytest.mark.parametrize("true", [0.12, 9.0])
def test_targets_after_the_end_are_refused(true: float) -> None:
    """No output can spike then."""
    net, inputs, labels = make_network(seed=3), make_inputs(seed=13), make_labels()
    loss = events.FirstSpike(true, 2 * true)
    with pytest.raises(InputError, match=rf"to {true} s, and the simulation ends at 0.12 s"):
        events.ExactBP(net, loss=loss).step(inputs, labels)
    with pytest.raises(InputError, match="give target times in seconds"):
        events.run(net, inputs, targets=labels, loss=loss)
    events.run(net, inputs, loss=loss)  # without targets nothing is drawn anywhere


@every_rule
def test_silent_output_is_named_once(name: str) -> None:
    """Until it spikes again."""
    net = make_network(seed=3)
    rule = rule_of(name, net)
    weights = net.readout.weight.detach().clone()

    def said() -> int:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            step(rule)
        assert all("output layer 'readout' spiked" in str(w.message) for w in found)
        return len(found)

    assert said() == 0
    for _ in range(2):
        net.readout.weight.data.fill_(-1.0)
        assert [said() for _ in range(3)] == [1, 0, 0]
        net.readout.weight.data.copy_(weights)
        assert said() == 0


# Arguments


ODD: dict[str, Callable[[], Any]] = {
    "a meta tensor": lambda: SpikeBatch(torch.zeros(2, device="meta"), [], [], 3),
    "a sparse tensor": lambda: SpikeBatch([0, 2], torch.rand(2).to_sparse(), [0, 1], 3),
    "ragged rows": lambda: SpikeBatch([0, 2], [[0.1], [0.1, 0.2]], [0, 1], 3),
    "masked times": lambda: SpikeBatch([0, 1], np.ma.array([0.1], mask=[True]), [0], 3),
    "huge size": lambda: SpikeBatch([0], [], [], 10**400),
    "lists of nothing": lambda: SpikeBatch.from_lists(None, None, 3),
    "no sensor": lambda: SpikeBatch.from_events([], None),
    "no recordings": lambda: SpikeBatch.from_events(3, 3),
    "no window": lambda: events.latency_code([[0.1]], None),
    "huge window": lambda: events.latency_code([[0.1]], 10**400),
    "weights beyond single precision": lambda: events.fc(
        4, (3,), 2, tau_s=0.1, thresholds=0.2, duration=0.2, weight_ranges=((0, 1e308),)
    ),
    "text as thresholds": lambda: events.fc(4, (3,), 2, tau_s=0.1, thresholds="0.2", duration=1),
    "hidden layers as text": lambda: events.fc(4, "35", 2, tau_s=0.1, thresholds=0.2, duration=1),
    "many neurons": lambda: events.fc(4, (10**12,), 2, tau_s=0.1, thresholds=0.2, duration=1),
    "text as a penalty": lambda: events.DFA(make_network(), rate_penalty="a"),
    "text as a scale": lambda: events.DFA(make_network(), feedback_scale="a"),
    "text as a rate": lambda: events.SFDFA(make_network(), feedback_lr="a"),
    "number for a switch": lambda: events.SFDFA(make_network(), feedback_first=1),
    "number as a generator": lambda: events.SFDFA(make_network(), generator=3),
    "text as a target": lambda: events.SpikeCount("a"),
    "fractional threads": lambda: events.set_num_threads(1.5),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_arguments(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError):
        make()


# Whatever the arrays hold


CHECKED = """
import importlib.util, runpy, sys

find, library = importlib.util.find_spec, sys.argv[1]

def found(name, package=None):
    spec = find(name, package)
    if name == "threefactor.events.kernels._library":
        spec.origin = library
    return spec

importlib.util.find_spec = found
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]


def fuzzed(command: list[str], **environment: str) -> None:
    """Feed anything to the kernels; more turns by THREEFACTOR_FUZZ=TURNS."""
    turns = os.environ.get("THREEFACTOR_FUZZ", "250")
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).with_name("fuzz_events.py")), "1", turns],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    right, refused = map(int, done.stdout.split())
    assert right > 20 and refused > 20


def test_whatever_the_arrays_hold() -> None:
    """Nothing is read or written beyond an array: a child that crashes would fail here."""
    fuzzed([], MALLOC_CHECK_="3")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sanitizers are loaded first")
def test_whatever_the_arrays_hold_with_every_access_checked(tmp_path: Path) -> None:
    """The same with kernels in which GCC checks every access, cast and sum of whole numbers."""
    library, sources = tmp_path / "checked.so", Path(kernels.__file__).parent.glob("*.c")
    gcc = ["gcc", "-std=gnu99", "-O1", "-fPIC", "-shared", *SANITIZERS]
    try:
        found = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        )
        subprocess.run(
            [*gcc, *map(str, sources), "-lm", "-o", str(library)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no gcc with sanitizers")
    fuzzed(
        ["-c", CHECKED, str(library)],
        LD_PRELOAD=found.stdout.strip(), ASAN_OPTIONS="detect_leaks=0",
    )  # fmt: skip
