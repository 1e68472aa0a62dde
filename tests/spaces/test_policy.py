from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.spaces.policy import UNTOUCHED, WEIGHT_BITS, LayerPolicy, Policy
from kneepoint.tasks.errors import SpaceError

names = st.text(min_size=1, max_size=8)
values = st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
fractions = st.floats(0, 1, exclude_min=True)
layers = st.sampled_from(WEIGHT_BITS).map(LayerPolicy.of_bits)
policies = st.builds(
    Policy.build,
    st.just("teacher") | st.dictionaries(names, values, min_size=1, max_size=3),
    st.dictionaries(names, fractions, max_size=4),
    st.dictionaries(names, layers, max_size=4),
)


@given(policies)
def test_the_json_round_trip_is_exact(policy: Policy) -> None:
    again = Policy.from_json(json.loads(json.dumps(policy.to_json())))
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.id == policy.id


@given(policies, policies)
def test_equal_policies_have_equal_ids_and_others_do_not(a: Policy, b: Policy) -> None:
    assert (a.id == b.id) == (a == b)


@given(st.dictionaries(names, fractions, max_size=4), st.dictionaries(names, layers, max_size=4), st.randoms())
def test_the_order_of_writing_does_not_count(
    keep: dict[str, float], named: dict[str, LayerPolicy], random: Any
) -> None:
    items, entries = list(keep.items()), list(named.items())
    random.shuffle(items)
    random.shuffle(entries)
    assert Policy.build(keep=dict(items), layers=dict(entries)) == Policy.build(keep=keep, layers=named)


def test_ids_are_stable_between_versions() -> None:
    policy = Policy.build({"width": 0.5}, {"stem": 0.75}, {"head": LayerPolicy.of_bits(4)})
    assert Policy().id == "cc924b858859b23e"
    assert policy.id == "d4f4551557eee090"


def test_one_and_one_point_zero_are_the_same_width() -> None:
    assert Policy.build({"width": 1}) == Policy.build({"width": 1.0})
    assert Policy.build({"width": 1}).id == Policy.build({"width": 1.0}).id


def test_defaults_are_no_part_of_the_value() -> None:
    assert Policy.build(keep={"a": 1.0, "b": 1}, layers={"c": UNTOUCHED, "d": LayerPolicy(32, None)}) == Policy.build()
    assert Policy.build({}) == Policy.build("teacher") == Policy()
    assert Policy.build().to_json() == {"student": "teacher", "keep": {}, "layers": {}}
    assert Policy.build().layer("anything") is UNTOUCHED


@pytest.mark.parametrize("fraction", [math.nan, -0.5, 0.0, 1.5, math.inf, True, "half", None, [0.5]])
def test_a_fraction_outside_its_range_is_refused(fraction: Any) -> None:
    with pytest.raises(SpaceError, match=r"a kept fraction lies in \(0, 1\].*'stem'"):
        Policy.build(keep={"stem": fraction})


@pytest.mark.parametrize("value", [math.nan, math.inf, [1], None, {}])
def test_an_axis_takes_a_number_or_a_string(value: Any) -> None:
    with pytest.raises(SpaceError, match="a student's axis takes a finite number or a string"):
        Policy.build({"width": value})


@pytest.mark.parametrize("bits", [3, 0, -8, 8.0, True, "8", None])
def test_bits_that_there_are_not(bits: Any) -> None:
    with pytest.raises(SpaceError, match=r"weight_bits is one of \(2, 4, 8, 16, 32\); got"):
        LayerPolicy(bits, 8)


def test_activations_go_with_their_weights() -> None:
    with pytest.raises(SpaceError, match="activation_bits is 8 or null; got 4"):
        LayerPolicy(4, 4)
    with pytest.raises(SpaceError, match="got weight_bits=8, activation_bits=None"):
        LayerPolicy(8, None)
    with pytest.raises(SpaceError, match="got weight_bits=16, activation_bits=8"):
        LayerPolicy(16, 8)
    assert [LayerPolicy.of_bits(bits).activation_bits for bits in WEIGHT_BITS] == [8, 8, 8, None, None]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"student": "teacher", "keep": {}},
        {"student": "teacher", "keep": [], "layers": []},
        {"student": "teacher", "keep": {}, "layers": {"a": 8}},
        {"student": "teacher", "keep": {}, "layers": {"a": {"weight_bits": 8}}},
        {"student": "teacher", "keep": "abc", "layers": {}},
    ],
)
def test_a_malformed_policy_says_what_one_is(data: dict[str, Any]) -> None:
    with pytest.raises(SpaceError, match="a policy has the keys student, keep and layers"):
        Policy.from_json(data)


def test_a_student_is_the_teacher_or_axes() -> None:
    with pytest.raises(SpaceError, match="a student is 'teacher' or its axes with values; got 'small'"):
        Policy.from_json({"student": "small", "keep": {}, "layers": {}})


def test_a_policy_made_by_hand_must_be_canonical() -> None:
    with pytest.raises(SpaceError, match="every name once, as a string, sorted"):
        Policy(keep=(("b", 0.5), ("a", 0.5)))
    with pytest.raises(SpaceError, match="every name once"):
        Policy(keep=(("a", 0.5), ("a", 0.25)))
    with pytest.raises(SpaceError, match="and 1 is left out"):
        Policy(keep=(("a", 1.0),))
    with pytest.raises(SpaceError, match="every touched layer"):
        Policy(layers=(("a", UNTOUCHED),))


IMPORTS = """
import sys
import {module}
heavy = ("torch", "optuna", "ray", "onnxruntime", "kneepoint.search.driver")
print(*(name for name in heavy if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("module", "loaded"),
    [
        ("kneepoint.spaces.policy", ""),
        ("kneepoint.spaces", ""),
        ("kneepoint.spaces.joint_space", "torch"),
        ("kneepoint.compression", "torch"),
        ("kneepoint.objectives", "torch"),
    ],
)
def test_importing_a_room_loads_little(module: str, loaded: str) -> None:
    program = [sys.executable, "-c", IMPORTS.format(module=module)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == loaded


def test_the_rooms_names() -> None:
    import kneepoint.spaces

    for name in kneepoint.spaces.__all__:
        assert getattr(kneepoint.spaces, name).__name__ == name
        assert name in dir(kneepoint.spaces)
    with pytest.raises(AttributeError, match="no attribute 'Polcy'"):
        _ = kneepoint.spaces.Polcy
