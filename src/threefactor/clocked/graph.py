"""What autograd's graph of one time step says of a network: which layers it connects, and how.

Under a rule every synapse layer is one node of the graph, and so is every neuron layer that the
chain rule may pass. What lies between them is the network's own: sums, pooling, norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

__all__ = [
    "behind",
    "behind_all",
    "is_layer",
    "name_of",
    "node_of",
    "parameter_of",
    "product_operands",
    "products",
]

_PRODUCTS = re.compile(
    r"(Mm|Addmm|Bmm|Baddbmm|Addbmm|Mv|Addmv|Dot|Vdot|Addr|Linear|Einsum|Embedding|EmbeddingBag|"
    r"\w*Convolution|\w*Attention\w*|\w*LinalgMatmul\w*)(Backward\w*)$"
)
_VIEWS = re.compile(
    r"(T|Transpose|Permute|View|UnsafeView|ReshapeAlias|Expand|Unsqueeze|Squeeze|Select|Slice|"
    r"ToCopy|Clone|AsStrided|Mul|Neg|Div|Tanh|Sigmoid|Softmax)(Backward\w*)$"
)


def is_layer(node: Any) -> bool:
    """Return whether this node is a synapse or neuron layer under a rule."""
    return hasattr(node, "pathway") or hasattr(node, "neuron")


def behind(starts: Iterable[Any]) -> Iterator[Any]:
    """Walk the graph from nodes towards its leaves; layers are given, and not passed through.

    Args:
        starts: nodes, or None for what has no graph.
    """
    waiting = [node for node in starts if node is not None]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if not is_layer(node):
            waiting.extend(n for n, _ in node.next_functions if n is not None)


def behind_all(starts: Iterable[Any]) -> Iterator[Any]:
    """Walk the whole graph from nodes to its leaves, through the layers, too."""
    waiting = [node for node in starts if node is not None]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting.extend(n for n, _ in node.next_functions if n is not None)


def node_of(x: Tensor) -> Any:
    """Return the node that a tensor comes from; of a leaf, the one that takes in its gradient."""
    if x.grad_fn is not None or not x.requires_grad:
        return x.grad_fn
    return x.view_as(x).grad_fn.next_functions[0][0]  # type: ignore[union-attr]


def name_of(node: Any) -> str:
    """Return what a node does in one word: "relu" for ReluBackward0."""
    return re.sub(r"Backward\w*$", "", str(node.name())).lower()


def parameter_of(node: Any) -> Tensor | None:
    """Return the leaf whose gradient a node takes in, or None."""
    return getattr(node, "variable", None)


def products(starts: Iterable[Any]) -> Iterator[Any]:
    """Walk the products with matrices or kernels that were not made by a synapse layer."""
    return (node for node in behind(starts) if _PRODUCTS.match(str(node.name())))


def product_operands(node: Any) -> Iterator[Tensor]:
    """Walk the leaves that are factors of a product, as they are or viewed or scaled."""
    waiting = [n for n, _ in node.next_functions if n is not None]
    while waiting:
        part = waiting.pop()
        leaf = parameter_of(part)
        if leaf is not None:
            yield leaf
        elif not is_layer(part) and _VIEWS.match(str(part.name())):
            waiting.extend(n for n, _ in part.next_functions if n is not None)
