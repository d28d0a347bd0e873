"""Train your own network, with skip connections, by OPZO.

Run it with `python examples/own_network.py`.
"""

import torch
from torch import Tensor, nn

from threefactor import clocked
from threefactor.data import load


class Skip(nn.Module):
    """The read-out sees both hidden layers. The second hidden layer also sees the image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.lif1 = clocked.Linear(64, 100), clocked.LIF(leak=0.5)
        self.linear2, self.lif2 = clocked.Linear(164, 100), clocked.LIF(leak=0.5)
        self.readout = clocked.Linear(200, 10)

    def forward(self, x_t: Tensor) -> Tensor:
        """Run one time step. (B, 1, 8, 8) in, (B, 10) out."""
        x_t = x_t.flatten(1)
        first = self.lif1(self.linear1(x_t))
        second = self.lif2(self.linear2(torch.cat([x_t, first], 1)))
        return self.readout(torch.cat([first, second], 1))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = load("digits")
    net = Skip()
    rule = clocked.OPZO(net, noise_scale=0.1, input_shape=(1, 8, 8))
    print("neurons:", rule.layer_sizes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(3):
        for batch in torch.randperm(len(data.train_labels)).split(32):
            optimizer.zero_grad()
            rule.step(data.train_images[batch], data.train_labels[batch], steps=6)
            optimizer.step()
    output = clocked.run(net, data.test_images, steps=6).output
    accuracy = (output.argmax(1) == data.test_labels).float().mean().item()
    print(f"test accuracy {accuracy:.2%}")
    assert accuracy > 0.9


if __name__ == "__main__":
    main()
