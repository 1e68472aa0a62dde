"""KneepointSampler passes Optuna's own contract tests, and keeps its own promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import Trial

from kneepoint.search.pareto import hypervolume
from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE: dict[str, BaseDistribution] = {"student": CategoricalDistribution(("a", "b", "c"))} | {
    f"bits/{index}": IntDistribution(0, 3) for index in range(8)
}


ADVICE = Advice(
    scales=(lambda cost: cost / 24.0, lambda error: error / 400.0),
    fronts=((0, 1),),
    saturating=(False, True),
    contributions=(
        {f"bits/{index}": (0.0, 1.0, 2.0, 3.0) for index in range(8)},
        {f"bits/{index}": tuple((index + 1) * (3 - one) ** 2 for one in range(4)) for index in range(8)},
    ),
    limits=(1.0, 1.0),
)


class _Kit:
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: KneepointSampler(seed=0, random_trials=1)


class TestBasic(_Kit, BasicSamplerTestCase): ...


class TestRelative(_Kit, RelativeSamplerTestCase): ...


class TestMultiObjective(_Kit, MultiObjectiveSamplerTestCase): ...


def values_of(parameters: Mapping[str, Any]) -> tuple[float, float]:
    """Cost against an error that falls with every bit, by another weight each."""
    bits = [parameters[f"bits/{index}"] for index in range(8)]
    scale = {"a": 1.0, "b": 0.6, "c": 0.3}[parameters["student"]]
    return scale * sum(bits), sum((index + 1) * (3 - one) ** 2 for index, one in enumerate(bits)) + 20 / scale


def study_of(sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(sampler=sampler, directions=["minimize", "minimize"])


def step(study: optuna.Study) -> dict[str, Any]:
    trial = study.ask(SPACE)
    study.tell(trial, values_of(trial.params))
    return trial.params


def test_anchors_come_first_and_foreign_values_in_them_are_replaced() -> None:
    anchor = {"student": "b"} | {f"bits/{index}": 3 for index in range(8)}
    study = study_of(KneepointSampler(0, [anchor, {**anchor, "student": "z", "bits/0": 7, "bits/1": "x"}]))
    assert step(study) == anchor
    second = step(study)
    assert second["student"] in ("a", "b", "c")
    assert second["bits/0"] in range(4)
    assert second["bits/2"] == 3


def test_no_setting_is_proposed_twice() -> None:
    study = study_of(KneepointSampler(0))
    seen = [tuple(sorted(step(study).items())) for _ in range(80)]
    assert len(set(seen)) >= 79  # the random ones at the beginning may meet


def test_settings_that_stand_for_the_same_are_not_proposed_twice() -> None:
    def identity(parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        return parameters["student"], parameters["bits/0"], parameters["bits/1"]

    study = study_of(KneepointSampler(0, random_trials=1, identity=identity))
    seen = [identity(step(study)) for _ in range(17)]
    assert len(set(seen)) >= 16


def test_the_same_seed_proposes_the_same_and_another_another() -> None:
    first, second, third = (study_of(KneepointSampler(seed)) for seed in (3, 3, 4))
    runs = [[step(study) for _ in range(30)] for study in (first, second, third)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_sampler_made_anew_goes_on_in_the_same_way() -> None:
    whole = study_of(KneepointSampler(5))
    expected = [step(whole) for _ in range(40)]
    parts = study_of(KneepointSampler(5))
    found = [step(parts) for _ in range(23)]
    parts.sampler = KneepointSampler(5)
    assert found + [step(parts) for _ in range(17)] == expected


def test_one_sampler_serves_one_study_after_another() -> None:
    sampler = KneepointSampler(0, random_trials=2)
    for _ in range(5):
        step(study_of(sampler))
    other = optuna.create_study(sampler=sampler)
    for _ in range(5):
        trial = other.ask({"x": FloatDistribution(0.0, 1.0)})
        other.tell(trial, trial.params["x"])
    assert all(set(trial.params) == {"x"} for trial in other.trials)


def test_what_is_proposed_improves_on_what_is_feasible() -> None:
    study = study_of(KneepointSampler(0, random_trials=10))
    for _ in range(60):
        trial = study.ask(SPACE)
        trial.set_constraint("student is c", float(trial.params["student"] != "c"))
        study.tell(trial, values_of(trial.params))
    late = [trial.params["student"] for trial in study.trials[-30:]]
    assert late.count("c") >= 15  # a third of them, if the constraint counted for nothing


def test_failed_trials_are_no_parents_and_no_obstacle() -> None:
    study = study_of(KneepointSampler(0, random_trials=5))
    for number in range(30):
        trial = study.ask(SPACE)
        if number % 3:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, values_of(trial.params))
    assert len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) == 10


def test_workers_with_samplers_of_their_own_share_a_batch() -> None:
    study = study_of(KneepointSampler(0, random_trials=8))
    for _ in range(8):
        step(study)
    asked = []
    for _ in range(4):
        study.sampler = KneepointSampler(0, random_trials=8)
        asked.append(study.ask(SPACE))
    assert len({tuple(sorted(trial.params.items())) for trial in asked}) == 4
    alone = study_of(KneepointSampler(0, random_trials=8))
    for _ in range(8):
        step(alone)
    assert [alone.ask(SPACE).params for _ in range(4)] == [trial.params for trial in asked]


def test_what_is_under_way_is_not_proposed_again() -> None:
    study = study_of(KneepointSampler(0, random_trials=6, batch=1))
    for _ in range(10):
        step(study)
    asked = [study.ask(SPACE) for _ in range(6)]
    assert len({tuple(sorted(trial.params.items())) for trial in (*asked, *study.trials[:10])}) == 16


def test_advice_is_asked_for_once_and_after_the_anchors() -> None:
    calls = []

    def advice() -> Advice:
        calls.append(len(study.trials))
        return ADVICE

    anchor = {"student": "b"} | {f"bits/{index}": 3 for index in range(8)}
    study = study_of(KneepointSampler(0, [anchor] * 3, advice, random_trials=0))
    for _ in range(9):
        step(study)
    assert calls == [4]


def test_advice_finds_a_better_front_sooner() -> None:
    def volume(advice: Advice | None) -> float:
        study = study_of(KneepointSampler(0, advice=advice, random_trials=4))
        return hypervolume(np.array([values_of(step(study)) for _ in range(24)]) / (24.0, 400.0))

    assert volume(ADVICE) > volume(None)


def test_the_expected_gain_falls_as_the_front_fills() -> None:
    sampler = KneepointSampler(0, random_trials=6)
    study = study_of(sampler)
    assert sampler.expected_gain == float("inf")
    gains = []
    for _ in range(90):
        step(study)
        gains.append(sampler.expected_gain)
    assert min(gains[6:]) >= 0
    assert np.mean(gains[-20:]) < np.mean(gains[6:26]) / 2


def test_it_works_with_optimize_on_a_plain_study() -> None:
    def objective(trial: Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0.0, 1.0)
        k = trial.suggest_int("k", 0, 10, step=2)
        return x + k, (1 - x) ** 2 + (10 - k)

    study = study_of(KneepointSampler(1))
    study.optimize(objective, n_trials=40)
    assert len(study.best_trials) > 5


def test_it_beats_random_search_on_a_known_problem() -> None:
    def volume(sampler: BaseSampler) -> float:
        study = study_of(sampler)
        points = sorted({values_of(step(study)) for _ in range(100)})
        best, total = 400.0, 0.0
        for (cost, error), following in itertools.zip_longest(points, points[1:]):
            best = min(best, error)
            total += ((following[0] if following else 24.0) - cost) * (400.0 - best)
        return total

    ours = [volume(KneepointSampler(seed)) for seed in range(3)]
    theirs = [volume(optuna.samplers.RandomSampler(seed)) for seed in range(3)]
    assert min(ours) > max(theirs)


def test_reseeding_takes_another_seed() -> None:
    sampler = KneepointSampler(7)
    sampler.reseed_rng()
    assert sampler.course.seed != 7
