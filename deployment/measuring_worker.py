"""The process that times models: a program of its own, which imports nothing but ONNX Runtime and NumPy.

It reads lines of JSON and answers each with one. The first line is the request: ``cores`` to run on, ``models`` (each
with ``path``, ``threads``, ``batch``, ``sizes``) and ``seed``; the answer says what every input is. Every further line
asks for one round of so many ``seconds``, opened anew; the answer is its times. The end of the input ends the program.
What is wrong with a model is answered as ``{"error": ..., "model": index}``.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

BLOCK_MS = 5.0
"""Runs of one model that follow each other before it is the other's turn: short against drift, long against the first
run, which finds the other model's data in the caches and is not timed."""
FEWEST_BLOCKS = 3
STABLE = 0.98
"""Warm-up ends when a block is no faster than this part of the one before."""
MOST_WARM_UP = 20
PADDING_BYTES = 1 << 20
_SILENT = 4  # severity: fatal only; what goes wrong is raised, and would be written to standard error a second time
_DTYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class ModelError(Exception):
    """A model cannot be timed."""


@dataclass(frozen=True)
class Model:
    """What is timed.

    Attributes:
        path: Of the ONNX file.
        threads: Inside an operator.
        batch: The size of a free first dimension, and of others of its name.
        sizes: Of other free dimensions, by name.
    """

    path: str
    threads: int
    batch: int
    sizes: Mapping[str, int]


class OpenModel:
    """A session with inputs for it.

    Raises:
        ModelError: If the model cannot be loaded, or no inputs can be made up for it.
    """

    def __init__(self, model: Model) -> None:
        options = onnxruntime.SessionOptions()  # the defaults: a user's session has them, too
        options.intra_op_num_threads = model.threads
        options.log_severity_level = _SILENT
        try:
            self.session: Any = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated types
            raise ModelError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error
        entries = self.session.get_inputs()
        sizes = free_sizes(entries, model)
        self.feeds = {entry.name: _made_up(entry, sizes) for entry in entries}

    @property
    def batch(self) -> int:
        """The first dimension of the first input that has one."""
        return next((feed.shape[0] for feed in self.feeds.values() if feed.ndim), 1)

    def block(self, runs: int) -> list[float]:
        """Milliseconds of ``runs`` runs.

        Raises:
            ModelError: If the model does not run.
        """
        times = []
        try:
            for _ in range(runs):
                start = time.perf_counter_ns()
                self.session.run(None, self.feeds)
                times.append((time.perf_counter_ns() - start) / 1e6)
        except Exception as error:  # onnxruntime raises its own unrelated types
            raise ModelError(f"the model does not run on random inputs: {_first_line(error)}") from error
        return times

    def warm_up(self) -> int:
        """Run until it gets no faster; how many runs make a block."""
        before = self.block(2)[-1]
        for _ in range(MOST_WARM_UP):
            now = float(np.median(self.block(_runs(before))))
            if now >= STABLE * before:
                break
            before = now
        return _runs(before)


def free_sizes(entries: Sequence[Any], model: Model) -> dict[str | None, int]:
    """The size of every free dimension, by name.

    Raises:
        ModelError: If one that is not the batch has no size, or a size is for none.
    """
    firsts = [entry.shape[0] for entry in entries if entry.shape]
    found: dict[str | None, int] = {name: model.batch for name in firsts if isinstance(name, str)}
    named = {size for entry in entries for size in entry.shape if isinstance(size, str)}
    if unknown := sorted(model.sizes.keys() - named):
        raise ModelError(f"the model has no free dimension {unknown[0]!r}; it has {sorted(named) or 'none'}")
    found.update(model.sizes)
    for entry in entries:
        for axis, size in enumerate(entry.shape):
            if not isinstance(size, int) and size not in found and (axis or size is not None):
                what, way = (repr(size), f"--size {size}=N") if size else ("without a name", "a fixed size in the file")
                raise ModelError(f"axis {axis} of input {entry.name!r} is free ({what}); give it a size: {way}")
    return {None: model.batch, **found}


def _runs(milliseconds: float) -> int:
    """How many runs make a block."""
    return max(1, int(BLOCK_MS / milliseconds))


def _made_up(entry: Any, sizes: Mapping[str | None, int]) -> npt.NDArray[Any]:
    """Noise for floats; zeros for integers, which are within any table."""
    dtype = _DTYPES.get(entry.type)
    if dtype is None:
        raise ModelError(f"input {entry.name!r} has type {entry.type}; measured are {sorted(_DTYPES)}")
    shape = [size if isinstance(size, int) else sizes[size] for size in entry.shape]
    if np.issubdtype(np.dtype(dtype), np.floating):
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


def time_round(models: Sequence[Model], seconds: float, rng: np.random.Generator) -> list[list[list[float]]]:
    """Milliseconds of runs, by block, by model: opened anew, warmed up, and in turns.

    Where weights and buffers lie in memory moves a latency by about 1 %, and stays for as long as a session lives. So a
    round opens its own sessions, in an order and behind padding that are drawn anew; and who begins is drawn for
    every pair of blocks.

    Args:
        models: One, or several to compare.
        seconds: For everything, as far as the fewest blocks allow it.
        rng: Draws orders and padding.

    Raises:
        ModelError: If a model cannot be loaded or run; its index is the second argument.
    """
    start = time.perf_counter()
    padding, opened = [], {}
    for index in rng.permutation(len(models)):
        padding.append(np.ones(int(rng.integers(1, PADDING_BYTES)), np.uint8))
        opened[int(index)] = _blamed(int(index), OpenModel, models[index])
    runs = {index: _blamed(index, model.warm_up) for index, model in opened.items()}
    spent = time.perf_counter() - start
    end = time.perf_counter() + max(seconds - spent, spent)  # at least as long as the preparation took
    blocks: list[list[list[float]]] = [[] for _ in models]
    while len(blocks[0]) < FEWEST_BLOCKS or time.perf_counter() < end:
        for index in map(int, rng.permutation(len(models))):
            if len(models) > 1:
                opened[index].block(1)
            blocks[index].append(opened[index].block(runs[index]))
    return blocks


def _blamed(index: int, call: Any, *arguments: Any) -> Any:
    """What ``call`` returns; its error carries the index of the model."""
    try:
        return call(*arguments)
    except ModelError as error:
        raise ModelError(str(error), index) from error


def summary(blocks: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """A round in a line: for every model ``medians``, ``means`` and ``runs``, and the ``ratios`` to the first."""
    runs = [np.concatenate([np.asarray(block) for block in own]) for own in blocks]
    logs = np.log([[np.median(block) for block in own] for own in blocks])
    return {
        "medians": [float(np.median(times)) for times in runs],
        "means": [float(times.mean()) for times in runs],
        "runs": [len(times) for times in runs],
        "ratios": [float(np.exp(np.median(own - logs[0]))) for own in logs],
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _answers() -> Any:
    """The answer to every line of the input."""
    request = json.loads(sys.stdin.readline())
    if request["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    models = [Model(**entry) for entry in request["models"]]
    rng = np.random.default_rng(request["seed"])
    yield {"batches": [_blamed(index, OpenModel, model).batch for index, model in enumerate(models)]}
    for line in sys.stdin:
        yield summary(time_round(models, json.loads(line)["seconds"], rng))


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the caller, too, who then ends the input
    gc.disable()
    try:
        for answer in _answers():
            print(json.dumps(answer), flush=True)
    except ModelError as error:
        text, *index = error.args
        print(json.dumps({"error": text, "model": (index or [0])[0]}), flush=True)


if __name__ == "__main__":
    main()
