from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kneepoint.deployment.runtime import answer, kernel_counts, open_session, predict, score
from kneepoint.tasks.errors import InputError, JobFailed, TaskError
from kneepoint.tasks.task import Task
from tests.deployment.small_models import doubler

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
