"""Write your own learning rule: direct feedback with the signs of the forward weights.

Run it with `python examples/own_rule.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor import clocked
from threefactor.data import load


class SignFeedback(clocked.Rule):
    r"""Direct feedback by the signs of the product of all weights above the layer.

    .. math:: g_l[t] = B_l e[t], \qquad B_l = c_l \, \mathrm{sign}(W_L \cdots W_{l+1})^T

    Args:
        network: linear and spiking layers in a row.
        feedback_scale: c_l; 1/sqrt(n_l) by default.
        **options: see `Rule`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        feedback_scale: float | None = None,
        **options: Unpack[clocked.RuleOptions],
    ) -> None:
        super().__init__(network, **options)
        self.feedback_scale = feedback_scale

    def layer_errors(self, step: clocked.TimeStep) -> Sequence[Tensor]:
        synapses = [m for m in self.network.modules() if isinstance(m, clocked.Linear)]
        product, errors = None, []
        for synapse, layer in zip(synapses[:0:-1], step.layers[::-1], strict=True):
            product = synapse.weight if product is None else product @ synapse.weight
            scale = self.feedback_scale or layer.size**-0.5
            errors.append(scale * (step.error @ product.sign()))
        return errors[::-1]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = load("digits")
    net = clocked.fc(64, (100, 100), data.outputs)
    rule = SignFeedback(net)
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
