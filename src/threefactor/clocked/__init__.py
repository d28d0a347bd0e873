"""Networks on a time grid, and the rules that train them online."""

from threefactor.clocked.conv import Conv2d
from threefactor.clocked.convnets import conv5, conv9
from threefactor.clocked.foreign import register_neuron
from threefactor.clocked.kept_state import register_state, reset_state
from threefactor.clocked.losses import CrossEntropyMSE, from_autograd
from threefactor.clocked.network import Network, fc
from threefactor.clocked.neuron import (
    LIF,
    CubaLIF,
    Neuron,
    NeuronOptions,
    Reset,
    surrogate_times,
)
from threefactor.clocked.noise import LinearSchedule, Perturbation
from threefactor.clocked.probe import Probe
from threefactor.clocked.recurrent import Recurrent
from threefactor.clocked.resnet import ResidualBlock, nf_resnet34
from threefactor.clocked.rules import (
    DFA,
    DKP,
    OPZO,
    RULES,
    ZO,
    Feedback,
    FeedbackOptions,
    FeedbackRule,
    LocalLearningOptions,
    LocalLearningRule,
    Readout,
    Rule,
    RuleOptions,
    SpatialBP,
    TimeStep,
)
from threefactor.clocked.session import Result, run
from threefactor.clocked.synapse import Linear, Synapse
from threefactor.clocked.torch_losses import TORCH_LOSSES, TorchLoss, from_torch

__all__ = [
    "DFA",
    "DKP",
    "LIF",
    "OPZO",
    "RULES",
    "TORCH_LOSSES",
    "ZO",
    "Conv2d",
    "CrossEntropyMSE",
    "CubaLIF",
    "Feedback",
    "FeedbackOptions",
    "FeedbackRule",
    "Linear",
    "LinearSchedule",
    "LocalLearningOptions",
    "LocalLearningRule",
    "Network",
    "Neuron",
    "NeuronOptions",
    "Perturbation",
    "Probe",
    "Readout",
    "Recurrent",
    "Reset",
    "ResidualBlock",
    "Result",
    "Rule",
    "RuleOptions",
    "SpatialBP",
    "Synapse",
    "TimeStep",
    "TorchLoss",
    "conv5",
    "conv9",
    "fc",
    "from_autograd",
    "from_torch",
    "nf_resnet34",
    "register_neuron",
    "register_state",
    "reset_state",
    "run",
    "surrogate_times",
]
