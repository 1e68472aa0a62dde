"""Regression: how a disease progresses within a year, by a small network; judged by the mean absolute error.

The 442 patients are scikit-learn's diabetes data; nothing is downloaded. Inputs are standardized outside the network,
targets are in hundreds of points.

Run it:  python examples/regression.py             half a minute
         python examples/regression.py --small     seconds: less of everything
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kneepoint as kp


class Progression(nn.Module):
    """Ten measurements (N, 10) to one number (N, 1)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, measured: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(measured))))
        progression: Tensor = self.head(x)
        return progression


def task(epochs: int = 60) -> kp.Task:
    """The problem: 242 patients to train on, 100 to validate, 100 to test."""
    measured, progression = load_diabetes(return_X_y=True)
    x = torch.tensor(measured, dtype=torch.float32)
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    y = torch.tensor(progression, dtype=torch.float32).unsqueeze(1) / 100
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    parts = order[:242], order[242:342], order[342:]
    train, validation, test = (
        DataLoader(TensorDataset(x[part], y[part]), 32, shuffle=index == 0) for index, part in enumerate(parts)
    )
    torch.manual_seed(0)
    model = Progression()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    for _ in range(epochs):
        for inputs, targets in train:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
    metric, loss = kp.metrics.mean_absolute_error, nn.functional.mse_loss
    return kp.Task(model, x[:1], train, validation, test, metric, loss, name="diabetes")


def main(arguments: Sequence[str] | None = None) -> kp.Result:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", default="runs/regression")
    given = parser.parse_args(arguments)
    problem = task(epochs=5) if given.small else task()
    result = kp.search(
        problem,
        kp.joint_space(problem, weight_bits=(4, 8, 16), keep=(1.0, 0.5, 0.25), students="auto"),
        objectives=[kp.Accuracy(), kp.Accuracy(kp.metrics.r2), kp.Latency("raspberry-pi-4b"), kp.Size()],
        settings=kp.CompressionSettings(
            student=kp.Distillation(steps=5 if given.small else 600, learning_rate=3e-3),
            recovery=kp.Distillation(steps=5 if given.small else 60, learning_rate=1e-3),
        ),
        trials=given.trials,
        out=given.out,
    )
    print(result.front.to_frame().to_string())
    return result


if __name__ == "__main__":
    main()
