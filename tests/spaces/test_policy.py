from __future__ import annotations

import contextlib
import itertools
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.spaces.policy import (
    ACTIVATION_BITS,
    GROUP_SIZES,
    SPARSITIES,
    UNTOUCHED,
    WEIGHT_BITS,
    LayerPolicy,
    Policy,
)
from kneepoint.tasks.errors import SpaceError

names = st.text(min_size=1, max_size=8)
values = st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
fractions = st.floats(0, 1, exclude_min=True)


def every_format() -> list[LayerPolicy]:
    found = []
    for choice in itertools.product(WEIGHT_BITS, ACTIVATION_BITS, (False, True), GROUP_SIZES, SPARSITIES):
        with contextlib.suppress(SpaceError):  # choices that exclude each other
            found.append(LayerPolicy(*choice))
    return found


layers = st.sampled_from(every_format())
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


@pytest.mark.parametrize("bits", [5, 0, -8, 8.0, True, "8", None])
def test_bits_that_there_are_not(bits: Any) -> None:
    with pytest.raises(SpaceError, match=r"weight_bits is one of \(1, 2, 3, 4, 6, 8, 16, 32\); got"):
        LayerPolicy(bits, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_bits": 4, "activation_bits": 4}, r"activation_bits is one of \(8, 16, None\); got 4"),
        ({"weight_bits": 4, "dynamic": 1}, r"dynamic is one of \(False, True\); got 1"),
        ({"weight_bits": 4, "group_size": 48}, r"group_size is one of \(0, 32, 64, 128\); got 48"),
        ({"weight_bits": 4, "sparsity": "4:2"}, "sparsity is one of .* got '4:2'"),
        (
            {"weight_bits": 16, "activation_bits": 8},
            "integer activations go with weights of 8 bits or fewer; got 'w16a8'",
        ),
        ({"weight_bits": 4, "dynamic": True}, "dynamic ranges go with 8-bit activations; got 'w4-dynamic'"),
        ({"weight_bits": 4, "activation_bits": 16, "dynamic": True}, "dynamic ranges go with 8-bit activations"),
        ({"weight_bits": 16, "group_size": 32}, "scales of groups go with integer weights; got 'w16-g32'"),
        ({"weight_bits": 4, "activation_bits": 8, "group_size": 32}, "scales of groups go with float activations"),
    ],
)
def test_formats_that_exclude_each_other(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        LayerPolicy(**arguments)


def test_the_usual_activations_of_some_bits() -> None:
    assert [LayerPolicy.of_bits(bits).activation_bits for bits in WEIGHT_BITS] == [8, 8, 8, 8, 8, 8, None, None]
    assert LayerPolicy(8).integer
    assert not LayerPolicy(8).static
    assert LayerPolicy(8, 8).static
    assert not LayerPolicy(8, 8, dynamic=True).static


@given(layers)
def test_a_format_survives_its_name_and_its_json(layer: LayerPolicy) -> None:
    assert LayerPolicy.parse(layer.name) == layer
    assert LayerPolicy.from_json(json.loads(json.dumps(layer.to_json()))) == layer


@given(layers, layers)
def test_formats_are_in_a_total_order(one: LayerPolicy, other: LayerPolicy) -> None:
    assert [one < other, other < one, one == other].count(True) == 1
    assert one.weight_bits <= other.weight_bits or other < one


def test_rare_choices_are_left_out_of_json() -> None:
    assert LayerPolicy(4, 8).to_json() == {"weight_bits": 4, "activation_bits": 8}
    assert LayerPolicy(4, None, group_size=32).to_json() == {
        "weight_bits": 4,
        "activation_bits": None,
        "group_size": 32,
    }


@pytest.mark.parametrize("name", ["", "8", "w8a", "w4g32", "a8w8", "w8a8-fast", 8, None])
def test_a_name_of_no_format(name: Any) -> None:
    with pytest.raises(SpaceError, match="a format is a name like w4a8"):
        LayerPolicy.parse(name)


def test_an_unknown_key_of_a_layer() -> None:
    with pytest.raises(SpaceError, match=r"a layer's policy has weight_bits.*got \{'bits'\}"):
        Policy.from_json(
            {"student": "teacher", "keep": {}, "layers": {"a": {"weight_bits": 8, "activation_bits": 8, "bits": 3}}}
        )


def test_a_residual_block_is_left_out_or_not() -> None:
    policy = Policy.build(keep={"block:a": 0, "b": 0.5, "block:c": 1.0})
    assert policy.dropped_blocks == {"a"}
    assert policy.keep_of == {"b": 0.5}
    assert Policy.from_json(policy.to_json()) == policy
    with pytest.raises(SpaceError, match=r"kept whole \(1, left out\) or not \(0\); got 0.5 for 'block:a'"):
        Policy.build(keep={"block:a": 0.5})


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
