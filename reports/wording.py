"""Numbers, scores and names of a run in words, shared by the terminal and the HTML views."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kneepoint.reports.run_view import CandidateEntry, ObjectiveEntry, PolicyEntry, RunView, ScoreEntry

ID_LENGTH = 8
_MOST_DECIMALS = 6
# What a lower and a higher cost is called, by how the objective's name begins.
_COMPARATIVES = {
    "latency": ("faster", "slower"),
    "measured_latency": ("faster", "slower"),
    "size": ("smaller", "larger"),
    "storage": ("smaller", "larger"),
}


def printable(text: str) -> str:
    """The text with every character that a terminal could obey (escapes, line ends, direction marks) spelled out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def short_id(name: str) -> str:
    """The first characters of an id: enough to pick it."""
    return printable(name[:ID_LENGTH])


def trouble_text(candidate: CandidateEntry) -> str:
    """Why a candidate is not feasible; names stand in it as they are."""
    return f"does not fit {joined(candidate.misfits)}" if candidate.misfits else "breaks a constraint"


def number(value: float) -> str:
    """A number with four significant digits."""
    return f"{value:.4g}"


def decimals(values: Iterable[float]) -> int:
    """Decimals that show four digits of the largest value and at least two of the smallest.

    One number for a column keeps its decimal points below each other.
    """
    sizes = [math.floor(math.log10(abs(value))) for value in values if value]
    return min(_MOST_DECIMALS, max(0, 3 - max(sizes), 1 - min(sizes))) if sizes else 0


def column_decimals(scores: Sequence[ScoreEntry]) -> int:
    """:func:`decimals` of a column of scores, less those that lie two digits below its smallest standard error."""
    places = decimals(score.value for score in scores)
    errors = [score.error for score in scores if score.error]
    return min(places, max(0, 1 - math.floor(math.log10(min(errors))))) if errors else places


def score_text(score: ScoreEntry, places: int | None = None) -> str:
    """A score as ``value ±standard error``, or as its value alone where the error is unknown.

    The one space is where a narrow column may break it.
    """
    places = column_decimals([score]) if places is None else places
    error = "" if score.error is None else f" ±{score.error:.{places}f}"
    return f"{score.value:.{places}f}{error}"


def objective_label(objective: ObjectiveEntry) -> str:
    """The objective with its unit where the name does not carry it, and which way is better."""
    unit = f" ({objective.unit})" if objective.unit and f"_{objective.unit}" not in objective.name else ""
    better = "higher is better" if objective.direction == "maximize" else "lower is better"
    return f"{objective.name}{unit}, {better}"


def mean_bits(view: RunView, policy: PolicyEntry) -> str:
    """The mean weight bits over the layers that the run varied, each layer counted once."""
    bits = view.bits(policy)
    return f"{sum(bits.values()) / len(bits):.1f}" if bits else "32.0"


def mean_kept(view: RunView, policy: PolicyEntry) -> str:
    """The mean kept fraction over the channel groups that the run varied, in percent."""
    kept = view.kept(policy)
    return f"{100 * sum(kept.values()) / len(kept):.0f}%" if kept else "100%"


def policy_text(view: RunView, policy: PolicyEntry) -> str:
    """The policy in a few words."""
    return f"{policy.architecture}, {mean_bits(view, policy)} bits, keeps {mean_kept(view, policy)}"


def gain_text(front: float, other: float) -> str:
    """How much larger one hypervolume is than another, in percent; empty where the other one is zero."""
    return f"{100 * (front / other - 1):+.1f}%" if other > 0 else ""


def ratio_text(objective: ObjectiveEntry, teacher: float, value: float) -> str:
    """A cost against the teacher's, as ``4.2x faster on DEVICE``; empty where there is no ratio to speak of."""
    if objective.direction != "minimize" or teacher <= 0 or value <= 0:
        return ""
    ratio = max(teacher / value, value / teacher)
    words = next((words for start, words in _COMPARATIVES.items() if objective.name.startswith(start)), None)
    if words is None:
        return f"{ratio:.1f}x {'lower' if value <= teacher else 'higher'} in {objective.name}"
    where = f" on {objective.device}" if objective.device else ""
    return f"{ratio:.1f}x {words[0 if value <= teacher else 1]}{where}"


def difference_text(objective: ObjectiveEntry, teacher: float, value: float) -> str:
    """A quality against the teacher's, as ``0.017 lower than the teacher's 0.978``."""
    difference = value - teacher
    if number(value) == number(teacher):
        return f"the teacher's own {number(teacher)}"
    return f"{abs(difference):.2g} {'higher' if difference > 0 else 'lower'} than the teacher's {number(teacher)}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count and its noun: ``1 trial``, ``2 trials``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def joined(parts: Sequence[str]) -> str:
    """An enumeration in words: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]])) if parts else ""
