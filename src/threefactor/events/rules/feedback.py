"""Direct feedback connections from the output's error to every hidden neuron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.errors import InputError, unknown_name
from threefactor.events.delivery import can_learn, give
from threefactor.events.layer import Activity, Layer, array_of
from threefactor.events.losses import reads_first_spikes
from threefactor.events.network import Network
from threefactor.events.parallel import over, product
from threefactor.events.rules.base import Rule, RuleOptions
from threefactor.events.trial import Trial
from threefactor.readable import clipped

__all__ = ["Feedback", "FeedbackOptions", "FeedbackRule"]

TRACES = ("summed", "forward")


class Feedback(nn.Module):
    """A direct connection from m outputs to the n neurons of one hidden layer.

    Args:
        matrix: (m, n), the transpose of the formulas'; becomes a buffer.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, error: Tensor) -> Tensor:
        """Bring the outputs' error (B, m) to the neurons: (B, n)."""
        return product(error, self.matrix)


class FeedbackOptions(RuleOptions, total=False):
    """Options that rules with direct feedback share; see `FeedbackRule`."""

    traces: str
    normalise_by_count: bool


class FeedbackRule(Rule):
    r"""A rule that sends the output's error to each hidden neuron, the same for all its spikes.

    .. math:: \mathrm{error}_i = \sum_o B_{io} e_o
              + \mathrm{reg}\,(\mathrm{rate\ target} - \overline{n_i})

    Since a neuron's spikes share one error, the sum over them of dt_k/dw_ij can run forward in
    time as an eligibility trace and meet the error when the sample is over.

    With `normalise_by_count`, the trace is divided by the number of spikes that it sums over,
    in every layer, the read-out included:

    .. math:: \frac{dL}{dw_{ij}} = \sum_b \frac{\mathrm{error}_{bi}}{\max(n_{bi}, 1)}
              \sum_k \frac{dt_k}{dw_{ij}}

    A rule with feedback of its own makes it in its `__init__`:
    `self.feedback = self.make_feedback(scale)`. `state_dict` names the matrices
    `feedback.0.matrix`, `feedback.1.matrix`, ...

    Args:
        network: see `Rule`.
        traces: "summed", the same number from sums over later spikes, or "forward", the
            eligibility traces of equations 19 to 21 themselves; slower.
        normalise_by_count: whether the eligibility of a neuron is divided by its spike count in
            the sample.
        **options: see `Rule`.

    Raises:
        ConfigurationError: if a name is not known.
        InputError: if forward traces or division by the count are asked for with a loss that reads
            first spikes only.

    Source: Bacho & Chu (SFDFA), equations 6 and 19 to 21; the division is that of the authors'
    scripts for deep networks.
    """

    feedback: Sequence[Feedback]
    """The connection to each hidden layer, first layer first, in an `nn.ModuleList`; empty for a
    rule that makes its errors in another way."""

    def __init__(
        self,
        network: Network,
        *,
        traces: str = "summed",
        normalise_by_count: bool = False,
        **options: Unpack[RuleOptions],
    ) -> None:
        super().__init__(network, **options)
        self.traces = traces
        self.normalise_by_count = normalise_by_count
        self.feedback = cast("Sequence[Feedback]", nn.ModuleList())
        self._had_layers = bool(self.layer_sizes)
        self._check_options()

    def make_feedback(self, scale: float) -> Sequence[Feedback]:
        """Make a new connection to every hidden layer, in an `nn.ModuleList`.

        Args:
            scale: matrices start uniform in [-scale, scale], and at 0 for 0.
        """
        dtype, made = next(self.network.parameters()).dtype, []
        for n in self.layer_sizes.values():
            matrix = torch.empty(self.outputs, n, dtype=dtype, device="cpu")
            made.append(Feedback(matrix.uniform_(-scale, scale) if scale else matrix.zero_()))
        return cast("Sequence[Feedback]", nn.ModuleList(made))

    def _check_options(self) -> None:
        if self.traces not in TRACES:
            raise unknown_name("kind of traces", self.traces, TRACES)
        if self.traces == "forward" and reads_first_spikes(self.loss):
            raise InputError(
                "traces is 'forward' and the loss reads first spikes only, but forward traces "
                "meet one error for all spikes of a neuron; give traces='summed'"
            )
        if not isinstance(self.normalise_by_count, bool):
            raise InputError(
                f"normalise_by_count is {clipped(self.normalise_by_count)}; give True or False"
            )
        if self.normalise_by_count and reads_first_spikes(self.loss):
            raise InputError(
                "normalise_by_count is True and the loss reads first spikes only, whose gradient "
                "is not a sum over a neuron's spikes; give normalise_by_count=False"
            )

    def check(self, layers: dict[str, Layer]) -> None:
        super().check(layers)
        self._check_options()
        *hidden, last = layers.values()
        if self._had_layers and not self.feedback:
            return  # a rule that makes its errors in another way
        matrices: list[Any] = [connection.matrix for connection in self.feedback]
        given = [tuple(b.shape) if isinstance(b, Tensor) else None for b in matrices]
        if given != [(last.neurons, layer.neurons) for layer in hidden]:
            raise InputError(
                f"the feedback has the shapes {given}, but the network now has {last.neurons} "
                f"outputs and the hidden layers {self.layer_sizes}: layers or feedback were "
                "replaced or changed after the rule was built; build a new rule"
            )

    def layer_errors(self, trial: Trial) -> Sequence[Tensor]:
        """Return the error of every hidden neuron in every sample, (B, n_l) for each layer."""
        return [
            connection(trial.error) + self.rate_error(trial, i)
            for i, connection in enumerate(self.feedback)
        ]

    def learn(self, trial: Trial) -> None:
        for i, connection in enumerate(self.feedback):
            array_of(f"feedback.{i}.matrix", connection.matrix, tuple(connection.matrix.shape))
        given, hidden = self.layer_errors(trial), len(trial.activities) - 1
        if not isinstance(given, Sequence) or len(given) != hidden:
            count = f", {len(given)} of them" if isinstance(given, Sequence) else ""
            raise InputError(
                f"layer_errors gave a {type(given).__name__}{count}; expected a list of one tensor "
                f"for each of {hidden} hidden layers"
            )
        errors = [*given, trial.error]
        add = self._add_summed if self.traces == "summed" else self._add_forward
        for i, activity in enumerate(trial.activities):
            own = errors[i]
            if self.normalise_by_count:
                spikes = trial.counts[i].clamp(min=1)
                own = torch.from_numpy(trial.by_neuron(activity, own)) / spikes
            add(activity, trial, i, own)

    def _add_summed(self, activity: Activity, trial: Trial, i: int, errors: Tensor) -> None:
        given = trial.per_spike(i, errors)
        self.add_gradient(
            activity.layer, activity, self.spike_weights(activity.layer, activity, given)
        )

    def _add_forward(self, activity: Activity, trial: Trial, i: int, errors: Tensor) -> None:
        if not can_learn(activity):
            return
        gradient = torch.zeros_like(activity._weight, requires_grad=False)
        raw = activity._raw
        over(
            "eligibility_gradient", activity.spikes.size, *activity.inputs._raw,
            *activity.spikes._raw, raw.parents, raw.currents, raw.ys,
            trial.by_neuron(activity, errors), activity.theta, activity.tau,
            self.local_gradient == "exact", gradient.numpy(),
        )  # fmt: skip
        give(activity, gradient)
