from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.segmentation_metrics import mean_iou
from kneepoint.tasks.standard_errors import bootstrap


def test_mean_iou_agrees_with_torchmetrics_and_its_error_with_the_bootstrap() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (30, 6, 6), generator=generator)
    logits = torch.randn(30, 4, 6, 6, generator=generator)
    logits.scatter_add_(1, targets.unsqueeze(1), torch.full((30, 1, 6, 6), 2.0))
    logits[:, 3] -= 20  # a class that never occurs
    targets[:, 0] = -100
    score = mean_iou.score(logits, targets)
    oracle = MulticlassJaccardIndex(num_classes=4, ignore_index=-100)
    assert score.value == pytest.approx(float(oracle(logits, targets)), abs=1e-6)
    assert score.error == pytest.approx(bootstrap(mean_iou, logits, targets), rel=0.3)


def test_images_and_targets_must_fit() -> None:
    with pytest.raises(TaskError, match=r"mean_iou needs outputs of shape \(N, C, \.\.\.\)"):
        mean_iou(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5, dtype=torch.int64))
