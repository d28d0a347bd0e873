"""State that a network keeps from one time step to the next, outside of its neuron layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from threefactor.clocked.foreign.neurons import ForeignNeuron
from threefactor.clocked.foreign.spikingjelly import memories_of
from threefactor.clocked.inputs import StepInput, mapped
from threefactor.clocked.neuron import Neuron
from threefactor.errors import InputError
from threefactor.modes import random_kept

if TYPE_CHECKING:
    from threefactor.clocked.session import Session

__all__ = [
    "KeptState",
    "attributes_kept",
    "kept_states",
    "refuse_unknown_state",
    "register_state",
    "reset_state",
]

_REGISTERED: dict[type[nn.Module], dict[str, Any]] = {}


def register_state(
    kind: type[nn.Module], state: Sequence[str], rest: dict[str, Any] | None = None
) -> None:
    """Say which attributes of a module of one's own are state, such as those of a delay.

    A rule then begins each sequence with them at rest, keeps them for the time steps of a stream,
    and leaves the module as it leaves neurons. `reset_state` puts them back to rest. A layer of
    neurons is told by `register_neuron`.

    Args:
        kind: the class of the module; its subclasses are known, too.
        state: names of the attributes. Tensors in them have to be detached: errors do not go back
            in time.
        rest: the value of each attribute at rest; None by default.

    Raises:
        InputError: if the class is not a module, or no attribute is named.

    Example:
        >>> class Delay(nn.Module):
        ...     before = None
        ...
        ...     def forward(self, x):
        ...         given = torch.zeros_like(x) if self.before is None else self.before
        ...         self.before = x.detach()
        ...         return given
        >>> register_state(Delay, ("before",))
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(
            f"{kind!r} is not a class of torch.nn.Module; give the class of the module"
        )
    if isinstance(state, str) or not state:
        raise InputError(f"state is {state!r}; give the names of the attributes, as in ('before',)")
    _REGISTERED[kind] = {name: (rest or {}).get(name) for name in state}


def kept_states(network: nn.Module) -> list[KeptState]:
    """Return what keeps the registered states of a network's modules for a session."""
    found = []
    for module in network.modules():
        rest = next((_REGISTERED[c] for c in type(module).__mro__ if c in _REGISTERED), None)
        rest = memories_of(module) if rest is None else rest
        if rest is not None:
            found.append(KeptState(module, rest))
    return found


class KeptState:
    """The registered state of a module, in turns with that of other sessions.

    Args:
        module: the module.
        rest: its attributes that are state, with their values at rest.
    """

    def __init__(self, module: nn.Module, rest: dict[str, Any]) -> None:
        self.module, self.rest = module, rest
        self._mine = self._second = dict(rest)

    def reset(self) -> None:
        """Forget the state of the stream, and that of the second forward pass."""
        if self._shows(self._mine):
            self.show(self.rest)
        self._mine = self._second = dict(self.rest)

    def look(self) -> dict[str, Any]:
        """Return the state that the module shows, by attribute."""
        return {name: getattr(self.module, name) for name in self.rest}

    def show(self, state: dict[str, Any]) -> None:
        """Let the module have a state, such as `look` returned."""
        for name, value in state.items():
            setattr(self.module, name, value)

    def put_in_place(self, *, others_work: bool) -> None:
        """Show the state of this session's stream.

        Args:
            others_work: whether another session is at work on the network, to which the module
                belongs until it is done.
        """
        self._before = self.look()
        free = self._shows(self.rest) or self._shows(self._mine)
        self._stays = free and not others_work
        self.show(self._mine)

    def put_back(self) -> None:
        """Undo `put_in_place`; as in neurons, the state stays visible in a module at rest."""
        self._mine = self.look()
        if not self._stays:
            self.show(self._before)

    def swap(self) -> None:
        """Exchange the state with that of the second forward pass."""
        now = self.look()
        self.show(self._second)
        self._second = now

    def _shows(self, state: dict[str, Any]) -> bool:
        return all(value is state[name] for name, value in self.look().items())


def reset_state(network: nn.Module) -> None:
    """Forget the state of all neurons in a network, and what `register_state` named."""
    for module in network.modules():
        if isinstance(module, Neuron):
            module.reset()
    for kept in kept_states(network):
        kept.show(kept.rest)


def refuse_unknown_state(session: Session, x_t: StepInput) -> None:
    """Refuse a module with a state that no rule knows, and so nobody resets.

    The network runs twice. Tensors that a module has put into its attributes are then changed, one
    by one: if the time step comes out otherwise, the module has read what it kept. What PyTorch
    does not find, such as neurons behind a closure, is seen by the same time step after others; it
    is looked for in networks without neurons that are found.

    Args:
        session: attached, in evaluation mode, at rest.
        x_t: input of one time step.

    Raises:
        InputError: naming the module and the attribute, where there is one.
    """
    neurons = [neuron for _, neuron in session.neurons]
    with torch.no_grad(), random_kept():
        _look(session, x_t, _others(session), neurons)


@contextmanager
def attributes_kept(session: Session) -> Iterator[None]:
    """Put back what a trial run leaves in the attributes of modules other than layers."""
    before = [(m, dict(vars(m)), dict(m._buffers)) for _, m in _others(session)]
    try:
        yield
    finally:
        for module, plain, buffers in before:
            module.__dict__.clear()
            module.__dict__.update(plain)
            module._buffers.clear()
            module._buffers.update(buffers)


def _others(session: Session) -> list[tuple[str, nn.Module]]:
    """The modules that are neither layers with weights or neurons nor PyTorch's own.

    What PyTorch's observers of quantisation keep are ranges, as norms keep means.
    """
    layers = {
        getattr(layer, "module", layer)
        for _, layer in session.layers
        # Of a layer of the user's own class, a part of the state may be forgotten.
        if not (isinstance(layer, ForeignNeuron) and layer.is_own_code())
    }
    inside = {part for layer in layers for part in layer.modules()}
    return [
        (name, module)
        for name, module in session.network.named_modules()
        if module not in inside
        and not type(module).__module__.startswith(("torch.nn.", "torch.ao."))
    ]


def _look(
    session: Session, x_t: StepInput, others: list[tuple[str, nn.Module]], neurons: list[Neuron]
) -> None:
    before = [_stamps(module) for _, module in others]
    try:
        session.forward(x_t)
    except InputError:  # the network differs from step to step; a rule says so when it runs
        return
    given = {id(part) for neuron in neurons for part in _tensors(neuron.everything())}
    known = {(kept.module, name) for kept in session.kept for name in kept.rest}
    told = [neuron for neuron in neurons if isinstance(neuron, ForeignNeuron)]
    known |= {(neuron.module, name) for neuron in told for name in neuron.names}
    kept = [
        (name, module, attribute)
        for (name, module), old in zip(others, before, strict=True)
        for attribute, stamp in _stamps(module).items()
        if old.get(attribute) != stamp
        and stamp[0] not in given
        and (module, attribute) not in known
    ]
    states = [{k: _copy(v) for k, v in neuron.everything().items()} for neuron in neurons]
    values = [(module, name, _get(module, name).clone()) for _, module, name in kept]
    shown = [(state, state.look()) for state in session.kept]

    def run() -> list[Tensor]:
        torch.manual_seed(0)
        for neuron, state in zip(neurons, states, strict=True):
            neuron.take({k: _copy(v) for k, v in state.items()})
        for probe in session.probes:
            probe.left = []
        for kept_state, attributes in shown:
            kept_state.show(attributes)
        output = session.forward(x_t)
        activities = [p.activity for p in session.probes if p.activity is not None]
        return [part.clone() for part in (output, *activities)]

    def put() -> None:
        for module, name, value in values:
            _set(module, name, value.clone())

    for name, module, attribute in kept:
        put()
        expected = run()
        for more in (3, -30):
            put()
            value = _get(module, attribute)
            _set(module, attribute, value + more if value.is_floating_point() else value ^ 1)
            if not any(map(_differ, expected, run())):
                continue
            raise InputError(
                f"module {name or '(the network itself)'!r}, a {type(module).__name__}, keeps "
                f"{attribute!r} from one time step to the next. No rule knows this state, and it "
                "would go from one sequence into the next. Say what it is with "
                "clocked.register_neuron, if the module is a layer of neurons, or with "
                "clocked.register_state"
            )
    if neurons:  # a network may differ from step to step, as by a number that its user counts
        return
    put()
    expected = run()
    for push in (-30.0, 30.0):
        try:
            session.forward(mapped(x_t, partial(_pushed, push)))
        except Exception:  # the network does not take such values
            return
        put()
        # Elsewhere than on a CPU, sums may be rounded in another way each time.
        if expected[0].device.type == "cpu" and any(map(_differ, expected, run())):
            raise InputError(
                "the network has no neurons that a rule finds, and gives other values for the same "
                "input after other inputs: something in it keeps a state that no rule finds, such "
                "as neurons in an object that is no module, or draws numbers of its own. Make it a "
                "module of the network, and say what its state is with clocked.register_neuron or "
                "clocked.register_state"
            )


def _pushed(push: float, x: Tensor) -> Tensor:
    return push * (x + 1.0)


def _stamps(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Tell which tensors a module has in its attributes, and how often each was written to."""
    found = {**vars(module), **module._buffers}
    return {
        name: (id(value), value._version)
        for name, value in found.items()
        if isinstance(value, Tensor) and not value.is_inference()
    }


def _get(module: nn.Module, name: str) -> Tensor:
    return getattr(module, name)  # type: ignore[no-any-return]


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    place: dict[str, Any] = module._buffers if name in module._buffers else vars(module)
    place[name] = value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _copy(value: Any) -> Any:
    """Return a copy of a state with tensors of its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        parts = [_copy(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _differ(one: Tensor, other: Tensor) -> bool:
    return one.shape != other.shape or not torch.allclose(one, other, 0.0, 0.0, equal_nan=True)
