"""Student architectures: smaller networks that take the teacher's place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from kneepoint.spaces.policy import AxisValue
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.seeding import seeded

Member = Mapping[str, AxisValue]
"""One architecture of a family: a value for every axis."""
AUTO = "auto"


@dataclass(frozen=True)
class StudentFamily:
    """Architectures spanned by axes.

    Attributes:
        build: Called with one value an axis, by name; returns a new module with the teacher's inputs and outputs. Its
            weights may be random, or start from the teacher's.
        axes: The values of every axis, by name; the family is their product.
        name: How a job file refers to ``build``; ``auto`` for a family derived from the teacher.
        chosen: The members, where the family is not the whole product.

    Raises:
        SpaceError: If there is no axis, or an axis without values.
    """

    build: Callable[..., nn.Module]
    axes: Mapping[str, Sequence[AxisValue]]
    name: str = field(default="")
    chosen: Sequence[Member] | None = None

    def __post_init__(self) -> None:
        empty = [axis for axis, values in self.axes.items() if not values]
        if not self.axes or empty:
            raise SpaceError(f"a student family needs axes with at least one value each; got {dict(self.axes)!r}")

    def members(self) -> list[dict[str, AxisValue]]:
        """Every combination of the axes' values; or those that were chosen."""
        if self.chosen is not None:
            return [dict(member) for member in self.chosen]
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def make(self, member: Member, seed: int) -> nn.Module:
        """A new module of ``member``, not trained yet; what is random of it is drawn from ``seed``.

        Raises:
            SpaceError: If ``build`` raises or returns no module.
        """
        with seeded(seed):
            try:
                module = self.build(**member)
            except Exception as error:  # the user's own code
                raise SpaceError(f"building the student {describe(member)} failed: {error!r}") from error
        if not isinstance(module, nn.Module):
            raise SpaceError(f"a student family's build returns a torch.nn.Module; got {type(module).__name__}")
        return module


def describe(member: Member) -> str:
    """``depth=1,width=0.5``; ``teacher`` for no axes."""
    return ",".join(f"{axis}={value}" for axis, value in sorted(member.items())) or "teacher"
