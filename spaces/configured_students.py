"""Students of models that are built from a configuration, as those of the Transformers library are."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.spaces.policy import AxisValue
from kneepoint.spaces.student_prior import preferred
from kneepoint.spaces.students import AUTO, Member, StudentFamily

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "dim", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "feed_forward": ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim"),
}
"""What configurations call the axes."""
_SHARED_HEADS, _HEAD_WIDTH = "num_key_value_heads", "head_dim"
_STEPS: Mapping[str, tuple[float, ...]] = {
    "layers": (1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 6),
    "hidden": (1.0, 1 / 2, 1 / 4),
    "heads": (1.0, 3 / 4, 1 / 2, 1 / 4),
    "feed_forward": (1.0, 1 / 2, 1 / 4, 1 / 8),
}
"""Shares of the teacher's sizes: exponential steps of widths, linear ones of heads."""
MEMBERS = 10
"""How many members a derived family has."""


def configured_family(model: nn.Module, members: int = MEMBERS) -> StudentFamily | None:
    """A family with the axes ``layers``, ``hidden``, ``heads``, ``feed_forward``, as far as the configuration has them.

    Args:
        model: With an attribute ``config``, and a class that takes a configuration.
        members: How many to choose by the prior.

    Returns:
        None where the model is not built so, or nothing in its configuration makes it smaller.
    """
    whole = _sizes(model)
    if not _makes_smaller(model, "hidden", whole):
        return None  # a pyramid, say, whose stages have sizes of their own
    axes = {axis: _values(axis, whole[axis]) for axis in whole if _makes_smaller(model, axis, whole)}
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    counts = [(member, _parameters(model, member)) for member in product if _is_consistent(model, member)]
    total = sum(parameter.numel() for parameter in model.parameters())
    smaller = [(member, count) for member, count in counts if count is not None and count < total]
    found = [member for member, _ in smaller]
    plain = [place for place, member in enumerate(found) if _is_shallower(member, whole)]
    others = [place for place in range(len(found)) if place not in plain]
    shares = [smaller[place][1] / total for place in others]
    liked = preferred(shares, [found[place] for place in others], max(1, members - len(plain)))
    chosen = sorted([*plain, *(others[place] for place in liked)])

    def build(**member: AxisValue) -> nn.Module:
        student = _built(model, member)
        inherit_(student, model)
        return student

    return StudentFamily(build, axes, AUTO, [found[place] for place in chosen]) if chosen else None


def _is_shallower(member: Member, whole: Mapping[str, int]) -> bool:
    """Whether it is the teacher with half of its layers, or as few as may be: students that inherit all they have."""
    few = (_values("layers", whole["layers"])[-1], max(1, round(whole["layers"] / 2))) if "layers" in whole else ()
    return member.get("layers") in few and all(
        value == whole[axis] for axis, value in member.items() if axis != "layers"
    )


def inherit_(student: nn.Module, teacher: nn.Module) -> None:
    """Copy the teacher's weights into a student of the same hidden size, in place; every other one keeps its own.

    Its layers take those of the teacher's at the same relative depth (Sanh et al., "DistilBERT", 2019, section 3), of
    narrower feed-forward layers and embeddings the first rows and columns.
    """
    own, given = dict(student.named_parameters()), dict(teacher.named_parameters())
    depths = _depth(own), _depth(given)
    sources = {name: given.get(_at_depth(name, *depths)) for name in own}
    if not all(source is not None and _same_width(own[name], source) for name, source in sources.items()):
        return
    with torch.no_grad():
        for name, source in sources.items():
            if source is not None:
                own[name].copy_(source[tuple(slice(size) for size in own[name].shape)])


def _same_width(own: Tensor, source: Tensor) -> bool:
    """Whether a parameter is a part of another: at most one axis is shorter."""
    pairs = list(zip(own.shape, source.shape, strict=False))
    return own.dim() == source.dim() and all(a <= b for a, b in pairs) and sum(a < b for a, b in pairs) <= 1


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def _depth(parameters: Mapping[str, Tensor]) -> int:
    """How many layers are numbered."""
    numbers = [int(found[0]) for name in parameters if (found := _NUMBER.search(name))]
    return max(numbers, default=0) + 1


def _at_depth(name: str, own: int, given: int) -> str:
    """The parameter of the teacher's layer at the same relative depth."""
    return _NUMBER.sub(lambda found: str(round(int(found[0]) * (given - 1) / max(1, own - 1))), name, count=1)


# --- configurations ---------------------------------------------------------------------------------------------------


def _sizes(model: nn.Module) -> dict[str, int]:
    """What the axes are of a model; nothing where it is not built from a configuration."""
    config = getattr(model, "config", None)
    found = {}
    for axis, names in _FIELDS.items():
        value = next((getattr(config, name) for name in names if _is_size(getattr(config, name, None))), None)
        if value is not None:
            found[axis] = int(value)
    return found


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _values(axis: str, whole: int) -> Sequence[int]:
    """The values of an axis, the teacher's own first; a value of 8 and more is kept a multiple of 8."""
    step = 8 if axis in ("hidden", "feed_forward") else 1
    return list(dict.fromkeys(max(step, round(whole * share / step) * step) for share in _STEPS[axis]))


def _built(model: nn.Module, member: Member) -> nn.Module:
    config: Any = copy.deepcopy(model.config)
    for axis, value in member.items():
        for name in _FIELDS[axis]:
            if _is_size(getattr(config, name, None)):
                setattr(config, name, value)
                break
    whole, sizes = _sizes(model), {**_sizes(model), **member}
    if _is_size(getattr(config, _SHARED_HEADS, None)) and "heads" in sizes:
        setattr(config, _SHARED_HEADS, _shared_heads(model, int(sizes["heads"])))
    if _is_size(getattr(config, _HEAD_WIDTH, None)) and whole.keys() >= {"hidden", "heads"}:
        setattr(config, _HEAD_WIDTH, int(sizes["hidden"]) // int(sizes["heads"]))
    make: Any = type(model)
    module: nn.Module = make(config)
    return module


def _shared_heads(model: nn.Module, heads: int) -> int:
    """Key and value heads where ``heads`` query heads share them, as many each as the teacher's."""
    config: Any = model.config
    shared = int(getattr(config, _SHARED_HEADS))
    return max(1, round(heads * shared / _sizes(model)["heads"]))


def _is_consistent(model: nn.Module, member: Member) -> bool:
    """Whether heads divide the hidden size, and shared heads the heads."""
    sizes = {**_sizes(model), **member}
    if not sizes.keys() >= {"hidden", "heads"}:
        return True
    heads, shares = int(sizes["heads"]), True
    if _is_size(getattr(model.config, _SHARED_HEADS, None)):
        shares = heads % _shared_heads(model, heads) == 0
    return int(sizes["hidden"]) % heads == 0 and shares


def _parameters(model: nn.Module, member: Member) -> int | None:
    """How many parameters a member has, without memory for them; None where it cannot be built."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in _built(model, member).parameters())
    except Exception:  # whatever a configuration that is not as the axes take it makes of the model
        return None


def _makes_smaller(model: nn.Module, axis: str, whole: Mapping[str, int]) -> bool:
    """Whether the model is built from this entry of its configuration, and can be with less of it.

    Heads share the hidden size among them, and layers may share their weights: the parameters need not change.
    """
    total = _parameters(model, {})
    for value in [value for value in _values(axis, whole[axis]) if value < whole[axis]] if axis in whole else []:
        found = _parameters(model, {axis: value})
        if found is not None and total is not None:
            return found < total or (axis in ("heads", "layers") and found == total)
    return False
