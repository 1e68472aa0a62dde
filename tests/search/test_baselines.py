"""The simple answers are points of the space."""

from __future__ import annotations

from kneepoint.search.baselines import fixed_baselines, random_parameters
from kneepoint.spaces.joint_space import JointSpace
from tests.search import tiny_problem


def test_the_fixed_ones(joint: JointSpace) -> None:
    found = fixed_baselines(joint)
    assert list(found) == [
        "teacher fp32",
        "uniform 8-bit",
        "uniform 4-bit",
        "half-width student fp32",
        "half-width student 8-bit",
        "quarter-width student fp32",
        "quarter-width student 8-bit",
    ]
    assert not found["teacher fp32"].layers
    assert dict(found["half-width student fp32"].student) == {"width": 4}


def test_without_students_or_eight_bits_there_are_fewer(joint: JointSpace) -> None:
    bare = tiny_problem.space(joint.task, weight_bits=(4, 16), students=None)
    assert list(fixed_baselines(bare)) == ["teacher fp32", "uniform 4-bit"]


def test_random_settings_are_valid_seeded_and_extend_shorter_lists(joint: JointSpace) -> None:
    many = random_parameters(joint, 40, 1)
    assert {joint.policy(setting).id for setting in many}
    assert random_parameters(joint, 15, 1) == many[:15]
    assert random_parameters(joint, 15, 2) != many[:15]
    assert {setting["student"] for setting in many} == set(joint.members)
