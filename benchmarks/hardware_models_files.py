"""The networks of hardware_models.py, compressed and written as ONNX files, which are kept until something changes."""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

import kneepoint
from benchmarks import hardware_models_networks
from benchmarks.hardware_models_networks import ATTENTIVE, SUBJECTS
from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.compressor import Compressor
from kneepoint.compression.settings import CompressionSettings, QuantizationSettings
from kneepoint.compression.student_store import StudentStore
from kneepoint.deployment.template import Template, template_of
from kneepoint.deployment.tidying import tidy
from kneepoint.deployment.writing import write
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.widths import CHANNEL_MULTIPLE
from kneepoint.tasks.metrics import classification_loss
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task

ROOT = Path(__file__).resolve().parent.parent
MIXED = "mixed"
MIXED_FORMATS = {True: ("w32", "w8a8", "w8a8-dynamic", "w4-g32", "w4a8"), False: ("w32", "w8a8", "w4a8", "w16")}
"""What a mixed policy draws from, by whether the network is mostly linear layers."""
SMALLEST_KEEP = 0.4
_WRITERS = (
    "compression/*.py",
    "spaces/*.py",
    "deployment/attention.py",
    "deployment/group_packing.py",
    "deployment/input_independence.py",
    "deployment/template.py",
    "deployment/tidying.py",
    "deployment/writing.py",
)
_PRICING = (
    "attention", "constant_folding", "exported_forms", "lookup_slots", "lookup_tables", "lowering", "moves",
    "network_parts", "operator_attributes", "policy_codes", "policy_prices",
)  # fmt: skip
_READERS = frozenset({("spaces", f"{name}.py") for name in _PRICING})
"""Sources among them that decide about prices alone."""
_SAMPLES = 8
# Latency does not depend on what the values are, so they need not be good.
_SETTINGS = CompressionSettings(
    calibration_samples=_SAMPLES,
    quantization=QuantizationSettings(weight_scale="minmax", learned_bits=0, bias_correction=False),
    importance="l2",
)


@dataclass(frozen=True)
class Case:
    """One network, compressed one way, run one way.

    Attributes:
        network: Its name among the subjects.
        variant: How it is compressed.
        threads: Of the runtime.
        batch: Samples of one inference.
    """

    network: str
    variant: str
    threads: int
    batch: int

    @property
    def name(self) -> str:
        """All of it: ``resnet18-96/w8a8@0.5/t2b1`` has two threads and a batch of one."""
        return f"{self.network}/{self.variant}/t{self.threads}b{self.batch}"

    @property
    def family(self) -> str:
        """Of the network."""
        return SUBJECTS[self.network].family


def cases(networks: tuple[str, ...] | None = None) -> list[Case]:
    """Every case of the networks; of all of them by default."""
    return [
        Case(name, variant, *setting)
        for name in (SUBJECTS if networks is None else networks)
        for variant in SUBJECTS[name].variants
        for setting in SUBJECTS[name].settings
    ]


def path_of(folder: Path, network: str, variant: str) -> Path:
    """Where a network's file is, or will be; another place once a source or a library changes that decides about it."""
    digest = hashlib.sha256(f"{_sources()} {network} {variant}".encode()).hexdigest()[:12]
    return folder / f"{network}-{variant}-{digest}.onnx"


@lru_cache
def _sources() -> str:
    """A digest of whatever decides what is written."""
    package = Path(kneepoint.__file__).parent
    paths = [path for pattern in _WRITERS for path in sorted(package.glob(pattern))]
    here = Path(__file__), Path(hardware_models_networks.__file__)
    parts = [path.read_bytes() for path in (*paths, *here) if (path.parent.name, path.name) not in _READERS]
    versions = [version(name) for name in ("torch", "onnx", "onnxscript", "transformers")]
    return hashlib.sha256(b"\0".join([*parts, *(text.encode() for text in versions)])).hexdigest()


def prepare(network: str, folder: Path) -> Iterator[Path]:
    """Writes the files of one network that are not there yet, one at a time."""
    missing = [name for name in SUBJECTS[network].variants if not path_of(folder, network, name).is_file()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(network)
    for variant in missing:
        path = path_of(folder, network, variant)
        partial = path.with_suffix(".partial")
        partial.write_bytes(maker.file(variant))
        yield partial.replace(path)


class Maker:
    """Makes the policies, and the files, of one network.

    Args:
        network: Its name among the subjects.
    """

    def __init__(self, network: str) -> None:
        self.name = network
        self.subject = SUBJECTS[network]
        self._templates: OrderedDict[str, Template] = OrderedDict()

    def file(self, variant: str) -> bytes:
        """The artifact of a variant, as ``kneepoint.deployment.to_onnx`` writes it."""
        with seeded(0):
            compressed = self._compressor(variant).compress(self.policy(variant))
            model = write(self._template(variant, compressed), compressed)
        tidy(model)
        onnx.helper.set_model_props(model, {"kneepoint.policy": compressed.policy.id})
        return bytes(model.SerializeToString())

    def policy(self, variant: str) -> Policy:
        """What a variant asks for, as far as every layer admits it."""
        network = self.network(variant)
        if variant == MIXED:
            return _mixed(network, self.name, MIXED_FORMATS[self.subject.variants == ATTENTIVE])
        name, _, keep = variant.partition("@")
        layers = {layer: found.admit(LayerPolicy.parse(name)) for layer, found in network.layers.items()}
        return Policy.build(keep=dict.fromkeys(network.groups, float(keep or 1)), layers=layers)

    def network(self, variant: str) -> Network:
        """The traced network that the variant's policy is for."""
        return self._compressor(variant).space.teacher

    def _compressor(self, variant: str) -> Compressor:
        return self._odd if variant == MIXED else self._round

    @cached_property
    def _round(self) -> Compressor:
        return self._compressor_of(CHANNEL_MULTIPLE)

    @cached_property
    def _odd(self) -> Compressor:
        return self._compressor_of(1)

    def _compressor_of(self, channel_multiple: int) -> Compressor:
        space = JointSpace(self._task, keep=(1.0, 0.5), students=None, channel_multiple=channel_multiple)
        return Compressor(space, StudentStore(ROOT), settings=_SETTINGS)  # there are no students to store

    @cached_property
    def _task(self) -> Task:
        with seeded(0):
            batches = [torch.cat([self.subject.example() for _ in range(_SAMPLES)]) for _ in range(2)]
            module = self.subject.build()
            _set_statistics(module, batches[0])
        data = [(batch, torch.zeros(_SAMPLES, dtype=torch.long)) for batch in batches]
        return Task(module, batches[0][:1], data, data, metric=_first_output, loss=_loss, name=self.name)

    def _template(self, variant: str, compressed: CompressedNetwork) -> Template:
        """The exported graph that variants of the same width share."""
        width = MIXED if variant == MIXED else variant.partition("@")[2]
        if width not in self._templates:
            self._templates[width] = template_of(compressed, self._task.example_input)
        return self._templates[width]


def policies(network: str) -> Mapping[str, tuple[Network, Policy]]:
    """The traced network and the policy of every variant: a price of these needs no file."""
    maker = Maker(network)
    return {variant: (maker.network(variant), maker.policy(variant)) for variant in SUBJECTS[network].variants}


def _mixed(network: Network, seed: str, formats: tuple[str, ...]) -> Policy:
    """A random format for every layer, a random share of channels for every group."""
    draw = random.Random(seed)  # noqa: S311 - a benchmark's choice, not a secret
    layers = {name: layer.admit(LayerPolicy.parse(draw.choice(formats))) for name, layer in network.layers.items()}
    keep = {group: draw.uniform(SMALLEST_KEEP, 1.0) for group in network.groups}
    return Policy.build(keep=keep, layers=layers)


def _set_statistics(module: nn.Module, batch: Tensor) -> None:
    """BatchNorm's, as training would leave them; else values fade over many layers, and numbers near zero are slow."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        module.train()(batch)
    module.eval()


def _first_output(outputs: Any, targets: Any) -> float:
    """A metric for random weights: any number that the outputs determine."""
    return float((outputs if isinstance(outputs, Tensor) else outputs["logits"]).double().mean())


def _loss(outputs: Any, targets: Any) -> Tensor:
    return classification_loss(outputs if isinstance(outputs, Tensor) else outputs["logits"], targets)
