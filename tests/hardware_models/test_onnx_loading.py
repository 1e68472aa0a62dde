from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from kneepoint.hardware_models.onnx_loading import load_with_shapes
from kneepoint.hardware_models.shape_inference import SMALL, concrete_shapes
from kneepoint.tasks.errors import DeviceError


def model(channels: int) -> onnx.ModelProto:
    """A 1x1 convolution with a named batch dimension."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (channels, 1, 1, 1), [0.5] * channels)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 1, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", channels, 4, 4))],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_the_batch_is_fixed_and_every_shape_is_known() -> None:
    given = model(3)
    loaded = load_with_shapes(given, 5)
    assert concrete_shapes(loaded.graph) == {"x": (5, 1, 4, 4), "y": (5, 3, 4, 4)}
    assert given.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_large_constants_are_left_out_and_small_ones_kept() -> None:
    (large,) = load_with_shapes(model(SMALL + 1), 1).graph.initializer
    (small,) = load_with_shapes(model(SMALL), 1).graph.initializer
    assert len(large.float_data) == 0
    assert len(small.float_data) == SMALL


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(DeviceError, match="it holds no graph"):
        load_with_shapes(tmp_path / "empty.onnx", 1)
    with pytest.raises(DeviceError, match="no such file"):
        load_with_shapes(tmp_path / "nowhere.onnx", 1)
    with pytest.raises(DeviceError, match="the batch is a positive number; got 0"):
        load_with_shapes(model(1), 0)


def test_an_opset_that_is_not_known_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "later", [value], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 99)])
    with pytest.raises(DeviceError, match=r"the given model is written in opset 99.*knows \d+: export with an earlier"):
        load_with_shapes(model, batch=1)
