"""Words or characters as numbers: the simplest tokenizer that does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kneepoint.tasks.errors import TaskError

PADDING = 0
UNKNOWN = 1


def split_words(text: str) -> list[str]:
    """Lower-case words and numbers, and every other sign by itself."""
    return re.findall(r"[a-z]+|\d+|[^\w\s]", text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number; 0 is padding and 1 any token that it does not have.

    Attributes:
        tokens: Those from number 2 on.
        split: What makes tokens of a text: :func:`split_words`, or ``list`` for characters.
    """

    tokens: tuple[str, ...]
    split: Callable[[str], list[str]] = split_words
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {token: number for number, token in enumerate(self.tokens, UNKNOWN + 1)})

    @classmethod
    def of(cls, texts: Iterable[str], size: int, split: Callable[[str], list[str]] = split_words) -> Vocabulary:
        """The most frequent tokens of some texts, the commonest first.

        Args:
            texts: Those to train on.
            size: How many numbers there are at most, padding and unknown included.
            split: See above.

        Raises:
            TaskError: There is no room for a token, or no token.
        """
        counts = Counter(token for text in texts for token in split(text))
        common = sorted(counts, key=lambda token: (-counts[token], token))[: max(0, size - UNKNOWN - 1)]
        if not common:
            raise TaskError(f"a vocabulary needs texts and a size above 2, got {len(counts)} tokens and size {size}")
        return cls(tuple(common), split)

    def __len__(self) -> int:
        return len(self.tokens) + UNKNOWN + 1

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Texts cut or padded to one length.

        Returns:
            Numbers and masks (1 for a token, 0 for padding), both of shape (texts, length), int64.
        """
        numbers = torch.full((len(texts), length), PADDING)
        for row, text in enumerate(texts):
            found = [self._numbers.get(token, UNKNOWN) for token in self.split(text)[:length]]
            numbers[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
        return numbers, (numbers != PADDING).long()
