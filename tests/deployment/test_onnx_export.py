from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from kneepoint.deployment import kernel_counts, to_onnx
from kneepoint.deployment.parity import compare
from kneepoint.deployment.runtime import answer, open_session, predict
from kneepoint.spaces.joint_space import joint_space
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.batches import leaves, transform
from kneepoint.tasks.errors import JobFailed
from kneepoint.tasks.task import Task

NETWORKS = ["residual", "mobile", "sound", "tokens", "twice", "pair", "named"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_float_artifact_equals_the_model(bench: Any, name: str) -> None:
    exported = bench.export(name, "fp32")
    executed, _ = predict(open_session(exported.data), exported.task)
    expected, _ = exported.task.predict(exported.task.model)
    assert type(executed) is type(expected)
    for first, second in zip(leaves(executed), leaves(expected), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", ["8", "mixed"])
def test_the_artifact_answers_as_its_simulator(bench: Any, name: str, how: str) -> None:
    exported = bench.export(name, how)
    parity = compare(exported.data, exported.task, exported.compressed.module)
    assert parity.deviation < 0.005  # an integer on the edge may be rounded either way, now and then
    executed, _ = predict(open_session(exported.data), exported.task)
    simulated, _ = exported.task.predict(exported.compressed.module)
    for first, second in zip(leaves(executed), leaves(simulated), strict=True):
        assert float((first - second).abs().max()) <= 0.02 * float(second.abs().max())
        assert float((first.argmax(1) == second.argmax(1)).float().mean()) >= 0.95


@pytest.mark.parametrize("how", ["16", "4", "2", "pruned", "student"])
def test_every_format_answers_as_its_simulator(bench: Any, how: str) -> None:
    exported = bench.export("residual", how)
    parity = compare(exported.data, exported.task, exported.compressed.module)
    assert parity.deviation < 0.005
    assert parity.agreement is not None
    assert parity.agreement >= 0.97


@pytest.mark.parametrize("name", ["residual", "tokens", "pair", "named"])
@pytest.mark.parametrize("how", ["fp32", "8"])
def test_any_batch_runs_and_equal_samples_get_equal_answers(bench: Any, name: str, how: str) -> None:
    exported = bench.export(name, how)
    session = open_session(exported.data)
    inputs = bench.inputs(name, 64)
    like = exported.task.call(exported.compressed.module, inputs)
    whole = answer(session, inputs, like)
    for samples in (1, 7):
        part = answer(session, transform(lambda x, n=samples: x[:n], inputs), like)  # type: ignore[misc]  # mypy cannot infer a lambda that binds a value by default
        for first, second in zip(leaves(part), leaves(whole), strict=True):
            torch.testing.assert_close(first, second[:samples], rtol=1e-5, atol=1e-5)


def test_inputs_and_outputs_keep_names_and_order(bench: Any) -> None:
    graph = bench.export("named", "8").model.graph
    assert [value.name for value in graph.input] == ["input", "numbers"]
    dims = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.output]
    assert dims == [["batch", 4], ["batch", 2]]  # zebra, then apple: as the network returns them
    pair = bench.export("pair", "8").model.graph
    assert [value.name for value in pair.input] == ["image", "numbers"]


@pytest.mark.parametrize(("name", "how"), [("residual", "2"), ("residual", "mixed"), ("tokens", "8"), ("named", "8")])
def test_the_artifact_is_valid_and_says_nothing_of_where_it_was_made(bench: Any, name: str, how: str) -> None:
    exported = bench.export(name, how)
    onnx.checker.check_model(exported.model, full_check=True)
    secrets = [sys.prefix, str(Path.home()), str(Path(__file__).parents[2]), getpass.getuser(), "site-packages"]
    assert not [text for text in [*secrets, ".py", "Traceback", "stack_trace"] if text.encode() in exported.data]
    assert exported.model.producer_name == "kneepoint"
    assert {entry.key: entry.value for entry in exported.model.metadata_props} == {
        "kneepoint.policy": exported.compressed.policy.id
    }


def test_the_same_candidate_gives_the_same_bytes(bench: Any) -> None:
    exported = bench.export("twice", "mixed")
    again = to_onnx(exported.compressed, exported.task.example_input)
    assert again.SerializeToString(deterministic=True) == exported.model.SerializeToString(deterministic=True)


def test_exporting_changes_neither_the_network_nor_the_global_state(bench: Any) -> None:
    compressed, task = bench.compressed("sound", "8"), bench.task("sound")
    before, _ = task.predict(compressed.module)
    bench.export("sound", "8")
    after, _ = task.predict(compressed.module)
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("name", "convolutions", "linears"), [("residual", 9, 1), ("mobile", 4, 2), ("sound", 3, 1), ("twice", 3, 3)]
)
@pytest.mark.parametrize("how", ["8"])
def test_integer_layers_run_on_integer_kernels(
    bench: Any, name: str, how: str, convolutions: int, linears: int
) -> None:
    kernels = kernel_counts(bench.export(name, how).data)
    assert (kernels["QLinearConv"], kernels["QGemm"]) == (convolutions, linears)
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Cast"} & set(kernels)


@pytest.mark.parametrize("how", ["4", "2"])
def test_narrow_weights_run_on_the_same_kernels_as_8_bit_ones(bench: Any, how: str) -> None:
    assert kernel_counts(bench.export("residual", how).data) == kernel_counts(bench.export("residual", "8").data)


def test_integer_products_run_on_integer_kernels_also_where_a_layer_is_shared(bench: Any) -> None:
    kernels = kernel_counts(bench.export("tokens", "8").data)
    assert (kernels["MatMulIntegerToFloat"], kernels["QGemm"]) == (4, 1)
    assert not {"MatMul", "FusedMatMul", "Gemm"} & set(kernels)


@pytest.mark.parametrize("name", ["tokens", "attention"])
@pytest.mark.parametrize("how", ["fp32", "8"])
def test_no_shape_is_computed_at_inference(bench: Any, name: str, how: str) -> None:
    kernels = kernel_counts(bench.export(name, how).data)
    assert not {"Shape", "Slice", "Concat", "Expand", "Range", "ConstantOfShape", "Where", "IsNaN"} & set(kernels)


class Eigenvalues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvals(x.reshape(-1, 2, 2)).real
        logits: Tensor = self.head(values.repeat(1, 2))
        return logits


def test_an_operator_onnx_does_not_have_is_named_in_one_line(bench: Any) -> None:
    batches = [(torch.randn(4, 4), torch.randint(0, 4, (4,)))]
    task = Task(Eigenvalues().eval(), torch.randn(1, 4), train=batches, validation=batches)
    space = joint_space(task, students=None)
    compressor = type(bench.compressor("sound"))(space, bench.compressor("sound").store)
    with pytest.raises(JobFailed, match=r"^torch.onnx could not export the network: [^\n\x1b]*linalg_eig[^\n\x1b]*$"):
        to_onnx(compressor.compress(Policy.build()), task.example_input)
