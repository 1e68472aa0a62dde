"""One step of a decoder: the token that comes next, after others whose keys and values are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.tasks.errors import TaskError


class DecodingStep(nn.Module):
    """A causal language model of the Transformers library that reads one token and a cache.

    It shares all modules with the model, under the same names, so that a layer is called the same in both.

    Args:
        model: Is such a model, or holds one.

    Raises:
        TaskError: If there is none in it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._decoder = (_decoder_in(model),)  # within a tuple, so that it is not registered a second time
        for name, child in model.named_children():
            self.add_module(name, child)

    def forward(self, input_ids: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Logits of the next token, and what the cache holds by then.

        Args:
            input_ids: (samples, 1) int64.
            past: Of every layer, the first one first, keys and then values: (samples, key-value heads, context, depth)
                each.

        Returns:
            (samples, 1, vocabulary), then keys and values as in ``past``, with one token more.
        """
        from transformers import DynamicCache  # takes seconds

        cache: Any = DynamicCache()
        for layer, (keys, values) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(keys, values, layer)
        outputs = self._decoder[0](input_ids=input_ids, past_key_values=cache, use_cache=True)
        return (outputs.logits, *(part for layer in cache.layers for part in (layer.keys, layer.values)))


def decoding_step(model: nn.Module, context: int) -> tuple[DecodingStep, tuple[Tensor, tuple[Tensor, ...]]]:
    """The step that follows ``context`` tokens, and inputs of it for one sample.

    Args:
        model: A causal language model of the Transformers library, or a module that holds one.
        context: Tokens in the cache; at least 1.

    Returns:
        The step, which shares its parameters with ``model``, and (token, cache) as its ``forward`` takes them.

    Raises:
        TaskError: If the model is none, or has fewer positions than ``context`` and one.
    """
    step = DecodingStep(model)
    config: Any = step._decoder[0].config
    positions = getattr(config, "max_position_embeddings", None)
    if context < 1 or (positions is not None and context >= positions):
        raise TaskError(
            f"a decoding step follows at least 1 token, and fewer than the decoder's {positions} positions; got "
            f"context={context}"
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    depth = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    past = [torch.zeros(1, heads, context, depth) for _ in range(2 * config.num_hidden_layers)]
    return step, (torch.zeros(1, 1, dtype=torch.long), tuple(past))


def _decoder_in(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "generate") and hasattr(getattr(module, "config", None), "num_hidden_layers"):
            return module
    raise TaskError(
        "a decoding step is made of a causal language model of the Transformers library; found none in "
        f"{type(model).__name__}: give your own step, a function of the model that returns a module and its inputs"
    )
