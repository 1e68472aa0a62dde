"""Lines of a trial log, read as far as they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trial_lines import trial_lines
from kneepoint.tasks.errors import RunError


def test_they_are_the_records_of_the_log(finished: Path) -> None:
    directory = RunDirectory(finished)
    lines, records = trial_lines(directory.log_file), directory.log().records
    assert [line.record() for line in lines] == records
    assert [(line.policy_id, line.fidelity, line.scores) for line in lines] == [
        (record.policy.id, record.fidelity, record.scores) for record in records
    ]


def test_a_torn_end_is_left_out(finished: Path, tmp_path: Path) -> None:
    data = (finished / "trials.jsonl").read_bytes()
    (tmp_path / "t").write_bytes(data[:-5])
    assert len(trial_lines(tmp_path / "t")) == data.count(b"\n") - 1


@pytest.mark.parametrize("line", ["{}", "[]", "3", "no JSON", "[" * 10_000, '{"scores": {"a": 1}}'])
def test_what_is_no_record_is_one_clear_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "t").write_text(line + "\n")
    with pytest.raises(RunError, match=r"t, line 1: it is no record \(.*\); restore the line or remove it"):
        trial_lines(tmp_path / "t")


def test_a_policy_under_another_name_is_refused(finished: Path, tmp_path: Path) -> None:
    record: Record = RunDirectory(finished).log().records[-1]
    (tmp_path / "t").write_text(record.to_line().replace(record.policy.id, "0" * 16) + "\n")
    (line,) = trial_lines(tmp_path / "t")
    with pytest.raises(RunError, match="line 1: its policy is"):
        line.record()


def test_a_log_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has the run begun"):
        trial_lines(tmp_path / "none")
