"""Your own network, your own objective: from a trained module to a deployable file.

Run it:            python examples/own_network.py
The same by file:  kneepoint search examples/job.yaml --out runs/own-network-job
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kneepoint as kp


class SeparableNet(nn.Module):
    """Any module will do: no base class, no rewriting."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, 2 * width, 1)
        self.head = nn.Linear(2 * width * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.depthwise(self.stem(x))))
        x = torch.relu(self.pointwise(x))
        logits: Tensor = self.head(x.flatten(1))
        return logits


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], ...]:
    """Train, validation and test batches of scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    parts = order[:1000], order[1000:1400], order[1400:]
    return tuple(DataLoader(TensorDataset(x[part], y[part]), 64, shuffle=i == 0) for i, part in enumerate(parts))


def task() -> kp.Task:
    """The problem: a trained network, its data and what it is judged by."""
    torch.manual_seed(0)
    train, validation, test = loaders()
    model = SeparableNet()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(8):
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return kp.Task(
        model=model,
        example_input=next(iter(validation))[0][:1],
        train=train,
        validation=validation,
        test=test,
        metric=kp.metrics.accuracy,
        loss=nn.functional.cross_entropy,
        name="own-network",
    )


def confident_mistakes(view: kp.View) -> float:
    """Share of samples that are wrong with more than 90 % confidence; any function of a view is an objective."""
    confidence, predicted = view.outputs.softmax(dim=1).max(dim=1)
    return float(((confidence > 0.9) & (predicted != view.targets)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--out", default="runs/own-network")
    parser.add_argument("--deploy", default="deploy")
    arguments = parser.parse_args()

    problem = task()
    space = kp.joint_space(problem, weight_bits=(2, 4, 8, 16), keep=(1.0, 0.75, 0.5, 0.25), students="auto")
    result = kp.search(
        problem,
        space,
        objectives=[
            kp.Accuracy(),
            kp.Latency("raspberry-pi-4b"),
            kp.Latency("x86-server"),
            kp.Size(),
            kp.objective(confident_mistakes, direction="minimize"),
        ],
        constraints=["accuracy_drop <= 0.05", "size_mb <= 2"],
        sampler="kneepoint",
        trials=arguments.trials,
        minutes=10,
        seed=0,
        out=arguments.out,
    )
    print(result.front.to_frame().to_string())
    print(f"hypervolume {result.front.hypervolume:.3f}")
    candidate = result.front.pick("knee", where="latency_ms@raspberry-pi-4b <= 3")
    artifact = kp.export(candidate, arguments.deploy, target="onnxruntime")
    print(f"{artifact.path}: {artifact.bytes} bytes, accuracy {artifact.parity.executed.value:.4f} in ONNX Runtime")


if __name__ == "__main__":
    main()
