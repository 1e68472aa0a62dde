"""How good predictions are of families of networks that nothing was fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from kneepoint.hardware_models.published.leaving_out import (
    Prediction,
    fitted,
    leave_families_out,
    of_world,
)
from kneepoint.hardware_models.published.samples import Sample, samples
from kneepoint.hardware_models.published.systems import System

Found = Mapping[System, Sequence[Sample]]


@pytest.fixture(scope="module")
def boards() -> Found:
    """Microcontrollers: the smallest world."""
    return of_world(samples(), "microcontroller")


@pytest.fixture(scope="module")
def predictions(boards: Found) -> list[Prediction]:
    return list(leave_families_out(boards))


def test_every_sample_of_a_system_with_two_families_is_predicted_once(
    boards: Found, predictions: list[Prediction]
) -> None:
    several = [s for entries in boards.values() if len({s.family for s in entries}) > 1 for s in entries]
    assert sorted(id(p.sample) for p in predictions) == sorted(map(id, several))


def test_a_left_out_family_is_really_left_out(boards: Found, predictions: list[Prediction]) -> None:
    """What was published of a family, on any system, changes nothing that is predicted of it."""
    family = "MLPerf Tiny AutoEncoder"
    changed = {
        system: [dataclasses.replace(s, latency_ms=s.latency_ms * (100 if s.family == family else 1)) for s in entries]
        for system, entries in boards.items()
    }
    before = [p.latency_ms for p in predictions if p.sample.family == family]
    after = [p.latency_ms for p in leave_families_out(changed) if p.sample.family == family]
    assert len(before) > 50
    assert after == before


def test_unseen_families_are_predicted_on_microcontrollers(predictions: list[Prediction]) -> None:
    errors = np.abs([p.log_error for p in predictions])
    assert errors.mean() < 0.2
    assert np.median(errors) < 0.12


def test_an_error_is_relative_to_what_was_published(predictions: list[Prediction]) -> None:
    sample = predictions[0].sample
    twice = Prediction(sample, 2 * sample.latency_ms)
    assert twice.log_error == pytest.approx(np.log(2))


def test_a_system_of_one_family_cannot_be_predicted(boards: Found) -> None:
    system, entries = next((s, e) for s, e in boards.items() if len({x.family for x in e}) > 2)
    one = [sample for sample in entries if sample.family == entries[0].family]
    others = {other: found for other, found in boards.items() if other != system}
    assert not any(
        p.sample.system == system for p in leave_families_out({**dict(list(others.items())[:3]), system: one})
    )


def test_nothing_is_fitted_to_nothing() -> None:
    with pytest.raises(StopIteration):
        fitted({})
