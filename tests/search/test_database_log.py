"""Drivers in several processes share a log in a database, and nothing is lost, doubled or measured twice."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, make_url, select, text, update
from sqlalchemy.engine import Engine

from kneepoint.search import database_connection, database_drivers
from kneepoint.search.database_connection import Database
from kneepoint.search.database_drivers import Process
from kneepoint.search.database_log import DatabaseLog, run_name
from kneepoint.search.database_tables import CLAIMS, DRIVERS, FILES, RECORDS, RUNS
from kneepoint.search.job import IDENTITY
from kneepoint.search.log_store import Log
from kneepoint.search.record import Record
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import JobError, RunError
from kneepoint.tasks.metrics import Score
from tests.search import postgres
from tests.search.postgres import PASSWORD, Cluster, Wire

Open = Callable[..., DatabaseLog]


def record(name: str, value: float | None = 0.5, worker: str = "here") -> Record:
    policy = Policy.build("teacher", {}, {name: LayerPolicy.of_bits(8)})
    scores = None if value is None else {"accuracy": Score(value, 0.1)}
    return Record(policy, "ptq", scores, 0.25, worker, None if scores else "broken", None, {"bits/a": 1})


def names(records: Sequence[Record]) -> list[str]:
    return [layer for one in records for layer, _ in one.policy.layers]


def claims(log: DatabaseLog, name: str) -> bool:
    return log.claim(record(name).policy.id, "ptq")


@pytest.fixture(scope="session", params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a database of either kind."""
    if request.param == "postgresql":
        postgres_url: str = request.getfixturevalue("postgres_url")
        return postgres_url
    return f"sqlite:///{tmp_path_factory.mktemp('logs') / 'log.db'}"


@pytest.fixture
def run() -> str:
    """A run of its own for every test."""
    return uuid.uuid4().hex[:16]


@pytest.fixture
def open_log(run: str) -> Iterator[Open]:
    """Opens logs of the run, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(url: str, driver: str | None = None) -> DatabaseLog:
            return stack.enter_context(contextlib.closing(DatabaseLog(url, run, driver)))

        yield make


@pytest.fixture
def wire(postgres_cluster: Cluster) -> Iterator[Wire]:
    """Leads to the server."""
    with contextlib.closing(Wire(postgres_cluster.port)) as made:
        yield made


@contextlib.contextmanager
def tables(url: str) -> Iterator[Engine]:
    """For a look at the tables behind the log's back."""
    parsed = make_url(url)
    engine = create_engine(parsed.set(drivername="postgresql+psycopg") if "postgres" in parsed.drivername else parsed)
    try:
        yield engine
    finally:
        engine.dispose()


def change(url: str, statement: Any) -> None:
    with tables(url) as engine, engine.begin() as connection:
        assert connection.execute(statement).rowcount == 1


# Records


def test_what_is_appended_is_read_back(url: str, open_log: Open) -> None:
    log: Log = open_log(url)
    records = [record("a"), record("b", None), record("c", 0.1 + 0.2)]
    assert [log.append(one) for one in records] == records
    again = open_log(url)
    assert again.records == log.records == records
    assert (len(again), again.failed) == (len(log), log.failed) == (3, 1)
    assert again.find(records[0].policy.id, "ptq") == records[0]
    assert again.find(records[0].policy.id, "recovered") is None
    assert log.refresh() == again.refresh() == []


def test_a_driver_appends_a_record_once(url: str, open_log: Open) -> None:
    log = open_log(url, "one")
    log.append(record("a"))
    with pytest.raises(RunError, match=f"one record a policy and fidelity; {record('a').id} is there already"):
        log.append(record("a", 0.9))
    log.close()
    with pytest.raises(RunError, match="is there already"):  # also when it comes back
        open_log(url, "one").append(record("a"))
    log.append(replace(record("a"), fidelity="recovered"))


def test_the_faster_of_two_is_kept(url: str, open_log: Open) -> None:
    fast, slow, reader = open_log(url), open_log(url), open_log(url)
    kept = fast.append(record("a", worker="fast"))
    assert slow.append(record("a", worker="slow")) == kept == record("a", worker="fast")
    assert slow.records == [kept]
    assert slow.refresh() == []  # it was told already
    assert reader.refresh() == [kept]
    assert slow.append(record("a", worker="slow")) == kept  # it is still not its own


def test_every_record_of_others_is_told_once_in_order(url: str, open_log: Open) -> None:
    first, second, third = (open_log(url) for _ in range(3))
    first.append(record("a"))
    second.append(record("b"))
    first.append(record("c", None))
    assert names(third.refresh()) == ["a", "b", "c"]
    assert names(first.refresh()) == ["b"]
    assert names(second.refresh()) == ["a", "c"]
    assert [log.refresh() for log in (first, second, third)] == [[], [], []]
    second.append(record("d"))
    assert [names(log.refresh()) for log in (first, second, third)] == [["d"], [], ["d"]]
    assert {tuple(names(log.records)) for log in (first, second, third)} == {("a", "b", "c", "d")}
    assert {log.failed for log in (first, second, third)} == {1}


def test_runs_do_not_mix(url: str, open_log: Open, run: str) -> None:
    log = open_log(url)
    log.append(record("a"))
    log.put_file("x", b"1")
    with contextlib.closing(DatabaseLog(url, run + "2")) as other:
        assert (other.records, other.driver, other.file_names()) == ([], 0, set())
        assert claims(other, "a")


def test_a_row_that_is_no_record_is_refused(url: str, open_log: Open, run: str) -> None:
    log = open_log(url)
    log.append(record("a"))
    here = update(RECORDS).where(RECORDS.c.run == run)
    for line, reason in (("{}", "a line of the trial log is a JSON record"), (record("b").to_line(), "it is that of")):
        change(url, here.values(line=line))
        with pytest.raises(RunError, match=rf"\(run {run}\), record {record('a').id}: {reason}.*; restore the row or"):
            open_log(url)


def test_a_run_that_was_deleted_is_said(url: str, open_log: Open, run: str) -> None:
    log = open_log(url)
    change(url, delete(RUNS).where(RUNS.c.run == run))
    with pytest.raises(RunError, match=f"run {run} was deleted from the database while a driver was at work; start"):
        log.append(record("a"))


def test_a_record_has_the_time_of_the_database(url: str, open_log: Open, run: str) -> None:
    open_log(url).append(record("a"))
    with tables(url) as engine, engine.connect() as connection:
        row = connection.execute(select(RECORDS).where(RECORDS.c.run == run)).one()
    assert row.appended_at == pytest.approx(time.time(), abs=10)
    assert (row.id, row.sequence, row.line) == (record("a").id, 1, record("a").to_line())


# Order


def test_a_number_is_given_only_when_all_before_it_are_committed(postgres_url: str, open_log: Open, run: str) -> None:
    slow, fast, reader = (open_log(postgres_url) for _ in range(3))
    with tables(postgres_url) as engine, ThreadPoolExecutor(1) as pool:
        with engine.connect() as connection:
            slow._append(connection, (record("a").policy.id, "ptq"), record("a"))  # and no commit yet
            later = pool.submit(fast.append, record("b"))
            time.sleep(0.1)
            assert not later.done()
            assert reader.refresh() == []
            connection.commit()
        later.result()
    assert names(reader.refresh()) == ["a", "b"]


def test_a_reader_misses_none_while_several_write(url: str, open_log: Open) -> None:
    writers, reader = [open_log(url) for _ in range(4)], open_log(url)
    count = 15 if url.startswith("postgresql") else 4

    def write(index: int) -> None:
        for number in range(count):
            writers[index].append(record(f"{index}-{number}"))
            writers[index].refresh()

    heard: list[Record] = []
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write, index) for index in range(4)]:
            while not future.done():
                heard += reader.refresh()
            future.result()
    heard += reader.refresh()
    assert len(heard) == 4 * count
    assert heard == reader.records == open_log(url).records
    for index, writer in enumerate(writers):
        writer.refresh()
        assert writer.records == heard
        assert [name for name in names(heard) if name[0] == str(index)] == [f"{index}-{n}" for n in range(count)]


# Claims


def test_what_one_claims_no_other_gets(url: str, open_log: Open) -> None:
    first, second = open_log(url), open_log(url)
    assert claims(first, "a")
    assert claims(first, "a")  # it holds it already
    assert not claims(second, "a")
    assert first.claim(record("a").policy.id, "recovered")
    assert claims(second, "b")
    first.append(record("a"))
    assert not claims(first, "a")
    assert not claims(second, "a")  # though it has not heard of the record


def test_a_claim_waits_for_what_another_is_about_to_commit(postgres_url: str, open_log: Open) -> None:
    slow, fast = open_log(postgres_url), open_log(postgres_url)
    key = (record("a").policy.id, record("a").fidelity)
    steps = (lambda c: slow._claim(c, key), lambda c: slow._append(c, key, record("a")))
    with tables(postgres_url) as engine, ThreadPoolExecutor(1) as pool:
        for step in steps:
            with engine.connect() as connection:
                step(connection)  # and no commit yet
                later = pool.submit(claims, fast, "a")
                time.sleep(0.1)
                assert not later.done()
                connection.commit()
            assert later.result() is False


def test_closing_frees_what_was_claimed(url: str, open_log: Open, run: str) -> None:
    first, second = open_log(url), open_log(url)
    assert claims(first, "a")
    assert claims(first, "b")
    first.append(record("b"))
    first.close()
    first.close()  # it may be closed again
    assert claims(second, "a")
    assert not claims(second, "b")
    second.append(record("a"))
    with tables(url) as engine, engine.connect() as connection:
        assert connection.execute(select(CLAIMS).where(CLAIMS.c.run == run)).all() == []


STEP = st.tuples(
    st.sampled_from(["claim", "claim", "append", "refresh", "close"]), st.integers(0, 2), st.integers(0, 2)
)


@settings(max_examples=6, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
def test_claims_and_records_are_as_one_driver_at_a_time_would_have_them(url: str, steps: list[Any]) -> None:
    run, held, kept = uuid.uuid4().hex, dict[int, int](), dict[int, str]()
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(contextlib.closing(DatabaseLog(url, run))) for _ in range(3)]
        told: list[set[int]] = [set() for _ in logs]
        for step, driver, key in steps:
            log, one = logs[driver], record(str(key), worker=logs[driver].name)
            if step == "claim":
                free = key not in kept and held.get(key, driver) == driver
                assert log.claim(one.policy.id, "ptq") == free
                held.update({key: driver} if free else {})
            elif step == "append" and kept.get(key) == log.name:
                with pytest.raises(RunError, match="is there already"):
                    log.append(one)
            elif step == "append":
                assert log.append(one).worker == kept.setdefault(key, log.name)
                told[driver].add(key)
                held.pop(key, None)
            elif step == "refresh":
                heard = [int(name) for name in names(log.refresh())]
                assert heard == [key for key in kept if key not in told[driver]]
                told[driver].update(heard)
            else:
                log.close()
                logs[driver] = stack.enter_context(contextlib.closing(DatabaseLog(url, run)))
                told[driver] = set(kept)
                held = {key: other for key, other in held.items() if other != driver}
        with contextlib.closing(DatabaseLog(url, run)) as last:
            assert [one.worker for one in last.records] == list(kept.values())


# Drivers


def test_drivers_are_numbered_as_they_join(url: str, open_log: Open) -> None:
    logs = [open_log(url, name) for name in ("one", "two", None)]
    assert [log.driver for log in logs] == [0, 1, 2]
    logs[0].close()
    assert [open_log(url).driver, open_log(url, "one").driver] == [3, 0]
    with pytest.raises(
        RunError, match=rf"driver 'two' is at work in this run already, on .* \(process {os.getpid()}\)"
    ):
        open_log(url, "two")


def test_drivers_that_join_at_the_same_time_make_the_tables_once(
    postgres_cluster: Cluster, open_log: Open, tmp_path: Path
) -> None:
    for url in (postgres_cluster.new_database("empty"), f"sqlite:///{tmp_path / 'log.db'}"):
        with ThreadPoolExecutor(6) as pool:
            logs = list(pool.map(open_log, [url] * 6))
        assert sorted(log.driver for log in logs) == list(range(6))
        assert len({log.name for log in logs}) == 6
        for log in logs:
            log.close()


def test_the_claims_of_a_silent_driver_are_taken_over(
    url: str, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_drivers, "BEAT_SECONDS", 1000)
    other, silent = open_log(url), open_log(url, "silent")
    monkeypatch.setattr(database_drivers, "BEAT_SECONDS", 0.05)
    beating = open_log(url)
    assert claims(beating, "a")
    assert claims(silent, "b")
    assert claims(silent, "c")
    assert not claims(other, "b")
    monkeypatch.setattr(database_drivers, "DEAD_SECONDS", 1.0)
    time.sleep(1.1)
    assert not claims(other, "a")
    assert claims(other, "b")
    kept = other.append(record("b", worker="other"))
    assert silent.append(record("b", worker="silent")) == kept  # it wakes up, and is late
    again = open_log(url, "silent")  # another process of that name
    assert (again.driver, claims(other, "c")) == (1, True)
    silent.close()
    with pytest.raises(RunError, match="driver 'silent' is at work"):
        open_log(url, "silent")


def test_nobody_is_dead_who_could_not_reach_a_server_that_was_away(
    postgres_url: str, open_log: Open, run: str, monkeypatch: pytest.MonkeyPatch, postgres_cluster: Cluster
) -> None:
    monkeypatch.setattr(database_drivers, "BEAT_SECONDS", 1000)
    first, second = open_log(postgres_url, "first"), open_log(postgres_url)
    assert claims(first, "a")
    here = update(DRIVERS).where(DRIVERS.c.run == run, DRIVERS.c.driver == "first")
    change(postgres_url, here.values(beat=DRIVERS.c.beat - 1000))
    postgres_cluster.stop()
    postgres_cluster.start()
    assert not claims(second, "a")


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().split()[21]


def test_whether_a_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Process.here()
    assert (here.pid, here.gone) == (os.getpid(), False)
    assert replace(here, started="1").gone  # the pid is used again
    child = subprocess.Popen(["sleep", "0.3"])  # noqa: S607 - wherever it is
    mark = replace(here, pid=child.pid, started=start_time(child.pid))
    assert (mark.pid, mark.gone) == (child.pid, False)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z"
    assert mark.gone  # though its parent has not noticed
    child.wait()
    assert mark.gone
    assert not replace(mark, machine="another").gone  # one cannot tell from here
    assert not replace(mark, machine="").gone
    assert not replace(here, pid=1, started=start_time(1)).gone

    def foreign(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", foreign)
    assert not here.gone


# Processes


# One process imports torch and the rest, and drivers are forked from it: processes of their own in milliseconds.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["kneepoint.search.database_log", "hypothesis", "pytest"])


def work(pipe: Connection, url: str, run: str, name: str, count: int) -> None:
    """A driver in a process of its own."""
    with contextlib.closing(DatabaseLog(url, run, name)) as log:
        pipe.send("ready")
        pipe.recv()
        keys, own, heard = list(range(count)), list[Record](), list[Record]()
        random.Random(name).shuffle(keys)  # noqa: S311 - no secret
        for key in keys:
            if claims(log, str(key)):
                own.append(log.append(record(str(key), worker=name)))
            if key % 3 == 0:
                heard += log.refresh()
        while len(log) < count:
            time.sleep(0.01)
            heard += log.refresh()
        pipe.send([names(own), names(heard), names(log.records)])


def hold(pipe: Connection, url: str, run: str) -> None:
    """A driver that claims, and then is killed."""
    log = DatabaseLog(url, run, "held")
    log.append(record("done"))
    assert claims(log, "a")
    pipe.send("ready")
    time.sleep(60)


@contextlib.contextmanager
def process(function: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Another process, ready, and a pipe to it."""
    here, there = SERVER.Pipe()
    child = SERVER.Process(target=function, args=(there, *arguments))
    child.start()
    there.close()
    try:
        assert here.recv() == "ready"
        yield child, here
    finally:
        child.kill()
        child.join()
        child.close()
        here.close()


def test_drivers_in_several_processes_lose_and_double_nothing(postgres_url: str, run: str) -> None:
    count = 60
    with process(work, postgres_url, run, "p", count) as (_, p), process(work, postgres_url, run, "q", count) as (_, q):
        p.send("go")
        q.send("go")
        (own_p, heard_p, all_p), (own_q, heard_q, all_q) = p.recv(), q.recv()
    assert own_p
    assert own_q
    assert sorted(own_p + own_q) == sorted(str(key) for key in range(count))  # each was claimed by one of them
    assert (heard_p, heard_q) == (own_q, own_p)
    assert all_p == all_q
    with contextlib.closing(DatabaseLog(postgres_url, run)) as log:
        assert names(log.records) == all_p
        assert log.driver == 2


def test_a_killed_driver_leaves_its_claims_at_once(postgres_url: str, run: str, open_log: Open) -> None:
    log = open_log(postgres_url)
    with process(hold, postgres_url, run) as (child, _):
        assert not claims(log, "a")
        child.kill()
        child.join()
        assert claims(log, "a")
    assert names(log.refresh()) == ["done"]
    resumed = open_log(postgres_url, "held")
    assert (resumed.driver, names(resumed.records)) == (1, ["done"])
    assert not claims(resumed, "a")


# Outages


def test_a_restart_of_the_server_is_survived(
    postgres_url: str, open_log: Open, monkeypatch: pytest.MonkeyPatch, postgres_cluster: Cluster
) -> None:
    monkeypatch.setattr(database_drivers, "BEAT_SECONDS", 0.1)
    writer, reader = open_log(postgres_url), open_log(postgres_url)
    restarted = threading.Event()

    def write() -> int:
        count = 0
        while not restarted.is_set() or count < 10:
            assert claims(writer, str(count))
            writer.append(record(str(count)))
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(write)
        time.sleep(0.2)
        postgres_cluster.stop()
        time.sleep(0.3)
        postgres_cluster.start()
        time.sleep(0.5)  # the writer goes on
        restarted.set()
        count = future.result()
    assert names(reader.refresh()) == names(writer.records) == [str(number) for number in range(count)]


def test_a_long_outage_ends_the_run_in_one_line(
    wire: Wire, open_log: Open, postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(postgres_cluster.url(port=wire.port))
    log.append(record("a"))
    monkeypatch.setattr(database_connection, "OUTAGE_SECONDS", 0.5)
    wire.cut()
    with pytest.raises(
        RunError, match=r"no use of postgresql.* for 0.5 s: .*; see to the database and resume"
    ) as caught:
        log.append(record("b"))
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    wire.is_open = True
    assert log.append(record("b")) == record("b")
    wire.cut()
    monkeypatch.setattr(database_drivers, "_LEAVING_SECONDS", 0.1)
    log.close()  # says nothing: others find out by themselves


def test_an_append_whose_answer_was_lost_is_no_error(
    wire: Wire, open_log: Open, postgres_cluster: Cluster, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_drivers, "BEAT_SECONDS", 1000)
    log, reader = open_log(postgres_cluster.url(port=wire.port)), open_log(postgres_cluster.url())
    assert claims(log, "a")
    wire.cut_at = b"COMMIT"
    mine = record("a")
    assert log.append(mine) is mine
    assert wire.cuts == 1
    wire.cut_at = b"COMMIT"
    assert claims(log, "b")
    assert (wire.cuts, claims(reader, "b")) == (2, False)
    assert reader.refresh() == log.records == [mine]
    with pytest.raises(RunError, match="is there already"):
        log.append(mine)


def test_joining_whose_answer_was_lost_counts_once(
    wire: Wire, open_log: Open, postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*arguments: Any) -> dict[str, Any]:
        wire.cut_at = b"COMMIT"
        monkeypatch.undo()
        return real(*arguments)

    real = database_drivers.Membership._signs
    monkeypatch.setattr(database_drivers.Membership, "_signs", cut)
    log = open_log(postgres_cluster.url(port=wire.port), "one")
    assert (log.driver, wire.cuts, open_log(postgres_cluster.url()).driver) == (0, 1, 1)


def session_settings(connection: sqlalchemy.Connection) -> list[Any]:
    names = ("synchronous_commit", "idle_in_transaction_session_timeout")
    return [connection.execute(text(f"SHOW {name}")).scalar() for name in names]


def test_what_is_acknowledged_is_on_disk_and_no_driver_holds_the_lock_for_long(postgres_cluster: Cluster) -> None:
    url = postgres_cluster.new_database("careless")
    for before, after in (("off", "on"), ("remote_apply", "remote_apply")):
        with tables(url) as engine, engine.begin() as connection:
            connection.execute(text(f"ALTER DATABASE careless SET synchronous_commit = {before}"))
        with contextlib.closing(Database(url)) as database:
            assert database.transact(session_settings) == [after, "30s"]


# Files


def test_files_are_shared(url: str, open_log: Open, run: str) -> None:
    first, second = open_log(url), open_log(url)
    data = bytes(range(256)) * 1000
    first.put_file("students/a.safetensors", data)
    second.put_file("students/a.safetensors", data)
    second.put_file("students/b.json", b"")
    assert first.file_names() == {"students/a.safetensors", "students/b.json"}
    second.put_file("students/b.json", b"later")
    assert first.get_file("students/b.json") == b""
    assert second.get_file("students/a.safetensors") == data
    with pytest.raises(RunError, match=rf"\(run {run}\) holds no file 'c'; see that the driver which made it"):
        first.get_file("c")
    change(url, update(FILES).where(FILES.c.run == run, FILES.c.name == "students/b.json").values(data=b"other"))
    with pytest.raises(RunError, match=r"file 'students/b.json' was changed or damaged; delete its row and resume"):
        first.get_file("students/b.json")


# Bad inputs

RULE = r"storage is the URL of a PostgreSQL database \(postgresql://USER:PASSWORD@HOST/NAME\) or sqlite:///FILE; "


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("hello", "got 'hello'"),
        ("", "got ''"),
        ("me:secret@host/name", "got a text without '://'"),
        ("postgresql://me:secret@host:port/name", "got 'postgresql://...'"),
        ("postgresql://me:secret@host/name?port=x", r"an option or the port of .*:\*\*\*@host/name.* cannot be read"),
        ("mysql://me:secret@host/name", "got 'mysql': .*Known: postgres, postgresql"),
        ("postgresql+psycopg2://me:secret@host/name", "got 'postgresql.psycopg2': did you mean 'postgresql.psycopg'"),
        ("sqlite://", "got a database in memory, which no other driver can reach: name a file"),
        ("sqlite:///:memory:", "got a database in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "got a database in memory"),
    ],
)
def test_a_malformed_url_is_refused(wrong: str, message: str) -> None:
    with pytest.raises(JobError, match=RULE + message) as caught:
        DatabaseLog(wrong, "run")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("away", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/name", r"psycopg://me:\*\*\*@127.0.0.1:1/name: .*Connection refused"),
        ("postgresql://me:secret@nowhere.invalid/name", "failed to resolve host 'nowhere.invalid'"),
        ("postgresql://127.0.0.1/name?password=secret&foo=bar", "//127.0.0.1/name: invalid connection option .foo."),
        ("sqlite:////nowhere/log.db", "sqlite:////nowhere/log.db: unable to open database file"),
    ],
)
def test_a_database_that_does_not_answer_is_said_at_once(away: str, message: str) -> None:
    with pytest.raises(RunError, match=rf"cannot reach .*{message}.*; check the URL, and that") as caught:
        DatabaseLog(away, "run")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_message_holds_a_password(postgres_cluster: Cluster, open_log: Open, run: str) -> None:
    assert open_log(postgres_cluster.url()).place == (
        f"postgresql+psycopg://kneepoint:***@127.0.0.1:{postgres_cluster.port}/postgres (run {run})"
    )
    right = postgres_cluster.url()
    for wrong in (right.replace("s3cret", "wrong-word"), right + "?password=wrong-word"):
        with pytest.raises(RunError, match="password authentication failed for user") as caught:
            open_log(wrong)
        assert "wrong-word" not in str(caught.value)
    with pytest.raises(RunError, match='database "nowhere" does not exist'):
        open_log(postgres_cluster.url("nowhere"))


@pytest.mark.parametrize("form", ["postgresql", "postgres", "postgresql+psycopg"])
def test_forms_of_a_url(form: str, postgres_url: str, open_log: Open) -> None:
    assert open_log(postgres_url.replace("postgresql", form, 1)).place.startswith("postgresql+psycopg://")


def test_what_the_database_refuses_is_said_at_once(postgres_cluster: Cluster, open_log: Open, tmp_path: Path) -> None:
    for url in (postgres_cluster.new_database("broken"), f"sqlite:///{tmp_path / 'log.db'}"):
        log = open_log(url)
        with tables(url) as engine, engine.begin() as connection:
            connection.execute(text("ALTER TABLE kneepoint_records RENAME TO gone"))
        with pytest.raises(RunError, match=r"cannot use .*kneepoint_records.*; set the database right and resume the"):
            log.append(record("a"))
        log.close()


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(JobError, match=r"through psycopg, which cannot be .*: pip install 'kneepoint\[postgresql\]'"):
        DatabaseLog("postgresql://host/name", "run")


def test_tests_without_a_server_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="apt-get install postgresql"):
        Cluster()


# Names of runs


def test_the_name_of_a_run_is_that_of_jobs_that_may_share_it() -> None:
    job: dict[str, Any] = {key: {"b": [1, 0.5], "a": None} for key in IDENTITY}
    name = run_name(job)
    assert (len(name), set(name) <= set("0123456789abcdef")) == (16, True)
    assert run_name({**job, "trials": 7, "minutes": 3.0, "versions": {"torch": "9"}}) == name
    assert run_name({**job, "space": {"a": None, "b": (1.0, 0.5)}}) == name
    others = [run_name({**job, key: {"b": [1, 0.25], "a": None}}) for key in IDENTITY]
    assert len({name, *others}) == len(IDENTITY) + 1
