"""Neuron layers of Norse that run step by step: LIFBoxCell and LIFCell."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from threefactor.clocked.foreign.neurons import INSTEAD, ForeignNeuron
from threefactor.clocked.foreign.snntorch import one_number

__all__ = ["view"]


class _NorseCell(ForeignNeuron):
    """The state is passed in and out; a rule keeps it, and ignores which one it is given."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self.__dict__["_memory"] = None

    @property
    def memory(self) -> Any:
        return self.__dict__["_memory"]

    @memory.setter
    def memory(self, kept: Any) -> None:
        self.__dict__["_memory"] = kept

    @property
    def leak(self) -> float | None:  # type: ignore[override]
        layer = self.module
        return one_number(1.0 - layer.dt * layer.p.tau_mem_inv)

    def check_given(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        pass

    def answer(self, activity: Tensor) -> Any:
        return activity, self.memory

    def call(self, current: Tensor) -> Tensor:
        kind: Any = type(self.module)
        raw, self.memory = kind.forward(self.module, current, self.memory)
        return raw  # type: ignore[no-any-return]


class _LIFCell(_NorseCell):
    @property
    def synaptic_leak(self) -> float | None:  # type: ignore[override]
        layer = self.module
        return one_number(1.0 - layer.dt * layer.p.tau_syn_inv)


_VIEWS = {"LIFBoxCell": _NorseCell, "LIFCell": _LIFCell}
_PLAIN = ("SequentialState", "Lift", "RegularizationCell")


def view(module: nn.Module) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of Norse, why there is none, or None for other modules."""
    kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("norse")]
    if not kinds or kinds[0] in _PLAIN[:1]:
        return None
    if kinds[0] in _VIEWS:
        return _VIEWS[kinds[0]]
    if "Recurrent" in kinds[0]:
        return (
            f"{kinds[0]} of Norse has recurrent weights of its own. {INSTEAD}: clocked.LIF, since "
            "the cells of Norse do not keep their state"
        )
    return (
        f"{kinds[0]} of Norse is not known to run step by step without weights of its own; known "
        f"are {', '.join(_VIEWS)}"
    )
