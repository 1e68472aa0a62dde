from __future__ import annotations

import pickle

import pytest
import torch

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.vocabulary import PADDING, UNKNOWN, Vocabulary, split_words


def test_words_are_lower_case_and_signs_stand_alone() -> None:
    assert split_words("The LU-factors of x_1, 42!") == ["the", "lu", "-", "factors", "of", "x", "1", ",", "42", "!"]


def test_the_commonest_tokens_come_first() -> None:
    vocabulary = Vocabulary.of(["b a b", "c b a"], size=4)
    assert (vocabulary.tokens, len(vocabulary)) == (("b", "a"), 4)


def test_texts_are_cut_and_padded() -> None:
    vocabulary = Vocabulary.of(["a b"], size=10)
    numbers, mask = vocabulary.encode(["b x a b", "a", ""], length=3)
    assert numbers.tolist() == [[3, UNKNOWN, 2], [2, PADDING, PADDING], [PADDING] * 3]
    assert torch.equal(mask, (numbers != PADDING).long())


def test_characters_are_tokens_too() -> None:
    vocabulary = Vocabulary.of(["abab c"], size=6, split=list)
    assert vocabulary.tokens == ("a", "b", " ", "c")
    assert vocabulary.encode(["cab"], 3)[0].tolist() == [[5, 2, 3]]


def test_it_pickles() -> None:
    vocabulary = Vocabulary.of(["a b"], size=10)
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary  # noqa: S301


@pytest.mark.parametrize(("texts", "size"), [([], 10), (["a"], 2)])
def test_nothing_to_number_is_refused(texts: list[str], size: int) -> None:
    with pytest.raises(TaskError, match=f"a vocabulary needs texts and a size above 2, got .* and size {size}"):
        Vocabulary.of(texts, size)
