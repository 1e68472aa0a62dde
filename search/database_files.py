"""Files of a run in a database, for drivers that have different folders."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, select

from kneepoint.search.database_connection import Database
from kneepoint.search.database_tables import FILES, insert_if_missing
from kneepoint.tasks.errors import RunError


class SharedFiles:
    """Trained students and stored networks, by name.

    Args:
        database: That holds the run.
        run: Its name.
    """

    def __init__(self, database: Database, run: str) -> None:
        self._database = database
        self._run = run

    def put(self, name: str, data: bytes) -> None:
        """Keep a file; one of that name stays as it is, since names say the content or what it was made from."""
        content = hashlib.sha256(data).hexdigest()

        def work(connection: Connection) -> None:
            there = select(FILES.c.name).where(FILES.c.run == self._run, FILES.c.name == name)
            if connection.execute(there).first() is None:  # asked first, since networks are large
                insert_if_missing(connection, FILES, run=self._run, name=name, sha256=content, data=data)

        self._database.transact(work)

    def names(self) -> set[str]:
        """Of all files."""
        query = select(FILES.c.name).where(FILES.c.run == self._run)
        return set(self._database.transact(lambda connection: connection.execute(query).scalars().all()))

    def get(self, name: str) -> bytes:
        """The content of a file, checked.

        Raises:
            RunError: If there is none of that name, or its content was damaged.
        """
        query = select(FILES.c.sha256, FILES.c.data).where(FILES.c.run == self._run, FILES.c.name == name)
        row = self._database.transact(lambda connection: connection.execute(query).first())
        where = f"{self._database.place} (run {self._run})"
        if row is None:
            raise RunError(f"{where} holds no file {name!r}; see that the driver which made it shares the run")
        data = bytes(row.data)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise RunError(f"{where}: file {name!r} was changed or damaged; delete its row and resume the run")
        return data
