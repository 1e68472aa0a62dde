from __future__ import annotations

from typing import Any

import pytest
import torch

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment import execution
from kneepoint.deployment.execution import Execution
from kneepoint.deployment.template import template_of
from kneepoint.deployment.writing import write
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.batches import leaves
from kneepoint.tasks.errors import RunError

NETWORKS = ["residual", "mobile", "sound", "tokens", "twice", "pair", "named"]


def executor(bench: Any, name: str) -> Execution:
    def unpruned(compressed: CompressedNetwork) -> CompressedNetwork:
        found: CompressedNetwork = bench.compressed(name, Policy.build(dict(compressed.policy.student) or "teacher"))
        return found

    return Execution(bench.task(name), unpruned)


@pytest.mark.parametrize("name", NETWORKS)
def test_candidates_of_any_bits_and_width_run_as_they_were_simulated(
    bench: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[str] = []

    def counted(*args: Any, **keywords: Any) -> Any:
        exports.append(name)
        return template_of(*args, **keywords)

    monkeypatch.setattr(execution, "template_of", counted)
    runs, space = executor(bench, name), bench.space(name)
    for setting in (space.uniform(bits=8), space.uniform(bits=4, keep=0.5), space.uniform(bits=32, keep=0.25)):
        compressed = bench.compressed(name, space.policy(setting))
        executed, targets = runs.predict(compressed)
        simulated, expected = bench.task(name).predict(compressed.module)
        assert all(map(torch.equal, leaves(targets), leaves(expected)))
        for first, second in zip(leaves(executed), leaves(simulated), strict=True):
            assert (first - second).norm() <= 0.01 * second.norm()
    assert exports == [name]  # once for all of them


def test_a_template_of_one_width_refuses_another(bench: Any) -> None:
    template = template_of(bench.compressed("residual", "8"), bench.task("residual").example_input)
    with pytest.raises(ValueError, match="serves no other width"):
        write(template, bench.compressed("residual", "pruned"))


def test_students_have_templates_of_their_own(bench: Any) -> None:
    runs = executor(bench, "residual")
    for how in ("8", "student"):
        compressed = bench.compressed("residual", how)
        executed, _ = runs.predict(compressed)
        simulated, _ = bench.task("residual").predict(compressed.module)
        torch.testing.assert_close(executed, simulated, rtol=1e-2, atol=1e-2)


def test_kernels_that_compute_something_else_are_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "answer", lambda session, inputs, like: like + 1.0)
    with pytest.raises(RunError, match=r"must compute what the simulator does.*use measure='simulator'"):
        executor(bench, "sound").predict(bench.compressed("sound", "8"))
