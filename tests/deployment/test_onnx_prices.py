"""What a policy is priced at, and what its artifact is priced at: one and the same."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto

from kneepoint.hardware_models import FUSION_RULES, CostModel, Workload, fuse, list_devices, load_device, read_onnx
from kneepoint.spaces.lowering import lower

RESIDUAL = ["fp32", "16", "8", "4", "2", "mixed", "pruned", "student"]
CASES = [("residual", how) for how in RESIDUAL] + [
    (name, how) for name in ("mobile", "sound", "pair", "named", "numbered") for how in ("fp32", "8", "mixed")
]
FORMATS = ["w32", "w16", "w8", "w1", "w3a8", "w8a8", "w8a16", "w4a8-dynamic", "w4-g32", "w2a8-dynamic-g64"]
FORMAT_CASES = [(name, how) for name in ("tokens", "attention") for how in FORMATS] + [
    (name, how) for name in ("residual", "twice", "named") for how in ("w8a8", "w4", "w8a16", "w8a8-dynamic", "w2-g32")
]


def test_both_rule_sets_of_the_shipped_devices_are_compared() -> None:
    shipped = {load_device(name).fusion for name in ("raspberry-pi-4b", "x86-server")}
    assert {frozenset(rules) for rules in shipped} == {frozenset(["activation"]), frozenset(FUSION_RULES)}
    assert {"raspberry-pi-4b", "x86-server"} <= set(list_devices())


@pytest.mark.parametrize(("name", "how"), CASES + FORMAT_CASES)
@pytest.mark.parametrize("rules", [("activation",), FUSION_RULES, ("direct", "activation", "epilogue")])
def test_a_policy_costs_what_its_artifact_costs(bench: Any, name: str, how: str, rules: tuple[str, ...]) -> None:
    exported = bench.export(name, how)
    table = lower(exported.compressed.network, exported.compressed.policy)
    read = read_onnx(exported.model)
    assert [kernel.row for kernel in fuse(table, rules)] == [kernel.row for kernel in fuse(read, rules)]
    predicted, found = Workload.of(table, rules), Workload.of(read, rules)
    for fact in ("storage_bytes", "resident_bytes", "parameters", "peak_activation_bytes"):
        assert getattr(predicted, fact) == getattr(found, fact), fact
    assert predicted.surroundings.tolist() == found.surroundings.tolist()


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_batch_of_many_costs_what_its_artifact_costs(bench: Any, name: str, how: str) -> None:
    exported = bench.export(name, how)
    table = lower(exported.compressed.network, exported.compressed.policy, batch=5)
    rows = [kernel.row for kernel in fuse(read_onnx(exported.model, batch=5))]
    assert rows == [kernel.row for kernel in fuse(table)]


@pytest.mark.parametrize("how", RESIDUAL)
def test_storage_is_the_bytes_in_the_file_but_for_scales_of_activations_and_zero_points(bench: Any, how: str) -> None:
    exported = bench.export("residual", how)
    predicted = lower(exported.compressed.network, exported.compressed.policy).storage_bytes
    written = sum(len(entry.raw_data) for entry in exported.model.graph.initializer)
    plan = exported.compressed.plan
    floats = [layer for layer, quant in plan.weights.items() if not quant.integer]
    unpredicted = 5 * len(plan.activations) + 10 + 16  # scale and zero point; the head's zero points; axes of the mean
    shields = 5 * 32 * len(floats) if plan.activations else 0  # a scale and zero point for each input channel at most
    assert 0 <= written - predicted <= unpredicted + shields


@pytest.mark.parametrize("device", ["raspberry-pi-4b", "x86-server"])
@pytest.mark.parametrize("how", FORMATS)
def test_every_kernel_of_attention_has_a_price(bench: Any, device: str, how: str) -> None:
    exported, described = bench.export("attention", how), load_device(device)
    workload = Workload.of(lower(exported.compressed.network, exported.compressed.policy), described.fusion)
    assert CostModel(described).cost(workload).coverage == 1.0


@pytest.mark.parametrize(("name", "how"), FORMAT_CASES)
def test_storage_is_what_the_file_holds_of_weights(bench: Any, name: str, how: str) -> None:
    """Beside them are scales and zero points of activations, and the sizes that values are reshaped to."""
    exported = bench.export(name, how)
    predicted = lower(exported.compressed.network, exported.compressed.policy).storage_bytes
    entries = exported.model.graph.initializer
    norms = exported.compressed.network.parameter_shapes.keys() & {
        entry.name for entry in entries if "norm" in entry.name
    }
    beside = [
        entry
        for entry in entries
        if entry.data_type in (TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.BOOL)
        and not entry.name.endswith(".weight")
    ]
    scales = [
        entry for entry in entries if entry.name.removesuffix("s").endswith("_scale") and not _of_bias(entry.name)
    ]
    factors = [entry for entry in entries if entry.name.startswith("val_") and entry.data_type == TensorProto.FLOAT]
    left_out = {entry.name for entry in (*beside, *scales, *factors)} | norms
    assert sum(len(entry.raw_data) for entry in entries if entry.name not in left_out) == predicted


def _of_bias(name: str) -> bool:
    return name.endswith("_bias_scale")
