"""Neuron layers of snnTorch: Leaky, Lapicque and Synaptic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from threefactor.clocked.foreign.neurons import (
    AT_ONCE,
    BASE,
    BEGUN,
    LATER,
    OTHER_STATE,
    OWN,
    RECURRENT,
    WEIGHTS,
    ForeignNeuron,
    one_number,
)
from threefactor.errors import InputError

__all__ = ["view"]


class _SnnTorchNeuron(ForeignNeuron):
    """With `init_hidden` or with an explicit state; whatever the reset and its delay.

    An explicit state may be kept wherever the network likes between two steps. The rule keeps the
    one that counts: a step is refused that is given another one than the step before returned.
    """

    library = "snntorch"
    names: tuple[str, ...] = ("mem",)
    potential = "mem"
    threshold_name = "threshold"

    def own_leak(self) -> float | None:
        return one_number(self.module.beta.clamp(0, 1))

    def altered(self) -> tuple[str, ...]:
        found = super().altered()
        update = getattr(self.module.state_function, "__func__", None)  # set by the constructor
        named = getattr(type(self.module), getattr(update, "__name__", ""), None)
        return found if update is not None and update is named else (*found, "state_function")

    def rest_of(self, name: str) -> Any:
        return torch.zeros(0, device=self.module.threshold.device)

    def check_given(self, current: Tensor, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        values = (*given, *named.values())
        assert self.probe is not None
        returned = self.probe.returned
        if returned is None:
            if any(isinstance(v, Tensor) and bool(v.any()) for v in values):
                raise InputError(f"neuron layer {self.name!r} {BEGUN}")
            return
        if not values and self.module.init_hidden:
            return
        same = len(values) == len(returned) and all(
            v is a for v, a in zip(values, reversed(returned), strict=True)
        )
        ordered = len(values) == len(returned) and all(
            v is a for v, a in zip(values, returned, strict=True)
        )
        if not (same or ordered):
            raise InputError(
                f"neuron layer {self.name!r} {OTHER_STATE}, as a network does that makes the state "
                "anew in each step; use init_hidden=True, or keep the state in an attribute of the "
                "network"
            )

    def answer(self, activity: Tensor) -> Any:
        if self.module.init_hidden and not self.module.output:
            return activity
        kept = self.memory
        assert kept is not None and self.probe is not None
        self.probe.returned = kept
        return (activity, *kept)

    def call(self, current: Tensor) -> Tensor:
        given: Any = super().call(current)
        return given[0] if isinstance(given, tuple) else given  # type: ignore[no-any-return]

    def spikes_in(self, raw: Tensor) -> Tensor:
        return raw != 0  # whatever `graded_spikes_factor` makes of a spike


class _Lapicque(_SnnTorchNeuron):
    def own_leak(self) -> float | None:
        layer = self.module
        return one_number(1 - layer.time_step / (layer.R * layer.C))


class _Synaptic(_SnnTorchNeuron):
    names = ("syn", "mem")

    def own_synaptic_leak(self) -> float | None:
        return one_number(self.module.alpha.clamp(0, 1))


_VIEWS = {"Leaky": _SnnTorchNeuron, "Lapicque": _Lapicque, "Synaptic": _Synaptic}
_WHY_NOT = (
    (("Alpha",), LATER),
    (("RLeaky", "RSynaptic", "RecurrentOneToOne"), RECURRENT),
    (("SLSTM", "SConv2dLSTM"), WEIGHTS),
    (("LeakyParallel", "LeakyKernel", "StateLeaky", "LinearLeaky", "AssociativeLeaky"), AT_ONCE),
    (("DeltaLeaky",), "spikes at changes of its potential, whose trace is no exponential"),
    (("LIF", "SpikingNeuron"), BASE),
    (("STDPLearner",), "has a learning rule of its own"),
)


def view(module: nn.Module) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of snnTorch, why there is none, or None for other modules."""
    kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("snntorch")]
    if not kinds:
        return None
    if kinds[0] in _VIEWS:
        return _VIEWS[kinds[0]]
    why = next((why for names, why in _WHY_NOT if kinds[0] in names), None)
    if why == BASE and not type(module).__module__.startswith("snntorch"):
        return f"{type(module).__name__}, derived from {kinds[0]} of snnTorch, {OWN}"
    return None if why is None else f"{kinds[0]} of snnTorch {why}; known are {', '.join(_VIEWS)}"
