"""What a rule sees of one hidden layer while it works on a network."""

from __future__ import annotations

import torch
from torch import Tensor

from threefactor.clocked.neuron import Neuron, attach
from threefactor.clocked.noise import Perturbation
from threefactor.errors import InputError

__all__ = ["Probe"]


class Probe:
    """Observes and perturbs one hidden layer, and cuts or keeps the graph through it.

    Attributes a rule may read after each time step, with B samples and n neurons:
        name: the layer's name in the network.
        size: n.
        activity: (B, ...) what the next layer saw, noise and dropout included.
        second_activity: (B, ...) the same in the second forward pass, if there is one.
        noise: (B, ...) the scaled noise alpha z of this step; None without a perturbation.
        trace: (B, ...) the trace of the activity; kept only if `trace_decay` is given.
    """

    def __init__(
        self,
        name: str,
        neuron: Neuron,
        *,
        perturbation: Perturbation | None = None,
        couple: bool = False,
        trace_decay: float | None = None,
    ) -> None:
        self.name = name
        self.neuron = neuron
        self.perturbation = perturbation
        self.couple = couple
        self.trace_decay = trace_decay
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self.activity: Tensor | None = None
        self.second_activity: Tensor | None = None
        self.current: Tensor | None = None
        self.noise: Tensor | None = None
        self.trace: Tensor | None = None
        self.spike_sum: Tensor | int = 0
        self.steps = 0
        self.noise_factor = 1.0
        self.main_pass = True
        self.used = False
        self._other_state: tuple[Tensor, ...] | None = None

    def swap_state(self) -> None:
        """Exchange the neuron's state with that of the second forward pass."""
        self.neuron.state, self._other_state = self._other_state, self.neuron.state

    @property
    def size(self) -> int:
        assert self.activity is not None
        return self.activity[0].numel()

    def step(self, current: Tensor) -> Tensor:
        """Stand in for `Neuron.forward`."""
        if self.used:
            raise InputError(
                f"hidden layer {self.name!r} is used twice in one time step, but has one state; "
                "give each use a layer of its own"
            )
        self.used = True
        noise = self._draw(current) if self.perturbation else None
        before = noise if self.perturbation and self.perturbation.position == "before" else None
        after = noise if before is None else None
        activity, fired = self.neuron.respond(current.detach(), before, after)
        if not self.main_pass:
            self.second_activity = activity
            return activity
        self._record(current, fired, activity)
        return attach(self.neuron, current, activity) if self.couple else activity

    def _draw(self, current: Tensor) -> Tensor | None:
        assert self.perturbation is not None
        if self.main_pass:
            self.noise = self.perturbation.draw(self.noise, current.detach(), self.steps)
            return self.noise
        assert self.noise is not None
        return self.noise * self.noise_factor if self.noise_factor else None

    def _record(self, current: Tensor, fired: Tensor | int, activity: Tensor) -> None:
        self.steps += 1
        self.current, self.activity = current, activity
        self.spike_sum = self.spike_sum + fired
        if self.trace_decay is not None:
            if self.trace is None:
                self.trace = activity.clone()
            else:
                torch.add(activity, self.trace, alpha=self.trace_decay, out=self.trace)

    @property
    def firing_rate(self) -> Tensor:
        """Spikes per neuron and time step, averaged over batch, neurons and steps; a scalar."""
        assert self.activity is not None
        share = self.spike_sum / (self.activity.numel() * self.steps)
        return share if isinstance(share, Tensor) else self.activity.new_tensor(share)

    def delta(self, error: Tensor) -> Tensor:
        """Turn the error of the activity, (B, n) or (B, ...), into that of the current."""
        assert self.activity is not None and self.neuron.state is not None
        shape = self.activity.shape
        if error.numel() != self.activity.numel() or error.shape[0] != shape[0]:
            raise InputError(
                f"the rule gave an error of shape {tuple(error.shape)} for hidden layer "
                f"{self.name!r}, whose activity has shape {tuple(shape)}"
            )
        return self.neuron.delta(error.view(shape), self.neuron.state, self.neuron.gate)
