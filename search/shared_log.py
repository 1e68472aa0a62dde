"""A trial log in a database, with its export in the run directory, and the files that its records speak of."""

from __future__ import annotations

from kneepoint.search.database_log import DatabaseLog
from kneepoint.search.record import Fidelity, Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trial_log import TrialLog


class SharedLog:
    """What several drivers, each with a directory of its own, know of one run.

    A record is in the database before it is in ``trials.jsonl``; the students and networks that it needs are there
    before the record is. A file that holds more than the database (a run that began without one) is put there first.

    Args:
        database: The truth.
        directory: Of this driver.
    """

    def __init__(self, database: DatabaseLog, directory: RunDirectory) -> None:
        self._database = database
        self._directory = directory
        self._export: TrialLog = directory.log()
        self._shared = database.file_names()
        self._share_files()
        for record in self._export.records:
            if database.find(record.policy.id, record.fidelity) is None:
                database.append(record)
        self._fetch_files()
        for record in database.records:
            self._exported(record)

    def __len__(self) -> int:
        return len(self._database)

    @property
    def records(self) -> list[Record]:
        """In the order they ended."""
        return self._database.records

    @property
    def failed(self) -> int:
        """How many of them are of failures."""
        return self._database.failed

    @property
    def place(self) -> str:
        """Both places."""
        return f"{self._database.place}, exported to {self._export.place}"

    @property
    def driver(self) -> int:
        """This driver's number, in the order in which they joined the run."""
        return self._database.driver

    def find(self, policy_id: str, fidelity: Fidelity) -> Record | None:
        """The record of a policy at a fidelity, as far as this driver has heard."""
        return self._database.find(policy_id, fidelity)

    def claim(self, policy_id: str, fidelity: Fidelity) -> bool:
        """Whether this driver is to measure it."""
        return self._database.claim(policy_id, fidelity)

    def append(self, record: Record) -> Record:
        """Keep ``record``, with what it stored; returns what is kept."""
        self._share_files()
        return self._exported(self._database.append(record))

    def refresh(self) -> list[Record]:
        """What other drivers appended since the last call."""
        records = self._database.refresh()
        if records:
            self._fetch_files()
        return [self._exported(record) for record in records]

    def close(self) -> None:
        """Let others have what was claimed and not appended."""
        self._database.close()

    def _exported(self, record: Record) -> Record:
        if self._export.find(record.policy.id, record.fidelity) is None:
            self._export.append(record)
        return record

    def _share_files(self) -> None:
        """Those that this directory has and the database has not."""
        for name in sorted(self._directory.stored_names() - self._shared):
            self._database.put_file(name, self._directory.stored(name).read_bytes())
            self._shared.add(name)

    def _fetch_files(self) -> None:
        """Those that the database has and this directory has not: weights before what names them."""
        self._shared |= self._database.file_names()
        missing = self._shared - self._directory.stored_names()
        for name in sorted(missing, key=lambda one: one.endswith(".json")):
            self._directory.keep(name, self._database.get_file(name))
