"""``kneepoint devices validate``."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from kneepoint.command_line import app

RUNNER = CliRunner()


def test_a_device_against_what_was_published() -> None:
    shown = RUNNER.invoke(app, ["devices", "validate", "stm32l4r5"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "MLPerf-Tiny IC" in shown.stdout
    assert "left out" in shown.stdout


def test_the_same_as_json() -> None:
    shown = RUNNER.invoke(app, ["devices", "validate", "stm32l4r5", "--json"])
    facts = json.loads(shown.stdout)
    assert facts["device"] == "stm32l4r5"
    assert {entry["predictions"] for entry in facts["judgements"]} >= {"shipped", "energy"}


def test_a_device_without_published_latencies_gets_one_line() -> None:
    shown = RUNNER.invoke(app, ["devices", "validate", "x86-server"])
    assert shown.exit_code == 2
    assert "names no published latencies" in shown.stderr
    assert shown.stdout == ""
