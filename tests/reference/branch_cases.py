"""Networks with two inputs and branches that meet, each beside its slow version."""

from __future__ import annotations

from typing import Any

import torch
from reference import branches as slow
from reference import clocked as formulas
from reference.clocked_cases import BATCH, OUTPUTS, STEPS
from torch import Tensor, nn

from threefactor import clocked

IMAGE, AUDIO = (1, 4, 4), (5,)
SHAPES = {"image": IMAGE, "audio": AUDIO}
PIXELS, HEARD = 32, 6

MERGES = {
    "concatenated": {"mix": [["lif1"], ["lif2"]], "readout": [["lif3"]]},
    "summed": {"mix": [["lif1", "lif2"]], "readout": [["lif3"]]},
    "two products": {"mix": [["lif1"]], "other": [["lif2"]], "readout": [["lif3"]]},
    "skip to the read-out": {"mix": [["lif1"], ["lif2"]], "readout": [["lif3"], ["lif2"]]},
    "skip that is added": {"mix": [["lif1", "lif2"]], "readout": [["lif3", "lif2", "lif1"]]},
    "raw input in the middle": {"mix": [["lif1"], ["audio"]], "other": [["lif2"]],
                                "readout": [["lif3"]]},
}  # fmt: skip
"""What the layers after the two branches receive: a row of parts, each a sum."""


class TwoBranches(nn.Module):
    """Pictures through a convolution, audio through a matrix; the spikes of both meet."""

    def __init__(self, merge: str, neuron: Any = clocked.LIF) -> None:
        super().__init__()
        self.takes = MERGES[merge]
        heard = PIXELS if "sum" in merge or "added" in merge else HEARD
        mixed = heard if "added" in merge else 7
        widths = {"lif1": PIXELS, "lif2": heard, "lif3": mixed, "audio": AUDIO[0]}
        sizes = {name: sum(widths[part[0]] for part in parts) for name, parts in self.takes.items()}
        self.conv, self.lif1 = clocked.Conv2d(1, 2, 3, padding=1), neuron()
        self.fc, self.lif2 = clocked.Linear(AUDIO[0], heard), neuron()
        self.mix = clocked.Linear(sizes["mix"], mixed)
        self.other = clocked.Linear(sizes["other"], mixed) if "other" in sizes else None
        self.lif3 = neuron()
        self.readout = clocked.Linear(sizes["readout"], OUTPUTS)

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        given = {"audio": audio}
        given["lif1"] = self.lif1(self.conv(image)).flatten(1)
        given["lif2"] = self.lif2(self.fc(audio))
        current = self.mix(self.received("mix", given))
        if self.other is not None:
            current = current + self.other(self.received("other", given))
        given["lif3"] = self.lif3(current)
        return self.readout(self.received("readout", given))

    def received(self, layer: str, given: dict[str, Tensor]) -> Tensor:
        parts = [torch.stack([given[n] for n in part]).sum(0) for part in self.takes[layer]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class OneInput(nn.Module):
    """The same network, to which both inputs come in one row."""

    input_shape = (16 + AUDIO[0],)

    def __init__(self, branches: TwoBranches) -> None:
        super().__init__()
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        return self.branches(x[:, :16].reshape(-1, *IMAGE), x[:, 16:])


def make(merge: str, seed: int = 1) -> TwoBranches:
    """A network in double precision whose neurons spike."""
    torch.manual_seed(seed)
    network = TwoBranches(merge).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(2.0)
            if name.endswith("bias"):
                parameter.uniform_(0.0, 0.5)
    return network


def make_inputs(steps: int = STEPS, seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (T, B, 1, 4, 4), audio (T, B, 5) and labels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(steps, BATCH, *IMAGE, generator=generator, dtype=torch.float64)
    audio = torch.randn(steps, BATCH, *AUDIO, generator=generator, dtype=torch.float64)
    return image, audio, torch.randint(OUTPUTS, (BATCH,), generator=generator)


def slow_nodes(network: TwoBranches) -> list[slow.Node]:
    """The slow version with the same weights."""
    arrays = {k: v.detach().numpy().copy() for k, v in network.named_parameters()}

    def product(name: str, takes: list[list[str]]) -> slow.Product:
        return slow.Product(name, takes, arrays[f"{name}.weight"], arrays[f"{name}.bias"])

    conv = product("conv", [["image"]])
    conv.lookup, conv.channel = slow.lookup_of(conv.weight, IMAGE, 1)
    later = {name: product(name, takes) for name, takes in network.takes.items()}
    readout = later.pop("readout")
    return [
        slow.Node("lif1", [conv]),
        slow.Node("lif2", [product("fc", [["audio"]])]),
        slow.Node("lif3", list(later.values())),
        slow.Node("output", [readout]),
    ]


MODEL = formulas.Model([], [])
