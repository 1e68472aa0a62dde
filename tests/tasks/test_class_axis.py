from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kneepoint.tasks.class_axis import class_axis

INDICES = torch.int64


@pytest.mark.parametrize(
    ("outputs", "targets", "axis"),
    [
        (torch.zeros(4, 3), torch.zeros(4, dtype=INDICES), 1),
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.uint8), 1),
        (torch.zeros(4, 3, 5, 5), torch.zeros(4, 5, 5, dtype=INDICES), 1),
        (torch.zeros(4, 3, 5), torch.zeros(4, 5, dtype=INDICES), 1),
        (torch.zeros(4, 5, 3), torch.zeros(4, 5, dtype=INDICES), -1),
        (torch.zeros(4, 5, 5), torch.zeros(4, 5, dtype=INDICES), 1),
        (torch.zeros(4, 5, 5, 3), torch.zeros(4, 5, 5, dtype=INDICES), None),
        (torch.zeros(4, 3), torch.zeros(4, 3), None),
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool), None),
        (torch.zeros(4, 3, dtype=INDICES), torch.zeros(4, dtype=INDICES), None),
        (torch.zeros(4, 3), {"a": torch.zeros(4, dtype=INDICES)}, None),
        ((torch.zeros(4, 3),), torch.zeros(4, dtype=INDICES), None),
    ],
)
def test_the_axis_of_the_classes(outputs: Tensor, targets: Tensor, axis: int | None) -> None:
    assert class_axis(outputs, targets) == axis
