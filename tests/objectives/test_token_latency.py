from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from kneepoint.hardware_models import CostModel, Workload, load_device
from kneepoint.objectives import LatencyPerToken, View, objective_named
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.errors import ObjectiveError
from kneepoint.tasks.task import Task

WIDTH, WORDS, TEXT = 256, 512, 64


class Reader(nn.Module):
    """A decoder in what is priced of it: every weight is read once for a token, however long the text is."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        logits: Tensor = self.head(x + self.down(torch.relu(self.up(x))))
        return logits


class Step(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, ids: Tensor) -> Any:
        return self.inner(ids)


def one_token(model: nn.Module) -> tuple[nn.Module, Any]:
    return Step(model), torch.zeros(1, 1, dtype=torch.long)


def other_weights(_: nn.Module) -> tuple[nn.Module, Any]:
    return one_token(Reader())


@pytest.fixture(scope="module")
def task() -> Task:
    ids = torch.zeros(2, TEXT, dtype=torch.long)
    return Task(Reader().eval(), ids[:1], [(ids, ids)], [(ids, ids)])


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return Network(task.model, task.example_input)


def view(task: Task, network: Network, how: str) -> View:
    layers = {name: layer.admit(LayerPolicy.parse(how)) for name, layer in network.layers.items()}
    return View(task, Policy.build(layers=layers), network, None, None)


def test_a_token_costs_what_the_network_of_one_token_costs(task: Task, network: Network) -> None:
    device = load_device("x86-server")
    step, inputs = one_token(task.model)
    policy = Policy.build(layers={f"inner.{name}": LayerPolicy(4, 8, True, 32) for name in ("up", "down", "head")})
    policy = Policy.build(layers=dict(policy.layers) | {"inner.words": LayerPolicy(4, None, group_size=32)})
    expected = CostModel(device).cost(Workload.of(lower(Network(step, inputs), policy), device.fusion))
    score = LatencyPerToken(device, step=one_token).score(view(task, network, "w4a8-dynamic-g32"))
    assert (score.value, score.error) == (expected.latency_ms, expected.latency_ms_error)


def test_a_token_is_priced_by_its_bytes_and_a_text_by_its_arithmetic(task: Task, network: Network) -> None:
    objective = LatencyPerToken("x86-server", step=one_token)
    device = objective.hardware
    full, packed = (objective.score(view(task, network, how)).value for how in ("w32", "w4a8-dynamic-g32"))
    assert full > 2.5 * packed
    text = {how: view(task, network, how).cost(device) for how in ("w32", "w4a8-dynamic-g32", "w8-g32")}
    linear = {how: [kernel for kernel in cost.kernels if kernel.kind == "linear"] for how, cost in text.items()}
    assert sum(kernel.latency_ms for kernel in linear["w4a8-dynamic-g32"]) > sum(k.latency_ms for k in linear["w32"])
    unpacked = objective.score(view(task, network, "w8-g32")).value  # its kernel makes floats of all weights first
    assert unpacked > 4 * full


def test_it_is_named_by_device_and_context(task: Task) -> None:
    objective = objective_named("token_latency_ms/context-32@x86-server", task)
    assert isinstance(objective, LatencyPerToken)
    assert (objective.context, objective.device, objective.name) == (
        32,
        "x86-server",
        "token_latency_ms/context-32@x86-server",
    )
    assert LatencyPerToken("x86-server").name == "token_latency_ms/context-256@x86-server"


def test_it_travels_without_its_trace(task: Task, network: Network) -> None:
    objective = LatencyPerToken("x86-server", step=one_token)
    score = objective.score(view(task, network, "w32"))
    assert objective.network(task.model) is objective.network(task.model)
    again = pickle.loads(pickle.dumps(objective))  # noqa: S301 - it was written a line ago
    assert again._network is None
    assert again.score(view(task, network, "w32")) == score


def test_what_it_refuses(task: Task, network: Network) -> None:
    with pytest.raises(ObjectiveError, match="a context of at least 1 token; got 0"):
        LatencyPerToken("x86-server", context=0)
    with pytest.raises(ObjectiveError, match="is called token_latency_ms/context-256@DEVICE; got 'token_latency_ms@x'"):
        LatencyPerToken.named("token_latency_ms@x")
    with pytest.raises(ObjectiveError, match="none with the weight of 'down'; let it share"):
        LatencyPerToken("x86-server", step=other_weights).score(view(task, network, "w4-g32"))
    student = View(task, Policy.build({"width": 0.5}), network, None, None)
    with pytest.raises(ObjectiveError, match="search with students=None"):
        LatencyPerToken("x86-server", step=one_token).score(student)


def test_heads_go_with_their_part_of_the_cache() -> None:
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=4,
        use_cache=False,
    )
    ids = torch.zeros(2, 8, dtype=torch.long)
    model: torch.nn.Module = LlamaForCausalLM(config)
    task = Task(model.eval(), {"input_ids": ids[:1]}, [(ids, ids)], [(ids, ids)])
    network, priced = Network(task.model, task.example_input), LatencyPerToken("x86-server", context=2000)
    heads = {"model.layers.0.self_attn.q_proj": 4}
    assert heads.items() <= network.groups.items() == priced.network(task.model).groups.items()
    whole, half = (
        priced.score(View(task, Policy.build(keep=dict.fromkeys(heads, keep)), network, None, None)).value
        for keep in (1.0, 0.5)
    )
    assert half < 0.85 * whole  # much of what is read is the cache


def test_a_step_without_the_model_s_channel_groups_is_refused(task: Task, network: Network) -> None:
    thinned = View(task, Policy.build(keep={"up": 0.5}), network, None, None)
    with pytest.raises(ObjectiveError, match="this one has no 'up'; let it name its modules as the model does, or"):
        LatencyPerToken("x86-server", step=one_token).score(thinned)
