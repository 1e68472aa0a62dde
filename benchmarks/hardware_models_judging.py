"""How far predictions are from measurements: the facts of hardware_models.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.hardware_models_files import Case
from benchmarks.hardware_models_measuring import Measured
from benchmarks.hardware_models_prices import Price

MODELS: Mapping[str, str] = {
    "calibrated": "predicted_us",
    "roofline, not calibrated": "roofline_us",
    "MACs alone": "macs_us",
}
"""What predicts, and the column it is in."""
SETTING = ["network", "threads", "batch"]
_FEWEST_VARIANTS = 3


@dataclass(frozen=True)
class Facts:
    """How one model does on some cases.

    Attributes:
        cases: How many.
        within_5: The share that is at most 5 % off.
        within_10: The share that is at most 10 % off.
        mape: Mean absolute percentage error, as a fraction.
        bias: Median signed relative error.
        worst: The largest signed relative error by size.
        tau: Kendall's, among the variants of one network at one setting, the mean over networks and settings.
        decided_tau: The same over all pairs of variants whose measured intervals do not overlap.
        order: The share of pairs of fp32 and int8 whose order is predicted right; NaN where there is none.
        pairs: Of fp32 and int8, those that the measurement tells apart.
        ties: Those that it does not.
    """

    cases: int
    within_5: float
    within_10: float
    mape: float
    bias: float
    worst: float
    tau: float
    decided_tau: float
    order: float
    pairs: int
    ties: int


def frame_of(measured: Mapping[Case, Measured], prices: Mapping[Case, Price]) -> pd.DataFrame:
    """A row a case: what it is, what was measured, and what every model predicts, in microseconds."""
    rows = [
        {
            "case": case.name,
            "family": case.family,
            **vars(case),
            "measured_us": found.latency_us.value,
            "low_us": found.latency_us.low,
            "high_us": found.latency_us.high,
            "visits": found.visits,
            **vars(prices[case]),
        }
        for case, found in measured.items()
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(macs_us=_by_macs(frame))


def _by_macs(frame: pd.DataFrame) -> pd.Series[float]:
    """MACs times one constant a thread count, the median of all other families: none is fitted on its own family."""
    ratios = frame.measured_us / frame.macs
    constants = [
        ratios[(frame.family != family) & (frame.threads == threads)].median()
        for family, threads in zip(frame.family, frame.threads, strict=True)
    ]
    return pd.Series(frame.macs.to_numpy() * np.array(constants), frame.index)


def errors(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """Signed and relative to what was measured."""
    predicted: pd.Series[float] = frame[column]
    return predicted / frame.measured_us - 1


def facts(frame: pd.DataFrame, column: str) -> Facts:
    """How the model in ``column`` does on the cases of ``frame``."""
    error = errors(frame, column)
    groups = [group for _, group in frame.groupby(SETTING)]
    every = [pair for group in groups for pair in itertools.combinations(group.to_dict("records"), 2)]
    right, wrong = _order(every, column)
    int8 = [pair for pair in every if _is_int8_against_fp32(pair)]
    int8_right, int8_wrong = _order(int8, column)
    return Facts(
        cases=len(frame),
        within_5=float((error.abs() <= 0.05).mean()),
        within_10=float((error.abs() <= 0.10).mean()),
        mape=float(error.abs().mean()),
        bias=float(error.median()),
        worst=float(error.iloc[error.abs().argmax()]),
        tau=_mean_tau(groups, column),
        decided_tau=(right - wrong) / (right + wrong) if right + wrong else float("nan"),
        order=int8_right / (int8_right + int8_wrong) if int8_right + int8_wrong else float("nan"),
        pairs=int8_right + int8_wrong,
        ties=len(int8) - int8_right - int8_wrong,
    )


def _mean_tau(groups: Iterable[pd.DataFrame], column: str) -> float:
    taus = [
        group[column].corr(group.measured_us, method="kendall") for group in groups if len(group) >= _FEWEST_VARIANTS
    ]
    return float(np.mean(taus)) if taus else float("nan")


Pair = tuple[Mapping[Any, Any], Mapping[Any, Any]]


def _order(pairs: Iterable[Pair], column: str) -> tuple[int, int]:
    """Of the pairs that the measured intervals tell apart, how many are predicted in the right and the wrong order."""
    apart = [
        (one, other) for one, other in pairs if one["high_us"] < other["low_us"] or other["high_us"] < one["low_us"]
    ]
    right = sum((one[column] - other[column]) * (one["measured_us"] - other["measured_us"]) > 0 for one, other in apart)
    return right, len(apart) - right


def _is_int8_against_fp32(pair: Pair) -> bool:
    """Whether both keep the same channels, one in floats and one on integer kernels."""
    (one, kept), (other, also_kept) = (str(row["variant"]).partition("@")[::2] for row in pair)
    return kept == also_kept and {one.removesuffix("-dynamic"), other.removesuffix("-dynamic")} == {"w32", "w8a8"}


def by_group(frame: pd.DataFrame, column: str, key: Callable[[pd.DataFrame], pd.Series[str]]) -> dict[str, Facts]:
    """The facts of every group of cases, and of all together."""
    found = {str(name): facts(group, column) for name, group in frame.groupby(key(frame), sort=False)}
    return {**found, "all": facts(frame, column)}


def worst(frame: pd.DataFrame, column: str, count: int) -> Sequence[Mapping[Any, Any]]:
    """The cases that are predicted worst, the worst first."""
    error = errors(frame, column)
    chosen = error.abs().sort_values(ascending=False).index[:count]
    return frame.assign(error=error).loc[chosen].to_dict("records")
