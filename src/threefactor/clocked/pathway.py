"""The presynaptic side of a synapse layer while a rule works, and the way of errors to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threefactor.clocked.synapse import Synapse
from threefactor.clocked.turns import Turn
from threefactor.errors import InputError

__all__ = [
    "Eligibility",
    "Pathway",
    "deliver",
    "deliver_kept",
    "eligibility_of",
    "head_of",
    "plus_decayed",
    "refuse_autocast",
]

MAX_GATHERED_STEPS = 6
MAX_GATHERED_BYTES = 8 * 2**20


class Pathway:
    r"""The presynaptic side of one synapse layer during a run.

    Keeps the presynaptic trace :math:`\hat a[t] = \lambda \hat a[t-1] + s[t]` and adds
    :math:`\sum_t \delta[t] \hat a[t]^T` to the weight gradient (Xiao et al. 2022, OTTT). The bias
    has no presynaptic trace; its gradient is :math:`\sum_t \delta[t]`.

    Neurons with a synaptic current, :math:`i[t] = \alpha i[t-1] + I[t]`, in front of the potential
    need the trace of a trace: :math:`\hat a[t] = \lambda \hat a[t-1] + \hat c[t]`,
    :math:`\hat c[t] = \alpha \hat c[t-1] + s[t]`.

    A few steps of traces and deltas are gathered before they are multiplied: one large product
    instead of several small ones. The number is bounded, so memory does not grow with T.

    While an input is the same at every step, the trace is a number times the input: the product
    with the weights is made once, and so is the gradient, from the weighted sum of the deltas. As
    soon as the layer sees anything else, the trace is written out and kept step by step.

    If `keeps` is set, every step has a trace of its own, since errors of several steps may be under
    way. Then nothing is gathered.

    Args:
        synapse: the layer.
        decay: lambda of the trace; a tensor has a value of each input, or is one number ().
        synaptic_decay: alpha, if the neurons have a synaptic current before the potential; None
            without one. A tensor as `decay`.
        learning: whether currents get a graph node that fills the gradients.
        name: the layer's name in the network, for messages.
        check_chain: called with an input that depends on other weights within the time step; None
            if any may.
        turn: who may call; None for anybody.
    """

    def __init__(
        self,
        synapse: Synapse,
        decay: float | Tensor,
        learning: bool = True,
        *,
        synaptic_decay: float | Tensor | None = None,
        name: str = "",
        check_chain: Callable[[Pathway, Tensor], None] | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.synapse = synapse
        self.decay = decay
        self.synaptic_decay = synaptic_decay
        self.learning = learning
        self.name = name
        self.check_chain = check_chain
        self.turn = turn
        self.keeps = False
        self.due: int | None = None
        """The number of the call whose errors are delivered; None for the last."""
        self.calls = 0
        self.constant_inputs: tuple[Tensor, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Forget the trace and the input."""
        self.trace: Tensor | None = None
        self.used = False
        self._traces: Tensor | None = None
        self._deltas: Tensor | None = None
        self._gathered = 0
        self._gain: float | Tensor = 0.0
        self._current_gain: float | Tensor = 0.0
        self._followed = False
        self._current_trace: Tensor | None = None
        self._varies = False
        self._input: Tensor | None = None
        self._constant: Tensor | None = None
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        self._forget_products()

    def _forget_products(self) -> None:
        self._current: Tensor | None = None
        self._weights: list[tuple[int, int]] = []
        self._delta_sum: Tensor | None = None
        self.forget()

    def check_use(self) -> None:
        """Refuse a time step in which a layer that has learned from earlier input is not called.

        Its weights still act, through the potentials behind it, and no error would tell them.
        """
        if not self.used and self._followed:
            raise InputError(
                f"synapse layer {self.name!r} is not called in this time step, but was in an "
                "earlier one of the sequence, whose trace it keeps; call it in every step, with "
                "zeros where it has no input"
            )

    def forget(self) -> None:
        """Drop what was derived from the weights; they may change now."""
        self.derived: dict[str, Any] = {}
        self.copies: dict[str, Tensor] = {}
        self._held.clear()

    def hold(self, name: str) -> Tensor:
        """See `Synapse.held`."""
        plain = self.synapse._parameters.get(name)
        if plain is not None and not _has_hooks(plain):
            return plain
        if name not in self._held:
            with torch.enable_grad():
                source = getattr(self.synapse, name)
            self._held[name] = (source, source.detach().requires_grad_(source.requires_grad))
        return self._held[name][1]

    def __call__(self, x: Tensor) -> Tensor:
        if self.turn is not None:
            self.turn.check()
        if self.used:
            raise InputError(
                f"{self.synapse} is used twice in one time step, but has one presynaptic trace; "
                "give each use a layer of its own. A forward pass that loops over time has to "
                "become one time step: the rule makes the loop"
            )
        if not isinstance(x, Tensor):
            raise InputError(
                f"{self.synapse} gets a {type(x).__name__} as its input, as behind neurons that "
                "return their state, too, in an nn.Sequential; let the network hand on their "
                "spikes alone: init_hidden=True of snnTorch, SequentialState of Norse"
            )
        self.used = True
        refuse_autocast(x)
        self._watch_weights()
        whole = x
        x = self.synapse.receive(x)
        values = x.detach()
        shape = self._shape_seen()
        if shape is not None and shape != values.shape:
            raise InputError(
                f"input of shape {tuple(values.shape)} meets a trace of shape "
                f"{tuple(shape)}; call reset() before a batch of another size"
            )
        constant = self._is_constant(whole) and self._may_be_constant
        current = self._transmit(values, constant)
        if not (self.learning and torch.is_grad_enabled()):
            return current
        if x.requires_grad and self.check_chain is not None:
            self.check_chain(self, x)
        self._follow(values, constant)
        self._followed = True
        plastic = self.synapse.plastic
        anchor = plastic
        if plastic is None and self.synapse.bias is not None:
            anchor = self.synapse.held("bias")
        self.calls += 1
        return _Transmission.apply(x, anchor, current, self, constant)  # type: ignore[no-any-return,no-untyped-call]

    @property
    def _may_be_constant(self) -> bool:
        """Whether the trace of a constant input is a number times the input."""
        return is_one(self.decay) and is_one(self.synaptic_decay)

    def _shape_seen(self) -> torch.Size | None:
        """Return the shape of the input that the trace is of; None without a trace."""
        seen = self._input if self.trace is None else self.trace
        return None if seen is None else seen.shape

    def _watch_weights(self) -> None:
        """Notice weights that change in mid-sequence, and drop what was made of the old ones."""
        tensors = (*self._parameters(), *self.synapse._buffers.values())
        now = [(id(t), t._version) for t in tensors if t is not None and not t.is_inference()]
        before, self._weights = self._weights, now
        if before == now or not before:
            return
        pending = self._gathered or self._delta_sum is not None
        if pending and (self._held or self.derived):
            raise InputError(
                f"the weights of layer {self.name!r} changed in the middle of a sequence, before "
                "the gradient of its computed weights was complete; change them in after_step, or "
                "between sequences"
            )
        self._current = None
        self.forget()

    def _refuse_other_weights(self) -> None:
        """Refuse to give gradients to other tensors than those that made the current."""
        given = {i for i, _ in self._weights}
        now = [p for p in self._parameters() if p is not None and not p.is_inference()]
        if not given.issuperset(map(id, now)):
            raise InputError(
                f"layer {self.name!r} had other weights in the time step than it has now, as by "
                "torch.func.functional_call in the forward pass of the network; a rule teaches the "
                "parameters that the layers hold: put the values into these"
            )

    def _parameters(self) -> Iterable[Tensor | None]:
        layer = self.synapse
        return layer.parameters() if layer._modules else layer._parameters.values()

    def _is_constant(self, x: Tensor) -> bool:
        """Return whether x is one constant input, in memory and in every step until now."""
        if self._varies or not x.is_contiguous() or x.is_neg():
            return False
        for whole in self.constant_inputs if self._constant is None else (self._constant,):
            if (
                x.data_ptr() == whole.data_ptr()
                and x.numel() == whole.numel()
                and x.dtype == whole.dtype
            ):
                self._constant = whole
                return True
        return False

    def _transmit(self, x: Tensor, constant: bool) -> Tensor:
        with torch.no_grad():
            if not constant:
                return self.synapse.transmit(x)
            if self._current is None:
                self._input, self._current = x, self.synapse.transmit(x)
                self.copies.clear()  # the product is made once
            # A copy, which the network may write to, even behind autograd's back.
            return self._current.clone()

    def _follow(self, x: Tensor, constant: bool) -> None:
        """Advance the trace to this step."""
        leak, alpha = self.decay, self.synaptic_decay
        if constant:
            self._current_gain = 1.0 if alpha is None else alpha * self._current_gain + 1.0
            self._gain = leak * self._gain + self._current_gain
            return
        if not self._varies:
            self._varies = True
            if self._followed and self._input is not None:
                self.trace = self._input * self._gain
                if alpha is not None:
                    self._current_trace = self._input * self._current_gain
        if alpha is not None:
            before = self._current_trace
            x = x.clone() if before is None else plus_decayed(x, before, alpha, before)
            self._current_trace = x
        if self.keeps:
            before = self.trace
            fresh = torch.empty_like(x)
            self.trace = x.clone() if before is None else plus_decayed(x, before, leak, fresh)
            return
        if self._traces is None:
            steps = max(1, min(MAX_GATHERED_STEPS, MAX_GATHERED_BYTES // x.nbytes))
            self._traces = _room(steps, x)
        slot = self._traces[self._gathered]
        if self.trace is None:
            slot.copy_(x)
        else:
            plus_decayed(x, self.trace, leak, slot)
        self.trace = slot

    def learn(self, delta: Tensor, constant: bool) -> None:
        """Take in `delta`, the error of this step's current."""
        if constant:
            self.learn_constant(delta, self._gain)
            return
        assert self._traces is not None
        if len(self._traces) == 1:  # too large to gather
            self.add(delta, self._traces[0])
            return
        if self._deltas is None:
            self._deltas = _room(len(self._traces), delta)
        self._deltas[self._gathered].copy_(delta)
        self._gathered += 1
        if self._gathered == len(self._traces):
            self._multiply()

    def learn_constant(self, delta: Tensor, gain: float | Tensor) -> None:
        """Take in the error of a step whose trace is `gain` times the constant input."""
        self.synapse.add_bias_grad(delta)
        if self._delta_sum is None:
            self._delta_sum = delta * gain
        elif isinstance(gain, Tensor):
            self._delta_sum.addcmul_(delta, gain)
        else:
            self._delta_sum.add_(delta, alpha=gain)

    def _multiply(self) -> None:
        """Turn the gathered steps into gradients."""
        n, self._gathered = self._gathered, 0
        self.copies.clear()  # gradients take the place of copies, which are quickly made anew
        assert self._traces is not None and self._deltas is not None
        if n == 1:
            self.add(self._deltas[0], self._traces[0])
        else:
            self.add(self._deltas[:n].flatten(0, 1), self._traces[:n].flatten(0, 1))

    def add(self, deltas: Tensor, traces: Tensor) -> None:
        """Add the gradients of errors that meet traces."""
        self.synapse.add_bias_grad(deltas)
        if self.synapse.plastic is not None:
            self.synapse.add_weight_grad(deltas, traces)

    def flush(self) -> None:
        """Put all that was gathered into `.grad`; the weights may change after it."""
        if self._followed and self._weights:  # none if nothing came since it was flushed
            self._refuse_other_weights()
        if self._gathered:
            self._multiply()
        if self._delta_sum is not None and self.synapse.plastic is not None:
            assert self._input is not None
            self.synapse.add_weight_grad(self._delta_sum, self._input)
        given = [(source, leaf.grad) for source, leaf in self._held.values()]
        given = [(source, grad) for source, grad in given if grad is not None]
        if given:  # the parameters behind computed weights get what these gathered
            with torch.enable_grad():
                torch.autograd.backward([s for s, _ in given], [g for _, g in given])
        self._forget_products()


def refuse_autocast(x: Tensor) -> None:
    """Refuse to work under autocast, which would change precision behind a rule's back.

    Args:
        x: a tensor on the device at work.

    Raises:
        InputError: saying what to do instead.
    """
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        raise InputError(
            "torch.autocast is on, under which products would be made in half precision and "
            "states and traces would not; leave the autocast context for this call, and in the "
            "forward pass of the network, and torch.amp.GradScaler, which would divide gradients "
            "that nobody has multiplied. "
            "torch.set_float32_matmul_precision('medium') makes products in bfloat16, or in TF32, "
            "and keeps all else in float32"
        )


def plus_decayed(x: Tensor, trace: Tensor, decay: float | Tensor, out: Tensor) -> Tensor:
    """Write x + decay * trace.

    Args:
        x: (B, ...).
        trace: (B, ...).
        decay: a number, a tensor () of one, or a tensor with a value of each element of a sample.
        out: where to.
    """
    if not isinstance(decay, Tensor):
        return torch.add(x, trace, alpha=decay, out=out)
    if not is_one(decay):
        if decay.numel() != trace[0].numel():
            raise InputError(
                f"{decay.numel()} neurons have decays of their own, and the trace is that of "
                f"{trace[0].numel()} inputs; give a number as trace_decay of this layer"
            )
        decay = decay.view(trace.shape[1:])
    return torch.addcmul(x, trace, decay, out=out)


def is_one(decay: float | Tensor | None) -> bool:
    """Return whether a decay is one number for all, on whatever device, or there is none."""
    return not isinstance(decay, Tensor) or decay.dim() == 0


def _room(steps: int, like: Tensor) -> Tensor:
    """Return memory for some steps of a tensor, (steps, B, ...), laid out as the tensor is.

    So convolutions whose channels come last in memory need not turn what was gathered.
    """
    last = torch.channels_last
    if like.dim() != 4 or like.is_contiguous() or not like.is_contiguous(memory_format=last):
        return like.new_empty((steps, *like.shape))
    batch, *shape = like.shape
    whole = torch.empty(
        (steps * batch, *shape), dtype=like.dtype, device=like.device, memory_format=last
    )
    return whole.view(steps, batch, *shape)


def _has_hooks(parameter: Tensor) -> bool:
    """Return whether autograd would call something when this parameter gets its gradient."""
    after = getattr(parameter, "_post_accumulate_grad_hooks", None)
    return bool(parameter._backward_hooks or after)


@dataclass
class Eligibility:
    """What a synapse layer keeps of one time step until its error arrives.

    Attributes:
        pathway: that of the layer.
        trace: the trace of the step; None while the input is constant.
        gain: what the constant input is multiplied by to be the trace.
    """

    pathway: Pathway
    trace: Tensor | None
    gain: float | Tensor

    def learn(self, delta: Tensor) -> None:
        """Take in the error of the step's current."""
        if self.trace is None:
            self.pathway.learn_constant(delta, self.gain)
        else:
            self.pathway.add(delta, self.trace)


class _Transmission(torch.autograd.Function):
    """A product made without autograd; its backward pass uses the trace instead of the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor | None,
        current: Tensor,
        pathway: Pathway,
        constant: bool,
    ) -> Tensor:
        # The anchor only tells autograd that there is something to learn here.
        ctx.pathway, ctx.constant, ctx.shape = pathway, constant, x.shape
        ctx.call = pathway.calls
        ctx.kept = None
        if pathway.keeps:
            ctx.kept = Eligibility(pathway, None if constant else pathway.trace, pathway._gain)
        # Not a view, which autograd would not let the network write to.
        return current.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        pathway: Pathway = ctx.pathway
        if ctx.call != (pathway.calls if pathway.due is None else pathway.due):
            raise InputError(
                f"the network keeps what layer {pathway.name!r} gave at an earlier time step, with "
                "its graph; errors do not go back in time here: keep it with .detach()"
            )
        if ctx.kept is None:
            pathway.learn(delta, ctx.constant)
        else:
            ctx.kept.learn(delta)
        error = None
        if ctx.needs_input_grad[0]:
            error = pathway.synapse.input_error(delta, ctx.shape)
        return error, None, None, None, None


class _Head(torch.autograd.Function):
    """The current that neurons took, whatever the network does to the tensor in place later."""

    @staticmethod
    def forward(ctx: Any, current: Tensor) -> Tensor:
        ctx.original = current
        return current.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return delta


def head_of(current: Tensor) -> Tensor:
    """Return the present graph of a current as a tensor of its own."""
    return _Head.apply(current) if current.requires_grad else current  # type: ignore[no-untyped-call]


def deliver(heads: Sequence[Tensor], errors: Sequence[Tensor]) -> None:
    """Send each head's error to the synapse layers that made the head.

    If every head is the current of a layer of its own, whose input needs no error, nothing is left
    for the chain rule to do, and the layers get their errors without it. In every other case
    (operations between, skip connections, hooks) autograd carries them.
    """
    nodes = [_only_node(h, e) for h, e in zip(heads, errors, strict=True)]
    direct = [node for node in nodes if node is not None]
    if len(set(direct)) < len(heads):
        _backward(heads, errors)
        return
    with torch.no_grad():
        for node, error in zip(direct, errors, strict=True):
            node.pathway.learn(error, node.constant)


def deliver_kept(pairs: Sequence[tuple[Tensor | Eligibility, Tensor]], *, last: bool) -> None:
    """Send errors to where they enter a time step that was kept.

    Args:
        pairs: what `eligibility_of` made of each head, and its error.
        last: whether no more errors will come to this step, so that its graph may go.
    """
    graphs = [(head, error) for head, error in pairs if isinstance(head, Tensor)]
    if graphs:
        _backward([h for h, _ in graphs], [e for _, e in graphs], keep=not last)
    with torch.no_grad():
        for head, error in pairs:
            if isinstance(head, Eligibility):
                head.learn(error)


def eligibility_of(head: Tensor) -> Tensor | Eligibility | None:
    """Return what a head needs to keep of its step: no graph, where there is nothing to chain.

    Args:
        head: an output or a current, of a pathway that keeps each step.
    """
    if not head.requires_grad:
        return None
    node = _only_node(head, head)
    return head if node is None else node.kept


def _backward(heads: Sequence[Tensor], errors: Sequence[Tensor], keep: bool = False) -> None:
    try:
        torch.autograd.backward(heads, errors, retain_graph=keep)
    except RuntimeError as problem:
        if "second time" not in str(problem):
            raise
        raise InputError(
            "the network keeps a tensor of an earlier time step, with its graph; errors do not "
            "go back in time here: keep it with .detach()"
        ) from problem


def _only_node(head: Tensor, error: Tensor) -> Any:
    """Return the `_Transmission` that is the whole graph of a head; None if there is more to it."""
    node: Any = head.grad_fn
    if type(node).__name__ == "_HeadBackward":
        head, node = node.original, node.next_functions[0][0]
    alone = (
        isinstance(getattr(node, "pathway", None), Pathway)
        and not node.needs_input_grad[0]
        and not head._backward_hooks
        and not head.retains_grad
        and error.shape == head.shape
        and error.dtype == head.dtype
    )
    return node if alone else None
