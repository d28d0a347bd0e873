"""Watch SFDFA's feedback turn towards the output weights; DFA's stays where it was.

Run it with `python examples/events_feedback_alignment.py`.

The network has exact spike times. Its inputs are 8x8 digits: bright pixels spike early. Nothing is
backpropagated.
"""

import torch
from torch.nn.functional import cosine_similarity

from threefactor import events
from threefactor.data import load_spikes

BATCH, EPOCHS = 50, 8


def alignment(net: events.Network, rule: events.FeedbackRule) -> float:
    """Cosine between the feedback, (m, n), and the transposed output weights, (n, m)."""
    weight = net.readout.weight.detach().t()
    return cosine_similarity(rule.feedback[0].matrix.flatten(), weight.flatten(), dim=0).item()


def train(kind: type[events.FeedbackRule], **options: float) -> tuple[list[float], float]:
    """Return the alignment after every epoch, and the test accuracy."""
    torch.manual_seed(0)
    data = load_spikes("digits")
    net = events.fc(64, (100,), data.outputs, tau_s=0.13, thresholds=(0.05, 0.3), duration=0.2)
    rule = kind(net, rate_penalty=0.1, rate_target=1.0, **options)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    found = []
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data.train_labels)).split(BATCH):
            optimizer.zero_grad()
            rule.step(data.train_spikes[batch], data.train_labels[batch])
            optimizer.step()
        found.append(alignment(net, rule))
    output = events.run(net, data.test_spikes).output
    return found, (output.argmax(1) == data.test_labels).float().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    learned, accuracy = train(events.SFDFA, feedback_lr=1e-2)
    fixed, other = train(events.DFA)
    print("cosine between feedback and output weights, epoch by epoch")
    print("SFDFA", *(f"{cosine:5.2f}" for cosine in learned), f"  accuracy {accuracy:.2%}")
    print("DFA  ", *(f"{cosine:5.2f}" for cosine in fixed), f"  accuracy {other:.2%}")
    assert learned[-1] > learned[0] and learned[-1] > 0.9
    assert abs(fixed[-1]) < 0.3
    assert accuracy > max(other, 0.85)


if __name__ == "__main__":
    main()
