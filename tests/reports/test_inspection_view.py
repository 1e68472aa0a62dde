from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from kneepoint.reports import Inspection, inspection_views
from kneepoint.search.device_facts import DeviceFacts, FormatFacts, Unpriced
from kneepoint.search.inspection import Facts, LayerFacts, NetworkFacts, SpaceFacts
from kneepoint.search.time_estimate import TimeEstimate


def layer(name: str, bits: str | None = None, channels: str | None = None, groups: tuple[str, ...] = ()) -> LayerFacts:
    return LayerFacts(name, "conv", 100, bits, groups, channels)


def format_facts(choice: int | str, bits: int, container: str, **executed: int) -> FormatFacts:
    return FormatFacts(choice, bits, {container: 3}, executed, 1000 * bits, 0.125, 0.04, 0.9)


DEVICE = DeviceFacts(
    "board",
    "onnxruntime 1.31",
    4,
    0.3,
    0.9,
    tuple(Unpriced(f"op{index}", index, 0.02) for index in (2, 1, 3, 4)),
    (
        format_facts(4, 4, "int4", int8=3),
        format_facts("w4-g32", 4, "int4", packed=3),
        format_facts(8, 8, "int8", int8=2, fp32=1),
        format_facts(32, 32, "float32", fp32=3),
    ),
)
FACTS = Facts(
    task="cats",
    network=NetworkFacts(1234, 56789, 4936, 2048),
    layers=(
        layer("stem", groups=("stem",)),
        *(layer(f"body.{index}", channels=f"it depends on fixed channels (conv2d_{index})") for index in range(5)),
        *(layer(f"grouped.{index}", channels=f"layer grouped.{index} is a grouped convolution") for index in range(2)),
        layer("emb", bits="operator add runs in float"),
    ),
    groups={"stem": 16},
    blocks={"body": ("body.0",)},
    space=SpaceFacts((4, "w4-g32", 8), (0.5, 1.0), False, {"a": 10, "b": 1000}, 3.3),
    devices=(DEVICE,),
    trials=1,
    time=TimeEstimate(83.0, {"trials": 8.0, "students": 75.0}, 3.0, 64, 128, ("the moon is full",)),
)


def shown(facts: Facts = FACTS, verbose: bool = False, width: int = 200) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for view in inspection_views(facts, verbose):
        console.print(view, markup=False, highlight=False, soft_wrap=isinstance(view, str))
    return out.getvalue()


def lines(text: str, start: str) -> list[str]:
    plain = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in plain if line.startswith(start)]


def test_what_may_vary_is_summed_up() -> None:
    text = shown()
    assert lines(text, "network") == ["network 1,234 parameters, 0.004936 MB in float32"]
    assert lines(text, "bits")[0] == "bits 4, w4-g32 or 8 in each layer: 8 layers, 88.89% of the weights"
    assert lines(text, "channels")[0] == "channels 0.5 or all of each group: 1 group, 16 channels"
    assert lines(text, "blocks") == ["blocks all kept (blocks: true may leave out 1 residual block)"]
    assert lines(text, "students") == ["students 2, of 10 to 1,000 parameters"]
    assert lines(text, "settings") == ["settings 2.0e+03"]


def test_reasons_that_differ_in_names_are_one_line() -> None:
    text = shown()
    assert lines(text, "channels")[1:] == [
        "channels 5 it depends on fixed channels body.0",
        "channels 2 layer … is a grouped convolution grouped.0",
    ]
    assert lines(text, "bits")[1:] == ["bits 1 operator add runs in float emb"]


def test_verbose_lists_every_layer_and_reason() -> None:
    text = shown(verbose=True)
    assert lines(text, "stem") == ["stem conv 100 vary stem (16)"]
    assert lines(text, "emb") == ["emb conv 100 fixed"]
    assert len([line for line in text.splitlines() if "it depends on fixed channels (conv2d_" in line]) == 5
    assert "op4 (2%, 4 kernels)" in text


def test_bits_are_executed_or_only_stored() -> None:
    text = shown()
    assert lines(text, "board 4") == ["board 4 int4 only stored, run as int8 0.1250 0.00400"]
    assert lines(text, "w4-g32") == ["w4-g32 int4 executed as packed 0.1250 0.00400"]
    assert lines(text, "8 ") == ["8 int8 executed as int8 (2); only stored, run as fp32 (1) 0.1250 0.00800"]
    assert lines(text, "32 ") == ["32 float32 executed as fp32 0.1250 0.03200"]


def test_what_is_not_priced_is_named() -> None:
    (line,) = lines(shown(), "board (")
    assert line.startswith("board (onnxruntime 1.31, 4 threads, ±30%): the cost model prices 90% of the teacher's")
    assert line.endswith("op2 (2%, 2 kernels), op1 (2%, 1 kernel), op3 (2%, 3 kernels) and 1 more operator")


def test_the_time_comes_with_its_assumptions() -> None:
    text = shown()
    assert "A search of 1 trial takes about 1 min 23 s on this machine" in text
    assert "(trials 8 s, students 1 min 15 s)" in text
    assert lines(text, "-") == ["- the moon is full"]
    assert "does not tell its length" in shown(dataclasses.replace(FACTS, time=None))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"groups": {}}, "no group may be pruned"),
        ({"space": SpaceFacts((8,), (1.0,), True, {}, 500.0)}, "none but the teacher itself"),
        ({"space": SpaceFacts((8,), (1.0,), True, {}, 500.0)}, "10^500"),
        ({"space": SpaceFacts((8,), (1.0,), True, {}, 0.0)}, "1 residual block may be left out"),
        ({"devices": ()}, "A search of"),
        ({"task": "\x1b[31mred [bold]"}, "\\x1b[31mred [bold]: before the search"),
    ],
)
def test_what_is_rare_is_said_too(changes: dict[str, Any], text: str) -> None:
    assert text in shown(dataclasses.replace(FACTS, **changes))


def test_an_inspection_shows_itself_and_stays_the_facts() -> None:
    found = Inspection.of(FACTS)
    assert str(found) == repr(found)
    assert str(found).startswith("cats: before the search")
    assert max(map(len, str(found).splitlines())) <= 100
    assert found.to_json() == FACTS.to_json()
    assert found.layers == FACTS.layers
