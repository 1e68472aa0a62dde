"""A search in TensorBoard: event files beside the run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kneepoint.search.callbacks import Callback
from kneepoint.search.front import Front
from kneepoint.search.progress import Status
from kneepoint.search.record import Record
from kneepoint.tasks.errors import JobError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FILES = "events.out.tfevents.*"


class TensorBoardCallback(Callback):
    """Writes files that ``tensorboard --logdir RUN/tensorboard`` shows while a search goes on.

    The n-th trial is step n of the scalars ``trials/OBJECTIVE``, ``hypervolume`` (of the front before it) and
    ``failures``. Why a trial failed, and of which policy, is the text ``failure``; the front is, at the end, the text
    ``front``. A resumed search goes on after the last step.

    Where the files cannot be written any more, the search goes on without them, after one warning.

    Args:
        directory: Of the files, for one run alone; by default ``tensorboard`` in the run directory.

    Raises:
        JobError: If TensorBoard is not installed.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        _require_tensorboard()
        self.directory = None if directory is None else Path(directory)
        self._writer: SummaryWriter | None = None
        self._step = 0

    def started(self, job: Mapping[str, Any], directory: Path) -> None:
        """Open a file after those of earlier processes.

        Raises:
            JobError: If there can be none.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder = self.directory or directory / "tensorboard"
        self._writer = None
        try:
            self._step = _last_step(folder)
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            reason = f"TensorBoardCallback writes to {folder}, which fails: {error.strerror or error}"
            raise JobError(f"{reason}; give it another directory") from error

    def trial_ended(self, record: Record, status: Status) -> None:
        """Write the next step."""
        self._step += 1
        self._write(lambda writer: _write_trial(writer, record, status, self._step))

    def ended(self, front: Front | None, directory: Path) -> None:
        """Write the front, and close the file."""
        if front is not None:
            self._write(lambda writer: writer.add_text("front", _table_of(front), self._step))
        writer, self._writer = self._writer, None
        _close(writer)

    def _write(self, action: Callable[[SummaryWriter], None]) -> None:
        """Write to disk at once, so that a process that is killed leaves all trials behind; or give up."""
        if self._writer is None:
            return
        try:
            action(self._writer)
            self._writer.flush()
        except OSError as error:
            broken, self._writer = self._writer, None
            _close(broken)
            told = f"TensorBoard's files cannot be written, and the search goes on without them: {error}"
            warnings.warn(told, stacklevel=3)


def _require_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401 - whether it is there
    except ImportError as error:
        told = f"TensorBoardCallback needs TensorBoard ({error}); pip install 'kneepoint[tensorboard]'"
        raise JobError(told) from error


def _last_step(folder: Path) -> int:
    """Of all files in ``folder``; 0 where there are none. What a crash cut off is passed over."""
    from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]  # has no types
        EventFileLoader,
    )

    files = [EventFileLoader(str(path)) for path in folder.glob(_FILES)]
    return max((int(event.step) for file in files for event in file.Load()), default=0)


def _write_trial(writer: SummaryWriter, record: Record, status: Status, step: int) -> None:
    for name, value in record.values.items():
        writer.add_scalar(f"trials/{name}", value, step)
    writer.add_scalar("hypervolume", status.hypervolume, step)
    writer.add_scalar("failures", status.failed, step)
    if record.error is not None:
        writer.add_text("failure", _failure_of(record), step)


def _failure_of(record: Record) -> str:
    """Markdown: the reason, and the policy as an indented block."""
    policy = json.dumps(record.policy.to_json(), indent=1)
    block = "\n".join(f"    {line}" for line in policy.splitlines())
    return f"{record.id}: {record.error}\n\n{block}"


def _table_of(front: Front) -> str:
    """Markdown: the hypervolume, and a row a candidate."""
    names = [axis.name for axis in front.axes]
    rows = [[one.id, one.fidelity, *(f"{one.values[name]:.6g}" for name in names)] for one in front]
    head = ["id", "fidelity", *names]
    table = "\n".join(_row(cells) for cells in (head, ["---"] * len(head), *rows))
    return f"hypervolume {front.hypervolume:.6g}\n\n{table}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _close(writer: SummaryWriter | None) -> None:
    """Also one that cannot be written to, whose own ``close`` would leave its thread behind."""
    file: Any = None if writer is None else writer.file_writer
    if file is not None:
        with suppress(OSError):
            file.close()
