"""The published figures that ship."""

from __future__ import annotations

import math

from kneepoint.hardware_models.published.latencies import published_latencies


def test_every_figure_has_a_device_a_network_and_a_document() -> None:
    rows = published_latencies()
    assert len(rows) > 4000
    for row in rows:
        assert row.device
        assert row.network
        assert row.source
        assert row.url.startswith("https://")
        assert math.isfinite(row.latency_ms)
        assert row.latency_ms > 0
        assert row.quality in "ABC"


def test_watts_were_measured_on_some() -> None:
    watts = [row.power_w for row in published_latencies() if row.power_w is not None]
    assert len(watts) > 500
    assert all(0.001 < value < 3000 for value in watts)
