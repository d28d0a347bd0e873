"""The rules of an engine side by side, on the network of one of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from threefactor import clocked, events
from threefactor.analysis.batches import AnyRule
from threefactor.analysis.measured import MakeRule

__all__ = ["WARMUP", "fresh_rules", "makers"]

WARMUP = 1000
"""Updates of learned feedback before gradients are measured."""


def fresh_rules(rule: AnyRule) -> dict[str, AnyRule]:
    """Build every rule of a rule's engine on its network, as if training began here.

    Loss and firing-rate regularisation are the rule's. The noise has the scale that the rule's has
    now, or 0.2. OPZO comes without and with the factor 1/alpha, its momentum such that the feedback
    settles within `WARMUP` updates; SFDFA with a feedback learning rate that does.
    """
    loss = rule.loss
    if isinstance(rule, events.Rule):
        rates: dict[str, Any] = {
            "rate_penalty": rule.rate_penalty,
            "rate_target": rule.rate_target,
        }
        options: dict[str, dict[str, Any]] = {"sfdfa": {"feedback_lr": 5.0 / WARMUP}}
        return {
            name: kind(rule.network, loss=loss, **rates, **options.get(name, {}))
            for name, kind in events.RULES.items()
        }
    noise = 0.2 if rule.perturbation is None else rule.perturbation.scale
    common: dict[str, Any] = {"loss": loss, "input_shape": rule._session.sample_shape}
    opzo = partial(
        clocked.OPZO, rule.network, noise_scale=noise, momentum=1.0 - 5.0 / WARMUP, **common
    )
    return {
        "spatial-bp": clocked.SpatialBP(rule.network, **common),
        "dfa": clocked.DFA(rule.network, **common),
        "dkp": clocked.DKP(rule.network, **common),
        "zo": clocked.ZO(rule.network, noise_scale=noise, **common),
        "opzo": opzo(),
        "opzo, 1/alpha": opzo(divide_by_scale=True),
    }


def makers(rule: AnyRule) -> dict[str, MakeRule]:
    """How to build every rule of the engine with its defaults, in another process, too.

    Of convolutional networks also the rules with local learning, as in OPZO's tables: "(w/ LL)".
    """
    if isinstance(rule, events.Rule):
        return {n: partial(kind, loss=rule.loss) for n, kind in events.RULES.items()}
    shape = tuple(rule._session.sample_shape or ())
    common: dict[str, Any] = {"loss": rule.loss, "input_shape": shape}
    found: dict[str, MakeRule] = {n: partial(kind, **common) for n, kind in clocked.RULES.items()}
    if any(isinstance(module, clocked.Conv2d) for module in rule.network.modules()):
        common["local_learning"] = "same-weights"
        for name in ("dfa", "opzo"):
            found[f"{name} (w/ LL)"] = partial(clocked.RULES[name], **common)
    return found
