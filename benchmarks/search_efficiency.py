"""Hypervolume against evaluations and wall-clock: the default sampler beside Optuna's and pymoo's, same evaluator.

    python -m benchmarks.search_efficiency --tables             the tabular problems
    python -m benchmarks.search_efficiency                      the real ones, too: many hours, resumable
    python -m benchmarks.search_efficiency --only table-plain   one problem; repeatable
    python -m benchmarks.search_efficiency --page               the page from what was measured

One evaluation-equivalent is the median wall time of one full candidate evaluation; seconds of sensitivities, prices and
proposing are converted into it, those of training students are not, because all share them. Every proposal counts as an
evaluation, also one that a rival repeats; measured policies are kept, so that no method pays for what another measured.
Raw results go to benchmarks/results/search_efficiency.json, the page to docs/search_efficiency.md with its picture.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from benchmarks.search_methods import ABLATIONS, OURS, RIVALS, Method, switched_off
from benchmarks.search_page import write_page
from benchmarks.search_problems import REAL, TABULAR, Problem, problem_named
from kneepoint.search.pareto import hypervolume, non_dominated

RESULTS = Path(__file__).parent / "results" / "search_efficiency.json"
POINTS = (2, 4, 6, 8, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 150, 200, 250, 300, 400, 500, 700, 1000)
"""Evaluations at which the hypervolume is kept."""
TABLE_SEEDS, REAL_SEEDS = 5, 3
ABLATION_EVALUATIONS = 100
SLOW, SLOW_SEEDS = "gp", 2
"""Takes minutes to propose 150 settings."""


@dataclass(frozen=True)
class Run:
    """One method on one problem with one seed.

    Attributes:
        problem: Its name.
        method: Its name.
        seed: Of the method.
        evaluations: How many.
    """

    problem: str
    method: str
    seed: int
    evaluations: int

    @property
    def key(self) -> str:
        """In the results."""
        return f"{self.problem}/{self.method}/{self.seed}"


def runs(problem: str) -> Iterator[Run]:
    """What is measured of a problem, seed by seed, so that an interrupted run has some of everything."""
    tabular = problem in TABULAR
    for seed in range(TABLE_SEEDS if tabular else REAL_SEEDS):
        yield Run(problem, OURS, seed, 300)
        for rival in RIVALS:
            if rival != SLOW:
                long = tabular or rival in ("nsga2", "tpe")
                yield Run(problem, rival, seed, 1000 if long else 300)
        for name in ABLATIONS:
            if name != OURS:
                yield Run(problem, name, seed, ABLATION_EVALUATIONS)
    for seed in range(SLOW_SEEDS):
        yield Run(problem, SLOW, seed, 150)


def measure(run: Run, problem: Problem) -> dict[str, Any]:
    """Hypervolumes at :data:`POINTS`, and seconds spent on anything but evaluations until then."""
    method: Method = {**RIVALS, **ABLATIONS}[run.method]
    with switched_off(run.method), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _followed(run, problem, method)


def _followed(run: Run, problem: Problem, method: Method) -> dict[str, Any]:
    search, proposing, extra = method(problem, run.seed), 0.0, 0.0
    front = np.zeros((0, len(problem.directions)))
    kept: dict[str, list[float]] = {"evaluations": [], "hypervolume": [], "seconds": []}
    told: Any = None
    advised = run.method in ABLATIONS and run.method != "without sensitivities"
    for number in range(1, run.evaluations + 1):
        start = time.perf_counter()
        parameters = search.send(told)
        proposing += time.perf_counter() - start
        told = problem.values(parameters)
        if told is not None:
            front = np.concatenate((front, [problem.losses(told)]))
            front = front[non_dominated(front)]
        if number in POINTS:
            past_anchors = number > len(problem.anchors)  # before that, neither prices nor sensitivities are asked for
            extra = problem.price_seconds + (problem.sensitivity_seconds if advised else 0.0) if past_anchors else 0.0
            kept["evaluations"].append(number)
            kept["hypervolume"].append(round(hypervolume(front), 6))
            kept["seconds"].append(round(proposing + (extra if run.method in ABLATIONS else 0.0), 3))
    return {**kept, "evaluation_seconds": problem.evaluation_seconds, "true": problem.true_hypervolume}


def main() -> int:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(*TABULAR, *REAL), action="append", help="this problem; repeatable")
    parser.add_argument("--tables", action="store_true", help="the tabular problems alone")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--seeds", type=int, help="the first seeds alone")
    parser.add_argument("--ours", action="store_true", help="the default sampler and its ablations alone")
    parser.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("kneepoint") / "search_efficiency")
    options = parser.parse_args()
    names = options.only or (TABULAR if options.tables else (*TABULAR, *REAL))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in () if options.page else names:
        wanted = [run for run in runs(name) if options.seeds is None or run.seed < options.seeds]
        wanted = [run for run in wanted if not options.ours or run.method in ABLATIONS]
        _measure_missing(name, wanted, results, options.cache)
    return write_page(results)


def _measure_missing(name: str, wanted: Sequence[Run], results: dict[str, Any], cache: Path) -> None:
    missing = [run for run in wanted if run.key not in results]
    if not missing:
        return
    problem = problem_named(name, cache)
    for run in missing:
        start = time.perf_counter()
        results[run.key] = measure(run, problem)
        volume = results[run.key]["hypervolume"][-1]
        print(f"{run.key}: {volume:.4f} after {run.evaluations}, {time.perf_counter() - start:.0f} s", flush=True)
        RESULTS.write_text(json.dumps(results, separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    sys.exit(main())
