"""Neuron layers of sinabs: LIF, IAF, ALIF; time is a dimension, or squeezed into the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from threefactor.clocked.foreign.neurons import (
    RECURRENT,
    SILENT,
    ForeignNeuron,
    one_number,
)

__all__ = ["view"]


class _SinabsNeuron(ForeignNeuron):
    """The layer is shown one time step at a time, (B, 1, ...)."""

    potential = "v_mem"
    threshold_name = "spike_threshold"

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(n for n, b in self.module._buffers.items() if b is not None)

    @property
    def leak(self) -> float | None:  # type: ignore[override]
        alpha = getattr(self.module, "alpha_mem_calculated", 1.0)
        return one_number(alpha)

    @property
    def synaptic_leak(self) -> float | None:  # type: ignore[override]
        alpha = getattr(self.module, "alpha_syn_calculated", None)
        return None if alpha is None else one_number(alpha)

    def call(self, current: Tensor) -> Tensor:
        layer = next(c for c in type(self.module).__mro__ if c.__name__ in _PLAIN)
        given: Any = layer.forward(self.module, current.unsqueeze(1))  # type: ignore[attr-defined]
        return given.squeeze(1)  # type: ignore[no-any-return]


_PLAIN = ("LIF", "IAF", "ALIF")
_VIEWS = (*_PLAIN, *(f"{name}Squeeze" for name in _PLAIN))


def view(module: nn.Module) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of sinabs, why there is none, or None for other modules."""
    kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("sinabs")]
    if not kinds or "StatefulLayer" not in kinds:
        return None
    if kinds[0] in _VIEWS:
        return _SinabsNeuron
    why = "is not known"
    if "Recurrent" in kinds[0]:
        why = RECURRENT
    elif kinds[0].startswith("ExpLeak"):
        why = SILENT
    return f"{kinds[0]} of sinabs {why}; known are {', '.join(_VIEWS)}"
