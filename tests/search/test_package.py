"""The package imports nothing heavy, and still gives its names."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

search = importlib.import_module("kneepoint.search")  # a callable, for the type checker

LIGHT = """
import sys
import kneepoint.search
heavy = [name for name in ("torch", "optuna", "pandas", "onnx", "moocore") if name in sys.modules]
assert not heavy, heavy
import kneepoint
assert callable(kneepoint.search)
assert "optuna" not in sys.modules
from kneepoint.search import KneepointSampler
assert kneepoint.search.KneepointSampler is KneepointSampler
"""


def test_importing_it_is_light_and_names_survive_being_callable() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_every_public_name_is_there() -> None:
    for name in search.__all__:
        assert getattr(search, name).__name__ == name
        assert name in dir(search)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'kneepoint.search' has no attribute 'Frnt'"):
        _ = search.Frnt
