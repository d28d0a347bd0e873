"""Adapt online: digits turn slowly to 90 degrees, and the network learns from each as it comes.

Run it with `python examples/adapting.py`.

Two copies of a trained network meet the same digits, one at a time. Each predicts a digit from its
three time steps. Then one of them learns from it, if it has a label; every fourth digit has none.
"""

import copy

import torch
from torch import Tensor

from threefactor import clocked
from threefactor.analysis.runs import turned
from threefactor.data import load

STEPS, SAMPLES = 3, 1200


def meet(
    rule: clocked.OPZO, optimizer: torch.optim.Optimizer, x: Tensor, label: Tensor | None
) -> Tensor:
    """Predict one digit, and learn from its label if it has one."""
    rule.reset()  # from rest, as in training
    optimizer.zero_grad()
    output = torch.zeros(1, rule.outputs)
    for _ in range(STEPS):
        output += rule.observe(x, label, steps=STEPS).output
    if label is not None:
        optimizer.step()
    return output


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = load("digits")
    net = clocked.fc(64, (100,), 10)
    rule = clocked.OPZO(net, noise_scale=0.1, momentum=0.999)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for batch in torch.arange(len(data.train_labels)).repeat(4).split(32):
        optimizer.zero_grad()
        rule.step(data.train_images[batch], data.train_labels[batch], steps=STEPS)
        optimizer.step()

    static = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    right: dict[str, list[bool]] = {"static": [], "adapting": []}
    for i in range(SAMPLES):
        one = torch.randint(len(data.test_labels), (1,))
        x, y = turned(data.test_images[one], 90 * i / SAMPLES), data.test_labels[one]
        label = y if i % 4 else None
        output = meet(rule, optimizer, x, label)
        right["adapting"].append(bool(output.argmax(1) == y))
        right["static"].append(bool(clocked.run(static, x, steps=STEPS).output.argmax(1) == y))

    ends = {name: sum(hits[-200:]) / 200 for name, hits in right.items()}
    print(f"accuracy near 90 degrees: static {ends['static']:.0%}, adapting {ends['adapting']:.0%}")
    assert ends["adapting"] > ends["static"] + 0.3


if __name__ == "__main__":
    main()
