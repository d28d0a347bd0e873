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


def fresh_rules(rule: AnyRule, *, noisy_hardware: bool = False) -> dict[str, AnyRule]:
    """Build every rule of a rule's engine on its network, as if training began here.

    Loss and firing-rate regularisation are the rule's. The noise has the scale, distribution and
    position that the rule's has now, or is gaussian of 0.2 after the neuron. OPZO comes without and
    with the factor 1/alpha, its momentum such that the feedback settles within `WARMUP` updates;
    SFDFA with a feedback learning rate that does.

    Args:
        rule: of either engine.
        noisy_hardware: whether the rule's noise is that of the hardware, which all rules have.
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
    common = _common(rule)
    hardware = rule.perturbation if noisy_hardware else None
    plain = {**common, "perturbation": hardware}
    learning = {**common, **_noise(rule.perturbation)}
    opzo = partial(clocked.OPZO, rule.network, momentum=1.0 - 5.0 / WARMUP, **learning)
    return {
        "spatial-bp": clocked.SpatialBP(rule.network, **plain),
        "dfa": clocked.DFA(rule.network, **plain),
        "dkp": clocked.DKP(rule.network, **plain),
        "zo": clocked.ZO(rule.network, **learning),
        "opzo": opzo(),
        "opzo, 1/alpha": opzo(divide_by_scale=True),
    }


def _common(rule: clocked.Rule) -> dict[str, Any]:
    """Return the options that rules on one network share."""
    # A rule that chains through all layers says nothing of what the others need.
    chain = "within-layers" if rule.couples_layers else rule.chain
    shape = tuple(rule.sample_shape)
    return {"loss": rule.loss, "input_shape": shape, "chain": chain}


def _noise(given: clocked.Perturbation | None) -> dict[str, Any]:
    """Return the options that give a rule noise of the same kind."""
    if given is None:
        return {"noise_scale": 0.2}
    return {
        "noise_scale": given.scale,
        "noise_distribution": given.distribution,
        "noise_position": given.position,
        "antithetic": given.antithetic,
    }


def makers(rule: AnyRule) -> dict[str, MakeRule]:
    """How to build every rule of the engine with its defaults, in another process, too.

    Of convolutional networks also the rules with local learning, as in OPZO's tables: "(w/ LL)".
    """
    if isinstance(rule, events.Rule):
        return {n: partial(kind, loss=rule.loss) for n, kind in events.RULES.items()}
    common = _common(rule)
    found: dict[str, MakeRule] = {n: partial(kind, **common) for n, kind in clocked.RULES.items()}
    if any(isinstance(module, clocked.Conv2d) for module in rule.network.modules()):
        common["local_learning"] = "same-weights"
        for name in ("dfa", "opzo"):
            found[f"{name} (w/ LL)"] = partial(clocked.RULES[name], **common)
    return found
