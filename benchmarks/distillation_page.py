"""The page of distillation.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def write_page(results: Mapping[str, Any]) -> None:
    """Write docs/distillation.md."""
