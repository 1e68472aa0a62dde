"""URLs of databases, and what of them may be written down."""

from __future__ import annotations

import pytest

from kneepoint.search.storage_url import storage_url, without_password
from kneepoint.tasks.errors import JobError


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_goes_through_psycopg(scheme: str) -> None:
    url = storage_url(f"{scheme}://me:s3cret@host:5432/runs")
    assert (url.drivername, url.host, url.port, url.database) == ("postgresql+psycopg", "host", 5432, "runs")


def test_the_password_is_left_out() -> None:
    assert without_password("postgresql://me:s3cret@host/runs") == "postgresql+psycopg://me@host/runs"
    assert without_password("sqlite:///runs.db") == "sqlite:///runs.db"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("postgresql://me:s3cret@host:port/runs", "'postgresql://...'"),
        ("me:s3cret@host", "a text without '://'"),
        ("mysql://me:s3cret@host/runs", "'mysql'"),
        ("sqlite://", "a database in memory"),
    ],
)
def test_what_is_no_storage_is_refused_without_its_password(text: str, got: str) -> None:
    with pytest.raises(JobError, match="storage is the URL of a PostgreSQL database") as refused:
        storage_url(text)
    assert got in str(refused.value)
    assert "s3cret" not in str(refused.value)
