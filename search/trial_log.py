"""The truth of a run: ``trials.jsonl``, appended and synced when a trial ends."""

from __future__ import annotations

import os
from pathlib import Path

from kneepoint.search.record import Fidelity, Record
from kneepoint.tasks.errors import RunError


class TrialLog:
    """An append-only file of records, one a (policy, fidelity).

    Opening it reads what is there. A last line without its line break was cut off by a crash, and is removed.

    Args:
        path: The file; made by the first append.

    Raises:
        RunError: If a whole line is not a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[tuple[str, Fidelity], Record] = {}
        if path.exists():
            self._read()

    @property
    def records(self) -> list[Record]:
        """In the order they ended."""
        return list(self._records.values())

    def find(self, policy_id: str, fidelity: Fidelity) -> Record | None:
        """The record of a policy at a fidelity, if there is one."""
        return self._records.get((policy_id, fidelity))

    def append(self, record: Record) -> None:
        """Write ``record`` durably; when this returns, it survives the loss of the process.

        Raises:
            RunError: If the policy has a record at this fidelity already, or the file cannot be written.
        """
        key = (record.policy.id, record.fidelity)
        if key in self._records:
            raise RunError(f"the log holds one record a policy and fidelity; {record.id} is there already")
        try:
            with self.path.open("ab") as file:
                file.write((record.to_line() + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}; free the disk and resume the run") from error
        self._records[key] = record

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            with self.path.open("r+b") as file:
                file.truncate(len(data) - len(torn))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = Record.from_line(line.decode())
            except (RunError, UnicodeDecodeError) as error:
                raise RunError(f"{self.path}, line {number}: {error}") from error
            self._records[(record.policy.id, record.fidelity)] = record
