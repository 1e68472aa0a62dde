"""How well a candidate answers: the task's metric and its loss, on the validation data."""

from __future__ import annotations

import torch

from kneepoint.objectives.objective import Objective, Scale
from kneepoint.objectives.view import View
from kneepoint.tasks.metrics import Metric, Score, accuracy
from kneepoint.tasks.task import Task


class Accuracy(Objective):
    """The task's metric, under the metric's own name, direction and unit.

    Args:
        metric: Another metric instead of the task's.
    """

    def __init__(self, metric: Metric | None = None) -> None:
        self.metric = metric
        shown = metric or accuracy
        self.name, self.direction, self.unit = shown.name, shown.direction, shown.unit

    def bind(self, task: Task) -> Objective:
        """The same objective with the task's metric, unless it has its own."""
        return self if self.metric is not None else Accuracy(task.metric)

    def score(self, view: View) -> Score:
        """The metric on the view's outputs and targets."""
        return (self.metric or view.task.metric).score(view.outputs, view.targets)

    def scale(self, task: Task, teacher: Score) -> Scale:
        """From the best constant predictor to the metric's ideal, or 10 % beyond the teacher where it has none."""
        metric = self.metric or task.metric
        if metric.ideal is None or metric is not task.metric:
            return super().scale(task, teacher)
        worst = task.reference_score()
        return Scale(worst, metric.ideal) if worst != metric.ideal else super().scale(task, teacher)


class Loss(Objective):
    """The task's loss on the validation data."""

    name = "loss"

    def score(self, view: View) -> Score:
        """The loss of all outputs at once."""
        with torch.inference_mode():
            return Score(float(view.task.loss(view.outputs, view.targets)))
