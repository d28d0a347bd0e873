"""Neuron layers of other libraries, and of one's own, seen as this library's neuron layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from threefactor.clocked import verdicts
from threefactor.clocked.foreign.affine import note_view, stand_in
from threefactor.clocked.neuron import WIDE, Neuron
from threefactor.errors import DivergenceError, InputError

__all__ = [
    "AT_ONCE",
    "BASE",
    "BEGUN",
    "LATER",
    "OTHER_STATE",
    "OWN",
    "RECURRENT",
    "SILENT",
    "WEIGHTS",
    "ForeignNeuron",
    "Registered",
    "library_kind",
    "one_number",
    "register_neuron",
    "registered",
    "registered_kinds",
    "tensors_in",
]

AT_ONCE = "works on all time steps at once, which no online rule can"
LATER = (
    "lets a current reach the potential one time step later, so that the spikes have no derivative "
    "by the current of the same step, from which a rule learns"
)
RECURRENT = (
    "brings the spikes of its neurons back inside, which is clocked.Recurrent(neuron, "
    "nn.Linear(n, n)), with the neuron and the recurrent weights of this layer"
)
SILENT = (
    "gives potentials and no spikes; leave it out, since a rule sums the outputs over the time "
    "steps by itself"
)
BASE = "is a base class"
BEGUN = (
    "is given a state at the beginning that is not at rest, where a rule begins each sequence; let "
    "the network give none or the one at rest, and set back what it keeps of an earlier run"
)
OWN = "has dynamics of its own, which no rule knows; describe it with clocked.register_neuron"
OTHER_STATE = "is given another state than it returned in the time step before"
WEIGHTS = "has weights inside, which keep no presynaptic trace"
_NOT_DYNAMICS = frozenset(
    {
        "detach", "extra_repr", "fire", "fire_inhibition", "initial_state", "mem_reset",
        "neuronal_fire", "neuronal_reset", "reset", "supported_backends", "supported_step_mode",
    }
)  # fmt: skip
"""Methods of neurons by which the share of the potential that is kept does not change."""


class ForeignNeuron(Neuron):
    """A view of a neuron layer that knows nothing of rules.

    In every time step the layer runs on a leaf, with its own autograd, so that its own surrogate
    gives the local derivative. Its state is detached after the step and stays where the layer
    keeps it.

    A subclass says which attributes hold the state (`names`), how the layer is called, and its
    leaks (`own_leak` and `own_synaptic_leak`).

    Args:
        module: the layer.
        name: its name in the network, for messages.

    Raises:
        InputError: when called, if the layer gives spikes without a derivative.
    """

    state_attributes = ("state", "memory")
    names: tuple[str, ...] = ()
    """Attributes of the layer that hold its state."""
    library = ""
    """The package that defines the class of the layer; empty for a class of the user's own."""
    foreign = True
    potential: str | None = None
    """Which part of the state is the membrane potential, as the layer keeps it after a step."""
    threshold_name: str | None = None
    """The attribute of the layer that is its threshold."""
    only_in_training = False
    """Whether the spikes have a derivative in training mode alone."""
    time_first: str | None = None
    """How the library's own networks lay out all time steps in one tensor, if the layer may be
    part of such a network."""
    marks_state: bool
    """Whether the state that the layer shows after a step is marked, so that autograd's graph says
    where the network uses it; in the trial of a rule."""
    module: Any
    """The layer. Its attributes are those of another library, unknown to type checkers."""

    def __init__(self, module: nn.Module, name: str) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(
            module=module, name=name, dropout=0.0, scale=1.0, state=None, gate=None, probe=None,
            marks_state=False,
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        note_view(self)

    def __repr__(self) -> str:
        return repr(self.module)

    @property
    def leak(self) -> float | None:
        """Share of the potential that is kept from step to step, as the trace needs it; None if no
        single number says it, or if the layer does other things than its library says."""
        return None if self.altered() else self.own_leak()

    @property
    def synaptic_leak(self) -> float | None:
        """Share of the synaptic current that is kept from step to step; None without such a
        current."""
        return None if self.altered() else self.own_synaptic_leak()

    def own_leak(self) -> float | None:
        """Return the leak as the class of the layer has it."""
        return None

    def own_synaptic_leak(self) -> float | None:
        """Return the leak of the synaptic current as the class of the layer has it."""
        return None

    def altered(self) -> tuple[str, ...]:
        """Return the names of the library's methods that the layer has otherwise.

        A subclass of the user's own may override them, or the object itself have others.
        """
        if not self.library:
            return ()
        methods, overridden = _methods_of(self.module.__class__, self.library)
        on_object = (methods & vars(self.module).keys()) - {"forward"}  # that is the rule's
        return (*overridden, *sorted(on_object))

    def is_own_code(self) -> bool:
        """Return whether the class of the layer is the user's own."""
        return library_kind(self.module, self.library) is not type(self.module)

    @property
    def memory(self) -> Any:
        """The state that the layer keeps; None at rest."""
        kept = tuple(self.value_of(name) for name in self.names)
        return None if all(self.is_rest(value) for value in kept) else kept

    @memory.setter
    def memory(self, kept: Any) -> None:
        for i, name in enumerate(self.names):
            self.set_value(name, self.rest_of(name) if kept is None else kept[i])

    def value_of(self, name: str) -> Any:
        return getattr(self.module, name)

    def set_value(self, name: str, value: Any) -> None:
        setattr(self.module, name, value)

    def rest_of(self, name: str) -> Any:
        """Return a state at rest."""
        return torch.zeros(0)

    def is_rest(self, value: Any) -> bool:
        """Return whether a state is that of a layer at rest."""
        return not isinstance(value, Tensor) or value.numel() == 0

    def take(self, state: dict[str, Any]) -> None:
        plain = {name: value for name, value in state.items() if name != "memory"}
        self.__dict__.update(plain)
        self.memory = state["memory"]

    def reset(self) -> None:
        super().reset()
        self.memory = None

    def put(self, probe: Any) -> None:
        self.__dict__["probe"] = probe
        stand_in(self.module, None if probe is None else self._step)

    def _step(self, current: Tensor, *given: Any, **named: Any) -> Any:
        """Stand in for the layer's forward pass."""
        assert self.probe is not None
        self.check_given(current, given, named)
        return self.answer(self.probe.step(current))

    def check_given(self, current: Tensor, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Refuse arguments beside the current that the rule would not follow."""
        if given or named:
            raise InputError(
                f"neuron layer {self.name!r} is called with more than its input current; while a "
                "rule works, the state of the neurons is kept by the rule"
            )

    def answer(self, activity: Tensor) -> Any:
        """Return what the layer's forward pass returns, with this activity."""
        return activity

    def call(self, current: Tensor) -> Tensor:
        """Run the layer itself for one step, from the state it has; return its raw output."""
        kind: Any = type(self.module)
        return kind.forward(self.module, current)  # type: ignore[no-any-return]

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        given = current if noise is None else current + noise
        if torch.is_inference_mode_enabled():
            return self._spikes_of(given)
        leaf = given.detach().requires_grad_()
        with torch.enable_grad():
            raw = self._spikes_of(leaf).to(leaf.dtype)  # some give single precision, always
        if not raw.requires_grad and (self.module.training or not self.only_in_training):
            raise self._no_derivative()
        kept = self.memory
        shown = self._marked if self.marks_state else torch.Tensor.detach
        self.memory = None if kept is None else _each(shown, kept)
        self.state = (leaf, raw)
        return raw.detach()

    def _marked(self, part: Tensor) -> Tensor:
        if not part.is_floating_point():
            return part
        with torch.enable_grad():
            mark = torch.zeros((), dtype=part.dtype, device=part.device, requires_grad=True)
            return _Shown.apply(part.detach(), mark, self.name)  # type: ignore[no-any-return,no-untyped-call]

    def _spikes_of(self, current: Tensor) -> Tensor:
        raw: Any = self.call(current)
        if not isinstance(raw, Tensor):
            raise InputError(
                f"neuron layer {self.name!r}, a {type(self.module).__name__}, returned a "
                f"{type(raw).__name__}; expected its spikes alone, with its state in the "
                "attributes that register_neuron names"
            )
        return raw

    def kept_state(self) -> tuple[Tensor, ...]:
        assert self.state is not None
        return self.state  # made anew in each step

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        leaf, raw = state
        if not raw.requires_grad:  # it runs in evaluation mode
            raise self._no_derivative()
        (found,) = torch.autograd.grad(
            raw, leaf, error * gate, retain_graph=True, allow_unused=True
        )
        if found is None:
            raise self._no_derivative()
        if found.is_cpu or verdicts.gathering():
            refuse_nan = partial(self._refuse_derivative, found)
            verdicts.finite((self.name, "derivative"), found, refuse_nan)
        return found

    def _refuse_derivative(self, found: Tensor) -> None:
        if not torch.isfinite(found).all():
            raise DivergenceError(
                f"the error times the surrogate derivative of neuron layer {self.name!r}, a "
                f"{type(self.module).__name__}, is NaN or infinite; take another surrogate: "
                "snnTorch's sigmoid is NaN where a potential lies far below the threshold, and its "
                "fast_sigmoid and atan are not"
            )

    def _no_derivative(self) -> InputError:
        mode = "; set it to training mode" if self.only_in_training else ""
        return InputError(
            f"neuron layer {self.name!r}, a {type(self.module).__name__}, gives spikes without a "
            "derivative by the current of the same time step, from which a rule learns; give it a "
            f"surrogate gradient, if it lacks one{mode}"
        )

    def membrane(self) -> tuple[Tensor, float | Tensor | None]:
        found = None if self.potential is None else self.value_of(self.potential)
        if not isinstance(found, Tensor):
            raise InputError(
                f"a {type(self.module).__name__} keeps its state in {', '.join(self.names)}, and "
                "it is not known which of them is the membrane potential"
            )
        name = self.threshold_name
        return found, None if name is None else getattr(self.module, name, None)

    def respond(
        self, current: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor | int]:
        raw = self.advance(current, before)
        fired = self.spikes_in(raw).sum(dtype=torch.promote_types(raw.dtype, WIDE))
        return self.activity(raw, after), fired

    def spikes_in(self, raw: Tensor) -> Tensor:
        """Return how many spikes each value of the raw output stands for."""
        return raw.abs()  # -1 is one spike, too

    def watched(self, current: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        raw = () if self.state is None else self.state[1:]
        return (current,), (*raw, *tensors_in(self.memory))

    def check(self, name: str = "") -> None:
        """Refuse what is NaN; all other settings are the other library's."""
        module = self.module
        for own in (module._parameters, module._buffers):
            for key, values in own.items():
                if values is not None and key not in self.names:
                    what = f"{key} of neuron layer {name!r}"
                    finding = partial(verdicts.refuse_tensor, what, values, infinite=True)
                    verdicts.judge(~torch.isnan(values).any(), finding)
        for key, value in vars(module).items():
            if type(value) is float and math.isnan(value):
                raise InputError(f"{key} of neuron layer {name!r} is NaN; give it another value")


def library_kind(module: nn.Module, library: str) -> type | None:
    """Return the class of a library that a layer is of, or that its class is derived from."""
    if not library:
        return None
    return next((c for c in type(module).__mro__ if c.__module__.startswith(library)), None)


@cache
def _methods_of(kind: type, library: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the methods of a library's class that make its dynamics, and those that a class
    derived from it overrides."""
    theirs = [c for c in kind.__mro__ if c.__module__.startswith(library)]
    own = kind.__mro__[: kind.__mro__.index(theirs[0])]
    methods = frozenset(
        name
        for c in theirs
        for name, value in vars(c).items()
        if (callable(value) or isinstance(value, property | staticmethod | classmethod))
        and (name == "__call__" or not name.startswith("__"))
    )
    methods -= _NOT_DYNAMICS
    return methods, tuple(sorted(methods & {name for c in own for name in vars(c)}))


def tensors_in(kept: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state, which may lie in tuples."""
    if isinstance(kept, Tensor):
        yield kept
    elif isinstance(kept, tuple):
        for part in kept:
            yield from tensors_in(part)


def one_number(value: Any) -> float | None:
    """Return a setting as one number; None if it differs between neurons."""
    if not isinstance(value, Tensor):
        return float(value)
    first = value.detach().flatten()[0]
    return first.item() if bool((value == first).all()) else None


def _each(do: Callable[[Tensor], Tensor], kept: Any) -> Any:
    """Return a state with other tensors."""
    if isinstance(kept, Tensor):
        return do(kept)
    if isinstance(kept, tuple):
        parts = [_each(do, part) for part in kept]
        return type(kept)(*parts) if hasattr(kept, "_fields") else tuple(parts)
    return kept


class _Shown(torch.autograd.Function):
    """Marks the state of a layer in autograd's graph; its node has the layer's name as `shows`."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, mark: Tensor, name: str) -> Tensor:
        ctx.shows = name
        return part.clone()

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[None, None, None]:
        return None, None, None


@dataclass(frozen=True)
class _Description:
    """What a user said of a neuron layer of their own."""

    state: tuple[str, ...]
    leak: Callable[[Any], float] | float | None
    synaptic_leak: Callable[[Any], float] | float | None
    rest: dict[str, Any]


_REGISTERED: dict[type[nn.Module], _Description] = {}
_Kind = TypeVar("_Kind", bound=type[nn.Module])


def _description(module: nn.Module) -> _Description | None:
    return next((_REGISTERED[c] for c in type(module).__mro__ if c in _REGISTERED), None)


class Registered(ForeignNeuron):
    """A neuron layer whose class its user described with `register_neuron`."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        absent = [attribute for attribute in self.names if not hasattr(module, attribute)]
        if absent:
            raise InputError(
                f"neuron layer {name!r}, a {type(module).__name__}, has no attributes {absent}, "
                "which register_neuron names as its state; name those that its forward pass keeps, "
                "and set them in its constructor"
            )

    @property
    def said(self) -> _Description:
        found = _description(self.module)
        assert found is not None
        return found

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.said.state

    def own_leak(self) -> float | None:
        return self._number(self.said.leak)

    def own_synaptic_leak(self) -> float | None:
        return self._number(self.said.synaptic_leak)

    @property
    def potential(self) -> str | None:  # type: ignore[override]
        return self.names[0] if len(self.names) == 1 else None

    def _number(self, given: Callable[[Any], float] | float | None) -> float | None:
        value = given(self.module) if callable(given) else given
        return None if value is None else one_number(value)

    def rest_of(self, name: str) -> Any:
        return self.said.rest[name]

    def is_rest(self, value: Any) -> bool:
        return any(value is rest for rest in self.said.rest.values())


@overload
def register_neuron(
    kind: _Kind,
    *,
    state: Sequence[str],
    leak: Callable[[Any], float] | float | None,
    synaptic_leak: Callable[[Any], float] | float | None = None,
    rest: dict[str, Any] | None = None,
) -> _Kind: ...
@overload
def register_neuron(
    *,
    state: Sequence[str],
    leak: Callable[[Any], float] | float | None,
    synaptic_leak: Callable[[Any], float] | float | None = None,
    rest: dict[str, Any] | None = None,
) -> Callable[[_Kind], _Kind]: ...


def register_neuron(
    kind: Any = None,
    *,
    state: Sequence[str],
    leak: Callable[[Any], float] | float | None,
    synaptic_leak: Callable[[Any], float] | float | None = None,
    rest: dict[str, Any] | None = None,
) -> Any:
    """Say what a rule has to know of a neuron layer of one's own, which stays as it is.

    Its forward pass takes the current of one time step, (B, ...), advances its state and returns
    the spikes. The derivative of the spikes by the current is that of its own surrogate.

    Args:
        kind: the class of the layer; its subclasses are known, too. Without it, this returns a
            decorator of the class.
        state: the attributes that hold the state.
        leak: the share of the potential that is kept from step to step, as a number or as a
            function of the layer: the decay of the presynaptic traces. None if there is no such
            number; rules on the network then need `trace_decay`.
        synaptic_leak: the same for a synaptic current before the potential; None without one.
        rest: the value of each attribute of the state at rest; None by default.

    Returns:
        The class as it is, or the decorator.

    Raises:
        InputError: if the class is not a module, or no attribute is named.

    Example:
        >>> @register_neuron(state=("v",), leak=0.5)
        ... class Mine(nn.Module):
        ...     v = None
        ...
        ...     def forward(self, x):
        ...         v = x if self.v is None else 0.5 * self.v + x
        ...         spikes = (v >= 1.0).to(x) + torch.sigmoid(v) - torch.sigmoid(v).detach()
        ...         self.v = v - spikes.detach()
        ...         return spikes
    """
    if kind is None:
        return partial(
            register_neuron, state=state, leak=leak, synaptic_leak=synaptic_leak, rest=rest
        )
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"{kind!r} is not a class of torch.nn.Module; give the class of the layer")
    if isinstance(state, str) or not state:
        raise InputError(f"state is {state!r}; give the names of the attributes, as in ('v',)")
    at_rest = {name: (rest or {}).get(name) for name in state}
    _REGISTERED[kind] = _Description(tuple(state), leak, synaptic_leak, at_rest)
    return kind


def registered_kinds() -> tuple[type[nn.Module], ...]:
    """Return the classes that were registered."""
    return tuple(_REGISTERED)


def registered(module: nn.Module) -> type[ForeignNeuron] | None:
    """Return the view of a layer whose class was registered."""
    return None if _description(module) is None else Registered
