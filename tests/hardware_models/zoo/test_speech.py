"""Networks that understand speech."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.registry import find
from kneepoint.hardware_models.zoo.speech import rnn_transducer


def expected_parameters() -> int:
    with torch.device("meta"):
        parts = (
            nn.LSTM(240, 1024, 2), nn.LSTM(2048, 1024, 3), nn.Embedding(28, 320), nn.LSTM(320, 320, 2),
            nn.Linear(1344, 512), nn.Linear(512, 29),
        )  # fmt: skip
        return sum(parameter.numel() for part in parts for parameter in part.parameters())


@pytest.mark.parametrize(("steps", "symbols"), [(2, 1), (20, 7)])
def test_steps_share_their_weights(steps: int, symbols: int) -> None:
    table = rnn_transducer(NetworkBuilder(), steps, symbols)
    assert table.parameters == table.layer_parameters == expected_parameters()
    outputs = [table.tensors[name].shape for name in table.outputs]
    assert outputs[: steps // 2 + symbols] == [(1, 1, 29)] * (steps // 2 + symbols)
    assert outputs[steps // 2 + symbols :] == [(1, 1, 1024)] * 10 + [(1, 1, 320)] * 4


def test_work_of_every_step() -> None:
    heard = 4096 * (240 + 1024 + 2 * 1024) + 4096 * (2048 + 1024 + 4 * 1024) // 2
    joined = 1344 * 512 + 512 * 29
    written = 2 * 1280 * 640
    table = rnn_transducer(NetworkBuilder(2), 20, 7)
    assert table.macs == 2 * (20 * heard + 7 * written + 17 * joined)


def test_an_utterance_has_no_single_length() -> None:
    assert not find("RNN-T LibriSpeech").comparable
