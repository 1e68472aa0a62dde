"""The tables of runs in a database, and what two kinds of databases say differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from kneepoint.tasks.errors import RunError

_TABLES = MetaData()

RUNS = Table(
    "kneepoint_runs",
    _TABLES,
    Column("run", Text, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),  # of its records
    Column("joined", Integer, nullable=False),  # drivers so far
)
RECORDS = Table(
    "kneepoint_records",
    _TABLES,
    Column("run", Text, primary_key=True),
    Column("policy_id", Text, primary_key=True),
    Column("fidelity", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("line", Text, nullable=False),
    Column("driver", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("appended_at", Double, nullable=False),  # Unix time
    UniqueConstraint("run", "sequence"),
)
CLAIMS = Table(
    "kneepoint_claims",
    _TABLES,
    Column("run", Text, primary_key=True),
    Column("policy_id", Text, primary_key=True),
    Column("fidelity", Text, primary_key=True),
    Column("driver", Text, nullable=False),
)
DRIVERS = Table(
    "kneepoint_drivers",
    _TABLES,
    Column("run", Text, primary_key=True),
    Column("driver", Text, primary_key=True),
    Column("number", Integer, nullable=False),  # in order of joining
    Column("session", Text, nullable=False),  # another one whenever the driver joins again
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("machine", Text, nullable=False),  # within which the pid is unique
    Column("started", Text, nullable=False),  # when the process was, by the clock of the machine
    Column("beat", Double),  # Unix time; null where it left
)
FILES = Table(
    "kneepoint_files",
    _TABLES,
    Column("run", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
_CREATION_LOCK = int.from_bytes(b"kneepoin")


def create_tables(connection: Connection) -> None:
    """Make the tables that are missing; others may do so at the same time."""
    if _is_postgresql(connection):
        # Also CREATE TABLE IF NOT EXISTS fails in one of two sessions that do it at the same time.
        connection.execute(select(func.pg_advisory_xact_lock(literal(_CREATION_LOCK, BigInteger))))
    _TABLES.create_all(connection)


def insert_if_missing(connection: Connection, table: Table, **values: Any) -> None:
    """Insert a row unless there is one of that key."""
    insert = postgresql.insert if _is_postgresql(connection) else sqlite.insert
    connection.execute(insert(table).values(values).on_conflict_do_nothing())


def lock_run(connection: Connection, run: str) -> None:
    """Let no other driver change the run until this transaction ends.

    Raises:
        RunError: If somebody deleted the run.
    """
    # SQLite knows no such lock and needs none: there a transaction is alone from its beginning.
    if connection.execute(select(RUNS.c.run).where(RUNS.c.run == run).with_for_update()).first() is None:
        raise RunError(f"run {run} was deleted from the database while a driver was at work; start it again")


def clock(connection: Connection) -> ColumnElement[float]:
    """Unix time now, by the database's clock: the only one that all drivers share."""
    if _is_postgresql(connection):
        return cast(func.extract("epoch", func.clock_timestamp()), Double)
    return (func.julianday("now") - 2440587.5) * 86400.0


def serving_since(connection: Connection) -> ColumnElement[float]:
    """Unix time at which the server started; before, nobody could reach it."""
    if _is_postgresql(connection):
        return cast(func.extract("epoch", func.pg_postmaster_start_time()), Double)
    return literal(0.0)


def _is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
