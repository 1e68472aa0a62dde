"""A decoder with 2 to 8 bits a layer: perplexity against size and against the latency of a token.

    python -m benchmarks.llm_weight_only                  the parts that have no figures yet
    python -m benchmarks.llm_weight_only --part quality   one of quality, latency, search anew
    python -m benchmarks.llm_weight_only --page           docs/llm_weight_only.md and its picture from the figures

The decoder (:mod:`benchmarks.decoder`) is trained once and kept in the user's cache folder. No part trains it further.

- **quality**: every uniform format, by our compressor as it is, and rounded to nearest alone; and the same float model
  as ``MatMulNBitsQuantizer`` of ONNX Runtime makes it, 32 weights a scale. Perplexity is that of ONNX Runtime.
- **latency**: one token behind a context, exported with its cache as inputs, timed in ONNX Runtime on one thread (the
  fastest tenth of runs that take turns, because other work on the machine only adds) and priced.
- **search**: one search over the bits of every layer, with and without activations of 8 bits.

Exit code 0 where every bar is reached. Figures go to benchmarks/results/llm_weight_only.json after every step.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import kneepoint as kp
from benchmarks import llm_weight_only_rival as rival
from benchmarks.decoder import CONTEXT, decoder_task, large_decoder
from kneepoint.compression import Compressor, StudentStore
from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings, QuantizationSettings
from kneepoint.deployment import runtime, to_onnx
from kneepoint.deployment.calibration import hardware
from kneepoint.deployment.parity import compare
from kneepoint.deployment.template import template_of
from kneepoint.deployment.tidying import tidy
from kneepoint.deployment.writing import write
from kneepoint.hardware_models import CostModel, Device, Workload, load_device
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.decoding import decoding_step
from kneepoint.tasks.task import Task

RESULTS = Path(__file__).parent / "results" / "llm_weight_only.json"
FLOATS = ("w2-g32", "w3-g32", "w4-g32", "w8-g32")
BYTES = ("w2a8-dynamic-g32", "w3a8-dynamic-g32", "w4a8-dynamic-g32", "w8a8-dynamic-g32")
FORMATS = ("w32", *FLOATS, *BYTES, "w4-g64", "w4-g128")
RIVAL_BITS = (2, 4, 8)
TIMED = ("w32", "w2-g32", "w4-g32", "w8-g32", "w2a8-dynamic-g32", "w4a8-dynamic-g32", "w8a8-dynamic-g32")
LATENCY_SECONDS = 3.0
TURN, WARM_UP = 10, 3
"""Runs of a model before the next has its turn, and how many of them only bring its weights back into the caches."""
TRIALS = 60
DEVICE = "x86-server"
TO_NEAREST = CompressionSettings(quantization=QuantizationSettings(learned_bits=0))
UNTRAINED = CompressionSettings(recovery=Distillation(steps=1, learning_rate=1e-9))
"""Networks as they are calibrated: a step that changes nothing stands for their recovery."""
Figures = dict[str, Any]
Save = Callable[[Figures], None]


def uniform(space: JointSpace, name: str) -> Policy:
    """Every layer in a format, or the nearest to it that it has."""
    form = LayerPolicy.parse(name)
    return Policy.build(layers={key: layer.admit(form) for key, layer in space.teacher.layers.items()})


# --- quality -------------------------------------------------------------------------------------------------------


def measure_quality(save: Save) -> None:
    """Perplexity and bytes of every uniform format, ours and the rival's."""
    task = decoder_task()
    space = joint_space(task, (*FORMATS[1:], 32), (1.0,), students=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = Compressor(space, StudentStore(folder))
        plain = Compressor(space, StudentStore(folder), settings=TO_NEAREST)
        for form in FORMATS:
            save({f"ours {form}": _quality(ours, task, form)})
            if form in FLOATS:
                save({f"to nearest {form}": _quality(plain, task, form)})
        path = rival.folded(to_onnx(ours.compress(Policy()), task.example_input), folder)
        for bits in RIVAL_BITS:
            for label, config in rival.variants(bits):
                save({f"rival {bits}, {label}": _rival_quality(path, config, task)})


def _quality(compressor: Compressor, task: Task, form: str) -> Figures:
    compressed = compressor.compress(uniform(compressor.space, form))
    data = to_onnx(compressed, task.example_input).SerializeToString()
    parity = compare(data, task, compressed.module)
    return {
        "perplexity": parity.executed.value,
        "error": parity.executed.error,
        "simulated": parity.simulated.value,
        "agreement": parity.agreement,
        "bytes": len(data),
    }


def _rival_quality(path: Path, config: Any, task: Task) -> Figures:
    try:
        data = rival.quantized(path, config).SerializeToString()
        score = runtime.score(runtime.open_session(data), task)
    except Exception as error:  # the tools raise whatever comes
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    return {"perplexity": score.value, "error": score.error, "bytes": len(data)}


# --- latency -------------------------------------------------------------------------------------------------------


def measure_latency(save: Save) -> None:
    """Measured and priced milliseconds of a token, of the trained decoder and of a larger one with random weights."""
    shipped, own = load_device(DEVICE), this_machine()
    facts = own.model_dump(mode="json", include={"bandwidth_gb_s", "caches", "floor_us"})
    save({"machine": facts})
    for name, model in (("small", decoder_task().model), ("large", large_decoder())):
        step, inputs = decoding_step(model, CONTEXT)
        batch = (inputs, torch.zeros(1))
        task = Task(step.eval(), inputs, [batch, batch], [batch], name=name)
        space = joint_space(task, (*TIMED[1:], 32), (1.0,), students=None)
        found: dict[str, Figures] = {form: {} for form in TIMED}
        models: dict[str, bytes] = {}
        for form, policy in ((form, uniform(space, form)) for form in TIMED):
            table = lower(space.teacher, policy)
            for label, device in (("shipped", shipped), ("own", own)):
                found[form][label] = CostModel(device).cost(Workload.of(table, device.fusion)).latency_ms
            found[form]["bytes"] = table.storage_bytes
            models[form] = _written(space, task, policy, inputs)
        for form, latency in token_latencies(models, inputs).items():
            found[form]["measured"] = latency
        save({name: found})


def this_machine() -> Device:
    """The shipped device with the bandwidths of this machine, and what launching a kernel takes here."""
    bandwidth = hardware.main_memory_gb_s()
    return load_device(DEVICE).model_copy(
        update={
            "name": "this-machine",
            "bandwidth_gb_s": bandwidth,
            "caches": hardware.caches(bandwidth),
            "floor_us": {"default": launch_us()},
        }
    )


def launch_us(kernels: int = 200) -> float:
    """Microseconds of a kernel that does next to nothing: of a chain of them, in the fastest tenth of runs."""
    kinds = ("Mul", "Add")
    nodes = [helper.make_node(kinds[i % 2], [f"t{i}", "c"], [f"t{i + 1}"]) for i in range(kernels)]
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("t0", [64]), (f"t{kernels}", None))
    )
    constant = numpy_helper.from_array(np.full(64, 1.01, np.float32), "c")
    imports = [helper.make_opsetid("", 21)]
    graph = helper.make_graph(nodes, "chain", [given], [made], [constant])
    data = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    return token_latencies({"chain": data}, (torch.ones(64), ()))["chain"] * 1e3 / kernels


def _written(space: JointSpace, task: Task, policy: Policy, inputs: Any) -> bytes:
    """The step in a policy's formats; all of them come from one export."""
    if space not in _templates:
        compressor = Compressor(space, StudentStore(Path(tempfile.gettempdir())), settings=TO_NEAREST)
        _templates[space] = compressor, template_of(compressor.compress(Policy()), inputs)
    compressor, template = _templates[space]
    model: onnx.ModelProto = write(template, compressor.compress(policy))
    tidy(model)
    return bytes(model.SerializeToString())


_templates: dict[JointSpace, Any] = {}


def token_latencies(models: Mapping[str, bytes], inputs: Any) -> dict[str, float]:
    """Milliseconds of a token on one thread: the fastest tenth of runs that take turns."""
    sessions = {name: runtime.open_session(data) for name, data in models.items()}
    values = [inputs[0].numpy(), *(part.numpy() for part in inputs[1])]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    end = time.perf_counter() + LATENCY_SECONDS * len(sessions)
    while time.perf_counter() < end or min(map(len, times.values())) < 20:
        for name, session in sessions.items():
            feed = {entry.name: value for entry, value in zip(session.get_inputs(), values, strict=True)}
            for run in range(TURN):
                start = time.perf_counter()
                session.run(None, feed)
                if run >= WARM_UP:
                    times[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.percentile(found, 10)) for name, found in times.items()}


# --- search --------------------------------------------------------------------------------------------------------


def measure_search(save: Save) -> None:
    """One search over the formats of every layer."""
    task = decoder_task()
    space = joint_space(task, (*FLOATS, *BYTES, 32), (1.0,), students=None)
    token = kp.LatencyPerToken(DEVICE, context=CONTEXT)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = kp.search(
            task,
            space,
            objectives=[kp.Accuracy(), kp.Size(), token],
            constraints=["perplexity <= 2 * teacher"],
            trials=TRIALS,
            settings=UNTRAINED,
            seed=0,
            out=folder,
        )
        seconds = time.perf_counter() - started
        content = json.loads((Path(folder) / "front.json").read_text())
        records = [json.loads(line) for line in (Path(folder) / "trials.jsonl").read_text().splitlines()]
    members = [entry for entry in content["candidates"] if entry["id"] in content["fronts"]["all"]]
    volumes = {name: entry["hypervolume"] for name, entry in content["baselines"].items()}
    save(
        {
            "seconds": seconds,
            "size": space.size,
            "hypervolume": result.front.hypervolume,
            "baselines": volumes,
            "front": [_member(entry, token.name) for entry in members],
            "uniform": list(_uniform_records(records, space, token.name)),
        }
    )


def _uniform_records(records: Iterable[Mapping[str, Any]], space: JointSpace, latency: str) -> Iterator[Figures]:
    """Uniform formats as the search itself measured them, calibrated."""
    names = {uniform(space, name).id: name for name in (*FLOATS, *BYTES, "w32")}
    seen = set()
    for record in records:
        name = names.get(record["policy_id"])
        if name is not None and name not in seen and record.get("scores"):
            seen.add(name)
            yield {"name": name, **_member({**record, "baseline": None}, latency)}


def _member(entry: Mapping[str, Any], latency: str) -> Figures:
    scores = entry["scores"]
    forms = Counter(LayerPolicy.from_json(layer).name for layer in entry["policy"]["layers"].values())
    return {
        "id": entry["id"],
        "perplexity": scores["perplexity"]["value"],
        "error": scores["perplexity"]["error"],
        "executed": (entry.get("executed") or {}).get("perplexity", {}).get("value"),
        "size_mb": scores["size_mb"]["value"],
        "token_ms": scores[latency]["value"],
        "formats": dict(sorted(forms.items())),
        "layers": {name: LayerPolicy.from_json(layer).name for name, layer in entry["policy"]["layers"].items()},
    }


# --- bars ----------------------------------------------------------------------------------------------------------


def bars_of(results: Mapping[str, Figures]) -> Iterator[tuple[str, bool, str]]:
    """What must hold, for the parts that have figures: (what, whether it does, the figure)."""
    if quality := results.get("quality"):
        for bits in RIVAL_BITS:
            yield _against_rival(quality, bits)
        worst = max(abs(math.log(q["perplexity"] / q["simulated"])) for q in quality.values() if "simulated" in q)
        yield "the simulator's perplexity is ONNX Runtime's within 0.5 %", worst <= 0.005, f"{100 * worst:.3f} %"
    if search := results.get("search"):
        best = max(search["baselines"].values(), default=0.0)
        said = f"{search['hypervolume']:.4f} against {best:.4f}"
        yield "the front covers more than any baseline", search["hypervolume"] > best, said
        beaten = [one["id"] for one in search["front"] for other in search["uniform"] if _beats(other, one)]
        yield (
            "no uniform format beats a member of the front by 0.5 %",
            not beaten,
            f"{len(beaten)} beaten",
        )


def _beats(one: Figures, other: Figures) -> bool:
    """By more than the front leaves to noise: it keeps what others dominate by less than two standard errors."""
    cheaper = all(one[cost] <= other[cost] for cost in ("size_mb", "token_ms"))
    return cheaper and bool(one["perplexity"] * 1.005 < other["perplexity"])


def _against_rival(quality: Figures, bits: int) -> tuple[str, bool, str]:
    ours = quality[f"ours w{bits}-g32"]
    theirs = {name: one for name, one in quality.items() if name.startswith(f"rival {bits},") and "perplexity" in one}
    name, best = min(theirs.items(), key=lambda item: float(item[1]["perplexity"]))
    said = f"{ours['perplexity']:.3f} against {best['perplexity']:.3f} ({name})"
    return f"{bits} bits: no worse than MatMulNBitsQuantizer at its best", _reached(ours, best), said


def _reached(ours: Figures, best: Figures) -> bool:
    return bool(ours["perplexity"] <= best["perplexity"] * 1.001)


PARTS: Mapping[str, Callable[[Save], None]] = {
    "quality": measure_quality,
    "latency": measure_latency,
    "search": measure_search,
}


def main() -> int:
    """Measure what is missing, write the figures after every step, hold them against the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=[])
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    results: dict[str, Figures] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in [] if arguments.page else arguments.part or [name for name in PARTS if name not in results]:
        results[part] = {}

        def save(found: Figures, part: str = part) -> None:
            results[part] |= found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")

        PARTS[part](save)
    if arguments.page:
        from benchmarks.llm_weight_only_page import write_page

        write_page(results)
    bars = list(bars_of(results))
    for what, reached, figure in bars:
        print(f"{'PASS' if reached else 'FAIL'}  {what}: {figure}")
    return 0 if all(reached for _, reached, _ in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
