"""The decoder of llm_weight_only.py: a small Llama, trained on the docstrings of installed packages."""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.tasks.metrics import Metric, Score
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import fit
from kneepoint.tasks.weight_cache import load_weights, save_weights

PACKAGES = ("numpy", "sklearn")
VOCABULARY = 1024
CONTEXT = 128
BATCH = 8
STEPS = 800
RATE = 3e-3
HELD_OUT = 20
"""Every so many texts, one is kept for validation, and the next one for the test."""
VALIDATION_TEXTS = 96
"""Texts of CONTEXT tokens that perplexity is measured on: 12,288 tokens."""
SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


LARGE: Mapping[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}


class Decoder(nn.Module):
    """A Llama with grouped-query attention and tied embeddings, which reads whole texts."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM  # takes seconds

        super().__init__()
        config = LlamaConfig(max_position_embeddings=2 * CONTEXT, tie_word_embeddings=True, **sizes)
        self.language_model = LlamaForCausalLM(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token, (texts, vocabulary, tokens): classes along the axis that losses expect them on."""
        logits: Tensor = self.language_model(input_ids=input_ids, use_cache=False).logits
        return logits.mT


@dataclass(frozen=True)
class Perplexity(Metric):
    """exp of the mean cross-entropy a token, with the standard error that the spread over texts gives it."""

    def score(self, outputs: Any, targets: Any) -> Score:
        """exp(m) and exp(m) s, where m and s are mean and standard error of the texts' mean cross-entropies."""
        losses = _cross_entropies(outputs, targets).double().mean(1)
        value = math.exp(float(losses.mean()))
        return Score(value, value * float(losses.std()) / math.sqrt(len(losses)))


def _cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """(texts, tokens) in nats."""
    return F.cross_entropy(logits, targets, reduction="none")


def _loss(logits: Any, targets: Tensor) -> Tensor:
    return _cross_entropies(logits, targets).mean()


def _value(logits: Any, targets: Any) -> float:
    return math.exp(float(_cross_entropies(logits, targets).double().mean()))


perplexity = Perplexity(_value, "perplexity", "minimize", ideal=1.0)


def docstrings(package: str) -> Iterator[str]:
    """Every docstring of a package's modules, classes and functions, without importing it."""
    found = importlib.util.find_spec(package)
    root = Path(found.origin).parent if found is not None and found.origin else Path()
    for path in sorted(root.rglob("*.py")):
        if "tests" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                    yield text


@cache
def tokens() -> Tensor:
    """All docstrings as tokens, (texts, CONTEXT + 1); the texts follow each other in the packages' order."""
    text = "\n\n".join(text for package in PACKAGES for text in docstrings(package))
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(text.split("\n\n"), vocab_size=VOCABULARY, show_progress=False)
    ids = torch.tensor(tokenizer.encode(text).ids)
    return ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)


def decoder_task() -> Task:
    """The trained decoder and its texts; training takes minutes the first time, and nothing later."""
    texts = tokens()
    place = torch.arange(len(texts)) % HELD_OUT
    train = _Texts(texts[place > 1], shuffled=True)
    validation, test = (_Texts(texts[place == part][:VALIDATION_TEXTS]) for part in (0, 1))
    with seeded(0):
        model = Decoder(SIZES)
    name = f"decoder-{'-'.join(map(str, [*SIZES.values()][1:]))}-{len(texts)}-{STEPS}.safetensors"
    if not load_weights(model, name):
        fit(model, train, _batch_loss, steps=STEPS, learning_rate=RATE, weight_decay=0.05, seed=0, on_progress=_tell)
        save_weights(model, name)
    example = texts[:1, :-1]
    task = Task(model.eval(), example, train, validation, test, metric=perplexity, loss=_loss, name="decoder")
    task.metric = perplexity  # with its error, which a task does not take from a metric
    return task


def large_decoder() -> Decoder:
    """One whose weights no cache of a core holds (45 million of them, random), for its latency alone."""
    with seeded(0):
        return Decoder(LARGE).eval()


class _Texts:
    """Batches of (tokens, the tokens that follow), in a new order at every pass if they are shuffled."""

    def __init__(self, texts: Tensor, *, shuffled: bool = False) -> None:
        self.texts = texts
        self.shuffled = shuffled

    def __len__(self) -> int:
        return math.ceil(len(self.texts) / BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.texts)) if self.shuffled else torch.arange(len(self.texts))
        for rows in order.split(BATCH):
            yield self.texts[rows, :-1], self.texts[rows, 1:]


def _batch_loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return _loss(module(inputs), targets)


def _tell(done: int, total: int, loss: float) -> None:
    if done % 50 == 0:
        print(f"training the decoder: step {done} of {total}, {loss:.3f} nats a token", flush=True)
