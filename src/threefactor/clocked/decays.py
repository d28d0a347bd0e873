"""By how much each presynaptic trace decays: the leak of the neurons that the synapse feeds."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError, unknown_name

__all__ = [
    "Decay",
    "TraceDecay",
    "Wiring",
    "activity_decay",
    "checked_decay",
    "decays",
    "leak_of",
]

TraceDecay = float | Mapping[str, float] | None
"""One number for all traces, numbers by the name of a layer, or None for the neurons' leaks."""


class Decay(NamedTuple):
    """What one step leaves of a trace.

    Attributes:
        leak: lambda, the share of the trace that is kept.
        synaptic: alpha, that of the trace before it, where neurons have a synaptic current in front
            of the potential; None elsewhere.
    """

    leak: float
    synaptic: float | None = None

    @property
    def short(self) -> str:
        """The leak, and that of the synaptic current if there is one."""
        more = "" if self.synaptic is None else f" with {self.synaptic:g} of the synaptic current"
        return f"{self.leak:g}{more}"

    def __str__(self) -> str:
        if self.synaptic is None:
            return f"{self.leak:g} a step"
        return f"{self.leak:g} a step, after a first trace by {self.synaptic:g}"


@dataclass(frozen=True)
class Wiring:
    """Which neuron layers a synapse layer meets first, on either side.

    Attributes:
        behind: for each synapse layer, the neuron layers that its current reaches.
        before: for each synapse layer, the neuron layers whose activity reaches it.
    """

    behind: dict[str, tuple[str, ...]] = field(default_factory=dict)
    before: dict[str, tuple[str, ...]] = field(default_factory=dict)


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
        return _number("trace_decay", given)
    for name in given:
        if name not in layers:
            raise unknown_name("layer in trace_decay:", name, layers)
    return {name: _number(f"trace_decay of {name!r}", value) for name, value in given.items()}


def _number(what: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not 0.0 <= float(value) <= 1.0
    ):
        raise InputError(f"{what} is {value!r}; give a number between 0 and 1")
    return float(value)


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
        InputError: if no one decay follows, naming the layers.

    Source: Xiao et al. 2022 (OTTT), section 4.1, for one leak in the whole network.
    """
    if given is not None and not isinstance(given, Mapping):
        return {name: Decay(given) for name in synapses}
    layers = dict(neurons)
    silent = _are_silent(neurons)
    found = {}
    for name in synapses:
        met = wiring.behind.get(name) or wiring.before.get(name) or tuple(layers)
        if given is not None and name in given:
            found[name] = Decay(given[name])
        elif silent:
            found[name] = Decay(0.0)
        else:
            found[name] = _common(name, {n: layer for n, layer in neurons if n in met})
    return found


def _common(synapse: str, neurons: Mapping[str, Neuron]) -> Decay:
    """Return the one decay of a trace that all these neurons ask for."""
    leaks = {name: leak_of(name, neuron) for name, neuron in neurons.items()}
    if len(set(leaks.values())) > 1:
        said = ", ".join(f"{decay.short} of {name!r}" for name, decay in leaks.items())
        raise InputError(
            f"the trace of synapse layer {synapse!r} has one decay, and the neurons that it meets "
            f"have different leaks, {said}; give trace_decay={{{synapse!r}: ...}}, a number for "
            "this layer, or trace_decay=..., one for all"
        )
    return next(iter(leaks.values()))


def leak_of(name: str, neuron: Neuron) -> Decay:
    """Return the decay that a layer of neurons asks of the traces in front of it.

    Raises:
        InputError: if it has no single leak.
    """
    leak, synaptic = getattr(neuron, "leak", None), getattr(neuron, "synaptic_leak", None)
    advice = f"give trace_decay=..., or trace_decay={{...}} with the layers that meet {name!r}"
    if leak is None and not neuron.foreign:
        raise InputError(
            f"layer {name!r}, a {type(neuron).__name__}, has no attribute leak from which the "
            "decay of the presynaptic traces follows; set it to the share of the potential that "
            f"stays from step to step, 0.0 if none does, or {advice}"
        )
    if leak is None:
        raise InputError(
            f"layer {name!r} has no single leak from which the decay of the presynaptic traces "
            f"follows; {advice}"
        )
    for which, value in (("leak", leak), ("synaptic_leak", synaptic)):
        if value is None and which == "synaptic_leak":
            continue
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
    return Decay(float(leak), None if synaptic is None else float(synaptic))


def activity_decay(given: TraceDecay, name: str, neurons: Sequence[tuple[str, Neuron]]) -> Decay:
    """Return the decay of the trace of a layer's own activity, that of a read-out of the layer.

    Args:
        given: as `checked_decay` returned it.
        name: of the layer.
        neurons: the neuron layers by name.

    Raises:
        InputError: if it has no single leak.
    """
    if given is not None and not isinstance(given, Mapping):
        return Decay(given)
    if given is not None and name in given:
        return Decay(given[name])
    return Decay(0.0) if _are_silent(neurons) else leak_of(name, dict(neurons)[name])


def _are_silent(neurons: Sequence[tuple[str, Neuron]]) -> bool:
    """Return whether no layer says a leak, as neurons of one's own without memory do."""
    return all(not n.foreign and getattr(n, "leak", None) is None for _, n in neurons)
