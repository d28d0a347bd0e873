"""Neuron layers of SpikingJelly that run step by step, and its two step modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from threefactor.clocked.foreign.neurons import INSTEAD, ForeignNeuron

__all__ = ["memories_of", "single_step", "view"]

LEAKS: dict[str, Callable[[Any], float]] = {
    "LIFNode": lambda m: 1.0 - 1.0 / m.tau,
    "SimpleLIFNode": lambda m: 1.0 - 1.0 / m.tau,
    "ParametricLIFNode": lambda m: 1.0 - m.w.detach().sigmoid().item(),
    "IFNode": lambda m: 1.0,
    "SimpleIFNode": lambda m: 1.0,
}


_KEPT = ("Dropout", "Dropout2d")
"""Layers without neurons whose state is kept for the time steps of a sequence."""


class _SpikingJellyNeuron(ForeignNeuron):
    """Soft or hard reset, decaying input or not: the layer runs as it is."""

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.module._memories)

    @property
    def leak(self) -> float | None:  # type: ignore[override]
        read = LEAKS.get(type(self.module).__name__)
        return None if read is None else read(self.module)

    def value_of(self, name: str) -> Any:
        return self.module._memories[name]

    def set_value(self, name: str, value: Any) -> None:
        self.module._memories[name] = value

    def rest_of(self, name: str) -> Any:
        return copy.deepcopy(self.module._memories_rv[name])


def view(module: Any) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of SpikingJelly, why there is none, or None for other modules."""
    kinds = [c for c in type(module).__mro__ if c.__module__.startswith("spikingjelly")]
    if not kinds:
        return None
    name = kinds[0].__name__
    modes = module.supported_step_mode() if hasattr(module, "supported_step_mode") else ("s",)
    if "s" not in modes:
        return f"{name} of SpikingJelly works on all time steps at once, which no online rule can"
    if isinstance(module, _BatchNorm) and getattr(module, "step_mode", "s") == "m":
        return (
            f"{name} in step mode 'm' normalises over all time steps at once, which no online "
            "rule can; set its step_mode to 's'"
        )
    if not hasattr(module, "_memories"):
        return None
    if name in ("OTTTLIFNode", "SLTTLIFNode"):
        return f"{name} of SpikingJelly has a learning rule of its own; use LIFNode"
    if hasattr(module, "surrogate_function") and "v" in module._memories:
        if getattr(module, "store_v_seq", False):
            return f"{name} keeps the potentials of all time steps; set store_v_seq to False"
        return _SpikingJellyNeuron
    if name in _KEPT:
        return None
    if "Recurrent" in name:
        return f"{name} of SpikingJelly keeps the spikes of its neurons. {INSTEAD}"
    return f"{name} of SpikingJelly keeps a state from step to step which no rule knows"


def memories_of(module: Any) -> dict[str, Any] | None:
    """Return the state of a layer without neurons at rest, such as a mask of dropout."""
    kinds = [c for c in type(module).__mro__ if c.__module__.startswith("spikingjelly")]
    if not kinds or kinds[0].__name__ not in _KEPT:
        return None
    return dict(copy.deepcopy(module._memories_rv))


@contextmanager
def single_step(modules: list[nn.Module]) -> Iterator[None]:
    """Run the layers that have step modes step by step, and put their modes back."""
    multi = [m for m in modules if m.__dict__.get("_step_mode") == "m"]
    for module in multi:
        module.__dict__["_step_mode"] = "s"
    try:
        yield
    finally:
        for module in multi:
            module.__dict__["_step_mode"] = "m"
