"""Settings as positions among choices, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from kneepoint.search.sampling.choice_codes import MOST_CHOICES, ChoiceCodes

SPACE: dict[str, BaseDistribution] = {
    "bits": IntDistribution(0, 3),
    "even": IntDistribution(2, 10, step=2),
    "flag": CategoricalDistribution((True, 1, "1", 1.0, None)),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0, step=0.25),
    "width": IntDistribution(1, 1000, log=True),
}


@given(st.data())
def test_what_is_decoded_encodes_to_the_same(data: st.DataObject) -> None:
    codes = ChoiceCodes(SPACE)
    row = np.array([data.draw(st.integers(0, count - 1)) for count in codes.counts])
    setting = codes.decode(row)
    assert codes.encode([setting]).tolist() == [row.tolist()]
    assert all(SPACE[name]._contains(SPACE[name].to_internal_repr(value)) for name, value in setting.items())


def test_parameters_stand_in_the_order_of_their_names() -> None:
    codes = ChoiceCodes(SPACE)
    assert codes.names == tuple(sorted(SPACE))
    assert codes.counts == (4, 5, 5, MOST_CHOICES, 5, len(codes.choices[-1]))
    assert len(codes.choices[-1]) <= MOST_CHOICES


def test_a_value_between_two_takes_the_nearest() -> None:
    codes = ChoiceCodes({"x": FloatDistribution(0.0, 1.0)})
    (found,) = codes.encode([{"x": 0.5 + 1e-9}])[0].tolist()
    assert codes.decode(np.array([found]))["x"] == pytest.approx(0.5, abs=0.5 / (MOST_CHOICES - 1))


def test_equal_values_of_other_types_are_other_categories() -> None:
    codes = ChoiceCodes({"flag": SPACE["flag"]})
    assert codes.encode([{"flag": value} for value in (True, 1, "1", 1.0, None)]).ravel().tolist() == [0, 1, 2, 3, 4]


def test_a_category_that_is_gone_is_taken_for_the_first() -> None:
    assert ChoiceCodes({"flag": CategoricalDistribution(("a", "b"))}).encode([{"flag": "c"}]).tolist() == [[0]]


def test_no_settings_are_no_rows() -> None:
    assert ChoiceCodes(SPACE).encode([]).shape == (0, len(SPACE))


def test_a_foreign_distribution_is_refused() -> None:
    foreign: Any = object()
    with pytest.raises(TypeError, match="categorical, int or float"):
        ChoiceCodes({"x": foreign})
