from __future__ import annotations

import pytest
from torch import nn

from kneepoint.tasks.modes import module_mode


@pytest.fixture
def half_frozen() -> nn.Sequential:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    module[1].eval()
    return module


@pytest.mark.parametrize("training", [True, False])
def test_every_submodule_changes_and_gets_its_own_mode_back(half_frozen: nn.Sequential, training: bool) -> None:
    with module_mode(half_frozen, training):
        assert [part.training for part in half_frozen.modules()] == [training] * 3
    assert [part.training for part in half_frozen.modules()] == [True, True, False]


def test_the_mode_comes_back_after_an_error(half_frozen: nn.Sequential) -> None:
    with pytest.raises(KeyError), module_mode(half_frozen, training=False):
        raise KeyError
    assert half_frozen.training
