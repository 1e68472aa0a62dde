"""What each part of distillation gives over plain training: students of two problems, three seeds, equal steps.

    python -m benchmarks.distillation                       the runs that have no figures yet, then the page
    python -m benchmarks.distillation --problem text        of one problem
    python -m benchmarks.distillation --fresh               all of them anew, in about half an hour
    python -m benchmarks.distillation --page                the page alone

Every run ends in benchmarks/results/distillation.json, so that one that was interrupted goes on where it was. The page
is docs/distillation.md. The recovery problem prunes half the channels of the quickstart's teacher, quantizes all
layers to W8A8 and distils for as long as the usual recovery does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.distillation_page import write_page
from benchmarks.distillation_problems import PROBLEMS
from kneepoint.compression import CompressionSettings, Compressor, Distillation, StudentStore, distill
from kneepoint.compression.distillation import RECOVERY
from kneepoint.compression.student_store import write_atomically
from kneepoint.spaces.joint_space import joint_space
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks import digits
from kneepoint.tasks.seeding import digest_seed, seeded
from kneepoint.tasks.task import Task

RESULTS = Path(__file__).parent / "results" / "distillation.json"
SEEDS = (0, 1, 2)
RECOVERED = "recovery"
SOFT: dict[str, Any] = {"temperature": 2.0, "alpha": 0.7}
TIMED = "soft, teacher not kept"
"""It is run for one seed, for its seconds: the accuracy is that of soft targets."""
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "plain": {"temperature": 1.0, "alpha": 0.0},
    "plain, no warm-up": {"temperature": 1.0, "alpha": 0.0, "warm_up": 0.0},
    "plain, two batches a step": {"temperature": 1.0, "alpha": 0.0, "accumulation": 2},
    "soft": SOFT,
    "soft, temperature 1.5": {**SOFT, "temperature": 1.5},
    "soft, temperature 4": {**SOFT, "temperature": 4.0},
    "soft, alpha 0.9": {**SOFT, "alpha": 0.9},
    "soft, temperature 4, alpha 0.9": {"temperature": 4.0, "alpha": 0.9},
    "soft, hidden hints": {**SOFT, "hidden_hints": 0.3},
    "soft, attention hints": {**SOFT, "attention_hints": 1.0},
    "soft, dynamic weights": {**SOFT, "dynamic_weights": True},
    "soft, all hints, dynamic weights": {
        **SOFT,
        "hidden_hints": 0.3,
        "attention_hints": 1.0,
        "dynamic_weights": True,
    },
    "soft, follows the gap": {**SOFT, "follow_gap": True},
    "soft, two stages": {**SOFT, "general_share": 0.3},
    "soft, bfloat16": {**SOFT, "precision": "bfloat16"},
    TIMED: {**SOFT, "teacher_cache_mb": 0.0},
}
"""What differs from the usual settings."""
OF_RECOVERY: Mapping[str, Mapping[str, Any]] = {
    "plain": CHANGES["plain"],
    "soft": {},
    "soft, without floats first": {},
    "soft, temperature 4": CHANGES["soft, temperature 4"],
    "soft, hidden hints": CHANGES["soft, hidden hints"],
    "soft, follows the gap": CHANGES["soft, follows the gap"],
    "soft, longer": {"steps": 400},
}
"""What differs from the usual recovery."""
OF_TEXT = frozenset(
    {
        "soft, temperature 1.5",
        "soft, alpha 0.9",
        "soft, temperature 4, alpha 0.9",
        "soft, attention hints",
        "soft, all hints, dynamic weights",
        "soft, bfloat16",
        TIMED,
    }
)
"""Variants of the text problem alone: its trainings are short, its networks attend, and its samples recur."""
KEEP = 0.5
Figures = dict[str, Any]


def changes_of(problem: str) -> Mapping[str, Mapping[str, Any]]:
    """The variants of a problem: without attention where its networks have none; few for recovery."""
    if problem == RECOVERED:
        return OF_RECOVERY
    return {name: change for name, change in CHANGES.items() if problem == "text" or name not in OF_TEXT}


def measure(problem: str, variant: str, seed: int, task: Task) -> Figures:
    """One student's training, and what came of it."""
    entry = PROBLEMS[problem]
    settings = Distillation(entry.steps, entry.learning_rate, **CHANGES[variant])
    with seeded(digest_seed("student", seed)):
        student = entry.student()
    start = time.perf_counter()
    distill(task, student, settings, seed)
    return {"seconds": round(time.perf_counter() - start, 2), **accuracies(task, student)}


def measure_recovery(variant: str, seed: int, task: Task, folder: Path) -> Figures:
    """Half the channels of every group and W8A8 everywhere, and the usual recovery with a variant's changes."""
    recovery = replace(RECOVERY, **OF_RECOVERY[variant])
    share = 0.0 if "without floats" in variant else CompressionSettings().float_share
    settings = CompressionSettings(recovery=recovery, float_share=share)
    space = joint_space(task, ("w8a8", 32), (KEEP, 1.0), students=None)
    compressor = Compressor(space, StudentStore(folder), seed, settings)
    layers = {name: layer.admit(LayerPolicy.parse("w8a8")) for name, layer in space.teacher.layers.items()}
    compressed = compressor.compress(Policy.build(keep=dict.fromkeys(space.teacher.groups, KEEP), layers=layers))
    start = time.perf_counter()
    recovered = compressor.recover(compressed)
    seconds = round(time.perf_counter() - start, 2)
    before = accuracies(task, compressed.module)["validation"]
    return {"seconds": seconds, "steps": recovery.steps, "before": before, **accuracies(task, recovered.module)}


def accuracies(task: Task, module: nn.Module) -> Figures:
    """Of a network on validation and test data."""
    return {
        "validation": task.metric.score(*task.predict(module)).value,
        "test": task.metric.score(*task.predict(module, split="test")).value,
    }


def missing(problems: list[str], runs: list[Figures]) -> Iterator[tuple[str, str, int]]:
    """Problem, variant and seed of every run that has no figures."""
    known = {(run["problem"], run["variant"], run["seed"]) for run in runs}
    for problem in problems:
        for seed, variant in itertools.product(SEEDS, changes_of(problem)):
            timed_alone = variant == TIMED and seed != SEEDS[0]
            if (problem, variant, seed) not in known and not timed_alone:
                yield problem, variant, seed


def stored() -> dict[str, Any]:
    """The figures so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"teachers": {}, "runs": []}


def store(run: Figures, teacher: Figures) -> None:
    """Add a run to the figures, a line each; those of other problems may come in from other processes meanwhile."""
    results = stored()
    results["teachers"][run["problem"]] = teacher
    runs = ",\n".join(json.dumps(entry) for entry in [*results["runs"], run])
    RESULTS.parent.mkdir(exist_ok=True)
    text = f'{{"teachers": {json.dumps(results["teachers"])},\n"runs": [\n{runs}\n]}}\n'
    write_atomically(RESULTS, text.encode())


def run_missing(problems: list[str]) -> None:
    """Measure what has no figures, and store them after every run."""
    tasks: dict[str, Task] = {}
    for problem, variant, seed in list(missing(problems, stored()["runs"])):
        if problem not in tasks:
            tasks[problem] = digits.task() if problem == RECOVERED else PROBLEMS[problem].task()
        with tempfile.TemporaryDirectory() as folder:
            if problem == RECOVERED:
                figures = measure_recovery(variant, seed, tasks[problem], Path(folder))
            else:
                figures = measure(problem, variant, seed, tasks[problem])
        teacher = accuracies(tasks[problem], tasks[problem].model)
        store({"problem": problem, "variant": variant, "seed": seed, **figures}, teacher)
        print(problem, variant, seed, figures, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, store, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=[*PROBLEMS, RECOVERED], default=[*PROBLEMS, RECOVERED])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.fresh:
        RESULTS.unlink(missing_ok=True)
    if not arguments.page:
        run_missing(arguments.problem)
    write_page(stored())
    return 0


if __name__ == "__main__":
    sys.exit(main())
