from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kneepoint.deployment.calibration.executed import TimedNode, pair, read_profile, steady_mean
from kneepoint.hardware_models.kernels import Kernel


def kernel(kind: str, elements: int, layout: str = "") -> Kernel:
    return Kernel(kind, kind, "fp32", elements=elements, layout=layout)  # type: ignore[arg-type]  # any layout


def test_kernels_are_paired_by_family_and_size_in_order() -> None:
    nodes = [TimedNode("", "Add", 10, 1.0), TimedNode("", "Conv", 10, 2.0), TimedNode("", "Add", 10, 3.0)]
    pairs = pair([kernel("conv", 10), kernel("add", 10), kernel("add", 10)], nodes)
    assert [(place, node.microseconds) for place, node in pairs] == [(0, 2.0), (1, 1.0), (2, 3.0)]


def test_channels_that_fill_up_a_block_do_not_keep_a_kernel_from_its_node() -> None:
    nodes = [TimedNode("", "Conv", 160, 1.0)]
    assert len(pair([kernel("conv", 100, "blocked")], nodes)) == 1
    assert pair([kernel("conv", 100)], nodes) == []


def test_names_decide_where_sizes_do_not() -> None:
    wide, narrow = (replace(kernel("conv", 10), operators=(name,)) for name in ("Conv3", "Conv7"))
    nodes = [TimedNode("Conv7_nchwc", "Conv", 10, 1.0), TimedNode("Conv3_nchwc", "Conv", 10, 9.0)]
    assert [node.microseconds for _, node in pair([wide, narrow], nodes)] == [9.0, 1.0]


def test_where_counts_differ_nothing_is_paired() -> None:
    assert pair([kernel("add", 10), kernel("add", 10)], [TimedNode("", "Add", 10, 1.0)]) == []


def test_a_profile_gives_each_node_its_steady_mean_and_the_half_microsecond_that_was_cut_off(tmp_path: Path) -> None:
    def event(duration: int) -> str:
        shapes = '[{"float": [1, 4, 5]}]'
        facts = f'"op_name": "Relu", "output_type_shape": {shapes}, "input_type_shape": {shapes}'
        return f'{{"cat": "Node", "name": "relu_kernel_time", "dur": {duration}, "args": {{{facts}}}}}'

    file = tmp_path / "profile.json"
    file.write_text(f"[{', '.join(map(event, [900, 800, 3, 3, 3, 3, 3, 70]))}]")
    assert read_profile(file) == [TimedNode("relu", "Relu", 20, 3.5)]


def test_interruptions_do_not_reach_a_steady_mean() -> None:
    assert steady_mean([10.0] * 8 + [500.0, 900.0]) == 10.0
    assert steady_mean([7.0]) == 7.0
