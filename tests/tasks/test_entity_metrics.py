from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from kneepoint.tasks.entity_metrics import entity_f1
from kneepoint.tasks.errors import TaskError

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
F1 = entity_f1(LABELS)
Span = tuple[int, str, int, int]


def logits(classes: Tensor) -> Tensor:
    return F.one_hot(classes, len(LABELS)).float()


def spans(row: int, classes: list[int]) -> set[Span]:
    """Read token by token, as the rules say."""
    found: set[Span] = set()
    start, kind = 0, ""
    for position, number in enumerate([*classes, 0]):
        label = LABELS[number]
        goes_on = kind and label == f"I-{kind}"
        if not goes_on:
            if kind:
                found.add((row, kind, start, position))
            start, kind = position, label[2:]
    return found


def expected(predicted: list[list[int]], true: list[list[int]]) -> float:
    """The F1 of spans, where positions of -100 are taken out first."""
    ours, theirs = set(), set()
    for row, (first, second) in enumerate(zip(predicted, true, strict=True)):
        counted = [index for index, target in enumerate(second) if target != -100]
        ours |= spans(row, [first[index] for index in counted])
        theirs |= spans(row, [second[index] for index in counted])
    return 2 * len(ours & theirs) / max(1, len(ours) + len(theirs))


def rows(values: st.SearchStrategy[int]) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(values, min_size=7, max_size=7), min_size=3, max_size=3)


@given(rows(st.integers(0, 4)), rows(st.sampled_from([-100, 0, 1, 2, 2, 3, 4, 4])))
def test_entities_are_those_that_are_read_token_by_token(predicted: list[list[int]], true: list[list[int]]) -> None:
    assert F1(logits(torch.tensor(predicted)), torch.tensor(true)) == pytest.approx(expected(predicted, true))


def test_half_an_entity_is_wrong() -> None:
    true = torch.tensor([[1, 2, 2, 0, 3, 0]])
    predicted = torch.tensor([[1, 2, 0, 0, 3, 0]])
    assert F1(logits(predicted), true) == 0.5
    assert F1(logits(true), true) == 1.0


def test_it_has_a_standard_error_over_sequences() -> None:
    true = torch.randint(5, (30, 9), generator=torch.Generator().manual_seed(0))
    wrong = torch.rand(30, 9, generator=torch.Generator().manual_seed(1)) < 0.2
    error = F1.score(logits(true.masked_fill(wrong, 0)), true).error
    assert error is not None
    assert 0.01 < error < 0.1


def test_it_pickles() -> None:
    assert pickle.loads(pickle.dumps(F1)) == F1  # noqa: S301


def test_labels_of_another_kind_are_refused() -> None:
    with pytest.raises(TaskError, match=r"labels of entities are 'O', 'B-TYPE' and 'I-TYPE', got \['PER'\]"):
        entity_f1(["O", "PER"])
    with pytest.raises(TaskError, match=r"got \[\]"):
        entity_f1([])
    with pytest.raises(TaskError, match="entity_f1 got 5 labels, and outputs with 3 classes"):
        F1(torch.zeros(2, 6, 3), torch.zeros(2, 6, dtype=torch.int64))
