from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import conformance
from benchmarks.conformance_networks import USER_WRITTEN, Architecture
from benchmarks.conformance_steps import ARCHITECTURES, STEPS, Subject, run


class Sum(nn.Module):
    """It has one layer, and nothing that may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(x)


class Impossible(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x if x.sum() > 0 else -x


def cells(build: Any) -> dict[str, str]:
    return dict(run(Subject(Architecture("tests", build, lambda: torch.randn(1, 4)))))


def test_every_network_has_a_family_and_a_fresh_example() -> None:
    assert len(USER_WRITTEN) >= 25
    assert len(ARCHITECTURES) >= len(USER_WRITTEN) + 6
    assert all(architecture.family for architecture in ARCHITECTURES.values())


def test_a_network_goes_through_every_step() -> None:
    found = dict(run(Subject(USER_WRITTEN["GroupNorm, SiLU"])))
    assert found == dict.fromkeys(STEPS, "yes")


def test_what_does_not_apply_says_why() -> None:
    found = cells(Sum)
    assert found["has groups"] == found["pruned = masked"] == "none: it is an output of the network"
    assert found["traced"] == found["same outputs"] == "yes"


def test_what_is_not_traced_is_a_no_everywhere() -> None:
    found = cells(Impossible)
    assert list(found) == list(STEPS)
    assert found["traced"].startswith("no: SpaceError: the model must be traceable")
    assert found["8-bit"] == "no: it needs the step 'traced'"
    assert found["same outputs"] == "no: it needs the step 'loaded'"


def test_a_process_that_hangs_or_dies_leaves_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = 'import time; print(\'{"step": "a", "cell": "yes", "facts": {}}\', flush=True); time.sleep(60)'
    monkeypatch.setattr(conformance, "_STEPS", [sys.executable, "-c", slow])
    found = conformance.take("x", "tests", ["a", "b"], timeout=2.0)
    assert found["cells"] == {"a": "yes", "b": "no: it did not end within 2 s"}
    monkeypatch.setattr(conformance, "_STEPS", [sys.executable, "-c", "import sys; sys.exit('out of memory')"])
    found = conformance.take("x", "tests", ["a"], timeout=20.0)
    assert found["cells"] == {"a": "no: its process ended with code 1: out of memory"}


RESULTS: dict[str, conformance.Result] = {
    "one": {
        "family": "tests",
        "cells": {"traced": "yes", "pruned": "none: no group"},
        "layers": 3,
        "groups": 0,
        "blocks": 2,
    },
    "two": {"family": "tests", "cells": {"traced": "yes", "pruned": "no: KeyError: x"}, "layers": 2, "groups": 1},
    "three": {"family": "more", "cells": {"traced": "yes", "pruned": "none: no group"}},
}


def test_the_page_numbers_every_reason_once() -> None:
    text = conformance.page(RESULTS, {"traced": "It is.", "pruned": "Half."}, {"torch": "1", "onnxruntime": "2"})
    assert "do not edit" in text.splitlines()[2]
    assert "- **pruned**: Half." in text
    assert "3 networks, 6 cells: 3 yes (50.0%)" in text
    assert "| one | 3 | 0 | 2 | yes | none [1] |" in text
    assert "| two | 2 | 1 |  | yes | no [2] |" in text
    assert "| three |  |  |  | yes | none [1] |" in text
    assert text.endswith("1. no group\n2. KeyError: x\n")


def test_results_are_kept_between_calls(tmp_path: Path) -> None:
    known = {"networks": {"one": "tests", "two": "tests"}, "steps": {"traced": "", "pruned": ""}}
    path = tmp_path / "results.json"
    assert conformance._stored(path, known) == {}
    stale = {"family": "tests", "cells": {"traced": "yes"}}
    path.write_text(json.dumps({"results": {**RESULTS, "two": stale}}))
    assert conformance._stored(path, known) == {"one": RESULTS["one"]}


@pytest.mark.parametrize("step", conformance.EQUALITIES)
def test_a_wrong_result_fails_however_many_are_right(step: str) -> None:
    right: conformance.Result = {"family": "tests", "cells": dict.fromkeys(STEPS, "yes")}
    found = {str(number): right for number in range(20)}
    assert conformance._reached({**found, "none": {"cells": {"traced": "yes", step: "none: no group"}}})
    assert not conformance._reached({**found, "wrong": {"cells": {"traced": "yes", step: "no: they differ"}}})


KNOWN = {
    "networks": {"one": "tests", "two": "tests"},
    "steps": {"traced": ""},
    "versions": {"torch": "", "onnxruntime": ""},
}


def test_the_command_runs_what_has_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken = []

    def take(name: str, family: str, steps: list[str], timeout: float) -> conformance.Result:
        taken.append(name)
        return {"family": family, "cells": dict.fromkeys(steps, "yes" if name == "one" else "no: why")}

    monkeypatch.setattr(conformance, "catalogue", lambda: KNOWN)
    monkeypatch.setattr(conformance, "take", take)
    arguments = ["--results", str(tmp_path / "r.json"), "--page", str(tmp_path / "page.md")]
    assert conformance.main([*arguments, "--only", "one"]) == 0
    assert conformance.main(arguments) == 1  # it was not traced
    assert conformance.main(arguments) == 1
    assert taken == ["one", "two"]
    assert conformance.main([*arguments, "--fresh", "--jobs", "1"]) == 1
    assert taken[2:] == ["one", "two"]
    assert "2 networks, 2 cells: 1 yes" in (tmp_path / "page.md").read_text()


def test_the_command_names_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conformance, "catalogue", lambda: KNOWN)
    with pytest.raises(SystemExit, match="2"):
        conformance.main(["--only", "nonsense"])
    assert "there is no network 'nonsense'; there are one, two" in capsys.readouterr().err
