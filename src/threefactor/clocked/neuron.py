"""Hidden layers on a time grid: LIF neurons, and the contract that a user's own neurons fulfil."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Never, Self, TypedDict

from threefactor.clocked import kernels, verdicts
from threefactor.clocked.constants import (
    LEVEL,
    SHARE,
    Constant,
    number,
    of_each,
    sum_like,
    value_of,
)
from threefactor.errors import InputError
from threefactor.options import as_flag, in_range, refuse_unknown
from threefactor.processes import Share

__all__ = [
    "LIF",
    "CubaLIF",
    "Neuron",
    "NeuronOptions",
    "Reset",
    "lif_step_",
    "surrogate_times",
]

WIDE = torch.float32
"""At least this precision for sums over many neurons."""
Reset = Literal["subtract", "zero"]
"""What a spike does to the potential: it takes the threshold off, or leaves nothing of it."""


def lif_step_(
    potential: Tensor,
    spikes: Tensor,
    current: Tensor,
    leak: float | Tensor,
    threshold: float | Tensor,
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
        leak: lambda, between 0 and 1; a number, or a tensor that broadcasts to the potential.
        threshold: V, in units of the potential; likewise.
        noise: xi[t], added to the membrane potential; same shape.
        reset: "subtract", a spike takes V off the potential; or "zero", it leaves none of it.

    Source: Xiao et al. 2026 (OPZO), section 3.1.
    """
    kernels.lif_step_(potential, spikes, current, leak, threshold, noise, reset == "zero")


def surrogate_times(
    error: Tensor,
    potential: Tensor,
    threshold: float | Tensor,
    width: float,
    gate: Tensor | float = 1.0,
) -> Tensor:
    r"""Multiply an error by the sigmoid-like surrogate derivative of the spike function.

    .. math:: e \, \psi(u) \, d, \qquad \psi(u) = \sigma'((u - V) / a) / a

    Args:
        error: signal that reaches the activity; any shape.
        potential: u[t]; same shape.
        threshold: V; a number, or a tensor that broadcasts to the potential.
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
    returned: Any
    """The state that a layer of another library returned in the step before; None before it."""

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
    learned: tuple[str, ...] = ()
    """Names of the layer's own parameters for which `eligibilities` has a value."""
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

    def membrane(self) -> tuple[Tensor, float | Tensor | None]:
        """Return the potential after the last step, (B, ...), and its threshold, for pictures.

        The threshold meets the potential as a number or a tensor; None if there is none. Nothing
        that learns asks for them.

        Raises:
            InputError: if the layer does not say which part of its state is the potential.
        """
        raise InputError(
            f"{type(self).__name__} does not say which part of its state is the membrane "
            "potential; give the class a method `membrane` that returns it with its threshold"
        )

    def eligibilities(self, before: dict[str, Tensor], current: Tensor) -> dict[str, Tensor]:
        r"""Return how the layer's own parameters act on its output at the step that comes.

        The gradient of a parameter is :math:`\sum_t \sum_i \delta_i[t] e_i[t]`, with delta what
        `modulate` returns, the error of the current. So e is the derivative, by the parameter, of
        whatever the derivative in `modulate` is taken by, over this step and all before. Asked
        before `advance`, without autograd.

        Args:
            before: what this returned at the step before; empty at the first.
            current: (B, ...) input current of the step.

        Returns:
            A new (B, ...) tensor for each name in `learned`. Entries of other names come back in
            `before`.
        """
        return {}

    def watched(self, current: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return what must be finite after a time step, and what must at least not be NaN.

        NaN reaches no threshold, so that spikes do not show it.

        Args:
            current: (B, ...) input current of the step.
        """
        return (current,), self.state or ()

    def check(self, name: str = "") -> None:
        """Refuse settings that have no meaning; asked whenever a rule begins to work.

        Args:
            name: the layer's name in the network, for the message.

        Raises:
            InputError: naming the setting.
        """
        where = f" of layer {name!r}" if name else ""
        for parameter, values in self._parameters.items():
            if values is not None:
                finding = partial(verdicts.refuse_tensor, f"{parameter}{where}", values)
                verdicts.judge(torch.isfinite(values).all(), finding)
        if not 0.0 <= number(f"dropout{where}", self.dropout) < 1.0:
            raise InputError(
                f"dropout{where} is {self.dropout}; give a probability of at least 0 and below 1"
            )
        if not 0.0 < number(f"scale{where}", self.scale) < math.inf:
            raise InputError(f"scale{where} is {self.scale}; give a number above 0")
        in_range(f"scale{where}", self.scale)

    def reset(self) -> None:
        """Forget the state and the dropout mask."""
        self.state = None
        self.gate = None
        self.resets += 1

    def __getstate__(self) -> dict[str, Any]:
        """A copy is nobody's: it leaves the rule behind that works on the layer now."""
        return {**self.__dict__, "probe": None}

    def kept_state(self) -> tuple[Tensor, ...]:
        """Return the state as `modulate` needs it, in tensors that later steps leave alone."""
        assert self.state is not None
        return tuple(part.clone() for part in self.state)

    def keep(self) -> Self:
        """Return the layer as it is after this step, for an error that comes later.

        It has the state, the dropout mask and the settings of now, such as a threshold that learns,
        and tells `delta` by them whatever happens to the layer.
        """
        kept = object.__new__(type(self))
        kept.__dict__.update(self.__dict__)
        kept.__dict__.update(
            state=self.kept_state(),
            probe=None,
            _parameters={n: _values(p) for n, p in self._parameters.items()},
            _buffers={n: _values(b) for n, b in self._buffers.items()},
            _modules=copy.deepcopy(self._modules),
        )
        return kept

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
        eligible: dict[str, Tensor] = {}
        if self.learned and torch.is_grad_enabled():
            with torch.no_grad():
                eligible = self.eligibilities({}, current.detach())
        if (current.requires_grad or eligible) and self.state is not None:
            # Earlier steps saved this state for their backward pass.
            self.state = tuple(part.clone() for part in self.state)
        activity = self.activity(self.advance(current.detach()))
        return attach(self, current, activity, eligible)

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
            with share.drawing(like.device):
                whole = kernels.mask_like(share.whole_like(like), self.dropout, value)
            self.gate = share.mine(whole)

    def respond(
        self, current: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor | int]:
        """Advance with noise before or after the neuron; return activity and sum of raw output.

        The sum is an int if all that is `watched` is known to be finite.
        """
        raw = self.advance(current, before)
        # Half precision counts no further than 2,048 spikes one by one, and ends at 65,504.
        return self.activity(raw, after), raw.sum(dtype=torch.promote_types(raw.dtype, WIDE))

    def delta(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | None) -> Tensor:
        """Carry an error from the activity to the current: through scale, dropout and spike."""
        return self.modulate(error, state, self.scale if gate is None else gate)


def _values(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


class NeuronOptions(TypedDict, total=False):
    """Options of the neurons of a network, for its builder; see `LIF`, which has the defaults."""

    leak: float | Tensor
    threshold: float | Tensor
    dropout: float
    scale: float
    surrogate_width: float
    reset: Reset
    learn_leak: bool
    learn_threshold: bool


class LIF(Neuron):
    r"""Leaky integrate-and-fire neurons; `leak` is the share of the potential that stays.

    .. math:: u[t] = \lambda (u[t-1] - V s[t-1]) + I[t], \qquad s[t] = [u[t] \ge V]

    That is the reset "subtract": a spike takes V off the potential. After the reset "zero", nothing
    of the potential is left:

    .. math:: u[t] = \lambda u[t-1] (1 - s[t-1]) + I[t]

    Presynaptic traces take no notice of the reset, whichever it is: they decay by lambda through a
    spike of the neuron behind the synapse.

    With `learn_leak` or `learn_threshold`, the layer has a parameter, `raw_leak` or
    `raw_threshold`, and :math:`\lambda = \sigma(r_\lambda)`, :math:`V = \exp(r_V)`. Every rule
    teaches it by an eligibility that runs forward in time, the derivative of the potential while
    all spikes are held as they are:

    .. math:: \epsilon_\lambda[t] = u[t-1] - V s[t-1] + \lambda \epsilon_\lambda[t-1], \qquad
              \epsilon_V[t] = \lambda (\epsilon_V[t-1] - s[t-1])

    .. math:: \frac{dL}{d\lambda} = \sum_t \sum_i \delta_i[t] \epsilon_{\lambda,i}[t], \qquad
              \frac{dL}{dV} = \sum_t \sum_i \delta_i[t] (\epsilon_{V,i}[t] - 1)

    with delta the error of the potential. The 1 is that of the surrogate, which sees u - V. After
    the reset "zero", :math:`u[t-1] (1 - s[t-1]) + \lambda (1 - s[t-1]) \epsilon_\lambda[t-1]` is
    the first, and the second is 0.

    Args:
        leak: lambda, 0 to 1. 1 keeps the whole potential from step to step, which makes the neurons
            IF neurons; 0 keeps nothing of it. A tensor has a value for each neuron, (n,), or for
            each channel, (C,), of a picture; it is a buffer, `leak_values`.
        threshold: V, above 0; a tensor as for `leak`, in `threshold_values`.
        dropout: probability that a neuron is silenced for all time steps of a sample.
        scale: factor of the activity that the next layer sees.
        surrogate_width: a of the sigmoid-like surrogate derivative, above 0.
        reset: "subtract" or "zero". Kept as `reset_mode`, as `reset()` is a method.
        learn_leak, learn_threshold: whether rules teach it; from the given value on, one for the
            layer or one for each neuron or channel.

    Raises:
        InputError: if a setting is out of its range; when called, if a tensor does not fit.
        ConfigurationError: if an option is not known.

    Example:
        >>> neuron = LIF(leak=0.5, threshold=1.0)
        >>> [neuron(torch.tensor([[0.8]])).item() for _ in range(3)]
        [0.0, 1.0, 0.0]

    Source: Xiao et al. 2026 (OPZO), section 3.1, for the reset "subtract"; Fang et al. 2021
    (parametric LIF) for the sigmoid; Bellec et al. 2020 (e-prop) for the eligibilities.
    """

    leak = Constant(SHARE)
    threshold = Constant(LEVEL)

    def __init__(
        self,
        leak: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        dropout: float = 0.0,
        scale: float = 1.0,
        surrogate_width: float = 0.25,
        reset: Reset = "subtract",
        learn_leak: bool = False,
        learn_threshold: bool = False,
        **unknown: Never,
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__(dropout, scale)
        self.leak = leak
        self.threshold = threshold
        self.surrogate_width = number("surrogate_width", surrogate_width)
        self.reset_mode = reset
        LIF.check(self)
        if as_flag("learn_leak", learn_leak):
            LIF.leak.learn(self)
        if as_flag("learn_threshold", learn_threshold):
            LIF.threshold.learn(self)

    def __setattr__(self, name: str, value: Any) -> None:
        # A Module would make a tensor or parameter its own before the Constant sees it.
        if isinstance(getattr(type(self), name, None), Constant):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def check(self, name: str = "") -> None:
        super().check(name)
        where = f" of layer {name!r}" if name else ""
        LIF.leak.check(self, where)
        LIF.threshold.check(self, where)
        if not 0.0 < number(f"surrogate_width{where}", self.surrogate_width) < math.inf:
            raise InputError(
                f"surrogate_width{where} is {self.surrogate_width}; give a number above 0"
            )
        in_range(f"surrogate_width{where}", self.surrogate_width)
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
        potential, spikes, *_ = self._state_for(current)
        if potential.shape != current.shape:
            raise InputError(
                f"current of shape {tuple(current.shape)} meets neurons with state of shape "
                f"{tuple(potential.shape)}; call reset() before a batch of another size"
            )
        leak, threshold = self._constants(current.shape[1:])
        lif_step_(potential, spikes, current, leak, threshold, noise, self.reset_mode)
        return spikes

    def watched(self, current: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        # The potential has the current in it.
        return () if self.state is None else self.state[:1], ()

    def _constants(self, shape: torch.Size) -> tuple[float | Tensor, float | Tensor]:
        """Return leak and threshold so that they may meet a batch of neurons."""
        leak, threshold = value_of(self, "leak"), value_of(self, "threshold")
        return of_each("leak", leak, shape), of_each("threshold", threshold, shape)

    def eligibilities(self, before: dict[str, Tensor], current: Tensor) -> dict[str, Tensor]:
        potential, spikes, *_ = self._state_for(current)
        leak, threshold = self._constants(current.shape[1:])
        zero = self.reset_mode == "zero"
        stays = (1.0 - spikes) * leak if zero else leak
        found: dict[str, Tensor] = {}
        if "raw_leak" in self.learned:
            kept = potential * (1.0 - spikes) if zero else potential - spikes * threshold
            fresh = kept * SHARE.slope(leak)
            found["raw_leak"] = _plus(fresh, stays, before.get("raw_leak"))
        if "raw_threshold" in self.learned:
            slope = LEVEL.slope(threshold)
            by_reset = torch.zeros_like(spikes) if zero else spikes * leak * -slope
            by_reset = _plus(by_reset, stays, before.get("reset"))
            found["reset"], found["raw_threshold"] = by_reset, by_reset - slope
        return found

    def membrane(self) -> tuple[Tensor, float | Tensor | None]:
        assert self.state is not None
        potential = self.state[0]
        return potential, self._constants(potential.shape[1:])[1]

    def respond(
        self, current: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor | int]:
        # A subclass may have an `advance` or `activity` of its own, which has to be asked.
        plain = type(self).advance is LIF.advance and type(self).activity is Neuron.activity
        if plain:
            potential, spikes, *_ = self._state_for(current)
            leak, threshold = self._constants(current.shape[1:])
            self._draw_gate(spikes)
            gate = self.scale if self.gate is None else self.gate
            zero = self.reset_mode == "zero"
            given = kernels.lif_activity(
                potential, spikes, current, leak, threshold, gate, before, after, zero
            )
            if given is not None:
                return given
        return super().respond(current, before, after)

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        threshold = of_each("threshold", value_of(self, "threshold"), error.shape[1:])
        return surrogate_times(error, state[0], threshold, self.surrogate_width, gate)

    def extra_repr(self) -> str:
        leak, threshold = LIF.leak.described(self), LIF.threshold.described(self)
        return (
            f"{leak}, {threshold}, dropout={self.dropout}, "
            f"scale={self.scale}, surrogate_width={self.surrogate_width}, reset={self.reset_mode!r}"
        )


def _plus(fresh: Tensor, stays: Tensor | float, before: Tensor | None) -> Tensor:
    """Return what is new of an eligibility with what stays of it."""
    return fresh if before is None else fresh + before * stays


class CubaLIF(LIF):
    r"""LIF neurons with a synaptic current in front of the potential.

    .. math:: i[t] = \alpha i[t-1] + I[t], \qquad u[t] = \lambda (u[t-1] - V s[t-1]) + i[t]

    The presynaptic trace of the synapses in front is the trace of a trace, with alpha and lambda
    (see `Pathway`). `learn_synaptic_leak` adds the parameter `raw_synaptic_leak`, the logit of
    alpha, with the eligibility

    .. math:: \epsilon_\alpha[t] = \lambda \epsilon_\alpha[t-1] + \kappa[t], \qquad
              \kappa[t] = i[t-1] + \alpha \kappa[t-1]

    Args:
        leak: lambda, of the potential.
        synaptic_leak: alpha, 0 to 1, the share of the current that stays; a tensor as for `leak`.
        threshold, dropout, scale, surrogate_width, reset, learn_leak, learn_threshold: see `LIF`.
        learn_synaptic_leak: whether rules teach alpha.

    Raises:
        InputError: if a setting is out of its range.

    Example:
        >>> neuron = CubaLIF(leak=0.5, synaptic_leak=0.5)
        >>> [neuron(torch.tensor([[x]])).item() for x in (0.8, 0.0, 0.0)]
        [0.0, 0.0, 0.0]
        >>> [round(value.item(), 3) for value in neuron.state]
        [0.6, 0.0, 0.2]

    Source: Neftci, Mostafa & Zenke 2019 (Surrogate Gradient Learning in Spiking Neural Networks),
    the LIF neuron with exponential synapses; here a current reaches the potential in its own time
    step and not one later. The trace of a trace is Xiao et al. 2022 (OTTT) for this neuron.
    """

    synaptic_leak = Constant(SHARE)

    def __init__(
        self,
        leak: float | Tensor = 0.5,
        synaptic_leak: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        dropout: float = 0.0,
        scale: float = 1.0,
        surrogate_width: float = 0.25,
        reset: Reset = "subtract",
        learn_leak: bool = False,
        learn_threshold: bool = False,
        learn_synaptic_leak: bool = False,
        **unknown: Never,
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__(
            leak, threshold, dropout, scale, surrogate_width, reset, learn_leak, learn_threshold
        )
        self.synaptic_leak = synaptic_leak
        CubaLIF.check(self)
        if as_flag("learn_synaptic_leak", learn_synaptic_leak):
            CubaLIF.synaptic_leak.learn(self)

    def check(self, name: str = "") -> None:
        super().check(name)
        CubaLIF.synaptic_leak.check(self, f" of layer {name!r}" if name else "")

    def _state_for(self, current: Tensor) -> tuple[Tensor, ...]:
        """Return potential, spikes and synaptic current, which start at 0."""
        if self.state is None:
            self.state = tuple(torch.zeros_like(current) for _ in range(3))
        return self.state

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        synaptic = self._state_for(current)[2]
        if synaptic.shape == current.shape:  # LIF refuses another one
            synaptic.mul_(self._alpha(current.shape[1:])).add_(current)
            current = synaptic
        return super().advance(current, noise)

    def _alpha(self, shape: torch.Size) -> float | Tensor:
        """Return the synaptic leak so that it may meet a batch of neurons."""
        alpha: float | Tensor = value_of(self, "synaptic_leak")
        return of_each("synaptic_leak", alpha, shape)

    def eligibilities(self, before: dict[str, Tensor], current: Tensor) -> dict[str, Tensor]:
        found = super().eligibilities(before, current)
        if "raw_synaptic_leak" in self.learned:
            _, spikes, synaptic = self._state_for(current)
            leak, _ = self._constants(current.shape[1:])
            stays = (1.0 - spikes) * leak if self.reset_mode == "zero" else leak
            alpha = self._alpha(current.shape[1:])
            fresh = _plus(synaptic * SHARE.slope(alpha), alpha, before.get("synaptic current"))
            found["synaptic current"] = fresh
            found["raw_synaptic_leak"] = _plus(fresh, stays, before.get("raw_synaptic_leak"))
        return found

    def extra_repr(self) -> str:
        return f"{CubaLIF.synaptic_leak.described(self)}, {super().extra_repr()}"


class _LocalDerivative(torch.autograd.Function):
    """Gives an activity computed without autograd the neuron's local derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        activity: Tensor,
        neuron: Neuron,
        kept: Neuron | None,
        eligible: list[Tensor],
        *parameters: Tensor,
    ) -> Tensor:
        assert neuron.state is not None
        ctx.neuron, ctx.gate, ctx.kept = neuron, neuron.gate, kept
        ctx.shapes = [parameter.shape for parameter in parameters]
        # Saved this way, a state overwritten before its use is an error and not a wrong gradient.
        state = neuron.state if kept is None else ()
        ctx.parts = len(state)
        ctx.save_for_backward(*state, *eligible)
        return activity.detach()  # not a view: the network may write to it

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        state, eligible = ctx.saved_tensors[: ctx.parts], ctx.saved_tensors[ctx.parts :]
        if ctx.kept is None:
            delta = ctx.neuron.delta(error, state, ctx.gate)
        else:
            delta = ctx.kept.delta(error, ctx.kept.state, ctx.kept.gate)
        grads = [sum_like(delta * e, shape) for e, shape in zip(eligible, ctx.shapes, strict=True)]
        return delta, None, None, None, None, *grads


def attach(
    neuron: Neuron,
    current: Tensor,
    activity: Tensor,
    eligible: dict[str, Tensor],
    kept: Neuron | None = None,
) -> Tensor:
    """Connect an activity to its current, and to what the layer learns, within the time step.

    Args:
        neuron: the layer, after the step.
        current: (B, ...) its input.
        activity: (B, ...) its output.
        eligible: what `Neuron.eligibilities` returned for the step.
        kept: what `Neuron.keep` returned, if the error may come after the next step.
    """
    parameters = [getattr(neuron, name) for name in neuron.learned] if eligible else []
    taught = current.requires_grad or any(p.requires_grad for p in parameters)
    if not (taught and torch.is_grad_enabled()):
        return activity
    factors = [eligible[name] for name in neuron.learned] if eligible else []
    return _LocalDerivative.apply(current, activity, neuron, kept, factors, *parameters)  # type: ignore[no-any-return,no-untyped-call]
