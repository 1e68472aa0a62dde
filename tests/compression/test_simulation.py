from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.quantizers import fake_quantize_activation
from kneepoint.compression.simulation import trainable_simulation
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.tracing import tensors_of

SpaceOf = Callable[[str], JointSpace]
CompressorOf = Callable[..., Compressor]


def uniform(compressor: Compressor, bits: int, keep: float = 1.0) -> CompressedNetwork:
    return compressor.compress(compressor.space.policy(compressor.space.uniform(bits=bits, keep=keep)))


def outputs_of(space: JointSpace, module: nn.Module) -> list[Tensor]:
    outputs, _ = space.task.predict(module)
    return list(torch.utils._pytree.tree_leaves(outputs))


def test_thirty_two_bits_are_the_float_network(name: str, compressor_of: CompressorOf) -> None:
    compressor = compressor_of(name)
    compressed = uniform(compressor, 32)
    for ours, expected in zip(
        outputs_of(compressor.space, compressed.module),
        outputs_of(compressor.space, compressor.task.model),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_sixteen_bits_round_the_weights_alone(name: str, compressor_of: CompressorOf) -> None:
    compressed = uniform(compressor_of(name), 16)
    before, after = tensors_of(compressed.folded), tensors_of(compressed.module)
    layers = compressed.network.layers.values()
    halves = {layer.weight for layer in layers if layer.kind != "tied"}  # which has 16 bits in no file
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value.half().float() if key in halves else value)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.1), (4, 0.7), (2, 2.5)])
def test_fewer_bits_are_further_away(name: str, bits: int, error: float, compressor_of: CompressorOf) -> None:
    compressor = compressor_of(name)
    space = compressor.space
    ours = outputs_of(space, uniform(compressor, bits).module)[0]
    expected = outputs_of(space, space.task.model)[0]
    assert 0 < (ours - expected).abs().mean() / expected.std() < error


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_training_sees_nearly_what_is_simulated_and_reaches_every_parameter(
    name: str, bits: int, compressor_of: CompressorOf
) -> None:
    compressor = compressor_of(name)
    compressed = uniform(compressor, bits)
    trained = trainable_simulation(compressed.network, compressed.folded, compressed.plan)
    inputs = next(iter(compressor.task.train))[0]
    live = torch.utils._pytree.tree_leaves(compressor.task.call(trained, inputs))
    simulated = torch.utils._pytree.tree_leaves(compressor.task.call(compressed.module, inputs))
    for ours, expected in zip(live, simulated, strict=True):
        assert (ours - expected).abs().mean() <= 0.05 * expected.std()
    sum(output.sum() for output in live).backward()
    learned = dict(trained.named_parameters())
    assert all(parameter.grad is not None for parameter in learned.values())
    own = {key for key, value in compressed.network.tensors().items() if isinstance(value, nn.Parameter)}
    biases = {key for key in tensors_of(compressed.folded) if key not in compressed.network.tensors()}
    assert learned.keys() == (own | biases) & tensors_of(compressed.folded).keys()


def test_quantizers_stand_where_the_plan_says(compressor_of: CompressorOf) -> None:
    compressed = uniform(compressor_of("vision"), 8)
    inserted = [node for node in compressed.module.graph.nodes if node.target is fake_quantize_activation]
    assert {node.args[0].name for node in inserted} == set(compressed.plan.activations)
    for node in inserted:
        readers = [user for user in node.args[0].users if user is not node]
        assert readers == []
    swish = next(node for node in compressed.module.graph.nodes if node.name == "hardswish")
    assert swish.args[0].target is fake_quantize_activation


def test_a_layer_called_twice_has_one_weight_and_a_bias_for_every_call(compressor_of: CompressorOf) -> None:
    compressed = uniform(compressor_of("vision"), 8)
    calls = compressed.network.layers["twice"].operations
    nodes = {node.name: node for node in compressed.module.graph.nodes}
    assert len({str(nodes[call].args[1].target) for call in calls}) == 1
    assert len({str(nodes[call].args[2].target) for call in calls}) == 2


def test_a_layer_that_reads_an_output_computes_in_float(space_of: SpaceOf) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(1, 3, 3)
            self.b = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.a(x)
            return y, self.b(y)

    from kneepoint.compression.student_store import StudentStore
    from kneepoint.spaces.joint_space import joint_space
    from kneepoint.tasks.task import Task

    batches = [(torch.randn(4, 1, 8, 8), torch.zeros(4))]
    task = Task(Both().eval(), batches[0][0][:1], batches, batches, loss=lambda outputs, _: outputs[0].mean())
    space = joint_space(task, students=None)
    compressor = Compressor(space, StudentStore(None))  # type: ignore[arg-type]  # nothing is stored without students
    compressed = compressor.compress(space.policy(space.uniform(bits=8)))
    assert list(compressed.plan.activations) == ["x"]
    ours, expected = compressed.module(batches[0][0]), task.model(batches[0][0])
    assert (ours[1] - expected[1]).abs().max() < 0.1


def test_ranges_cover_the_calibration_data(space_of: SpaceOf, compressor_of: CompressorOf) -> None:
    compressed = uniform(compressor_of("vision"), 8)
    batches = [inputs for inputs, _ in space_of("vision").task.train][:3]
    lowest, highest = float(torch.cat(batches).min()), float(torch.cat(batches).max())
    read = compressed.plan.activations["x"]
    assert read.scale is not None
    assert read.scale == pytest.approx((highest - lowest) / 255, rel=1e-6)
    assert read.zero_point == round(-lowest / read.scale)


def test_mixed_bits(compressor_of: CompressorOf) -> None:
    compressor = compressor_of("vision")
    layers = compressor.space.teacher.layers
    formats = [LayerPolicy.of_bits((2, 4, 8, 16, 32)[i % 5]) for i in range(len(layers))]
    mixed = {name: layer.admit(one) for (name, layer), one in zip(layers.items(), formats, strict=True)}
    compressed = compressor.compress(Policy.build(layers=mixed))
    assert torch.isfinite(compressed.module(torch.randn(2, 1, 8, 8))).all()
