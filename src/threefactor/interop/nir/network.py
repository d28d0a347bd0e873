"""Networks whose layers are wired as a graph, as NIR's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from threefactor.clocked import reset_state
from threefactor.errors import InputError

__all__ = ["INPUT", "GraphNetwork", "Times"]

INPUT = ""
"""The name of the network's input among the sources of a layer."""


class GraphNetwork(nn.Module):
    """Layers wired as a graph: what several of them send to one is summed.

    Args:
        layers: by name, each after those that it gets something from.
        sources: for each layer, the names of those whose activities it gets; `INPUT` is the
            network's input.
        output: the names of those whose sum is the network's output.
        input_shape: shape of one sample at one time step.

    Raises:
        InputError: if a layer gets something from one that does not come before it.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        sources: Mapping[str, Sequence[str]],
        output: Sequence[str],
        input_shape: Sequence[int],
    ) -> None:
        super().__init__()
        known = {INPUT}
        for name, layer in layers.items():
            given = sources.get(name, ())
            if not given or not known.issuperset(given):
                raise InputError(
                    f"layer {name!r} gets its input from {list(given)}; expected names of layers "
                    f"before it, of {sorted(known)}"
                )
            self.add_module(name, layer)
            known.add(name)
        if not output or not known.issuperset(output):
            raise InputError(f"the output is {list(output)}; expected names of layers")
        self.sources = {name: tuple(sources[name]) for name in layers}
        self.output = tuple(output)
        self.input_shape = tuple(input_shape)

    def reset(self) -> None:
        """Forget the state of all neurons."""
        reset_state(self)

    def extra_repr(self) -> str:
        wires = [*self.sources.items(), ("output", self.output)]
        return "\n".join(
            f"{' + '.join(one or 'input' for one in given)} -> {name}" for name, given in wires
        )

    def forward(self, x_t: Tensor) -> Tensor:
        """Run one time step. (B, *input_shape) in, (B, outputs) out."""
        values = {INPUT: x_t}
        for name, given in self.sources.items():
            values[name] = self.get_submodule(name)(_summed(values, given))
        return _summed(values, self.output)


class Times(nn.Module):
    """Multiplies by a number that does not learn.

    Args:
        factor: the number.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _summed(values: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    total = values[names[0]]
    for name in names[1:]:
        total = torch.add(total, values[name])
    return total
