"""Train networks whose spikes, weights, settings and feedback hold anything; run by a test.

    python tests/events/fuzz_events.py SEED TURNS

Each turn ends well or with an error of the library. It prints how many turns ended so and so.
"""

import random
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threefactor import events
from threefactor.errors import ThreefactorError

ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, -1e308, 1e-308, 3e38, -3e38, 1e19, -1.0, 2.0**31]
SETTINGS = ["threshold", "tau_s", "duration", "max_spikes", "neurons", "in_features"]


def odd(chance: random.Random, dtype: torch.dtype) -> Tensor:
    return torch.tensor(chance.choice(ODD), dtype=torch.float64).to(dtype)


def make_network(chance: random.Random) -> events.Network:
    sizes = [chance.choice([1, 2, 7, 17]) for _ in range(chance.choice([2, 3, 4]))]
    return events.fc(
        sizes[0],
        sizes[1:-1],
        sizes[-1],
        tau_s=chance.choice([1e-3, 0.1, 1e3]),
        thresholds=chance.choice([1e-3, 0.05]),
        duration=chance.choice([1e-6, 0.2, 1e6]),
        max_spikes=chance.choice([1, 30, 50, 10**6 if len(sizes) == 2 else 50]),
        weight_ranges=chance.choice([((0.0, 1.0),), ((-1.0, 1.0),)]),
    ).to(chance.choice([torch.float32, torch.float64]))


def make_spikes(chance: random.Random, samples: int, size: int) -> events.SpikeBatch:
    n = chance.choice([0, 1, 13, 60])
    which = np.array([chance.randrange(samples) for _ in range(n)], np.int64)
    times = np.array([chance.random() * 0.3 for _ in range(n)])
    addresses = np.array([chance.randrange(size) for _ in range(n)], np.int32)
    for array in (times, addresses, which):
        if n and chance.random() < 0.15:
            with np.errstate(all="ignore"):
                array[chance.randrange(n)] = np.array(chance.choice(ODD)).astype(array.dtype)
    batch = events.SpikeBatch.from_arrays(which, times, addresses, size, samples)
    view = torch.from_numpy(getattr(batch, chance.choice(["offsets", "times", "addresses"])))
    if len(view) and chance.random() < 0.3:  # behind the back of NumPy
        value: Any = chance.choice([-1, 10**9, -(10**9)])
        view[chance.randrange(len(view))] = (
            odd(chance, view.dtype) if view.is_floating_point() else value
        )
    return batch


def disturb(chance: random.Random, layer: events.Layer) -> None:
    weight, shape = layer.weight, (layer.in_features, layer.neurons)
    if chance.random() < 0.4:
        weight.view(-1)[chance.randrange(weight.numel())] = odd(chance, weight.dtype)
    if chance.random() < 0.1:
        other = [chance.choice([0, 1, 5, 40]) for _ in range(chance.choice([1, 2, 3]))]
        weight.data = torch.rand(other, dtype=weight.dtype)
    if chance.random() < 0.1:
        weight.data = torch.rand(100, dtype=weight.dtype).as_strided(shape, (0, 1))
    if chance.random() < 0.1:
        setattr(layer, chance.choice(SETTINGS), chance.choice(ODD))


def turn(chance: random.Random) -> None:
    net = make_network(chance)
    rule = chance.choice(list(events.RULES.values()))(net)
    events.set_num_threads(chance.choice([1, 2]))
    samples, layers = chance.choice([1, 3, 8]), list(net.layers.values())
    labels = torch.randint(layers[-1].neurons, (samples,))
    batch = make_spikes(chance, samples, layers[0].in_features)
    with torch.no_grad():
        for layer in layers:
            disturb(chance, layer)
        for buffer in rule.buffers():
            if chance.random() < 0.1:
                buffer.view(-1)[0] = odd(chance, buffer.dtype)
    for _ in range(2):
        rule.step(batch, labels)


def main(seed: int, turns: int) -> None:
    warnings.simplefilter("ignore")
    chance, right = random.Random(seed), 0
    torch.manual_seed(seed)
    for _ in range(turns):
        try:
            turn(chance)
            right += 1
        except ThreefactorError:
            pass
    print(right, turns - right)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
