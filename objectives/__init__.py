"""What a candidate is scored on, and the conditions it must meet."""

from kneepoint.objectives.costs import Energy, Latency, MACs, Parameters, PeakMemory, Size
from kneepoint.objectives.expressions import Condition
from kneepoint.objectives.measured import MeasuredLatency
from kneepoint.objectives.objective import Objective, Scale, objective
from kneepoint.objectives.quality import Accuracy, Loss
from kneepoint.objectives.registry import bind_objectives, objective_named
from kneepoint.objectives.token_latency import LatencyPerToken
from kneepoint.objectives.view import View

__all__ = [
    "Accuracy",
    "Condition",
    "Energy",
    "Latency",
    "LatencyPerToken",
    "Loss",
    "MACs",
    "MeasuredLatency",
    "Objective",
    "Parameters",
    "PeakMemory",
    "Scale",
    "Size",
    "View",
    "bind_objectives",
    "objective",
    "objective_named",
]
