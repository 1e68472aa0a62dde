"""A record is a line of JSON and back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.search.record import Record, non_finite, recordable
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import RunError
from kneepoint.tasks.metrics import Score

POLICY = Policy.build({"width": 0.5}, {"g": 0.5}, {"stem": LayerPolicy.of_bits(4)})
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(value=numbers, error=st.none() | st.floats(0, 1e9), name=st.text(), reason=st.none() | st.text())
def test_a_line_reads_back_as_the_record(value: float, error: float | None, name: str, reason: str | None) -> None:
    record = Record(POLICY, "recovered", {name: Score(value, error)}, 1.5, "w", reason, name, {name: 1}, "ab" * 32)
    line = record.to_line()
    assert "\n" not in line
    assert Record.from_line(line) == record


def test_devices_that_a_candidate_does_not_fit_are_on_its_line_alone() -> None:
    record = Record(POLICY, "ptq", None, 1.0, "w", "why", misfits={"mcu": 0.25})
    assert Record.from_line(record.to_line()) == record
    assert "misfits" not in Record(POLICY, "ptq", None, 1.0, "w", "why").to_line()
    with pytest.raises(RunError, match="is a JSON record"):
        Record.from_line(record.to_line().replace("0.25", '"much"'))


def test_the_line_has_the_keys_that_readers_rely_on() -> None:
    data = json.loads(Record(POLICY, "ptq", None, 0.123456, "w", "why").to_line())
    assert (data["id"], data["policy_id"]) == (f"{POLICY.id}-ptq", POLICY.id)
    assert data["policy"] == POLICY.to_json()
    assert (data["scores"], data["error"], data["baseline"], data["seconds"]) == (None, "why", None, 0.1235)


@pytest.mark.parametrize(
    "change",
    [
        {"fidelity": "fuller"},
        {"policy": {"student": "teacher", "keep": {}, "layers": {"stem": {"weight_bits": 5, "activation_bits": 8}}}},
        {"seconds": None},
        {"scores": {"accuracy": 0.5}},
    ],
)
def test_malformed_lines_are_refused(change: dict[str, object]) -> None:
    data = json.loads(Record(POLICY, "ptq", {"accuracy": Score(0.5)}, 0.1, "w").to_line())
    with pytest.raises(RunError, match="a line of the trial log is a JSON record"):
        Record.from_line(json.dumps({**data, **change}))


def test_values_are_by_objective_and_empty_for_a_failure() -> None:
    assert Record(POLICY, "ptq", {"a": Score(1.0)}, 0.1, "w").values == {"a": 1.0}
    assert Record(POLICY, "ptq", None, 0.1, "w").values == {}


@pytest.mark.parametrize("error", [math.nan, math.inf, -1.0])
def test_what_is_no_standard_error_is_dropped(error: float) -> None:
    assert recordable(Score(0.5, error)) == Score(0.5)


def test_scores_become_plain_floats() -> None:
    score = recordable(Score(torch.tensor(0.5), torch.tensor(0.25)))  # type: ignore[arg-type]  # what users may return
    assert (type(score.value), type(score.error)) == (float, float)


def test_non_finite_values_are_found() -> None:
    found = non_finite({"a": Score(1.0), "b": Score(math.nan), "c": Score(-math.inf)})
    assert list(found) == ["b", "c"]
