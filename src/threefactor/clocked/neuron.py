"""Hidden layers on a time grid: LIF neurons, and the contract that a user's own neurons fulfil."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from threefactor.clocked import kernels
from threefactor.errors import InputError
from threefactor.processes import Share

__all__ = [
    "LIF",
    "Neuron",
    "NeuronOptions",
    "Reset",
    "lif_step_",
    "reset_state",
    "surrogate_times",
]

Reset = Literal["subtract", "zero"]
"""What a spike does to the potential: it takes the threshold off, or leaves nothing of it."""


def lif_step_(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    leak: float,
    threshold: float,
    noise: Tensor | None = None,
    reset: Reset = "subtract",
) -> None:
    r"""Advance leaky integrate-and-fire neurons by one step, in place.

    .. math:: u[t] = \lambda (u[t-1] - V s[t-1]) + I[t] + \xi[t], \qquad s[t] = [u[t] \ge V]

    With `reset="zero"`, :math:`u[t-1] (1 - s[t-1])` stands in the place of the bracket.

    Args:
        potential: u[t-1], overwritten with u[t]; any shape.
        spikes: s[t-1] as 0.0 or 1.0, overwritten with s[t]; same shape.
        current: I[t], the weighted input with its bias; same shape.
        leak: lambda, between 0 and 1.
        threshold: V, in units of the potential.
        noise: xi[t], added to the membrane potential; same shape.
        reset: "subtract", a spike takes V off the potential; or "zero", it leaves none of it.

    Source: Xiao et al. 2026 (OPZO), section 3.1.
    """
    kernels.lif_step_(potential, spikes, current, leak, threshold, noise, reset == "zero")


def surrogate_times(
    error: Tensor,
    potential: Tensor,
    threshold: float,
    width: float,
    gate: Tensor | float = 1.0,
) -> Tensor:
    r"""Multiply an error by the sigmoid-like surrogate derivative of the spike function.

    .. math:: e \, \psi(u) \, d, \qquad \psi(u) = \sigma'((u - V) / a) / a

    Args:
        error: signal that reaches the activity; any shape.
        potential: u[t]; same shape.
        threshold: V.
        width: a, in units of the potential.
        gate: d, a factor per neuron (dropout, scale of the activity) or one for all.

    Returns:
        A new tensor of the same shape; `error` is left as it was.

    Source: Xiao et al. 2026 (OPZO), appendix C.2.2.
    """
    return kernels.surrogate_times(error, potential, threshold, width, gate)


class AttachedProbe(Protocol):
    """What stands in for a neuron layer's forward pass while a rule works: a `Probe`."""

    share: Share | None
    """Which rows of a batch that several processes share these are."""

    def step(self, current: Tensor) -> Tensor:
        """Stand in for `Neuron.forward`."""


class Neuron(nn.Module, ABC):
    """A hidden layer: current in, activity out, and a derivative that is local to each neuron.

    A subclass says how its state advances (`advance`) and what its local derivative is
    (`modulate`). Dropout, whose mask is held over the time steps until `reset`, and the scale of
    the activity are common to all. `state_dict` does not hold the state.

    Used on its own, the layer is differentiable within a time step (the surrogate derivative) and
    never across steps. A rule attaches a `Probe` while it works.

    Args:
        dropout: probability that a neuron is silenced, per sample, for all time steps.
        scale: factor of the activity that the next layer sees.
    """

    state_attributes: tuple[str, ...] = ("state",)
    """Names of the attributes that hold the state; None, or as `reset` leaves them, at rest. A
    subclass that keeps more than `state` adds the names, or sessions would share what they hold."""
    foreign = False
    """Whether this is a view of a layer of another library, whose resets it cannot count."""
    resets = 0
    """How often `reset` was called; tells a rule that its stream was reset from outside."""

    def __init__(self, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.dropout = number("dropout", dropout)
        self.scale = number("scale", scale)
        Neuron.check(self)
        self.state: tuple[Tensor, ...] | None = None
        self.gate: Tensor | None = None
        self.probe: AttachedProbe | None = None

    @abstractmethod
    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        """Update `self.state` by one step; return the raw output. Runs without autograd.

        Args:
            current: (B, ...) input current.
            noise: (B, ...) perturbation of the membrane potential, or None.
        """

    @abstractmethod
    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        """Return error times gate times the derivative of the raw output by the current.

        Args:
            error: (B, ...) error of the activity; must not be changed.
            state: the state after the step, as `advance` left it.
            gate: (B, ...) dropout mask times scale, or the scale alone.
        """

    def check(self, name: str = "") -> None:
        """Refuse settings that have no meaning; asked whenever a rule begins to work.

        Args:
            name: the layer's name in the network, for the message.

        Raises:
            InputError: naming the setting.
        """
        where = f" of layer {name!r}" if name else ""
        if not 0.0 <= number(f"dropout{where}", self.dropout) < 1.0:
            raise InputError(
                f"dropout{where} is {self.dropout}; give a probability of at least 0 and below 1"
            )
        if not 0.0 < number(f"scale{where}", self.scale) < math.inf:
            raise InputError(f"scale{where} is {self.scale}; give a number above 0")

    def reset(self) -> None:
        """Forget the state and the dropout mask."""
        self.state = None
        self.gate = None
        self.resets += 1

    def __getstate__(self) -> dict[str, Any]:
        """A copy is nobody's: it leaves the rule behind that works on the layer now."""
        return {**self.__dict__, "probe": None}

    def put(self, probe: AttachedProbe | None) -> None:
        """Let a probe stand in for the forward pass; None for nobody."""
        self.__dict__["probe"] = probe

    def everything(self) -> dict[str, Any]:
        """Return all that `reset` forgets, and the number of resets, by attribute."""
        names = (*self.state_attributes, "gate", "resets")
        return {name: getattr(self, name, None) for name in names}

    def take(self, state: dict[str, Any]) -> None:
        """Put back what `everything` returned."""
        if self._buffers:  # a state that is kept as a buffer
            for name, value in state.items():
                setattr(self, name, value)
        else:  # a Module's own way to set an attribute is slow
            self.__dict__.update(state)

    def forward(self, current: Tensor) -> Tensor:
        """Run one time step. (B, ...) current in, (B, ...) activity out."""
        if self.probe is not None:
            return self.probe.step(current)
        if current.requires_grad and self.state is not None:
            # Earlier steps saved this state for their backward pass.
            self.state = tuple(part.clone() for part in self.state)
        activity = self.activity(self.advance(current.detach()))
        return attach(self, current, activity)

    def activity(self, raw: Tensor, noise: Tensor | None = None) -> Tensor:
        """Apply dropout, scale and noise. Returns a new tensor."""
        self._draw_gate(raw)
        if self.gate is not None:
            if noise is not None:
                return torch.addcmul(noise, raw, self.gate)
            return raw * self.gate
        if noise is not None:
            return torch.add(noise, raw, alpha=self.scale)
        return raw * self.scale

    def _draw_gate(self, like: Tensor) -> None:
        """Draw the dropout mask of a sequence, if there is none yet."""
        if not (self.training and self.dropout and self.gate is None):
            return
        value = self.scale / (1.0 - self.dropout)
        share = None if self.probe is None else self.probe.share
        if share is None:
            self.gate = kernels.mask_like(like, self.dropout, value)
        else:  # that of the whole batch, however many processes share it
            whole = kernels.mask_like(share.whole_like(like), self.dropout, value)
            self.gate = share.mine(whole)

    def respond(
        self, current: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor | int]:
        """Advance with noise before or after the neuron; return activity and sum of raw output."""
        raw = self.advance(current, before)
        return self.activity(raw, after), raw.sum()

    def delta(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | None) -> Tensor:
        """Carry an error from the activity to the current: through scale, dropout and spike."""
        return self.modulate(error, state, self.scale if gate is None else gate)


class NeuronOptions(TypedDict, total=False):
    """Options of the neurons of a network, for its builder; see `LIF`, which has the defaults."""

    leak: float
    threshold: float
    dropout: float
    scale: float
    surrogate_width: float
    reset: Reset


class LIF(Neuron):
    r"""Leaky integrate-and-fire neurons; `leak` is the share of the potential that stays.

    .. math:: u[t] = \lambda (u[t-1] - V s[t-1]) + I[t], \qquad s[t] = [u[t] \ge V]

    That is the reset "subtract": a spike takes V off the potential. After the reset "zero", nothing
    of the potential is left:

    .. math:: u[t] = \lambda u[t-1] (1 - s[t-1]) + I[t]

    Presynaptic traces take no notice of the reset, whichever it is: they decay by lambda through a
    spike of the neuron behind the synapse.

    Args:
        leak: lambda, 0 to 1. 1 keeps the whole potential from step to step, which makes the neurons
            IF neurons; 0 keeps nothing of it.
        threshold: V, above 0.
        dropout: probability that a neuron is silenced for all time steps of a sample.
        scale: factor of the activity that the next layer sees.
        surrogate_width: a of the sigmoid-like surrogate derivative, above 0.
        reset: "subtract" or "zero". Kept as `reset_mode`, as `reset()` is a method.

    Raises:
        InputError: if a setting is out of its range.

    Example:
        >>> neuron = LIF(leak=0.5, threshold=1.0)
        >>> [neuron(torch.tensor([[0.8]])).item() for _ in range(3)]
        [0.0, 1.0, 0.0]

    Source: Xiao et al. 2026 (OPZO), section 3.1, for the reset "subtract".
    """

    def __init__(
        self,
        leak: float = 0.5,
        threshold: float = 1.0,
        dropout: float = 0.0,
        scale: float = 1.0,
        surrogate_width: float = 0.25,
        reset: Reset = "subtract",
    ) -> None:
        super().__init__(dropout, scale)
        self.leak = number("leak", leak)
        self.threshold = number("threshold", threshold)
        self.surrogate_width = number("surrogate_width", surrogate_width)
        self.reset_mode = reset
        LIF.check(self)

    def check(self, name: str = "") -> None:
        super().check(name)
        where = f" of layer {name!r}" if name else ""
        if not 0.0 <= number(f"leak{where}", self.leak) <= 1.0:
            raise InputError(
                f"leak{where} is {self.leak}; give the share kept from step to step, 0 to 1"
            )
        if not 0.0 < number(f"threshold{where}", self.threshold) < math.inf:
            raise InputError(f"threshold{where} is {self.threshold}; give a number above 0")
        if not 0.0 < number(f"surrogate_width{where}", self.surrogate_width) < math.inf:
            raise InputError(
                f"surrogate_width{where} is {self.surrogate_width}; give a number above 0"
            )
        if self.reset_mode not in get_args(Reset):
            raise InputError(
                f"reset{where} is {self.reset_mode!r}; give 'subtract' (a spike takes the "
                "threshold off the potential) or 'zero' (it leaves nothing of the potential)"
            )

    def _state_for(self, current: Tensor) -> tuple[Tensor, ...]:
        """Return potential and spikes, which start at 0."""
        if self.state is None:
            self.state = (torch.zeros_like(current), torch.zeros_like(current))
        return self.state

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        potential, spikes = self._state_for(current)
        if potential.shape != current.shape:
            raise InputError(
                f"current of shape {tuple(current.shape)} meets neurons with state of shape "
                f"{tuple(potential.shape)}; call reset() before a batch of another size"
            )
        lif_step_(potential, spikes, current, self.leak, self.threshold, noise, self.reset_mode)
        return spikes

    def respond(
        self, current: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor | int]:
        # A subclass may have an `advance` or `activity` of its own, which has to be asked.
        plain = type(self).advance is LIF.advance and type(self).activity is Neuron.activity
        if plain and before is None:
            potential, spikes = self._state_for(current)
            self._draw_gate(spikes)
            gate = self.scale if self.gate is None else self.gate
            given = kernels.lif_activity(
                potential,
                spikes,
                current,
                self.leak,
                self.threshold,
                gate,
                after,
                self.reset_mode == "zero",
            )
            if given is not None:
                return given
        return super().respond(current, before, after)

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        return surrogate_times(error, state[0], self.threshold, self.surrogate_width, gate)

    def extra_repr(self) -> str:
        return (
            f"leak={self.leak}, threshold={self.threshold}, dropout={self.dropout}, "
            f"scale={self.scale}, surrogate_width={self.surrogate_width}, reset={self.reset_mode!r}"
        )


def number(name: str, value: object) -> float:
    """Return a setting of neurons as a float, or refuse it.

    Raises:
        InputError: if it is a tensor, which no rule could teach, or no number.
    """
    if isinstance(value, Tensor):
        raise InputError(
            f"{name} is a {type(value).__name__}; it is one number for the whole layer, which no "
            "rule learns: give a float, such as value.item()"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {value!r}; give a number")
    return float(value)


class _LocalDerivative(torch.autograd.Function):
    """Gives an activity computed without autograd the neuron's local derivative."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, activity: Tensor, neuron: Neuron) -> Tensor:
        assert neuron.state is not None
        ctx.neuron, ctx.gate = neuron, neuron.gate
        # Saved this way, a state overwritten before its use is an error and not a wrong gradient.
        ctx.save_for_backward(*neuron.state)
        return activity.detach()  # not a view: the network may write to it

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, None, None]:
        return ctx.neuron.delta(error, ctx.saved_tensors, ctx.gate), None, None


def attach(neuron: Neuron, current: Tensor, activity: Tensor) -> Tensor:
    """Connect an activity to its current for the chain rule within the time step."""
    if not (current.requires_grad and torch.is_grad_enabled()):
        return activity
    return _LocalDerivative.apply(current, activity, neuron)  # type: ignore[no-any-return,no-untyped-call]


def reset_state(network: nn.Module) -> None:
    """Forget the state of every neuron in a network, whatever its class."""
    for module in network.modules():
        if isinstance(module, Neuron):
            module.reset()
