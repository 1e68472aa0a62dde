from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kneepoint.deployment.tidying import tidy


def model() -> ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0, noop_with_empty_axes=0),
        helper.make_node("Flatten", ["m"], ["y"], axis=2),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["s77", 4, "width"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["2*s77", 4])
    axes = numpy_helper.from_array(np.array([2], np.int64), "axes")
    graph = helper.make_graph(nodes, "g", [x], [y], [axes], value_info=[x], doc_string="made in /home/someone")
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], producer_version="1.2+cpu")
    for entry in (whole, whole.graph, *whole.graph.node, *whole.graph.initializer, *whole.graph.input):
        entry.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/someone/net.py")
        entry.doc_string = "made in /home/someone"
    return whole


def test_nothing_is_left_of_where_the_model_was_made() -> None:
    tidied = model()
    tidy(tidied)
    assert b"someone" not in tidied.SerializeToString()
    assert (tidied.producer_name, tidied.producer_version) == ("kneepoint", "")
    assert not tidied.graph.value_info


def test_attributes_at_their_defaults_go_and_others_stay() -> None:
    tidied = model()
    tidy(tidied)
    assert [[entry.name for entry in node.attribute] for node in tidied.graph.node] == [["keepdims"], ["axis"]]


def test_the_batch_dimension_is_called_batch_and_others_keep_their_names() -> None:
    tidied = model()
    tidy(tidied)
    shapes = [value.type.tensor_type.shape for value in (*tidied.graph.input, *tidied.graph.output)]
    named = [[dim.dim_param or dim.dim_value for dim in shape.dim] for shape in shapes]
    assert named == [["batch", 4, "width"], ["2*batch", 4]]


def test_a_model_with_a_fixed_batch_stays_fixed() -> None:
    fixed = model()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    fixed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    tidy(fixed)
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_copies_of_large_constants_are_shared_unless_they_are_parameters() -> None:
    values = np.arange(64, dtype=np.float32)
    names = ("where", "where_1", "first.weight", "second.weight")
    nodes = [helper.make_node("Add", ["x", name], [f"y{i}"]) for i, name in enumerate(names)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["s77", 64])
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["s77", 64]) for i in range(len(names))]
    constants = [numpy_helper.from_array(values, name) for name in names]
    graph = helper.make_graph(nodes, "g", [x], outputs, constants)
    tidied = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    tidy(tidied)
    assert [entry.name for entry in tidied.graph.initializer] == ["where", "first.weight", "second.weight"]
    assert [node.input[1] for node in tidied.graph.node] == ["where", "where", "first.weight", "second.weight"]
