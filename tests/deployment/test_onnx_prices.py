"""What a policy is priced at, and what its artifact is priced at and really runs: one and the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from kneepoint.deployment import kernel_counts
from kneepoint.hardware_models import FUSION_RULES, Workload, fuse, list_devices, load_device, read_onnx
from kneepoint.spaces.lowering import lower

RESIDUAL = ["fp32", "16", "8", "4", "2", "mixed", "pruned", "student"]
CASES = [("residual", how) for how in RESIDUAL] + [
    (name, how) for name in ("mobile", "sound", "pair", "named") for how in ("fp32", "8", "mixed")
]


def test_both_rule_sets_of_the_shipped_devices_are_compared() -> None:
    shipped = {load_device(name).fusion for name in ("raspberry-pi-4b", "x86-server")}
    assert {tuple(rules) for rules in shipped} == {("activation",), tuple(FUSION_RULES)}
    assert {"raspberry-pi-4b", "x86-server"} <= set(list_devices())


@pytest.mark.parametrize(("name", "how"), CASES)
@pytest.mark.parametrize("rules", [("activation",), FUSION_RULES])
def test_a_policy_costs_what_its_artifact_costs(bench: Any, name: str, how: str, rules: tuple[str, ...]) -> None:
    exported = bench.export(name, how)
    table = lower(exported.compressed.network, exported.compressed.policy)
    read = read_onnx(exported.model)
    assert [kernel.row for kernel in fuse(table, rules)] == [kernel.row for kernel in fuse(read, rules)]
    predicted, found = Workload.of(table, rules), Workload.of(read, rules)
    for fact in ("storage_bytes", "resident_bytes", "parameters", "peak_activation_bytes"):
        assert getattr(predicted, fact) == getattr(found, fact), fact


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


# Float layers between integer ones. No quantized value has two float readers here, and none is added to a float one:
# ONNX Runtime dequantizes a value once for each reader, and quantizes it again around a transpose of its own.
NEIGHBOURS = {"stages.0.0.conv1": 32, "stages.1.0.conv1": 4, "stages.2.0.conv1": 16, "head": 2}


@pytest.mark.parametrize("how", ["fp32", "16", "8", "4", "2", "neighbours", "pruned", "student"])
def test_the_predicted_kernels_are_those_that_run(bench: Any, how: str) -> None:
    exported = bench.export("residual", bench.bits("residual", NEIGHBOURS) if how == "neighbours" else how)
    table = lower(exported.compressed.network, exported.compressed.policy)
    predicted = Counter((kernel.kind, kernel.format) for kernel in fuse(table))
    real = kernel_counts(exported.data)
    assert {
        "QLinearConv": real["QLinearConv"],
        "QLinearAdd": real["QLinearAdd"],
        "QGemm": real["QGemm"],
        "Conv": real["Conv"] + real["FusedConv"],
        "Gemm": real["Gemm"] + real["FusedGemm"],
        "QuantizeLinear": real["QuantizeLinear"],
        "DequantizeLinear": real["DequantizeLinear"],
    } == {
        "QLinearConv": predicted["conv", "int8"],
        "QLinearAdd": predicted["add", "int8"],
        "QGemm": predicted["linear", "int8"],
        "Conv": predicted["conv", "fp32"],
        "Gemm": predicted["linear", "fp32"],
        "QuantizeLinear": predicted["quantize", "int8"],
        "DequantizeLinear": predicted["dequantize", "int8"],
    }
