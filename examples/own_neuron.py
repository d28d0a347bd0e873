"""Train your own neuron by OPZO and by DFA: LIF with a threshold that rises with every spike.

Run it with `python examples/own_neuron.py`.
"""

import torch
from torch import Tensor, nn

from threefactor import clocked
from threefactor.data import load


class ALIF(clocked.Neuron):
    r"""Adaptive LIF: each spike raises the threshold by `step`, which then decays by `rho`.

    .. math:: u[t] = \lambda (u[t-1] - V s[t-1]) + I[t], \quad b[t] = \rho b[t-1] + \beta s[t-1],
              \quad s[t] = [u[t] \ge V + b[t]]

    The current of a step moves u and not b, whose spikes are those of before. So the derivative of
    the spike by the current is the surrogate's, taken at the risen threshold:

    .. math:: \partial s[t] / \partial I[t] = \psi(u[t] - V - b[t])

    What earlier currents change by way of b is left out, as is what they change by way of the
    reset: the presynaptic trace decays by lambda alone.
    """

    def __init__(self, leak: float = 0.5, rho: float = 0.8, step: float = 0.2) -> None:
        super().__init__(dropout=0.2)
        self.leak, self.rho, self.step, self.threshold = leak, rho, step, 1.0

    def advance(self, current: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.state is None:
            self.state = tuple(torch.zeros_like(current) for _ in range(3))
        u, b, s = self.state
        u = self.leak * (u - self.threshold * s) + current
        if noise is not None:
            u = u + noise
        b = self.rho * b + self.step * s
        s = (u - b >= self.threshold).to(u.dtype)
        self.state = u, b, s
        return s

    def modulate(self, error: Tensor, state: tuple[Tensor, ...], gate: Tensor | float) -> Tensor:
        u, b, _ = state
        return clocked.surrogate_times(error, u - b, self.threshold, 0.25, gate)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = load("digits")
    for name, options in {"OPZO": {"noise_scale": 0.1}, "DFA": {}}.items():
        linear, readout = clocked.Linear(64, 100), clocked.Linear(100, 10)
        net = nn.Sequential(nn.Flatten(), linear, ALIF(), readout)
        rule = getattr(clocked, name)(net, input_shape=data.input_shape, **options)
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
        for batch in torch.arange(1437).repeat(3).split(32):
            optimizer.zero_grad()
            rule.step(data.train_images[batch], data.train_labels[batch], steps=6)
            optimizer.step()
        output = clocked.run(net.eval(), data.test_images, steps=6).output
        accuracy = (output.argmax(1) == data.test_labels).float().mean().item()
        print(f"{name}: test accuracy {accuracy:.2%}")
        assert accuracy > 0.9


if __name__ == "__main__":
    main()
