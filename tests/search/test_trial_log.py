"""The log is durable, survives a torn end, and holds a record once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kneepoint.search.record import Record
from kneepoint.search.trial_log import TrialLog
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import RunError
from kneepoint.tasks.metrics import Score


def record(name: str, value: float | None = 0.5) -> Record:
    policy = Policy.build("teacher", {}, {name: LayerPolicy.of_bits(8)})
    scores = None if value is None else {"accuracy": Score(value, 0.1)}
    return Record(policy, "ptq", scores, 0.25, "here", None if scores else "broken", None, {"bits/a": 1})


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    records = [record("a"), record("b", None), record("c", 0.1 + 0.2)]
    for one in records:
        log.append(one)
    again = TrialLog(log.path)
    assert again.records == log.records == records
    assert (len(again), again.failed) == (3, 1)
    assert again.find(records[0].policy.id, "ptq") == records[0]
    assert again.find(records[0].policy.id, "recovered") is None


def test_every_append_is_synced_and_so_is_the_folder_of_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def watched(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real(handle)

    monkeypatch.setattr(os, "fsync", watched)
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(record("a"))
    log.append(record("b"))
    assert synced == ["trials.jsonl", tmp_path.name, "trials.jsonl"]


def test_a_torn_line_is_ignored_by_readers_and_overwritten_by_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog(path).append(record("a"))
    whole = path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:cut])
        log = TrialLog(path)
        assert log.records == [record("a")]
        assert path.read_bytes() == whole + whole[:cut]  # a reader changes nothing
        log.append(record("b"))
        assert TrialLog(path).records == [record("a"), record("b")]
        path.write_bytes(whole)


def test_a_full_disk_is_said_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(record("a"))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            RunError, match=r"cannot write .*trials.jsonl: No space left on device; make room and resume"
        ):
            log.append(record("b"))
    assert [one.id for one in log.records] == [record("a").id]
    log.append(record("c"))
    assert TrialLog(log.path).records == [record("a"), record("c")]


def test_a_record_is_there_once(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(record("a"))
    with pytest.raises(RunError, match="one record a policy and fidelity"):
        log.append(record("a", 0.9))
    log.path.write_bytes(log.path.read_bytes() * 2)
    with pytest.raises(RunError, match=r"line 2: .* is there already; remove one of the lines"):
        TrialLog(log.path)


@pytest.mark.parametrize("line", [b"{}", b"not json", b"", b"[1]", b"\xff\xfe", b"null"])
def test_a_foreign_line_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog(path).append(record("a"))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RunError, match="line 2: "):
        TrialLog(path)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(RunError, match="cannot read"):
        TrialLog(tmp_path / "trials.jsonl")
