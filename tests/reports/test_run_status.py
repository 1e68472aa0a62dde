"""Where a run stands, from files that a test wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kneepoint.reports.run_status import status_of
from kneepoint.tasks.errors import RunError
from tests.reports.conftest import WriteRun
from tests.reports.small_run import JOB, NOW, record, small_run, status, worker

FAR = {"host": "far-away", "pid": 7, "started": NOW - 600}


def test_everything_that_is_known(tmp_path: Path) -> None:
    records = [
        record("a", ended=NOW - 500, worker="old:1"),
        record("b", ended=NOW - 400, seconds=60.0, worker="n:0"),
        record("b", "recovered", ended=NOW - 300, seconds=100.0, worker="n:1", error="it broke"),
    ]
    workers = [worker("n:0", "measuring", "c-ptq", NOW - 40), worker("n:1", "idle", None, NOW - 300)]
    said = status(driver=FAR, workers=workers, written=NOW - 10)
    facts = status_of(small_run(tmp_path, records, said), NOW)
    assert (facts.state, facts.reason, facts.stage, facts.done, facts.total) == ("running", None, "searching", 4, 10)
    assert facts.driver == FAR
    assert facts.seconds_left == 90.0
    assert {name: (one.trials, one.failed) for name, one in facts.trials.items()} == {
        "ptq": (2, 0),
        "recovered": (1, 1),
    }
    assert [(one.reason, one.example) for one in facts.failures] == [("it broke", records[2].id)]
    assert (facts.hypervolume, facts.best, facts.front_size) == (0.25, {"accuracy": 0.9}, None)
    first, second, old = facts.workers
    assert (first.node, first.state, first.trial, first.seconds, first.done) == ("n", "measuring", "c-ptq", 40.0, 3)
    assert (first.trials, first.busy_seconds) == (1, 60.0)
    assert (second.state, second.seconds, second.busy_seconds) == ("idle", 300.0, 100.0)
    assert (old.name, old.state, old.done, old.trials) == ("old:1", "gone", None, 1)
    # Of two workers and 590 s: what was measured in this time, and what is under way.
    assert facts.share_measuring == pytest.approx((2 + 60 + 100 + 30) / (2 * 590))
    assert facts.trials_a_minute.last_10_minutes == pytest.approx(3 / (502 / 60))
    assert facts.notes == []


def test_json_holds_the_same(tmp_path: Path) -> None:
    said = status(driver=FAR, workers=[worker("n:0")])
    facts = status_of(small_run(tmp_path, [record("a", ended=NOW - 5)], said), NOW)
    content = json.loads(json.dumps(facts.to_json(), allow_nan=False))
    assert content["schema"] == "kneepoint.status_view/1"
    assert content["next"] == facts.next_step
    assert content["trials"] == {"ptq": {"trials": 1, "failed": 0, "seconds": 2.0}}
    assert content["workers"][0]["name"] == "n:0"
    assert content["trials_a_minute"].keys() == {"last_10_minutes", "all"}


def test_the_front_file_goes_before_what_the_driver_said(make_run: WriteRun) -> None:
    run = make_run(job=JOB)
    front = json.loads((run / "front.json").read_text())
    (run / "status.json").write_text(json.dumps(status(driver=FAR)))
    facts = status_of(run, NOW)
    assert facts.state == "running"
    assert (facts.hypervolume, facts.front_size) == (front["hypervolume"], len(front["fronts"]["all"]))
    members = [one["scores"] for one in front["candidates"] if one["id"] in front["fronts"]["all"]]
    assert facts.best["accuracy"] == max(one["accuracy"]["value"] for one in members)
    assert facts.best["size_mb"] == min(one["size_mb"]["value"] for one in members)
    assert sum(one.failed for one in facts.trials.values()) == 2


def test_a_run_older_than_the_status_file(make_run: WriteRun) -> None:
    facts = status_of(make_run(job=JOB), NOW)
    assert (facts.state, facts.driver, facts.stage, facts.share_measuring) == ("ended", None, None, None)
    assert facts.trials_a_minute.all is None  # nor does its log have times
    assert {one.state for one in facts.workers} == {"gone"}
    assert "kneepoint front" in facts.next_step
    unfinished = status_of(make_run(job=JOB, front=lambda content: content.update(baselines={})), NOW)
    assert unfinished.state == "stopped"
    assert "kneepoint resume" in unfinished.next_step


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    small_run(tmp_path)
    (tmp_path / "trials.jsonl").unlink()
    facts = status_of(tmp_path)
    assert (facts.state, facts.trials, facts.workers, facts.front_size, facts.notes) == ("stopped", {}, [], None, [])
    json.dumps(facts.to_json(), allow_nan=False)


def test_a_front_without_members_is_none_yet(make_run: WriteRun) -> None:
    def empty(content: dict[str, Any]) -> None:
        content.update(fronts={"all": []}, knee=None, hypervolume=0.0, baselines={})

    facts = status_of(make_run(job=JOB, front=empty))
    assert (facts.hypervolume, facts.best, facts.front_size) == (None, {}, 0)


def test_files_that_are_not_whole_are_left_aside(tmp_path: Path) -> None:
    small_run(tmp_path, [record("a")], status='{"schema"', front='{"schema": "kneepoint.front/1", "task": 3}')
    with (tmp_path / "trials.jsonl").open("a") as log:
        log.write('{"id": "torn')
    facts = status_of(tmp_path)
    assert (facts.state, facts.trials["ptq"].trials) == ("stopped", 1)
    assert [note.split()[0] for note in facts.notes] == [str(tmp_path / "status.json"), str(tmp_path / "front.json")]
    assert all("malformed" in note for note in facts.notes)


@pytest.mark.parametrize("front", ["[" * 100_000, "[]", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")])
def test_fronts_that_are_none(tmp_path: Path, front: str) -> None:
    facts = status_of(small_run(tmp_path, front=front))
    assert facts.front_size is None
    assert len(facts.notes) == 1


def test_times_of_another_world_break_nothing(tmp_path: Path) -> None:
    lines = [record(name, ended=NOW).to_line() for name in "ab"]
    small_run(tmp_path, status=status(driver=FAR))
    broken = lines[1].replace('"seconds": 2.0', '"seconds": Infinity').replace(str(NOW), "1e999")
    (tmp_path / "trials.jsonl").write_text(f"{lines[0]}\n{broken}\n")
    for now in (NOW, 0.0, NOW + 1e9):
        facts = status_of(tmp_path, now)
        assert facts.trials["ptq"].seconds == 2.0
        json.dumps(facts.to_json(), allow_nan=False)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    facts = status_of(small_run(tmp_path, status=status(ended="failed: the teacher: no such thing")))
    assert (facts.state, facts.reason) == ("failed", "the teacher: no such thing")
    assert facts.next_step.endswith("once that is mended")


def test_workers_of_a_run_that_does_not_go_on(tmp_path: Path) -> None:
    workers = [worker("n:0", "measuring", "c-ptq", NOW - 40), worker("n:1")]
    facts = status_of(small_run(tmp_path, status=status(workers=workers)), NOW + 5000)
    assert facts.state == "killed"
    assert [(one.state, one.trial, one.seconds) for one in facts.workers] == [
        ("gone", "c-ptq", 40.0),
        ("gone", None, None),
    ]


def test_the_process_of_the_driver_is_no_other_worker(tmp_path: Path) -> None:
    own = f"{FAR['host']}:{FAR['pid']}"
    records = [record("a", worker="n:9"), record("b", worker=own)]
    said = status(driver=FAR, workers=[worker("n:0", "measuring", "c-ptq")])
    facts = status_of(small_run(tmp_path, records, said), NOW)
    assert [(one.name, one.state) for one in facts.workers] == [("n:0", "measuring"), (own, "driver"), ("n:9", "gone")]
    alone = status_of(small_run(tmp_path, records, status(driver=FAR, workers=[worker(own)])), NOW)
    assert [(one.name, one.state, one.seconds, one.trials) for one in alone.workers] == [
        (own, "driver", None, 1),
        ("n:9", "gone", None, 1),
    ]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (JOB, 300 / 1200),
        (JOB.replace("2", "1"), 300 / 600),
        (JOB.replace("count: 2", "count: -1"), None),
        (JOB.replace("{count: 2}", "2"), None),
        (JOB.replace("ray: null", "ray: auto"), None),
    ],
)
def test_the_share_of_measuring_needs_the_number_of_workers(tmp_path: Path, job: str, expected: float | None) -> None:
    records = [record("a", seconds=300.0, ended=NOW - 100)]
    share = status_of(small_run(tmp_path, records, status(), job=job), NOW).share_measuring
    assert share == (None if expected is None else pytest.approx(expected))
    assert math.isfinite(share or 0)


def test_a_log_in_a_database_is_not_asked(tmp_path: Path) -> None:
    job = JOB.replace("storage: null", "storage: postgresql://me@db/runs")
    facts = status_of(small_run(tmp_path, status=status(), job=job), NOW)
    assert (facts.state, facts.stage) == ("killed", "searching")
    assert "postgresql://me@db/runs" in facts.notes[0]


def test_what_to_do_about_a_driver_that_is_silent(tmp_path: Path) -> None:
    facts = status_of(small_run(tmp_path, status=status(driver=FAR, written=NOW - 100)), NOW)
    assert (facts.state, facts.goes_on) == ("silent", True)
    assert facts.next_step.startswith("if process 7 is gone from far-away, 'kneepoint resume")


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is none in"):
        status_of(tmp_path)
    with pytest.raises(RunError, match="there is none in nowhere"):
        status_of("nowhere")
    (tmp_path / "job.yaml").write_text("schema: another")
    with pytest.raises(RunError, match="must have schema"):
        status_of(tmp_path)


def test_a_malformed_line_of_the_log_is_named(tmp_path: Path) -> None:
    small_run(tmp_path, status=status())
    (tmp_path / "trials.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="line 1"):
        status_of(tmp_path)
