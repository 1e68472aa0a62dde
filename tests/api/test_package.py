from __future__ import annotations

import subprocess
import sys

import pytest

import kneepoint as kp


def test_every_public_name_loads() -> None:
    assert all(getattr(kp, name) is not None for name in kp.__all__)
    assert set(kp.__all__) <= set(dir(kp))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = kp.serach


@pytest.mark.parametrize("before", ["", "import kneepoint.search.front", "from kneepoint.search import Front"])
def test_search_is_a_room_and_a_call(before: str) -> None:
    code = f"{before}\nimport kneepoint as kp\nfrom kneepoint.search.record import Record\nassert callable(kp.search)\n"
    subprocess.run([sys.executable, "-c", code], check=True)
