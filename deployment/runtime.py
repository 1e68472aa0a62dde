"""ONNX Runtime: what an artifact really answers, how fast, and with which kernels."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor

from kneepoint.tasks.batches import as_pair, concatenate
from kneepoint.tasks.errors import InputError, JobFailed
from kneepoint.tasks.metrics import Score
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import ORDER_SEED, Split, Task

_SILENT = 3  # severity: errors only
INTEGER_KERNELS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits"})
_DTYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
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
        batch: Samples a run.
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
        InputError: If the file is missing or ONNX Runtime cannot load it.
    """
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
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"ONNX Runtime cannot load the model: {first_line[:300]}") from error


def predict(session: Any, task: Task, split: Split = "validation") -> tuple[Any, Any]:
    """Outputs and targets of ``session`` on a split, in the order of :meth:`Task.predict`.

    Raises:
        JobFailed: If the model's inputs do not match the task's.
    """
    outputs, targets = [], []
    with seeded(ORDER_SEED):
        for batch in task.loader(split):
            inputs, target = as_pair(batch, split)
            outputs.append(_answer(session, inputs))
            targets.append(target)
    return concatenate(outputs), concatenate(targets)


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
        seconds: Time to spend on timed runs; a tenth of it warms up first.

    Raises:
        InputError: If the model cannot be loaded.
    """
    session = open_session(model, threads)
    feeds = _random_feeds(session, batch)
    _run_for(session, feeds, seconds / 10)
    times = sorted(_run_for(session, feeds, seconds))
    return Measurement(
        median_ms=statistics.median(times),
        low_ms=times[int(0.05 * (len(times) - 1))],
        high_ms=times[int(0.95 * (len(times) - 1))],
        runs=len(times),
        threads=threads,
        batch=batch,
    )


def _answer(session: Any, inputs: Any) -> Any:
    names = [entry.name for entry in session.get_inputs()]
    if isinstance(inputs, Mapping):
        feeds = {name: value.numpy() for name, value in inputs.items() if name in names}
    else:
        values: Iterable[Tensor] = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        feeds = {name: value.numpy() for name, value in zip(names, values, strict=False)}
    if len(feeds) != len(names):
        raise JobFailed(f"the model takes the inputs {names}; the task's batches give {len(feeds)} of them")
    answers = [torch.from_numpy(np.asarray(answer)) for answer in session.run(None, feeds)]
    return answers[0] if len(answers) == 1 else tuple(answers)


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
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - start) * 1e3)
    return times
