from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kneepoint.hardware_models.devices import load_device
from kneepoint.search.inspection import Facts, inspect_space
from kneepoint.search.time_estimate import Effort
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.task import Task
from tests.search import tiny_problem


class Tagger(nn.Module):
    """A tied embedding, a residual block and a convolution whose channels an operator mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Any:
        x = self.embedding(ids)
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x.softmax(-1).mean(1))


@pytest.fixture(scope="module")
def facts(joint: JointSpace) -> Facts:
    return inspect_space(joint, [load_device("x86-server")], Effort(trials=8))


@pytest.fixture(scope="module")
def tagger() -> JointSpace:
    ids = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(0))
    batches = [(ids, ids[:, 0])]
    return joint_space(Task(Tagger().eval(), ids[:1], batches, batches), students=None, blocks=True)


def test_the_network_is_the_deployed_teacher(facts: Facts, joint: JointSpace) -> None:
    table = lower(joint.teacher, Policy.build())
    assert (facts.network.parameters, facts.network.macs) == (table.parameters, table.macs)
    assert facts.network.storage_bytes == 4 * table.parameters
    assert facts.network.peak_activation_bytes > 0


def test_every_layer_stands_with_its_groups_or_the_reason(facts: Facts, joint: JointSpace) -> None:
    assert [layer.name for layer in facts.layers] == list(joint.teacher.layers)
    for layer in facts.layers:
        assert layer.why_bits_fixed is None
        assert bool(layer.groups) != bool(layer.why_channels_fixed)
        assert set(layer.groups) <= facts.groups.keys()
        assert layer.parameters == joint.teacher.tensors()[f"{layer.name}.weight"].numel()
    assert facts.layers[-1].why_channels_fixed == "it is an output of the network"


def test_the_space_is_counted_in_settings(facts: Facts, joint: JointSpace) -> None:
    assert facts.space.log10_settings == pytest.approx(math.log10(joint.size))
    assert (facts.space.weight_bits, facts.space.keep) == ((4, 8, 16), (0.5, 1.0))
    assert facts.space.students.keys() == {"width=4", "width=6"}
    assert facts.space.students["width=4"] < facts.space.students["width=6"] < 2 * facts.network.parameters


def test_nothing_is_traced_for_the_students() -> None:
    joint = tiny_problem.space()
    inspect_space(joint, [], Effort())
    assert joint._networks == {}


def test_what_cannot_vary_has_its_reason(tagger: JointSpace) -> None:
    found = inspect_space(tagger, [], Effort())
    layers = {layer.name: layer for layer in found.layers}
    first = found.layers[0]  # called after either of the modules that hold the weight
    assert first.name in ("embedding", "head")
    assert (first.kind, first.parameters) == ("embedding", 88)
    assert first.why_bits_fixed is None  # a tied table may be stored in few bits
    assert layers["up"].why_bits_fixed is None
    assert layers["down"].why_channels_fixed
    assert found.devices == ()
    assert found.space.students == {}


def test_residual_blocks_come_with_the_layers_that_leave(tagger: JointSpace) -> None:
    found = inspect_space(tagger, [], Effort())
    assert list(found.blocks.values()) == [("up", "down")]
    assert found.space.blocks


def test_the_facts_are_plain_json(facts: Facts) -> None:
    content = json.loads(json.dumps(facts.to_json(), allow_nan=False))
    assert content["schema"] == "kneepoint.inspection/1"
    keys = {"task", "network", "layers", "groups", "blocks", "space", "devices", "trials", "time"}
    assert content.keys() == {"schema", *keys}
    assert content["layers"][0].keys() >= {"name", "kind", "parameters", "why_bits_fixed", "groups"}
    assert content["devices"][0]["formats"][0].keys() >= {"choice", "containers", "executed", "latency_ms"}
    assert content["time"]["seconds"] > 0
