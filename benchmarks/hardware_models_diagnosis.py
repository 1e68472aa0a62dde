"""Where a prediction of hardware_models.py goes wrong: kernel kinds as predicted and as ONNX Runtime profiles them."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from benchmarks.hardware_models_files import Case, path_of
from benchmarks.hardware_models_worker import median_us
from kneepoint.deployment.measuring_worker import Model, OpenModel
from kneepoint.hardware_models import CostModel, Device, Workload, read_onnx
from kneepoint.hardware_models.kernels import FORMATS

RUNS = 60
_SKIPPED = 10
"""First runs of a profile, which warm up."""
_SECONDS = 1.0
_OUTLIERS = 5
"""Slowest runs of a node, which are left out."""
_KERNEL = "_kernel_time"
_SILENT = 4  # fatal errors alone; what goes wrong is raised
_EXECUTOR = "SequentialExecutor::Execute"
Group = tuple[str, str]
Totals = dict[Group, tuple[int, float]]
"""Kernels and microseconds by group."""
KINDS = {
    "FusedConv": "conv", "QLinearConv": "conv", "Gemm": "linear", "FusedGemm": "linear", "QGemm": "linear",
    "MatMulNBits": "linear", "DynamicQuantizeMatMul": "linear", "MatMulIntegerToFloat": "linear",
    "QLinearMatMul": "matmul", "FusedMatMul": "matmul", "QLinearAdd": "add", "Sub": "add", "QLinearMul": "mul",
    "Div": "mul", "QuantizeLinear": "quantize", "DynamicQuantizeLinear": "quantize", "DequantizeLinear": "dequantize",
    "LayerNormalization": "layer_norm", "SkipLayerNormalization": "layer_norm", "Gather": "embedding",
    "ReorderInput": "reorder", "ReorderOutput": "reorder", "GlobalAveragePool": "global_avg_pool",
    "QLinearGlobalAveragePool": "global_avg_pool", "MaxPool": "max_pool", "NhwcMaxPool": "max_pool",
    "AveragePool": "avg_pool", "ReduceMean": "reduce", "QLinearConcat": "concat", "QLinearSoftmax": "softmax",
    "Relu": "activation", "Gelu": "activation", "BiasGelu": "activation", "QuickGelu": "activation",
    "Sigmoid": "activation", "HardSigmoid": "activation", "HardSwish": "activation", "Erf": "activation",
    "Tanh": "activation", "Clip": "activation", "QLinearSigmoid": "activation", "Reshape": "view", "Flatten": "view",
    "Squeeze": "view", "Unsqueeze": "view",
}  # fmt: skip
"""What the table calls an operator of the runtime, where that is not its own name in lower case."""


def diagnose(case: Case, folder: Path, device: Device) -> str:
    """A line for every kernel kind: how many are predicted and run, and how long they are predicted and profiled."""
    path = path_of(folder, case.network, case.variant)
    model = OpenModel(Model(str(path), case.threads, case.batch, {}))
    whole = median_us(model, _SECONDS)
    predicted, total = _predicted(case, path, device)
    profiled, executor = _profiled(path, case.threads, model.feeds)
    groups = sorted({*predicted, *profiled}, key=lambda group: -profiled.get(group, (0, 0.0))[1])
    return "\n".join(
        [
            f"{case.name}: measured {whole:.1f} us, predicted {total:.1f} us ({total / whole - 1:+.1%}); the profile's "
            f"executor {executor:.1f} us, its kernels {sum(time for _, time in profiled.values()):.1f} us",
            f"{'kind':<28}{'format':<10}{'kernels':>16}{'us':>24}{'difference':>12}",
            *(_line(group, predicted.get(group, (0, 0.0)), profiled.get(group, (0, 0.0))) for group in groups),
        ]
    )


def _line(group: Group, predicted: tuple[int, float], profiled: tuple[int, float]) -> str:
    kind, form = group
    counts, times = f"{predicted[0]} / {profiled[0]}", f"{predicted[1]:.1f} / {profiled[1]:.1f}"
    return f"{kind:<28}{form:<10}{counts:>16}{times:>24}{predicted[1] - profiled[1]:>+12.1f}"


def _predicted(case: Case, path: Path, device: Device) -> tuple[Totals, float]:
    workload = Workload.of(read_onnx(path, batch=case.batch), device.fusion)
    cost = CostModel(device.at_threads(case.threads)).cost(workload)
    times: dict[Group, list[float]] = defaultdict(list)
    for kernel, code in zip(cost.kernels, workload.format, strict=True):
        times[kernel.kind, FORMATS[code]].append(1e3 * kernel.latency_ms)
    return _totals(times), 1e3 * cost.latency_ms


def _profiled(path: Path, threads: int, feeds: Mapping[str, Any]) -> tuple[Totals, float]:
    """Means of every node's time without outliers, added up by kind; and the time from the first node to the last."""
    events, group_of = _profile(path, threads, feeds)
    nodes: dict[str, list[float]] = defaultdict(list)
    for event in events:
        nodes[event["name"].removesuffix(_KERNEL)].append(event["dur"])
    times: dict[Group, list[float]] = defaultdict(list)
    for name, group in group_of.items():
        if name in nodes:  # what the runtime computes once, when it loads the model, is not
            times[group].append(statistics.fmean(sorted(nodes[name][_SKIPPED:])[:-_OUTLIERS]))
    return _totals(times), statistics.median(nodes[_EXECUTOR][_SKIPPED:])


def _profile(path: Path, threads: int, feeds: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Group]]:
    """The events of some runs, and the group of every node that is executed."""
    with tempfile.TemporaryDirectory() as folder:
        options, optimized = onnxruntime.SessionOptions(), Path(folder) / "optimized.onnx"
        options.intra_op_num_threads = threads
        options.log_severity_level = _SILENT
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(optimized)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run(None, feeds)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        return events, _groups(onnx.load(optimized).graph)


def _groups(graph: onnx.GraphProto) -> dict[str, Group]:
    """Kind and format of every node, by name, in the order in which they are executed."""
    constants = {entry.name: entry for entry in graph.initializer}
    types = {entry.name: entry.data_type for entry in graph.initializer}
    types.update({value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)})
    return {node.name: (_kind(node, constants), _format(node, types)) for node in graph.node}


def _kind(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> str:
    kind = KINDS.get(node.op_type, node.op_type.lower())
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    if kind == "conv" and groups > 1:
        weight = next(constants[name] for name in node.input if name in constants and len(constants[name].dims) > 2)
        return "depthwise_conv" if weight.dims[1] == 1 else "grouped_conv"
    if kind == "matmul" and any(name in constants for name in node.input[1:2]):
        return "linear"
    return kind


def _format(node: onnx.NodeProto, types: Mapping[str, int]) -> str:
    if node.op_type == "MatMulNBits":
        return f"packed{next(attribute.i for attribute in node.attribute if attribute.name == 'bits')}"
    if node.op_type == "DynamicQuantizeMatMul":
        return "dynamic"
    integer = any(types.get(name) in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8) for name in node.input)
    return "int8" if integer or node.op_type.endswith("QuantizeLinear") else "fp32"


def _totals(times: dict[Group, list[float]]) -> Totals:
    counts = Counter({group: len(found) for group, found in times.items()})
    return {group: (counts[group], sum(found)) for group, found in times.items()}
