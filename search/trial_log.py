"""The truth of a run: ``trials.jsonl``, appended and synced when a trial ends."""

from __future__ import annotations

import os
from pathlib import Path

from kneepoint.search.record import Fidelity, Record
from kneepoint.tasks.errors import RunError


class TrialLog:
    """An append-only file of records, one a (policy, fidelity).

    Opening it reads what is there and changes nothing, so that others may look at a run that is under way. What a
    crash or a full disk left behind the last whole line is overwritten by the next append.

    Args:
        path: The file; made by the first append.

    Raises:
        RunError: If a whole line is not a record, or repeats one, or the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[tuple[str, Fidelity], Record] = {}
        self._end = 0  # bytes of whole lines
        self._failed = 0
        if path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def records(self) -> list[Record]:
        """In the order they ended."""
        return list(self._records.values())

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def failed(self) -> int:
        """How many records are of failures."""
        return self._failed

    def find(self, policy_id: str, fidelity: Fidelity) -> Record | None:
        """The record of a policy at a fidelity, if there is one."""
        return self._records.get((policy_id, fidelity))

    @property
    def driver(self) -> int:
        """A file has one driver."""
        return 0

    def claim(self, policy_id: str, fidelity: Fidelity) -> bool:
        """Whether it is to be measured: a file has one driver."""
        return self.find(policy_id, fidelity) is None

    def refresh(self) -> list[Record]:
        """Nothing: a file has one driver."""
        return []

    def close(self) -> None:
        """Nothing is kept open."""

    def append(self, record: Record) -> Record:
        """Write ``record`` durably; when this returns it, it survives the loss of the process and of power.

        Raises:
            RunError: If the policy has a record at this fidelity already, or the file cannot be written.
        """
        if (record.policy.id, record.fidelity) in self._records:
            raise RunError(f"the log holds one record a policy and fidelity; {record.id} is there already")
        line = (record.to_line() + "\n").encode()
        try:
            self._write(line)
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}; make room and resume the run") from error
        self._end += len(line)
        self._remember(record)
        return record

    def _write(self, line: bytes) -> None:
        is_new = not self.path.exists()
        with self.path.open("ab" if is_new else "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.path.parent)

    def _remember(self, record: Record) -> None:
        self._records[record.policy.id, record.fidelity] = record
        self._failed += record.scores is None

    def _read(self) -> None:
        try:
            *lines, _torn = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}; check its permissions") from error
        for number, line in enumerate(lines, 1):
            try:
                record = Record.from_line(line.decode())
            except (RunError, UnicodeDecodeError) as error:
                raise RunError(f"{self.path}, line {number}: {error}; restore the line or remove it") from error
            if self.find(record.policy.id, record.fidelity) is not None:
                raise RunError(f"{self.path}, line {number}: {record.id} is there already; remove one of the lines")
            self._end += len(line) + 1
            self._remember(record)


def _sync_folder(path: Path) -> None:
    """A new file's name is durable only when its folder is."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
