"""Networks with branches and skip connections once more: slow, in NumPy, from the formulas.

A network is a list of nodes. The current of a node is a sum of products; what a product receives is
a row of parts, and each part is the sum of activities of other nodes or of inputs. A convolution is
a matrix whose entries are looked up in its kernel. Of `reference.clocked` only the formulas of the
rules are used, which say what error reaches a layer; backpropagation through branches is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from reference import clocked as slow

Array = np.ndarray


@dataclass
class Product:
    """Weights of a product.

    Attributes:
        name: of the layer.
        takes: what it receives, a row of parts; each part is the sum of what these nodes give.
        weight: (out, in), or a kernel.
        bias: (out,), or one number for each channel.
        lookup: (out, in) index into the flattened kernel, -1 for no connection; None for a matrix.
        channel: (out,) index into the bias; None for a matrix.
    """

    name: str
    takes: list[list[str]]
    weight: Array
    bias: Array
    lookup: Array | None = None
    channel: Array | None = None

    @property
    def matrix(self) -> Array:
        if self.lookup is None:
            return self.weight
        return np.where(self.lookup >= 0, self.weight.ravel()[self.lookup], 0.0)

    @property
    def shift(self) -> Array:
        return self.bias if self.channel is None else self.bias[self.channel]

    def receive(self, given: dict[str, Array]) -> Array:
        return np.concatenate([sum(given[n] for n in part) for part in self.takes], axis=1)

    def gradients(self, delta: Array, trace: Array) -> tuple[Array, Array]:
        """One sample after the other."""
        weight, bias = np.zeros_like(self.weight), np.zeros_like(self.bias)
        for d, a in zip(delta, trace, strict=True):
            each = np.outer(d, a)
            if self.lookup is None:
                weight += each
                bias += d
                continue
            for k in range(weight.size):
                weight.ravel()[k] += each[self.lookup == k].sum()
            for c in range(len(bias)):
                bias[c] += d[self.channel == c].sum()
        return weight, bias


def lookup_of(kernel: Array, shape: tuple[int, int, int], padding: int) -> tuple[Array, Array]:
    """Unroll a convolution of stride 1: which entry of the kernel connects which two pixels."""
    out_channels, in_channels, side, _ = kernel.shape
    channels, height, width = shape
    assert channels == in_channels
    rows, columns = height + 2 * padding - side + 1, width + 2 * padding - side + 1
    table = np.full((out_channels * rows * columns, channels * height * width), -1)
    place = np.arange(kernel.size).reshape(kernel.shape)
    for o in range(out_channels):
        for r in range(rows):
            for c in range(columns):
                for i in range(in_channels):
                    for dr in range(side):
                        for dc in range(side):
                            y, x = r + dr - padding, c + dc - padding
                            if 0 <= y < height and 0 <= x < width:
                                unit = (o * rows + r) * columns + c
                                pixel = (i * height + y) * width + x
                                table[unit, pixel] = place[o, i, dr, dc]
    return table, np.repeat(np.arange(out_channels), rows * columns)


@dataclass
class Node:
    """Neurons, or the output if its name is "output"."""

    name: str
    products: list[Product]


class Forward:
    """A forward pass that keeps its own neuron states."""

    def __init__(self, nodes: list[Node], model: slow.Model) -> None:
        self.nodes, self.model = nodes, model
        self.u: dict[str, Array] = {}
        self.s: dict[str, Array] = {}

    def step(
        self, inputs: dict[str, Array], noise: dict[str, Array] | None, position: str
    ) -> dict[str, Array]:
        """Return what every node gives, inputs and output included."""
        given, p = dict(inputs), self.model
        for node in self.nodes:
            current = 0.0
            for product in node.products:
                current = current + product.receive(given) @ product.matrix.T + product.shift
            if node.name == "output":
                given["output"] = current
                break
            u = self.u.get(node.name, 0.0) - p.threshold * self.s.get(node.name, 0.0)
            u = p.leak * u + current
            if noise is not None and position == "before":
                u = u + noise[node.name]
            self.u[node.name] = u
            self.s[node.name] = np.where(u >= p.threshold, 1.0, 0.0)
            activity = self.s[node.name]
            if noise is not None and position == "after":
                activity = activity + noise[node.name]
            given[node.name] = activity
        return given


def backpropagated(
    nodes: list[Node], error: Array, given: dict[str, Array], u: dict[str, Array], model: slow.Model
) -> dict[str, Array]:
    """The error that reaches each node's activity, summed over all ways from the output to it."""
    reached = {node.name: np.zeros_like(given[node.name]) for node in nodes}
    reached["output"] = error
    for node in reversed(nodes):
        delta = reached[node.name]
        if node.name != "output":
            delta = delta * slow.psi(u[node.name], model.threshold, model)
        for product in node.products:
            back, start = delta @ product.matrix, 0
            for part in product.takes:
                width = given[part[0]].shape[1]
                for name in part:
                    if name in reached:
                        reached[name] = reached[name] + back[:, start : start + width]
                start += width
    return reached


def train(
    rule: str,
    nodes: list[Node],
    model: slow.Model,
    inputs: dict[str, Array],
    labels: Array,
    *,
    noise: list[list[Array]] | None = None,
    feedback: list[Array] = (),
    **options: Any,
) -> tuple[dict[str, tuple[Array, Array]], slow.Outcome]:
    """One training step from rest; each input is (T, B, n).

    Returns:
        The gradients of weight and bias by the name of the product, and the rest.
    """
    hidden = [node.name for node in nodes[:-1]]
    steps = len(next(iter(inputs.values())))
    out = slow.Outcome(
        [], [], [np.array(b) for b in feedback], [np.zeros_like(b) for b in feedback],
        rates=[0.0] * len(hidden),
    )  # fmt: skip
    found = {
        p.name: (np.zeros_like(p.weight), np.zeros_like(p.bias))
        for node in nodes
        for p in node.products
    }
    position = options.get("noise_position", "after")
    second_factor = slow.SECOND_PASS.get((rule, options.get("points")))
    first, second = Forward(nodes, model), Forward(nodes, model)
    traces: dict[str, Array] = {}
    for t in range(steps):
        z = None if noise is None else dict(zip(hidden, noise[t], strict=True))
        x = {name: sequence[t] for name, sequence in inputs.items()}
        given = first.step(x, z, position)
        losses, error = slow._losses(given["output"], labels, model, steps)
        second_output, second_losses = None, None
        if second_factor is not None:
            other = {name: value * second_factor for name, value in z.items()}
            second_output = second.step(x, other, position)["output"]
            second_losses, _ = slow._losses(second_output, labels, model, steps)
        for node in nodes:
            for p in node.products:
                traces[p.name] = model.leak * traces.get(p.name, 0.0) + p.receive(given)
            if node.name != "output":
                key = f"activity of {node.name}"
                traces[key] = model.leak * traces.get(key, 0.0) + given[node.name]
        if rule == "spatial-bp":
            errors = backpropagated(nodes, error, given, first.u, model)
        else:
            now = slow.Moment(
                given["output"], losses, error, second_output, second_losses,
                [first.u[n] for n in hidden], [traces[f"activity of {n}"] for n in hidden],
                None if z is None else list(z.values()),
            )  # fmt: skip
            errors = dict(zip(hidden, slow.RULES[rule](now, model, [], out, options), strict=True))
            errors["output"] = error
        for node in nodes:
            delta = errors[node.name]
            if node.name != "output":
                delta = delta * slow.psi(first.u[node.name], model.threshold, model)
            for p in node.products:
                for total, part in zip(
                    found[p.name], p.gradients(delta, traces[p.name]), strict=True
                ):
                    total += part
        out.loss += losses.sum()
        out.output = out.output + given["output"]
        for i, name in enumerate(hidden):
            out.rates[i] += first.s[name].mean() / steps
    return found, out
