"""Neuron layers of SpikingJelly that run step by step, and its two step modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from threefactor.clocked.foreign.neurons import (
    AT_ONCE,
    BASE,
    LATER,
    OWN,
    RECURRENT,
    SILENT,
    WEIGHTS,
    ForeignNeuron,
    library_kind,
)

__all__ = ["memories_of", "single_step", "view"]

LEAKS: dict[str, Callable[[Any], float]] = {
    **dict.fromkeys(
        ("IFNode", "SimpleIFNode", "HalfThresholdIFNode", "ActivationAwareIFNode", "TernaryIFNode"),
        lambda m: 1.0,
    ),
    **dict.fromkeys(
        ("LIFNode", "SimpleLIFNode", "ILIFNode", "LIAFNode", "TernaryLIFNode"),
        lambda m: 1.0 - 1.0 / m.tau,
    ),
    "ParametricLIFNode": lambda m: 1.0 - m.w.detach().sigmoid().item(),
    "CUBALIFNode": lambda m: m.v_decay,
}


_KEPT = ("Dropout", "Dropout2d")
"""Layers without neurons whose state is kept for the time steps of a sequence."""


class _SpikingJellyNeuron(ForeignNeuron):
    """Soft or hard reset, decaying input or not: the layer runs as it is."""

    library = "spikingjelly"
    potential = "v"
    threshold_name = "v_threshold"
    time_first = "(T, batch, ...), as in SpikingJelly's step mode 'm'"

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.module._memories)

    @property
    def kind(self) -> str:
        """The name of the class of SpikingJelly."""
        found = library_kind(self.module, self.library)
        assert found is not None
        return found.__name__

    def own_leak(self) -> float | None:
        read = LEAKS.get(self.kind)
        return None if read is None else read(self.module)

    def own_synaptic_leak(self) -> float | None:
        return self.module.c_decay if self.kind == "CUBALIFNode" else None

    @property
    def only_in_training(self) -> bool:  # type: ignore[override]
        return self.kind == "ComplementaryLIFNode"

    def value_of(self, name: str) -> Any:
        return self.module._memories[name]

    def set_value(self, name: str, value: Any) -> None:
        self.module._memories[name] = value

    def rest_of(self, name: str) -> Any:
        return copy.deepcopy(self.module._memories_rv[name])


_WHY_NOT = (
    (("OTTTLIFNode", "SLTTLIFNode"), "has a learning rule of its own; use LIFNode"),
    (("RAFNode",), LATER),
    (("NonSpikingIFNode", "NonSpikingLIFNode", "NonSpikingBaseNode"), SILENT),
    (("NoisyNonSpikingIFNode", "NoisyNonSpikingBaseNode"), SILENT),
    (
        ("PSN", "MaskedPSN", "SlidingPSN"),
        "has weights inside for the currents of several time steps, which no rule can teach",
    ),
    (("ElementWiseRecurrentContainer", "LinearRecurrentContainer"), RECURRENT),
    (
        ("FewSpikeNode", "OutlierAwareThresholdNode", "HGNode", "STBIFNode"),
        "is made for networks that were converted, and has no surrogate gradient",
    ),
    (("GatedLIFNode", "DSRIFNode", "DSRLIFNode"), AT_ONCE),
    (("FlexSN",), "runs a function of which no leak is known; describe it with register_neuron"),
    (("BaseNode", "SimpleBaseNode", "AdaptBaseNode", "MPBNBaseNode"), BASE),
)


def view(module: Any) -> type[ForeignNeuron] | str | None:
    """Return the view of a layer of SpikingJelly, why there is none, or None for other modules."""
    kinds = [c for c in type(module).__mro__ if c.__module__.startswith("spikingjelly")]
    if not kinds:
        return None
    name = kinds[0].__name__
    if kinds[0].__module__.endswith("_exchange"):
        return f"{name} of {kinds[0].__module__} is made for export; use a layer of neuron"
    if kinds[0].__module__.endswith("activation_based.rnn"):
        return f"{name} of SpikingJelly {WEIGHTS}"
    why = next((why for names, why in _WHY_NOT if name in names), None)
    if why == BASE and type(module) is not kinds[0]:
        return f"{type(module).__name__}, derived from {name} of SpikingJelly, {OWN}"
    if why is not None:
        return f"{name} of SpikingJelly {why}"
    modes = module.supported_step_mode() if hasattr(module, "supported_step_mode") else ("s",)
    if "s" not in modes:
        return f"{name} of SpikingJelly {AT_ONCE}"
    if isinstance(module, _BatchNorm) and getattr(module, "step_mode", "s") == "m":
        return (
            f"{name} in step mode 'm' normalises over all time steps at once, which no online "
            "rule can; set its step_mode to 's'"
        )
    if not hasattr(module, "_memories"):
        return None
    if hasattr(module, "surrogate_function") and "v" in module._memories:
        if getattr(module, "store_v_seq", False):
            return f"{name} keeps the potentials of all time steps; set store_v_seq to False"
        return _SpikingJellyNeuron
    if name in _KEPT:
        return None
    return (
        f"{name} of SpikingJelly keeps a state from step to step which no rule knows; write it as "
        "a module of your own, and say what its state is with clocked.register_state"
    )


def memories_of(module: Any) -> dict[str, Any] | None:
    """Return the state of a layer without neurons at rest, such as a mask of dropout."""
    kinds = [c for c in type(module).__mro__ if c.__module__.startswith("spikingjelly")]
    if not kinds or kinds[0].__name__ not in _KEPT:
        return None
    return dict(copy.deepcopy(module._memories_rv))


@contextmanager
def single_step(modules: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """Run the layers that have step modes step by step, and put their modes back.

    Yields:
        The layers in step mode 'm'.
    """
    multi = [m for m in modules if m.__dict__.get("_step_mode") == "m"]
    for module in multi:
        module.__dict__["_step_mode"] = "s"
    try:
        yield multi
    finally:
        for module in multi:
            module.__dict__["_step_mode"] = "m"
