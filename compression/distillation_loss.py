"""The loss of Hinton et al. (2015), and what may be added to it: hints, weights and temperatures that move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.compression.distillation_defaults import recommended
from kneepoint.compression.distillation_settings import Distillation
from kneepoint.compression.gap_schedule import GapSchedule
from kneepoint.compression.hints import Hints
from kneepoint.compression.loss_weights import DynamicWeights
from kneepoint.compression.observing import Observed, observe_call
from kneepoint.compression.soft_targets import gap_of, heads_of, loss_of_heads
from kneepoint.compression.teacher_outputs import TeacherOutputs, ask
from kneepoint.tasks.batches import leaves
from kneepoint.tasks.task import Task

TERMS = ("hard", "soft", "hidden", "attention")


class DistillationLoss(nn.Module):
    """alpha x soft + (1 - alpha) x hard, and the hints' losses by their weights.

    The hard part is the task's own loss, the soft part that of :mod:`kneepoint.compression.soft_targets`. In the
    general stage alpha is 1. What it learns (projections) and remembers is stored with the training.

    Args:
        task: Gives the teacher and the hard part.
        settings: The weights.
        hints: For the losses inside the network; None for none.
        outputs: The teacher's, kept; None to ask it for every batch.
    """

    calls: Tensor

    def __init__(
        self, task: Task, settings: Distillation, hints: Hints | None = None, outputs: TeacherOutputs | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.hints = hints
        self.weights = DynamicWeights(TERMS) if settings.dynamic_weights else None
        self.schedule = GapSchedule() if settings.follow_gap else None
        self.register_buffer("calls", torch.tensor(0))
        self._general = round(settings.general_share * settings.batches)
        self._task = task
        self._outputs = outputs

    def forward(self, module: nn.Module, inputs: Any, targets: Any) -> Tensor:
        """The loss of a batch, a scalar."""
        is_general = int(self.calls) < self._general
        self.calls += 1
        if self.settings.alpha == 0.0 and not is_general and self.hints is None and self.schedule is None:
            hard: Tensor = self._task.loss(self._task.call(module, inputs), targets)
            return hard
        outputs, own, taught, seen = self._both(module, inputs)
        soft, alpha = self._soft(outputs, taught, targets)
        terms = {"soft": (1.0 if is_general else alpha, soft)}
        if not is_general:
            terms["hard"] = (1.0 - alpha, self._task.loss(outputs, targets))
        return self._total(terms | self._hinted(own, seen))

    def _both(self, module: nn.Module, inputs: Any) -> tuple[Any, Observed, Any, Observed]:
        """The outputs of student and teacher, each with what was seen on the way where hints need it."""
        if self.hints is None:
            outputs = self._task.call(module, inputs)
            taught = ask(self._task, inputs) if self._outputs is None else self._outputs.of(self._task, inputs)
            return outputs, Observed(), taught, Observed()
        samples = len(leaves(inputs)[0])
        outputs, own = observe_call(lambda: self._task.call(module, inputs), module, samples)
        taught, seen = observe_call(lambda: ask(self._task, inputs), self._task.model, samples)
        return outputs, own, taught, seen

    def _soft(self, outputs: Any, taught: Any, targets: Any) -> tuple[Tensor, float]:
        """The soft loss and alpha."""
        heads = heads_of(outputs, taught, targets)
        usual = recommended(heads)
        temperature = usual.temperature if self.settings.temperature is None else self.settings.temperature
        alpha = usual.alpha if self.settings.alpha is None else self.settings.alpha
        if self.schedule is not None:
            temperature, alpha = self.schedule(torch.stack([gap_of(head) for head in heads]).mean())
        return loss_of_heads(heads, temperature), alpha

    def _hinted(self, student: Observed, teacher: Observed) -> dict[str, tuple[float, Tensor]]:
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.hints is not None and self.settings.hidden_hints > 0 and self.hints.states:
            terms["hidden"] = (self.settings.hidden_hints, self.hints.hidden_loss(student, teacher))
        if self.hints is not None and self.settings.attention_hints > 0 and self.hints.attention:
            terms["attention"] = (self.settings.attention_hints, self.hints.attention_loss(student, teacher))
        return terms

    def _total(self, terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
        weighed = {name: (weight, value) for name, (weight, value) in terms.items() if weight > 0}
        factors = {} if self.weights is None else self.weights({name: value for name, (_, value) in weighed.items()})
        values = [weight * factors.get(name, 1.0) * value for name, (weight, value) in weighed.items()]
        return torch.stack(values).sum() if len(values) > 2 else sum(values[1:], start=values[0])
