"""ONNX Runtime: what an artifact really answers, how fast, and with which kernels."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor

from kneepoint.tasks.batches import as_pair, concatenate, leaves, rebuild, transform
from kneepoint.tasks.errors import InputError, JobFailed, TaskError
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import ORDER_SEED, seeded
from kneepoint.tasks.task import Split, Task

_SILENT = 4  # severity: fatal only; what goes wrong is raised, and would be written to standard error a second time
_FEWEST_RUNS = 3
_DTYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Measurement:
    """The latency of one model on the machine it was measured on.

    Attributes:
        median_ms: Median over the runs.
        low_ms: 5th percentile.
        high_ms: 95th percentile.
        runs: Timed runs.
        threads: Threads inside an operator.
        batch: Samples a run: the first dimension of the first input.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    threads: int
    batch: int


def open_session(model: str | Path | bytes, threads: int = 1, optimized: Path | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        model: A file, or the serialized model.
        threads: Threads inside an operator.
        optimized: Where to write the optimized graph, if anywhere.

    Raises:
        InputError: If the file is missing, ONNX Runtime cannot load it, or ``threads`` is below 1.
    """
    if threads < 1:
        raise InputError(f"a session needs at least one thread; got {threads}")
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise InputError(f"a model is an ONNX file; there is none at {model}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        source = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own unrelated types
        raise InputError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error


def predict(session: Any, task: Task, split: Split = "validation", like: Any = None) -> tuple[Any, Any]:
    """Outputs and targets of ``session`` on a split, in the order and the structure of :meth:`Task.predict`.

    Args:
        session: Of :func:`open_session`.
        task: Gives the data.
        split: Which data.
        like: Outputs whose structure to take; by default what the task's model makes of the example input.

    Raises:
        JobFailed: If the model's inputs or outputs do not match the task's.
    """
    if like is None:
        with module_mode(task.model, training=False), torch.inference_mode():
            like = task.call(task.model, task.example_input)
    outputs, targets = [], []
    with seeded(ORDER_SEED):
        for batch in task.loader(split):
            inputs, target = as_pair(batch, split)
            outputs.append(answer(session, inputs, like))
            targets.append(transform(Tensor.cpu, target))
    if not outputs:
        raise TaskError(f"{split}: the loader gave no batches: it must be re-iterable and not empty")
    return concatenate(outputs), concatenate(targets)


def answer(session: Any, inputs: Any, like: Any) -> Any:
    """What ``session`` answers to one batch.

    Args:
        session: Of :func:`open_session`.
        inputs: A tensor, a tuple in the order of the model's inputs, or a dict by their names.
        like: Outputs of the network the model was made from, whose structure the answer takes.

    Raises:
        JobFailed: If the model's inputs or outputs do not match.
    """
    feeds = _feeds(session, inputs)
    try:
        answers = [torch.from_numpy(np.asarray(answer)) for answer in session.run(None, feeds)]
    except Exception as error:  # onnxruntime raises its own unrelated types
        raise JobFailed(f"the model does not run on the task's batches: {_first_line(error)}") from error
    expected = len(leaves(like))
    if len(answers) != expected:
        raise JobFailed(f"the model gives {len(answers)} outputs; the task's network gives {expected}")
    return rebuild(like, answers)


def score(session: Any, task: Task, split: Split = "validation") -> Score:
    """The task's metric as ONNX Runtime reaches it."""
    return task.metric.score(*predict(session, task, split))


def kernel_counts(model: str | Path | bytes) -> Counter[str]:
    """How often each kernel stands in the graph that ONNX Runtime executes after its optimizer."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "optimized.onnx"
        open_session(model, optimized=path)
        graph = onnx.load(str(path)).graph
    return Counter(node.op_type for node in graph.node)


def measure(model: str | Path | bytes, threads: int = 1, batch: int = 1, seconds: float = 2.0) -> Measurement:
    """Time ``model`` on this machine with random inputs.

    Args:
        model: A file, or the serialized model.
        threads: Threads inside an operator.
        batch: Size of free batch dimensions; any other free dimension counts as 1.
        seconds: Time to spend on timed runs, of which there are at least three; a tenth of it warms up first.

    Raises:
        InputError: If the model cannot be loaded or run, or was written for another batch, or an argument is out of
            range.
    """
    if batch < 1 or not seconds > 0:
        raise InputError(f"a measurement needs a batch of at least 1 and some seconds; got {batch} and {seconds}")
    session = open_session(model, threads)
    feeds = _random_feeds(session, batch)
    actual = next((feed.shape[0] for feed in feeds.values() if feed.ndim), 1)
    if actual != batch != 1:
        raise InputError(f"the model was written for a batch of {actual}, and cannot be measured at {batch}")
    try:
        _run_for(session, feeds, seconds / 10)
        times = sorted(_run_for(session, feeds, seconds))
    except Exception as error:  # onnxruntime raises its own unrelated types
        raise InputError(f"the model does not run on random inputs: {_first_line(error)}") from error
    return Measurement(
        median_ms=statistics.median(times),
        low_ms=times[int(0.05 * (len(times) - 1))],
        high_ms=times[int(0.95 * (len(times) - 1))],
        runs=len(times),
        threads=threads,
        batch=actual,
    )


def _feeds(session: Any, inputs: Any) -> dict[str, npt.NDArray[Any]]:
    names = [entry.name for entry in session.get_inputs()]
    given = [str(name) for name in inputs] if isinstance(inputs, Mapping) else names[: len(leaves(inputs))]
    if sorted(given) != sorted(names) or len(leaves(inputs)) != len(names):
        got = given if isinstance(inputs, Mapping) else f"{len(leaves(inputs))} tensors"
        raise JobFailed(f"the model takes the inputs {names}; the task's batches give {got}")
    return {name: leaf.detach().cpu().numpy() for name, leaf in zip(given, leaves(inputs), strict=True)}


def _random_feeds(session: Any, batch: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    feeds = {}
    for entry in session.get_inputs():
        shape = [batch if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(entry.shape)]
        shape = [size if isinstance(size, int) else 1 for size in shape]
        dtype = _DTYPES.get(entry.type)
        if dtype is None:
            raise InputError(f"input {entry.name!r} has type {entry.type}; measured are {sorted(_DTYPES)}")
        floats = np.issubdtype(np.dtype(dtype), np.floating)
        feeds[entry.name] = (rng.standard_normal(shape) if floats else np.zeros(shape)).astype(dtype)
    return feeds


def _run_for(session: Any, feeds: dict[str, npt.NDArray[Any]], seconds: float) -> list[float]:
    """Milliseconds of each run until ``seconds`` have passed; at least three runs."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _FEWEST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
