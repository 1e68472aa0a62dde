"""Networks of the Transformers library cost what their artifacts cost: masks, shared keys, norms spelled out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import transformers
from torch import Tensor, nn

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.student_store import StudentStore
from kneepoint.deployment import parity, to_onnx
from kneepoint.hardware_models import FUSION_RULES, fuse, read_onnx
from kneepoint.spaces.joint_space import joint_space
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.task import Task

SIZES: dict[str, Any] = {"vocab_size": 30, "max_position_embeddings": 16}


def distilbert() -> nn.Module:
    config = transformers.DistilBertConfig(**SIZES, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    model: nn.Module = transformers.DistilBertForSequenceClassification(config)
    return model.eval()


def llama() -> nn.Module:
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "use_cache": False}
    config = transformers.LlamaConfig(**SIZES, **shape, num_attention_heads=4, num_key_value_heads=2)
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model.eval()


def gpt2() -> nn.Module:
    shape: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "use_cache": False}
    config = transformers.GPT2Config(vocab_size=30, bos_token_id=0, eos_token_id=0, **shape)
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model.eval()


def batch(samples: int) -> dict[str, Tensor]:
    mask = torch.ones(samples, 6, dtype=torch.long)
    mask[1:, 4:] = 0
    return {"input_ids": torch.randint(0, 30, (samples, 6)), "attention_mask": mask}


def nothing(outputs: Any, targets: Any) -> float:
    return 0.0


@pytest.mark.parametrize("make", [distilbert, llama, gpt2], ids=lambda make: make.__name__)
def test_half_of_the_heads_cost_and_compute_what_their_artifact_does(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    batches = [(batch(8), torch.zeros(8, dtype=torch.long))]
    task = Task(make(), batch(1), batches, batches, metric=nothing, loss=lambda o, _: o.logits.mean())
    compressor = Compressor(joint_space(task, (8,), (1.0, 0.5), None), StudentStore(tmp_path))
    network = compressor.space.teacher
    assert {2} <= set(network.groups.values())  # heads, or those that share a key
    layers = {name: layer.admit(LayerPolicy.of_bits(8)) for name, layer in network.layers.items()}
    made = compressor.compress(Policy.build(keep=dict.fromkeys(network.groups, 0.5), layers=layers))
    data = to_onnx(made, task.example_input).SerializeToString()
    predicted = [kernel.row for kernel in fuse(lower(network, made.policy), FUSION_RULES)]
    assert predicted == [kernel.row for kernel in fuse(read_onnx(onnx.load_from_string(data)), FUSION_RULES)]
    assert parity.compare(data, task, made.module).deviation <= parity.LARGEST_DEVIATION
