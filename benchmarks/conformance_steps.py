"""Takes one network of the conformance table through every step, and prints a line of JSON for each as it ends.

    python -m benchmarks.conformance_steps --list      every network and its family
    python -m benchmarks.conformance_steps NAME        the steps of one network

It is started by ``benchmarks/conformance.py``, which gives it a time limit.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks.conformance_networks import USER_WRITTEN, Architecture
from benchmarks.conformance_transformers import TRANSFORMERS
from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.student_store import StudentStore
from kneepoint.deployment import parity, to_onnx
from kneepoint.deployment.runtime import open_session
from kneepoint.hardware_models import CostModel, Workload, load_device, read_onnx
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.masking import masked
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import copy_graph_module, split_inputs
from kneepoint.tasks.batches import concatenate, leaves
from kneepoint.tasks.task import Task

ARCHITECTURES: Mapping[str, Architecture] = {**USER_WRITTEN, **TRANSFORMERS}
YES = "yes"
_SAMPLES, _BATCHES = 8, 3
_DEVICE = "x86-server"
_PRICED = 0.1
"""How far a policy's price may be off that of its file: some operators are written as several others."""


class NothingToDo(Exception):  # noqa: N818 - no error: the step does not apply, and the message says why
    """A step that this network has nothing for."""


def mean_output(outputs: Any, targets: Any) -> float:
    """A metric for random weights and random data: any number that the outputs determine."""
    return float(leaves(outputs)[0].double().mean())


def squared_outputs(outputs: Any, targets: Any) -> Tensor:
    """A loss for outputs of any shape: their mean square."""
    return torch.stack([leaf.float().square().mean() for leaf in leaves(outputs)]).mean()


@dataclass
class Subject:
    """One network on its way through the steps.

    Attributes:
        architecture: What it is.
        facts: Figures found on the way.
    """

    architecture: Architecture
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def module(self) -> nn.Module:
        """The module, its BatchNorm statistics those of trained networks: neither 0 nor 1."""
        torch.manual_seed(0)
        module = self.architecture.build().eval()
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0.0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
        return module

    @cached_property
    def batches(self) -> list[tuple[Any, Tensor]]:
        """Random inputs with targets that nobody reads."""
        torch.manual_seed(1)
        inputs = [concatenate([self.architecture.example() for _ in range(_SAMPLES)]) for _ in range(_BATCHES)]
        return [(batch, torch.zeros(_SAMPLES, dtype=torch.long)) for batch in inputs]

    @cached_property
    def task(self) -> Task:
        """Calibrates on some batches, is compared on another."""
        first = concatenate([self.batches[0][0]])
        train, validation = self.batches[1:], self.batches[:1]
        return Task(self.module, first, train, validation, metric=mean_output, loss=squared_outputs)

    @cached_property
    def compressor(self) -> Compressor:
        """On the traced network, without students."""
        space = JointSpace(self.task, weight_bits=(4, 8), keep=(1.0, 0.5), students=None)
        return Compressor(space, StudentStore(Path(tempfile.gettempdir())))

    @cached_property
    def network(self) -> Network:
        """The traced network."""
        return self.compressor.space.teacher

    @cached_property
    def eight(self) -> CompressedNetwork:
        """All layers in 8 bits, all channels."""
        return self.compressor.compress(self.policy(8, 1.0))

    @cached_property
    def four(self) -> CompressedNetwork:
        """All layers in 4 bits, half of the channels."""
        return self.compressor.compress(self.policy(4, 0.5))

    @cached_property
    def files(self) -> list[bytes]:
        """Both networks as ONNX."""
        return [to_onnx(made, self.task.example_input).SerializeToString() for made in (self.eight, self.four)]

    def policy(self, bits: int, keep: float) -> Policy:
        """Every layer in ``bits``, as far as its kind admits, every group at ``keep``."""
        layers = {name: layer.admit(LayerPolicy.of_bits(bits)) for name, layer in self.network.layers.items()}
        return Policy.build(keep=dict.fromkeys(self.network.groups, keep), layers=layers)


def traced(subject: Subject) -> None:
    """The graph computes what the module does, at a batch it was not traced with."""
    inputs = subject.batches[1][0]
    args, kwargs = split_inputs(inputs)
    subject.facts["layers"] = len(subject.network.layers)
    subject.facts["groups"] = len(subject.network.groups)
    subject.facts["blocks"] = len(subject.network.blocks)
    with torch.inference_mode():
        _require_equal(subject.network.graph_module(*args, **kwargs), subject.task.call(subject.module, inputs))


def grouped(subject: Subject) -> None:
    """There are channel groups that may be thinned out."""
    if not subject.network.groups:
        reasons = dict.fromkeys(subject.network.flow.fixed.values())
        raise NothingToDo("; ".join(reasons))


def pruned(subject: Subject) -> None:
    """With every other channel and head gone, the cut network computes what the masked one does."""
    grouped(subject)
    network = subject.network
    kept = {group: torch.arange(size)[1::2] for group, size in network.groups.items()}
    full = copy_graph_module(network.graph_module, None, masked(network, kept))
    args, kwargs = split_inputs(subject.batches[1][0])
    with torch.inference_mode():
        _require_equal(cut(network, kept)(*args, **kwargs), full(*args, **kwargs))
        for name in network.blocks:
            _require_equal(
                network.without([name]).graph_module(*args, **kwargs), _silenced(network, name)(*args, **kwargs)
            )


def _silenced(network: Network, name: str) -> torch.fx.GraphModule:
    """The whole network, in which a residual block adds nothing."""
    block = network.blocks[name]

    def edit(graph: torch.fx.Graph) -> None:
        nodes = {node.name: node for node in graph.nodes}
        addition = nodes[block.addition]
        (branch,) = (side for side in addition.all_input_nodes if side.name in block.nodes)
        with graph.inserting_before(addition):
            nothing = graph.call_function(torch.ops.aten.mul.Tensor, (branch, 0.0))
        addition.replace_input_with(branch, nothing)

    return copy_graph_module(network.graph_module, edit)


def in_8_bits(subject: Subject) -> None:
    """The simulator of the 8-bit network gives finite outputs."""
    _require_finite(subject, subject.eight)


def in_4_bits(subject: Subject) -> None:
    """The simulator of the thinned 4-bit network gives finite outputs."""
    _require_finite(subject, subject.four)


def exported(subject: Subject) -> None:
    """Both are written as ONNX."""
    subject.facts["bytes"] = [len(file) for file in subject.files]


def loaded(subject: Subject) -> None:
    """ONNX Runtime opens both files."""
    for file in subject.files:
        open_session(file)


def agreed(subject: Subject) -> None:
    """ONNX Runtime gives the simulator's outputs at the simulator's batch, both networks."""
    found = [
        parity.compare(file, subject.task, made.module)
        for file, made in zip(subject.files, (subject.eight, subject.four), strict=True)
    ]
    subject.facts["deviation"] = [float(f"{entry.deviation:.1e}") for entry in found]
    for bits, entry in zip((8, 4), found, strict=True):
        if not entry.deviation <= parity.LARGEST_DEVIATION:
            raise ValueError(f"the {bits}-bit network's outputs deviate by {entry.deviation:.1%}")


def priced(subject: Subject) -> None:
    """Both files are read back and cost on a device what their policies were priced at, within a tenth."""
    device = load_device(_DEVICE)
    model = CostModel(device)
    prices: list[float] = subject.facts.setdefault("prices", [])
    for file, made in zip(subject.files, (subject.eight, subject.four), strict=True):
        read = model.cost(Workload.of(read_onnx(onnx.load_from_string(file)), device.fusion)).latency_ms
        predicted = model.cost(Workload.of(lower(made.network, made.policy), device.fusion)).latency_ms
        prices.append(float(f"{predicted / read - 1:.1e}"))
        if not 0 < read < math.inf or not math.isclose(read, predicted, rel_tol=_PRICED):
            raise ValueError(f"the file costs {read:.6g} ms, its policy {predicted:.6g} ms")


STEPS: Mapping[str, Callable[[Subject], None]] = {
    "traced": traced,
    "has groups": grouped,
    "pruned = masked": pruned,
    "8-bit": in_8_bits,
    "4-bit, half pruned": in_4_bits,
    "exported": exported,
    "loaded": loaded,
    "same outputs": agreed,
    "priced": priced,
}

NEEDS: Mapping[str, tuple[str, ...]] = {
    **{step: ("traced",) for step in STEPS if step != "traced"},
    "exported": ("traced", "8-bit", "4-bit, half pruned"),
    "loaded": ("exported",),
    "same outputs": ("loaded",),
    "priced": ("exported",),
}
"""Steps without which another one cannot be tried."""


def run(subject: Subject) -> Iterator[tuple[str, str]]:
    """Every step and its cell."""
    cells: dict[str, str] = {}
    for name, step in STEPS.items():
        missing = [other for other in NEEDS.get(name, ()) if cells[other] != YES]
        cells[name] = f"no: it needs the step '{missing[0]}'" if missing else _cell(step, subject)
        yield name, cells[name]


def _cell(step: Callable[[Subject], None], subject: Subject) -> str:
    try:
        step(subject)
    except NothingToDo as why:
        return f"none: {why}"
    except Exception as error:  # whatever goes wrong is what the table is about
        return f"no: {_one_line(error)}"
    return YES


def main() -> None:
    """Run the steps of one network, or list all networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(ARCHITECTURES))
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list or arguments.name is None:
        versions = {"torch": torch.__version__.split("+")[0], "onnxruntime": onnxruntime.__version__}
        families = {name: architecture.family for name, architecture in ARCHITECTURES.items()}
        steps = {name: (step.__doc__ or "").strip() for name, step in STEPS.items()}
        print(json.dumps({"networks": families, "steps": steps, "versions": versions}))
        return
    torch.set_num_threads(1)
    subject = Subject(ARCHITECTURES[arguments.name])
    begin = time.monotonic()
    for step, cell in run(subject):
        seconds = round(time.monotonic() - begin, 1)
        print(json.dumps({"step": step, "cell": cell, "seconds": seconds, "facts": subject.facts}), flush=True)


def _require_equal(ours: Any, expected: Any) -> None:
    for first, second in zip(leaves(ours), leaves(expected), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def _require_finite(subject: Subject, made: CompressedNetwork) -> None:
    with torch.inference_mode():
        outputs = subject.task.call(made.module, subject.batches[0][0])
    if not all(bool(leaf.isfinite().all()) for leaf in leaves(outputs)):
        raise ValueError("the outputs are not finite")


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
