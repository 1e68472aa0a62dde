"""A model file on this machine: how fast it is, and what it scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from kneepoint.deployment import runtime
from kneepoint.job_file import load_task
from kneepoint.tasks.errors import InputError, nearest
from kneepoint.tasks.task import Split


def measure_model(
    model: Path,
    threads: int = 1,
    batch: int = 1,
    seconds: float = 2.0,
    task: str | None = None,
    split: str = "validation",
) -> dict[str, Any]:
    """Facts about ``model``: latency percentiles in milliseconds, bytes, kernels, and a score where a task is named.

    Args:
        model: An ONNX file.
        threads: Threads inside an operator.
        batch: Samples of one inference.
        seconds: Time to spend on timed runs.
        task: A reference to a function that returns the task to score on.
        split: Which of the task's data.

    Raises:
        InputError: If the model, the task or the split is wrong.
    """
    checked = _split(split)
    timing = runtime.measure(model, threads, batch, seconds)
    facts: dict[str, Any] = {
        "model": str(model),
        "bytes": model.stat().st_size,
        "median_ms": timing.median_ms,
        "low_ms": timing.low_ms,
        "high_ms": timing.high_ms,
        "runs": timing.runs,
        "threads": threads,
        "batch": batch,
        "kernels": dict(runtime.kernel_counts(model)),
    }
    if task is not None:
        loaded = load_task(task, Path.cwd())
        score = runtime.score(runtime.open_session(model, threads), loaded, checked)
        facts.update({"task": task, "split": split, "metric": loaded.metric.name, "score": score.to_json()})
    return facts


def _split(name: str) -> Split:
    splits: tuple[Split, ...] = get_args(Split)
    for split in splits:
        if split == name:
            return split
    raise InputError(f"unknown split {name!r}; {nearest(name, splits)}")
