"""What a rule sees of one hidden layer while it works on a network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from threefactor.clocked.constants import of_each, sum_like
from threefactor.clocked.decays import Decay
from threefactor.clocked.foreign.neurons import tensors_in
from threefactor.clocked.neuron import Neuron, attach
from threefactor.clocked.noise import Perturbation
from threefactor.clocked.pathway import Eligibility, eligibility_of, head_of, is_one, plus_decayed
from threefactor.clocked.turns import Turn
from threefactor.errors import InputError
from threefactor.processes import Share

__all__ = ["Probe"]


class Probe:
    """Observes and perturbs one hidden layer, and cuts or keeps the graph through it.

    Attributes a rule may read after each time step, with B samples and n neurons:
        name: the layer's name in the network.
        size: n.
        activity: (B, ...) what the next layer saw, noise and dropout included.
        second_activity: (B, ...) the same in the second forward pass, if there is one.
        noise: (B, ...) the scaled noise alpha z of this step; None without a perturbation.
        whole_noise: the same of all samples of a batch that several processes share.
        eligible: what `Neuron.eligibilities` said of the step, of the layer's own parameters.
        noise_scale: alpha of that noise.
        left: the tensors of the state of a layer of another library after the step before, and
            their versions then.
        returned: the state that a layer of another library returned in the step before.
        trace: (B, ...) the trace of the activity, as a read-out of the layer has it; kept only if
            `keeps_trace`.
    """

    def __init__(
        self,
        name: str,
        neuron: Neuron,
        *,
        perturbation: Perturbation | None = None,
        couple: bool = False,
        keeps_trace: bool = False,
    ) -> None:
        self.name = name
        self.neuron = neuron
        self.perturbation = perturbation
        self.couple = couple
        self.keeps_trace = keeps_trace
        self.decay = Decay(0.0)
        """Of the trace; the session sets it."""
        self.turn: Turn | None = None
        self.keeps = False
        """Whether a step's derivative may be asked for after the next steps."""
        self.head: Tensor | Eligibility | None = None
        """In a kept layer, where errors of its current enter."""
        self.noise_scale = 1.0
        self._then: Neuron | None = None
        self.share: Share | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self.activity: Tensor | None = None
        self.second_activity: Tensor | None = None
        self.current: Tensor | None = None
        self.whole_noise: Tensor | None = None
        self.trace: Tensor | None = None
        self._current_trace: Tensor | None = None
        self.returned: Any = None
        self.left: list[tuple[Tensor, int]] = []
        self.eligible: dict[str, Tensor] = {}
        self.spike_sum: Tensor | int = 0
        self.steps = 0
        self.noise_factor = 1.0
        self.main_pass = True
        self.used = self.known_finite = False
        self.disturbed = False
        self._stays = False
        self._kept: dict[str, Any] | None = None
        self._versions: list[tuple[int, int]] = []
        self._resets = 0
        self._other_state: dict[str, Any] = dict.fromkeys(self.neuron.state_attributes)

    def swap_state(self) -> None:
        """Exchange the neuron's state with that of the second forward pass."""
        for name, other in self._other_state.items():
            self._other_state[name] = getattr(self.neuron, name)
            setattr(self.neuron, name, other)

    def put_in_place(self) -> None:
        """Stand in for the neuron's forward pass, with the state of this stream or from rest."""
        neuron, kept = self.neuron, self._kept
        self._before = neuron.everything()
        self._before_probe = neuron.probe
        at_rest = all(v is None for n, v in self._before.items() if n != "resets")
        gone = at_rest or (neuron.foreign and not self._is_shown())
        if kept is not None and self._stays and gone:
            self.disturbed = True  # the state that was left in the neuron is gone
        # Where another session is at work, what it finds later has to be its own.
        self._stays = neuron.probe is None and (at_rest or self._is_shown())
        if kept is None:
            neuron.reset()
        else:
            # A copy of a stream has tensors of its own; only a change of the same one counts.
            ran = dict(_versions(kept))
            changed = any(ran.get(i, v) != v for i, v in self._versions)
            if changed or neuron.resets != kept["resets"]:
                self.disturbed = True
            neuron.take(kept)
        self._resets = neuron.resets
        neuron.put(self)

    def put_back(self) -> None:
        """Undo `put_in_place`; the state stays visible in a neuron that was at rest."""
        neuron = self.neuron
        resets = self._before["resets"]
        if neuron.foreign:
            neuron.state = None  # it is of autograd's graph of the last step
        kept = {**neuron.everything(), "resets": resets}
        neuron.take(kept if self._stays else self._before)
        neuron.put(self._before_probe)
        if all(value is None for name, value in kept.items() if name != "resets"):
            self._kept, self._versions = None, []  # refused before its first step: nothing began
        else:
            self._kept, self._versions = kept, _versions(kept)

    def take_off(self) -> None:
        """Leave the neuron at rest if it shows the state of this stream."""
        if self._is_shown():
            resets = self.neuron.resets
            self.neuron.reset()
            self.neuron.resets = resets

    def _is_shown(self) -> bool:
        if self._kept is None:
            return False
        now = self.neuron.everything()
        return all(
            _same(now[name], value) for name, value in self._kept.items() if name != "resets"
        )

    @property
    def noise(self) -> Tensor | None:
        whole = self.whole_noise
        return whole if whole is None or self.share is None else self.share.mine(whole)

    @property
    def size(self) -> int:
        assert self.activity is not None
        return self.activity[0].numel()

    def step(self, current: Tensor) -> Tensor:
        """Stand in for `Neuron.forward`."""
        if self.turn is not None:
            self.turn.check()
        if self.neuron.resets != self._resets:
            raise InputError(
                f"hidden layer {self.name!r} was reset in the middle of a sequence; reset between "
                "sequences, with rule.reset()"
            )
        if self.left and self.main_pass and self._is_forgotten():
            raise InputError(
                f"hidden layer {self.name!r} was set to rest in the middle of a sequence, as by a "
                "forward pass that resets its neurons; a rule begins each sequence at rest: leave "
                "the resets out of the forward pass"
            )
        if self.used:
            raise InputError(
                f"hidden layer {self.name!r} is used twice in one time step, but has one state; "
                "give each use a layer of its own. A forward pass that loops over time has to "
                "become one time step: the rule makes the loop"
            )
        self.used = True
        learning = torch.is_grad_enabled()
        noise = self._draw(current) if self.perturbation else None
        before = noise if self.perturbation and self.perturbation.position == "before" else None
        after = noise if before is None else None
        with torch.no_grad():
            if self.neuron.learned and self.main_pass and learning:
                self.eligible = self.neuron.eligibilities(self.eligible, current.detach())
            activity, fired = self.neuron.respond(current.detach(), before, after)
        if not self.main_pass:
            self.second_activity = activity
            return activity
        if self.neuron.foreign:
            self.left = [(part, part._version) for part in tensors_in(self.neuron.memory)]
        self._record(current, fired, activity)
        if not self.couple:
            return activity
        kept = self.neuron.keep() if self.keeps else None
        return attach(self.neuron, current, activity, self.eligible, kept)

    def _is_forgotten(self) -> bool:
        """Return whether something set the state of a layer of another library to rest."""
        now = list(tensors_in(self.neuron.memory))
        known = {id(part): version for part, version in self.left}
        same = now and all(known.get(id(part)) == part._version for part in now)
        return not same and not any(bool(part.any()) for part in now)

    def _draw(self, current: Tensor) -> Tensor | None:
        assert self.perturbation is not None
        if self.main_pass:
            self.noise_scale = self.perturbation.scale
            like, share = current.detach(), self.share
            if share is None:
                self.whole_noise = self.perturbation.draw(self.whole_noise, like, self.steps)
                return self.whole_noise
            if self.whole_noise is None:
                like = share.whole_like(like)
            with share.drawing(like.device):
                self.whole_noise = self.perturbation.draw(self.whole_noise, like, self.steps)
            return share.mine(self.whole_noise)
        assert self.noise is not None
        return self.noise * self.noise_factor if self.noise_factor else None

    def _record(self, current: Tensor, fired: Tensor | int, activity: Tensor) -> None:
        self.steps += 1
        self.current, self.activity = head_of(current), activity
        self._activity_version = activity._version if not activity.is_inference() else 0
        self.spike_sum, self.known_finite = self.spike_sum + fired, isinstance(fired, int)
        if self.keeps_trace:
            self._follow(activity)

    def _follow(self, activity: Tensor) -> None:
        """Advance the trace to this step."""
        leak, alpha, _ = self.decay
        if alpha is not None:
            if self._current_trace is None:
                self._current_trace = activity.clone()
            else:
                plus_decayed(
                    activity, self._current_trace, self._spread(alpha), self._current_trace
                )
            activity = self._current_trace
        if self.trace is None:
            self.trace = activity.clone()
        else:
            plus_decayed(activity, self.trace, self._spread(leak), self.trace)

    def _spread(self, value: float | Tensor) -> float | Tensor:
        """Return a decay with a value of each neuron, if they differ."""
        if not isinstance(value, Tensor) or is_one(value):
            return value
        assert self.activity is not None
        shape = self.activity.shape[1:]
        return of_each("leak", value, shape).expand(shape).reshape(-1)

    @property
    def rewritten(self) -> bool:
        """Whether the network wrote to the activity after the neurons gave it."""
        activity = self.activity
        assert activity is not None
        return not activity.is_inference() and activity._version != self._activity_version

    @property
    def firing_rate(self) -> Tensor:
        """Spikes per neuron and time step, averaged over batch, neurons and steps; a scalar."""
        assert self.activity is not None
        share = self.spike_sum / (self.activity.numel() * self.steps)
        return share if isinstance(share, Tensor) else self.activity.new_full((), share)

    def delta(self, error: Tensor) -> Tensor:
        """Turn the error of the activity, (B, n) or (B, ...), into that of the current."""
        assert self.activity is not None
        shape = self.activity.shape
        if error.numel() != self.activity.numel() or error.shape[0] != shape[0]:
            raise InputError(
                f"the rule gave an error of shape {tuple(error.shape)} for hidden layer "
                f"{self.name!r}, whose activity has shape {tuple(shape)}"
            )
        neuron = self.neuron if self._then is None else self._then
        assert neuron.state is not None
        return neuron.delta(error.view(shape), neuron.state, neuron.gate)

    def teach(self, error: Tensor) -> Tensor:
        """Add what the layer's own parameters learn from the error of the activity.

        Returns:
            The error of the current, as from `delta`.
        """
        delta = self.delta(error)
        for name in self.neuron.learned:
            with torch.enable_grad():  # it may be computed from another one
                parameter = getattr(self.neuron, name)
            if parameter.requires_grad:
                grad = sum_like(delta * self.eligible[name], parameter.shape)
                torch.autograd.backward(parameter, grad)
        return delta

    def keep(self) -> Probe:
        """Return the layer as it is in this time step, which later steps leave alone."""
        kept, neuron = copy.copy(self), self.neuron
        kept.forget_values()
        kept.head = None if self.current is None else eligibility_of(self.current)
        kept.activity, kept.second_activity = self.activity, self.second_activity
        kept.whole_noise = None if self.whole_noise is None else self.whole_noise.clone()
        kept.trace = None if self.trace is None else self.trace.clone()
        kept.eligible = {name: e for name, e in self.eligible.items() if name in neuron.learned}
        if neuron.state is not None:  # none if no step has called the layer
            kept._then = neuron.keep()
        return kept

    def forget_values(self) -> None:
        """Drop what a copy would hold of this step and of the stream."""
        self.activity = self.second_activity = self.current = self.whole_noise = None
        self.trace = self._current_trace = None
        self.eligible = {}
        self._kept, self._other_state, self.spike_sum = None, {}, 0
        self.returned, self.left = None, []

    @property
    def has_graph(self) -> bool:
        """Whether a kept layer holds a graph of autograd."""
        state = None if self._then is None else self._then.state
        return isinstance(self.head, Tensor) or any(p.grad_fn is not None for p in state or ())


def _versions(state: dict[str, Any]) -> list[tuple[int, int]]:
    """Tell the tensors of a state, and how often each was written to."""
    found: list[tuple[int, int]] = []
    for value in state.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Tensor) and not part.is_inference():
                found.append((id(part), part._version))
    return found


def _same(one: Any, other: Any) -> bool:
    """Return whether two states are made of the very same objects."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(map(_same, one, other))
    return one is other
