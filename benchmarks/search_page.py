"""The page of search_efficiency.py: bars, tables, a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_methods import ABLATIONS, OURS, RIVALS
from benchmarks.search_picture import draw
from benchmarks.search_problems import REAL, TABULAR

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURE = ROOT / "docs" / "search_efficiency.md", ROOT / "docs" / "search_efficiency.png"
EQUIVALENTS, EQUIVALENTS_ON_HALF = 100.0, 50.0
CLOCK_SHARE = 0.1
MARGIN, OF_TRUE = 1.05, 0.99
LONG, SHORT = 1000, 200
_ABLATION_POINTS = (50, 100)


@dataclass(frozen=True, eq=False)
class Curve:
    """One method on one problem, over its seeds.

    Attributes:
        evaluations: (points,)
        volumes: (seeds, points)
        equivalents: (seeds, points) evaluations, with all other seconds converted.
        evaluation_seconds: Of one evaluation.
    """

    evaluations: Sequence[int]
    volumes: np.ndarray[Any, np.dtype[np.float64]]
    equivalents: np.ndarray[Any, np.dtype[np.float64]]
    evaluation_seconds: float

    @classmethod
    def of(cls, results: Sequence[Mapping[str, Any]]) -> Curve:
        """Of the seeds' raw results, where all of them were looked at."""
        evaluations = sorted(set.intersection(*(set(entry["evaluations"]) for entry in results)))
        each = statistics.median(entry["evaluation_seconds"] for entry in results)
        seconds, volumes = (
            np.array(
                [
                    [dict(zip(entry["evaluations"], entry[key], strict=True))[at] for at in evaluations]
                    for entry in results
                ]
            )
            for key in ("seconds", "hypervolume")
        )
        return cls(evaluations, volumes, np.array(evaluations) + seconds / each, each)

    def volume_at(self, evaluations: int, seeds: int | None = None) -> float | None:
        """The median over seeds, or over the first so many; None where it was not followed so far."""
        if evaluations not in self.evaluations:
            return None
        return float(np.median(self.volumes[:seeds, list(self.evaluations).index(evaluations)]))

    def reaching(self, volume: float) -> float:
        """The median over seeds of the evaluation-equivalents it takes; infinite where most seeds do not get there."""
        found = []
        for volumes, equivalents in zip(self.volumes, self.equivalents, strict=True):
            there = np.flatnonzero(volumes >= volume)
            found.append(float(equivalents[there[0]]) if len(there) else float("inf"))
        return float(np.median(found))


@dataclass(frozen=True, eq=False)
class Verdict:
    """One problem.

    Attributes:
        name: Of the problem.
        curves: By method.
        true: Hypervolume of the true front, where that is known.
    """

    name: str
    curves: Mapping[str, Curve]
    true: float | None

    @property
    def rivals(self) -> dict[str, Curve]:
        """All but ours."""
        return {name: curve for name, curve in self.curves.items() if name in RIVALS}

    @cached_property
    def best(self) -> tuple[str, float, int]:
        """The rival with the largest hypervolume in the end, that, and after how many evaluations."""
        ends = [(float(np.median(c.volumes[:, -1])), name, c.evaluations[-1]) for name, c in self.rivals.items()]
        volume, name, evaluations = max(ends)
        return name, volume, evaluations

    @property
    def equivalents(self) -> float:
        """That ours takes to what the best rival has in the end."""
        return self.curves[OURS].reaching(self.best[1])

    @property
    def clock_share(self) -> float:
        """Ours over the best rival's wall-clock, to the same hypervolume."""
        return self.equivalents / float(np.median(self.curves[self.best[0]].equivalents[:, -1]))

    @property
    def at_short(self) -> tuple[float | None, float]:
        """Ours and the best rival's hypervolume after :data:`SHORT` evaluations."""
        theirs = [curve.volume_at(SHORT) for curve in self.rivals.values()]
        return self.curves[OURS].volume_at(SHORT), max((one for one in theirs if one is not None), default=float("nan"))

    @property
    def short_holds(self) -> bool:
        """Whether ours is far enough above, or as good as there."""
        found, theirs = self.at_short
        near = self.true is not None and found is not None and found >= OF_TRUE * self.true
        return found is not None and (near or found >= MARGIN * theirs)


def verdicts(results: Mapping[str, Any]) -> list[Verdict]:
    """Of the problems that ours and a rival were measured on."""
    found = []
    for name in (*REAL, *TABULAR):
        curves = {}
        for method in dict.fromkeys((OURS, *RIVALS, *ABLATIONS)):
            own = [entry for key, entry in results.items() if key.rpartition("/")[0] == f"{name}/{method}"]
            if own:
                curves[method] = Curve.of(own)
        if OURS in curves and len(curves) > 1:
            true = next(entry["true"] for key, entry in results.items() if key.startswith(f"{name}/"))
            found.append(Verdict(name, curves, true))
    return found


def write_page(results: Mapping[str, Any]) -> int:
    """Write page and picture; returns 0 where all bars are reached, else 1."""
    found = verdicts(results)
    bars = _bars(found)
    draw({one.name: {name: one.curves[name] for name in (OURS, *one.rivals)} for one in found}, PICTURE)
    lines = ["# Search efficiency", "", "*This page is generated by `python -m benchmarks.search_efficiency`.*", ""]
    lines += [_INTRODUCTION, "", f"![Hypervolume against evaluation-equivalents]({PICTURE.name})", "", "## Bars", ""]
    lines += ["| bar | reached | found |", "| --- | --: | --: |"]
    lines += [f"| {bar} | {'yes' if held else '**no**'} | {shown} |" for bar, held, shown in bars]
    lines += ["", "## By problem", "", *_problems(found), "", "## All methods", "", *_methods(found)]
    lines += ["", "## With one stage switched off", "", *_ablations(found), ""]
    PAGE.write_text("\n".join(lines))
    for bar, held, shown in bars:
        print(f"{'reached' if held else 'MISSED '} {bar}: {shown}")
    return 0 if all(held for _, held, _ in bars) else 1


_INTRODUCTION = """\
Hypervolumes are those of the job: objectives scaled between the ideal and the worst useful value. They are accuracy,
latency on a Raspberry Pi 4B by its cost model and size; in tables accuracy, multiply-accumulates and size, in the
transformer's accuracy and size. *Evaluation-equivalents* are evaluations, and all other seconds (proposing,
sensitivities, prices) over the median seconds of one evaluation. Figures are medians over seeds. NSGA-II and NSGA-III
have populations of 50; TPE is multivariate; `pymoo-nsga2` is pymoo's with its operators for integers. Of tables every
point was measured (`python -m benchmarks.search_tables`), so that the true front is known. The axis at the top of a
panel is the same in wall-clock, without the training of students, which all share."""


def _bars(found: Sequence[Verdict]) -> list[tuple[str, bool, str]]:
    taken = [one.equivalents for one in found]
    median = statistics.median(taken) if taken else float("inf")
    half = sum(value <= EQUIVALENTS_ON_HALF for value in taken)
    shares = [one.clock_share for one in found]
    short = [one.name for one in found if one.short_holds]
    return [
        (
            f"the best rival's last hypervolume within {EQUIVALENTS:.0f} evaluation-equivalents, median over problems",
            median <= EQUIVALENTS,
            _shown(median),
        ),
        (
            f"within {EQUIVALENTS_ON_HALF:.0f} on half of the problems",
            2 * half >= len(found),
            f"{half} of {len(found)}",
        ),
        (
            f"in at most {CLOCK_SHARE:.0%} of its wall-clock, every problem",
            all(share <= CLOCK_SHARE for share in shares),
            ", ".join(map(_share, shares)),
        ),
        (
            f"after {SHORT} evaluations {MARGIN - 1:.0%} above the best rival, or at {OF_TRUE:.0%} of the true front",
            len(short) == len(found),
            f"{len(short)} of {len(found)}",
        ),
    ]


def _problems(found: Sequence[Verdict]) -> list[str]:
    lines = [
        "| problem | best rival | its hypervolume | after | ours gets there in equivalents | wall-clock of the rival's "
        f"| ours at {SHORT} | best rival at {SHORT} | true front |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for one in found:
        name, volume, evaluations = one.best
        ours, theirs = one.at_short
        lines.append(
            f"| {one.name} | {name} | {volume:.4f} | {evaluations} | {_shown(one.equivalents)} "
            f"| {_share(one.clock_share)} | {_volume(ours)} | {_volume(theirs)} | {_volume(one.true)} |"
        )
    return lines


def _methods(found: Sequence[Verdict]) -> list[str]:
    points = (20, 50, 100, 200, 300, 1000)
    lines = [f"| problem | method | seeds | {' | '.join(map(str, points))} | s to propose 100 |"]
    lines.append("| --- | --- | --: |" + " --: |" * (len(points) + 1))
    for one in found:
        for name in (OURS, *one.rivals):
            curve = one.curves[name]
            cells = " | ".join(_volume(curve.volume_at(point)) for point in points)
            at = list(curve.evaluations).index(100)
            seconds = float(np.median(curve.equivalents[:, at] - 100)) * curve.evaluation_seconds
            lines.append(f"| {one.name} | {name} | {len(curve.volumes)} | {cells} | {seconds:.1f} |")
    return lines


def _ablations(found: Sequence[Verdict]) -> list[str]:
    """Hypervolume over that of the whole sampler, with the same seeds and after as many evaluations."""
    names = [name for name in ABLATIONS if name != OURS]
    lines = [f"| problem | evaluations | {' | '.join(names)} |", "| --- | --: |" + " --: |" * len(names)]
    for one in found:
        for point in _ABLATION_POINTS:
            cells = []
            for name in names:
                curve = one.curves.get(name)
                volume = None if curve is None else curve.volume_at(point)
                whole = None if curve is None else one.curves[OURS].volume_at(point, seeds=len(curve.volumes))
                cells.append("" if volume is None or not whole else f"{volume / whole - 1:+.2%}")
            lines.append(f"| {one.name} | {point} | {' | '.join(cells)} |")
    return lines


def _shown(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.0f}"


def _share(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.1%}"


def _volume(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
