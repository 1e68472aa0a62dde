"""A database that several drivers reach: its URL checked, its outages waited out, its errors said in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from kneepoint.search.storage_url import RULE, storage_url
from kneepoint.tasks.errors import JobError, RunError

OUTAGE_SECONDS = 60.0
"""How long a database may be away before the run gives up; a restart takes a few seconds."""
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 5.0
_STUCK_SECONDS = 30
# A connection whose other end vanished without a word would otherwise be waited for a quarter of an hour.
_POSTGRESQL_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * _STUCK_SECONDS,
}
# A driver that is stopped within a transaction holds the lock of its run; the server ends such a session. And what is
# acknowledged is on disk, also where the server's default is to be faster than that.
_POSTGRESQL_SESSION = (
    f"SELECT set_config('idle_in_transaction_session_timeout', '{_STUCK_SECONDS}s', false), CASE "
    "WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END"
)
_T = TypeVar("_T")


class Database:
    """A database, reached.

    Args:
        url: ``postgresql://...`` (through psycopg 3) or ``sqlite:///FILE``.

    Attributes:
        place: The URL without its password and options, for messages.

    Raises:
        JobError: If the URL is none that is known, or the driver is not installed.
        RunError: If the database does not answer.
    """

    def __init__(self, url: str) -> None:
        parsed = storage_url(url)
        shown = {name: value for name, value in parsed.query.items() if name in ("host", "port")}
        self.place = parsed.set(query=shown).render_as_string(hide_password=True)
        try:
            self._engine = _engine(parsed)
            self.transact(lambda connection: connection.execute(text("SELECT 1")), patience=0)
        except (ArgumentError, ValueError, TypeError):  # their words might hold a part of the password
            raise JobError(f"{RULE}; an option or the port of {self.place} cannot be read: correct it") from None
        except RunError:
            self.close()
            raise

    def transact(self, work: Callable[[Connection], _T], patience: float | None = None) -> _T:
        """What ``work`` returns, committed.

        ``work`` is done again where the connection was lost, and then finds what it did where that had been committed
        and only the answer was lost; so it has to be such that this is right.

        Args:
            work: Statements of one transaction, without other effects.
            patience: Seconds that an outage may take; by default ``OUTAGE_SECONDS``.

        Raises:
            RunError: If the outage takes longer, or the database refuses.
        """
        patience = OUTAGE_SECONDS if patience is None else patience
        deadline, wait = time.monotonic() + patience, _FIRST_WAIT
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _may_pass(error) or time.monotonic() + wait > deadline:
                    raise RunError(self._complaint(error, patience)) from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def _complaint(self, error: DBAPIError, patience: float) -> str:
        # The database's words alone: SQLAlchemy's own would add the statement.
        reason = " ".join(str(error.orig).split())[:300]
        if not patience:
            return f"cannot reach {self.place}: {reason}; check the URL, and that the database runs"
        if not _may_pass(error):
            return f"cannot use {self.place}: {reason}; set the database right and resume the run"
        return f"no use of {self.place} for {patience:g} s: {reason}; see to the database and resume the run"


def _engine(url: URL) -> Engine:
    try:
        if url.drivername == "sqlite":
            return _sqlite_engine(url)
        options = {name: value for name, value in _POSTGRESQL_OPTIONS.items() if name not in url.query}
        # Weaker, a driver could not see what others committed while it waited for a lock; stronger, it would fail.
        engine = create_engine(url, connect_args=options, isolation_level="READ COMMITTED", hide_parameters=True)
    except ImportError as error:
        raise JobError(
            f"PostgreSQL is spoken to through psycopg, which cannot be imported ({error}): "
            "pip install 'kneepoint[postgresql]'"
        ) from error
    event.listen(engine, "connect", _configure_session)
    return engine


def _configure_session(connection: DBAPIConnection, _entry: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(_POSTGRESQL_SESSION)
    cursor.close()
    connection.commit()


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True)
    event.listen(engine, "connect", _let_begin)
    # A transaction that reads first and then writes fails where another wrote in between; so each is a writer at once.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _let_begin(connection: Any, _entry: Any) -> None:
    """Have sqlite3 begin no transactions of its own."""
    connection.isolation_level = None


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same may work later: the connection was lost, or others were in the way."""
    if error.connection_invalidated:
        return True
    if type(error.orig).__module__.startswith("sqlite3"):
        return "locked" in str(error.orig)
    # https://www.postgresql.org/docs/current/errcodes-appendix.html; a failed attempt to connect has no code.
    code = getattr(error.orig, "sqlstate", None)
    if code is None:
        return isinstance(error, OperationalError | InterfaceError)
    return code[:2] in ("08", "40", "57") or code == "53300"
