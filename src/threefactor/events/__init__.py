"""Networks of exact spike times, and the rules that train them.

Their kernels are C code, built when the package is installed; without a C compiler there are none.
"""

from threefactor.events.encoding import latency_code
from threefactor.events.layer import Activity, Layer, LayerOptions
from threefactor.events.losses import FirstSpike, SpikeCount
from threefactor.events.network import Network, fc
from threefactor.events.parallel import get_num_threads, set_num_threads
from threefactor.events.rules import (
    DFA,
    RULES,
    SFDFA,
    ExactBP,
    Feedback,
    FeedbackOptions,
    FeedbackRule,
    Rule,
    RuleOptions,
)
from threefactor.events.spikes import SpikeBatch
from threefactor.events.trial import Result, Trial, run

__all__ = [
    "DFA",
    "RULES",
    "SFDFA",
    "Activity",
    "ExactBP",
    "Feedback",
    "FeedbackOptions",
    "FeedbackRule",
    "FirstSpike",
    "Layer",
    "LayerOptions",
    "Network",
    "Result",
    "Rule",
    "RuleOptions",
    "SpikeBatch",
    "SpikeCount",
    "Trial",
    "fc",
    "get_num_threads",
    "latency_code",
    "run",
    "set_num_threads",
]
