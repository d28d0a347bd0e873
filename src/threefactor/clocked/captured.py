"""The T steps of a training step on a GPU as one CUDA graph, captured once and replayed.

A step of a small network is hundreds of short kernels, and the CPU takes longer to launch them than
the GPU to run them. A graph launches them all at once. It repeats the very same work on the very
same memory: so whatever a step depends on besides the values of inputs, labels, parameters and
feedback is part of a key, and another key means another capture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from threefactor.clocked import verdicts
from threefactor.clocked.conv import Conv2d
from threefactor.clocked.losses import CrossEntropyMSE
from threefactor.clocked.network import Network
from threefactor.clocked.neuron import LIF, CubaLIF
from threefactor.clocked.resnet import ResidualBlock
from threefactor.clocked.rules import RULES, Rule
from threefactor.clocked.session import Result
from threefactor.clocked.synapse import Linear

__all__ = ["Captured"]

PLAIN = (float, int, str, bool, type(None))
KNOWN: tuple[type[nn.Module], ...] = (
    *(Network, Linear, Conv2d, LIF, CubaLIF, ResidualBlock),
    *(nn.Sequential, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.ModuleList),
)
"""Layers that do the same work in every step, whatever the values. A class of one's own says so of
itself by the class attribute `capturable = True`."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PASSING = {
    *("state", "gate", "probe", "resets", "network", "_session", "_outline", "_said"),
    *("_seen", "_warned", *HOOKS),
}
"""Attributes that a step changes, or that hold what is looked at elsewhere."""
MOST_KEPT = 4
"""Captures that are kept; each has memory of its own."""


class Recorder(Protocol):
    """What captures work and repeats it."""

    def capture(self, work: Callable[[], None]) -> None:
        """Record the work on the device without doing it."""

    def replay(self) -> None:
        """Do what was recorded, on the same memory."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph`.

    Args:
        generators: sources of randomness besides PyTorch's own; a replay takes from them what the
            work would take.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)

    def capture(self, work: Callable[[], None]) -> None:
        torch.cuda.synchronize()
        # Other threads, such as those that load data, may go on.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            work()

    def replay(self) -> None:
        self.graph.replay()


class Captured:
    """Steps of a rule that are captured and replayed where that gives the same numbers.

    The first step of a kind is made as usual, the second is captured, and from then on it is
    replayed. Steps are of one kind if shapes, types, T, training mode, matmul precision, options of
    layers and rule, noise scale, and the memory of parameters and feedback are the same. The values
    of parameters may change, as an optimiser changes them.

    What cannot be captured is done as usual, and `reason` says why: CPU, hooks, layers, rules or
    losses of one's own, several processes, inputs other than one tensor, labels that differ from
    step to step.

    **Never tried on a GPU**: the logic is tested on the CPU, with a stand-in for CUDA's graphs that
    records PyTorch's operations. So nothing uses this class unless you do.

    Args:
        rule: its `step` is called as usual for whatever is not replayed.
        recorder: makes what captures, of a list of generators; CUDA's graphs by default.

    Attributes:
        reason: why the last step was not replayed; None if it was.

    Example:
        >>> from threefactor import clocked
        >>> rule = clocked.OPZO(clocked.fc(4, (8,), 3))
        >>> fast = Captured(rule)
        >>> result = fast.step(torch.rand(2, 4), torch.tensor([0, 2]), steps=6)
        >>> fast.reason
        'the network is on cpu, and graphs are of CUDA'
    """

    device_type = "cuda"

    def __init__(
        self, rule: Rule, recorder: Callable[[list[torch.Generator]], Recorder] = CudaGraph
    ) -> None:
        self.rule = rule
        self.recorder = recorder
        self.reason: str | None = "no step was made yet"
        self._kept: OrderedDict[Any, _Capture | str | None] = OrderedDict()

    def step(self, inputs: Any, targets: Any, *, steps: int | None = None) -> Result:
        """See `Rule.step`."""
        self.reason = self._forbidden(inputs, targets)
        if self.reason is not None:
            return self.rule.step(inputs, targets, steps=steps)
        key = self._key(inputs, targets, steps)
        if key not in self._kept:
            self.reason = "the first step of its kind"
            result = self.rule.step(inputs, targets, steps=steps)
            # Its check of the network may have changed what the key is made of.
            self._keep(self._key(inputs, targets, steps), None)
            return result
        self._kept.move_to_end(key)
        found = self._kept[key]
        if found is None:
            try:
                found = _Capture(self.rule, self._recorder(), inputs, targets, steps)
            except RuntimeError as problem:  # something in the step asks the device for a value
                found = f"capture failed: {str(problem).strip().partition(chr(10))[0]:.200}"
            self._keep(key, found)
        if isinstance(found, str):
            self.reason = found
            return self.rule.step(inputs, targets, steps=steps)
        return found.replay(inputs, targets)

    def _keep(self, key: Any, found: _Capture | str | None) -> None:
        self._kept[key] = found
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def _recorder(self) -> Recorder:
        perturbation = self.rule.perturbation
        generator = None if perturbation is None else perturbation.generator
        return self.recorder([] if generator is None else [generator])

    def _forbidden(self, inputs: Any, targets: Any) -> str | None:
        """Say what keeps this step from being captured."""
        rule, parameters = self.rule, list(self.rule.network.parameters())
        device = parameters[0].device
        if device.type != self.device_type:
            return f"the network is on {device}, and graphs are of CUDA"
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            return f"the network is on {device}, which is not the current device"
        if not all(isinstance(x, Tensor) and x.device == device for x in (inputs, targets)):
            return f"inputs and targets are not one tensor each, on {device}"
        if inputs.requires_grad or targets.requires_grad:
            return "inputs or targets need a gradient"
        if rule.world is not None:
            return "several processes share the batches"
        for what, given, known in (
            ("rule", rule, tuple(RULES.values())),
            ("loss", rule.loss, (CrossEntropyMSE,)),
        ):
            if type(given) not in known and not getattr(given, "capturable", False):
                return f"nothing is known of a {what} of the type {type(given).__name__}"
        for name, module in rule.network.named_modules():
            own = type(module)
            if own not in KNOWN and not getattr(own, "capturable", False):
                return f"nothing is known of layer {name!r}, a {own.__name__}"
            if any(getattr(module, hooks, None) for hooks in HOOKS):
                return f"layer {name!r} has hooks"
        for parameter in (*parameters, *rule.parameters()):
            if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
                return "a parameter has hooks"
        return None

    def _key(self, inputs: Tensor, targets: Tensor, steps: int | None) -> Any:
        """Return all that a step depends on besides values in memory."""
        given = [(x.shape, x.stride(), x.dtype, x.device) for x in (inputs, targets)]
        rule = self.rule
        parts = [
            tuple(_attributes(module)) for root in (rule.network, rule) for module in root.modules()
        ]
        noise = () if rule.perturbation is None else tuple(_options(rule.perturbation))
        precision = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        loss = tuple(_options(rule.loss))
        return (tuple(given), steps, tuple(parts), noise, loss, precision)


def _options(given: Any) -> Iterator[Any]:
    """Yield the attributes of a loss or of noise."""
    for name, value in vars(given).items():
        yield name, value if isinstance(value, PLAIN) else id(value)


def _attributes(module: nn.Module) -> Iterator[Any]:
    """Yield type, options and the memory of the tensors of a module."""
    yield type(module)
    for name, value in sorted(vars(module).items()):
        if name in PASSING:
            continue
        if isinstance(value, PLAIN):
            yield name, value
        elif name in ("_parameters", "_buffers"):
            for tensor in value.values():
                if tensor is not None:
                    shape = tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad
                    yield id(tensor), tensor.data_ptr(), *shape
        elif isinstance(value, tuple) and all(isinstance(part, PLAIN) for part in value):
            yield name, value
        elif name == "_modules":
            yield tuple(map(id, value.values()))
        elif not name.startswith("_"):
            yield name, id(value)


class _Capture:
    """One captured step, with the memory that it works on."""

    def __init__(
        self, rule: Rule, recorder: Recorder, inputs: Tensor, targets: Tensor, steps: int | None
    ) -> None:
        self.rule, self.recorder = rule, recorder
        self.inputs, self.targets = inputs.clone(), targets.clone()
        self.parameters = [*rule.network.parameters(), *rule.parameters()]
        self.buffers = list(rule.buffers())
        self.result: Result
        self.grads: list[Tensor | None] = []
        self.sound: Tensor
        self.complaints: list[Callable[[], None]] = []
        before = [p.grad for p in self.parameters]

        def work() -> None:
            with verdicts.held() as held:
                self.result = rule.step(self.inputs, self.targets, steps=steps)
                self.sound = torch.stack([sound for sound, _ in held])
                self.complaints = [complain for _, complain in held]
            self.grads = [p.grad for p in self.parameters]

        for parameter in self.parameters:
            parameter.grad = None
        try:
            recorder.capture(work)
        finally:
            for parameter, grad in zip(self.parameters, before, strict=True):
                parameter.grad = grad

    @torch.no_grad()
    def replay(self, inputs: Tensor, targets: Tensor) -> Result:
        """Make the step with other values, and refuse them as `Rule.step` does."""
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        kept = [buffer.clone() for buffer in self.buffers]
        self.recorder.replay()
        try:
            for sound, complain in zip(self.sound.tolist(), self.complaints, strict=True):
                if not sound:
                    complain()
        except BaseException:
            for buffer, value in zip(self.buffers, kept, strict=True):
                buffer.copy_(value)
            raise
        for parameter, grad in zip(self.parameters, self.grads, strict=True):
            if grad is None:
                continue
            if parameter.grad is None:
                parameter.grad = grad.clone()
            else:
                parameter.grad.add_(grad)
        found = self.result
        rates = {name: rate.clone() for name, rate in found.firing_rates.items()}
        loss = None if found.loss is None else found.loss.clone()
        return Result(found.output.clone(), rates, found.steps, loss)
