"""docs/llm_weight_only.md, from the figures of llm_weight_only.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.llm_weight_only_picture import draw

DOCS = Path(__file__).parent.parent / "docs"
_INTRODUCTION = """# A decoder in few bits

A small Llama (grouped-query attention, tied embeddings), trained for minutes on the docstrings of installed packages,
with 2, 3, 4 or 8 bits a layer and a scale for every 32 weights. `python -m benchmarks.llm_weight_only` measures it and
writes this page; [raw figures](../benchmarks/results/llm_weight_only.json). Linear layers are MatMulNBits in ONNX
Runtime, the table of embeddings is looked up by GatherBlockQuantized, and the tied head reads the same bytes.
"""
_QUALITY = """
## The same bits, the same runtime

Perplexity on validation texts as ONNX Runtime reaches it, without training. *To nearest* is ours without learned
rounding. 3 bits are stored in 4: neither MatMulNBits nor any type of ONNX holds 3.
"""
_LATENCY = """
## One token

A token behind a cache of {context} tokens, one thread, milliseconds: measured in ONNX Runtime (fastest tenth of runs),
and priced with the shipped `x86-server`, and with its rates beside the machine's own bandwidths ({bandwidth:.0f} GB/s
from main memory) and time of launching a kernel ({launch:.2f} us). The small decoder is the trained one; the large one
has {millions:.0f} million random weights. `w4-g32` computes on floats, `w4a8-dynamic-g32` on bytes.
"""
_SEARCH = """
## The search

![Perplexity against size and latency](llm_weight_only.png)

Of uniform formats the numbers are their bits; those whose kernels unpack all weights at every token (`w2-g32` and
`w8-g32`) are off the right panel. The standard error of every perplexity is about 2.4, nearly all of it shared:
differences between formats are far better known than that.

{trials} candidates out of {size:.0e}, {seconds:.0f} s: hypervolume {hypervolume:.4f}; the best baseline has {best:.4f}.
"""


def write_page(results: Mapping[str, Any]) -> None:
    """The page, and its picture."""
    search, quality = results["search"], results["quality"]
    draw(search["front"], search["uniform"], DOCS / "llm_weight_only.png")
    parts = [
        _INTRODUCTION,
        _QUALITY,
        *_quality_rows(quality),
        *_latency_part(results["latency"]),
        *_search_part(search),
    ]
    (DOCS / "llm_weight_only.md").write_text("\n".join(parts).replace("\n\n\n", "\n\n") + "\n")


def _quality_rows(quality: Mapping[str, Any]) -> Iterator[str]:
    yield "| format | perplexity | one standard error | simulated | file, kB |"
    yield "|---|---|---|---|---|"
    for name, figures in quality.items():
        if "failed" in figures:
            yield f"| {_named(name)} | does not run: {figures['failed'].split(':')[0]} | | | |"
            continue
        simulated = f"{figures['simulated']:.3f}" if "simulated" in figures else ""
        shown = f"{figures['perplexity']:.3f} | {figures['error']:.2f} | {simulated} | {figures['bytes'] / 1e3:,.0f}"
        yield f"| {_named(name)} | {shown} |"


def _named(name: str) -> str:
    return name.replace("rival", "MatMulNBitsQuantizer").replace("ours ", "")


def _latency_part(latency: Mapping[str, Any]) -> Iterator[str]:
    machine, large = latency["machine"], latency["large"]
    yield _LATENCY.format(
        context=128,
        bandwidth=machine["bandwidth_gb_s"],
        launch=machine["floor_us"]["default"],
        millions=large["w32"]["bytes"] / 4e6,
    )
    columns = "measured | `x86-server` | own figures"
    yield f"| format | small: {columns} | large: {columns} |"
    yield "|---|---|---|---|---|---|---|"
    for form in large:
        cells = [
            f"{latency[name][form][kind]:.2f}" for name in ("small", "large") for kind in ("measured", "shipped", "own")
        ]
        yield f"| {form} | {' | '.join(cells)} |"
    yield ""
    for name in ("small", "large"):
        errors = {kind: [_error(one, kind) for one in latency[name].values()] for kind in ("shipped", "own")}
        said = "; ".join(
            f"{label} {100 * np.median(errors[kind]):.0f} % (largest {100 * max(errors[kind]):.0f} %)"
            for kind, label in (("shipped", "`x86-server`"), ("own", "own figures"))
        )
        yield f"Median error of the {name} one's predictions: {said}."


def _error(figures: Mapping[str, float], kind: str) -> float:
    return abs(figures[kind] / figures["measured"] - 1)


def _search_part(search: Mapping[str, Any]) -> Iterator[str]:
    yield _SEARCH.format(trials=60, best=max(search["baselines"].values()), **{
        name: search[name] for name in ("size", "seconds", "hypervolume")
    })  # fmt: skip
    yield "Uniform formats as the search measured them stand behind the front.\n"
    yield "| perplexity | in ONNX Runtime | size, MB | token, ms | layers by format |"
    yield "|---|---|---|---|---|"
    fronts = sorted(search["front"], key=lambda entry: float(entry["size_mb"]))
    for one in (*fronts, *search["uniform"]):
        forms = one.get("name") or ", ".join(f"{count} {name}" for name, count in one["formats"].items()) or "w32"
        executed = f"{one['executed']:.3f}" if one["executed"] is not None else ""
        shown = f"{one['perplexity']:.3f} ± {one['error'] or 0:.2f} | {executed} | {one['size_mb']:.3f}"
        yield f"| {shown} | {one['token_ms']:.3f} | {forms} |"
