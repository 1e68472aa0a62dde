"""The drivers of a run in a database: who joined, and who of them is still there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, select, update

from kneepoint.search.database_connection import Database
from kneepoint.search.database_tables import (
    CLAIMS,
    DRIVERS,
    RUNS,
    clock,
    insert_if_missing,
    lock_run,
    serving_since,
)
from kneepoint.tasks.errors import RunError

BEAT_SECONDS = 5.0
"""How often a driver gives a sign of life."""
DEAD_SECONDS = 30.0
"""After so long without one, others may have its claims."""
_LEAVING_SECONDS = 2.0


@dataclass(frozen=True)
class Process:
    """A process, so that others on the same machine can tell whether it is still there.

    Attributes:
        host: The machine's name, for people.
        pid: Within the machine.
        machine: Boot and pid namespace, since two containers may have one name; empty where that cannot be known.
        started: Start time in ticks since the boot, since pids are used again.
    """

    host: str
    pid: int
    machine: str
    started: str

    @classmethod
    def here(cls) -> Process:
        """This process."""
        facts = _state_and_start(os.getpid())
        return cls(socket.gethostname(), os.getpid(), _machine(), facts[1] if facts else "")

    @property
    def gone(self) -> bool:
        """Whether it surely is: one of another machine never is."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            pass
        facts = _state_and_start(self.pid)
        return facts is not None and (facts[0] in "ZX" or facts[1] != self.started)


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Fields 3 and 22 of proc_pid_stat(5); the second field may hold blanks, within parentheses."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


class Membership:
    """A driver's place among those of a run, from joining to leaving.

    Args:
        database: That holds the run.
        run: Its name.
        name: Of the driver, unique within the run; who left or died may join again under the same name.

    Attributes:
        name: As given.
        number: 0 for the first driver that joined the run, 1 for the second, and so on.

    Raises:
        RunError: If a driver of that name is at work.
    """

    def __init__(self, database: Database, run: str, name: str) -> None:
        self.name = name
        self._database = database
        self._run = run
        self._session = uuid.uuid4().hex
        self.number: int = database.transact(self._join)
        self._leaving = threading.Event()
        # A thread, since a measurement keeps the driver busy for minutes; it takes a connection of its own.
        self._thread = threading.Thread(target=self._beat_on, name="kneepoint-beat", daemon=True)
        self._thread.start()

    def lives(self, connection: Connection, name: str) -> bool:
        """Whether the driver of that name is at work still, as far as one can tell from here."""
        row = connection.execute(self._facts(connection).where(self._is(name))).first()
        return row is not None and _lives(row)

    def leave(self) -> None:
        """Free the claims; where the database is away, others find them free after ``DEAD_SECONDS``."""
        if self._leaving.is_set():
            return
        self._leaving.set()
        self._thread.join(_LEAVING_SECONDS)
        with contextlib.suppress(RunError):
            self._database.transact(self._leave, patience=_LEAVING_SECONDS)

    def _join(self, connection: Connection) -> int:
        insert_if_missing(connection, RUNS, run=self._run, last_sequence=0, joined=0)
        lock_run(connection, self._run)
        before = connection.execute(self._facts(connection).where(self._is(self.name))).first()
        if before is None:
            return self._enter(connection)
        if before.session != self._session and _lives(before):  # equal where the answer to the first attempt was lost
            raise RunError(
                f"driver {self.name!r} is at work in this run already, on {before.host} (process {before.pid}); "
                "choose another name, or stop it"
            )
        self._free_claims(connection)
        connection.execute(update(DRIVERS).where(self._is(self.name)).values(self._signs(connection)))
        return int(before.number)

    def _enter(self, connection: Connection) -> int:
        one_more = update(RUNS).where(RUNS.c.run == self._run).values(joined=RUNS.c.joined + 1)
        number = connection.execute(one_more.returning(RUNS.c.joined)).scalar_one() - 1
        signs = self._signs(connection)
        insert_if_missing(connection, DRIVERS, run=self._run, driver=self.name, number=number, **signs)
        return int(number)

    def _leave(self, connection: Connection) -> None:
        lock_run(connection, self._run)
        # Another process may have taken the name over, with the claims, while this one was thought dead.
        left = update(DRIVERS).where(self._is(self.name), DRIVERS.c.session == self._session).values(beat=None)
        if connection.execute(left).rowcount:
            self._free_claims(connection)

    def _free_claims(self, connection: Connection) -> None:
        connection.execute(delete(CLAIMS).where(CLAIMS.c.run == self._run, CLAIMS.c.driver == self.name))

    def _beat_on(self) -> None:
        while not self._leaving.wait(BEAT_SECONDS):
            # Whatever it was, the driver meets it too and says it; the beats go on when it has passed.
            with contextlib.suppress(Exception):
                self._database.transact(self._beat, patience=0)

    def _beat(self, connection: Connection) -> None:
        mine = and_(self._is(self.name), DRIVERS.c.session == self._session, DRIVERS.c.beat.is_not(None))
        connection.execute(update(DRIVERS).where(mine).values(beat=clock(connection)))

    def _is(self, name: str) -> ColumnElement[bool]:
        return and_(DRIVERS.c.run == self._run, DRIVERS.c.driver == name)

    def _signs(self, connection: Connection) -> dict[str, Any]:
        return {"session": self._session, "beat": clock(connection), **asdict(Process.here())}

    def _facts(self, connection: Connection) -> Any:
        """Of drivers, with the seconds since their last beat; while the server was away, nobody could give one."""
        since = serving_since(connection)
        last = case((DRIVERS.c.beat < since, since), else_=DRIVERS.c.beat)
        return select(DRIVERS, (clock(connection) - last).label("silence"))


def _lives(row: Row[Any]) -> bool:
    if row.beat is None or row.silence > DEAD_SECONDS:
        return False
    return not Process(row.host, row.pid, row.machine, row.started).gone
