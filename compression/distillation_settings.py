"""How a network is trained from the teacher: every knob, with what is usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kneepoint.tasks.errors import JobError
from kneepoint.tasks.training import WARM_UP, Precision

TECHNIQUES = (
    "warm_up",
    "accumulation",
    "precision",
    "hidden_hints",
    "attention_hints",
    "dynamic_weights",
    "follow_gap",
    "general_share",
    "teacher_cache_mb",
)


@dataclass(frozen=True)
class Distillation:
    """How a network is trained from the teacher.

    Attributes:
        steps: Optimizer steps.
        learning_rate: The highest one of the schedule.
        temperature: Softens both logits; above 0. None for what :data:`distillation_defaults.DEFAULTS` says.
        alpha: Share of the teacher's signal in the loss, in [0, 1]; the rest is the task's own loss. None as above.
        weight_decay: Decoupled weight decay.
        warm_up: The share of the steps in which the learning rate rises.
        accumulation: Batches whose mean loss makes one step.
        precision: ``auto`` computes in bfloat16 on a GPU and in float32 elsewhere.
        hidden_hints: Weight of the loss between hidden states (:mod:`kneepoint.compression.hints`); 0 for none.
        attention_hints: Weight of the loss between attentions.
        dynamic_weights: Whether terms that fall slowly get more weight (:mod:`kneepoint.compression.loss_weights`).
        follow_gap: Whether temperature and alpha follow the distance from the teacher, instead of those above
            (:mod:`kneepoint.compression.gap_schedule`).
        general_share: The share of the steps that come first and learn from the teacher alone: its outputs and hints.
        teacher_cache_mb: The teacher's outputs that are kept where training data recurs unchanged; 0 for none.

    Raises:
        JobError: A number makes no sense.
    """

    steps: int
    learning_rate: float
    temperature: float | None = None
    alpha: float | None = None
    weight_decay: float = 1e-4
    warm_up: float = WARM_UP
    accumulation: int = 1
    precision: Precision = "auto"
    hidden_hints: float = 0.0
    attention_hints: float = 0.0
    dynamic_weights: bool = False
    follow_gap: bool = False
    general_share: float = 0.0
    teacher_cache_mb: float = 256.0

    def __post_init__(self) -> None:
        _check_positive(self, "steps", "learning_rate", "temperature", "accumulation")
        _check_positive(self, "weight_decay", "hidden_hints", "attention_hints", "teacher_cache_mb", zero=True)
        for name in ("alpha", "warm_up", "general_share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise JobError(f"distillation: {name} is a share, from 0 to 1; got {value}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise JobError(f"distillation: precision is 'auto', 'float32' or 'bfloat16'; got {self.precision!r}")

    @property
    def batches(self) -> int:
        """That are drawn in all."""
        return self.steps * self.accumulation

    def techniques(self) -> dict[str, Any]:
        """By name, those settings that say how it is trained, not how long, how fast and towards what."""
        return {name: getattr(self, name) for name in TECHNIQUES}


def _check_positive(settings: Distillation, *names: str, zero: bool = False) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (value > 0 or (zero and value == 0)):
            raise JobError(f"distillation: {name} must be {'0 or more' if zero else 'above 0'}; got {value}")


STUDENT_TRAINING = Distillation(steps=600, learning_rate=6e-3, attention_hints=1.0)
RECOVERY = Distillation(steps=150, learning_rate=1e-3, weight_decay=0.0)
