"""By how much each presynaptic trace decays: the leak of the neurons that the synapse feeds."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from threefactor.clocked.constants import Constant, of_each, value_of
from threefactor.clocked.foreign.neurons import ForeignNeuron
from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError, unknown_name

__all__ = [
    "Decay",
    "TraceDecay",
    "Wiring",
    "activity_decay",
    "checked_decay",
    "decays",
]

OneDecay = float | Literal["per-neuron"]
TraceDecay = OneDecay | Mapping[str, OneDecay] | None
"""One for all traces, one by the name of a layer, or None for the neurons' leaks."""


class Decay(NamedTuple):
    """What one step leaves of a trace.

    Attributes:
        leak: lambda, the share of the trace that is kept.
        synaptic: alpha, that of the trace before it, where neurons have a synaptic current in front
            of the potential; None elsewhere.
        each: None if both are numbers; one that is learned on a GPU is a tensor (). "weight" if one
            is a tensor (n_out,) of the neurons behind, so that every weight has an eligibility of
            its own; "input" if one is a tensor with a value of each presynaptic neuron.
    """

    leak: float | Tensor
    synaptic: float | Tensor | None = None
    each: Literal["weight", "input"] | None = None

    @property
    def short(self) -> str:
        """The leak, and that of the synaptic current if there is one."""
        more = "" if self.synaptic is None else f" with {self.synaptic:g} of the synaptic current"
        return f"{self.leak:g}{more}"

    def __str__(self) -> str:
        if self.each is not None:
            return f"the leak of each neuron {'behind' if self.each == 'weight' else 'before'}"
        if self.synaptic is None:
            return f"{self.leak:g} a step"
        return f"{self.leak:g} a step, after a first trace by {self.synaptic:g}"


@dataclass(frozen=True)
class Wiring:
    """Which neuron layers a synapse layer meets first, on either side.

    Attributes:
        behind: for each synapse layer, the neuron layers that its current reaches.
        before: for each synapse layer, the neuron layers whose activity reaches it.
        aligned: pairs of a synapse and a neuron layer between which every value stays with its
            neuron: nothing but reshaping, factors, sums and batch norms.
        shapes: of the activity of each neuron layer, without the batch.
    """

    behind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aligned: frozenset[tuple[str, str]] = frozenset()
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)


def checked_decay(given: TraceDecay, layers: Sequence[str]) -> TraceDecay:
    """Return the option `trace_decay` of a rule, or refuse it.

    Args:
        given: the option.
        layers: names of the network's synapse and neuron layers.

    Raises:
        InputError: if a number is out of its range.
        ConfigurationError: if a layer is not known.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        return _checked("trace_decay", given)
    for name in given:
        if name not in layers:
            raise unknown_name("layer in trace_decay:", name, layers)
    return {name: _checked(f"trace_decay of {name!r}", value) for name, value in given.items()}


def _checked(what: str, value: object) -> OneDecay:
    if value == "per-neuron":
        return "per-neuron"
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and 0.0 <= float(value) <= 1:
        return float(value)
    raise InputError(f"{what} is {value!r}; give a number between 0 and 1, or 'per-neuron'")


def decays(
    given: TraceDecay,
    synapses: Sequence[str],
    neurons: Sequence[tuple[str, Neuron]],
    wiring: Wiring,
) -> dict[str, Decay]:
    r"""Return the decay of the trace of each synapse layer, by name.

    The potential of a neuron is :math:`u[t] = \sum_{\tau \le t} \lambda^{t-\tau} W s[\tau]`, the
    reset apart, so that a trace decays with the leak of the neurons that its synapses feed. A
    read-out feeds none, and its trace decays with the leak of the neurons that feed it.

    Args:
        given: as `checked_decay` returned it.
        synapses: names of the synapse layers.
        neurons: the neuron layers by name.
        wiring: which of them each synapse layer meets.

    Raises:
        InputError: if no decay follows, naming the layers.

    Source: Xiao et al. 2022 (OTTT), section 4.1, for one leak in the whole network.
    """
    silent = _are_silent(neurons)
    found = {}
    for name in synapses:
        choice = given.get(name) if isinstance(given, Mapping) else given
        if isinstance(choice, float):
            found[name] = Decay(choice)
        elif silent:
            found[name] = Decay(0.0)
        else:
            met = wiring.behind.get(name) or wiring.before.get(name) or [n for n, _ in neurons]
            layers = [(n, layer) for n, layer in neurons if n in met]
            found[name] = _common(name, layers, wiring, each=choice == "per-neuron")
    return found


def _common(
    synapse: str, neurons: Sequence[tuple[str, Neuron]], wiring: Wiring, *, each: bool
) -> Decay:
    """Return the decay of a trace that all these neurons ask for."""
    leaks = {name: _leak_of(name, neuron, each=each) for name, neuron in neurons}
    first, *others = leaks.values()
    if not others and first.each is None:
        return first
    if not others:
        return _of_each(synapse, *neurons[0], wiring)
    advice = (
        f"give trace_decay={{{synapse!r}: ...}}, a number for this layer, or trace_decay=..., one "
        "for all"
    )
    changing = [name for name, neuron in neurons if _learn_leaks(neuron)]
    if changing or any(decay.each for decay in leaks.values()):
        raise InputError(
            f"the trace of synapse layer {synapse!r} has one decay, and the neurons that it meets, "
            f"{', '.join(map(repr, leaks))}, may come to differ in their leaks, which they learn "
            f"or have one by one; {advice}"
        )
    if any(decay != first for decay in others):
        said = ", ".join(f"{decay.short} of {name!r}" for name, decay in leaks.items())
        raise InputError(
            f"the trace of synapse layer {synapse!r} has one decay, and the neurons that it meets "
            f"have different leaks, {said}; {advice}"
        )
    return first


def _of_each(synapse: str, name: str, neuron: Neuron, wiring: Wiring) -> Decay:
    """Return the decays of a synapse layer that meets a layer with leaks one by one."""
    if (synapse, name) not in wiring.aligned:
        raise InputError(
            f"the neurons of layer {name!r} differ in their leaks, and what lies between them and "
            f"synapse layer {synapse!r} may mix them, so that no decay follows for a neuron; give "
            f"trace_decay={{{synapse!r}: ...}}, a number"
        )
    decay, shape = _leak_of(name, neuron, each=True), wiring.shapes[name]

    def spread(value: float | Tensor) -> float | Tensor:
        if not isinstance(value, Tensor):
            return value
        return of_each("leak", value, shape).expand(shape).reshape(-1)

    synaptic = None if decay.synaptic is None else spread(decay.synaptic)
    side: Literal["weight", "input"] = "weight" if wiring.behind.get(synapse) else "input"
    return Decay(spread(decay.leak), synaptic, side)


def _leak_of(name: str, neuron: Neuron, *, each: bool = False) -> Decay:
    """Return the decay that a layer of neurons asks of the traces in front of it.

    Args:
        name: of the layer.
        neuron: the layer.
        each: whether its neurons may differ.

    Raises:
        InputError: if no decay follows.
    """
    leak, synaptic = value_of(neuron, "leak"), value_of(neuron, "synaptic_leak")
    if type(leak) is float and synaptic is None and 0.0 <= leak <= 1.0:
        return Decay(leak)  # as nearly always, and asked in every time step of a stream
    advice = f"give trace_decay=..., or trace_decay={{...}} with the layers that meet {name!r}"
    if leak is None and not neuron.foreign:
        raise InputError(
            f"layer {name!r}, a {type(neuron).__name__}, has no attribute leak from which the "
            "decay of the presynaptic traces follows; set it to the share of the potential that "
            f"stays from step to step, 0.0 if none does, or {advice}"
        )
    if leak is None and isinstance(neuron, ForeignNeuron) and neuron.altered():
        raise InputError(
            f"layer {name!r}, a {type(neuron.module).__name__}, has {', '.join(neuron.altered())} "
            f"of its own in the place of its library's, so that the decay of the presynaptic "
            f"traces is not known; {advice}, or describe its class with clocked.register_neuron"
        )
    if leak is None:
        raise InputError(
            f"layer {name!r} has no single leak from which the decay of the presynaptic traces "
            f"follows; {advice}"
        )
    found: list[float | Tensor | None] = []
    for which, value in (("leak", leak), ("synaptic_leak", synaptic)):
        if value is None:
            found.append(None)
            continue
        if isinstance(value, Tensor) and value.dim() == 0 and _is_checked(neuron, which):
            found.append(value)
            continue
        if isinstance(value, Tensor) and value.numel() > 0 and not neuron.foreign:
            learns = f"raw_{which}" in neuron.learned
            if not learns and bool((value == value.flatten()[0]).all()):
                value = value.flatten()[0].item()
            elif each:
                found.append(value)
                continue
            else:
                raise InputError(
                    f"the neurons of layer {name!r} {'may come to ' * learns}differ in their "
                    f"{which}, so that no one decay of a presynaptic trace follows; give a "
                    f"number, trace_decay=... or trace_decay={{...}} for what meets {name!r}, or "
                    "trace_decay='per-neuron', with which every weight of a linear layer in front "
                    "has an eligibility of its own (batch x neurons x inputs numbers)"
                )
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InputError(
                f"the {which} of layer {name!r} is a {type(value).__name__}, from which no decay "
                f"of the presynaptic traces follows; {advice}"
            )
        if not 0.0 <= float(value) <= 1.0:
            raise InputError(
                f"the {which} of layer {name!r} is {value}, and a trace decays by a number between "
                f"0 and 1; {advice}"
            )
        found.append(float(value))
    first, second = found
    assert first is not None
    differ = any(isinstance(value, Tensor) and value.dim() > 0 for value in found)
    return Decay(first, second, "weight" if differ else None)


def _is_checked(neuron: Neuron, which: str) -> bool:
    """Return whether a constant is in its range, which its layer sees to."""
    return isinstance(getattr(type(neuron), which, None), Constant)


def activity_decay(given: TraceDecay, name: str, neurons: Sequence[tuple[str, Neuron]]) -> Decay:
    """Return the decay of the trace of a layer's own activity, that of a read-out of the layer.

    Args:
        given: as `checked_decay` returned it.
        name: of the layer.
        neurons: the neuron layers by name.

    Raises:
        InputError: if no decay follows.
    """
    choice = given.get(name) if isinstance(given, Mapping) else given
    if isinstance(choice, float):
        return Decay(choice)
    if _are_silent(neurons):
        return Decay(0.0)
    decay = _leak_of(name, dict(neurons)[name], each=choice == "per-neuron")
    return decay if decay.each is None else decay._replace(each="input")


def _are_silent(neurons: Sequence[tuple[str, Neuron]]) -> bool:
    """Return whether no layer says a leak, as neurons of one's own without memory do."""
    return all(not n.foreign and value_of(n, "leak") is None for _, n in neurons)


def _learn_leaks(neuron: Neuron) -> bool:
    """Return whether the decay of traces in front of a layer changes as the layer learns."""
    return bool({"raw_leak", "raw_synaptic_leak"} & set(neuron.learned))
