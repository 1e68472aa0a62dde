"""Products written as ``torch.einsum``: which letter is which axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from kneepoint.spaces.tracing import is_tensor, shape_of


@dataclass(frozen=True)
class Einsum:
    """An equation such as ``bhtd,bhsd->bhts``.

    Attributes:
        operands: What is multiplied.
        letters: Of each operand, a letter an axis.
        result: Of the product.
    """

    operands: tuple[fx.Node, ...]
    letters: tuple[str, ...]
    result: str

    @classmethod
    def of(cls, node: fx.Node) -> Einsum | None:
        """The equation of a call; None where it has an ellipsis, or an operand is no tensor."""
        equation, listed = node.args[0], node.args[1]
        if not isinstance(equation, str) or not isinstance(listed, list | tuple) or "." in equation:
            return None
        operands = tuple(part for part in listed if isinstance(part, fx.Node) and is_tensor(part))
        given, arrow, result = equation.replace(" ", "").partition("->")
        letters = tuple(given.split(","))
        ranks = [len(shape_of(operand)) for operand in operands]
        if len(operands) != len(listed) or ranks != [len(part) for part in letters]:
            return None
        if not arrow:  # the letters that stand there once, in order
            result = "".join(sorted(letter for letter in set(given) - {","} if given.count(letter) == 1))
        return cls(operands, letters, result)

    def axis_of(self, operand: int, letter: str) -> int | None:
        """Where a letter stands in an operand."""
        place = self.letters[operand].find(letter)
        return None if place < 0 else place

    def shared_axes(self) -> Iterator[tuple[fx.Node, int]]:
        """Axes that all operands and the result have, the batch apart: what is computed for each alone."""
        common = set(self.result).intersection(*self.letters)
        for operand, letters in zip(self.operands, self.letters, strict=True):
            yield from ((operand, place) for place, letter in enumerate(letters) if letter in common and place > 0)
