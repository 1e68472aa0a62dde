"""Temperature and alpha that follow how far the student is from its teacher.

Far from the teacher, a softer distribution is easier to follow and tells more than the label; the nearer the student
comes, the sharper the teacher's word and the more the labels count (as in annealing knowledge distillation: Jafari et
al., EACL 2021, where the temperature falls with time; here it falls with the gap that is measured).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TEMPERATURES = (1.5, 4.0)
"""At no gap, and at the largest."""
ALPHAS = (0.6, 0.9)
MEMORY = 0.95
"""Of the running mean of the gap: the share of what it was before."""


class GapSchedule(nn.Module):
    """The temperature and alpha of a gap between 0 and 1, averaged over batches; it starts at 1.

    What it remembers is a buffer, so that it can be stored.
    """

    gap: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gap", torch.tensor(1.0))

    def forward(self, gap: Tensor) -> tuple[float, float]:
        """The temperature and alpha of now; ``gap`` is that of the batch."""
        self.gap.mul_(MEMORY).add_(gap.detach().float(), alpha=1 - MEMORY)
        return _between(TEMPERATURES, float(self.gap)), _between(ALPHAS, float(self.gap))


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
