"""Bad input to a step or a stream: the right error, its message, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference.clocked_cases import STEPS, build, make_data
from torch import Tensor, nn

from threefactor import clocked
from threefactor.errors import InputError, ThreefactorError

NAN, INF = float("nan"), float("inf")


def assert_untouched(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        assert parameter.grad is None, f"{name} has a gradient"
    for layer in network.modules():
        kinds = ("state", "gate", "probe", "pathway")
        assert all(getattr(layer, kind, None) is None for kind in kinds), layer


def with_value(value: float, at: int = 0) -> Tensor:
    x = make_data()[0].clone()
    x[at, 1, 2] = value
    return x


def ends_early() -> Iterator[Tensor]:
    yield from make_data()[0][:3]


X, Y = make_data()
Arguments = tuple[Any, Any, Any]
# What is given: inputs, targets, steps; and what the message must name.
BAD_STEPS: dict[str, tuple[Arguments, str]] = {
    "five values for seven": ((X[0, :, :5], Y, 5), r"shape \(4, 5\); expected \(batch, 7\)"),
    "five values, sequence": ((X[..., :5], Y, None), r"shape \(4, 5\); expected \(batch, 7\)"),
    "constant without steps": ((X[0], Y, None), r"shape \(7,\); expected \(batch, .*steps=T"),
    "one sample, no batch": ((X[0, 0], Y, 5), r"shape \(7,\); expected \(batch, \.\.\.\)"),
    "sequence with steps": ((X, Y, 5), r"expected"),
    "uint8 images": ((X[0].to(torch.uint8), Y, 5), r"torch\.uint8 .* network is torch\.float64"),
    "int64 images": ((X[0].long(), Y, 5), r"torch\.int64 .* network is torch\.float64"),
    "bool spikes": ((X > 0, Y, None), r"torch\.bool .* network is torch\.float64"),
    "single precision": ((X.float(), Y, None), r"torch\.float32 .* torch\.float64; use inputs\.to"),
    "int32 targets": ((X, Y.int(), None), r"torch\.int32; expected .*torch\.int64"),
    "float targets": ((X, Y.double(), None), r"torch\.float64; expected .*torch\.int64"),
    "one-hot targets": ((X, torch.eye(3)[Y], None), r"shape \(4, 3\); expected .*shape \(4,\)"),
    "too few targets": ((X, Y[:3], None), r"shape \(3,\); expected .*shape \(4,\)"),
    "label -1": ((X, torch.tensor([0, -1, 1, 2]), None), r"between -1 and 2; .*3 outputs .*0 to 2"),
    "label m": ((X, torch.tensor([0, 1, 2, 3]), None), r"between 0 and 3; .*classes 0 to 2"),
    "nested": ((torch.nested.nested_tensor([X[0], X[1]]), Y, None), r"inputs are nested; .*pad"),
    "NaN constant": ((with_value(NAN)[0], Y, 5), r"1 NaN or infinite value"),
    "NaN sequence": ((with_value(NAN), Y, None), r"1 NaN or infinite value"),
    "infinite": ((with_value(INF), Y, None), r"1 NaN or infinite value"),
    "two infinities": ((with_value(-INF) + with_value(INF), Y, None), r"1 NaN or infinite value"),
    "T = 0": ((X[0], Y, 0), r"steps is 0; .* at least 1"),
    "T = -1": ((X[0], Y, -1), r"steps is -1; .* at least 1"),
    "T = 2.5": ((X[0], Y, 2.5), r"steps is 2\.5; .*whole number"),
    "T = True": ((X[0], Y, True), r"steps is True; .*whole number"),
    "T = NaN": ((X[0], Y, NAN), r"steps is nan; .*whole number"),
    "T = infinity": ((X[0], Y, INF), r"steps is inf; .*whole number"),
    "T = '5'": ((X[0], Y, "5"), r"steps is .*5.*; .*whole number"),
    "batch of 0": ((X[0, :0], Y[:0], 5), r"shape \(0, 7\); expected .*at least one sample"),
    "sequence, batch of 0": ((X[:, :0], Y[:0], None), r"shape \(0, 7\).*at least one sample"),
    "empty sequence": ((X[:0], Y, None), r"no time step"),
    "empty list": (([], Y, None), r"no time step"),
    "empty list with steps": (([], Y, 5), r"ended after 0 time steps; expected 5"),
    "no length": ((iter(X), Y, None), r"has no length; give steps=T"),
    "NumPy array": ((X.numpy(), Y, None), r"(?i)ndarray.*expected"),
    "list of numbers": (([1.0, 2.0], Y, None), r"(?i)float.*expected"),
    "list of targets": ((X, Y.tolist(), None), r"(?i)list.*expected"),
    "single number": ((X[0, 0, 0], Y, None), r"expected \(batch"),
}


def case_names(table: dict[str, Any]) -> list[str]:
    return [name.replace(" ", "-") for name in table]


@pytest.mark.parametrize(("given", "message"), BAD_STEPS.values(), ids=case_names(BAD_STEPS))
def test_bad_input_to_step(given: Arguments, message: str) -> None:
    network, rule = build("opzo", dropout=0.3)
    inputs, targets, steps = given
    with pytest.raises(InputError, match=message):
        rule.step(inputs, targets, steps=steps)
    assert_untouched(network)
    assert rule.feedback[0].matrix.abs().max() == 0
    rule.step(X, Y)  # still works
    assert network.linear1.weight.grad is not None


ABOUT_INPUTS = {k: v for k, v in BAD_STEPS.items() if "target" not in k and "label" not in k}


@pytest.mark.parametrize(("given", "message"), ABOUT_INPUTS.values(), ids=case_names(ABOUT_INPUTS))
def test_bad_input_to_run(given: Arguments, message: str) -> None:
    network, _ = build("opzo", dropout=0.3)
    inputs, _, steps = given
    if isinstance(inputs, Iterator):
        inputs = iter(X)
    with pytest.raises(InputError, match=message):
        clocked.run(network, inputs, steps=steps)
    assert_untouched(network)


ONE_STEP: dict[str, tuple[Arguments, str]] = {
    "shape": ((X[0, :, :5], Y, 5), r"shape \(4, 5\); expected \(batch, 7\)"),
    "no batch": ((X[0, 0], Y, 5), r"shape \(7,\); expected \(batch"),
    "dtype": ((X[0].int(), Y, 5), r"torch\.int32 .* torch\.float64"),
    "labels": ((X[0], Y + 3, 5), r"classes 0 to 2"),
    "target dtype": ((X[0], Y.int(), 5), r"torch\.int32; expected"),
    "NaN": ((with_value(NAN)[0], Y, 5), r"1 NaN or infinite"),
    "steps 0": ((X[0], Y, 0), r"steps is 0"),
    "steps 2.5": ((X[0], Y, 2.5), r"steps is 2\.5"),
    "steps True": ((X[0], Y, True), r"steps is True"),
    "steps NaN": ((X[0], Y, NAN), r"steps is nan"),
    "batch of 0": ((X[0, :0], Y[:0], 5), r"at least one sample"),
}


@pytest.mark.parametrize(("given", "message"), ONE_STEP.values(), ids=case_names(ONE_STEP))
def test_bad_input_to_observe(given: Arguments, message: str) -> None:
    network, rule = build("opzo", dropout=0.3)
    x_t, targets, steps = given
    with pytest.raises(InputError, match=message):
        rule.observe(x_t, targets, steps=steps)
    assert_untouched(network)


def test_whole_number_given_as_float() -> None:
    """What the check of `steps` lets through must work."""
    network, rule = build("dfa")
    other, expected = build("dfa")
    rule.step(X[0], Y, steps=5.0)
    expected.step(X[0], Y, steps=5)
    assert torch.equal(network.linear1.weight.grad, other.linear1.weight.grad)


def test_input_error_is_both() -> None:
    """Both a ThreefactorError, which the command line prints, and a ValueError."""
    assert issubclass(InputError, ThreefactorError) and issubclass(InputError, ValueError)


LATE: dict[str, tuple[Callable[[], Any], str]] = {
    "ends early": (ends_early, r"ended after 3 time steps; expected 5"),
    "NaN at step 3": (lambda: with_value(NAN, at=2), r"NaN"),
    "width changes": (lambda: [X[0], X[1], X[2, :, :5], X[3], X[4]], r"shape \(4, 5\)"),
    "batch changes": (lambda: [X[0], X[1], X[2, :3], X[3], X[4]], r"3.*4"),
    "batch shrinks to 1": (lambda: [X[0], X[1], X[2, :1], X[3], X[4]], r"1.*4"),
    "dtype changes": (lambda: [X[0], X[1].float(), X[2], X[3], X[4]], r"torch\.float32"),
}


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize(("make", "message"), LATE.values(), ids=case_names(LATE))
@pytest.mark.parametrize("hidden", [(6, 5), ()], ids=["hidden", "no-hidden"])
def test_fault_in_a_later_element(
    make: Callable[[], Any], message: str, hidden: tuple[int, ...]
) -> None:
    """Documented: `.grad` may have changed by then. The network is at rest all the same."""
    network, rule = build("dfa", hidden)
    with pytest.raises(InputError, match=message):
        rule.step(make(), Y, steps=None if isinstance(make(), Tensor) else STEPS)
    network.zero_grad()
    assert_untouched(network)
    with pytest.raises(InputError, match=message):
        clocked.run(network, make(), steps=None if isinstance(make(), Tensor) else STEPS)
    assert_untouched(network)
