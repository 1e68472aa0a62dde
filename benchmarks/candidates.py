"""Candidates a second, ours against the straightforward way, on the same data in the same run.

    python benchmarks/candidates.py                 12 candidates of each sort, about three minutes
    python benchmarks/candidates.py --candidates 4  a quick look
    python benchmarks/candidates.py --json          the figures on stdout

The straightforward way, which is what one writes with the usual libraries: deepcopy the teacher, prune it with
Torch-Pruning, measure BatchNorm again, put torch's observers and fake quantization on every layer's input and weight,
calibrate, evaluate. Ours: ``Compressor.compress`` on the same calibration samples, then the simulator, or ONNX Runtime
(``measure="onnxruntime"``), on the same validation samples. All do the same work: nearest rounding, ranges by extremes,
no bias correction. They run on one thread, candidate by candidate in turn; one candidate of each is made first and not
counted. The bare forward pass of the float network stands beside them: float arithmetic on the same data cannot be
faster. Exit code 0 where both bars are reached. Figures go to benchmarks/results/candidates.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch_pruning
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MinMaxObserver, PerChannelMinMaxObserver

from kneepoint.compression import CompressionSettings, Compressor, QuantizationSettings, StudentStore
from kneepoint.deployment import Execution
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks import digits
from kneepoint.tasks.batches import as_pair
from kneepoint.tasks.task import Task

RESULTS = Path(__file__).parent / "results" / "candidates.json"
BITS = (2, 4, 8)
KEEP = (1.0, 0.75, 0.5, 0.25)
CALIBRATION_SAMPLES = 512
BARS = {"bits": 10.0, "channels": 3.0}
"""Times as many candidates a second as the straightforward way: policies that differ in bits alone, in channels too."""


JUDGED = "ours, onnxruntime"
"""The way that the bars are for."""
EQUAL_WORK = CompressionSettings(
    calibration_samples=CALIBRATION_SAMPLES,
    quantization=QuantizationSettings(weight_scale="minmax", learned_bits=0, bias_correction=False),
    importance="l2",
)


@dataclass
class Clock:
    """Seconds by phase, a list entry for each candidate."""

    phases: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what happens inside."""
        start = time.perf_counter()
        yield
        self.phases.setdefault(name, []).append(time.perf_counter() - start)

    def medians(self) -> dict[str, float]:
        """Median milliseconds of every phase."""
        return {name: 1e3 * statistics.median(times) for name, times in self.phases.items()}

    def total(self) -> float:
        """Median seconds of a candidate."""
        totals = [sum(times) for times in zip(*self.phases.values(), strict=True)]
        return float(statistics.median(totals))


class Way(Protocol):
    """A way of measuring a candidate."""

    def measure(self, policy: Policy, clock: Clock) -> tuple[float, int]:
        """The candidate's accuracy on the validation data, and the elements of its layers' weights."""


class Straightforward:
    """A candidate the way one writes it with deepcopy, Torch-Pruning and torch's own fake quantization."""

    def __init__(self, task: Task, calibration: list[Tensor]) -> None:
        self.task = task
        self.calibration = calibration

    def measure(self, policy: Policy, clock: Clock) -> tuple[float, int]:
        """The candidate's accuracy on the validation data, and the elements of its layers' weights."""
        with clock.phase("copy"):
            model = copy.deepcopy(self.task.model).eval()
        with clock.phase("prune"):
            if policy.keep:
                self.prune(model, dict(policy.keep))
        with clock.phase("quantize and calibrate"):
            self.quantize(model, policy)
        with clock.phase("evaluate"):
            accuracy = self.task.metric.score(*self.task.predict(model)).value
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        return accuracy, sum(layer.weight.numel() for layer in layers)

    @staticmethod
    def _head(model: nn.Module) -> nn.Module:
        return [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]

    def prune(self, model: nn.Module, keep: dict[str, float]) -> None:
        """Cut what Torch-Pruning finds for every group's share, in place, and measure BatchNorm again."""
        layers = dict(model.named_modules())
        ratios = {layers[name]: 1.0 - share for name, share in keep.items()}
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            self.task.example_input,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.0,
            pruning_ratio_dict=ratios,
            ignored_layers=[self._head(model)],
        )
        pruner.step()
        norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.train()
        with torch.no_grad():
            for batch in self.calibration:
                model(batch)
        model.eval()

    def quantize(self, model: nn.Module, policy: Policy) -> None:
        """Fake quantization of every layer's weight (once) and of its input (at every call)."""
        observers = []
        for name, layer in list(model.named_modules()):
            bits = policy.layer(name).weight_bits
            if not isinstance(layer, nn.Conv2d | nn.Linear) or bits > 8:
                continue
            limit = 2 ** (bits - 1) - 1
            weight = FakeQuantize(
                PerChannelMinMaxObserver,
                quant_min=-limit,
                quant_max=limit,
                dtype=torch.qint8,
                qscheme=torch.per_channel_symmetric,
            )
            layer.weight.data = weight(layer.weight.detach())
            read = FakeQuantize(MinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8)
            layer.register_forward_pre_hook(lambda _, inputs, read=read: (read(inputs[0]), *inputs[1:]))
            observers.append(read)
        for read in observers:
            read.disable_fake_quant()
        with torch.no_grad():
            for batch in self.calibration:
                model(batch)
        for read in observers:
            read.disable_observer()
            read.enable_fake_quant()


class Ours:
    """A candidate by way of the library.

    Args:
        space: Of the candidates.
        directory: For students, of which there are none.
        measure: What outputs come from, as in ``kneepoint.search(measure=...)``.
    """

    def __init__(self, space: JointSpace, directory: Path, measure: str) -> None:
        self.task = space.task
        self.measured_by = measure
        self.compressor = Compressor(space, StudentStore(directory), settings=EQUAL_WORK)
        self.execution = Execution(space.task, lambda _: self.compressor.compress(Policy.build()))

    def measure(self, policy: Policy, clock: Clock) -> tuple[float, int]:
        """The candidate's accuracy on the validation data, and the elements of its layers' weights."""
        with clock.phase("compress"):
            compressed = self.compressor.compress(policy)
        with clock.phase("evaluate"):
            if self.measured_by == "onnxruntime":
                predicted = self.execution.predict(compressed)
            else:
                predicted = self.task.predict(compressed.module)
            accuracy = self.task.metric.score(*predicted).value
        layers = compressed.network.layers.values()
        return accuracy, sum(compressed.state[layer.weight].numel() for layer in layers)


def policies(space: JointSpace, sort: str, count: int) -> list[Policy]:
    """Random policies of the teacher: mixed bits, and for ``channels`` every group at a random width."""
    random_ = random.Random(sort)  # noqa: S311 - a benchmark's choice, not a secret
    network = space.teacher

    def one() -> Policy:
        layers = {
            name: layer.admit(LayerPolicy.of_bits(random_.choice(BITS))) for name, layer in network.layers.items()
        }
        keep = {group: random_.choice(KEEP) for group in network.groups} if sort == "channels" else {}
        return Policy.build(keep=keep, layers=layers)

    return [one() for _ in range(count)]


def forward_pass(space: JointSpace, ours: Ours) -> Callable[[], float]:
    """Times one pass of the float network, BatchNorm folded, over the validation data."""
    folded = ours.compressor.compress(Policy.build()).module

    def run() -> float:
        start = time.perf_counter()
        space.task.predict(folded)
        return time.perf_counter() - start

    return run


def compare(
    sort: str, count: int, space: JointSpace, ways: dict[str, Way], bare: Callable[[], float]
) -> dict[str, Any]:
    """All ways on the same policies, in turn."""
    clocks = {name: Clock() for name in ways}
    scores: dict[str, list[float]] = {name: [] for name in ways}
    passes = []
    for index, policy in enumerate(policies(space, sort, count + 1)):
        sizes = set()
        for name, way in ways.items():
            score, size = way.measure(policy, clocks[name] if index else Clock())  # the first is not counted
            scores[name].append(score)
            sizes.add(size)
        if len(sizes) > 1:
            raise SystemExit(f"the ways made networks of {sorted(sizes)} weights, so their times do not compare")
        passes.append(bare())
        print(f"{sort}: {index}/{count}", end="\r", file=sys.stderr)
    seconds = {name: clock.total() for name, clock in clocks.items()}
    ratios = {name: seconds["straightforward"] / taken for name, taken in seconds.items()}
    return {
        "candidates": count,
        "times_faster": ratios,
        "bar": BARS[sort],
        "reached": ratios[JUDGED] >= BARS[sort],
        "candidates_a_second": {name: 1 / taken for name, taken in seconds.items()},
        "milliseconds": {name: clock.medians() for name, clock in clocks.items()},
        "bare_forward_pass_ms": 1e3 * statistics.median(passes),
        "mean_accuracy": {name: statistics.mean(found) for name, found in scores.items()},
    }


def calibration_inputs(task: Task) -> list[Tensor]:
    """Batches of the training data until there are enough samples."""
    batches: list[Tensor] = []
    for batch in task.train:
        if sum(map(len, batches)) >= CALIBRATION_SAMPLES:
            break
        batches.append(as_pair(batch, "train")[0])
    return batches


def report(figures: dict[str, Any]) -> None:
    """The figures, for people."""
    for sort, found in figures["results"].items():
        verdict = "reached" if found["reached"] else "MISSED"
        print(f"\n{sort}: {verdict}, {found['times_faster'][JUDGED]:.1f} times (bar {found['bar']:g})")
        for name, phases in found["milliseconds"].items():
            parts = ", ".join(f"{phase} {ms:.1f}" for phase, ms in phases.items())
            rate, accuracy = found["candidates_a_second"][name], found["mean_accuracy"][name]
            print(f"  {name:20} {rate:6.2f} a second, mean accuracy {accuracy:.3f}   ms: {parts}")
        print(f"  one bare forward pass of the float network takes {found['bare_forward_pass_ms']:.1f} ms")


def main() -> int:
    """Run, write the figures, and say whether the bars are reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)  # torch.ao announces its move, which is the rival's affair
    task = digits.task()
    space = joint_space(task, weight_bits=BITS, keep=KEEP, students=None, channel_multiple=1)
    with tempfile.TemporaryDirectory() as directory:
        simulator, runtime = (Ours(space, Path(directory), measure) for measure in ("simulator", "onnxruntime"))
        ways: dict[str, Way] = {
            "straightforward": Straightforward(task, calibration_inputs(task)),
            "ours, simulator": simulator,
            JUDGED: runtime,
        }
        bare = forward_pass(space, simulator)
        results = {sort: compare(sort, given.candidates, space, ways, bare) for sort in BARS}
    versions = {"torch": torch.__version__, "torch_pruning": torch_pruning.__version__}
    figures = {"threads": 1, "versions": versions, "results": results}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures)) if given.json else report(figures)
    return 0 if all(found["reached"] for found in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
