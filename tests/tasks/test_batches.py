from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

from kneepoint.tasks.batches import as_pair, concatenate, leaves, main_output, rebuild, transform
from kneepoint.tasks.errors import TaskError

ONE, TWO = torch.ones(2, 3), torch.zeros(4, 3)


def test_leaves_are_the_tensors_in_order() -> None:
    assert leaves(ONE)[0] is ONE
    assert [len(leaf) for leaf in leaves((ONE, TWO))] == [2, 4]
    assert [len(leaf) for leaf in leaves({"b": TWO, "a": ONE})] == [4, 2]


@pytest.mark.parametrize(("bad", "found"), [(3.0, "float"), (None, "NoneType"), ((ONE, [2]), "int"), ("text", "str")])
def test_anything_but_tensors_is_named(bad: Any, found: str) -> None:
    with pytest.raises(TaskError, match=f"expected a tensor, or a tuple or dict of tensors, found {found}"):
        leaves(bad)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Output(OrderedDict[str, Any]):
    """As the Transformers library returns them: a dataclass that is a mapping without what is None."""

    logits: Any = None
    states: Any = None

    def __post_init__(self) -> None:
        self.update({name: value for name, value in vars(self).items() if value is not None})


def test_structures_within_structures() -> None:
    nested = {"a": (ONE, [TWO, None]), "b": ONE}
    assert [len(leaf) for leaf in leaves(nested)] == [2, 4, 2]
    doubled = transform(lambda leaf: leaf + leaf, nested)
    assert doubled["a"][1][1] is None
    assert doubled["a"][0].sum() == 12
    assert concatenate([nested, nested])["a"][1][0].shape == (8, 3)


def test_named_tuples_and_outputs_stay_what_they_are() -> None:
    pair = transform(torch.neg, Pair(ONE, None))
    assert isinstance(pair, Pair)
    assert pair.second is None
    output = concatenate([Output(logits=ONE), Output(logits=ONE)])
    assert isinstance(output, Output)
    assert output.logits.shape == (4, 3)
    assert output.states is None


def test_a_structure_takes_as_many_tensors_as_it_has() -> None:
    with pytest.raises(ValueError, match="a structure of 2 tensors cannot be made of 1"):
        rebuild((ONE, TWO), [ONE])


def test_the_main_output_is_the_only_one_or_called_logits() -> None:
    assert main_output(ONE) is ONE
    assert main_output((ONE,)) is ONE
    assert main_output(Output(logits=ONE, states=(TWO, TWO))) is ONE
    with pytest.raises(TaskError, match="the outputs hold 2 tensors, none of them named logits: give Task a metric"):
        main_output({"a": ONE, "b": TWO})


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
