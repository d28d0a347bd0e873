"""Train a network of exact spike times on your own spike trains, with SFDFA.

Run it with `python examples/events_own_data.py`.

Three groups of eight channels spike in bursts. The class is the order of the groups. All classes
have the same number of spikes in every channel, so only the spike times tell them apart.
"""

import itertools

import numpy as np
import torch

from threefactor import events

GROUPS, CHANNELS, BATCH, EPOCHS = 3, 8, 50, 12
ORDERS = list(itertools.permutations(range(GROUPS)))  # 6 classes
TAU_S, DURATION = 0.05, 0.2  # seconds


def make_data(samples: int, seed: int) -> tuple[events.SpikeBatch, torch.Tensor]:
    """Bursts at 10, 50 and 90 ms, jittered by 8 ms; a fifth of the spikes is lost."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(ORDERS), samples)
    times, addresses = [], []
    for label in labels:
        group, channel = np.divmod(np.arange(GROUPS * CHANNELS), CHANNELS)
        place = np.argsort(ORDERS[label])[group]
        t = 0.010 + 0.040 * place + random.normal(0.0, 0.008, group.size)
        kept = random.random(group.size) > 0.2
        times.append(np.maximum(t, 0.0)[kept])
        addresses.append((group * CHANNELS + channel)[kept])
    # Times need not be sorted, and a sample may be empty.
    spikes = events.SpikeBatch.from_lists(times, addresses, size=GROUPS * CHANNELS)
    return spikes, torch.from_numpy(labels)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, train_labels = make_data(1500, seed=1)
    test, test_labels = make_data(600, seed=2)
    net = events.fc(
        GROUPS * CHANNELS, (100,), len(ORDERS),
        tau_s=TAU_S, thresholds=(0.02, 0.1), duration=DURATION,
    )  # fmt: skip
    rule = events.SFDFA(net, feedback_lr=1e-3, rate_penalty=0.1, rate_target=1.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(train)).split(BATCH):
            optimizer.zero_grad()
            result = rule.step(train[batch], train_labels[batch])  # adds to .grad
            optimizer.step()
        rate = result.firing_rates["lif1"].item()
        print(f"epoch {epoch + 1:2}  loss {result.loss.item():6.2f}  hidden spikes {rate:.2f}")

    output = events.run(net, test).output  # spike counts of the outputs
    accuracy = (output.argmax(1) == test_labels).float().mean().item()
    print(f"test accuracy {accuracy:.2%}, chance {1 / len(ORDERS):.2%}")
    assert accuracy > 0.9


if __name__ == "__main__":
    main()
