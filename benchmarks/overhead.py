"""What a search costs beside its evaluations: proposing, logging, memory; ours and Optuna's samplers in one run.

    python -m benchmarks.overhead           10,000 finished trials, 100 variables, 2 to 4 objectives; some minutes
    python -m benchmarks.overhead --quick   a tenth of the trials

Proposing is timed in batches: ours chooses 32 settings at once, and a rival is asked 32 times, as far as its patience
goes (10 seconds a sampler). Every trial that was proposed is told a score before the next batch. Figures go to
benchmarks/results/overhead.json. Exit code 0 where all bars are reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kneepoint.search.record import Record
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.search.trial_log import TrialLog
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.metrics import Score

RESULTS = Path(__file__).parent / "results" / "overhead.json"
TRIALS, VARIABLES, CHOICES, BATCH = 10_000, 100, 4, 32
OBJECTIVES = (2, 3, 4)
BATCHES = 3
OURS = "kneepoint"
PROPOSE_MS, APPEND_MS, MEMORY_MB = 3.0, 1.0, 100.0
SPACE: Mapping[str, BaseDistribution] = {
    f"bits/{index:03}": IntDistribution(0, CHOICES - 1) for index in range(VARIABLES)
}
SAMPLERS: Mapping[str, Callable[[], BaseSampler]] = {
    OURS: lambda: KneepointSampler(0, random_trials=0, batch=BATCH),
    "random": lambda: RandomSampler(seed=0),
    "nsga2": lambda: NSGAIISampler(population_size=50, seed=0),
    "nsga3": lambda: NSGAIIISampler(population_size=50, seed=0),
    "tpe": lambda: TPESampler(multivariate=True, seed=0),
    "gp": lambda: GPSampler(seed=0),
}
_LIMIT_SECONDS = 10.0
_FEWER_FOR_GP = 100
"""Finished trials that the Gaussian process begins with: it takes seconds a proposal even so."""


def scores(codes: Sequence[int], objectives: int) -> list[float]:
    """An error that falls and costs that rise with every choice, by another weight each."""
    weights = np.random.default_rng(0).gamma(1.0, 1.0, (objectives, VARIABLES))
    chosen = np.array(codes)
    error = 1 - np.exp(-(weights[0] * 4.0**-chosen).sum() / 20)
    costs = (weights[1:] * (chosen + 0.5)).sum(axis=1) / VARIABLES
    return [float(error), *costs.tolist()]


def finished(count: int, objectives: int) -> list[FrozenTrial]:
    """Random settings with their scores."""
    codes = np.random.default_rng(1).integers(CHOICES, size=(count, VARIABLES)).tolist()
    return [
        optuna.trial.create_trial(
            params=dict(zip(SPACE, row, strict=True)), distributions=dict(SPACE), values=scores(row, objectives)
        )
        for row in codes
    ]


class Clock(BaseSampler):
    """Passes everything on to another sampler, and adds up the seconds that it takes."""

    def __init__(self, sampler: BaseSampler) -> None:
        self.sampler = sampler
        self.seconds = 0.0

    def _timed(self, name: str, *arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return getattr(self.sampler, name)(*arguments)
        finally:
            self.seconds += time.perf_counter() - start

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the other."""
        self._timed("before_trial", study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the other."""
        found: dict[str, BaseDistribution] = self._timed("infer_relative_search_space", study, trial)
        return found

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the other."""
        found: dict[str, Any] = self._timed("sample_relative", study, trial, search_space)
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the other."""
        return self._timed("sample_independent", study, trial, param_name, param_distribution)


def proposing(name: str, trials: int, objectives: int) -> dict[str, float]:
    """Milliseconds a proposal: of the sampler, and of Optuna's ask with it; the median over batches."""
    clock = Clock(SAMPLERS[name]())
    study = optuna.create_study(sampler=clock, directions=["minimize"] * objectives)
    study.add_trials(finished(_FEWER_FOR_GP if name == "gp" else trials, objectives))
    study.tell(study.ask(dict(SPACE)), scores([0] * VARIABLES, objectives))  # reads the trials
    batches, asks, asked, begun = [], [], 0, time.perf_counter()
    for _ in range(BATCHES):
        start, before, batch = time.perf_counter(), clock.seconds, []
        for _ in range(BATCH):
            batch.append(study.ask(dict(SPACE)))
            if time.perf_counter() - begun > _LIMIT_SECONDS:
                break
        asks.append(1e3 * (time.perf_counter() - start) / len(batch))
        batches.append(1e3 * (clock.seconds - before) / len(batch))
        asked += len(batch)
        for trial in batch:
            study.tell(trial, scores([trial.params[entry] for entry in SPACE], objectives))
        if time.perf_counter() - begun > _LIMIT_SECONDS:
            break
    known = len(study.trials) - asked - 1
    return {
        "ms": statistics.median(batches),
        "ask_ms": statistics.median(asks),
        "proposals": asked,
        "finished_trials": known,
    }


def records(count: int) -> list[Record]:
    """As a search logs them, with a policy of as many layers as there are variables."""
    draw = np.random.default_rng(2)
    formats = [LayerPolicy.of_bits(bits) for bits in (2, 4, 8, 16)]
    found = []
    for _ in range(count):
        layers = {
            f"layer{at:03}": formats[at_bits] for at, at_bits in enumerate(draw.integers(4, size=VARIABLES).tolist())
        }
        values = {"accuracy": Score(float(draw.random()), 0.01), "size_mb": Score(float(draw.random()))}
        parameters = {entry: int(draw.integers(CHOICES)) for entry in SPACE}
        found.append(Record(Policy.build(layers=layers), "ptq", values, 0.5, "host:1", parameters=parameters))
    return found


def logging_and_memory(trials: int) -> dict[str, float]:
    """Milliseconds an append, synced to disk; megabytes that the log and the sampler hold, and that Optuna does."""
    made = records(200)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        log, times = TrialLog(Path(folder) / "trials.jsonl"), []
        for record in made:
            start = time.perf_counter()
            log.append(record)
            times.append(1e3 * (time.perf_counter() - start))
    return {"append_ms": statistics.median(times), **_memory(trials)}


def _memory(trials: int) -> dict[str, float]:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [Record.from_line(record.to_line()) for record in records(trials)]
    ours = tracemalloc.get_traced_memory()[0] - before
    del kept
    before = tracemalloc.get_traced_memory()[0]
    study = optuna.create_study(sampler=RandomSampler(0), directions=["minimize"] * 2)
    study.add_trials(finished(trials, 2))
    theirs = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"log_mb": ours / 1e6, "optuna_mb": theirs / 1e6}


def main() -> int:
    """Measure and print; the figures go to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials; nothing is kept")
    quick = parser.parse_args().quick
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    trials = TRIALS // 10 if quick else TRIALS
    found: dict[str, Any] = {"trials": trials, "variables": VARIABLES, "batch": BATCH, "proposing": {}}
    for name in SAMPLERS:
        found["proposing"][name] = {str(count): proposing(name, trials, count) for count in OBJECTIVES}
        shown = ", ".join(f"{entry['ms']:.2f}" for entry in found["proposing"][name].values())
        whole = ", ".join(f"{entry['ask_ms']:.2f}" for entry in found["proposing"][name].values())
        print(f"{name}: {shown} ms a proposal with 2, 3 and 4 objectives; with Optuna's own part {whole}", flush=True)
    found.update(logging_and_memory(trials))
    print(f"append {found['append_ms']:.2f} ms; memory {found['log_mb']:.0f} MB, Optuna's {found['optuna_mb']:.0f} MB")
    if not quick:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    ours = max(entry["ms"] for entry in found["proposing"][OURS].values())
    held = ours <= PROPOSE_MS and found["append_ms"] <= APPEND_MS and found["log_mb"] <= MEMORY_MB
    print(
        f"bars: {PROPOSE_MS} ms a proposal, {APPEND_MS} ms an append, {MEMORY_MB} MB: {'reached' if held else 'MISSED'}"
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
