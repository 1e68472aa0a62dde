"""Whether the order of samples says something about them."""

from __future__ import annotations

import pytest
import torch

from kneepoint.tasks.mixing import is_mixed

GENERATOR = torch.Generator().manual_seed(0)
CLASSES = torch.arange(10).repeat_interleave(60)
ORDER = torch.randperm(600, generator=GENERATOR)
SCORES = (torch.rand(600, generator=GENERATOR) < 0.9).double()


def test_shuffled_samples_are_mixed() -> None:
    assert is_mixed(SCORES, CLASSES[ORDER])


def test_samples_read_class_by_class_are_not() -> None:
    assert not is_mixed(SCORES, CLASSES)


def test_scores_that_drift_are_not() -> None:
    assert not is_mixed(torch.linspace(0, 1, 600), torch.zeros(600))


@pytest.mark.parametrize("targets", [torch.zeros(600), {"boxes": torch.zeros(600, 4)}], ids=["numbers", "a structure"])
def test_targets_that_are_no_classes_do_not_matter(targets: object) -> None:
    assert is_mixed(SCORES, targets)


def test_equal_scores_are_mixed() -> None:
    assert is_mixed(torch.ones(600), CLASSES[ORDER])


def test_many_rare_classes_are_compared_by_their_order() -> None:
    rare = torch.arange(600) // 6
    assert not is_mixed(SCORES, rare)
    assert is_mixed(SCORES, rare[ORDER])


def test_a_handful_of_samples_is_never_known_to_be_mixed() -> None:
    assert not is_mixed(torch.ones(49), torch.zeros(49))
