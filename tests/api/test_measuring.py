from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kneepoint.deployment.measuring import Comparison, Measurement
from kneepoint.deployment.timing import Interval, Noise
from kneepoint.measuring import lines_of, read_sizes, verdict_of
from kneepoint.tasks.errors import InputError

MODELS = [Path("a.onnx"), Path("b.onnx")]


def compared(*ratio: float, rounds: int = 10) -> Comparison:
    one = Measurement(Interval(2.0, 1.9, 2.1, 0.96), 900, rounds, 1, 1, Noise(0.01, 0.02))
    return Comparison(one, one, Interval(*ratio))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (compared(1.01, 0.98, 1.03, 0.96), "no difference that these runs can tell: 0.980 .. 1.030"),
        (compared(0.5, 0.4, 0.8, 0.96), "b.onnx is 2.000 times as fast as a.onnx (1.250 .. 2.500)"),
        (compared(2.0, 1.5, 2.5, 0.96), "a.onnx is 2.000 times as fast as b.onnx (1.500 .. 2.500)"),
        (compared(2.0, 1.5, 2.5, 0.75, rounds=3), "no difference that these runs can tell: 3 rounds are too few; give"),
    ],
)
def test_the_verdict_says_which_is_faster_or_that_nobody_knows(found: Comparison, text: str) -> None:
    assert verdict_of(found, MODELS).startswith(text)


def test_every_fact_has_its_line() -> None:
    found = compared(0.5, 0.4, 0.8, 0.96)
    models: list[dict[str, Any]] = [
        {"model": str(model), "bytes": 1500, **one.to_json()}
        for model, one in zip(MODELS, (found.first, found.second), strict=True)
    ]
    models[1].update({"score": {"value": 0.9, "error": 0.01}, "metric": "accuracy", "split": "test"})
    shown = lines_of({**found.to_json(), "models": models, "verdict": verdict_of(found, MODELS)})
    assert shown == [
        "a.onnx: median 2 ms (1.9 .. 2.1 with 96% confidence; 900 runs in 10 rounds, 1 thread(s), batch 1), 1.5 kB",
        "  the machine was quiet: rounds spread by 1.0%, interruptions took 2.0%",
        "b.onnx: median 2 ms (1.9 .. 2.1 with 96% confidence; 900 runs in 10 rounds, 1 thread(s), batch 1), 1.5 kB",
        "  the machine was quiet: rounds spread by 1.0%, interruptions took 2.0%",
        "  accuracy on test: 0.9000 ± 0.0100",
        "b.onnx is 2.000 times as fast as a.onnx (1.250 .. 2.500); with 96% confidence",
    ]


def test_sizes_are_read() -> None:
    assert read_sizes(["sequence=128", "a=b=2"]) == {"sequence": 128, "a=b": 2}


@pytest.mark.parametrize("text", ["", "sequence", "=3", "sequence=", "sequence=0", "sequence=-1", "sequence=1.5"])
def test_sizes_that_do_not_read_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--size reads NAME=N"):
        read_sizes([text])
