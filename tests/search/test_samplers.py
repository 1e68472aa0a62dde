"""Samplers by name, and the anchors."""

from __future__ import annotations

import warnings

import optuna
import pytest

from kneepoint.search.samplers import anchors, sampler_name, sampler_named
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import JobError
from tests.search import tiny_problem


def test_anchors_of_formats_by_name(joint: JointSpace) -> None:
    names = ("w2-g32", "w4a8-dynamic", "w8-g32", 32)
    alone = tiny_problem.space(joint.task, weight_bits=names, students=None)
    expected = [alone.uniform(bits=name) for name in ("w8-g32", "w4a8-dynamic", "w2-g32")]
    assert anchors(alone) == expected
    family = tiny_problem.space(joint.task, weight_bits=names)
    assert len(anchors(family)) == 2 * len(family.members)


def test_anchors_are_points_of_the_space(joint: JointSpace) -> None:
    found = anchors(joint)
    policies = [joint.policy(setting) for setting in found]
    assert len({policy.id for policy in policies}) == len(found) == 3 * len(joint.members)
    assert [dict(policy.layers)["head"].weight_bits for policy in policies[::3]] == [8, 4, 16]
    assert all(not policy.keep for policy in policies)


@pytest.mark.parametrize(("bits", "count"), [((2,), 1), ((2, 32), 1), ((8, 32), 1), ((4, 16), 2)])
def test_anchors_of_other_widths(joint: JointSpace, bits: tuple[int, ...], count: int) -> None:
    space = tiny_problem.space(joint.task, weight_bits=bits, students=None)
    assert [space.policy(one) for one in anchors(space)]
    assert len(anchors(space)) == count


def test_names(joint: JointSpace) -> None:
    for name in ("kneepoint", "nsga2", "nsga3", "tpe", "gp", "random"):
        assert isinstance(sampler_named(name, joint, 0), optuna.samplers.BaseSampler)
        assert sampler_name(name) == name
    own = optuna.samplers.RandomSampler()
    assert sampler_named(own, joint, 0) is own
    assert sampler_name(own) == "RandomSampler"
    with pytest.raises(JobError, match="unknown sampler 'kneepont'; did you mean 'kneepoint'"):
        sampler_named("kneepont", joint, 0)


@pytest.mark.parametrize("path", ["optuna.samplers:QMCSampler", "optuna.samplers.BruteForceSampler"])
def test_a_class_path_is_a_sampler(joint: JointSpace, path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna's notice of what is experimental among them
        assert type(sampler_named(path, joint, 0)).__name__ == path[16:]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nowhere.at:All", "No module named 'nowhere'"),
        ("optuna.samplers:Missing", "has no attribute 'Missing'"),
        ("optuna:create_study", "it is no class of optuna.samplers.BaseSampler or of pymoo"),
        ("pymoo.algorithms.moo.nsga3:NSGA3", "missing 1 required positional argument: 'ref_dirs'"),
        ("optuna.samplers:GridSampler", "missing 1 required positional argument: 'search_space'"),
    ],
)
def test_a_class_path_that_leads_nowhere(joint: JointSpace, path: str, why: str) -> None:
    with pytest.raises(JobError, match=rf"sampler '{path}' cannot be made: .*{why}.*; give package.module:Class"):
        sampler_named(path, joint, 0)


def test_no_policy_is_proposed_twice(joint: JointSpace) -> None:
    sampler = sampler_named("kneepoint", joint, 0)
    assert isinstance(sampler, KneepointSampler)
    study = optuna.create_study(sampler=sampler)
    seen = []
    for _ in range(40):
        trial = study.ask(dict(joint.distributions))
        seen.append(joint.policy(trial.params).id)
        study.tell(trial, float(len(trial.params["student"])))
    assert len(set(seen)) == 40
