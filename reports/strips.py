"""A policy as small pictures: the bits of every layer as a strip of colours, the kept fractions as a strip of bars."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from kneepoint.reports.wording import printable

# From few bits, dark, to many, pale: the colours differ in lightness, so that they survive print and colour blindness.
BIT_COLORS = {2: "#4c1d6e", 3: "#5b2f8f", 4: "#6d4bc3", 6: "#5f7fd4", 8: "#4fa3d9", 16: "#9fd3d6", 32: "#dfe5e8"}
_HEIGHT = 18
_WIDTH = 150
_WIDEST = 10.0


def bits_strip(bits: Mapping[str, int]) -> str:
    """An SVG of one coloured cell a layer; the text alternative lists the layers. Empty without layers."""
    cells = [(name, f"{count} bits", bit_color(count), 1.0) for name, count in bits.items()]
    return _strip("weight bits by layer", cells)


def kept_strip(kept: Mapping[str, float]) -> str:
    """An SVG of one bar a channel group, as high as what is kept; the text alternative lists the groups."""
    cells = [(name, f"{100 * share:.0f}%", "var(--accent)", share) for name, share in kept.items()]
    return _strip("kept share by channel group", cells)


def bit_color(count: int) -> str:
    """The colour of the nearest bit-width that has one, the narrower one of two."""
    return BIT_COLORS[min(BIT_COLORS, key=lambda known: (abs(known - count), known))]


def _strip(what: str, cells: list[tuple[str, str, str, float]]) -> str:
    """Cells of (name, text, colour, height from 0 to 1), each with a tooltip of its own."""
    if not cells:
        return ""
    width = min(_WIDEST, _WIDTH / len(cells))
    gap = 1.0 if width > 4 else 0.0
    parts = []
    for at, (name, text, color, share) in enumerate(cells):
        title = f"<title>{_safe(name)}: {text}</title>"
        height = max(1.0, share * _HEIGHT)
        parts.append(
            f'<rect x="{at * width:.2f}" y="{_HEIGHT - height:.2f}" width="{width - gap:.2f}" height="{height:.2f}" '
            f'fill="{color}">{title}</rect>'
        )
    listing = ", ".join(f"{_safe(name)} {text}" for name, text, _, _ in cells)
    total = width * len(cells)
    return (
        f'<svg class="strip" role="img" aria-label="{what}: {listing}" width="{total:.0f}" height="{_HEIGHT}" '
        f'viewBox="0 0 {total:.2f} {_HEIGHT}">{"".join(parts)}</svg>'
    )


def _safe(text: str) -> str:
    return escape(printable(text))
