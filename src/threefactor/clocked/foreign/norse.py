"""Neuron layers of Norse that run step by step and have no weights of their own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from threefactor.clocked.foreign.neurons import (
    AT_ONCE,
    BEGUN,
    LATER,
    OTHER_STATE,
    RECURRENT,
    SILENT,
    WEIGHTS,
    ForeignNeuron,
    one_number,
    tensors_in,
)
from threefactor.errors import InputError

__all__ = ["view"]


class _NorseCell(ForeignNeuron):
    """The state is passed in and out, or left to the rule, which keeps the one that counts.

    A step is refused that is given another one than the step before returned.
    """

    library = "norse"

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self.__dict__["_memory"] = None

    @property
    def memory(self) -> Any:
        return self.__dict__["_memory"]

    @memory.setter
    def memory(self, kept: Any) -> None:
        self.__dict__["_memory"] = kept

    def membrane(self) -> tuple[Tensor, float | Tensor | None]:
        state, constants = self.memory, self.module.p
        for inner in ("lif", "lif_adex"):  # of cells with a refractory time
            state = getattr(state, inner, state)
            constants = getattr(constants, inner, constants)
        return state.v, getattr(constants, "v_th", None)

    def check_given(self, current: Tensor, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        state = next((v for v in (*given, *named.values()) if v is not None), None)
        assert self.probe is not None
        if state is None or state is self.probe.returned:
            return
        if self.probe.returned is not None:
            raise InputError(
                f"neuron layer {self.name!r} {OTHER_STATE}; let the network hand on what the layer "
                "returned, or give no state: the rule keeps it"
            )
        rest = list(tensors_in(self.module.state_fallback(current.detach())))
        given_parts = list(tensors_in(state))
        if len(rest) != len(given_parts) or any(
            bool((one != other).any()) for one, other in zip(given_parts, rest, strict=True)
        ):
            raise InputError(f"neuron layer {self.name!r} {BEGUN}")

    def answer(self, activity: Tensor) -> Any:
        assert self.probe is not None
        self.probe.returned = self.memory
        return activity, self.memory

    def altered(self) -> tuple[str, ...]:
        found = super().altered()
        theirs = self.module.activation.__module__.startswith(self.library)
        return found if theirs else (*found, "activation")

    def call(self, current: Tensor) -> Tensor:
        kind: Any = type(self.module)
        raw, self.memory = kind.forward(self.module, current, self.memory)
        return raw  # type: ignore[no-any-return]


class _IAFCell(_NorseCell):
    def own_leak(self) -> float:
        return 1.0


class _LIFBoxCell(_NorseCell):
    def own_leak(self) -> float | None:
        return self.kept("tau_mem_inv")

    def kept(self, rate: str) -> float | None:
        """Return the share that a time step leaves of what decays at a rate."""
        layer = self.module
        return one_number(1.0 - layer.dt * getattr(getattr(layer.p, "lif", layer.p), rate))


class _LIFCell(_LIFBoxCell):
    def own_synaptic_leak(self) -> float | None:
        return self.kept("tau_syn_inv")


_VIEWS = {
    "IAFCell": _IAFCell,
    "LIFBoxCell": _LIFBoxCell,
    "LIFCell": _LIFCell,
    "LIFRefracCell": _LIFCell,
    "LIFExCell": _NorseCell,
    "LIFAdExCell": _NorseCell,
    "LIFAdExRefracCell": _NorseCell,
    "IzhikevichCell": _NorseCell,
}


def _why_not(name: str) -> str:
    """Say why a module of Norse cannot be trained by a rule."""
    if "Recurrent" in name:
        return f"{RECURRENT}: clocked.LIF, since the cells of Norse do not keep their state"
    if name == "LSNNCell":
        return LATER
    if name in ("LICell", "LIBoxCell"):
        return SILENT
    if name in ("CobaLIFCell", "LILinearCell", "LIFCorrelation"):
        return WEIGHTS
    if name in ("LIF", "LI", "IAF", "LSNN", "LIFEx", "LIFAdEx", "Izhikevich", "Lift"):
        return AT_ONCE
    if name in ("SNN", "SNNCell"):
        return "runs a function of which no leak is known; describe it with register_neuron"
    return "is not known to be without weights and state of its own"


def view(module: nn.Module) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of Norse, why there is none, or None for other modules."""
    kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("norse")]
    if not kinds or kinds[0] == "SequentialState":
        return None
    if kinds[0] in _VIEWS:
        return _VIEWS[kinds[0]]
    return f"{kinds[0]} of Norse {_why_not(kinds[0])}; known are {', '.join(_VIEWS)}"
