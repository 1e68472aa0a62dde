"""The URL of a database that holds a run's trial log."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kneepoint.tasks.errors import JobError, nearest

RULE = "storage is the URL of a PostgreSQL database (postgresql://USER:PASSWORD@HOST/NAME) or sqlite:///FILE"
_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
}


def storage_url(text: str) -> URL:
    """``text``, read, with the driver to use.

    Raises:
        JobError: If it is no URL of a database that drivers can share; without the password that may be in it.
    """
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):  # their words might hold a part of the password
        raise JobError(f"{RULE}; got {_without_secrets(str(text))}") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise JobError(f"{RULE}; got {parsed.drivername!r}: {nearest(parsed.drivername, _DRIVERS)}")
    if driver == "sqlite" and (
        not parsed.database or "memory" in (parsed.database.strip(":"), parsed.query.get("mode"))
    ):
        raise JobError(f"{RULE}; got a database in memory, which no other driver can reach: name a file")
    return parsed.set(drivername=driver)


def _without_secrets(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return repr(f"{scheme}://...") if found else repr(url) if "@" not in rest + scheme else "a text without '://'"


def without_password(text: str) -> str:
    """A URL as it may be written down: whoever resumes gives the password anew, by PGPASSWORD or ~/.pgpass.

    Raises:
        JobError: If it is no URL of a database.
    """
    url = storage_url(text)
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return bare.render_as_string()
