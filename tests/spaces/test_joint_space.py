from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kneepoint.spaces.joint_space import STUDENT, JointSpace, joint_space, transfer
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.students import StudentFamily, describe
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.residual_network import ResidualNet
from kneepoint.tasks.task import Task


def build_student(depth: int, width: float) -> nn.Module:
    return ResidualNet(width=round(4 * width), depth=depth)


def make_task() -> Task:
    torch.manual_seed(0)
    batches = [(torch.randn(8, 1, 12, 12), torch.randint(0, 10, (8,)))]
    return Task(ResidualNet(4, 1).eval(), batches[0][0][:1], batches, batches)


@pytest.fixture(scope="module")
def space() -> JointSpace:
    return joint_space(make_task(), (8, 2, 16, 8), (1.0, 0.5), "auto")


@pytest.fixture(scope="module")
def family_space() -> JointSpace:
    family = StudentFamily(build_student, {"depth": (1, 2), "width": (0.5, 1.0)}, name="tests:build_student")
    return joint_space(make_task(), (4, 8), (1.0,), family)


def test_choices_are_sorted_and_parameters_are_flat(space: JointSpace) -> None:
    assert space.weight_bits == (2, 8, 16)
    assert space.keep == (0.5, 1.0)
    expected = {
        STUDENT,
        *(f"bits/{name}" for name in space.teacher.layers),
        *(f"keep/{g}" for g in space.teacher.groups),
    }
    assert set(space.distributions) == expected
    assert space.size == len(space.members) * 3 ** len(space.teacher.layers) * 2 ** len(space.teacher.groups)


def test_the_members_of_the_automatic_family(space: JointSpace) -> None:
    names = list(space.members)
    assert names[0] == "teacher"
    assert {"separable=0,width=0.5", "separable=0,width=0.25", "separable=1,width=1.0"} < set(names)
    assert len(names) == 9


def test_a_space_of_any_size_has_one(space: JointSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "choices", dict.fromkeys(map(str, range(900)), 3))
    assert space.size == math.inf


def test_uniform_settings(space: JointSpace) -> None:
    policy = space.policy(space.uniform(bits=2, keep=0.5))
    assert policy == Policy.build(
        keep=dict.fromkeys(space.teacher.groups, 0.5),
        layers=dict.fromkeys(space.teacher.layers, LayerPolicy.of_bits(2)),
    )
    with pytest.raises(SpaceError, match=r"the space has no \(teacher, 4 bits, keep 1.0\)"):
        space.uniform(bits=4)
    with pytest.raises(SpaceError, match=r"the space has no \(width=3"):
        space.uniform("width=3")


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_every_setting_is_a_policy_of_its_network(space: JointSpace, data: st.DataObject) -> None:
    parameters: dict[str, Any] = {STUDENT: data.draw(st.sampled_from(["teacher", "separable=1,width=0.5"]))}
    parameters.update({f"bits/{name}": data.draw(st.integers(0, 2)) for name in space.teacher.layers})
    parameters.update({f"keep/{name}": data.draw(st.integers(0, 1)) for name in space.teacher.groups})
    policy = space.policy(parameters)
    space.network(dict(policy.student)).check(policy)
    assert policy.layer("head").weight_bits == space.weight_bits[parameters["bits/head"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (STUDENT, "width=9"),
        ("bits/head", 3),
        ("bits/head", -1),
        ("bits/head", "x"),
        ("keep/stem", 2),
        ("bits/head", None),
    ],
)
def test_a_setting_outside_the_space_is_refused(space: JointSpace, name: str, value: Any) -> None:
    with pytest.raises(SpaceError, match="not a point of this space: it has no"):
        space.policy({**space.uniform(), name: value})
    missing = space.uniform()
    del missing[name]
    with pytest.raises(SpaceError, match=f"not a point of this space: it has no '{name}'"):
        space.policy(missing)


@pytest.mark.parametrize("bits", [(), (5,), (8.0,), (True,), "8", ([8],), 8, None, "w8a8"])
def test_bad_bits_are_refused_before_anything_is_traced(bits: Any) -> None:
    with pytest.raises(SpaceError, match=r"weight_bits is one or more of \[1, 2, .*\] or names such as 'w4a16'; got"):
        joint_space(None, weight_bits=bits)  # type: ignore[arg-type]  # it is never looked at


@pytest.mark.parametrize("keep", [(), (0.0,), (1.5,), (math.nan,), ("a",), 0.5])
def test_bad_fractions_are_refused(keep: Any) -> None:
    with pytest.raises(SpaceError, match=r"keep is one or more fractions in \(0, 1\]; got"):
        joint_space(None, keep=keep)  # type: ignore[arg-type]  # it is never looked at


def test_a_family_of_ones_own(family_space: JointSpace) -> None:
    assert list(family_space.members)[1:3] == ["depth=1,width=0.5", "depth=1,width=1.0"]
    policy = family_space.policy(family_space.uniform("depth=2,width=0.5", 4))
    deeper = family_space.network({"depth": 2, "width": 0.5})
    assert policy.student == (("depth", 2), ("width", 0.5))
    assert set(policy.layer_of) == set(deeper.layers)
    assert len(deeper.layers) > len(family_space.teacher.layers)
    assert family_space.network({"width": 0.5, "depth": 2}) is deeper


def test_layers_of_one_name_share_choices_and_others_take_those_of_their_depth() -> None:
    assert transfer({"a": 1, "b": 2, "c": 3}, ["a", "x", "c"]) == {"a": 1, "x": 2, "c": 3}
    assert transfer({"a": 1, "b": 2}, ["p", "q", "r"]) == {"p": 1, "q": 1, "r": 2}
    assert transfer({"a": 1}, ["only"]) == {"only": 1}
    assert transfer({}, ["x"]) == {}


def test_a_pickled_space_is_the_same_space(space: JointSpace, family_space: JointSpace) -> None:
    for original in (space, family_space):
        _ = original.distributions
        again = pickle.loads(pickle.dumps(original))  # noqa: S301 - what the test itself pickled
        assert again.members == original.members
        assert again.distributions == original.distributions
        assert again.policy(again.uniform()) == original.policy(original.uniform())
        assert list(again.network(dict(list(original.members.values())[1])).layers)


@pytest.mark.parametrize("students", ["none", "Auto", [], 3])
def test_students_are_a_family_or_none(space: JointSpace, students: Any) -> None:
    with pytest.raises(SpaceError, match=r"students is 'auto', a StudentFamily or None; got "):
        JointSpace(space.task, students=students)


def test_a_family_of_any_name_survives_pickling(space: JointSpace) -> None:
    own = JointSpace(space.task, students=StudentFamily(build_student, {"depth": [1], "width": [0.5]}, name="auto"))
    assert pickle.loads(pickle.dumps(own)).members == own.members  # noqa: S301 - what the test itself pickled


def test_no_students(space: JointSpace) -> None:
    alone = joint_space(space.task, students=None)
    assert list(alone.members) == ["teacher"]
    with pytest.raises(SpaceError, match=r"the space has no students, and a policy names width=0\.5"):
        alone.network({"width": 0.5})


def test_a_family_makes_the_same_student_for_the_same_seed(family_space: JointSpace) -> None:
    family = family_space.students
    assert family is not None
    state = torch.get_rng_state()
    a, b, c = (family.make({"depth": 1, "width": 1.0}, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(a["stem.weight"], b["stem.weight"])
    assert not torch.equal(a["stem.weight"], c["stem.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def raises(width: float) -> nn.Module:
    raise ValueError("too narrow")


def gives_nothing(width: float) -> nn.Module:
    return None  # type: ignore[return-value]  # what a user may do


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (raises, r"building the student width=0.5 failed: ValueError\('too narrow'\)"),
        (gives_nothing, "returns a torch.nn.Module; got NoneType"),
    ],
)
def test_a_family_that_fails_is_named(build: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        StudentFamily(build, {"width": (0.5,)}).make({"width": 0.5}, 0)


@pytest.mark.parametrize("axes", [{}, {"width": ()}])
def test_a_family_needs_axes(axes: Mapping[str, Any]) -> None:
    with pytest.raises(SpaceError, match="needs axes with at least one value each"):
        StudentFamily(build_student, axes)


def test_a_search_may_be_among_some_students(family_space: JointSpace) -> None:
    space = pickle.loads(pickle.dumps(family_space))  # noqa: S301 - what the test itself pickled
    some = ["teacher", list(space.members)[-1]]
    assert len(space.distributions["student"].choices) > 2
    space.search_among(some)
    assert list(space.members) == list(space.distributions["student"].choices) == some
    left_out = next(name for name in family_space.members if name not in some)
    assert space.network(family_space.members[left_out]).layers


def test_descriptions() -> None:
    assert describe({"width": 0.5, "depth": 1}) == "depth=1,width=0.5"
    assert describe({}) == "teacher"


# --- formats by name, residual blocks, rounded widths -------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_space() -> JointSpace:
    torch.manual_seed(0)
    batches = [(torch.randn(8, 1, 12, 12), torch.randint(0, 10, (8,)))]
    task = Task(ResidualNet(16, 2).eval(), batches[0][0][:1], batches, batches)
    formats = (16, "w8a8", "w8a8-dynamic", "w4-g32", "w4a16", 4, "w8a8-2:4", 8)
    return joint_space(task, formats, (1.0, 0.3), "auto", blocks=True, channel_multiple=4)


def test_formats_are_bits_or_names_in_one_order(wide_space: JointSpace) -> None:
    assert wide_space.weight_bits == (4, "w4a16", "w4-g32", "w8a8-2:4", 8, "w8a8-dynamic", 16)
    assert list(wide_space.formats) == sorted(wide_space.formats)
    assert wide_space.uniform(bits="w8a8") == wide_space.uniform(bits=8)
    assert wide_space.uniform(bits="w4-g32")["bits/head"] == 2
    with pytest.raises(SpaceError, match=r"has no \(teacher, w6a8, keep 1.0\)"):
        wide_space.uniform(bits="w6a8")
    with pytest.raises(SpaceError, match="a format is a name like"):
        wide_space.uniform(bits="int8")


def test_a_layer_takes_the_nearest_format_it_can(wide_space: JointSpace) -> None:
    grouped = wide_space.policy(wide_space.uniform(bits="w4-g32"))
    assert (grouped.layer("head").name, grouped.layer("stem").name) == ("w4-g32", "w4")
    dynamic = wide_space.policy(wide_space.uniform(bits="w8a8-dynamic"))
    assert (dynamic.layer("head").name, dynamic.layer("stem").name) == ("w8a8-dynamic", "w8a8")
    wide_space.teacher.check(grouped)
    wide_space.teacher.check(dynamic)


@pytest.mark.parametrize("bits", [("w5a8",), ("int4",), (8, "w16a8")])
def test_names_of_no_format_are_refused(bits: Any) -> None:
    with pytest.raises(SpaceError, match=r"a format is a name like|weight_bits is one of|integer activations go with"):
        joint_space(None, weight_bits=bits)  # type: ignore[arg-type]  # it is never looked at


def test_blocks_are_parameters_with_two_choices(wide_space: JointSpace, space: JointSpace) -> None:
    names = [f"keep/block:{name}" for name in ("stages.0.0", "stages.0.1", "stages.1.1", "stages.2.1")]
    assert list(wide_space.choices)[-4:] == names
    assert set(wide_space.distributions) == {STUDENT, *wide_space.choices}
    assert {wide_space.choices[name] for name in names} == {2}
    assert wide_space.uniform()[names[0]] == 1
    assert wide_space.size == 9 * 7 ** len(wide_space.teacher.layers) * 2 ** (len(wide_space.teacher.groups) + 4)
    assert not any("block:" in name for name in space.choices)
    with pytest.raises(SpaceError, match="it has no choice 2 among the 2"):
        wide_space.policy({**wide_space.uniform(), names[0]: 2})


def test_a_policy_does_not_mention_what_leaves_with_a_block(wide_space: JointSpace) -> None:
    setting = {**wide_space.uniform(bits=4, keep=0.3), "keep/block:stages.0.1": 0}
    policy = wide_space.policy(setting)
    assert policy.dropped_blocks == {"stages.0.1"}
    assert "stages.0.1.conv1" not in policy.keep_of
    assert not {"stages.0.1.conv1", "stages.0.1.conv2"} & set(policy.layer_of)
    other = wide_space.policy({**setting, "keep/stages.0.1.conv1": 1, "bits/stages.0.1.conv2": 0})
    assert other.id == policy.id
    network = wide_space.network_of(policy)
    assert set(network.layers) == set(policy.layer_of)
    assert Policy.from_json(policy.to_json()) == policy


def test_students_lose_the_same_blocks_and_round_alike(wide_space: JointSpace) -> None:
    setting = {**wide_space.uniform("depth=1.0,separable=0,width=0.5", 8, 0.3), "keep/block:stages.2.1": 0}
    policy = wide_space.policy(setting)
    network = wide_space.network_of(policy)
    assert policy.dropped_blocks == {"stages.2.1"}
    assert "stages.2.1.conv1" not in network.layers
    assert network.channel_multiple == wide_space.teacher.channel_multiple == 4
    assert network.channels(policy)["stages.2.0.conv1"] == 8  # of 32, in steps of 4


def test_a_pickled_space_keeps_its_blocks_formats_and_widths(wide_space: JointSpace) -> None:
    again = pickle.loads(pickle.dumps(wide_space))  # noqa: S301 - what the test itself pickled
    setting = {**wide_space.uniform("depth=1.0,separable=0,width=0.5", "w8a8-2:4", 0.3), "keep/block:stages.2.1": 0}
    assert again.choices == wide_space.choices
    assert again.policy(setting) == wide_space.policy(setting)
    assert again.teacher.channel_multiple == 4


def test_sparse_formats_reach_the_operator_table(wide_space: JointSpace) -> None:
    policy = wide_space.policy(wide_space.uniform(bits="w8a8-2:4"))
    weights = [operator.weight for operator in lower(wide_space.teacher, policy).operators if operator.weight]
    assert {weight.sparsity for weight in weights} == {"2:4"}


@pytest.mark.parametrize("blocks", [1, "yes", None])
def test_blocks_are_wanted_or_not(blocks: Any) -> None:
    with pytest.raises(SpaceError, match="blocks is True or False; got"):
        joint_space(None, blocks=blocks)  # type: ignore[arg-type]  # it is never looked at
