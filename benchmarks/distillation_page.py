"""The page of distillation.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "distillation.md"
LARGEST_LOSS = 0.015
PLAIN, SOFT = "plain", "soft"
RECOVERED, OLD = "recovery", "without floats first"
_CRITICAL = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
"""Student's t, two-sided 95 %, by degrees of freedom."""
Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By variant and seed."""


def write_page(results: Mapping[str, Any]) -> None:
    """Write docs/distillation.md."""
    parts = [INTRODUCTION]
    for problem, about in ABOUT.items():
        runs = runs_of(results["runs"], problem)
        if PLAIN in runs:
            parts += [f"## {about}", table(runs, results["teachers"][problem]), *notes(problem, runs)]
    recovered = runs_of(results["runs"], RECOVERED)
    if SOFT in recovered:
        parts += [RECOVERY, recovery_table(recovered, results["teachers"][RECOVERED]), bar(results)]
    PAGE.write_text("\n\n".join([*parts, DEFAULTS]) + "\n")


def runs_of(runs: Sequence[Mapping[str, Any]], problem: str) -> Runs:
    """The runs of a problem."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        if run["problem"] == problem:
            found.setdefault(run["variant"], {})[run["seed"]] = run
    return found


def table(runs: Runs, teacher: Mapping[str, float]) -> str:
    """Every variant against plain training and against soft targets alone."""
    lines = [
        f"| training (teacher: {100 * teacher['test']:.2f}) | accuracy | over plain | over soft | seconds |",
        "|---|---|---|---|---|",
    ]
    for variant, by_seed in runs.items():
        accuracy = statistics.mean(100 * run["test"] for run in by_seed.values())
        seconds = statistics.median(run["seconds"] for run in by_seed.values())
        plain, soft = (difference(runs, variant, other) for other in (PLAIN, SOFT))
        lines.append(f"| {variant} | {accuracy:.2f} | {plain} | {soft} | {seconds:.0f} |")
    return "\n".join(lines)


def recovery_table(runs: Runs, teacher: Mapping[str, float]) -> str:
    """What each variant leaves of the teacher's accuracy."""
    lines = [
        f"| recovery (teacher: {100 * teacher['validation']:.2f}, {100 * teacher['test']:.2f}) "
        "| steps | validation | test | test over plain |",
        "|---|---|---|---|---|",
    ]
    for variant, by_seed in runs.items():
        validation, test = (
            statistics.mean(100 * run[key] for run in by_seed.values()) for key in ("validation", "test")
        )
        steps = next(iter(by_seed.values()))["steps"]
        lines.append(f"| {variant} | {steps} | {validation:.2f} | {test:.2f} | {difference(runs, variant, PLAIN)} |")
    return "\n".join(lines)


def difference(runs: Runs, variant: str, other: str) -> str:
    """The mean over seeds of the difference in test accuracy, in points, ± its standard error; bold beyond chance."""
    if variant == other or other not in runs:
        return ""
    points = [
        100 * (run["test"] - runs[other][seed]["test"]) for seed, run in runs[variant].items() if seed in runs[other]
    ]
    mean = statistics.mean(points)
    if len(points) < 2:
        return f"{mean:+.2f}"
    error = statistics.stdev(points) / math.sqrt(len(points))
    beyond = abs(mean) > _CRITICAL[len(points) - 1] * error
    text = f"{mean:+.2f} ± {error:.2f}"
    return f"**{text}**" if beyond else text


def notes(problem: str, runs: Runs) -> Iterator[str]:
    """What the figures of a problem show of the teacher's kept outputs."""
    kept, asked = runs.get(SOFT), runs.get("soft, teacher not kept")
    if kept and asked:
        pairs = [(kept[seed]["seconds"], asked[seed]["seconds"]) for seed in kept if seed in asked]
        first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
        yield (
            f"With the teacher's outputs kept a training takes {first:.0f} s, and {second:.0f} s where it is asked for "
            "every batch (the first one fills the store)."
        )


def bar(results: Mapping[str, Any]) -> str:
    """Whether half the channels and W8A8 cost at most :data:`LARGEST_LOSS`."""
    teacher = results["teachers"][RECOVERED]
    lines = []
    for variant, by_seed in runs_of(results["runs"], RECOVERED).items():
        if not variant.startswith("soft"):
            continue
        losses = [100 * (teacher[key] - run[key]) for key in ("validation", "test") for run in by_seed.values()]
        half = len(losses) // 2
        validation, test = statistics.mean(losses[:half]), statistics.mean(losses[half:])
        steps = next(iter(by_seed.values()))["steps"]
        if variant == SOFT or variant.startswith("soft, longer"):
            reached = "within" if max(validation, test) <= 100 * LARGEST_LOSS else "not within"
            lines.append(
                f"- {steps} steps: {validation:.2f} points lost on validation, {test:.2f} on test data: "
                f"{reached} {100 * LARGEST_LOSS:.1f} points."
            )
    return "\n".join(lines)


INTRODUCTION = """# Distillation

What each part of learning from the teacher gives over plain training, with equal steps, on the data of two problems
and for three seeds. `python -m benchmarks.distillation` makes this page
([raw figures](../benchmarks/results/distillation.json)). Differences are in points of test accuracy, paired by seed,
with their standard error; **bold** where a t-test with two degrees of freedom would not call it chance (95 %). With
three seeds that asks for a difference of 4.3 standard errors, and among so many comparisons one in twenty is bold by
chance. Seconds are those of a shared machine and only roughly comparable."""

ABOUT = {
    "digits": "Digits: the quickstart's residual teacher, a student of half its width and depth, 400 steps",
    "text": "Docstrings: whose package is it? A two-block encoder of width 96, a student of one block and width 16, "
    "800 steps",
}

RECOVERY = """## Recovery: half the channels of every group gone, W8A8 everywhere, the quickstart's teacher

A pruned network learns in floats first, with its BatchNorm, at the students' learning rate (`float_share`), and then
through its quantizers. "Without floats first" is all of it through the quantizers. "Soft" is the usual recovery as it
is, "longer" the same for 400 steps."""

DEFAULTS = """## What is usual, and why

| | | |
|---|---|---|
| soft targets, temperature 2, alpha 0.7 | on | nearly a point in recovery; 0.4 on both problems, two and three \
standard errors, which three seeds do not call certain. A temperature of 4 lost that on \
text; 1.5 did no better beyond chance |
| warm-up, 15 % of the steps | on | a point on text; on digits within chance |
| attention hints, weight 1 | on for students | where both networks attend: more than all else on text. In recovery \
they were tried on one pruned W4A8 transformer, and gave nothing: off |
| floats first | on | where channels were cut and BatchNorm is folded: six points. Tried once without BatchNorm, on a \
transformer with half its channels in W8A8, it cost two: not done there |
| the teacher's outputs kept | on | the same accuracy in less time, where samples recur unchanged |
| accumulation | off | one to three points at equal steps, for twice the samples and the time |
| hidden-state hints | off | nothing beyond chance over soft targets |
| dynamic weights of the terms | off | nothing |
| temperature and alpha that follow the gap | off | worse than fixed ones for students, nothing in recovery |
| two stages | off | nothing |
| bfloat16 | on a GPU alone | the same accuracy, and no time saved on a processor; it was not tried on a GPU |

`kneepoint.compression.distillation_defaults.DEFAULTS` is the table of temperature and alpha by kind of problem. Its
rows for dense outputs, tokens and regression follow that for classes and were not measured."""
