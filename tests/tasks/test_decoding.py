from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from kneepoint.tasks.decoding import decoding_step
from kneepoint.tasks.errors import TaskError

CONTEXT = 5


class Logits(nn.Module):
    """A small decoder with heads that share keys."""

    def __init__(self) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8,
        )
        self.decoder = LlamaForCausalLM(config)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.decoder(input_ids=ids, use_cache=False).logits
        return logits


@pytest.fixture(scope="module")
def model() -> Logits:
    torch.manual_seed(0)
    return Logits().eval()


@torch.no_grad()
def test_a_step_says_what_the_whole_text_says(model: Logits) -> None:
    ids = torch.randint(0, 20, (3, CONTEXT + 1))
    step, (token, past) = decoding_step(model, CONTEXT)
    assert (token.shape, past[0].shape, len(past)) == ((1, 1), (1, 2, CONTEXT, 4), 4)
    cache: Any = DynamicCache()
    model.decoder(input_ids=ids[:, :CONTEXT], past_key_values=cache, use_cache=True)
    kept = tuple(part for layer in cache.layers for part in (layer.keys, layer.values))
    logits, *after = step(ids[:, CONTEXT:], kept)
    torch.testing.assert_close(logits[:, 0], model(ids)[:, -1])
    assert [part.shape[2] for part in after] == [CONTEXT + 1] * 4


def test_a_step_shares_parameters_and_their_names(model: Logits) -> None:
    step, _ = decoding_step(model, 1)
    own = dict(step.named_parameters())
    assert own.keys() == dict(model.named_parameters()).keys()
    assert all(own[name] is value for name, value in model.named_parameters())


@pytest.mark.parametrize("context", [0, 8])
def test_a_context_that_does_not_fit(model: Logits, context: int) -> None:
    with pytest.raises(TaskError, match=f"fewer than the decoder's 8 positions; got context={context}"):
        decoding_step(model, context)


def test_a_module_without_a_decoder() -> None:
    with pytest.raises(TaskError, match="found none in Linear: give your own step"):
        decoding_step(nn.Linear(2, 2), 4)
