"""What a bundle measured, beside the networks that it measured, drawn anew."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kneepoint.deployment.bundles.few_shot import Latencies, kind_of
from kneepoint.deployment.bundles.plan import Plan
from kneepoint.deployment.bundles.reading import Results, networks_of, probes_of, quoted
from kneepoint.deployment.bundles.results_schema import NetworkLine
from kneepoint.deployment.calibration.campaign import HELD_OUT
from kneepoint.deployment.calibration.executed import TimedNode, pair
from kneepoint.deployment.calibration.micro_networks import MicroNetwork
from kneepoint.deployment.calibration.probing import best_rules
from kneepoint.deployment.calibration.rates import gain_exponent
from kneepoint.deployment.calibration.samples import Sample, TimedKernel
from kneepoint.deployment.device_program import SLOW
from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.roofline import MAC_KINDS
from kneepoint.tasks.errors import DeviceError

_NOISY = 0.2
_SPREAD_OF_ONE = 1.349
"""The interquartile range of a normal distribution over its standard deviation."""


def _plan(results: Results) -> Plan:
    facts = results.header.plan
    try:
        return Plan(facts.seed, facts.count, facts.few)
    except DeviceError as error:
        raise DeviceError(
            f"{quoted(results.path, 200)}, line 1: {error}; copy the file from the device again"
        ) from error


@dataclass(frozen=True, eq=False)
class Measured:
    """Results that were checked against the plan's networks.

    Attributes:
        results: They.
        networks: By number: how each was drawn, and its operators.
        rules: The fusion rules of the runtime there; None where no probe was looked at.
        threads: The thread counts, the one with most networks first.
    """

    results: Results
    networks: Mapping[int, tuple[MicroNetwork, OperatorTable]]
    rules: tuple[str, ...] | None
    threads: Sequence[int]

    @classmethod
    def of(cls, results: Results) -> Measured:
        """The results, checked.

        Raises:
            DeviceError: If a network is another than the plan's, or none was timed.
        """
        plan = _plan(results)
        if not results.networks:
            raise DeviceError(
                f"{quoted(results.path, 200)} has no network that was timed; run run.py on the device again"
            )
        networks = {
            planned.number: (planned.network, read_onnx(planned.network.model, batch=planned.network.batch))
            for planned in networks_of(results, plan)
        }
        probed = [
            (planned.network, _nodes(results.probes[planned.number].nodes)) for planned in probes_of(results, plan)
        ]
        counts = Counter(threads for _, threads in results.networks)
        return cls(results, networks, best_rules(probed) if probed else None, [n for n, _ in counts.most_common()])

    def profiled(self, threads: int) -> int:
        """How many networks were profiled on a quiet machine; none where it is not known how to read profiles."""
        return sum(map(_is_profiled, self.lines(threads))) if self.rules is not None else 0

    def lines(self, threads: int) -> list[NetworkLine]:
        """The networks at one thread count."""
        return [line for (_, count), line in sorted(self.results.networks.items()) if count == threads]

    def samples(self, threads: int, rules: Sequence[str], *, quiet: bool = False) -> list[Sample]:
        """The networks at one thread count, with their kernels under some fusion rules.

        Args:
            threads: The count.
            rules: Of ``kneepoint.hardware_models.fusion``.
            quiet: Those alone that were profiled on a quiet machine.
        """
        return [self._sample(line, rules) for line in self.lines(threads) if _is_profiled(line) or not quiet]

    def _sample(self, line: NetworkLine, rules: Sequence[str]) -> Sample:
        network, table = self.networks[line.network]
        kernels = fuse(table, rules)
        nodes = _nodes(line.nodes or ())
        pairs = {place: node.microseconds for place, node in pair(kernels, nodes)}
        return Sample(
            index=line.network,
            threads=line.threads,
            held_out=line.network % HELD_OUT == 0,
            style=network.style,
            batch=network.batch,
            total_us=line.us,
            complete=len(pairs) == len(kernels) == len(nodes),
            seconds=line.seconds,
            kernels=TimedKernel.all(kernels, pairs),
        )

    def latencies(self, threads: int) -> Latencies:
        """Of the networks at a thread count; in doubt where their runs spread, or the device was disturbed."""
        lines = self.lines(threads)
        doubt = [math.hypot(line.spread / _SPREAD_OF_ONE, max(0.0, line.slowdown - 1)) for line in lines]
        kinds = [_kind(self.networks[line.network][0].style, self.kernels(line.network)) for line in lines]
        return Latencies.of(np.array([line.us for line in lines]), np.array(doubt), kinds)

    def thread_exponent(self) -> float | None:
        """How latency falls with threads, where two counts were measured."""
        totals = {count: {line.network: line.us for line in self.lines(count)} for count in self.threads}
        return gain_exponent(totals) if len(totals) > 1 else None

    def kernels(self, number: int) -> Sequence[Kernel]:
        """Of a network, without what rules differ in."""
        return fuse(self.networks[number][1], ())

    def notes(self) -> list[str]:
        """What people should know about the measurements."""
        notes, lines = list(self.results.notes), list(self.results.networks.values())
        disturbed = sum(line.slowdown > SLOW for line in lines)
        if disturbed > _NOISY * len(lines):
            notes.append(
                f"the device was noisy: {disturbed} of {len(lines)} timings were disturbed; stop what else runs there"
            )
        if self.results.refused:
            notes.append(f"onnxruntime there did not run {self.results.refused} of the networks")
        if self.rules is None:
            notes.append("no probe was looked at, so the fusion rules are those of the adapted device")
        return notes


def _is_profiled(line: NetworkLine) -> bool:
    return bool(line.nodes) and line.slowdown <= SLOW


def _kind(style: str, kernels: Iterable[Kernel]) -> str:
    return kind_of(style, [kernel.format for kernel in kernels if kernel.kind in MAC_KINDS])


def _nodes(rows: Iterable[tuple[str, str, int, float]]) -> list[TimedNode]:
    return [TimedNode(*row) for row in rows]
