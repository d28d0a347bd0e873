"""Learn from an endless stream: step the optimiser at every time step, never reset the state.

Run it with `python examples/stream.py`.

Sixteen streams run in parallel. Each shows a digit for five time steps and then the next one,
without a pause. Potentials, spikes and traces carry over. Memory does not grow.
"""

import gc
from collections.abc import Iterator

import torch
from torch import Tensor

from threefactor import clocked
from threefactor.data import load

STREAMS, SHOWN, STEPS = 16, 5, 1000


def stream() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images and labels of one time step, for ever."""
    data = load("digits")
    while True:
        now = torch.randint(len(data.train_labels), (STREAMS,))
        for _ in range(SHOWN):
            yield data.train_images[now], data.train_labels[now]


def values_in_memory() -> int:
    """Number of values in all tensors that are alive."""
    return sum(o.numel() for o in gc.get_objects() if type(o) in (Tensor, torch.nn.Parameter))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = clocked.fc(64, (100, 100), 10)
    rule = clocked.OPZO(net, noise_scale=0.1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    correct, memory = [], []
    for t, (x_t, y_t) in zip(range(STEPS), stream(), strict=False):
        optimizer.zero_grad()
        result = rule.observe(x_t, y_t)
        optimizer.step()
        if t % SHOWN == SHOWN - 1:  # the last step of a digit, before its update
            correct.append((result.output.argmax(1) == y_t).float().mean().item())
        if t in (100, STEPS - 1):
            memory.append(values_in_memory())
    first, last = (sum(part) / len(part) for part in (correct[:20], correct[-100:]))
    print(f"accuracy on the stream: {first:.2%} at first, {last:.2%} at the end")
    print(f"values in memory: {memory[0]} after 100 steps, {memory[1]} after {STEPS}")
    assert last > 0.85 and memory[0] == memory[1]


if __name__ == "__main__":
    main()
