from __future__ import annotations

import pytest
import torch
from sklearn.metrics import r2_score
from torch.nn import functional as F

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.regression_metrics import mean_absolute_error, mean_squared_error, r2
from kneepoint.tasks.standard_errors import bootstrap


def test_regression_metrics_agree_with_torch() -> None:
    outputs, targets = torch.randn(5, 3), torch.randn(5, 3)
    assert mean_squared_error(outputs, targets) == pytest.approx(F.mse_loss(outputs, targets).item())
    assert mean_absolute_error(outputs, targets) == pytest.approx(F.l1_loss(outputs, targets).item())


def test_regression_metrics_refuse_to_broadcast() -> None:
    with pytest.raises(TaskError, match=r"must have one shape, got \(5, 1\) and \(5,\)"):
        mean_squared_error(torch.zeros(5, 1), torch.zeros(5))


def test_the_only_output_of_a_structure_is_judged() -> None:
    outputs, targets = torch.randn(5, 1), torch.randn(5, 1)
    assert mean_squared_error({"price": outputs}, targets) == mean_squared_error(outputs, targets)


@pytest.mark.parametrize("shape", [(60,), (60, 1), (60, 3)])
def test_r2_agrees_with_scikit_learn_and_its_error_with_the_bootstrap(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = 50 + torch.randn(shape, generator=generator)
    outputs = targets + 0.5 * torch.randn(shape, generator=generator)
    score = r2.score(outputs, targets)
    assert score.value == pytest.approx(r2_score(targets.numpy(), outputs.numpy()), rel=1e-5)
    assert score.error == pytest.approx(bootstrap(r2, outputs, targets), rel=0.3)
