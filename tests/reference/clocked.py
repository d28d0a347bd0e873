"""Clocked networks and their rules once more: slow, in plain NumPy, written from the formulas.

Nothing here is shared with the library. A batch stores samples as rows; a feedback matrix is
(n_l, m) as in the formulas (the library stores its transpose). Noise is given as arrays
`noise[t][l]`, alpha included; `masks[l]` is the dropout mask with its factor.

Every weight has an eligibility of its own, (B, n_out, n_in), so that leaks may differ between
layers and between neurons.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass
class Model:
    weights: list[Array]
    biases: list[Array]
    leak: Any = 0.5  # for all, or a list with a number or an array of each hidden layer
    threshold: Any = 1.0  # as leak
    width: float = 0.25
    mse_weight: float = 0.05
    reset: str = "subtract"
    recurrent: list[Array | None] = field(default_factory=list)  # of each hidden layer, or none
    synaptic: Any = None  # alpha of the synaptic currents, as leak
    trace_decays: Any = None  # a number for each synapse layer, instead of what the leaks say

    def of(self, setting: Any, layer: int) -> Array:
        """A setting of each neuron of a hidden layer."""
        value = setting[layer] if isinstance(setting, list) else setting
        return np.zeros(len(self.biases[layer])) + value

    def decays(self, synapse: int) -> tuple[Array, Any]:
        """lambda and alpha of the eligibility of every weight, (n_out, n_in) or less."""
        if self.trace_decays is not None:
            return np.array([[self.trace_decays[synapse]]]), None
        if synapse < len(self.biases) - 1:  # the neurons behind
            leak, alpha = self.of(self.leak, synapse)[:, None], None
            if self.synaptic is not None:
                alpha = self.of(self.synaptic, synapse)[:, None]
            return leak, alpha
        if synapse == 0:  # a read-out of the input
            return np.array([[0.0]]), None
        leak, alpha = self.of(self.leak, synapse - 1)[None, :], None  # the neurons before
        if self.synaptic is not None:
            alpha = self.of(self.synaptic, synapse - 1)[None, :]
        return leak, alpha


@dataclass
class Outcome:
    """What one training step leaves behind."""

    weight_grads: list[Array]
    bias_grads: list[Array]
    feedback: list[Array]
    feedback_grads: list[Array]
    loss: float = 0.0
    output: Any = 0.0
    rates: list[float] = field(default_factory=list)
    recurrent_grads: list[Array] = field(default_factory=list)
    leak_grads: list[Array] = field(default_factory=list)  # of each neuron, by lambda itself
    threshold_grads: list[Array] = field(default_factory=list)
    synaptic_grads: list[Array] = field(default_factory=list)


@dataclass
class Moment:
    """What a rule may see of one time step; losses and errors are divided by B and T."""

    output: Array
    losses: Array
    error: Array
    second_output: Array | None
    second_losses: Array | None
    potentials: list[Array]
    traces: list[Array]  # traces[l] is that of the activity of hidden layer l
    noise: list[Array] | None
    thresholds: list[Array] = field(default_factory=list)


def psi(u: Array, threshold: Array, model: Model) -> Array:
    sigma = 1.0 / (1.0 + np.exp(-(u - threshold) / model.width))
    return sigma * (1.0 - sigma) / model.width


def loss_and_error(output: Array, label: int, c: float) -> tuple[float, Array]:
    """One sample: (1 - c) CE + c MSE, the squared error averaged over the m outputs."""
    m = len(output)
    onehot = np.zeros(m)
    onehot[label] = 1.0
    p = np.exp(output - output.max())
    p = p / p.sum()
    loss = (1.0 - c) * -np.log(p[label]) + c * np.sum((output - onehot) ** 2) / m
    error = (1.0 - c) * (p - onehot) + c * 2.0 * (output - onehot) / m
    return loss, error


class Forward:
    """A forward pass that keeps its own neuron states."""

    def __init__(self, model: Model, batch: int) -> None:
        self.model = model
        self.u = [np.zeros((batch, len(b))) for b in model.biases[:-1]]
        self.s = [np.zeros((batch, len(b))) for b in model.biases[:-1]]
        self.i = [np.zeros((batch, len(b))) for b in model.biases[:-1]]
        self.back = [np.zeros((batch, len(b))) for b in model.biases[:-1]]  # what comes back
        self.activity = [np.zeros((batch, len(b))) for b in model.biases[:-1]]

    def step(
        self, x: Array, masks: list[Array], noise: list[Array] | None, position: str
    ) -> tuple[Array, list[Array]]:
        """Return the read-out and what every synapse layer saw, the input first."""
        p, seen = self.model, [x]
        for i in range(len(self.u)):
            current = seen[-1] @ p.weights[i].T + p.biases[i]
            self.back[i] = self.activity[i]
            if p.recurrent and p.recurrent[i] is not None:
                current = current + self.back[i] @ p.recurrent[i].T
            if p.synaptic is not None:
                current = p.of(p.synaptic, i) * self.i[i] + current
                self.i[i] = current
            u = p.of(p.leak, i) * self.kept(i) + current
            if noise is not None and position == "before":
                u = u + noise[i]
            self.u[i] = u
            self.s[i] = np.where(u >= p.of(p.threshold, i), 1.0, 0.0)
            activity = self.s[i] * masks[i]
            if noise is not None and position == "after":
                activity = activity + noise[i]
            self.activity[i] = activity
            seen.append(activity)
        return seen[-1] @ p.weights[-1].T + p.biases[-1], seen

    def kept(self, i: int) -> Array:
        """The potential of hidden layer i after its reset, before it leaks."""
        if self.model.reset == "zero":
            return np.where(self.s[i] == 1.0, 0.0, self.u[i])
        return self.u[i] - self.model.of(self.model.threshold, i) * self.s[i]


class Sensitivity:
    """du[t] / d(lambda, V, alpha) of every neuron, with all spikes held as they are."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.leak = [np.zeros_like(u) for u in forward.u]
        self.threshold = [np.zeros_like(u) for u in forward.u]
        self.synaptic = [np.zeros_like(u) for u in forward.u]
        self.current = [np.zeros_like(u) for u in forward.u]  # di[t] / d alpha

    def step(self) -> None:
        """To be called before the forward pass makes the same step."""
        f, p = self.forward, self.forward.model
        for i in range(len(f.u)):
            leak = p.of(p.leak, i)
            stays = leak * (1.0 - f.s[i]) if p.reset == "zero" else leak
            self.leak[i] = f.kept(i) + stays * self.leak[i]
            if p.reset == "subtract":
                self.threshold[i] = leak * (self.threshold[i] - f.s[i])
            if p.synaptic is not None:
                self.current[i] = f.i[i] + p.of(p.synaptic, i) * self.current[i]
                self.synaptic[i] = stays * self.synaptic[i] + self.current[i]


def spatial_bp(now: Moment, model: Model, masks: list[Array], out: Outcome, o: dict) -> list[Array]:
    errors: list[Array] = []
    delta = now.error
    for i in reversed(range(len(now.potentials))):
        g = delta @ model.weights[i + 1]
        errors.insert(0, g)
        delta = g * masks[i] * psi(now.potentials[i], now.thresholds[i], model)
    return errors


def dfa(now: Moment, model: Model, masks: list[Array], out: Outcome, o: dict) -> list[Array]:
    return [np.array([b @ e for e in now.error]) for b in out.feedback]


def dkp(now: Moment, model: Model, masks: list[Array], out: Outcome, o: dict) -> list[Array]:
    for grad, trace in zip(out.feedback_grads, now.traces, strict=True):
        for a_hat, e in zip(trace, now.error, strict=True):
            grad += np.outer(a_hat, e)
    return dfa(now, model, masks, out, o)


def zo(now: Moment, model: Model, masks: list[Array], out: Outcome, o: dict) -> list[Array]:
    alpha = o["noise_scale"]
    if o["points"] == "one-point":
        factor = now.losses / alpha
    elif o["points"] == "one-sided":
        factor = (now.losses - now.second_losses) / alpha
    else:
        factor = (now.losses - now.second_losses) / (2 * alpha)
    return [factor[:, None] * (noise / alpha) for noise in now.noise]


def opzo(now: Moment, model: Model, masks: list[Array], out: Outcome, o: dict) -> list[Array]:
    alpha, mu, batch = o["noise_scale"], o["momentum"], len(now.output)
    output = now.output
    if o["points"] == "two-point":
        output = output - now.second_output
    for i, noise in enumerate(now.noise):
        mean = np.zeros_like(out.feedback[i])
        for z, row in zip(noise / alpha, output, strict=True):
            mean += np.outer(z, row) / batch
        if o["divide_by_scale"]:
            mean = mean / alpha
        out.feedback[i] = mu * out.feedback[i] + (1 - mu) * mean
    return dfa(now, model, masks, out, o)  # with the M of this very step


RULES = {"spatial-bp": spatial_bp, "dfa": dfa, "dkp": dkp, "zo": zo, "opzo": opzo}
SECOND_PASS = {
    ("zo", "one-sided"): 0.0,
    ("zo", "two-point"): -1.0,
    ("opzo", "two-point"): 0.0,
}


def train(
    rule: str,
    model: Model,
    inputs: Array,
    labels: Array,
    masks: list[Array],
    *,
    noise: list[list[Array]] | None = None,
    feedback: list[Array] = (),
    **options: Any,
) -> Outcome:
    """One training step from rest; `inputs` is (T, B, n), `feedback` (n_l, m) each."""
    steps, batch = inputs.shape[:2]
    hidden = len(model.weights) - 1
    out = Outcome(
        [np.zeros_like(w) for w in model.weights],
        [np.zeros_like(b) for b in model.biases],
        [np.array(b) for b in feedback],
        [np.zeros_like(b) for b in feedback],
        rates=[0.0] * hidden,
        recurrent_grads=[np.zeros((len(b), len(b))) for b in model.biases[:-1]],
        leak_grads=[np.zeros_like(b) for b in model.biases[:-1]],
        threshold_grads=[np.zeros_like(b) for b in model.biases[:-1]],
        synaptic_grads=[np.zeros_like(b) for b in model.biases[:-1]],
    )
    position = options.get("noise_position", "after")
    second_factor = SECOND_PASS.get((rule, options.get("points")))
    first, second = Forward(model, batch), Forward(model, batch)
    eligible = [np.zeros((batch, *w.shape)) for w in model.weights]
    before = [np.zeros((batch, *w.shape)) for w in model.weights]
    traces = [np.zeros((batch, len(b))) for b in model.biases[:-1]]
    traces_before = [np.zeros((batch, len(b))) for b in model.biases[:-1]]
    back, back_before = (
        [np.zeros((batch, *g.shape)) for g in out.recurrent_grads] for _ in range(2)
    )
    sensitivity = Sensitivity(first)
    thresholds = [model.of(model.threshold, i) for i in range(hidden)]
    for t in range(steps):
        z = None if noise is None else noise[t]
        sensitivity.step()
        output, seen = first.step(inputs[t], masks, z, position)
        losses, error = _losses(output, labels, model, steps)
        second_output, second_losses = None, None
        if second_factor is not None:
            other = [n * second_factor for n in z]
            second_output, _ = second.step(inputs[t], masks, other, position)
            second_losses, _ = _losses(second_output, labels, model, steps)
        for i, s in enumerate(seen):
            leak, alpha = model.decays(i)
            fresh = s[:, None, :]
            if alpha is not None:
                before[i] = fresh = alpha * before[i] + fresh
            eligible[i] = leak * eligible[i] + fresh
        for i, s in enumerate(first.back):  # to the neurons behind the layer's other weights
            leak, alpha = model.decays(i)
            fresh = s[:, None, :]
            if alpha is not None:
                back_before[i] = fresh = alpha * back_before[i] + fresh
            back[i] = leak * back[i] + fresh
        for i, activity in enumerate(seen[1:]):
            if model.synaptic is not None:
                activity = model.of(model.synaptic, i) * traces_before[i] + activity
                traces_before[i] = activity
            traces[i] = model.of(model.leak, i) * traces[i] + activity
        now = Moment(
            output, losses, error, second_output, second_losses, first.u, traces, z, thresholds
        )  # fmt: skip
        errors = RULES[rule](now, model, masks, out, options)
        _add_gradients(out, model, now, errors, masks, eligible, back, sensitivity)
        out.loss += losses.sum()
        out.output = out.output + output
        for i in range(hidden):
            out.rates[i] += first.s[i].mean() / steps
    return out


def _losses(output: Array, labels: Array, model: Model, steps: int) -> tuple[Array, Array]:
    pairs = [
        loss_and_error(row, label, model.mse_weight)
        for row, label in zip(output, labels, strict=True)
    ]
    share = len(output) * steps
    return np.array([p[0] for p in pairs]) / share, np.array([p[1] for p in pairs]) / share


def _add_gradients(
    out: Outcome,
    model: Model,
    now: Moment,
    errors: list[Array],
    masks: list[Array],
    eligible: list[Array],
    back: list[Array],
    sensitivity: Sensitivity,
) -> None:
    """Add delta times eligibility, and for the bias delta alone; the threshold moves two ways."""
    deltas = [
        g * masks[i] * psi(u, now.thresholds[i], model)
        for i, (g, u) in enumerate(zip(errors, now.potentials, strict=True))
    ]
    for i, delta in enumerate([*deltas, now.error]):
        for d, e in zip(delta, eligible[i], strict=True):
            out.weight_grads[i] += d[:, None] * e
            out.bias_grads[i] += d
    for i, delta in enumerate(deltas):
        for d, e in zip(delta, back[i], strict=True):
            out.recurrent_grads[i] += d[:, None] * e
        out.leak_grads[i] += (delta * sensitivity.leak[i]).sum(0)
        out.threshold_grads[i] += (delta * (sensitivity.threshold[i] - 1.0)).sum(0)
        out.synaptic_grads[i] += (delta * sensitivity.synaptic[i]).sum(0)
