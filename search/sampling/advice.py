"""What a job knows of its objectives before anything is measured: for the sampler to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Settings = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Advice:
    """Facts about a search that its trials alone do not show, or not at once.

    Attributes:
        scales: For every objective, from its value to a loss: 0 the ideal, 1 the worst useful value.
        fronts: For every front of the job, the objectives it is about.
        saturating: For every objective, whether what is ruined once cannot be ruined again (accuracy), so that
            contributions add up only while they are small.
        contributions: For every objective what each choice (an index) of each parameter is believed to add to the
            loss, in any unit: it is scaled to the first measurements. May be empty, or lack parameters.
        limits: For every objective, the largest loss that the job's constraints admit; at most 1.
        hidden: Whether constraints are about more than these objectives, so that no limit states them.
        price: (settings) to (settings, objectives) values, NaN where only a measurement tells; None if it tells none.
    """

    scales: Sequence[Callable[[float], float]]
    fronts: Sequence[Sequence[int]]
    saturating: Sequence[bool]
    contributions: Sequence[Mapping[str, Sequence[float]]]
    limits: Sequence[float]
    hidden: bool = False
    price: Callable[[Settings], Floats] | None = None
