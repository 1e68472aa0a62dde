"""The default sampler without Optuna between it and the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from kneepoint.search.direct_study import DirectStudy
from kneepoint.search.mirror import StudyMirror
from kneepoint.search.proposing import Proposals
from kneepoint.search.record import Record
from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.metrics import Score

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE: dict[str, BaseDistribution] = {"student": CategoricalDistribution(("teacher",))} | {
    f"bits/{index}": IntDistribution(0, 3) for index in range(6)
}
OBJECTIVES: list[tuple[str, Any]] = [("accuracy", "maximize"), ("size_mb", "minimize")]
ADVICE = Advice(
    scales=(lambda accuracy: 1 - accuracy, lambda size: size / 20),
    fronts=((0, 1),),
    saturating=(True, False),
    contributions=({}, {}),
    limits=(1.0, 1.0),
)
ANCHORS = [{"student": "teacher"} | {f"bits/{index}": bits for index in range(6)} for bits in (3, 1)]


def sampler_of(**more: Any) -> KneepointSampler:
    arguments: dict[str, Any] = {"seed": 2, "anchors": ANCHORS, "advice": ADVICE, "random_trials": 0, **more}
    return KneepointSampler(**arguments)


def scores_of(parameters: Mapping[str, Any]) -> dict[str, Score]:
    bits = [int(parameters[f"bits/{index}"]) for index in range(6)]
    lost = sum((index + 1) * (3 - one) ** 2 for index, one in enumerate(bits))
    return {"accuracy": Score(1 - lost / 200, 0.01), "size_mb": Score(float(sum(bits)) + 1, 0.3)}


def followed(study: Proposals, count: int) -> list[dict[str, Any]]:
    """What is proposed; every seventh fails, and every fifth is infeasible."""
    found = []
    for number in range(count):
        asked = study.ask()
        found.append(asked.parameters)
        failed = number % 7 == 6
        violations = [] if failed else [1.0 if number % 5 == 4 else -1.0]
        study.tell(asked, None if failed else scores_of(asked.parameters), violations)
    return found


def direct(sampler: KneepointSampler) -> DirectStudy:
    return DirectStudy(sampler, SPACE, OBJECTIVES, measured=["accuracy"])


def test_it_proposes_what_the_sampler_does_in_a_study_of_optuna() -> None:
    mirror = StudyMirror(sampler_of(), SPACE, OBJECTIVES, ["small"], measured=["accuracy"])
    assert followed(direct(sampler_of()), 40) == followed(mirror, 40)


def test_settings_are_whole_and_new() -> None:
    found = followed(direct(sampler_of()), 60)
    assert found[:2] == ANCHORS
    assert all(setting.keys() == SPACE.keys() for setting in found)
    assert len({tuple(setting.values()) for setting in found}) == 60


def test_anchors_that_do_not_fit_are_completed_and_random_settings_follow() -> None:
    anchor = {"student": "other", "bits/0": 9, "bits/1": 2}
    found = followed(direct(sampler_of(anchors=[anchor], random_trials=5)), 6)
    assert found[0]["student"] == "teacher"
    assert found[0]["bits/0"] in range(4)
    assert found[0]["bits/1"] == 2
    assert len({tuple(setting.values()) for setting in found}) > 4


def test_a_sampler_begins_anew_with_every_study() -> None:
    sampler = sampler_of()
    assert followed(direct(sampler), 20) == followed(direct(sampler), 20)


def test_what_is_enqueued_comes_first_and_what_others_measured_counts() -> None:
    study, other = direct(sampler_of()), {**ANCHORS[0], "bits/3": 0}
    study.enqueue([other])
    assert study.ask().parameters == other
    for setting in ANCHORS:
        record = Record(Policy.build(), "ptq", scores_of(setting), 1.0, "w", parameters=dict(setting))
        study.add(record, [-1.0])
    study.add(Record(Policy.build(), "ptq", scores_of(other), 1.0, "w"), [])  # nobody proposed it
    assert study.ask().number == 3


def test_advice_is_asked_for_after_the_anchors() -> None:
    calls: list[int] = []

    def advice() -> Advice:
        calls.append(len(found))
        return ADVICE

    study, found = direct(sampler_of(advice=advice)), list[dict[str, Any]]()
    for _ in range(6):
        found += followed(study, 1)
    assert calls == [2]


def test_the_expected_gain_is_the_samplers() -> None:
    sampler = sampler_of()
    study = direct(sampler)
    assert sampler.expected_gain == float("inf")
    followed(study, 10)
    assert 0 <= sampler.expected_gain < 1


def test_an_outcome_is_told_once() -> None:
    study = direct(sampler_of())
    asked = study.ask()
    study.tell(asked, None, [])
    with pytest.raises(KeyError):
        study.tell(asked, None, [])
