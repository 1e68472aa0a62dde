from xml.etree import ElementTree

from kneepoint.reports.strips import BIT_COLORS, bit_color, bits_strip, kept_strip


def cells(svg: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall("rect")  # noqa: S314 - our own text


def test_a_cell_a_layer_in_the_colour_of_its_bits() -> None:
    svg = bits_strip({"stem": 8, "head": 2})
    assert [one.get("fill") for one in cells(svg)] == [BIT_COLORS[8], BIT_COLORS[2]]
    assert 'aria-label="weight bits by layer: stem 8 bits, head 2 bits"' in svg


def test_a_bar_as_high_as_what_is_kept() -> None:
    svg = kept_strip({"a": 1.0, "b": 0.5, "c": 0.0})
    assert [float(one.get("height", "")) for one in cells(svg)] == [18.0, 9.0, 1.0]
    assert "b 50%" in svg


def test_many_layers_stay_narrow() -> None:
    svg = bits_strip({f"layer{at}": 8 for at in range(300)})
    assert float(ElementTree.fromstring(svg).get("width", "")) == 150  # noqa: S314 - our own text


def test_nothing_varied() -> None:
    assert bits_strip({}) == ""


def test_names_are_escaped() -> None:
    svg = bits_strip({'"><script>alert(1)</script>': 8})
    assert "<script" not in svg
    assert len(cells(svg)) == 1


def test_odd_bit_widths_take_the_nearest_colour() -> None:
    assert bit_color(5) == BIT_COLORS[4]
    assert bit_color(64) == BIT_COLORS[32]
