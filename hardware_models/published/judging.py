"""How good predictions of published latencies are: shares within a tenth, mean errors, ranks, and stated errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

_TENTH, _BAND = 0.1, 1.5
_ONE_SIGMA, _TWO_SIGMA = 0.6827, 0.9545


@dataclass(frozen=True)
class Pair:
    """A published latency, and what is predicted for it.

    Attributes:
        published: Milliseconds, or millijoules.
        predicted: The same unit.
        stated: One standard error of the prediction, relative; 0 where none is stated.
    """

    published: float
    predicted: float
    stated: float = 0.0

    @property
    def error(self) -> float:
        """Relative: predicted over published, less one."""
        return self.predicted / self.published - 1

    @property
    def log_error(self) -> float:
        """The logarithm of predicted over published."""
        return float(np.log(self.predicted / self.published))


@dataclass(frozen=True)
class Judgement:
    """What many pairs say.

    Attributes:
        rows: How many there are.
        within_10: The share with an error of at most 10 %.
        mape: Mean absolute relative error.
        median: Of the relative errors: what is too much or too little on the whole.
        worst: The relative error that is farthest from none.
        kendall: Kendall's tau-a among pairs of networks whose published latencies differ by a factor of 1.5 at most;
            None where there are fewer than three such pairs.
        inside_one: The share of errors inside one stated standard error, of the logarithm; None where none is stated.
        inside_two: Inside two.
    """

    rows: int
    within_10: float
    mape: float
    median: float
    worst: float
    kendall: float | None
    inside_one: float | None
    inside_two: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def judge(pairs: Sequence[Pair]) -> Judgement:
    """What ``pairs`` say.

    Raises:
        ValueError: If there are none.
    """
    if not pairs:
        raise ValueError("nothing to judge: there are no predictions")
    errors = np.array([pair.error for pair in pairs])
    inside = [_inside(pairs, count) for count in (1, 2)]
    return Judgement(
        rows=len(pairs),
        within_10=float((np.abs(errors) <= _TENTH).mean()),
        mape=float(np.abs(errors).mean()),
        median=float(np.median(errors)),
        worst=float(errors[np.abs(errors).argmax()]),
        kendall=kendall_in_band(pairs),
        inside_one=inside[0],
        inside_two=inside[1],
    )


def kendall_in_band(pairs: Iterable[Pair], band: float = _BAND) -> float | None:
    """Kendall's tau-a among networks that take about as long: rank correlation over decades hides a bad model.

    Published ties say nothing and are left out; None where fewer than three pairs are left.
    """
    agree, total = 0.0, 0
    for one, other in combinations(pairs, 2):
        ratio = one.published / other.published
        if ratio == 1 or max(ratio, 1 / ratio) > band:
            continue
        total += 1
        agree += np.sign(one.predicted - other.predicted) * np.sign(one.published - other.published)
    return agree / total if total >= 3 else None


def standard_error(log_errors: Sequence[float]) -> float:
    """One standard error of the next prediction, from the errors of ``n`` others.

    What holds 68 % of them, or half of what holds 95 %, whichever is larger: errors have tails. Both are raised by
    (n + 1) / n, as what is predicted was not among them (split conformal prediction; Lei et al., JASA 2018).
    """
    sizes = np.abs(np.asarray(log_errors))
    raised = (len(sizes) + 1) / len(sizes)
    one, two = (np.quantile(sizes, min(1.0, share * raised)) for share in (_ONE_SIGMA, _TWO_SIGMA))
    return float(max(one, two / 2))


def _inside(pairs: Sequence[Pair], count: int) -> float | None:
    stated = np.array([pair.stated for pair in pairs])
    if not (stated > 0).any():
        return None
    return float((np.abs([pair.log_error for pair in pairs]) <= count * stated).mean())
