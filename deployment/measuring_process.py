"""The fresh process that times models, and the lock that lets one of them run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from kneepoint.deployment.machine import cores_for
from kneepoint.tasks.errors import InputError, JobFailed

_PROGRAM = Path(__file__).with_name("measuring_worker.py")


@dataclass(frozen=True)
class Timed:
    """A model and how it is run.

    Attributes:
        model: A file, or the serialized model.
        batch: Size of free batch dimensions.
        sizes: Of other free dimensions, by name.
    """

    model: str | Path | bytes
    batch: int
    sizes: Mapping[str, int]

    @property
    def prefix(self) -> str:
        """What an error begins with."""
        return "" if isinstance(self.model, bytes) else f"{self.model}: "


class MeasuringProcess:
    """A program that imports nothing but ONNX Runtime and NumPy: none of the caller's threads, caches or allocations.

    A context manager; the process ends with it, however it ends. It waits for other measurements on this machine.

    Args:
        models: What is timed: one, or several in turns.
        threads: Inside an operator; each has a core of its own.

    Attributes:
        batches: The batch that each model runs at.

    Raises:
        InputError: If a model is missing, cannot be loaded or run, or there are not as many cores as threads.
        JobFailed: If the process dies.
    """

    def __init__(self, models: Sequence[Timed], threads: int) -> None:
        self._models = models
        self._threads = threads
        self._cores = cores_for(threads)
        self._stack = ExitStack()
        self.batches: list[int] = []

    def __enter__(self) -> MeasuringProcess:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def round(self, seconds: float) -> dict[str, list[float]]:
        """One round of about so many seconds, as the worker's ``summary`` gives it."""
        answer: dict[str, list[float]] = self._ask({"seconds": seconds})
        return answer

    def _start(self) -> None:
        self._stack.enter_context(machine_lock())
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kneepoint-")))
        entries = [
            {"path": _file(one.model, folder, index), "threads": self._threads, "batch": one.batch, "sizes": one.sizes}
            for index, one in enumerate(self._models)
        ]
        self._log = self._stack.enter_context((folder / "log").open("w+"))
        self._process = self._stack.enter_context(_running(self._log))
        self.batches = self._ask({"cores": self._cores, "models": entries, "seed": 0})["batches"]

    def _ask(self, request: Mapping[str, Any]) -> Any:
        questions, answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            questions.write(json.dumps(request) + "\n")
            questions.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise JobFailed(f"the process that measures ended unexpectedly ({self._last_words()})")
        answer = json.loads(line)
        if "error" in answer:
            raise InputError(self._models[answer["model"]].prefix + answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f"{f'signal {-code}' if code < 0 else f'exit code {code}'}{': ' + lines[-1] if lines else ''}"


@contextmanager
def machine_lock() -> Iterator[None]:
    """Held by one process of a user at a time, on this machine; the others wait. It ends with the process."""
    path = Path(tempfile.gettempdir()) / f"kneepoint-measuring-{os.getuid()}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _running(log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", str(_PROGRAM)]  # -P: the folder of the program is none to import from
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process:  # noqa: S603 - our own program, by its path.
        try:
            yield process
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # what it did not live to read
                cast("IO[str]", process.stdin).close()


def _file(model: str | Path | bytes, folder: Path, index: int) -> str:
    """The path of a model; one that has none yet is written into ``folder``."""
    if isinstance(model, bytes):
        path = folder / f"{index}.onnx"
        path.write_bytes(model)
        return str(path)
    if not Path(model).is_file():
        raise InputError(f"a model is an ONNX file; there is none at {model}")
    return str(model)
