"""The truth of a run that several drivers share: a table of records in a database."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, delete, insert, select, update

from kneepoint.search.database_connection import Database
from kneepoint.search.database_drivers import Membership
from kneepoint.search.database_files import SharedFiles
from kneepoint.search.database_tables import (
    CLAIMS,
    RECORDS,
    RUNS,
    clock,
    create_tables,
    lock_run,
)
from kneepoint.search.job import IDENTITY
from kneepoint.search.record import Fidelity, Record
from kneepoint.tasks.errors import RunError

_Key = tuple[str, Fidelity]


class DatabaseLog:
    """The records of a run, one a (policy, fidelity), in the order in which they were committed.

    Whoever changes a run locks its row in ``kneepoint_runs`` first and gives it back with the commit. So records get
    their sequence numbers in the order in which they become visible. A sequence of the database would not do: its
    numbers are drawn before the commit, and a driver that had read up to 5 would never see a 4 that was committed
    later.

    Args:
        url: ``postgresql://...`` or ``sqlite:///FILE``; tables are made where they are missing.
        run: The run's name, from :func:`run_name`.
        name: This driver's, unique within the run; one is made up by default. A driver that left or died may come back
            under its name, and then has its number again.

    Attributes:
        run: As given.
        name: As given, or made up.

    Raises:
        JobError: If the URL is malformed, or psycopg is not installed.
        RunError: If the database cannot be reached or used, or a driver of that name is at work.
    """

    def __init__(self, url: str, run: str, name: str | None = None) -> None:
        self.run = run
        self._kept: dict[_Key, tuple[int, Record]] = {}
        self._own: set[_Key] = set()
        self._failed = 0
        self._heard = 0  # the last record that was asked for
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._database = Database(url)
        self._files = SharedFiles(self._database, run)
        try:
            self._database.transact(create_tables)
            self.refresh()
            self._membership = Membership(self._database, run, self.name)
        except BaseException:
            self._database.close()
            raise

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def records(self) -> list[Record]:
        """In the order they ended, which is the same for every driver that has heard of the same ones."""
        return [record for _, record in sorted(self._kept.values(), key=operator.itemgetter(0))]

    @property
    def failed(self) -> int:
        """How many records are of failures."""
        return self._failed

    @property
    def place(self) -> str:
        """Where they are kept, for messages; without passwords."""
        return f"{self._database.place} (run {self.run})"

    @property
    def driver(self) -> int:
        """This driver's number: 0 for the first that joined the run, 1 for the second, and so on."""
        return self._membership.number

    def find(self, policy_id: str, fidelity: Fidelity) -> Record | None:
        """The record of a policy at a fidelity, as far as this driver has heard."""
        kept = self._kept.get((policy_id, fidelity))
        return None if kept is None else kept[1]

    def claim(self, policy_id: str, fidelity: Fidelity) -> bool:
        """Whether this driver is to measure it: there is no record, and no other driver that lives claimed it.

        What another driver claimed is free as soon as it closes its log, or its process is gone from this machine, or
        it has been silent for ``DEAD_SECONDS``.

        Raises:
            RunError: If the database cannot be used.
        """
        key = (policy_id, fidelity)
        return key not in self._kept and self._database.transact(lambda connection: self._claim(connection, key))

    def append(self, record: Record) -> Record:
        """Keep ``record`` durably, and give up its claim.

        Returns:
            What is kept: another driver's, where that was faster; :meth:`refresh` does not tell of it again.

        Raises:
            RunError: If this driver has appended it before, or the database cannot be used.
        """
        key = (record.policy.id, record.fidelity)
        if key in self._own:
            raise RunError(f"the log holds one record a policy and fidelity; {record.id} is there already")
        row = self._database.transact(lambda connection: self._append(connection, key, record))
        if key not in self._kept:
            self._remember(row.sequence, record if row.line == record.to_line() else self._record(row))
        if row.driver == self.name:
            self._own.add(key)
        return self._kept[key][1]

    def refresh(self) -> list[Record]:
        """What other drivers appended since the last call, in order.

        Raises:
            RunError: If the database cannot be used, or holds what is no record.
        """
        rows, last = self._database.transact(self._news)
        fresh = [(row.sequence, self._record(row)) for row in rows if (row.policy_id, row.fidelity) not in self._kept]
        for sequence, record in fresh:
            self._remember(sequence, record)
        self._own.update((row.policy_id, row.fidelity) for row in rows if row.driver == self.name)
        self._heard = last
        return [record for _, record in fresh]

    def put_file(self, name: str, data: bytes) -> None:
        """Share a file with the other drivers; one of that name stays as it is.

        Raises:
            RunError: If the database cannot be used.
        """
        self._files.put(name, data)

    def file_names(self) -> set[str]:
        """Of the files that drivers of this run shared.

        Raises:
            RunError: If the database cannot be used.
        """
        return self._files.names()

    def get_file(self, name: str) -> bytes:
        """The content of a shared file.

        Raises:
            RunError: If there is none of that name, its content was damaged, or the database cannot be used.
        """
        return self._files.get(name)

    def close(self) -> None:
        """Let others have what was claimed and not appended, and close the connections."""
        self._membership.leave()
        self._database.close()

    def _claim(self, connection: Connection, key: _Key) -> bool:
        lock_run(connection, self.run)
        if connection.execute(select(RECORDS.c.id).where(self._at(RECORDS, key))).first() is not None:
            return False
        holder = connection.execute(select(CLAIMS.c.driver).where(self._at(CLAIMS, key))).scalar()
        if holder == self.name:
            return True
        if holder is None:
            row = {"run": self.run, "policy_id": key[0], "fidelity": key[1], "driver": self.name}
            connection.execute(insert(CLAIMS).values(row))
            return True
        if self._membership.lives(connection, holder):
            return False
        connection.execute(update(CLAIMS).where(self._at(CLAIMS, key)).values(driver=self.name))
        return True

    def _append(self, connection: Connection, key: _Key, record: Record) -> Row[Any]:
        lock_run(connection, self.run)
        row = connection.execute(select(RECORDS).where(self._at(RECORDS, key))).first()
        if row is not None:  # another driver's, or ours where the answer to the first attempt was lost
            return row
        one_more = update(RUNS).where(RUNS.c.run == self.run).values(last_sequence=RUNS.c.last_sequence + 1)
        content = {
            "run": self.run,
            "policy_id": key[0],
            "fidelity": key[1],
            "id": record.id,
            "line": record.to_line(),
            "driver": self.name,
            "sequence": connection.execute(one_more.returning(RUNS.c.last_sequence)).scalar_one(),
            "appended_at": clock(connection),
        }
        connection.execute(delete(CLAIMS).where(self._at(CLAIMS, key)))
        return connection.execute(insert(RECORDS).values(content).returning(RECORDS)).one()

    def _news(self, connection: Connection) -> tuple[Sequence[Row[Any]], int]:
        """Rows that were not heard of, and the number of the last."""
        last = connection.execute(select(RUNS.c.last_sequence).where(RUNS.c.run == self.run)).scalar() or 0
        if last == self._heard:
            return [], last
        unheard = and_(RECORDS.c.run == self.run, RECORDS.c.sequence > self._heard, RECORDS.c.sequence <= last)
        if self._heard or self._own:  # what was appended here need not come back
            unheard = and_(unheard, RECORDS.c.driver != self.name)
        return connection.execute(select(RECORDS).where(unheard).order_by(RECORDS.c.sequence)).all(), last

    def _at(self, table: Table, key: _Key) -> ColumnElement[bool]:
        return and_(table.c.run == self.run, table.c.policy_id == key[0], table.c.fidelity == key[1])

    def _record(self, row: Row[Any]) -> Record:
        try:
            record = Record.from_line(row.line)
            if (record.policy.id, record.fidelity) != (row.policy_id, row.fidelity):
                raise RunError(f"it is that of {record.id}")
        except RunError as error:
            raise RunError(f"{self.place}, record {row.id}: {error}; restore the row or remove it") from error
        return record

    def _remember(self, sequence: int, record: Record) -> None:
        self._kept[record.policy.id, record.fidelity] = (sequence, record)
        self._failed += record.scores is None


def run_name(job_json: Mapping[str, Any]) -> str:
    """The name of a job's run: jobs that may go on with one another's run have the same.

    It is the first 16 hexadecimal digits of the SHA-256 of what ``IDENTITY`` names, in canonical JSON: sorted keys, no
    blanks, whole numbers without a fraction (as in RFC 8785), so that 1 and 1.0 are as equal as Python has them.
    """
    identity = {key: _canonical(job_json.get(key)) for key in IDENTITY}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
