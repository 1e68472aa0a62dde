from __future__ import annotations

import pytest
import torch

from kneepoint.compression.distillation_defaults import DEFAULTS, Problem, problem_of, recommended
from kneepoint.compression.soft_targets import heads_of


@pytest.mark.parametrize(
    ("shape", "targets", "problem"),
    [
        ((4, 3), torch.zeros(4, dtype=torch.long), "classification"),
        ((4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.long), "dense"),
        ((4, 7, 3), torch.zeros(4, 7, dtype=torch.long), "tokens"),
        ((4, 3), torch.zeros(4, 3), "regression"),
    ],
)
def test_shapes_tell_the_problem(shape: tuple[int, ...], targets: torch.Tensor, problem: Problem) -> None:
    outputs = torch.randn(shape)
    heads = heads_of((torch.randn(4, 2), outputs), (torch.randn(4, 2), outputs), (torch.randn(4, 2), targets))
    assert problem_of(heads) == problem
    assert recommended(heads) == DEFAULTS[problem]


def test_the_table_stays_where_it_was_measured() -> None:
    assert all(1.5 <= entry.temperature <= 4 and 0.6 <= entry.alpha <= 0.9 for entry in DEFAULTS.values())
