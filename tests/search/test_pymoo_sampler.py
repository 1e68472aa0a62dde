"""Algorithms of pymoo in a study of Optuna."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.sms import SMSEMOA

from kneepoint.search.pymoo_sampler import POPULATION, PymooSampler, is_pymoo
from kneepoint.search.samplers import sampler_named
from kneepoint.spaces.joint_space import JointSpace

SPACE: dict[str, BaseDistribution] = {"student": CategoricalDistribution(("a", "b", "c"))} | {
    f"bits/{index}": IntDistribution(0, 3) for index in range(8)
}


def study_of(kind: type[Any] = NSGA2, seed: int = 0) -> optuna.Study:
    return optuna.create_study(sampler=PymooSampler(kind, SPACE, seed), directions=["minimize", "maximize"])


def step(study: optuna.Study) -> dict[str, Any]:
    trial = study.ask(SPACE)
    bits = [trial.params[f"bits/{index}"] for index in range(8)]
    study.tell(trial, (sum(bits) + ord(trial.params["student"]), -sum((3 - one) ** 2 for one in bits)))
    return dict(trial.params)


@pytest.mark.parametrize("kind", [NSGA2, SMSEMOA])
def test_it_improves_generation_by_generation(kind: type[Any]) -> None:
    study = study_of(kind)
    found = [step(study) for _ in range(6 * POPULATION)]
    early, late = found[:POPULATION], found[-POPULATION:]
    count = sum(entry["student"] == "a" for entry in late)
    assert count > sum(entry["student"] == "a" for entry in early)
    assert count > POPULATION / 2  # the other students cost more, and give nothing


def test_the_same_seed_proposes_the_same_and_another_another() -> None:
    runs = [[step(study) for _ in range(2 * POPULATION)] for study in (study_of(), study_of(), study_of(seed=1))]
    assert runs[0] == runs[1] != runs[2]


def test_failures_and_what_misses_a_constraint_do_not_survive() -> None:
    study = study_of()
    for _ in range(8 * POPULATION):
        trial = study.ask(SPACE)
        if trial.params["bits/0"] == 0:
            study.tell(trial, state=TrialState.FAIL)
            continue
        trial.set_constraint("student is c", float(trial.params["student"] != "c"))
        study.tell(trial, (sum(trial.params[f"bits/{index}"] for index in range(8)), 0.0))
    late = [trial.params for trial in study.trials[-POPULATION:]]
    assert sum(entry["student"] == "c" for entry in late) > POPULATION / 2
    assert sum(entry["bits/0"] == 0 for entry in late) < POPULATION / 4


def test_trials_beyond_a_population_that_is_being_measured_are_random() -> None:
    study = study_of()
    asked = [study.ask(SPACE) for _ in range(POPULATION + 10)]
    for trial in asked:
        study.tell(trial, (1.0, 0.0))
    assert all(trial.params.keys() == SPACE.keys() for trial in asked)
    step(study)


def test_a_job_names_one_by_its_class(joint: JointSpace) -> None:
    sampler = sampler_named("pymoo.algorithms.moo.nsga2:NSGA2", joint, 0)
    assert isinstance(sampler, PymooSampler)
    study = optuna.create_study(sampler=sampler, directions=["minimize"])
    for _ in range(3):
        trial = study.ask(dict(joint.distributions))
        assert joint.policy(trial.params).id
        study.tell(trial, float(len(trial.params)))


def test_an_algorithm_is_told_from_other_classes() -> None:
    assert is_pymoo(NSGA2)
    assert not is_pymoo(PymooSampler)
