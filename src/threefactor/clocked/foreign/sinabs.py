"""Neuron layers of sinabs: LIF, IAF, ALIF; time is a dimension, or squeezed into the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from threefactor.clocked.foreign.neurons import (
    RECURRENT,
    SILENT,
    ForeignNeuron,
    library_kind,
    one_number,
)

__all__ = ["view"]


class _SinabsNeuron(ForeignNeuron):
    """The layer is shown one time step at a time, (B, 1, ...)."""

    library = "sinabs"
    potential = "v_mem"
    threshold_name = "spike_threshold"
    time_first = "(batch * T, ...), as the Squeeze layers of sinabs have it"

    @property
    def time_second(self) -> bool:
        """Whether the layer takes (batch, T, ...) in the library's own networks."""
        return not hasattr(self.module, "squeeze_forward")

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(n for n, b in self.module._buffers.items() if b is not None)

    def own_leak(self) -> float | None:
        alpha = getattr(self.module, "alpha_mem_calculated", 1.0)
        return one_number(alpha)

    def own_synaptic_leak(self) -> float | None:
        alpha = getattr(self.module, "alpha_syn_calculated", None)
        return None if alpha is None else one_number(alpha)

    def call(self, current: Tensor) -> Tensor:
        kind: Any = type(self.module)
        if hasattr(kind, "squeeze_forward"):  # the layer without Squeeze is its parent
            kind = kind.__mro__[kind.__mro__.index(library_kind(self.module, self.library)) + 1]
        return kind.forward(self.module, current.unsqueeze(1)).squeeze(1)  # type: ignore[no-any-return]


_PLAIN = ("LIF", "IAF", "ALIF")
_VIEWS = (*_PLAIN, *(f"{name}Squeeze" for name in _PLAIN))


def view(module: nn.Module) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of sinabs, why there is none, or None for other modules."""
    kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("sinabs")]
    if not kinds or "StatefulLayer" not in kinds:
        return None
    if kinds[0] in _VIEWS:
        theirs: Any = library_kind(module, "sinabs")
        if kinds[0] not in _PLAIN and type(module).forward is not theirs.forward:
            return (
                f"{type(module).__name__} overrides forward of {kinds[0]} of sinabs, whose first "
                "dimension is time, too; derive it from the layer without Squeeze"
            )
        return _SinabsNeuron
    why = "is not known"
    if "Recurrent" in kinds[0]:
        why = RECURRENT
    elif kinds[0].startswith("ExpLeak"):
        why = SILENT
    return f"{kinds[0]} of sinabs {why}; known are {', '.join(_VIEWS)}"
