"""Student architectures: smaller networks that take the teacher's place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import AxisValue, Policy
from kneepoint.spaces.ranking import best_channels, rank_channels
from kneepoint.spaces.surgery import cut, trainable
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.seeding import seeded

AUTO_WIDTHS = (0.75, 0.5, 0.375, 0.25)


@dataclass(frozen=True)
class StudentFamily:
    """Architectures spanned by axes.

    Attributes:
        build: Called with one value an axis, by name; returns a new module with the teacher's inputs and outputs.
        axes: The values of every axis, by name; the family is their product.
        name: How a job file refers to ``build``; ``auto`` for a family derived from the teacher.

    Raises:
        SpaceError: If there is no axis, or an axis without values.
    """

    build: Callable[..., nn.Module]
    axes: Mapping[str, Sequence[AxisValue]]
    name: str = field(default="")

    def __post_init__(self) -> None:
        empty = [axis for axis, values in self.axes.items() if not values]
        if not self.axes or empty:
            raise SpaceError(f"a student family needs axes with at least one value each; got {dict(self.axes)!r}")

    def members(self) -> list[dict[str, AxisValue]]:
        """Every combination of the axes' values."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def make(self, member: Mapping[str, AxisValue], seed: int) -> nn.Module:
        """A new, untrained module of ``member``, initialized from ``seed``.

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


def describe(member: Mapping[str, AxisValue]) -> str:
    """``depth=1,width=0.5``; ``teacher`` for no axes."""
    return ",".join(f"{axis}={value}" for axis, value in sorted(member.items())) or "teacher"


def auto_family(teacher: Network, widths: Sequence[float] = AUTO_WIDTHS) -> StudentFamily:
    """Narrower versions of the teacher: every prunable group keeps the same share of its channels.

    A student starts from the teacher's own weights, those of the channels with the largest norms.

    Raises:
        SpaceError: If the teacher has no prunable channel group.
    """
    if not teacher.groups:
        raise SpaceError(
            "students='auto' narrows the teacher's channel groups, and it has none that may vary; "
            "give a kneepoint.StudentFamily, or students=None"
        )

    def build(width: float) -> nn.Module:
        counts = teacher.channels(Policy.build(keep=dict.fromkeys(teacher.groups, width)))
        return trainable(cut(teacher, best_channels(rank_channels(teacher, teacher.tensors()), counts)))

    return StudentFamily(build, {"width": tuple(widths)}, name="auto")
