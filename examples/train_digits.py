"""Train a network on a time grid with OPZO, in your own loop.

Run it with `python examples/train_digits.py`.

The data are 8x8 digits that come with scikit-learn. The script takes some seconds on one CPU core.
"""

import torch

from threefactor import clocked
from threefactor.data import load

STEPS, BATCH, EPOCHS = 6, 32, 4


def main() -> None:
    torch.set_num_threads(1)  # a network as small as this is slower with more
    torch.manual_seed(0)
    data = load("digits")
    net = clocked.fc(64, (200, 200), data.outputs, leak=0.5, threshold=1.0, dropout=0.2)
    rule = clocked.OPZO(net)  # its noise scale falls from 0.2 to 0.01, see set_progress
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=2e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)

    for epoch in range(EPOCHS):
        rule.set_progress(epoch / (EPOCHS - 1))
        net.train()
        for batch in torch.randperm(len(data.train_labels)).split(BATCH):
            images, labels = data.train_images[batch], data.train_labels[batch]
            optimizer.zero_grad()
            result = rule.step(images, labels, steps=STEPS)  # adds to .grad, as backward() would
            optimizer.step()
        scheduler.step()
        print(f"epoch {epoch + 1:2}  loss of the last batch {result.loss.item():.4f}")

    net.eval()  # no dropout; a plain run has no noise either
    test = clocked.run(net, data.test_images, steps=STEPS)
    accuracy = (test.output.argmax(1) == data.test_labels).float().mean().item()
    rates = {name: round(rate.item(), 3) for name, rate in test.firing_rates.items()}
    print(f"test accuracy {accuracy:.2%}, spikes per neuron and step {rates}")
    assert accuracy > 0.9


if __name__ == "__main__":
    main()
