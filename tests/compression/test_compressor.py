from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kneepoint.compression import compressor as compressor_module
from kneepoint.compression import student_training
from kneepoint.compression.compressed import CompressedNetwork, with_tensors
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import Distillation, begin_distillation
from kneepoint.compression.pruning import kept_channels, ranker
from kneepoint.compression.ranges import RangeMethod, observe
from kneepoint.compression.settings import CompressionSettings, QuantizationSettings
from kneepoint.compression.statistics import input_statistics
from kneepoint.compression.student_store import StudentStore, store_tensors
from kneepoint.spaces.joint_space import joint_space
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.students import describe
from kneepoint.spaces.tracing import tensors_of
from kneepoint.tasks.errors import JobFailed, RunError, SpaceError, TaskError
from kneepoint.tasks.seeding import digest_seed
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import Training

CompressorOf = Callable[..., Compressor]


def is_plain_half(member: Mapping[str, Any]) -> bool:
    return member.get("width") == 0.5 and member.get("depth", 1.0) == 1.0 and not member.get("separable")


def policies(compressor: Compressor) -> dict[str, Policy]:
    space = compressor.space
    half = next(member for member in space.members.values() if is_plain_half(member))
    return {
        "float": Policy.build(),
        "8": space.policy(space.uniform(bits=8)),
        "4 pruned": space.policy(space.uniform(bits=4, keep=0.5)),
        "student": Policy.build(half),
        "student 8 pruned": space.policy(space.uniform(describe(half), 8, 0.5)),
        "other student": Policy.build({"width": 0.25}),
    }


def content(compressed: CompressedNetwork) -> dict[str, Tensor]:
    scales = {
        f"scale of {key}": quant.scale for key, quant in compressed.plan.weights.items() if quant.scale is not None
    }
    return {**tensors_of(compressed.folded), **scales, **{f"kept {key}": rows for key, rows in compressed.kept.items()}}


def assert_same(a: CompressedNetwork, b: CompressedNetwork) -> None:
    assert a.plan.activations == b.plan.activations
    first, second = content(a), content(b)
    assert first.keys() == second.keys()
    assert [key for key, value in first.items() if not torch.equal(value, second[key])] == []


def test_networks_depend_on_the_seed_and_not_on_what_was_made_before(compressor_of: CompressorOf) -> None:
    one, other = compressor_of("vision", folder="one"), compressor_of("vision", folder="other")
    wanted = policies(one)
    first = {key: one.compress(policy) for key, policy in wanted.items()}
    first["recovered"] = one.recover(first["8"])
    second = {"recovered": other.recover(other.compress(wanted["8"]))}
    torch.manual_seed(99)
    second.update({key: other.compress(policy) for key, policy in reversed(wanted.items())})
    for key, compressed in first.items():
        assert_same(compressed, second[key])


def test_another_seed_gives_other_students_and_leaves_the_first_ones_alone(compressor_of: CompressorOf) -> None:
    one = compressor_of("vision", 0)
    student = policies(one)["student"]
    before = {key: value.clone() for key, value in content(one.compress(student)).items()}
    other = compressor_of("vision", 1).compress(student)
    assert any(not torch.equal(value, before[key]) for key, value in content(other).items())
    again = content(one.compress(student))
    assert all(torch.equal(value, before[key]) for key, value in again.items())
    pruned = Policy.build({"width": 0.5}, {"stem": 0.5})
    assert_same(one.compress(pruned), compressor_of("vision", 0).compress(pruned))


def test_the_teacher_is_never_changed(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    before = {key: value.clone() for key, value in compressor.task.model.state_dict().items()}
    for policy in policies(compressor).values():
        compressor.recover(compressor.compress(policy))
    assert all(torch.equal(value, before[key]) for key, value in compressor.task.model.state_dict().items())
    assert not compressor.task.model.training


def test_students_are_trained_once(compressor_of: CompressorOf, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*args: Any) -> Training:
        calls.append(1)
        return begin_distillation(*args)

    monkeypatch.setattr(student_training, "begin_distillation", counted)
    first = compressor_of("vision")
    student = policies(first)["student"]
    for policy in (student, policies(first)["student 8 pruned"], student):
        first.compress(policy)
    assert len(calls) == 1
    second = compressor_of("vision")  # another process, on the same folder
    assert_same(second.compress(student), first.compress(student))
    second.compress(Policy.build({"width": 0.25}))
    assert len(calls) == 2


def test_a_student_is_measured_with_its_statistics_and_not_with_the_batch(compressor_of: CompressorOf) -> None:
    module = compressor_of("vision").compress(Policy.build({"width": 0.5})).module
    x = torch.randn(6, 1, 8, 8)
    torch.testing.assert_close(module(x)[:1], module(x[:1]))


def test_a_pruned_network_has_the_channels_it_kept(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    compressed = compressor.compress(Policy.build(keep={"late": 0.5}))
    assert compressed.kept.keys() == {"late"}
    assert tensors_of(compressed.folded)["late.weight"].shape == (3, 8, 3, 3)
    network = compressor.space.teacher
    rank = ranker(compressor.task, network, compressor.settings.importance, digest_seed("importance", 0))
    ranking = rank(network.tensors(), compressor.compress(Policy.build()).folded)
    kept = kept_channels(network, compressed.policy, ranking)
    assert torch.equal(kept["late"], compressed.kept["late"])


def test_recovery_learns(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    compressor.settings = replace(compressor.settings, float_share=0.0)
    before = compressor.compress(policies(compressor)["4 pruned"])
    reports: list[tuple[str, int, int]] = []
    after = compressor.recover(before, lambda *report: reports.append(report))
    assert reports[-1] == ("recovering", 4, 4)
    assert all(after.plan.weights[layer].scale is quant.scale for layer, quant in before.plan.weights.items())
    changed = [key for key, value in tensors_of(after.folded).items() if not torch.equal(value, content(before)[key])]
    assert "head.weight" in changed
    assert "before.running_mean" not in changed
    after_names = [node.name for node in after.folded.graph.nodes]
    assert after_names == [node.name for node in before.folded.graph.nodes]


def test_networks_of_one_graph_do_not_share_it(compressor_of: CompressorOf) -> None:
    compressed = compressor_of("vision").compress(Policy.build())
    other = with_tensors(compressed.folded, {"head.weight": torch.zeros(3, 12)})
    assert other.graph is not compressed.folded.graph
    x = torch.randn(2, 1, 8, 8)
    before = compressed.folded(x)
    for node in list(other.graph.nodes):
        if node.name.startswith("relu"):
            node.replace_all_uses_with(node.args[0])
            other.graph.erase_node(node)
    other.recompile()
    compressed.folded.recompile()
    assert torch.equal(compressed.folded(x), before)


@pytest.mark.parametrize("key", ["float", "8", "4 pruned", "student 8 pruned"])
def test_saving_and_loading_is_exact(name: str, key: str, compressor_of: CompressorOf, tmp_path: Path) -> None:
    compressor = compressor_of(name)
    compressed = compressor.compress(policies(compressor)[key])
    sha = compressed.save(tmp_path)
    loaded = CompressedNetwork.load(tmp_path, sha, compressed.policy, compressed.network)
    assert_same(loaded, compressed)
    for ours, expected in zip(*(outputs(compressor, entry.module) for entry in (loaded, compressed)), strict=True):
        assert torch.equal(ours, expected)
    assert compressed.save(tmp_path) == sha
    assert loaded.save(tmp_path) == sha


def outputs(compressor: Compressor, module: nn.Module) -> list[Tensor]:
    return list(torch.utils._pytree.tree_leaves(compressor.task.predict(module)[0]))


def test_loading_refuses_what_is_not_the_candidate(compressor_of: CompressorOf, tmp_path: Path) -> None:
    compressor = compressor_of("vision")
    compressed = compressor.compress(policies(compressor)["8"])
    sha = compressed.save(tmp_path)
    other = Policy.build(layers={"head": LayerPolicy.of_bits(8)})
    with pytest.raises(RunError, match=f"holds another policy than candidate {other.id}"):
        CompressedNetwork.load(tmp_path, sha, other, compressed.network)
    weights = store_tensors(tmp_path, {"a": torch.ones(2)})
    with pytest.raises(RunError, match="holds another policy than candidate"):
        CompressedNetwork.load(tmp_path, weights, compressed.policy, compressed.network)
    with pytest.raises(RunError, match=r"named by a SHA-256; got '\.\./\.\./secret'"):
        CompressedNetwork.load(tmp_path, "../../secret", compressed.policy, compressed.network)
    path = tmp_path / f"{sha}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="changed or damaged"):
        CompressedNetwork.load(tmp_path, sha, compressed.policy, compressed.network)
    path.unlink()
    with pytest.raises(RunError, match="is missing"):
        CompressedNetwork.load(tmp_path, sha, compressed.policy, compressed.network)


def test_a_damaged_student_is_an_error_and_not_another_training(compressor_of: CompressorOf, tmp_path: Path) -> None:
    student = Policy.build({"width": 0.5})
    compressor_of("vision").compress(student)
    (weights,) = (tmp_path / "students").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(RunError, match="changed or damaged; delete it and resume the run"):
        compressor_of("vision").compress(student)


@pytest.mark.parametrize("change", [{"head.weight": torch.ones(1)}, {"head.weight": None}])
def test_weights_of_another_student_are_refused(
    change: Mapping[str, Tensor | None], compressor_of: CompressorOf
) -> None:
    compressor = compressor_of("vision")
    key = f"width=0.5 seed=0 {compressor.settings.student}"
    module = compressor.space.students.make({"width": 0.5}, 0)  # type: ignore[union-attr]  # it has students
    changed = {**module.state_dict(), **change}
    compressor.store.store(key, {name: value for name, value in changed.items() if value is not None})
    with pytest.raises(RunError, match=r"student width=0.5 do not fit its network \(head.weight\)"):
        compressor.compress(Policy.build({"width": 0.5}))


def test_a_policy_of_another_network_is_refused(compressor_of: CompressorOf) -> None:
    with pytest.raises(SpaceError, match="it has no layer 'nobody'"):
        compressor_of("vision").compress(Policy.build(layers={"nobody": LayerPolicy.of_bits(8)}))


def test_a_compressor_pickles_without_its_traces(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    policy = policies(compressor)["student 8 pruned"]
    before = compressor.compress(policy)
    again = pickle.loads(pickle.dumps(compressor))  # noqa: S301 - what the test itself pickled
    assert_same(again.compress(policy), before)


def test_data_without_batches_cannot_calibrate(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(1, 3)
    space = joint_space(Task(model, x, [], [(x, torch.zeros(1))]), students=None)
    with pytest.raises(TaskError, match="train: the loader is empty, and calibration needs at least one batch"):
        Compressor(space, StudentStore(tmp_path)).compress(space.policy(space.uniform(bits=8)))


def test_calibration_takes_whole_batches_until_it_has_enough(
    compressor_of: CompressorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(batch) for batch in compressor_of("vision")._calibration_inputs()] == [24]  # small: one batch of all
    monkeypatch.setattr(compressor_module, "_LARGEST_BATCH", 100)
    assert [len(batch) for batch in compressor_of("vision")._calibration_inputs()] == [8, 8, 8]


def test_ranges_found_on_the_way_are_those_of_the_pruned_network(
    compressor_of: CompressorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policies(compressor_of("vision"))["4 pruned"]
    one_pass = compressor_of("vision").compress(policy)
    observed = observe(one_pass.graph, list(one_pass.plan.activations), compressor_of("vision")._calibration_inputs())
    for name, quant in one_pass.plan.activations.items():
        assert quant.scale == pytest.approx(observed[name].quant("minmax", 8).scale, rel=0.05)
    monkeypatch.setattr(compressor_module, "_LARGEST_BATCH", 100)
    two_passes = compressor_of("vision").compress(policy)
    assert two_passes.plan.activations.keys() == one_pass.plan.activations.keys()


def formats(compressor: Compressor, name: str) -> Policy:
    layers = compressor.space.teacher.layers
    return Policy.build(layers={key: layer.admit(LayerPolicy.parse(name)) for key, layer in layers.items()})


def test_policies_that_differ_in_bits_alone_share_what_they_can(
    compressor_of: CompressorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressor = compressor_of("vision")
    first = compressor.compress(formats(compressor, "w4a8"))
    for name in ("cut", "fold", "reestimate"):  # nothing of this happens again
        monkeypatch.setattr(compressor_module, name, None)
    again = compressor.compress(formats(compressor, "w4a8"))
    mixed = compressor.compress(Policy.build(layers={"late": LayerPolicy.of_bits(4), "head": LayerPolicy.of_bits(8)}))
    assert again.graph is mixed.graph is first.graph
    assert again.tensors["late.weight"] is mixed.tensors["late.weight"] is first.tensors["late.weight"]


def test_learned_rounding_is_nearer_than_rounding_to_nearest(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    expected = outputs(compressor, compressor.task.model)[0]
    plain = QuantizationSettings(learned_bits=0, bias_correction=False)
    compressor.settings = replace(compressor.settings, quantization=plain)
    nearest = outputs(compressor, compressor.compress(formats(compressor, "w3a8")).module)[0]
    other = compressor_of("vision")
    learned = outputs(other, other.compress(formats(other, "w3a8")).module)[0]
    assert (learned - expected).norm() < 0.8 * (nearest - expected).norm()


def test_equalization_changes_weights_and_not_the_float_function(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    compressor.settings = replace(compressor.settings, quantization=QuantizationSettings(equalization=True))
    compressed = compressor.compress(Policy.build())
    for ours, expected in zip(
        outputs(compressor, compressed.module), outputs(compressor, compressor.task.model), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_ranges_by_another_method_are_no_wider(method: RangeMethod, compressor_of: CompressorOf) -> None:
    compressor, other = compressor_of("vision"), compressor_of("vision")
    other.settings = replace(other.settings, quantization=QuantizationSettings(activation_range=method))
    policy = formats(compressor, "w8a8")
    widest, narrower = (made.compress(policy).plan.activations for made in (compressor, other))
    pairs = [(narrower[name].scale, quant.scale) for name, quant in widest.items()]
    assert all(ours is not None and theirs is not None and ours <= theirs * 1.01 for ours, theirs in pairs)


def test_a_residual_block_is_left_out(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    (block,) = compressor.space.teacher.blocks
    compressed = compressor.compress(Policy.build(keep={f"block:{block}": 0.0, "late": 0.5}))
    assert "project" not in compressed.network.layers
    assert tensors_of(compressed.folded)["late.weight"].shape == (3, 8, 3, 3)
    assert torch.isfinite(outputs(compressor, compressed.module)[0]).all()


@pytest.mark.parametrize("how", ["w8a8-2:4", "w32-50%", "w4-90%"])
def test_zeros_stay_zeros_through_recovery(how: str, compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    before = compressor.compress(formats(compressor, how))
    after = compressor.recover(before)
    for layer in before.plan.weights:
        name = before.network.layers[layer].weight
        assert torch.equal(before.state[name] == 0, after.state[name] == 0)
    share = (before.state["late.weight"] == 0).float().mean()
    assert share >= {"w8a8-2:4": 0.5, "w32-50%": 0.5, "w4-90%": 0.9}[how] - 0.01


def test_pruning_in_stages_reaches_the_same_width(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    compressor.settings = replace(compressor.settings, pruning_steps=2)
    pruned = compressor.compress(policies(compressor)["4 pruned"])
    recovered = compressor.recover(pruned)
    assert {group: len(rows) for group, rows in recovered.kept.items()} == {
        group: len(rows) for group, rows in pruned.kept.items()
    }
    assert torch.isfinite(outputs(compressor, recovered.module)[0]).all()


@pytest.mark.parametrize(("share", "floats"), [(0.0, 0), (0.5, 2), (1.0, 3)])
def test_a_pruned_network_learns_in_floats_first(share: float, floats: int, compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    compressor.settings = replace(compressor.settings, float_share=share)
    pruned = compressor.compress(policies(compressor)["4 pruned"])
    reports: list[tuple[str, int, int]] = []
    recovered = compressor.recover(pruned, lambda *report: reports.append(report))
    assert [what for what, _, _ in reports] == ["training in floats"] * floats + ["recovering"] * (4 - floats)
    assert recovered.kept == pruned.kept
    reports.clear()
    compressor.recover(compressor.compress(policies(compressor)["8"]), lambda *report: reports.append(report))
    assert [what for what, _, _ in reports] == ["recovering"] * 4  # nothing was cut
    reports.clear()
    text = compressor_of("text", folder="text")
    text.recover(text.compress(policies(text)["4 pruned"]), lambda *report: reports.append(report))
    assert [what for what, _, _ in reports] == ["recovering"] * 4  # nothing was folded


class Grouped(nn.Module):
    """Convolutions with groups, among them a depthwise one that makes two channels of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.twins = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.grouped(torch.relu(self.twins(torch.relu(self.stem(x))))))
        return self.head(x.mean((2, 3)))


def compressor_for(model: nn.Module, inputs: Tensor, folder: Path, **settings: Any) -> Compressor:
    batches = [(inputs, torch.randint(0, 3, (len(inputs),)))]
    space = joint_space(Task(model.eval(), inputs[:1], batches, batches), students=None)
    return Compressor(space, StudentStore(folder), settings=CompressionSettings(**settings))


@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_statistics_of_convolutions_with_groups_are_cut_with_them(keep: float, tmp_path: Path) -> None:
    compressor = compressor_for(Grouped(), torch.randn(8, 1, 6, 6), tmp_path)
    policy = compressor.space.policy(compressor.space.uniform(bits=4, keep=keep))
    prepared = compressor._prepare(policy, None)
    measured = input_statistics(prepared.network, prepared.folded, compressor._calibration_inputs())
    for name, known in prepared._statistics.items():
        assert known.mean.shape == measured[name].mean.shape
    assert torch.isfinite(outputs(compressor, compressor.compress(policy).module)[0]).all()


def test_a_bias_that_several_layers_add_is_left_as_it_is(tmp_path: Path) -> None:
    first, second, head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
    second.bias = first.bias
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), head)
    compressor = compressor_for(model, torch.randn(16, 4), tmp_path)
    compressed = compressor.compress(formats(compressor, "w2a8"))
    (shared,) = {"0.bias", "2.bias"} & compressed.state.keys()
    assert torch.equal(compressed.state[shared], first.bias)
    assert not torch.equal(compressed.state["4.bias"], head.bias)


def test_staged_pruning_equalizes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*_: Any) -> dict[str, Tensor]:
        calls.append(1)
        return {}

    monkeypatch.setattr(compressor_module, "equalize", counted)
    settings = {"quantization": QuantizationSettings(equalization=True), "pruning_steps": 2}
    compressor = compressor_for(
        Grouped(), torch.randn(8, 1, 6, 6), tmp_path, recovery=Distillation(2, 1e-3), **settings
    )
    pruned = compressor.compress(compressor.space.policy(compressor.space.uniform(bits=8, keep=0.5)))
    compressor.recover(pruned)
    assert len(calls) == 2


def test_a_layer_that_reads_infinities_may_stay_in_float(tmp_path: Path) -> None:
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Any:
            return torch.relu(self.b(self.a(x) * 1e30 * 1e30)).clamp(0, 1)

    compressor = compressor_for(Overflow(), torch.randn(16, 4), tmp_path)
    fine = compressor.compress(Policy.build(layers={"a": LayerPolicy.parse("w4"), "b": LayerPolicy.parse("w16")}))
    assert fine.plan.weights["a"].scale is not None
    with pytest.raises(JobFailed, match="only a finite range can be quantized"):
        compressor.compress(formats(compressor, "w8a8"))
