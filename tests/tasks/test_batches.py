from __future__ import annotations

from typing import Any

import pytest
import torch

from kneepoint.tasks.batches import as_pair, concatenate, leaves, transform
from kneepoint.tasks.errors import TaskError

ONE, TWO = torch.ones(2, 3), torch.zeros(4, 3)


def test_leaves_are_the_tensors_in_order() -> None:
    assert leaves(ONE)[0] is ONE
    assert [len(leaf) for leaf in leaves((ONE, TWO))] == [2, 4]
    assert [len(leaf) for leaf in leaves({"b": TWO, "a": ONE})] == [4, 2]


@pytest.mark.parametrize(("bad", "found"), [(3.0, "float"), ((ONE, None), "NoneType"), ("text", "str")])
def test_anything_but_tensors_is_named(bad: Any, found: str) -> None:
    with pytest.raises(TaskError, match=f"expected a tensor, or a tuple or dict of tensors, found {found}"):
        leaves(bad)


def test_transform_keeps_the_structure() -> None:
    assert torch.equal(transform(torch.neg, ONE), -ONE)
    assert [leaf.sum().item() for leaf in transform(torch.neg, [ONE, TWO])] == [-6, 0]
    assert list(transform(torch.neg, {"x": ONE})) == ["x"]


def test_concatenate_joins_along_the_samples() -> None:
    assert concatenate([ONE, TWO]).shape == (6, 3)
    assert [leaf.shape[0] for leaf in concatenate([(ONE, ONE), (TWO, TWO)])] == [6, 6]
    assert concatenate([{"x": ONE}, {"x": TWO}])["x"].shape == (6, 3)


def test_samples_of_different_shapes_cannot_be_joined() -> None:
    with pytest.raises(TaskError, match=r"samples have shapes \[\(3,\), \(5,\)\]: pad them to one shape"):
        concatenate([ONE, torch.ones(2, 5)])


def test_batches_of_different_structure_cannot_be_joined() -> None:
    with pytest.raises(TaskError, match="every batch must have one structure"):
        concatenate([(ONE, ONE), (ONE,)])


def test_a_pair_may_be_a_list() -> None:
    assert as_pair([1, 2], "train") == (1, 2)


@pytest.mark.parametrize(("batch", "received"), [(ONE, "got Tensor"), ((ONE, ONE, ONE), "got 3 elements")])
def test_what_is_no_pair_is_refused_with_its_split(batch: Any, received: str) -> None:
    with pytest.raises(TaskError, match=rf"train: every batch must be an \(inputs, targets\) pair, {received}"):
        as_pair(batch, "train")
