from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from kneepoint.deployment.runtime import answer, kernel_counts, measure, open_session, predict, score
from kneepoint.tasks.errors import InputError, JobFailed, TaskError
from kneepoint.tasks.task import Task


def doubler(shape: list[str | int], kind: int = TensorProto.FLOAT, op: str = "Add") -> bytes:
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x", "x"], ["y"])], "g", [x], [y])
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


# --- opening -------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a model is an ONNX file; there is none at .*nowhere.onnx"):
        open_session(tmp_path / "nowhere.onnx")
    with pytest.raises(InputError, match="there is none at"):
        open_session(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x0a"])
def test_a_file_that_is_no_model_is_refused_in_one_line(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^ONNX Runtime cannot load the model: [^\n]*$"):
        open_session(path)
    with pytest.raises(InputError, match="ONNX Runtime cannot load the model"):
        kernel_counts(path)
    assert capfd.readouterr().err == ""


def test_a_truncated_model_is_refused(bench: Any) -> None:
    data = bench.export("residual", "8").data
    with pytest.raises(InputError, match="ONNX Runtime cannot load the model"):
        open_session(data[: len(data) // 2])


@pytest.mark.parametrize("threads", [0, -1])
def test_a_session_has_at_least_one_thread(threads: int) -> None:
    with pytest.raises(InputError, match=f"at least one thread; got {threads}"):
        open_session(doubler(["batch", 2]), threads)


# --- answering -----------------------------------------------------------------------------------------------------


def test_inputs_go_by_name_in_a_dict_and_by_order_otherwise(bench: Any) -> None:
    exported = bench.export("named", "fp32")
    session = open_session(exported.data)
    inputs = bench.inputs("named", 5)
    like = exported.task.call(exported.compressed.module, inputs)
    by_name = answer(session, inputs, like)
    by_order = answer(session, (inputs["input"], inputs["numbers"]), like)
    assert list(by_name) == ["zebra", "apple"]
    assert torch.equal(by_name["zebra"], by_order["zebra"])
    assert by_name["zebra"].shape == (5, 4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(1, 5), r"takes the inputs \['input', 'numbers'\]; the task's batches give 1 tensors"),
        ((torch.zeros(1, 5),) * 3, "give 3 tensors"),
        ({"numbers": torch.zeros(1, 5)}, r"give \['numbers'\]"),
        ({"numbers": torch.zeros(1, 5), "inputs": torch.zeros(1, 3)}, r"give \['numbers', 'inputs'\]"),
        ({"numbers": torch.zeros(1, 5), "input": torch.zeros(1, 3)}, "does not run on the task's batches: .*type"),
        ({"numbers": torch.zeros(1, 4), "input": torch.zeros(1, 3).long()}, "does not run on the task's batches: "),
    ],
)
def test_inputs_that_do_not_match_are_named(bench: Any, inputs: Any, message: str) -> None:
    session = open_session(bench.export("named", "fp32").data)
    with pytest.raises(JobFailed, match=message):
        answer(session, inputs, {"zebra": torch.zeros(1), "apple": torch.zeros(1)})


def test_outputs_that_do_not_match_are_counted(bench: Any) -> None:
    session = open_session(bench.export("sound", "fp32").data)
    with pytest.raises(JobFailed, match="the model gives 1 outputs; the task's network gives 2"):
        answer(session, bench.inputs("sound", 1), (torch.zeros(1), torch.zeros(1)))


def test_the_score_is_the_metric_of_what_the_artifact_answers(bench: Any) -> None:
    exported = bench.export("named", "8")
    session = open_session(exported.data)
    outputs, targets = predict(session, exported.task)
    assert list(outputs) == ["zebra", "apple"]
    assert len(targets) == 96
    assert score(session, exported.task) == exported.task.metric.score(outputs, targets)


def test_predictions_come_in_the_order_of_the_task(bench: Any) -> None:
    exported = bench.export("sound", "fp32")
    data = [(inputs[i], target[i]) for inputs, target in exported.task.validation for i in range(len(target))]
    loader: Any = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)  # type: ignore[arg-type]  # a list is a dataset
    task = Task(exported.task.model, exported.task.example_input, train=loader, validation=loader)
    executed, first = predict(open_session(exported.data), task)
    expected, second = task.predict(task.model)
    assert torch.equal(first, second)
    torch.testing.assert_close(executed, expected, rtol=1e-5, atol=1e-5)


def test_an_empty_split_is_refused(bench: Any) -> None:
    exported = bench.export("sound", "fp32")
    task = Task(exported.task.model, exported.task.example_input, train=[], validation=[])
    with pytest.raises(TaskError, match="validation: the loader gave no batches"):
        predict(open_session(exported.data), task)


# --- kernels -------------------------------------------------------------------------------------------------------


def test_kernels_are_those_after_the_optimizer(bench: Any, tmp_path: Path) -> None:
    exported = bench.export("residual", "8")
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.data)
    assert kernel_counts(path) == kernel_counts(exported.data)
    assert list(tmp_path.iterdir()) == [path]
    assert "QLinearConv" not in {node.op_type for node in exported.model.graph.node}


# --- measuring -----------------------------------------------------------------------------------------------------


def test_a_measurement_says_what_it_measured(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bench.export("residual", "8").data)
    found = measure(path, threads=2, batch=4, seconds=0.1)
    assert (found.threads, found.batch) == (2, 4)
    assert found.runs >= 3
    assert 0 < found.low_ms <= found.median_ms <= found.high_ms
    assert found.runs * found.low_ms < 1000


def test_there_are_at_least_three_runs() -> None:
    assert measure(doubler(["batch", 2]), seconds=1e-9).runs == 3


def test_percentiles_are_those_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0.0, *(value for i in range(150) for value in (0.0, 0.001 * (i % 100), 0.0))]))
    monkeypatch.setattr("kneepoint.deployment.runtime.time.perf_counter", lambda: float(next(clock)))
    found = measure(doubler(["batch", 2]), seconds=1.0)
    assert found.low_ms <= found.median_ms <= found.high_ms
    assert found.high_ms - found.low_ms > 20


def test_more_samples_take_longer(bench: Any) -> None:
    data = bench.export("residual", "fp32").data
    assert measure(data, batch=64, seconds=0.1).median_ms > 2 * measure(data, batch=1, seconds=0.1).median_ms


def test_integer_inputs_and_several_inputs_are_measured(bench: Any) -> None:
    assert measure(bench.export("named", "8").data, batch=3, seconds=0.01).batch == 3
    assert measure(bench.export("pair", "8").data, seconds=0.01).batch == 1
    for kind in (TensorProto.INT32, TensorProto.DOUBLE, TensorProto.INT64):
        assert measure(doubler(["batch", 2, "other"], kind), seconds=0.01).runs >= 3


def test_the_batch_is_the_one_that_ran() -> None:
    fixed = doubler([4, 2])
    assert measure(fixed, seconds=0.01).batch == 4
    assert measure(fixed, batch=4, seconds=0.01).batch == 4
    with pytest.raises(InputError, match="written for a batch of 4, and cannot be measured at 8"):
        measure(fixed, batch=8)
    assert measure(doubler([]), seconds=0.01).batch == 1


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"batch": -2}, {"seconds": 0.0}, {"seconds": float("nan")}, {"threads": 0}]
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least"):
        measure(doubler(["batch", 2]), **wrong)


def test_inputs_nobody_can_make_up_are_refused() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(InputError, match=r"input 'x' has type tensor\(string\); measured are \["):
        measure(model.SerializeToString())


def test_a_model_that_does_not_run_is_reported_in_one_line() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "other"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [3, 7])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(InputError, match=r"^the model does not run on random inputs: [^\n]*$"):
        measure(model.SerializeToString())
