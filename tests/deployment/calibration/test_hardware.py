from __future__ import annotations

from pathlib import Path

import pytest

from kneepoint.deployment.calibration import hardware


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [("flags : fpu sse2 avx avx512_vnni", False), ("flags : fpu sse2 avx2", True), ("Features : fp asimd", False)],
)
def test_sums_of_bytes_saturate_on_x86_without_vnni(tmp_path: Path, flags: str, saturates: bool) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    assert hardware.saturates(tmp_path / "cpuinfo") is saturates


def test_what_the_system_does_not_say_is_not_known(tmp_path: Path) -> None:
    assert hardware.saturates(tmp_path / "nowhere") is None
    assert hardware.caches(5.0, tmp_path) == ()


def test_caches_never_get_faster_as_they_grow(tmp_path: Path) -> None:
    for index, (kind, size) in enumerate([("Data", "32K"), ("Instruction", "64K"), ("Unified", "1024K")]):
        level = tmp_path / f"index{index}"
        level.mkdir()
        (level / "type").write_text(kind)
        (level / "size").write_text(size)
    levels = hardware.caches(0.001, tmp_path)
    assert [level.kb for level in levels] == [32, 1024]
    assert levels[0].bandwidth_gb_s >= levels[1].bandwidth_gb_s > 0.001


def test_main_memory_is_there() -> None:
    assert hardware.main_memory_mb() > 100
