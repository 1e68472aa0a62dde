"""What training leaves of a network's damage."""

from __future__ import annotations

import numpy as np
import pytest

from kneepoint.search.rung_model import RungModel

NOTHING = np.zeros(0)


def test_before_anything_was_trained_most_damage_is_believed_to_go_and_much_is_unknown() -> None:
    mean, spread = RungModel.of(NOTHING, NOTHING).predict(np.array([0.0, 0.4]))
    assert mean == pytest.approx([0.0, 0.12])
    assert spread[1] > 0.1 > spread[0]


def test_the_share_is_learned() -> None:
    before = np.array([0.05, 0.1, 0.2, 0.4])
    model = RungModel.of(before, 0.1 * before)
    mean, spread = model.predict(np.array([0.3]))
    assert mean == pytest.approx([0.03], abs=0.02)
    assert spread < RungModel.of(NOTHING, NOTHING).predict(np.array([0.3]))[1]


def test_what_is_irregular_stays_uncertain() -> None:
    before = np.array([0.1, 0.1, 0.2, 0.2])
    regular, irregular = RungModel.of(before, 0.5 * before), RungModel.of(before, before * [0.0, 1.0, 0.0, 1.0])
    place = np.array([0.15])
    assert irregular.predict(place)[1] > regular.predict(place)[1]


def test_a_network_better_than_the_best_is_no_error() -> None:
    mean, spread = RungModel.of(np.array([-0.01]), np.array([-0.02])).predict(np.array([-0.01]))
    assert np.isfinite([*mean, *spread]).all()
