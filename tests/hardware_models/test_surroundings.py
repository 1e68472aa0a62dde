"""Where kernels stand."""

from __future__ import annotations

from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.surroundings import SURROUNDINGS, surroundings


def kernel(writes: str, *reads: str, kind: str = "add", bytes_: int = 100, weights: int = 0, macs: int = 0) -> Kernel:
    return Kernel(
        writes, kind, "fp32", macs, weight_bytes=weights, output_bytes=bytes_, writes=writes, reads=reads
    )  # fmt: skip


def columns(*kernels: Kernel) -> dict[str, list[int]]:
    return dict(zip(SURROUNDINGS, surroundings(kernels).T.tolist(), strict=True))


def test_a_network_without_kernels_has_none() -> None:
    assert surroundings(()).shape == (0, len(SURROUNDINGS))


def test_the_first_kernel_reads_what_is_given() -> None:
    found = columns(kernel("a", "x"))
    assert {name: sizes for name, (sizes,) in found.items()} == dict.fromkeys(SURROUNDINGS, 0)


def test_distances_are_bits_of_what_was_moved_since_the_inputs_were_written() -> None:
    found = columns(kernel("a", "x"), kernel("b", "a", bytes_=1000), kernel("c", "b"), kernel("d", "c", "a"))
    assert found["before"] == [0, (100).bit_length(), (1000).bit_length(), (100).bit_length()]
    assert found["nearest"] == [0, 0, 0, 0]
    assert found["farthest"] == [0, 0, 0, (1100).bit_length()]


def test_steps_count_the_kernels_since_the_nearest_input() -> None:
    found = columns(kernel("a", "x"), kernel("b", "x"), kernel("c", "x"), kernel("d", "a"))
    assert found["steps"] == [0, 1, 2, 2]


def test_producers_are_told_apart_by_kind_and_the_size_of_their_work() -> None:
    found = columns(kernel("a", "x", kind="conv", macs=1000), kernel("b", "x"), kernel("c", "a"), kernel("d", "b"))
    assert found["producer"][2] != found["producer"][3] > 0
    assert found["producer_macs"] == [0, 0, (1000).bit_length(), 0]
    assert found["previous"][1] == found["producer"][2]


def test_the_weights_of_all_kernels_surround_each() -> None:
    found = columns(kernel("a", "x", weights=5000), kernel("b", "a", weights=3000))
    assert found["weights"] == [(8000).bit_length()] * 2


def test_a_buffer_that_is_written_again_has_a_new_producer() -> None:
    found = columns(kernel("a", "x"), kernel("b", "x", bytes_=1000), kernel("a", "a"), kernel("c", "a"))
    assert found["farthest"][3] == 0
