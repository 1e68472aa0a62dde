"""Hints from inside the teacher: hidden states and attention, matched over depth.

Hidden states: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, with a learned projection where the
student is narrower, which is thrown away. Attention: the distributions over positions, averaged over heads so that any
number of heads can learn from any other, and compared by their KL divergence (after Wang et al., "MiniLMv2", ACL 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.observing import Observed
from kneepoint.tasks.seeding import seeded

MOST_HINTS = 4
"""Pairs of hidden states, and of attentions."""
_SMALLEST = 1e-8
"""Attention below it counts as this."""


@dataclass(frozen=True)
class Pair:
    """One of the student's values and one of the teacher's.

    Attributes:
        student: Its position among the student's.
        teacher: Its position among the teacher's.
        axis: Of channels.
    """

    student: int
    teacher: int
    axis: int


class Hints(nn.Module):
    """The losses between values inside a student and inside its teacher.

    Args:
        student: What a batch's call of the student computed; its shapes decide what is matched.
        teacher: The same of the teacher.
        seed: Of the projections.

    Attributes:
        states: Which hidden states are matched; empty where no shapes allow it.
        attention: Which attentions are.
    """

    def __init__(self, student: Observed, teacher: Observed, seed: int) -> None:
        super().__init__()
        self.states = matched(student.states, teacher.states)
        self.attention = [
            pair for pair in matched(student.attention, teacher.attention) if _alike(pair, student, teacher)
        ]
        with seeded(seed):
            self.projections = nn.ModuleList(
                _projection(student.states[pair.student][1], teacher.states[pair.teacher][1], pair.axis)
                for pair in self.states
            )

    def hidden_loss(self, student: Observed, teacher: Observed) -> Tensor:
        """The mean squared distance of hidden states whose channels were scaled to length 1: from 0 to 4."""
        losses = []
        for pair, projection in zip(self.states, self.projections, strict=True):
            own, taught = student.states[pair.student][1], teacher.states[pair.teacher][1]
            own = projection(own.movedim(pair.axis, -1)).float()
            distance = F.normalize(own, dim=-1) - F.normalize(taught.movedim(pair.axis, -1).float(), dim=-1)
            losses.append(distance.square().sum(-1).mean())
        return torch.stack(losses).mean()

    def attention_loss(self, student: Observed, teacher: Observed) -> Tensor:
        """The mean KL divergence in nats of the student's attention of a position from the teacher's."""
        losses = []
        for pair in self.attention:
            own = student.attention[pair.student][1].float().clamp(min=_SMALLEST).log()
            taught = teacher.attention[pair.teacher][1].float().clamp(min=_SMALLEST).log()
            losses.append(F.kl_div(own, taught, reduction="none", log_target=True).sum(-1).mean())
        return torch.stack(losses).mean()


def matched(student: Sequence[tuple[int, Tensor]], teacher: Sequence[tuple[int, Tensor]]) -> list[Pair]:
    """At most :data:`MOST_HINTS` of the student's values, spread over its depth, each with the teacher's at its depth.

    A value's depth is the number of layers before it, over that before the last value. Of the teacher's, only those
    count whose shape differs in channels at most.
    """
    found = []
    own_depth, taught_depth = (max(1, values[-1][0]) if values else 1 for values in (student, teacher))
    for index, (depth, value) in enumerate(student):
        fitting = [
            (abs(depth / own_depth - other / taught_depth), position, axis)
            for position, (other, taught) in enumerate(teacher)
            if (axis := channel_axis(value, taught)) is not None
        ]
        if fitting:
            _, position, axis = min(fitting)
            found.append(Pair(index, position, axis))
    if len(found) <= MOST_HINTS:
        return found
    places = torch.linspace(0, len(found) - 1, MOST_HINTS).round().int().tolist()
    return [found[place] for place in places]


def channel_axis(student: Tensor, teacher: Tensor) -> int | None:
    """The axis of channels of two values that differ in nothing else; None for others.

    It is the axis in which they differ; where they do not, 1 of images and the last of all else.
    """
    if student.dim() != teacher.dim() or student.dim() < 2:
        return None
    differing = [axis for axis in range(student.dim()) if student.shape[axis] != teacher.shape[axis]]
    usual = 1 if student.dim() > 3 else student.dim() - 1
    if len(differing) > 1 or 0 in differing:
        return None
    return differing[0] if differing else usual


def _alike(pair: Pair, student: Observed, teacher: Observed) -> bool:
    """Whether two attentions are over the same positions."""
    return student.attention[pair.student][1].shape == teacher.attention[pair.teacher][1].shape


def _projection(student: Tensor, teacher: Tensor, axis: int) -> nn.Module:
    own, wanted = student.shape[axis], teacher.shape[axis]
    if own == wanted:
        return nn.Identity()
    return nn.Linear(own, wanted, bias=False, device=student.device)
