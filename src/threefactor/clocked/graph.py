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
    "aligned_with",
    "behind",
    "behind_all",
    "is_layer",
    "is_local",
    "is_product",
    "name_of",
    "node_of",
    "parameter_of",
    "product_operands",
]

_PRODUCTS = re.compile(
    r"(Mm|Addmm|Bmm|Baddbmm|Addbmm|Mv|Addmv|Dot|Vdot|Addr|Linear|Einsum|Embedding|EmbeddingBag|"
    r"Cdist|EuclideanDist|Fft\w*|\w*Convolution|\w*Attention\w*|\w*Matmul\w*|\w*Linalg\w*)Backward\d*$"
)
_LOCAL = re.compile(
    # arithmetic, neuron by neuron
    r"(Add|Sub|Rsub|Mul|Div|Neg|Pow|Exp|Expm1|Log|Log1P|Log2|Log10|Sqrt|Rsqrt|Reciprocal|Abs|Sign|"
    r"Square|Addcmul|Addcdiv|Lerp|Clamp\w*|Maximum|Minimum|Where|Masked\w*|Fmod|Remainder|Round|Floor|"
    r"Ceil|Trunc|Erf|Sin|Cos|Atan|Heaviside|Zero|Fill|Zeros\w*|Ones\w*|Nan\w*|"
    # nonlinearities
    r"Relu\w*|LeakyRelu|PreluKernel|Prelu\w*|Elu|Celu|Selu|Gelu|Silu|Mish|Softplus|Softshrink|"
    r"Hardshrink|Hardtanh|Hardsigmoid|Hardswish|Tanh|Sigmoid|LogSigmoid|Threshold|Rrelu\w*|Glu|"
    r"Softmax|LogSoftmax|\w*Dropout\w*|Bernoulli|"
    # norms and pooling
    r"\w*BatchNorm\w*|\w*LayerNorm\w*|\w*GroupNorm\w*|\w*RmsNorm\w*|\w*VectorNorm|Norm|Mean|Sum|Var|"
    r"VarMean|Std|StdMean|Max|Min|Amax|Amin|\w*AvgPool\w*|\w*MaxPool\w*|Average|Upsample\w*|"
    # shapes
    r"T|Transpose|Permute|View|UnsafeView|ReshapeAlias|Expand|Repeat|Unsqueeze|Squeeze|Select|Slice|"
    r"Split\w*|UnsafeSplit|Chunk|Unbind|Cat|Stack|Index\w*|Gather|Scatter\w*|Take\w*|Flip|Roll|"
    r"\w*Pad\w*|PixelShuffle|PixelUnshuffle|Diagonal|AsStrided|Unfold|Im2Col|Col2Im|CopySlices|"
    r"Clone|Copy|ToCopy|Alias|Detach|Identity|Movedim|Narrow|Unflatten|"
    # the library's own, and what autograd puts around modules with hooks
    r"_?Head|_Average|_?Transmission|_?LocalDerivative|BackwardHookFunction|CopyBackwards)"
    r"(Backward\w*)?$"
)

_ALIGNED = re.compile(
    r"(Add|Sub|Rsub|Mul|Div|Neg|View|UnsafeView|ReshapeAlias|Alias|Clone|\w*BatchNorm\w*|_?Head)"
    r"Backward\w*$"
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


def aligned_with(start: Any) -> list[Any]:
    """Return the layers in front of a node whose values stay each with its neuron on the way.

    Args:
        start: a node, or None.

    Returns:
        The nodes of the layers; none if anything between them might move or mix values.
    """
    nodes = list(behind([start]))
    layers = [node for node in nodes if is_layer(node)]
    between = [n for n in nodes if not is_layer(n) and parameter_of(n) is None]
    return layers if all(_ALIGNED.match(str(n.name())) for n in between) else []


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


def is_product(node: Any) -> bool:
    """Return whether a node is a product with a matrix or kernel that no synapse layer made."""
    return _PRODUCTS.match(str(node.name())) is not None


def is_local(node: Any) -> bool:
    """Return whether a node is known to mix no neurons by weights: elementwise, norms, shapes.

    A weighted sum in two operations, a factor with values of its own for each neuron and then a
    sum, mixes them.
    """
    if parameter_of(node) is not None or is_layer(node):
        return True
    if re.match(r"(Sum|Mean)Backward", str(node.name())):
        for part in behind([node]):
            factors = [parameter_of(n) for n, _ in part.next_functions if n is not None]
            if str(part.name()).startswith("MulBackward") and any(
                f is not None and f.numel() > 1 for f in factors
            ):
                return False
    return _LOCAL.match(str(node.name())) is not None


def product_operands(node: Any) -> Iterator[Tensor]:
    """Walk the leaves of those factors of a product that depend on leaves alone."""
    for part, _ in node.next_functions:
        nodes = list(behind([part]))
        if not any(map(is_layer, nodes)):
            yield from (leaf for n in nodes if (leaf := parameter_of(n)) is not None)
