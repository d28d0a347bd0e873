"""Learning rules for clocked networks, by name."""

from threefactor.clocked.rules.base import Rule, RuleOptions
from threefactor.clocked.rules.dfa import DFA
from threefactor.clocked.rules.dkp import DKP
from threefactor.clocked.rules.feedback import Feedback, FeedbackOptions, FeedbackRule
from threefactor.clocked.rules.local import LocalLearningOptions, LocalLearningRule, Readout
from threefactor.clocked.rules.opzo import OPZO
from threefactor.clocked.rules.spatial_bp import SpatialBP
from threefactor.clocked.rules.time_step import TimeStep
from threefactor.clocked.rules.zo import ZO

__all__ = [
    "DFA",
    "DKP",
    "OPZO",
    "RULES",
    "ZO",
    "Feedback",
    "FeedbackOptions",
    "FeedbackRule",
    "LocalLearningOptions",
    "LocalLearningRule",
    "Readout",
    "Rule",
    "RuleOptions",
    "SpatialBP",
    "TimeStep",
]

RULES: dict[str, type[Rule]] = {
    "spatial-bp": SpatialBP,
    "dfa": DFA,
    "dkp": DKP,
    "zo": ZO,
    "opzo": OPZO,
}
