from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kneepoint.hardware_models.shape_inference import concrete_shapes, infer_shapes
from kneepoint.tasks.errors import DeviceError


def model(nodes: list[NodeProto], shape: tuple[int, ...], output: str, **constants: list[int]) -> ModelProto:
    """A graph on one input ``x`` and integer constants."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(values, dtype=np.int64), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_group_norm_keeps_the_shape_of_its_input() -> None:
    nodes = [
        helper.make_node("GroupNormalization", ["x", "gain", "shift"], ["normed"], num_groups=2),
        helper.make_node("Relu", ["normed"], ["y"]),
    ]
    given = model(nodes, (3, 4, 5), "y")
    given.graph.initializer.extend(numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("gain", "shift"))
    found = infer_shapes(given)
    assert concrete_shapes(found.graph) == {"x": (3, 4, 5), "normed": (3, 4, 5), "y": (3, 4, 5)}
    assert [node.op_type for node in found.graph.node] == ["GroupNormalization", "Relu"]


def test_shapes_that_are_computed_are_followed() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "zero", "one"], ["first"]),
        helper.make_node("Slice", ["sizes", "one", "three"], ["rest"]),
        helper.make_node("ReduceProd", ["rest"], ["unknown"]),  # nothing is computed with it here
        helper.make_node("Gather", ["sizes", "one"], ["height"]),
        helper.make_node("Mul", ["height", "five"], ["product"]),
        helper.make_node("Reshape", ["product", "one"], ["flat"]),
        helper.make_node("Concat", ["first", "flat"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    found = infer_shapes(model(nodes, (2, 4, 5), "y", zero=[0], one=[1], three=[3], five=[5]))
    assert concrete_shapes(found.graph)["y"] == (2, 20)
    assert len(found.graph.node) == len(nodes)


def test_a_malformed_computation_leaves_its_shape_open() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Reshape", ["sizes", "seven"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    assert "y" not in concrete_shapes(infer_shapes(model(nodes, (2, 4), "y", seven=[-1, 7])).graph)


def test_a_graph_that_inference_refuses_is_refused_with_its_reason() -> None:
    with pytest.raises(DeviceError, match=r"cannot be inferred: .*No opset import for domain foo.*; export it again"):
        infer_shapes(model([helper.make_node("Relu", ["x"], ["y"], domain="foo")], (2, 3), "y"))


def test_packed_products_have_the_shape_of_a_product() -> None:
    packed = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", N=6, K=5, bits=4)
    found = infer_shapes(model([packed], (2, 4, 5), "y"))
    assert concrete_shapes(found.graph)["y"] == (2, 4, 6)
    assert found.graph.node[0].op_type == "MatMulNBits"
