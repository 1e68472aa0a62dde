"""ONNX Runtime: what an artifact really answers, and with which kernels."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
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


def _feeds(session: Any, inputs: Any) -> dict[str, npt.NDArray[Any]]:
    names = [entry.name for entry in session.get_inputs()]
    given = [str(name) for name in inputs] if isinstance(inputs, Mapping) else names[: len(leaves(inputs))]
    if sorted(given) != sorted(names) or len(leaves(inputs)) != len(names):
        got = given if isinstance(inputs, Mapping) else f"{len(leaves(inputs))} tensors"
        raise JobFailed(f"the model takes the inputs {names}; the task's batches give {got}")
    return {name: leaf.detach().cpu().numpy() for name, leaf in zip(given, leaves(inputs), strict=True)}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
