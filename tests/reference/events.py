"""Networks of exact spike times once more: slow, in double precision, written from the formulas.

Nothing here is shared with the library. A spike train is a list of (time, address), sorted; a batch
is a list of trains; a weight matrix is (inputs, neurons). Times of first and last spike must lie
within some hundred time constants of zero for everything but the potential and the spike times,
since the formulas of the gradients are taken at their word: exp(t / tau_s).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

Array = np.ndarray
Train = list[tuple[float, int]]


@dataclass(frozen=True)
class Neuron:
    """The constants of one layer."""

    tau_s: float
    threshold: float  # the published one, theta_hat
    duration: float
    cap: int = 30

    @property
    def tau(self) -> float:
        return 2.0 * self.tau_s

    @property
    def theta(self) -> float:
        return self.threshold / self.tau


@dataclass
class Spikes:
    """What one neuron did in one sample. `parents` number the input spikes of the sample."""

    times: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    capped: bool = False
    margin: float = math.inf
    """How near to doing something else it came: |u - theta| / theta at peaks and borders, and
    (I - theta) / theta at its spikes."""


# The potential


def potential(t: float, inputs: Array, weights: Array, resets: Array, n: Neuron) -> float:
    """u(t) as the method states it; `weights` has one entry per input spike."""
    seen = inputs < t
    age = t - inputs[seen]
    fired = t - resets[resets < t]
    return float(
        np.sum(weights[seen] * (np.exp(-age / n.tau) - np.exp(-age / n.tau_s)))
        - n.theta * np.sum(np.exp(-fired / n.tau))
    )


def current(t: float, inputs: Array, weights: Array, n: Neuron) -> float:
    """The synaptic current I(t), which is a y^2 in the formulas."""
    seen = inputs < t
    return float(np.sum(weights[seen] * np.exp(-(t - inputs[seen]) / n.tau_s)))


# Spike times by bracketing


def spikes_of_neuron(train: Train, weights: Array, n: Neuron) -> Spikes:
    """Go from event to event and look for the first time that the potential reaches theta."""
    train = [(t, j) for t, j in train if t < n.duration]
    times = np.array([t for t, _ in train])
    w = np.array([weights[j] for _, j in train])
    out = Spikes()
    resets: list[float] = []
    for z in range(len(train)):
        end = times[z + 1] if z + 1 < len(train) else n.duration
        start, known = times[z], z + 1
        while True:
            found = _first_crossing(
                times[:known], w[:known], np.array(resets), start, float(end), n, out
            )
            if found is None:
                break
            if len(resets) == n.cap:
                out.capped = True
                return out
            resets.append(found)
            out.times.append(found)
            out.parents.append(z)
            start = found
    return out


class _Interval:
    """The potential between two events, `dt` seconds after the first of them.

    There u = c y - s y^2 has one peak at most: where du/dt turns from above to below 0. Relative
    to the start, no digits are lost far from zero, and nothing can happen after 200 tau.
    """

    def __init__(
        self, inputs: Array, w: Array, resets: Array, start: float, end: float, n: Neuron
    ) -> None:
        self.w, self.n = w, n
        self.ages, self.silences = start - inputs, start - resets
        self.length = min(end - start, 200.0 * n.tau)

    def current(self, dt: float) -> float:
        return float(np.sum(self.w * np.exp(-(self.ages + dt) / self.n.tau_s)))

    def u(self, dt: float) -> float:
        slow = np.sum(self.w * np.exp(-(self.ages + dt) / self.n.tau))
        resets = np.sum(np.exp(-(self.silences + dt) / self.n.tau))
        return float(slow) - self.current(dt) - self.n.theta * float(resets)

    def slope(self, dt: float) -> float:
        return (self.current(dt) - self.u(dt)) / self.n.tau

    def excess(self, dt: float) -> float:
        return self.u(dt) - self.n.theta

    def highest(self) -> float:
        """When u is at its largest, or the end where it is largest at the start."""
        if self.slope(0.0) > 0.0 > self.slope(self.length):
            return self.root(self.slope, self.length)
        return self.length

    def root(self, function: Callable[[float], float], end: float) -> float:
        return float(brentq(function, 0.0, end, xtol=1e-15 * self.n.tau, rtol=1e-15))


def _first_crossing(
    inputs: Array, w: Array, resets: Array, start: float, end: float, n: Neuron, out: Spikes
) -> float | None:
    """The first t in (start, end] at which u rises through theta; nothing else happens between."""
    here = _Interval(inputs, w, resets, start, end, n)
    if here.length <= 0.0:
        return None
    highest = here.highest()
    ends = abs(here.excess(highest)), abs(here.excess(here.length))
    out.margin = min(out.margin, *(value / n.theta for value in ends))
    if here.excess(highest) < 0.0:
        return None
    if here.excess(0.0) >= 0.0:  # by rounding, when the crossing is at the border itself
        return start
    dt = here.root(here.excess, highest)
    out.margin = min(out.margin, (here.current(dt) - n.theta) / n.theta)
    return start + dt


def highest_potential(train: Train, weights: Array, n: Neuron) -> float:
    """The largest u of a neuron that never spikes, whatever its threshold."""
    times = np.array([t for t, _ in train])
    w = np.array([weights[j] for _, j in train])
    ends = np.append(times[1:], n.duration)
    found = 0.0
    for z, end in enumerate(ends):
        here = _Interval(times[: z + 1], w[: z + 1], np.zeros(0), times[z], float(end), n)
        if here.length > 0.0:
            found = max(found, here.u(here.highest()), here.u(here.length))
    return found


# Spike times by solving the differential equation


def spikes_by_ode(train: Train, weights: Array, n: Neuron) -> list[float]:
    """Integrate tau du/dt = -u + g, tau_s dg/dt = -g; g jumps by w, u falls by theta at a spike.

    With tau = 2 tau_s this is the potential of the formulas.
    """
    found: list[float] = []
    u, g = 0.0, 0.0
    train = [(t, j) for t, j in train if t < n.duration]

    def change(t: float, state: Array) -> list[float]:
        return [(state[1] - state[0]) / n.tau, -state[1] / n.tau_s]

    def reaches(t: float, state: Array) -> float:
        return state[0] - n.theta

    reaches.terminal = True  # type: ignore[attr-defined]
    reaches.direction = 1.0  # type: ignore[attr-defined]
    for z, (at, j) in enumerate(train):
        end = train[z + 1][0] if z + 1 < len(train) else n.duration
        g += weights[j]
        while at < end:
            path = solve_ivp(
                change, (at, end), [u, g], "DOP853", events=reaches, rtol=1e-12, atol=1e-14,
                max_step=n.tau / 10,
            )  # fmt: skip
            at = float(path.t[-1])
            u, g = (float(v) for v in path.y[:, -1])
            if path.status == 1:
                found.append(at)
                u -= n.theta
    return found


# Layers and networks


@dataclass
class LayerRun:
    """What a layer did in one sample: by neuron, and as one sorted train."""

    neurons: list[Spikes]

    @property
    def train(self) -> Train:
        return sorted((t, i) for i, s in enumerate(self.neurons) for t in s.times)

    @property
    def margin(self) -> float:
        return min(s.margin for s in self.neurons)

    @property
    def capped(self) -> int:
        return sum(s.capped for s in self.neurons)


def run_layer(train: Train, weight: Array, n: Neuron) -> LayerRun:
    return LayerRun([spikes_of_neuron(train, w, n) for w in weight.T])


def run_network(train: Train, weights: list[Array], layers: list[Neuron]) -> list[LayerRun]:
    runs = []
    for weight, n in zip(weights, layers, strict=True):
        runs.append(run_layer(train, weight, n))
        train = runs[-1].train
    return runs


# Local gradient of spike times (equations 13 to 21)


def spike_factor(t: float, inputs: Array, w: Array, n: Neuron, exact: bool) -> float:
    """F_k = tau y_k / (I_k - theta), or tau y_k / I_k when modified."""
    y = math.exp(-t / n.tau)
    i = current(t, inputs, w, n)
    return n.tau * y / ((i - n.theta) if exact else i)


def local_gradients(
    train: Train, weights: Array, spikes: list[float], n: Neuron, exact: bool
) -> Array:
    """dt_k/dw_j of one neuron, (spikes, inputs): the recursion forward in time."""
    inputs = np.array([t for t, _ in train])
    addresses = np.array([j for _, j in train], dtype=int)
    w = np.array([weights[j] for _, j in train])
    gradients: list[Array] = []
    for t in spikes:
        a, b = np.zeros(len(weights)), np.zeros(len(weights))
        for t_z, j in zip(inputs, addresses, strict=True):
            if t_z < t:
                a[j] += math.exp(t_z / n.tau_s)
                b[j] += math.exp(t_z / n.tau)
        own = np.zeros(len(weights))
        for t_l, gradient in zip(spikes, gradients, strict=False):
            own += math.exp(t_l / n.tau) * gradient  # 1 / y_l
        y = math.exp(-t / n.tau)
        f = spike_factor(t, inputs, w, n, exact)
        gradients.append(f * (y * a - b + n.theta / n.tau * own))
    return np.array(gradients).reshape(len(spikes), len(weights))


def input_gradients(
    train: Train, weights: Array, spikes: list[float], n: Neuron, exact: bool
) -> Array:
    """dt_k/dt_z of one neuron by the time of every input spike, (spikes, input spikes)."""
    inputs = np.array([t for t, _ in train])
    w = np.array([weights[j] for _, j in train])
    gradients: list[Array] = []
    for t in spikes:
        y = math.exp(-t / n.tau)
        direct = w * (y * np.exp(inputs / n.tau_s) / n.tau_s - np.exp(inputs / n.tau) / n.tau)
        direct[inputs >= t] = 0.0
        own = np.zeros(len(train))
        for t_l, gradient in zip(spikes, gradients, strict=False):
            own += math.exp(t_l / n.tau) * gradient
        f = spike_factor(t, inputs, w, n, exact)
        gradients.append(f * (direct + n.theta / n.tau * own))
    return np.array(gradients).reshape(len(spikes), len(train))


def weight_gradient(
    train: Train, weight: Array, own: Train, errors: Array, n: Neuron, exact: bool
) -> Array:
    """sum_k q_k dt_k/dw of one layer and sample; `errors` has one q_k per spike of `own`."""
    train = [(t, j) for t, j in train if t < n.duration]
    gradient = np.zeros(weight.shape)
    for i in range(weight.shape[1]):
        mine = [k for k, (_, address) in enumerate(own) if address == i]
        times = [own[k][0] for k in mine]
        local = local_gradients(train, weight[:, i], times, n, exact)
        for k, change in zip(mine, local, strict=True):
            gradient[:, i] += errors[k] * change
    return gradient


def weight_gradient_by_count(
    train: Train, weight: Array, own: Train, errors: Array, n: Neuron, exact: bool
) -> Array:
    """error_i / max(n_i, 1) * sum_k dt_k/dw of one layer and sample; one error per neuron."""
    train = [(t, j) for t, j in train if t < n.duration]
    gradient = np.zeros(weight.shape)
    for i in range(weight.shape[1]):
        times = [t for t, address in own if address == i]
        eligibility = np.zeros(len(weight))
        for change in local_gradients(train, weight[:, i], times, n, exact):
            eligibility += change
        eligibility /= max(len(times), 1)
        gradient[:, i] = errors[i] * eligibility
    return gradient


def backpropagate(
    train: Train, weights: list[Array], runs: list[Train], errors: Array,
    layers: list[Neuron], exact: bool, rates: list[Array] | None = None,
) -> list[Array]:  # fmt: skip
    """Gradients of all weights for the errors of the output's spikes, through every spike.

    `rates` holds one further error per hidden neuron, for each of its spikes.
    """
    gradients = []
    trains = [train, *runs]
    for layer in reversed(range(len(weights))):
        n, weight, seen, own = layers[layer], weights[layer], trains[layer], trains[layer + 1]
        gradients.insert(0, weight_gradient(seen, weight, own, errors, n, exact))
        before = np.zeros(len(seen))
        for i in range(weight.shape[1]):
            mine = [k for k, (_, address) in enumerate(own) if address == i]
            times = [own[k][0] for k in mine]
            jacobian = input_gradients(seen, weight[:, i], times, n, exact)
            before += errors[mine] @ jacobian
        if rates is not None and layer > 0:
            before += np.array([rates[layer - 1][j] for _, j in seen])
        errors = before
    return gradients


# Errors of the rules


def count(train: Train, size: int) -> Array:
    counts = np.zeros(size)
    for _, i in train:
        counts[i] += 1
    return counts


def count_loss(counts: Array, label: int, true: float, false: float) -> tuple[float, Array]:
    """1/2 sum_o (target_o - n_o)^2 of one sample, and e_o = target_o - n_o."""
    target = np.full(len(counts), false)
    target[label] = true
    return 0.5 * float(np.sum((target - counts) ** 2)), target - counts


def rate_errors(counts: list[Array], penalty: float, target: float) -> Array:
    """reg * (rate_target - mean_rate_i) of one hidden layer; `counts` has one row per sample."""
    return penalty * (target - np.mean(counts, axis=0))


# Grades (section 2.2)


def emitted_grades(
    train: Train, grades: list[float], own: Train, weight: Array, perturbation: Array
) -> list[float]:
    """The grade of every spike of `own`, given those of the input spikes."""
    running = [0.0] * weight.shape[1]
    spiked = [False] * weight.shape[1]
    emitted = [0.0] * len(own)
    arrivals = [(t, 0, z, j) for z, (t, j) in enumerate(train)]
    departures = [(t, 1, k, i) for k, (t, i) in enumerate(own)]
    for _, kind, number, address in sorted(arrivals + departures):
        if kind == 0:
            for i in range(weight.shape[1]):
                running[i] += weight[address, i] * grades[number]
        else:
            emitted[number] = running[address]
            if not spiked[address]:
                emitted[number] += perturbation[address]
            running[address] = 0.0
            spiked[address] = True
    return emitted


def output_grades(
    train: Train, weights: list[Array], runs: list[Train], perturbations: list[Array]
) -> Array:
    """G of one sample; `perturbations` holds one p per hidden neuron, layer by layer."""
    grades = [0.0] * len(train)
    outputs = weights[-1].shape[1]
    for own, weight, p in zip(runs, weights, [*perturbations, np.zeros(outputs)], strict=True):
        grades = emitted_grades(train, grades, own, weight, p)
        train = own
    total = np.zeros(outputs)
    for (_, o), grade in zip(train, grades, strict=True):
        total[o] += grade
    return total


def feedback_gradient(
    feedback: Array, perturbations: list[Array], totals: list[Array], fired: list[Array]
) -> Array:
    """mean( B_io - p_i G_o ) over the samples in which i fired; feedback is (n_l, m)."""
    gradient = np.zeros_like(feedback)
    for i in range(feedback.shape[0]):
        rows = [b for b in range(len(fired)) if fired[b][i]]
        for o in range(feedback.shape[1]):
            terms = [feedback[i, o] - perturbations[b][i] * totals[b][o] for b in rows]
            gradient[i, o] = np.mean(terms) if terms else 0.0
    return gradient
