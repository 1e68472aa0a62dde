from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from kneepoint.spaces.configured_students import configured_family, inherit_
from kneepoint.spaces.derived_students import auto_family
from kneepoint.spaces.network import Network
from kneepoint.spaces.student_prior import PREFERRED


def distilbert(dim: int = 64, n_layers: int = 4, hidden_dim: int = 128) -> nn.Module:
    config = transformers.DistilBertConfig(
        vocab_size=40, max_position_embeddings=16, dim=dim, n_layers=n_layers, n_heads=4, hidden_dim=hidden_dim
    )
    model: nn.Module = transformers.DistilBertForSequenceClassification(config)
    return model.eval()


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=40,
        max_position_embeddings=16,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model.eval()


def test_a_configuration_is_made_smaller_along_its_axes() -> None:
    family = configured_family(distilbert())
    assert family is not None
    assert {axis: len(values) > 1 for axis, values in family.axes.items()} == dict.fromkeys(
        ("layers", "hidden", "heads", "feed_forward"), True
    )
    total = sum(parameter.numel() for parameter in distilbert().parameters())
    shares = []
    for member in family.members():
        module = family.make(member, seed=0)
        shares.append(sum(parameter.numel() for parameter in module.parameters()) / total)
        config: Any = module.config
        assert (config.n_layers, config.dim, config.n_heads, config.hidden_dim) == tuple(
            member[axis] for axis in ("layers", "hidden", "heads", "feed_forward")
        )
        assert module(torch.randint(0, 40, (2, 8))).logits.shape == (2, 2)
    assert len(shares) == 10
    assert max(shares) < 1
    assert sum(PREFERRED[0] * 0.8 <= share <= PREFERRED[1] * 1.2 for share in shares) >= 4


def test_shared_keys_and_the_width_of_a_head_follow() -> None:
    family = configured_family(llama())
    assert family is not None
    for member in family.members():
        module = family.make(member, seed=0)
        config: Any = module.config
        assert config.head_dim * config.num_attention_heads == config.hidden_size
        assert config.num_attention_heads % config.num_key_value_heads == 0
        module(torch.randint(0, 40, (2, 8)))


def test_a_student_of_the_same_width_inherits_layers_evenly() -> None:
    teacher, student = distilbert(), distilbert(n_layers=2, hidden_dim=32)
    inherit_(student, teacher)
    given, own = dict(teacher.named_parameters()), dict(student.named_parameters())
    for mine, theirs in ((0, 0), (1, 3)):
        name = "distilbert.transformer.layer.{}.attention.q_lin.weight"
        assert torch.equal(own[name.format(mine)], given[name.format(theirs)])
        name = "distilbert.transformer.layer.{}.ffn.lin1.weight"
        assert torch.equal(own[name.format(mine)], given[name.format(theirs)][:32])
    assert own["classifier.weight"].data_ptr() != given["classifier.weight"].data_ptr()


def test_one_of_another_width_begins_anew() -> None:
    teacher, student = distilbert(), distilbert(dim=32)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    inherit_(student, teacher)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


class Other(nn.Module):
    """A module that has a configuration which does not build it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=16, num_hidden_layers=2)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.down(self.up(x).relu())


@pytest.mark.parametrize("model", [Other(), nn.Linear(3, 2)])
def test_other_modules_have_no_such_family(model: nn.Module) -> None:
    assert configured_family(model) is None


def test_then_the_network_itself_is_made_smaller() -> None:
    model = Other()
    assert list(auto_family(Network(model, torch.randn(2, 8)), model).axes) == ["width"]
    text = distilbert()
    ids = {"input_ids": torch.randint(0, 40, (2, 8)), "attention_mask": torch.ones(2, 8, dtype=torch.long)}
    assert "hidden" in auto_family(Network(text, ids), text).axes
