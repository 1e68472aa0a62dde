"""The picture of predicted against measured latencies."""

from __future__ import annotations

import pandas as pd

from benchmarks.hardware_models_picture import COLUMN, picture

PNG = b"\x89PNG\r\n\x1a\n"


def frame(factor: float) -> pd.DataFrame:
    measured = [20.0, 500.0, 9000.0]
    return pd.DataFrame({
        "family": ["ResNet", "tiny", "ViT"],
        "measured_us": measured,
        COLUMN: [factor * value for value in measured],
    })  # fmt: skip


def test_a_picture_is_a_png_of_what_was_found() -> None:
    close, far = picture(frame(1.02)), picture(frame(3.0))
    assert close.startswith(PNG)
    assert far.startswith(PNG)
    assert close != far
