from __future__ import annotations

import pytest

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.kernels import KERNEL_KINDS
from kneepoint.search.device_facts import DeviceFacts, device_facts
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import LayerPolicy
from tests.search import tiny_problem

BITS = [(bits, LayerPolicy.of_bits(bits)) for bits in (1, 2, 3, 4, 6, 8, 16)]


@pytest.fixture(scope="module")
def device() -> Device:
    """A device whose linear layers have no integer kernels, and which cannot price reductions."""
    shipped = load_device("x86-server")
    rates = {kind: shipped.element_rates["default"] for kind in KERNEL_KINDS if kind != "reduce"}
    formats = {**shipped.formats, "linear": ("fp32",)}
    return shipped.model_copy(update={"formats": formats, "element_rates": rates})


@pytest.fixture(scope="module")
def facts(joint: JointSpace, device: Device) -> DeviceFacts:
    return device_facts(joint.teacher, device, BITS)


def test_containers_are_the_narrowest_that_hold_the_bits(facts: DeviceFacts) -> None:
    containers = {entry.weight_bits: list(entry.containers) for entry in facts.formats}
    assert containers == {
        1: ["int2"], 2: ["int2"], 3: ["int4"], 4: ["int4"], 6: ["int8"], 8: ["int8"], 16: ["float16"], 32: ["float32"],
    }  # fmt: skip


def test_what_is_executed_depends_on_the_device(facts: DeviceFacts, joint: JointSpace) -> None:
    layers = len(joint.teacher.layers)
    executed = {entry.weight_bits: entry.executed for entry in facts.formats}
    assert executed[4] == executed[8] == {"int8": layers - 1, "fp32": 1}
    assert executed[16] == executed[32] == {"fp32": layers}
    everything = device_facts(joint.teacher, load_device("x86-server"), BITS)
    assert everything.formats[0].executed == {"int8": layers}


def test_the_teacher_comes_last_and_once(facts: DeviceFacts, joint: JointSpace, device: Device) -> None:
    assert [entry.choice for entry in facts.formats] == [1, 2, 3, 4, 6, 8, 16, 32]
    both = device_facts(joint.teacher, device, [(8, LayerPolicy.of_bits(8)), (32, LayerPolicy())])
    assert [entry.choice for entry in both.formats] == [8, 32]


def test_sizes_fall_with_the_bits(facts: DeviceFacts) -> None:
    sizes = {entry.weight_bits: entry.storage_bytes for entry in facts.formats}
    assert sizes[1] == sizes[2] < sizes[3] == sizes[4] < sizes[6] == sizes[8] < sizes[16] < sizes[32]


def test_what_has_no_rate_is_listed_with_its_share(facts: DeviceFacts, joint: JointSpace) -> None:
    assert [entry.operator for entry in facts.unpriced] == ["reduce"]
    assert facts.unpriced[0].kernels == 1
    assert facts.coverage == pytest.approx(1 - facts.unpriced[0].share)
    assert 0 < facts.coverage < 1
    assert device_facts(joint.teacher, load_device("x86-server"), []).unpriced == ()


def test_a_format_is_called_as_the_space_writes_it() -> None:
    joint = tiny_problem.space(weight_bits=(8, "w4a16"))
    formats = zip(joint.weight_bits, joint.formats, strict=True)
    facts = device_facts(joint.teacher, load_device("raspberry-pi-4b"), formats)
    assert [(entry.choice, entry.weight_bits) for entry in facts.formats] == [("w4a16", 4), (8, 8), (32, 32)]
