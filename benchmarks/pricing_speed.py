"""How fast kernels, policies and devices are priced, held against the project's bars.

    python benchmarks/pricing_speed.py                                            prints JSON; takes many minutes
    python benchmarks/pricing_speed.py --policies 4096 --device raspberry-pi-4b   a minute; learning costs more of it

One core. Kernels: rows of a table of distinct kernels, gathered and summed by workload. Policies: random formats and
widths for every layer of a residual network of 100 layers, as rows of codes (building ``Policy`` objects and encoding
them is timed apart); "amortized" has in it every policy that was lowered. Devices: a file that carries a megabyte of
fitted models, after imports. Exit code 0 where every bar is reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.devices import SHIPPED, load_device
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.policy_prices import PolicyPrices

DEVICE = "x86-server"
BITS = (2, 4, 8, 16)
SHARES = (1.0, 0.75, 0.5, 0.25)
BLOCKS = 33
CHUNK = 4_096
REPEATS = 5
LARGEST_US, LARGEST_MS, LEAST_LOOKUPS = 50.0, 50.0, 2_000_000
MEGABYTE = 1 << 20
TOLERANCE = 1e-9


class Bottleneck(nn.Module):
    """Three convolutions and a residual."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.spatial = nn.Conv2d(inner, inner, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The input, and what is added to it."""
        inner = torch.relu(self.spatial(torch.relu(self.reduce(x))))
        return torch.relu(x + self.expand(inner))


def network_of_100_layers() -> Network:
    """A stem, 33 bottlenecks and a head: 101 layers, 67 channel groups."""
    blocks = (Bottleneck(64, 32) for _ in range(BLOCKS))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    module = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *blocks, *head)
    return Network(module.eval(), torch.randn(1, 3, 16, 16))


def seconds(work: Callable[[], object]) -> float:
    """Of one call, the median of a few."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def kernel_lookups(network: Network) -> float:
    """Kernels a second: 20,000 workloads as long as the network's, of rows that several policies have in common."""
    model, rng = CostModel(load_device(DEVICE)), np.random.default_rng(0)
    listed = [Workload.of(lower(network, entry), model.device.fusion) for entry in policies(network, 20, rng)]
    known = np.concatenate([model.table.places(workload) for workload in listed])
    lengths = np.full(CHUNK, len(listed[0]), np.int64)
    places = rng.choice(known, int(lengths.sum()))
    return len(places) / seconds(lambda: model.table.totals(places, lengths))


def policies(network: Network, count: int, rng: np.random.Generator) -> list[Policy]:
    """Every layer and every group chosen by itself."""
    formats = [LayerPolicy.of_bits(bits) for bits in BITS]
    return [
        Policy.build(
            keep={group: SHARES[choice] for group, choice in zip(network.groups, widths, strict=True)},
            layers={layer: formats[choice] for layer, choice in zip(network.layers, bits, strict=True)},
        )
        for bits, widths in zip(
            rng.integers(len(BITS), size=(count, len(network.layers))),
            rng.integers(len(SHARES), size=(count, len(network.groups))),
            strict=True,
        )
    ]


def policy_times(network: Network, count: int, device: str) -> dict[str, Any]:
    """Microseconds a policy: as random rows of codes, encoded from objects, and lowered one by one."""
    rng = np.random.default_rng(0)
    prices = PolicyPrices(network, CostModel(load_device(device)))
    known = policies(network, 200, rng)
    encoding = seconds(lambda: prices.codes.encode(known)) / len(known)
    values = [np.unique(column) for column in prices.codes.encode(known).T]

    def drawn(size: int) -> NDArray[np.int64]:
        return np.stack([rng.choice(column, size) for column in values], axis=1)

    spent = 0.0
    for _ in range(max(count // CHUNK, 1)):
        codes = drawn(CHUNK)
        start = time.perf_counter()
        prices.price_codes(codes)
        spent += time.perf_counter() - start
    priced, lowered = max(count // CHUNK, 1) * CHUNK, prices.lowered
    again = seconds(lambda: prices.price_codes(codes)) / CHUNK
    exact = seconds(lambda: _exactly(prices, known[:5])) / 5
    return {
        "policies": priced,
        "lowered": lowered,
        "amortized_us": round(spent / priced * 1e6, 2),
        "once_learned_us": round(again * 1e6, 2),
        "encoding_us": round(encoding * 1e6, 2),
        "lowered_one_by_one_us": round(exact * 1e6, 1),
        **_differences(prices, known),
    }


def _exactly(prices: PolicyPrices, listed: list[Policy]) -> list[float]:
    model = prices.model
    return [model.cost(Workload.of(lower(prices.network, entry), model.device.fusion)).latency_ms for entry in listed]


def _differences(prices: PolicyPrices, listed: list[Policy]) -> dict[str, float]:
    """Of policies' latencies to those of their own workloads, as fractions; they were not learned before."""
    differences = np.abs(prices.price(listed).latency_ms / np.array(_exactly(prices, listed)) - 1)
    return {"equal_share": float((differences < TOLERANCE).mean()), "largest_difference": float(differences.max())}


def device_load() -> float:
    """Milliseconds of reading and checking a device file that carries a megabyte of text."""
    content = yaml.safe_load((SHIPPED / f"{DEVICE}.yaml").read_text())
    content["calibration"] = {"threads": {"1": {"arrays": "A" * MEGABYTE}}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fitted.yaml"
        path.write_text(yaml.safe_dump(content))
        return seconds(lambda: load_device(path)) * 1e3


def main() -> int:
    """Measure, print, and say whether the bars are reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=1_000_000)
    parser.add_argument("--device", default=DEVICE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = network_of_100_layers()
    lookups, priced, load = (
        kernel_lookups(network),
        policy_times(network, arguments.policies, arguments.device),
        device_load(),
    )
    bars = {
        "at least 2,000,000 kernels a second": lookups >= LEAST_LOOKUPS,
        "at most 50 us a policy of 100 layers, amortized": priced["amortized_us"] <= LARGEST_US,
        "every policy as its own workload": priced["equal_share"] == 1.0,
        "at most 50 ms to load a device": load <= LARGEST_MS,
    }
    facts = {"kernels_per_second": round(lookups), "policy": priced, "device_load_ms": round(load, 2), "bars": bars}
    print(json.dumps(facts, indent=1))
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
