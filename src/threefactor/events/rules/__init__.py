"""The rules that train event-driven networks; each answers which error reaches a spike."""

from threefactor.events.rules.base import Rule, RuleOptions
from threefactor.events.rules.dfa import DFA
from threefactor.events.rules.exact_bp import ExactBP
from threefactor.events.rules.feedback import Feedback, FeedbackOptions, FeedbackRule
from threefactor.events.rules.sfdfa import SFDFA

__all__ = [
    "DFA",
    "RULES",
    "SFDFA",
    "ExactBP",
    "Feedback",
    "FeedbackOptions",
    "FeedbackRule",
    "Rule",
    "RuleOptions",
]

RULES: dict[str, type[Rule]] = {"exact-bp": ExactBP, "dfa": DFA, "sfdfa": SFDFA}
"""Every rule by the name used on the command line."""
