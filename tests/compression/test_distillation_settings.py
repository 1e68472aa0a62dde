from __future__ import annotations

from dataclasses import fields

import pytest

from kneepoint.compression.distillation_settings import TECHNIQUES, Distillation
from kneepoint.tasks.errors import JobError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be above 0; got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0; got nan"),
        ({"temperature": 0.0}, r"temperature must be above 0; got 0\.0"),
        ({"accumulation": 0}, "accumulation must be above 0; got 0"),
        ({"hidden_hints": -0.1}, r"hidden_hints must be 0 or more; got -0\.1"),
        ({"attention_hints": -1}, "attention_hints must be 0 or more; got -1"),
        ({"teacher_cache_mb": -1}, "teacher_cache_mb must be 0 or more; got -1"),
        ({"alpha": 1.1}, r"alpha is a share, from 0 to 1; got 1\.1"),
        ({"warm_up": -0.1}, r"warm_up is a share, from 0 to 1; got -0\.1"),
        ({"general_share": 2}, "general_share is a share, from 0 to 1; got 2"),
        ({"precision": "float16"}, "precision is 'auto', 'float32' or 'bfloat16'; got 'float16'"),
    ],
)
def test_senseless_numbers_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(JobError, match=f"distillation: {message}"):
        Distillation(**{"steps": 1, "learning_rate": 1e-3, **wrong})  # type: ignore[arg-type]  # wrong on purpose


def test_every_technique_is_a_setting_and_named_once() -> None:
    names = [field.name for field in fields(Distillation)]
    own = {"steps", "learning_rate", "temperature", "alpha", "weight_decay"}
    assert [name for name in names if name not in own] == list(TECHNIQUES)
    assert Distillation(1, 1e-3, warm_up=0.3).techniques()["warm_up"] == 0.3


def test_batches_are_steps_times_those_of_a_step() -> None:
    assert Distillation(5, 1e-3, accumulation=3).batches == 15
