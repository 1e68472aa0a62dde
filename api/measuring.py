"""Model files on this machine: how fast they are, which of two is faster, and what they score."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from kneepoint.deployment import runtime
from kneepoint.deployment.measuring import SECONDS, Comparison, Measurement, compare_latency, measure
from kneepoint.deployment.timing import CONFIDENCE
from kneepoint.job_file import load_task
from kneepoint.tasks.errors import InputError, nearest
from kneepoint.tasks.task import Split

Found = Measurement | Comparison


@dataclass(frozen=True)
class MeasureRequest:
    """What ``kneepoint measure`` was asked for.

    Attributes:
        models: One ONNX file, or two to compare.
        threads: Inside an operator.
        batch: Samples of one inference.
        seconds: Time to spend; None for 5 seconds a model.
        sizes: Of free dimensions other than the batch, by name.
        task: A reference to a function that returns the task to score on.
        split: Which of the task's data.
    """

    models: Sequence[Path]
    threads: int = 1
    batch: int = 1
    seconds: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    task: str | None = None
    split: str = "validation"

    @property
    def duration(self) -> float:
        """Seconds to spend."""
        return SECONDS * len(self.models) if self.seconds is None else self.seconds


def measure_models(request: MeasureRequest) -> dict[str, Any]:
    """Facts about each model: latency with its interval, noise, bytes, kernels, and a score where a task is named.

    An interruption ends the measurement; what was measured so far counts if it suffices for an interval.

    Raises:
        InputError: If a model, the task or an argument is wrong.
        KeyboardInterrupt: If it came before there was an interval.
    """
    split = _split(request.split)
    found, interrupted = _measured(request)
    each = (found,) if isinstance(found, Measurement) else (found.first, found.second)
    facts = [
        {"model": str(model), "bytes": model.stat().st_size, **one.to_json(), "kernels": _kernels(model)}
        for model, one in zip(request.models, each, strict=True)
    ]
    if request.task is not None and not interrupted:
        _add_scores(facts, request, request.task, split)
    if isinstance(found, Measurement):
        return {**facts[0], "interrupted": interrupted}
    verdict = {"verdict": verdict_of(found, request.models), "interrupted": interrupted}
    return {**found.to_json(), "models": facts, **verdict}


def read_sizes(texts: Sequence[str]) -> dict[str, int]:
    """``NAME=N`` as sizes by name.

    Raises:
        InputError: If one does not read so.
    """
    sizes = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise InputError(f"--size reads NAME=N, with N of at least 1; got {text!r}")
        sizes[name] = int(size)
    return sizes


def verdict_of(found: Comparison, models: Sequence[Path]) -> str:
    """Which of two is faster, and by how much; or that these runs cannot tell."""
    ratio = found.ratio
    if not found.enough:
        return f"no difference that these runs can tell: {found.first.rounds} rounds are too few; give more --seconds"
    if found.faster is None:
        return f"no difference that these runs can tell: {ratio.low:.3f} .. {ratio.high:.3f}"
    times = sorted([1 / ratio.low, 1 / ratio.high] if found.faster else [ratio.low, ratio.high])
    value = 1 / ratio.value if found.faster else ratio.value
    faster, slower = models[found.faster], models[1 - found.faster]
    return f"{faster} is {value:.3f} times as fast as {slower} ({times[0]:.3f} .. {times[1]:.3f})"


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """The facts for people."""
    models = facts.get("models", [facts])
    lines = [line for one in models for line in _model_lines(one)]
    if "verdict" in facts:
        lines.append(f"{facts['verdict']}; with {facts['ratio']['confidence']:.0%} confidence")
    return lines


def _model_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    rounds = f"{facts['runs']} runs in {facts['rounds']} round{'s' if facts['rounds'] > 1 else ''}"
    yield (
        f"{facts['model']}: median {facts['median_ms']:.4g} ms ({facts['low_ms']:.4g} .. {facts['high_ms']:.4g} with "
        f"{facts['confidence']:.0%} confidence; {rounds}, {facts['threads']} thread(s), batch {facts['batch']}), "
        f"{facts['bytes'] / 1e3:.1f} kB"
    )
    yield f"  {facts['noise']['verdict']}"
    if "score" in facts:
        score, error = facts["score"]["value"], facts["score"]["error"]
        yield f"  {facts['metric']} on {facts['split']}: {score:.4f}" + (f" ± {error:.4f}" if error else "")


def _measured(request: MeasureRequest) -> tuple[Found, bool]:
    """The measurement, and whether it was interrupted."""
    latest: list[Found] = []
    with _progress(request.duration) as show:

        def report(found: Found) -> None:
            latest[:] = [found]
            show(found)

        first, *others = request.models
        arguments = (request.threads, request.batch, request.duration)
        try:
            if not others:
                return measure(first, *arguments, sizes=request.sizes, report=report), False
            return compare_latency(first, others[0], *arguments, sizes=request.sizes, report=report), False
        except KeyboardInterrupt:
            if not latest or _interval(latest[0]).confidence < CONFIDENCE:
                raise
            return latest[0], True


def _interval(found: Found) -> Any:
    return found.latency_ms if isinstance(found, Measurement) else found.ratio


@contextmanager
def _progress(seconds: float) -> Iterator[Callable[[Found], None]]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=seconds)
        start = time.monotonic()

        def show(found: Found) -> None:
            interval = _interval(found)
            unit = " ms" if isinstance(found, Measurement) else " times the first"
            text = f"{interval.value:.4g}{unit} ({interval.low:.4g} .. {interval.high:.4g})"
            bar.update(task, completed=time.monotonic() - start, description=text)

        yield show


def _add_scores(facts: Sequence[dict[str, Any]], request: MeasureRequest, reference: str, split: Split) -> None:
    task = load_task(reference, Path.cwd())
    for one, model in zip(facts, request.models, strict=True):
        score = runtime.score(runtime.open_session(model, request.threads), task, split)
        one.update({"task": reference, "split": split, "metric": task.metric.name, "score": score.to_json()})


def _kernels(model: Path) -> dict[str, int]:
    return dict(runtime.kernel_counts(model))


def _split(name: str) -> Split:
    splits: tuple[Split, ...] = get_args(Split)
    for split in splits:
        if split == name:
            return split
    raise InputError(f"unknown split {name!r}; {nearest(name, splits)}")
