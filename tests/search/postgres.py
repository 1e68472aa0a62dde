"""A real PostgreSQL server on loopback, for tests; and a wire to it that can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

USER, PASSWORD = "kneepoint", "s3cret:/@word"
_DEBIAN = Path("/usr/lib/postgresql")
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off  # what a test writes need not survive the machine
shared_buffers = 16MB
max_connections = 50
"""


def _binaries() -> Path:
    """Where Debian and others put initdb, the newest version first."""
    folders = [*_DEBIAN.glob("*/bin"), *map(Path, os.environ["PATH"].split(os.pathsep))]
    found = [folder for folder in folders if (folder / "initdb").exists()]
    if not found:
        pytest.fail("these tests need a PostgreSQL server, and there is no initdb: apt-get install postgresql")
    return max(found, key=lambda folder: int(folder.parent.name) if folder.parent.name.isdigit() else 0)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """A server with a data folder of its own."""

    def __init__(self) -> None:
        self._binaries = _binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="kneepoint-postgres-"))
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        (password := self.folder / "password").write_text(PASSWORD)
        password.chmod(0o644)
        self._data = self.folder / "data"
        login = [f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={password}"]
        self._do("initdb", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", *login)
        self.port = free_port()
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(f"{_SETTINGS}\nport = {self.port}\n")
        self.start()

    def url(self, database: str = "postgres", *, port: int | None = None, password: str = PASSWORD) -> str:
        """As a user writes it."""
        url = make_url("postgresql://").set(
            username=USER, password=password, host="127.0.0.1", port=port or self.port, database=database
        )
        return url.render_as_string(hide_password=False)

    def new_database(self, name: str) -> str:
        """The URL of an empty database."""
        engine = create_engine(make_url(self.url()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        engine.dispose()
        return self.url(name)

    def start(self) -> None:
        """Returns when it answers."""
        self._do("pg_ctl", "-w", "-s", "-l", str(self.folder / "server.log"), "start")

    def stop(self) -> None:
        """As when the machine fails: no session is asked to end."""
        self._do("pg_ctl", "-w", "-s", "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop it and delete what it wrote."""
        self.stop()
        shutil.rmtree(self.folder)

    def _do(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root. The server inherits the outputs, so these are a file rather than a pipe.
        who = "postgres" if os.getuid() == 0 else None
        command = [str(self._binaries / program), "-D", str(self._data), *arguments]
        with (self.folder / f"{program}.log").open("w+") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd=self.folder, user=who, group=who, check=False)
            log.seek(0)
            assert done.returncode == 0, f"{program}: {log.read()}"


class Wire:
    """A port that leads to a server until it is cut.

    Attributes:
        port: On loopback.
        cut_at: Once a client sends these bytes, the server's answer is awaited, withheld, and the connection cut.
        cuts: How often that happened.
        is_open: Whether new connections get through.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_at: bytes | None = None
        self.is_open = True
        self.cuts = 0
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nobody gets through any more."""
        self.is_open = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the port back."""
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self.is_open:
                    self._ends.append(client)
                    threading.Thread(target=self._carry, args=(client,), daemon=True).start()
                else:
                    client.close()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            self._ends.append(server)
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.cut_at is not None and self.cut_at in data:
                    self._lose_answer(data, target, source)
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _lose_answer(self, data: bytes, server: socket.socket, client: socket.socket) -> None:
        self.cut_at = None
        self.cuts += 1
        client.shutdown(socket.SHUT_RDWR)  # first, so that the answer has nowhere to go
        server.sendall(data)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A server of its own for the tests of this process."""
    cluster = Cluster()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_cluster: Cluster) -> str:
    """Of a database on it, with a password."""
    return postgres_cluster.url()
