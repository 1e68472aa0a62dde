"""Every kernel that a policy is priced on, against the graph that ONNX Runtime executes for its artifact."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment.kernel_check import Shown, executed_kernels, kernel_differences
from kneepoint.deployment.template import Template, template_of
from kneepoint.deployment.tidying import tidy
from kneepoint.deployment.writing import write
from kneepoint.hardware_models import FUSION_RULES, Kernel, fuse, read_onnx
from kneepoint.hardware_models.kernels import GEOMETRY
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import Policy
from tests.deployment.kernel_networks import KERNEL_NETWORKS

HOWS = ["fp32", "w8a8", "w8a8-dynamic", "mixed", "pruned floats"]
CASES = [(name, how) for name in KERNEL_NETWORKS for how in HOWS]
CASES += [
    (name, how)
    for name in ("tokens", "attention")
    for how in ("w16", "w3a8", "w8a16", "w4a8-dynamic", "w4-g32", "w8a8-dynamic-g32")
]
CASES += [(name, how) for name in ("residual", "mobile", "sound", "twice") for how in ("fp32", "w8a8", "w4")]
CASES += [(name, "w8a16") for name in ("mobile", "sound")]
CASES += [("residual", how) for how in ("2", "neighbours", "pruned", "student")]
# Float layers between integer ones. No quantized value has two float readers here, and none is added to a float one:
# ONNX Runtime dequantizes a value once for each reader, and quantizes it again around a transpose of its own.
NEIGHBOURS = {"stages.0.0.conv1": 32, "stages.1.0.conv1": 4, "stages.2.0.conv1": 16, "head": 2}


def model_of(*nodes: onnx.NodeProto, shape: tuple[int, ...], constants: tuple[onnx.TensorProto, ...] = ()) -> Any:
    """A model of ``nodes``, which read x and write y."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", *shape))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def floats(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


@cache
def blocks_have_16_channels() -> bool:
    """On x86 with AVX-512: a convolution then reads 12 channels as they are."""
    weight = floats("w", 16, 12, 1, 1)
    model = model_of(helper.make_node("Conv", ["x", "w"], ["y"]), shape=(12, 4, 4), constants=(weight,))
    counts = executed_kernels(model)
    return counts[Shown("conv", "fp32", "blocked")] == 1 and not counts[Shown("reorder", "fp32", function="input")]


@pytest.fixture(autouse=True)
def _only_where_blocks_have_16_channels() -> None:
    if not blocks_have_16_channels():
        pytest.skip("this machine's convolutions have other blocks, or none")


class Exports:
    """Writes artifacts of one network with one export, as far as they have its widths."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.templates: dict[str, Template] = {}

    def compressed(self, name: str, how: str) -> CompressedNetwork:
        groups = self.bench.space(name).teacher.groups
        policies = {"pruned floats": lambda: Policy.build(keep=dict.fromkeys(groups, 0.5))}
        policies["neighbours"] = lambda: self.bench.bits(name, NEIGHBOURS)
        policy = policies[how]() if how in policies else how
        found: CompressedNetwork = self.bench.compressed(name, policy)
        return found

    def model(self, name: str, compressed: CompressedNetwork) -> onnx.ModelProto:
        if name not in KERNEL_NETWORKS:  # other tests need the same
            exported: onnx.ModelProto = self.bench.export(name, compressed.policy).model
            return exported
        template = self.templates.get(name)
        if template is None or template.network is not compressed.network or not template.serves(compressed):
            template = template_of(compressed, self.bench.task(name).example_input, shared=not compressed.kept)
            self.templates[name] = template
        model = write(template, compressed)
        tidy(model)
        return model


@pytest.fixture(scope="module")
def exports(bench: Any) -> Exports:
    return Exports(bench)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_the_predicted_kernels_are_those_that_run(exports: Exports, name: str, how: str) -> None:
    compressed = exports.compressed(name, how)
    model = exports.model(name, compressed)
    predicted = [kernel.row for kernel in fuse(lower(compressed.network, compressed.policy), FUSION_RULES)]
    assert predicted == [kernel.row for kernel in fuse(read_onnx(model), FUSION_RULES)]
    assert kernel_differences(model) == {}


def test_what_differs_is_told_with_both_counts() -> None:
    weight = floats("w", 16, 16, 1, 1)
    model = model_of(helper.make_node("Conv", ["x", "w"], ["y"]), shape=(16, 4, 4), constants=(weight,))
    assert kernel_differences(model) == {}
    assert kernel_differences(model, ("activation",)) == {
        Shown("conv", "fp32"): (1, 0),
        Shown("conv", "fp32", "blocked"): (0, 1),
        Shown("reorder", "fp32", function="input"): (0, 1),
        Shown("reorder", "fp32", function="output"): (0, 1),
    }


def sizes(kernel: Kernel) -> dict[str, int]:
    return {name: size for name, size in zip(GEOMETRY, kernel.geometry, strict=True) if size}


def test_geometry_of_a_gated_network(exports: Exports) -> None:
    floating, quantized = (exports.compressed("hardswish", how) for how in ("fp32", "w8a8"))
    kernels = {kernel.name: kernel for kernel in fuse(lower(floating.network, floating.policy, batch=2), FUSION_RULES)}
    assert sizes(kernels["depthwise.0"]) == {
        "batch": 2, "in_channels": 48, "out_channels": 48, "groups": 48, "in_height": 8, "in_width": 8,
        "out_height": 8, "out_width": 8, "kernel_height": 3, "kernel_width": 3, "stride": 1,
    }  # fmt: skip
    assert kernels["depthwise.0"].layout == "blocked"
    assert sizes(kernels["stem.0"])["stride"] == 2
    assert sizes(kernels["head"]) == {"batch": 1, "in_height": 2, "in_channels": 32, "out_channels": 4}
    assert sizes(kernels["mean"]) == {"batch": 96, "in_channels": 64, "span": 1}
    assert sizes(kernels["mul"]) == {"batch": 96, "in_channels": 96, "span": 64}
    last = {kernel.name: kernel for kernel in fuse(lower(quantized.network, quantized.policy, batch=2), FUSION_RULES)}
    assert {last[name].layout for name in ("depthwise.0", "mean", "mul")} == {"nhwc"}
    assert sizes(last["mean"]) == {"batch": 2, "in_channels": 64, "span": 48}
    assert sizes(last["mul"]) == {"batch": 128, "in_channels": 96, "span": 48}
