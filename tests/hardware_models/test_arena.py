"""The arena: what a runtime asks the system for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.hardware_models.arena import KIB, ArenaUse, arena_use
from kneepoint.hardware_models.device import Memory
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.operators import OperatorTable, Tensor

ARENA = Memory(limit_mb=1, alignment=256, region_kb=1, growth=2)


def buffers(*spans: tuple[int, int, int]) -> Buffers:
    """(bytes, first, last) of each."""
    columns = np.array(sorted(spans, key=lambda span: span[1]), np.int64).reshape(-1, 3)
    return Buffers(columns[:, 0], columns[:, 1], columns[:, 2], int(columns[:, 2].max(initial=-1)) + 1)


def test_a_chain_holds_two_at_a_time() -> None:
    chain = buffers((100, 0, 1), (200, 1, 2), (50, 2, 3))
    assert chain.alive().tolist() == [100, 300, 250, 50]
    assert chain.alive(256).tolist() == [256, 512, 512, 256]
    assert arena_use(chain, Memory(limit_mb=1)) == ArenaUse(300, 300)
    assert arena_use(chain, Memory(limit_mb=1, alignment=256)) == ArenaUse(512, 512)


@pytest.mark.parametrize(
    ("rules", "spans", "expected"),
    [
        ({}, [(100, 0, 1), (200, 1, 2)], (512, 1024)),
        ({}, [(100, 0, 0), (200, 1, 2), (256, 3, 3)], (256, 1024)),  # one place, used again and again
        ({}, [(1500, 0, 1), (1500, 1, 2)], (3072, 4096)),  # no region holds two
        ({"growth": 1}, [(1500, 0, 1), (1500, 1, 2)], (3072, 3072)),  # regions as large as is asked for
        ({"growth": 1}, [(300, 0, 1)], (512, 1024)),
        ({"replanned": True}, [(1500, 0, 1), (1500, 1, 2)], (6144, 8192)),  # and one block for both, which fits nowhere
        ({"replanned": True}, [(200, 0, 1), (200, 1, 2)], (512, 1024)),  # which fits
        ({}, [(512, 0, 0), (512, 0, 2), (1024, 1, 1)], (2048, 2048)),  # half a region is free, and not enough
        ({}, [(512, 0, 0), (512, 0, 0), (1024, 1, 1)], (1024, 1024)),  # neighbours are joined
    ],
)
def test_known_answers(rules: dict[str, int], spans: list[tuple[int, int, int]], expected: tuple[int, int]) -> None:
    assert arena_use(buffers(*spans), ARENA.model_copy(update=rules)) == ArenaUse(*expected)


def test_networks_of_integers_may_be_handed_integers() -> None:
    """An input of 100 floats that a kernel on integers reads, and one that others read, too."""
    handed = Buffers(np.array([400, 400, 60]), np.array([0, 0, 0]), np.array([0, 1, 1]), 2, np.array([[0, 100]]))
    assert arena_use(handed, Memory(limit_mb=1)).touched_bytes == 860
    assert arena_use(handed, Memory(limit_mb=1, integer_inputs=True)).touched_bytes == 560
    assert handed.bytes.tolist() == [400, 400, 60]


@pytest.mark.parametrize(("kind", "taken"), [("linear", [[1, 6]]), ("embedding", [])])
def test_indices_of_an_embedding_are_not_values_in_bytes(kind: str, taken: list[list[int]]) -> None:
    table = OperatorTable((), {"x": Tensor("x", (1, 6))}, ("x",), ("y",))
    kernel = Kernel("one", kind, "int8", output_bytes=8, reads=("x",), writes="y")
    assert Buffers.of(table, [kernel]).inputs.tolist() == taken


def test_what_onnx_runtime_asked_the_system_for() -> None:
    """Six convolutions of 64 channels at 100 x 100: 8,200 KiB at the first inference, 8,196 more at the second."""
    size = 4 * 64 * 100 * 100
    chain = buffers(*((size, step, step + 1) for step in range(6)))
    runtime = Memory(limit_mb=1000, alignment=256, region_kb=1024, growth=2)
    first = arena_use(chain, runtime)
    assert (first.reserved_bytes, first.touched_bytes) == (8192 * KIB, 2 * size)
    second = arena_use(chain, runtime.model_copy(update={"replanned": True}))
    assert second.reserved_bytes == 2 * first.reserved_bytes
    assert second.touched_bytes == 2 * first.touched_bytes


SPANS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(spans=SPANS, growth=st.integers(1, 3), replanned=st.booleans())
def test_regions_hold_the_peak(spans: list[tuple[int, int, int]], growth: int, replanned: bool) -> None:
    held = buffers(*((size, min(a, b), max(a, b)) for size, a, b in spans))
    rules = ARENA.model_copy(update={"growth": growth, "replanned": replanned})
    use = arena_use(held, rules)
    assert held.alive(256).max() <= use.touched_bytes <= use.reserved_bytes
    assert use.touched_bytes % 256 == 0


def test_no_kernel_no_memory() -> None:
    assert arena_use(Buffers.none(), ARENA) == ArenaUse(0, 0)
