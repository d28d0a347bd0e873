"""What autograd's graph of one time step says of a network: which layers it connects, and how.

Under a rule every synapse layer is one node of the graph, and so is every neuron layer that the
chain rule may pass. What lies between them is the network's own: sums, pooling, norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "aligned_with",
    "behind",
    "behind_all",
    "is_layer",
    "is_local",
    "is_product",
    "leaves_behind",
    "name_of",
    "node_of",
    "parameter_of",
    "product_operands",
    "shown_by",
    "summed_weights",
]

_PRODUCTS = re.compile(
    r"(Mm|\w*[Aa]ddmm|\w*GroupedMm|SparseMm\w*|Bmm|Baddbmm|Addbmm|Mv|Addmv|Dot|Vdot|Addr|\w*[Ll]inear|"
    r"Einsum|Embedding\w*|Cdist|Pdist|EuclideanDist|Fft\w*|\w*Conv\w*|\w*Attention\w*|\w*Matmul\w*|"
    r"\w*Linalg(?!VectorNorm)\w*|\w*Rnn\w*|ThnnFused\w*)Backward\d*$"
)
_LOCAL = re.compile(
    # arithmetic, neuron by neuron
    r"(Add|Sub|Rsub|Mul|Div|Neg|Pow|Exp|Exp2|Expm1|Log|Log1P|Log2|Log10|Logaddexp\w*|Logit|Xlogy|Sqrt|"
    r"Rsqrt|Reciprocal|Abs|Angle|Sign|Sgn|Copysign|Square|Hypot|Addcmul|Addcdiv|Lerp|Clamp\w*|Maximum|"
    r"Minimum|Fmax|Fmin|Where|Masked\w*|Fmod|Remainder|Frac|Round|Floor|Ceil|Trunc|FakeQuantize\w*|"
    r"Erf|Erfc|Erfinv|Sinc?|Cos|Tan|A(sin|cos|tan)|Atan2|A?(Sin|Cos|Tan)h|A(sin|cos|tan)h|Lgamma|"
    r"Digamma|Special\w*|Deg2Rad|Rad2Deg|Heaviside|Zero|Fill|Zeros\w*|Ones\w*|Nan\w*|"
    # nonlinearities
    r"Relu\w*|LeakyRelu|PreluKernel|Prelu\w*|Elu|Celu|Selu|Gelu|Silu|Mish|Softplus|Softshrink|"
    r"Hardshrink|Hardtanh|Hardsigmoid|Hardswish|Tanh|Sigmoid|LogSigmoid|Threshold|Rrelu\w*|Glu|"
    r"Softmax|LogSoftmax|\w*Dropout\w*|Bernoulli|"
    # norms, pooling, sums and orders
    r"\w*BatchNorm\w*|\w*LayerNorm\w*|\w*GroupNorm\w*|\w*RmsNorm\w*|\w*VectorNorm|Norm|Renorm|Mean|"
    r"Sum|Var|VarMean|Std|StdMean|Max|Min|Amax|Amin|Aminmax|Median|Nanmedian|Mode|Kthvalue|Topk|Sort|"
    r"Logsumexp|Prod|Cumsum|Cumprod|Cummax|Cummin|Logcumsumexp|Trace|\w*AvgPool\w*|\w*MaxPool\w*|"
    r"MaxUnpool\w*|Average|Upsample\w*|GridSampler\w*|"
    # shapes
    r"T|Transpose|Permute|View|ViewAs\w*|UnsafeView|ReshapeAlias|ReshapeCopy|Expand|Repeat|Unsqueeze|"
    r"Squeeze|Select|Slice|Split\w*|UnsafeSplit\w*|Chunk|Unbind|Cat|Stack|Index\w*|UnsafeIndex\w*|"
    r"Gather|\w*Scatter\w*|Take\w*|Put|Flip|Roll|Rot90|Tril|Triu|\w*Pad\w*|PixelShuffle|"
    r"PixelUnshuffle|ChannelShuffle|Diagonal|DiagEmbed|AsStrided|Unfold|Im2Col|Col2Im|CopySlices|"
    r"Clone|LazyClone|Copy|ToCopy|Alias|Detach|Identity|Movedim|Narrow\w*|Unflatten|"
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


def leaves_behind(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the leaves whose gradients tensors have in their whole graph, each once."""
    with torch.enable_grad():  # by which a leaf tells its node
        nodes = [node_of(x) for x in tensors]
    found = (parameter_of(node) for node in behind_all(nodes))
    return [leaf for leaf in found if leaf is not None]


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
    return layers if all(_ALIGNED.match(_kind(n)) for n in between) else []


def node_of(x: Tensor) -> Any:
    """Return the node that a tensor comes from; of a leaf, the one that takes in its gradient."""
    if x.grad_fn is not None or not x.requires_grad:
        return x.grad_fn
    return x.view_as(x).grad_fn.next_functions[0][0]  # type: ignore[union-attr]


def _kind(node: Any) -> str:
    """Return the name of a node's class, without that of its room in PyTorch."""
    return str(node.name()).rpartition("::")[2]


def name_of(node: Any) -> str:
    """Return what a node does in one word: "relu" for ReluBackward0."""
    return re.sub(r"Backward\w*$", "", _kind(node)).lower()


def parameter_of(node: Any) -> Tensor | None:
    """Return the leaf whose gradient a node takes in, or None."""
    return getattr(node, "variable", None)


def shown_by(node: Any) -> str | None:
    """Return the name of the layer of neurons whose marked state a node gives, or None."""
    return getattr(node, "shows", None)


def is_product(node: Any) -> bool:
    """Return whether a node is a product with a matrix or kernel that no synapse layer made."""
    return _PRODUCTS.match(_kind(node)) is not None


def is_local(node: Any) -> bool:
    """Return whether a node is known to mix no neurons by weights: elementwise, norms, shapes.

    A weighted sum in two operations, a factor with values of its own for each neuron and then a
    sum, mixes them.
    """
    if parameter_of(node) is not None or is_layer(node):
        return True
    if re.match(r"(Sum|Mean)Backward", _kind(node)):
        for part in behind([node]):
            factors = [parameter_of(n) for n, _ in part.next_functions if n is not None]
            if _kind(part).startswith("MulBackward") and any(
                f is not None and f.numel() > 1 for f in factors
            ):
                return False
    if _kind(node) == "CopySlices":  # what wrote to a part of a tensor is hidden in it
        return len(node.next_functions) <= 2  # a product has three factors: it adds to the part
    return _LOCAL.match(_kind(node)) is not None


def summed_weights(node: Any) -> Iterator[Tensor]:
    """Walk the leaves that weigh inputs or activities which a sum adds up: a product in two steps.

    A factor of a current is none, and neither is one that is the same for all that is added up.
    """
    if not hasattr(node, "_saved_dim") or not re.match(r"(Sum|Mean)Backward", _kind(node)):
        return
    count = len(node._saved_self_sym_sizes)
    dims = [d if d < count else d - 2**64 + count for d in node._saved_dim or ()]  # -1 is 2**64 - 1
    for product, _ in node.next_functions:
        factors = [] if product is None else product.next_functions
        if len(factors) != 2 or not _kind(product).startswith("MulBackward"):
            continue
        for (part, place), (other, _) in (factors, factors[::-1]):
            nodes = list(behind([part]))
            if not nodes or any(map(is_layer, nodes)):
                continue
            shape = part._input_metadata[place].shape
            sizes = [1] * (count - len(shape)) + list(shape)
            current = any(hasattr(n, "pathway") for n in behind([other]))
            if not current and any(sizes[d] > 1 for d in dims):
                yield from (leaf for n in nodes if (leaf := parameter_of(n)) is not None)


def product_operands(node: Any) -> Iterator[Tensor]:
    """Walk the leaves of those factors of a product that depend on leaves alone."""
    for part, _ in node.next_functions:
        nodes = list(behind([part]))
        if not any(map(is_layer, nodes)):
            yield from (leaf for n in nodes if (leaf := parameter_of(n)) is not None)
