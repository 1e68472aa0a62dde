from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kneepoint.deployment import measuring
from kneepoint.deployment.measuring import Comparison, Measurement, compare_latency, measure
from kneepoint.deployment.timing import Interval, Noise
from kneepoint.tasks.errors import InputError
from tests.deployment.small_models import doubler, stubborn, texts


def test_a_measurement_says_what_it_measured(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bench.export("residual", "8").data)
    seen: list[Measurement] = []
    found = measure(path, threads=2, batch=4, seconds=0.1, report=seen.append)
    assert (found.threads, found.batch) == (2, 4)
    assert [one.rounds for one in seen] == list(range(1, found.rounds + 1))
    assert seen[-1] == found
    assert found.runs >= 3 * found.rounds
    assert 0 < found.latency_ms.low <= found.median_ms <= found.latency_ms.high
    facts = found.to_json()
    assert (facts["median_ms"], facts["error_ms"]) == (found.median_ms, found.latency_ms.error)
    assert facts["noise"]["noisy"] == found.noise.noisy


def test_there_is_at_least_one_round() -> None:
    found = measure(doubler(["batch", 2]), seconds=1e-9)
    assert (found.rounds, found.latency_ms.error) == (1, None)


def test_it_ends_when_the_interval_is_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "TIGHT", 10.0)
    assert measure(doubler(["batch", 2]), seconds=0.2).rounds <= measuring.FEWEST_ROUNDS


def test_more_work_takes_longer() -> None:
    small, large = doubler([1, 16]), doubler([1, 4096], repeat=200)
    found = compare_latency(small, large, seconds=1.0)
    assert found.ratio.low > 1
    assert found.faster == 0
    assert found.second.median_ms > found.first.median_ms


def test_the_batch_is_the_one_that_ran(bench: Any) -> None:
    assert measure(bench.export("named", "8").data, batch=3, seconds=0.01).batch == 3
    fixed = doubler([4, 2])
    assert measure(fixed, seconds=0.01).batch == 4
    with pytest.raises(InputError, match="written for a batch of 4, and cannot be measured at 8"):
        measure(fixed, batch=8)
    with pytest.raises(InputError, match="compared at one batch; these were written for 4 and 1"):
        compare_latency(fixed, doubler([1, 2]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 0}, "a batch of at least 1 and some seconds; got 0"),
        ({"batch": -2}, "a batch of at least 1"),
        ({"seconds": 0.0}, "some seconds; got 1 and 0.0"),
        ({"seconds": float("nan")}, "some seconds"),
        ({"seconds": float("inf")}, "some seconds"),
        ({"threads": 0}, "at least one thread"),
        ({"threads": 4096}, "a core for every thread; got 4096 threads"),
        ({"sizes": {"width": 3}}, "the model has no free dimension 'width'"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(doubler(["batch", 2]), **wrong)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no model", r"^ONNX Runtime cannot load the model: [^\n]*$"),
        (stubborn(), r"^the model does not run on random inputs: [^\n]*$"),
        (texts(), r"^input 'x' has type tensor\(string\); measured are \["),
        (doubler(["batch", "length"]), "axis 1 of input 'x' is free .*--size length=N"),
    ],
)
def test_a_model_that_cannot_be_measured_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(data)


def test_an_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a model is an ONNX file; there is none at .*nowhere.onnx"):
        measure(tmp_path / "nowhere.onnx")
    (tmp_path / "good.onnx").write_bytes(doubler([2]))
    (tmp_path / "bad.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"^.*bad.onnx: ONNX Runtime cannot load the model"):
        compare_latency(tmp_path / "good.onnx", tmp_path / "bad.onnx")


def measured(value: float) -> Measurement:
    return Measurement(Interval(value, value, value, 0.96), 100, 10, 1, 1, Noise(0.0, 0.0))


@pytest.mark.parametrize(
    ("ratio", "faster"),
    [
        (Interval(1.01, 0.98, 1.03, 0.96), None),
        (Interval(1.02, 1.0, 1.03, 0.96), None),
        (Interval(1.05, 1.02, 1.08, 0.96), 0),
        (Interval(0.5, 0.4, 0.6, 0.96), 1),
        (Interval(0.5, 0.4, 0.6, 0.75), None),
    ],
)
def test_noise_is_called_no_difference(ratio: Interval, faster: int | None) -> None:
    assert Comparison(measured(1.0), measured(ratio.value), ratio).faster == faster
