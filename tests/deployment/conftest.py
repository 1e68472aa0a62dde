"""Networks of every sort, compressed and exported once and shared by all tests of the room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings
from kneepoint.compression.student_store import StudentStore
from kneepoint.deployment import to_onnx
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.metrics import as_metric
from kneepoint.tasks.residual_network import ResidualNet
from kneepoint.tasks.task import Task
from tests.deployment.kernel_networks import KERNEL_NETWORKS

MIXED = (8, 32, 4, 16, 2)


class Mobile(nn.Module):
    """Own biases, no BatchNorm on most layers, depthwise and grouped convolutions, a linear layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.hidden = nn.Linear(256, 10)
        self.head = nn.Linear(10, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.depth(F.relu6(self.stem(x)))))
        x = F.relu(self.grouped(F.relu(self.point(x))))
        x = F.adaptive_avg_pool2d(x, 4).flatten(1)
        logits: Tensor = self.head(F.relu(self.hidden(x)))
        return logits


class Sound(nn.Module):
    """One-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, 2)
        self.norm = nn.BatchNorm1d(8)
        self.depth = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv1d(8, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depth(F.relu(self.norm(self.first(x)))))
        logits: Tensor = self.head(F.relu(self.point(x)).mean(2))
        return logits


class Tokens(nn.Module):
    """Linear layers on three axes, one of them called twice and one without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.middle = nn.Linear(16, 16)
        self.down = nn.Linear(16, 8, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.middle(F.relu(self.middle(F.relu(self.up(x))))))
        logits: Tensor = self.head((x + self.down(y)).mean(1))
        return logits


class Twice(nn.Module):
    """A convolution and a linear layer that are each called twice, on values with other ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.again(F.relu(self.again(F.relu(self.stem(x))))))
        logits: Tensor = self.head(F.relu(self.mix(F.relu(self.mix(x.mean((2, 3)))))))
        return logits


class Loop(nn.Module):
    """A layer that is called on a value that may be quantized, and on one that is returned, too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 6)
        self.again = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.again(F.relu(self.head(x)))
        return self.again(y), y


class Pair(nn.Module):
    """Two positional inputs, a tuple of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Conv2d(1, 6, 3, padding=1)
        self.numbers = nn.Linear(5, 6)
        self.head = nn.Linear(6, 4)
        self.side = nn.Linear(6, 2)

    def forward(self, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        z = F.relu(self.picture(image)).mean((2, 3)) + F.relu(self.numbers(numbers))
        return self.head(z), self.side(z)


class Named(nn.Module):
    """Inputs by keyword, one of them integers and one named like a builtin, and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6)
        self.numbers = nn.Linear(5, 6)
        self.head = nn.Linear(6, 4)
        self.side = nn.Linear(6, 2)

    def forward(self, numbers: Tensor, input: Tensor) -> dict[str, Tensor]:  # noqa: A002 - users write such networks
        z = self.words(input).mean(1) + F.relu(self.numbers(numbers))
        return {"zebra": self.head(z), "apple": self.side(z)}


class Attention(nn.Module):
    """Words at learned places, attention by hand and by torch's own operator, and a feed-forward block."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.places = nn.Embedding(6, 16)
        self.queries = nn.Linear(16, 16)
        self.keys = nn.Linear(16, 16)
        self.values = nn.Linear(16, 16)
        self.joint = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16, bias=False)
        self.norm = nn.LayerNorm(16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(6))
        query, key, value = (self.heads(layer(x)) for layer in (self.queries, self.keys, self.values))
        weights = (query @ key.transpose(-1, -2) / 2.0).softmax(-1)
        x = self.norm(x + self.out((weights @ value).transpose(1, 2).reshape(-1, 6, 16)))
        x = x + self.down(F.gelu(self.up(x)))
        query, key, value = (self.heads(part) for part in self.joint(x).chunk(3, -1))
        x = x + F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(-1, 6, 16)
        logits: Tensor = self.head(x.mean(1))
        return logits

    def heads(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 6, 4, 4).transpose(1, 2)


def _first(outputs: Any) -> Tensor:
    leaf: Tensor = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]
    return leaf


def first_accuracy(outputs: Any, targets: Tensor) -> float:
    return float((_first(outputs).argmax(1) == targets).float().mean())


def first_loss(outputs: Any, targets: Tensor) -> Tensor:
    return F.cross_entropy(_first(outputs), targets)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    **KERNEL_NETWORKS,
    "residual": (lambda: ResidualNet(width=8, depth=1), lambda n: torch.randn(n, 1, 12, 12)),
    "mobile": (Mobile, lambda n: torch.randn(n, 3, 16, 16)),
    "sound": (Sound, lambda n: torch.randn(n, 2, 32)),
    "tokens": (Tokens, lambda n: torch.randn(n, 7, 8)),
    "twice": (Twice, lambda n: torch.randn(n, 1, 8, 8)),
    "loop": (Loop, lambda n: torch.randn(n, 8)),
    "pair": (Pair, lambda n: (torch.randn(n, 1, 6, 6), torch.randn(n, 5))),
    "attention": (Attention, lambda n: torch.randint(0, 20, (n, 6))),
    "named": (Named, lambda n: {"input": torch.randint(0, 20, (n, 3)), "numbers": torch.randn(n, 5)}),
}


def _as_trained(module: nn.Module) -> nn.Module:
    """Statistics and biases no two of which are equal, as training leaves them."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean = 0.3 * torch.randn(part.num_features)
            part.running_var = 0.5 + torch.rand(part.num_features)
            nn.init.uniform_(part.weight, 0.5, 1.5)
        if isinstance(getattr(part, "bias", None), nn.Parameter):
            nn.init.normal_(part.bias, std=0.3)  # type: ignore[arg-type]  # the line above says it is a parameter
    return module.eval()


@dataclass(frozen=True)
class Exported:
    """A network on its way to an artifact."""

    task: Task
    compressed: CompressedNetwork
    model: onnx.ModelProto
    data: bytes


class Bench:
    """Makes and remembers tasks, compressed networks and exports by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compressors: dict[str, Compressor] = {}
        self.networks: dict[tuple[str, Policy], CompressedNetwork] = {}
        self.exports: dict[tuple[str, Policy], Exported] = {}

    def compressor(self, name: str) -> Compressor:
        if name not in self.compressors:
            torch.manual_seed(0)
            make, inputs = NETWORKS[name]
            batches = [(inputs(32), torch.randint(0, 4, (32,))) for _ in range(3)]
            several = (
                {"metric": as_metric(first_accuracy), "loss": first_loss} if name in ("loop", "pair", "named") else {}
            )
            model = _as_trained(make())
            task = Task(model, inputs(1), train=batches, validation=batches, **several)  # type: ignore[arg-type]  # a dict of several types
            space = joint_space(task, weight_bits=(2, 4, 8, 16, 32), students="auto" if name == "residual" else None)
            settings = CompressionSettings(student=Distillation(5, 1e-3))
            self.compressors[name] = Compressor(space, StudentStore(self.folder / name), settings=settings)
        return self.compressors[name]

    def task(self, name: str) -> Task:
        return self.compressor(name).task

    def inputs(self, name: str, samples: int) -> Any:
        return NETWORKS[name][1](samples)

    def space(self, name: str) -> JointSpace:
        return self.compressor(name).space

    def policy(self, name: str, how: str) -> Policy:
        """``fp32``, a bit-width or a format for all layers, ``mixed``, ``pruned``, ``student``."""
        space = self.space(name)
        if how == "fp32":
            return Policy.build()
        if how == "mixed":
            formats = [LayerPolicy.of_bits(MIXED[i % 5]) for i in range(len(space.teacher.layers))]
            return self.layers(name, formats)
        if how.startswith("w"):
            return self.layers(name, [LayerPolicy.parse(how)] * len(space.teacher.layers))
        if how == "pruned":
            return space.policy(space.uniform(bits=8, keep=0.5))
        if how == "student":
            return space.policy(space.uniform(student="separable=0,width=0.5", bits=4))
        return space.policy(space.uniform(bits=int(how)))

    def bits(self, name: str, bits: dict[str, int], others: int = 8) -> Policy:
        layers = self.space(name).teacher.layers
        return self.layers(name, [LayerPolicy.of_bits(bits.get(layer, others)) for layer in layers])

    def layers(self, name: str, formats: list[LayerPolicy]) -> Policy:
        """The formats, one for each layer, as far as the layers admit them."""
        layers = self.space(name).teacher.layers.items()
        return Policy.build(layers={key: layer.admit(one) for (key, layer), one in zip(layers, formats, strict=True)})

    def compressed(self, name: str, how: str | Policy) -> CompressedNetwork:
        policy = self.policy(name, how) if isinstance(how, str) else how
        if (name, policy) not in self.networks:
            self.networks[name, policy] = self.compressor(name).compress(policy)
        return self.networks[name, policy]

    def export(self, name: str, how: str | Policy) -> Exported:
        compressed, task = self.compressed(name, how), self.task(name)
        key = (name, compressed.policy)
        if key not in self.exports:
            model = to_onnx(compressed, task.example_input)
            self.exports[key] = Exported(task, compressed, model, model.SerializeToString())
        return self.exports[key]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("students"))
