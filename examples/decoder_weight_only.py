"""A decoder's weights in 2 to 8 bits, each layer its own: perplexity against size and against the latency of a token.

Run it:  python examples/decoder_weight_only.py

A small Llama learns the documentation of numpy byte by byte, in less than a minute. Its weights have a scale for every
32 of them, and run as MatMulNBits in ONNX Runtime: ``w4-g32`` computes in floats, ``w4a8-dynamic-g32`` rounds what a
layer reads to 8 bits, block by block, for which there are faster kernels.
"""

from __future__ import annotations

import argparse
import ast
import math
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from transformers import LlamaConfig, LlamaForCausalLM

import kneepoint as kp
from kneepoint.tasks.training import fit

CONTEXT = 64
FORMATS = ("w2a8-dynamic-g32", "w4a8-dynamic-g32", "w8a8-dynamic-g32", "w4-g32", 32)


class Decoder(nn.Module):
    """Any causal language model of the Transformers library will do; its embeddings may be tied."""

    def __init__(self) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
        heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
        config = LlamaConfig(vocab_size=256, max_position_embeddings=4 * CONTEXT, **sizes, **heads)
        self.language_model = LlamaForCausalLM(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.language_model(input_ids=input_ids, use_cache=False).logits
        return logits.mT  # (texts, bytes there are, places): classes along axis 1, as losses expect them


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def perplexity(outputs: Any, targets: Any) -> float:
    return math.exp(float(loss(outputs, targets)))


def texts() -> Tensor:
    """The docstrings of some of numpy's modules, as rows of bytes."""
    found = []
    for path in sorted(Path(numpy.__file__).parent.glob("[lm]*/*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found += [ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    data = torch.tensor(list("\n".join(found).encode()))
    return data[: len(data) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)


def task(steps: int) -> kp.Task:
    torch.manual_seed(0)
    rows = texts()
    rows = rows[torch.randperm(len(rows))]
    train, validation = (
        DataLoader(TensorDataset(part[:, :-1], part[:, 1:]), 16, shuffle=shuffled)
        for part, shuffled in ((rows[256:], True), (rows[:256], False))
    )
    model = Decoder()
    fit(model, train, lambda module, ids, targets: loss(module(ids), targets), steps=steps)
    metric = kp.Metric(perplexity, "perplexity", "minimize", ideal=1.0)
    return kp.Task(model.eval(), rows[:1, :-1], train, validation, metric=metric, loss=loss, name="decoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of training the decoder")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--out", default="runs/decoder")
    parser.add_argument("--deploy", default="deploy")
    arguments = parser.parse_args()

    token = kp.LatencyPerToken("x86-server", context=CONTEXT)
    problem = task(arguments.steps)
    space = kp.joint_space(problem, weight_bits=FORMATS, keep=(1.0,), students=None)
    result = kp.search(
        problem,
        space,
        objectives=[kp.Accuracy(), kp.Size(), token],
        trials=arguments.trials,
        settings=kp.CompressionSettings(recovery=kp.Distillation(steps=10, learning_rate=3e-4)),
        out=arguments.out,
    )
    print(result.front.to_frame().to_string())
    artifact = kp.export(result.front.pick("knee"), arguments.deploy)
    print(f"{artifact.path}: {artifact.bytes} bytes, perplexity {artifact.parity.executed.value:.2f} in ONNX Runtime")


if __name__ == "__main__":
    main()
