"""All rules of an engine, on the network of one of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from threefactor import clocked, events
from threefactor.analysis.batches import AnyRule
from threefactor.analysis.measured import MakeRule

__all__ = ["fresh_rules", "makers"]


def fresh_rules(rule: AnyRule, updates: int, *, noisy_hardware: bool = False) -> dict[str, AnyRule]:
    """Build every rule of a rule's engine on its network, with feedback that has learned nothing.

    Loss, traces and firing-rate regularisation are those of the given rule. So are scale,
    distribution and position of its present noise; without noise they are 0.2, gaussian and after
    the neuron. OPZO is built twice, without and with the factor 1/alpha.

    Args:
        rule: of either engine.
        updates: updates within which learned feedback comes close to its goal. OPZO's momentum and
            SFDFA's feedback learning rate follow from them.
        noisy_hardware: whether the rule's noise is that of the hardware, which acts on all rules.
    """
    if isinstance(rule, events.Rule):
        learning: dict[str, Any] = {"sfdfa": {"feedback_lr": 5.0 / updates}}
        return {
            name: kind(
                rule.network,
                loss=rule.loss,
                rate_penalty=rule.rate_penalty,
                rate_target=rule.rate_target,
                **learning.get(name, {}),
            )
            for name, kind in events.RULES.items()
        }
    common, given = _common(rule), rule.perturbation
    hardware = given if noisy_hardware else None
    noise: dict[str, Any] = {"noise_scale": 0.2}
    if given is not None:
        noise = {
            "noise_scale": given.scale,
            "noise_distribution": given.distribution,
            "noise_position": given.position,
            "antithetic": given.antithetic,
        }
    opzo = partial(clocked.OPZO, rule.network, momentum=1.0 - 5.0 / updates, **noise, **common)
    return {
        "spatial-bp": clocked.SpatialBP(rule.network, perturbation=hardware, **common),
        "dfa": clocked.DFA(rule.network, perturbation=hardware, **common),
        "dkp": clocked.DKP(rule.network, perturbation=hardware, **common),
        "zo": clocked.ZO(rule.network, **noise, **common),
        "opzo": opzo(),
        "opzo, 1/alpha": opzo(divide_by_scale=True),
    }


def makers(rule: AnyRule) -> dict[str, MakeRule]:
    """Return how to build every rule of a rule's engine with its defaults, in any process.

    Loss and traces are those of the given rule. Convolutional networks also get the rules with
    local learning, named "(w/ LL)" as in OPZO's tables.
    """
    if isinstance(rule, events.Rule):
        return {name: partial(kind, loss=rule.loss) for name, kind in events.RULES.items()}
    common = _common(rule)
    found: dict[str, MakeRule] = {n: partial(kind, **common) for n, kind in clocked.RULES.items()}
    if any(isinstance(module, clocked.Conv2d) for module in rule.network.modules()):
        for name, kind in (("dfa", clocked.DFA), ("opzo", clocked.OPZO)):
            found[f"{name} (w/ LL)"] = partial(kind, local_learning="same-weights", **common)
    return found


def _common(rule: clocked.Rule) -> clocked.RuleOptions:
    """Return the options that all rules on a network share."""
    # Rules that do not chain through all layers need the chain within layers of some networks.
    chain = "within-layers" if rule.couples_layers else rule.chain
    return {
        "loss": rule.loss,
        "trace_decay": rule.trace_decay,
        "untraced": rule._session.untraced,
        "input_shape": rule.sample_shape,
        "chain": chain,
    }
