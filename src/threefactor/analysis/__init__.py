"""Measures of networks, rules and data, of both engines, as functions that return plain values."""

from threefactor.analysis.alignment import Alignment, LayerAngle, alignment, backpropagation
from threefactor.analysis.angles import angle, cosine
from threefactor.analysis.batches import cut
from threefactor.analysis.cost import Cost, cost
from threefactor.analysis.feedback import FeedbackAlignment, LayerFeedback, feedback_alignment
from threefactor.analysis.firing import Firing, LayerFiring, firing
from threefactor.analysis.hair_triggers import (
    FactorCurves,
    HairTriggers,
    LayerHairTriggers,
    hair_trigger_factors,
    hair_triggers,
)
from threefactor.analysis.jacobian import mean_jacobian
from threefactor.analysis.learning_curves import exact_against_modified
from threefactor.analysis.measured import (
    MeasuredCost,
    MemoryAgainstSteps,
    measured_cost,
    memory_against_steps,
)
from threefactor.analysis.operations import LayerOperations, Operations, operations
from threefactor.analysis.records import Record
from threefactor.analysis.single_neuron import (
    GradientField,
    NeuronTrace,
    gradient_field,
    neuron_trace,
)
from threefactor.analysis.training_operations import (
    Added,
    TrainingOperations,
    training_operations,
)
from threefactor.analysis.variance import GradientVariance, LayerVariance, gradient_variance

__all__ = [
    "Added",
    "Alignment",
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
    "LayerVariance",
    "MeasuredCost",
    "MemoryAgainstSteps",
    "NeuronTrace",
    "Operations",
    "Record",
    "TrainingOperations",
    "alignment",
    "angle",
    "backpropagation",
    "cosine",
    "cost",
    "cut",
    "exact_against_modified",
    "feedback_alignment",
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
    "training_operations",
]
