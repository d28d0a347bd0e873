"""Clocked networks and their rules once more: slow, in plain NumPy, written from the formulas.

Nothing here is shared with the library. A batch stores samples as rows; a feedback matrix is
(n_l, m) as in the formulas (the library stores its transpose). Noise is given as arrays
`noise[t][l]`, alpha included; `masks[l]` is the dropout mask with its factor.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass
class Model:
    weights: list[Array]
    biases: list[Array]
    leak: float = 0.5
    threshold: float = 1.0
    width: float = 0.25
    mse_weight: float = 0.05
    reset: str = "subtract"


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


def psi(u: Array, model: Model) -> Array:
    sigma = 1.0 / (1.0 + np.exp(-(u - model.threshold) / model.width))
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

    def step(
        self, x: Array, masks: list[Array], noise: list[Array] | None, position: str
    ) -> tuple[Array, list[Array]]:
        """Return the read-out and what every synapse layer saw, the input first."""
        p, seen = self.model, [x]
        for i in range(len(self.u)):
            current = seen[-1] @ p.weights[i].T + p.biases[i]
            if p.reset == "zero":
                kept = np.where(self.s[i] == 1.0, 0.0, self.u[i])
            else:
                kept = self.u[i] - p.threshold * self.s[i]
            u = p.leak * kept + current
            if noise is not None and position == "before":
                u = u + noise[i]
            self.u[i] = u
            self.s[i] = np.where(u >= p.threshold, 1.0, 0.0)
            activity = self.s[i] * masks[i]
            if noise is not None and position == "after":
                activity = activity + noise[i]
            seen.append(activity)
        return seen[-1] @ p.weights[-1].T + p.biases[-1], seen


def spatial_bp(now: Moment, model: Model, masks: list[Array], out: Outcome, o: dict) -> list[Array]:
    errors: list[Array] = []
    delta = now.error
    for i in reversed(range(len(now.potentials))):
        g = delta @ model.weights[i + 1]
        errors.insert(0, g)
        delta = g * masks[i] * psi(now.potentials[i], model)
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
    delay: int = 0,
    kept: bool = False,
    delivered: bool = False,
    **options: Any,
) -> Outcome:
    """One training step from rest; `inputs` is (T, B, n), `feedback` (n_l, m) each.

    What the output sends at step t comes to the hidden layers at step t + delay, and meets their
    traces and potentials of then, or with `kept` those of step t. With `delivered`, what has not
    come when the sequence ends comes afterwards. The noise that a message meets is always that of
    its own step.
    """
    steps, batch = inputs.shape[:2]
    hidden = len(model.weights) - 1
    out = Outcome(
        [np.zeros_like(w) for w in model.weights],
        [np.zeros_like(b) for b in model.biases],
        [np.array(b) for b in feedback],
        [np.zeros_like(b) for b in feedback],
        rates=[0.0] * hidden,
    )
    position = options.get("noise_position", "after")
    second_factor = SECOND_PASS.get((rule, options.get("points")))
    first, second = Forward(model, batch), Forward(model, batch)
    traces = [np.zeros((batch, w.shape[1])) for w in model.weights]
    moments: list[Moment] = []
    all_traces: list[list[Array]] = []
    for t in range(steps):
        z = None if noise is None else noise[t]
        output, seen = first.step(inputs[t], masks, z, position)
        losses, error = _losses(output, labels, model, steps)
        second_output, second_losses = None, None
        if second_factor is not None:
            other = [n * second_factor for n in z]
            second_output, _ = second.step(inputs[t], masks, other, position)
            second_losses, _ = _losses(second_output, labels, model, steps)
        traces = [model.leak * a + s for a, s in zip(traces, seen, strict=True)]
        now = Moment(
            output, losses, error, second_output, second_losses, list(first.u), traces[1:], z
        )  # fmt: skip
        moments.append(now)
        all_traces.append(traces)
        _add_gradients(out, len(masks), error, traces[-1])
        out.loss += losses.sum()
        out.output = out.output + output
        for i in range(hidden):
            out.rates[i] += first.s[i].mean() / steps
    # The forward pass does not depend on what is learned, so learning may follow it.
    for t, sent in enumerate(moments):
        if t + delay >= steps and not delivered:
            break
        met = t if kept else t + delay
        arrived = replace(sent, potentials=moments[met].potentials, traces=moments[met].traces)
        errors = RULES[rule](arrived, model, masks, out, options)
        for i, g in enumerate(errors):
            delta = g * masks[i] * psi(arrived.potentials[i], model)
            _add_gradients(out, i, delta, all_traces[met][i])
    return out


def _losses(output: Array, labels: Array, model: Model, steps: int) -> tuple[Array, Array]:
    pairs = [
        loss_and_error(row, label, model.mse_weight)
        for row, label in zip(output, labels, strict=True)
    ]
    share = len(output) * steps
    return np.array([p[0] for p in pairs]) / share, np.array([p[1] for p in pairs]) / share


def _add_gradients(out: Outcome, layer: int, delta: Array, trace: Array) -> None:
    """Add delta a_hat^T and, for the bias, delta alone."""
    for d, a_hat in zip(delta, trace, strict=True):
        out.weight_grads[layer] += np.outer(d, a_hat)
        out.bias_grads[layer] += d
