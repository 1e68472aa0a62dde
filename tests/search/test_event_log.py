"""Events are lines of JSON, and never the reason that a run ends."""

from __future__ import annotations

import json
from pathlib import Path

from kneepoint.search.event_log import EventLog
from kneepoint.search.record import Record
from kneepoint.search.workers.assignment import Assignment
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.metrics import Score


def test_every_event_is_a_line_with_the_id_of_its_trial(tmp_path: Path) -> None:
    told: list[Record] = []
    log = EventLog(tmp_path / "events.jsonl", told.append)
    policy = Policy.build()
    good = Record(policy, "ptq", {"accuracy": Score(0.9)}, 0.25, "w")
    log.started(Assignment(policy, "ptq", "teacher fp32"))
    log.lost(Assignment(policy, "ptq"), "its worker died", again=True)
    log.ended(good)
    log.ended(Record(policy, "recovered", None, 0.5, "w", "ValueError: no"))
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["trial started", "trial lost", "trial ended", "trial failed"]
    assert [event["level"] for event in events] == ["info", "warning", "info", "warning"]
    assert [event["trial"] for event in events] == [good.id, good.id, good.id, f"{policy.id}-recovered"]
    assert events[0]["baseline"] == "teacher fp32"
    assert events[2]["scores"] == {"accuracy": 0.9}
    assert events[3]["reason"] == "ValueError: no"
    assert all(event["time"].endswith("Z") for event in events)
    assert [record.id for record in told] == [good.id, f"{policy.id}-recovered"]


def test_an_event_that_cannot_be_written_is_dropped(tmp_path: Path) -> None:
    EventLog(tmp_path / "nowhere" / "events.jsonl").write("something")
    assert not (tmp_path / "nowhere").exists()
