from __future__ import annotations

import pytest
import torch

from kneepoint.tasks.box_metrics import box_iou, ious
from kneepoint.tasks.errors import TaskError

WHOLE = [0.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (WHOLE, 1.0),
        ([0.0, 0.0, 1.0, 2.0], 0.5),
        ([1.0, 1.0, 3.0, 3.0], 1 / 7),
        ([5.0, 5.0, 6.0, 6.0], 0.0),
        ([2.0, 0.0, 0.0, 2.0], 0.0),
    ],
)
def test_intersection_over_union(box: list[float], expected: float) -> None:
    assert float(ious(torch.tensor([box]), torch.tensor([WHOLE]))) == pytest.approx(expected)


def test_two_empty_boxes_have_nothing_in_common() -> None:
    assert float(ious(torch.zeros(1, 4), torch.zeros(1, 4))) == 0.0


def test_boxes_of_one_image_are_averaged_first() -> None:
    predicted = torch.tensor([[WHOLE, [5.0, 5.0, 6.0, 6.0]], [WHOLE, WHOLE]])
    score = box_iou.score(predicted, torch.tensor([[WHOLE, WHOLE]] * 2))
    assert score.value == 0.75
    assert score.error is not None


@pytest.mark.parametrize("shapes", [((3, 4), (3, 1, 4)), ((3, 5), (3, 5)), ((4,), (4,))])
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(TaskError, match=r"box_iou needs outputs and targets of one shape \(N, \.\.\., 4\)"):
        box_iou(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
