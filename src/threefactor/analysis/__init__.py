"""Measures of networks, rules and data, of both engines, as functions that return plain values.

Analyses of finished runs are in `threefactor.analysis.runs`.
"""

from threefactor.analysis.alignment import (
    Alignment,
    LayerAngle,
    alignment,
    angle,
    backpropagation,
    cosine,
)
from threefactor.analysis.batches import cut
from threefactor.analysis.confusion import Confusion, confusion
from threefactor.analysis.cost import (
    Added,
    Cost,
    TrainingOperations,
    cost,
    training_operations,
)
from threefactor.analysis.feedback import (
    FeedbackAlignment,
    LayerFeedback,
    feedback_alignment,
    feedback_beside,
    mean_jacobian,
)
from threefactor.analysis.firing import Firing, LayerFiring, firing
from threefactor.analysis.hair_triggers import HairTriggers, LayerHairTriggers, hair_triggers
from threefactor.analysis.measured import (
    MeasuredCost,
    MemoryAgainstSteps,
    measured_cost,
    memory_against_steps,
)
from threefactor.analysis.operations import LayerOperations, Operations, operations
from threefactor.analysis.recording import LayerRecording, Membranes, Recording, record
from threefactor.analysis.records import Record
from threefactor.analysis.single_neuron import (
    FOUR_SPIKES,
    FactorCurves,
    GradientField,
    NeuronTrace,
    gradient_field,
    hair_trigger_factors,
    neuron_trace,
)
from threefactor.analysis.variance import GradientVariance, LayerVariance, gradient_variance

__all__ = [
    "FOUR_SPIKES",
    "Added",
    "Alignment",
    "Confusion",
    "Cost",
    "FactorCurves",
    "FeedbackAlignment",
    "Firing",
    "GradientField",
    "GradientVariance",
    "HairTriggers",
    "LayerAngle",
    "LayerFeedback",
    "LayerFiring",
    "LayerHairTriggers",
    "LayerOperations",
    "LayerRecording",
    "LayerVariance",
    "MeasuredCost",
    "Membranes",
    "MemoryAgainstSteps",
    "NeuronTrace",
    "Operations",
    "Record",
    "Recording",
    "TrainingOperations",
    "alignment",
    "angle",
    "backpropagation",
    "confusion",
    "cosine",
    "cost",
    "cut",
    "feedback_alignment",
    "feedback_beside",
    "firing",
    "gradient_field",
    "gradient_variance",
    "hair_trigger_factors",
    "hair_triggers",
    "mean_jacobian",
    "measured_cost",
    "memory_against_steps",
    "neuron_trace",
    "operations",
    "record",
    "training_operations",
]
