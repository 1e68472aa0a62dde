"""What a device file says that the cases of hardware_models.py take, and what the networks themselves are priced at."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.hardware_models_files import Case, path_of, policies
from kneepoint.hardware_models import Cost, CostModel, Device, OperatorTable, Workload, load_device, read_onnx
from kneepoint.spaces.lowering import lower

ROOFLINE = "x86-server"
"""The shipped device of one constant a kernel kind, which nothing was measured for here."""
_SHOWN = 3
_SAME = 1e-9
"""Relative: the same sum in another order."""


@dataclass(frozen=True)
class Price:
    """One case as it is predicted.

    Attributes:
        predicted_us: By the device.
        coverage: The share of it that kernels with a price of their own make.
        roofline_us: By :data:`ROOFLINE`.
        macs: Multiply-accumulate operations.
        dominant: The kernel kinds that take most of the predicted time, with their shares.
    """

    predicted_us: float
    coverage: float
    roofline_us: float
    macs: int
    dominant: str


class Pricer:
    """Prices cases on one device.

    Args:
        device: Judged.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.roofline = load_device(ROOFLINE)
        self._model = cache(lambda threads: CostModel(device.at_threads(threads)))
        self._roofline_model = cache(lambda threads: CostModel(self.roofline.at_threads(threads)))

    def prices(self, cases: Sequence[Case], folder: Path) -> Iterator[tuple[Case, Price]]:
        """Every case and what its file is priced at; each file is read once a batch."""
        tables = cache(lambda network, variant, batch: read_onnx(path_of(folder, network, variant), batch=batch))
        for case in cases:
            yield case, self._price(tables(case.network, case.variant, case.batch), case.threads)

    def differing(self, cases: Sequence[Case], prices: Mapping[Case, Price]) -> Iterator[Case]:
        """The cases whose network and policy are priced otherwise than the file that was made of them."""
        for name in dict.fromkeys(case.network for case in cases):
            made = policies(name)
            for case in (case for case in cases if case.network == name):
                cost = self._cost(lower(*made[case.variant], batch=case.batch), case.threads)
                if not math.isclose(1e3 * cost.latency_ms, prices[case].predicted_us, rel_tol=_SAME):
                    yield case

    def _price(self, table: OperatorTable, threads: int) -> Price:
        cost = self._cost(table, threads)
        workload = Workload.of(table, self.roofline.fusion)
        return Price(
            predicted_us=1e3 * cost.latency_ms,
            coverage=cost.coverage,
            roofline_us=1e3 * self._roofline_model(threads).cost(workload).latency_ms,
            macs=int(workload.macs.sum()),
            dominant=_dominant(cost),
        )

    def _cost(self, table: OperatorTable, threads: int) -> Cost:
        return self._model(threads).cost(Workload.of(table, self.device.fusion))


def _dominant(cost: Cost) -> str:
    shares: dict[str, float] = defaultdict(float)
    for kernel in cost.kernels:
        shares[kernel.kind] += kernel.latency_ms / cost.latency_ms
    largest = sorted(shares.items(), key=lambda entry: -entry[1])[:_SHOWN]
    return ", ".join(f"{kind} {share:.0%}" for kind, share in largest)
