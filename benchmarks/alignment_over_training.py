"""Angles to backpropagation, and of the feedback to the output weights, while a network trains.

    python benchmarks/alignment_over_training.py [--hidden-scale 0.1] [--json FILE]

Figures 9 and 10 of the SFDFA paper: a network 784-800-800-800-10 of exact spike times on MNIST,
with the settings of the authors' script, trained by SFDFA and by DFA from the same weights. Every
`--every` batches the gradients of a few batches of test data are compared with exact BP's, with the
firing-rate regularisation left out of both, since it would hide what the feedback does; the columns
"with rates" have it in both, and "modified" compares with BP by the modified local gradient, which
no hair trigger can dominate. See docs/analysis.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from threefactor import analysis, events
from threefactor.data import load_spikes
from threefactor.version import __version__

LAST = 200
"""Batches over which the training accuracy is averaged."""


def make_network(data: Any, hidden: list[int], scale: float, tau_s: float) -> events.Network:
    """The figure's network; the weights between hidden layers and their thresholds times `scale`.

    Spikes do not depend on the scale: potential and threshold shrink alike. Grades do.
    """
    deep = len(hidden) - 1
    return events.fc(
        torch.Size(data.input_shape).numel(),
        hidden,
        data.outputs,
        tau_s=tau_s,
        thresholds=[0.03, *[0.03 * scale] * deep, 0.08],
        duration=0.2,
        weight_ranges=[(-1.0, 1.0), *[(-scale, scale)] * deep, (-1.0, 1.0)],
    )


def measure(rule: events.FeedbackRule, probe: list[Any]) -> dict[str, Any]:
    """Angles and cosine as the rule and its network are now."""
    with_rates = analysis.alignment(rule, probe)
    kept, rule.rate_penalty = rule.rate_penalty, 0.0
    try:
        plain = analysis.alignment(rule, probe)
        bounded = events.ExactBP(rule.network, loss=rule.loss, local_gradient="modified")
        modified = analysis.alignment(rule, probe, reference=bounded)
    finally:
        rule.rate_penalty = kept
    feedback = analysis.feedback_alignment(rule).layers
    firing = analysis.firing(rule.network, probe).layers
    return {
        "angles": {name: layer.angle for name, layer in plain.layers.items()},
        "angles_modified": {name: layer.angle for name, layer in modified.layers.items()},
        "angles_with_rates": {name: layer.angle for name, layer in with_rates.layers.items()},
        "undefined": {name: layer.undefined for name, layer in plain.layers.items()},
        "feedback_cosine": next(iter(feedback.values())).cosine,
        "spikes": {name: layer.rate for name, layer in firing.items()},
    }


def train(name: str, data: Any, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train for some batches; give what was measured on the way."""
    torch.manual_seed(options.seed)
    net = make_network(data, options.hidden, options.hidden_scale, options.tau_s)
    rates = {"rate_penalty": options.rate_penalty, "rate_target": 0.25}
    rule: Any = events.RULES[name](net, **rates)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr)
    probe = list(analysis.cut(data.test_spikes, data.test_labels, 50, 50 * options.probes))
    order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(0))
    batches = [b for b in order.split(50) if len(b) == 50][: options.batches]
    correct: list[float] = []
    for i in range(len(batches) + 1):
        if i % options.every == 0 or i == len(batches):
            recent = correct[-LAST:]
            line = {"batches": i, "train_accuracy": sum(recent) / len(recent) if recent else None}
            yield {**line, **measure(rule, probe)}
        if i < len(batches):
            optimizer.zero_grad()
            result = rule.step(data.train_spikes[batches[i]], data.train_labels[batches[i]])
            optimizer.step()
            right = result.output.argmax(1) == data.train_labels[batches[i]]
            correct.append(float(right.float().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="any set of images")
    parser.add_argument("--hidden", type=int, nargs="+", default=[800, 800, 800])
    parser.add_argument("--hidden-scale", type=float, default=1.0)
    parser.add_argument("--tau-s", type=float, default=0.010, help="seconds")
    parser.add_argument("--rules", nargs="+", default=["sfdfa", "dfa"])
    parser.add_argument("--batches", type=int, default=1200, help="of 50 samples; 1200: an epoch")
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--probes", type=int, default=2, help="test batches measured on")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--rate-penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write all numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_spikes(options.data)
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    rows: dict[str, list[dict[str, Any]]] = {}
    document = {"threefactor": __version__, "settings": settings, "rules": rows}
    for name in options.rules:
        rows[name] = []
        for line in train(name, data, options):
            print(name, json.dumps(line), flush=True)
            rows[name].append(line)
            if options.json:  # at once: a run takes long
                Path(options.json).write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
