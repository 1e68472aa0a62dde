from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment import execution
from kneepoint.deployment.execution import Execution
from kneepoint.deployment.runtime import kernel_counts
from kneepoint.deployment.template import template_of
from kneepoint.deployment.writing import write
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.batches import leaves
from kneepoint.tasks.errors import JobFailed

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


@pytest.mark.parametrize("name", ["attention", "residual"])
def test_a_recovered_candidate_runs_with_what_it_learned(bench: Any, name: str) -> None:
    runs, compressor = executor(bench, name), bench.compressor(name)
    runs.predict(bench.compressed(name, "8"))
    recovered = compressor.recover(bench.compressed(name, "8"))
    executed, _ = runs.predict(recovered)
    simulated, _ = bench.task(name).predict(recovered.module)
    assert (executed - simulated).norm() <= 1e-3 * simulated.norm()


def test_every_architecture_is_checked_where_it_first_runs_on_integers(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []

    def counted(first: torch.Tensor, second: torch.Tensor) -> float:
        checked.append(1)
        return 0.0

    monkeypatch.setattr(execution, "deviation", counted)
    runs = executor(bench, "sound")
    for how in ("fp32", "8", "4"):
        runs.predict(bench.compressed("sound", how))
    assert len(checked) == 1


def test_networks_with_sizes_written_into_them_are_exported_once_and_simulated_where_they_are_pruned(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[int] = []

    def stiff(*args: Any, **keywords: Any) -> Any:
        exports.append(1)
        return replace(template_of(*args, **keywords), any_width=False)

    monkeypatch.setattr(execution, "template_of", stiff)
    runs, space = executor(bench, "sound"), bench.space("sound")
    for keep in (0.5, 0.25, 1.0):
        compressed = bench.compressed("sound", space.policy(space.uniform(bits=8, keep=keep)))
        executed, _ = runs.predict(compressed)
        simulated, _ = bench.task("sound").predict(compressed.module)
        torch.testing.assert_close(executed, simulated, rtol=1e-3, atol=1e-3)
    assert len(exports) == 1


@pytest.mark.parametrize("name", ["residual", "mobile"])
def test_an_artifact_to_be_timed_has_the_kernels_of_what_is_shipped(bench: Any, name: str) -> None:
    runs = executor(bench, name)
    for how in ("8", "pruned"):
        data = runs.artifact(bench.compressed(name, how))
        assert kernel_counts(data) == kernel_counts(bench.export(name, how).data)


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
    with pytest.raises(JobFailed, match=r"must compute what the simulator does.*use measure='simulator'"):
        executor(bench, "sound").predict(bench.compressed("sound", "8"))
