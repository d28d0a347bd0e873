"""Initial weights as in the code that the OPZO authors released; a plugin with such a network.

    threefactor train mnist-fc --rule dfa --plugin benchmarks/authors_weights.py \
        --set network.kind=fc-authors-weights
"""

from collections.abc import Sequence

import torch
from torch import nn

import threefactor
from threefactor import clocked


def as_in_their_code(network: nn.Module) -> None:
    """Kaiming's normal weights by fan-out, biases 0, read-out normal with deviation 0.01."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if name.startswith("readout"):
                nn.init.normal_(module.weight, 0.0, 0.01)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)


@threefactor.register_network("fc-authors-weights")
def fc_authors_weights(
    input_shape: Sequence[int],
    outputs: int,
    *,
    hidden: Sequence[int] = (800, 800),
    dropout: float = 0.2,
) -> nn.Module:
    """Return the fully connected network of the recipe mnist-fc, with these weights."""
    network = clocked.fc(torch.Size(input_shape).numel(), tuple(hidden), outputs, dropout=dropout)
    as_in_their_code(network)
    return network
