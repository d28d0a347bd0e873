"""Spiking forward direct feedback alignment: feedback learned from graded spikes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from threefactor.errors import InputError, unknown_name
from threefactor.events.arrays import number
from threefactor.events.layer import Layer
from threefactor.events.network import Network
from threefactor.events.parallel import over, product
from threefactor.events.rules.base import NOT_NEGATIVE
from threefactor.events.rules.feedback import FeedbackOptions, FeedbackRule
from threefactor.events.trial import Trial
from threefactor.processes import Share
from threefactor.readable import clipped

__all__ = ["SFDFA"]

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class SFDFA(FeedbackRule):
    r"""Spiking forward direct feedback alignment.

    .. math:: B_{io} \leftarrow B_{io} - \eta\, \overline{B_{io} - p_i G_o}

    Each hidden neuron draws p ~ N(0, 1) per sample and puts it on its first spike as a grade. A
    neuron gathers the weighted grades of the spikes that reach it and passes the sum on with its
    own spike, after which it starts from 0. G_o is the sum of the grades that output neuron o
    emits; the bar is the mean over the samples in which hidden neuron i fired. With one hidden
    layer p_i G_o estimates the weight from i to o without bias (equation 9). B starts at 0.

    Args:
        network: see `Rule`.
        feedback_lr: eta.
        feedback_lr_change: (progress, eta) where eta changes once: from this share of the training
            on, 0 to 1, it has this value (see `set_progress`). None for none.
        feedback_optimizer: "sgd", plain descent as in the authors' runs with one or two hidden
            layers, or "adam" as in their text and their runs with deeper networks.
        feedback_first: whether the errors of a batch use B as it is after the update by this batch,
            as in the authors' runs; otherwise B as it was before.
        generator: source of p, on the CPU; PyTorch's global one by default.
        **options: see `FeedbackRule` and `Rule`.

    `rule.requires_grad_(False)` freezes the feedback as it is, and draws no more p.

    Raises:
        InputError: if a learning rate is negative or not finite, the change has no progress between
            0 and 1, `feedback_first` is no bool, or the generator is none.
        ConfigurationError: if a name is not known.

    Example:
        >>> from threefactor import events
        >>> net = events.fc(4, (8,), 3, tau_s=0.1, thresholds=0.01, duration=0.2)
        >>> rule = events.SFDFA(net, local_gradient="modified")
        >>> spikes = events.latency_code(torch.rand(2, 4), window=0.1)
        >>> result = rule.step(spikes, torch.tensor([0, 2]))
        >>> result.output.shape
        torch.Size([2, 3])

    Source: Bacho & Chu (SFDFA), section 2.2, equations 7 to 9.
    """

    def __init__(
        self,
        network: Network,
        *,
        feedback_lr: float = 1e-4,
        feedback_lr_change: Sequence[float] | None = None,
        feedback_optimizer: str = "sgd",
        feedback_first: bool = False,
        generator: torch.Generator | None = None,
        **options: Unpack[FeedbackOptions],
    ) -> None:
        super().__init__(network, **options)
        if feedback_optimizer not in OPTIMIZERS:
            raise unknown_name("feedback optimiser", feedback_optimizer, OPTIMIZERS)
        self.feedback_lr = feedback_lr
        self.feedback_lr_change = feedback_lr_change
        on_cpu = isinstance(generator, torch.Generator) and generator.device.type == "cpu"
        if generator is not None and not on_cpu:
            raise InputError(
                f"generator is {generator!r}; give a torch.Generator on the CPU, or None"
            )
        self.generator = generator
        self.feedback_first = feedback_first
        self._check_learning()
        self._taken = feedback_lr
        self.feedback_learns = True
        self.feedback = self.make_feedback(0.0)
        matrices, kind = self._matrices(), OPTIMIZERS[feedback_optimizer]
        self.optimizer = kind(matrices, lr=feedback_lr) if matrices else None

    def check(self, layers: dict[str, Layer]) -> None:
        super().check(layers)
        self._check_learning()
        self._take_rate()

    def _check_learning(self) -> None:
        number("feedback_lr", self.feedback_lr, NOT_NEGATIVE, zero=True)
        if not isinstance(self.feedback_first, bool):
            raise InputError(
                f"feedback_first is {clipped(self.feedback_first)}; give True or False"
            )
        if self.feedback_lr_change is not None:
            _check_change(self.feedback_lr_change)

    def _take_rate(self) -> None:
        """Learn with the `feedback_lr` that there is now, unless the rate is that of the change."""
        if self.optimizer is not None and self.optimizer.param_groups[0]["lr"] == self._taken:
            self.optimizer.param_groups[0]["lr"] = self.feedback_lr
        self._taken = self.feedback_lr

    def _matrices(self) -> list[Tensor]:
        return [connection.matrix for connection in self.feedback]

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, 0 to 1, on which the feedback's rate may depend."""
        super().set_progress(progress)
        if self.feedback_lr_change is None or self.optimizer is None:
            return
        since, rate = self.feedback_lr_change
        changed = progress >= since
        self.optimizer.param_groups[0]["lr"] = rate if changed else self.feedback_lr

    def requires_grad_(self, requires_grad: bool = True) -> SFDFA:
        """Freeze the feedback, or let it learn again, as this does with parameters."""
        super().requires_grad_(requires_grad)
        self.feedback_learns = requires_grad
        return self

    def learn(self, trial: Trial) -> None:
        if self.feedback_first:
            self._update_feedback(trial)
        super().learn(trial)
        if not self.feedback_first:
            self._update_feedback(trial)

    def _update_feedback(self, trial: Trial) -> None:
        if self.optimizer is None or not self.feedback_learns:
            return
        perturbations = [self._perturbation(counts, trial.share) for counts in trial.counts[:-1]]
        total = self.output_grades(trial, perturbations)
        gathered = [product(total.t(), p) for p in perturbations]
        fired = [
            torch.from_numpy(np.count_nonzero(counts.numpy() != 0, axis=0)).to(b.dtype)
            for b, counts in zip(self._matrices(), trial.counts, strict=False)
        ]
        if trial.share is not None:
            if not trial.share.counts:
                for tensor in (*gathered, *fired):
                    tensor.zero_()
            trial.share.world.add([*gathered, *fired])
        for b, sums, times in zip(self._matrices(), gathered, fired, strict=True):
            b.grad = b * (times > 0) - sums / times.clamp(min=1)
        self._follow_buffers()
        self.optimizer.step()

    def saved(self, buffers: dict[str, Tensor]) -> Callable[[], None]:
        restore_feedback = super().saved(buffers)
        if self.optimizer is None or not self.feedback_learns:
            return restore_feedback
        optimizer, generator = self.optimizer, self.generator or torch.default_generator
        drawn_from = generator.get_state()
        state = {
            b: {key: value.clone() for key, value in entry.items() if isinstance(value, Tensor)}
            for b, entry in optimizer.state.items()
        }

        def restore() -> None:
            restore_feedback()
            generator.set_state(drawn_from)
            for b in [b for b in optimizer.state if b not in state]:
                del optimizer.state[b]
            for b, entry in state.items():
                optimizer.state[b].update(entry)

        return restore

    def synchronise(self, share: Share) -> None:
        """All processes have learned from the sums over all samples."""

    def _perturbation(self, counts: Tensor, share: Share | None) -> Tensor:
        """Draw p, (B, n_l), for the neurons that fired; the others' would meet no spike."""
        fired = torch.from_numpy(counts.numpy() != 0)  # much faster than PyTorch's
        start, own = 0, int(np.count_nonzero(fired.numpy()))
        total = own
        if share is not None:  # each process draws for all samples, and takes its own
            each = share.world.gather([own if share.counts else 0])[:, 0].long()
            total, start = int(each.sum()), int(each[: share.world.rank].sum())
            if not share.counts:
                fired, start, own = torch.zeros_like(fired), 0, 0
        drawn = torch.randn(total, dtype=counts.dtype, device="cpu", generator=self.generator)
        return torch.zeros_like(counts).masked_scatter_(fired, drawn[start : start + own])

    def _follow_buffers(self) -> None:
        """Let the optimiser train the feedback as it is now: `to` and the like replace it."""
        assert self.optimizer is not None
        group = self.optimizer.param_groups[0]
        for old, new in zip(group["params"], self._matrices(), strict=True):
            if old is not new and old in self.optimizer.state:
                state = self.optimizer.state.pop(old)
                self.optimizer.state[new] = {
                    key: value.to(new.dtype) if value.dim() else value
                    for key, value in state.items()
                }
        group["params"] = self._matrices()

    def output_grades(self, trial: Trial, perturbations: list[Tensor]) -> Tensor:
        """Return G, (B, m): the summed grades of each output neuron's spikes.

        Args:
            trial: the pass of the batch.
            perturbations: p of every hidden neuron and sample, (B, n_l) for each layer.
        """
        none = torch.zeros_like(trial.output)
        given = np.zeros(len(trial.activities[0].inputs._raw.times), none.numpy().dtype)
        for activity, p in zip(trial.activities, [*perturbations, none], strict=True):
            inputs, spikes = activity.inputs._raw, activity.spikes._raw
            emitted = np.empty_like(activity._raw.currents)
            over(
                "grades", len(none), inputs.offsets, inputs.addresses, given, spikes.offsets,
                spikes.addresses, activity._raw.parents, activity._weights,
                trial.by_neuron(activity, p), emitted,
            )  # fmt: skip
            given = emitted
        total = np.empty(none.shape)
        over("summed", len(none), spikes.offsets, spikes.addresses, given, total)
        return torch.from_numpy(total).to(none.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the feedback's optimiser, for `state_dict`."""
        return {} if self.optimizer is None else self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` returned.

        Raises:
            InputError: if it is that of another optimiser, or does not fit the feedback.
        """
        if self.optimizer is None:
            return
        _check_state(state, self.optimizer.state_dict(), self._matrices())
        self.optimizer.load_state_dict(state)


def _check_change(change: Any) -> None:
    """Refuse a change of the feedback's rate that has no meaning."""
    try:
        since, rate = change
    except (TypeError, ValueError):
        raise InputError(
            f"feedback_lr_change is {clipped(change)}; give a pair: the progress, 0 to 1, from "
            "which the feedback learns with another rate, and this rate; or None"
        ) from None
    number("feedback_lr_change[1]", rate, NOT_NEGATIVE, zero=True)
    if number("feedback_lr_change[0]", since, "a share between 0 and 1", zero=True) > 1.0:
        raise InputError(f"feedback_lr_change[0] is {since}; give a share between 0 and 1")


def _check_state(state: Any, own: dict[str, Any], feedback: list[Tensor]) -> None:
    """Refuse a state that does not fit the feedback's optimiser."""
    try:
        groups, entries = state["param_groups"], state["state"]
        fits = len(groups) == 1 and groups[0].keys() == own["param_groups"][0].keys()
        for i, entry in entries.items():
            for value in entry.values():
                shape = feedback[i].shape
                fits &= not isinstance(value, Tensor) or value.dim() == 0 or value.shape == shape
    except (AttributeError, IndexError, KeyError, TypeError) as problem:
        raise InputError(f"the state of the feedback's optimiser is damaged: {problem!r}") from None
    if not fits:
        raise InputError(
            "the state of the feedback's optimiser is that of another one, or of feedback of other "
            "sizes; build the rule with the options that it was saved with"
        )
