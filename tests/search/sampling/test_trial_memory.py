"""A study's trials as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.study_reader import STANDARD_ERRORS, StudyReader
from kneepoint.search.sampling.trial_memory import TrialMemory

SPACE: dict[str, BaseDistribution] = {"bits": IntDistribution(0, 3), "kind": CategoricalDistribution(("a", "b"))}
SIGNS = (-1.0, 1.0)
ADVICE = Advice(
    scales=(lambda value: 1 - value, lambda value: value / 10),
    fronts=((0, 1),),
    saturating=(True, False),
    contributions=({"bits": (3.0, 1.0, 0.5, 0.0)}, {}),
    limits=(0.5, 1.0),
)


def study_of(*values: tuple[float, float]) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(0))
    for pair in values:
        study.tell(study.ask(SPACE), pair)
    return study


def memory_of(study: optuna.Study, advice: Advice | None = ADVICE, **more: Any) -> TrialMemory:
    memory = TrialMemory(SPACE, SIGNS, advice, more.get("identity"))
    read(study, StudyReader(memory))
    return memory


def read(study: optuna.Study, reader: StudyReader) -> None:
    """As a sampler does that is asked for one more trial."""
    reader.read(study, study._storage.get_trial(study.ask(SPACE)._trial_id))


def test_values_become_losses_by_the_scales() -> None:
    evidence = memory_of(study_of((0.9, 5.0), (0.4, 1.0))).evidence(before=2)
    assert evidence is not None
    assert evidence.losses == pytest.approx(np.array([[0.1, 0.5], [0.6, 0.1]]))
    assert evidence.errors.tolist() == [[0.0, 0.0]] * 2


def test_without_scales_the_best_so_far_is_near_0_and_the_worst_near_1() -> None:
    evidence = memory_of(study_of((0.9, 5.0), (0.4, 1.0)), None).evidence(before=2)
    assert evidence is not None
    assert evidence.losses == pytest.approx(np.array([[0.05, 0.95], [0.95, 0.05]]))


def test_standard_errors_are_scaled_with_their_values() -> None:
    study = study_of((0.9, 5.0))
    trial = study.ask(SPACE)
    trial.set_user_attr(STANDARD_ERRORS, [0.02, None])
    study.tell(trial, (0.8, 4.0))
    evidence = memory_of(study).evidence(before=2)
    assert evidence is not None
    assert evidence.errors == pytest.approx(np.array([[0.0, 0.0], [0.02, 0.0]]))


def test_only_what_began_before_counts() -> None:
    memory = memory_of(study_of((0.9, 5.0), (0.4, 1.0)))
    first = memory.evidence(before=1)
    assert first is not None
    assert len(first.codes) == 1
    assert memory.evidence(before=0) is None


def test_failures_are_seen_but_are_no_evidence() -> None:
    study = study_of()
    trial = study.ask(SPACE)
    study.tell(trial, state=TrialState.FAIL)
    memory = memory_of(study)
    assert memory.evidence(before=5) is None
    codes = memory.codes.encode([trial.params])[0]
    assert memory.identify(codes, before=1) is None
    assert memory.identify(codes, before=0) is not None


def test_what_runs_is_pending_until_it_has_finished() -> None:
    study = study_of((0.9, 5.0))
    running = study.ask(SPACE)
    memory = TrialMemory(SPACE, SIGNS, ADVICE)
    reader = StudyReader(memory)
    read(study, reader)
    before = memory.evidence(before=2)
    assert before is not None
    assert before.pending.tolist() == memory.codes.encode([running.params]).tolist()
    study.tell(running, (0.5, 2.0))
    read(study, reader)
    after = memory.evidence(before=2)
    assert after is not None
    assert (len(after.pending), len(after.codes)) == (0, 2)


def test_a_constraint_that_is_missed_is_infeasible() -> None:
    study = study_of((0.9, 5.0))
    trial = study.ask(SPACE)
    trial.set_constraint("small", 1.0)
    study.tell(trial, (0.9, 9.0))
    evidence = memory_of(study).evidence(before=2)
    assert evidence is not None
    assert evidence.feasible.tolist() == [True, False]


def test_settings_are_the_same_where_their_identity_is() -> None:
    study = study_of((0.9, 5.0))
    memory = memory_of(study, identity=lambda parameters: parameters["kind"])
    kind = study.trials[0].params["kind"]
    other = {"a": "b", "b": "a"}[kind]
    found = [memory.identify(memory.codes.encode([{"bits": 1, "kind": entry}])[0], 1) for entry in (kind, other)]
    assert found == [None, other]


def test_a_prior_takes_what_is_known_by_index_and_leaves_the_rest_open() -> None:
    quality, cost = memory_of(study_of((0.9, 5.0))).proposer().priors
    assert quality.mean.tolist() == [3.0, 1.0, 0.5, 0.0, 0.0, 0.0]
    assert quality.spread[3] < quality.spread[0]
    assert len(set(cost.spread.tolist())) == 1


def test_what_some_settings_cost_is_learned_where_others_have_no_price() -> None:
    def price(settings: Any) -> Any:
        told = [float(entry["bits"]) if entry["kind"] == "a" else np.nan for entry in settings]
        return np.array([[np.nan, value] for value in told])

    advice = Advice(ADVICE.scales, ADVICE.fronts, ADVICE.saturating, ADVICE.contributions, ADVICE.limits, price=price)
    memory = memory_of(study_of((0.9, 5.0)), advice)
    first = memory.proposer()
    assert first.priced.keys() == {1}
    assert first.price is not None
    first.price(np.array([[0, 0], [3, 1]]))
    expected, _ = memory.proposer().priced[1].predict(np.array([[2, 0]]))
    assert expected[0] == pytest.approx(0.2, abs=0.05)


def test_prices_are_losses_and_unknown_ones_stay_unknown() -> None:
    def price(settings: Any) -> Any:
        return np.array([[np.nan, float(entry["bits"])] for entry in settings])

    advice = Advice(ADVICE.scales, ADVICE.fronts, ADVICE.saturating, ADVICE.contributions, ADVICE.limits, price=price)
    proposer = memory_of(study_of((0.9, 5.0)), advice).proposer()
    assert proposer.price is not None
    assert proposer.price(np.array([[2, 0], [3, 1]]))[:, 1].tolist() == [0.2, 0.3]
    assert np.isnan(proposer.price(np.array([[2, 0]]))[:, 0]).all()
