"""A DistilBERT-type classifier, trained from scratch on documentation, and the student that one search finds for it.

    python -m benchmarks.text_classifier                    everything, about 15 minutes on a busy core
    python -m benchmarks.text_classifier --students auto    students derived from the model's configuration
    python -m benchmarks.text_classifier --fresh            forgets the teacher and the search of an earlier run

Texts are the prose of docstrings of eight packages that are installed with kneepoint, their names masked; the class is
the package; modules are whole in training, validation or test. Validation data picks the student, test data judges it.
Teacher and student are timed in ONNX Runtime, in turns, in a fresh process, batch 1, one thread. Bars: at most 60 % of
the parameters, at least 1.6 times as fast, at least 95 % of the teacher's accuracy. What was done is kept in the run
directory and gone on with. Figures go to benchmarks/results/text_classifier.json (`seconds` are those of the last
call); the exit code is 0 where all bars are reached.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

import kneepoint as kp
from kneepoint.deployment import runtime
from kneepoint.tasks import documentation
from kneepoint.tasks.documentation import Document, load_documents
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.training import fit
from kneepoint.tasks.vocabulary import PADDING, UNKNOWN, Vocabulary, split_words

RESULTS = Path(__file__).parent / "results" / "text_classifier.json"
RUN = Path("runs/text_classifier")
LENGTH, WORDS, BATCH = 40, 4000, 64
HIDDEN_WORDS = 0.25
"""Of a training text, other ones at every pass: less overfitting, and more for students to learn from."""
START = "§"
"""What every text begins with: the token whose last features are classified."""
TEACHER_EPOCHS, TEACHER_RATE, DROPOUT = 9, 1e-3, 0.2
SHARE, SPEED, KEPT = 0.6, 1.6, 0.95
AXES = {"layers": (1, 2), "hidden": (96, 128), "heads": (4,), "ffn": (256,)}
LATENCY = "latency_ms@x86-server"
TEACHER = "teacher fp32"  # as baselines are called
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Split:
    """Texts as numbers.

    Attributes:
        ids: Words, shape (texts, LENGTH).
        mask: 1 where there is a word, the same shape.
        labels: Of the packages, shape (texts,).
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor

    @classmethod
    def of(cls, documents: Sequence[Document], vocabulary: Vocabulary) -> Split:
        """Of the documents of a split."""
        ids, mask = vocabulary.encode([f"{START} {one.text}" for one in documents], LENGTH)
        labels = torch.tensor([documentation.PACKAGES.index(one.package) for one in documents])
        return cls(ids, mask, labels)

    def batch(self, chosen: Tensor) -> tuple[Inputs, Tensor]:
        """Some of the texts, as a batch."""
        return {"input_ids": self.ids[chosen], "attention_mask": self.mask[chosen]}, self.labels[chosen]

    def batches(self) -> list[tuple[Inputs, Tensor]]:
        """All of them, in order."""
        return [self.batch(chosen) for chosen in torch.arange(len(self.labels)).split(BATCH)]


@dataclass(frozen=True)
class TrainingBatches:
    """Whole batches in another order at every pass, with other words hidden; torch's global generator decides."""

    split: Split

    def __len__(self) -> int:
        return len(self.split.labels) // BATCH

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for chosen in torch.randperm(len(self.split.labels)).split(BATCH)[: len(self)]:
            inputs, labels = self.split.batch(chosen)
            hidden = (torch.rand(inputs["input_ids"].shape) < HIDDEN_WORDS) & (inputs["input_ids"] != PADDING)
            hidden[:, 0] = False
            yield {**inputs, "input_ids": inputs["input_ids"].masked_fill(hidden, UNKNOWN)}, labels


def build(layers: int, hidden: int, heads: int, ffn: int, dropout: float = 0.1) -> nn.Module:
    """An untrained classifier of the teacher's kind; its weights come from torch's global generator."""
    configuration = DistilBertConfig(
        vocab_size=WORDS,
        max_position_embeddings=LENGTH,
        n_layers=layers,
        dim=hidden,
        n_heads=heads,
        hidden_dim=ffn,
        dropout=dropout,
        attention_dropout=dropout,
        seq_classif_dropout=dropout,
    )
    configuration.num_labels = len(documentation.PACKAGES)
    return DistilBertForSequenceClassification(configuration)


def inherit(teacher: nn.Module, **axes: int) -> nn.Module:
    """A student that starts with the teacher's tensors where it has the same ones, such as embeddings."""
    student, own = build(**axes), teacher.state_dict()
    state = student.state_dict()
    student.load_state_dict({name: own[name] if shared(name, value, own) else value for name, value in state.items()})
    return student


def shared(name: str, value: Tensor, own: dict[str, Tensor]) -> bool:
    """Whether the teacher has a tensor of that name and shape."""
    return name in own and own[name].shape == value.shape


def make_task(run: Path) -> kp.Task:
    """The problem, with a teacher that is trained once a run directory."""
    documents = load_documents()
    parts = {name: [one for one in documents if one.split == name] for name in ("train", "validation", "test")}
    vocabulary = Vocabulary.of([f"{START} {one.text}" for one in parts["train"]], WORDS)
    train, validation, test = (Split.of(part, vocabulary) for part in parts.values())
    teacher = trained_teacher(TrainingBatches(train), run / "teacher.safetensors")
    example = {name: value[:1] for name, value in validation.batches()[0][0].items()}
    batches = TrainingBatches(train), validation.batches(), test.batches()
    return kp.Task(teacher, example, *batches, metric=kp.metrics.accuracy, name="text-classifier")


def trained_teacher(train: TrainingBatches, path: Path) -> nn.Module:
    """Four layers of 128 features, trained from scratch unless the file has them."""
    with seeded(0):
        teacher = build(layers=4, hidden=128, heads=4, ffn=512, dropout=DROPOUT)
    if path.exists():
        teacher.load_state_dict(load_file(path))
        return teacher.eval()

    def tell(done: int, total: int, loss: float) -> None:
        if done % 100 == 0:
            print(f"teacher: step {done} of {total}, loss {loss:.3f}", file=sys.stderr, flush=True)

    fit(teacher, train, batch_loss, epochs=TEACHER_EPOCHS, learning_rate=TEACHER_RATE, on_progress=tell)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in teacher.state_dict().items()}, path)
    return teacher.eval()


def by_words() -> dict[str, float]:
    """Accuracy of the commonest class and of a linear model of words (TF-IDF, logistic regression), for comparison."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    parts = {name: [one for one in load_documents() if one.split == name] for name in ("train", "validation", "test")}
    texts = {name: [one.text for one in part] for name, part in parts.items()}
    labels = {name: [one.package for one in part] for name, part in parts.items()}
    words = TfidfVectorizer(tokenizer=split_words, token_pattern=None, max_features=WORDS)
    model = LogisticRegression(C=5.0, max_iter=300).fit(words.fit_transform(texts["train"]), labels["train"])
    commonest = max(set(labels["train"]), key=labels["train"].count)
    return {
        "commonest class, test": labels["test"].count(commonest) / len(labels["test"]),
        "linear, validation": float(model.score(words.transform(texts["validation"]), labels["validation"])),
        "linear, test": float(model.score(words.transform(texts["test"]), labels["test"])),
    }


def batch_loss(module: nn.Module, inputs: Inputs, labels: Tensor) -> Tensor:
    """Cross-entropy of one batch."""
    return kp.losses.classification_loss(module(**inputs), labels)


def search(task: kp.Task, students: Literal["auto", "own"], trials: int, steps: int, run: Path) -> kp.Result:
    """The one search: students in 8-bit integers and in floats."""
    own = kp.StudentFamily(functools.partial(inherit, task.model), AXES)
    return kp.search(
        task,
        kp.joint_space(task, weight_bits=(8, 16), keep=(1.0,), students="auto" if students == "auto" else own),
        objectives=[kp.Accuracy(), kp.Latency("x86-server"), kp.Parameters()],
        constraints=[f"parameters <= {SHARE} * teacher"],
        settings=kp.CompressionSettings(
            student=kp.Distillation(steps=steps, learning_rate=2e-3),
            recovery=kp.Distillation(steps=steps // 10, learning_rate=3e-4),
        ),
        trials=trials,
        out=run / f"search-{students}",
    )


def pick(result: kp.Result, floats: bool) -> kp.Candidate | None:
    """The most accurate on validation data that is predicted to be fast enough; in floats alone, or in any formats."""
    limit = result.front.teacher[LATENCY] / SPEED
    fast = [one for one in result.front if one.values[LATENCY] <= limit and (not floats or in_floats(one))]
    return max(fast, key=lambda one: one.values["accuracy"], default=None)


def in_floats(candidate: kp.Candidate) -> bool:
    """Whether no layer computes on integers, so that the architecture alone makes it faster."""
    return all(layer.weight_bits == 16 for _, layer in candidate.policy.layers)


def facts_of(candidate: kp.Candidate, path: Path, task: kp.Task) -> dict[str, Any]:
    """What a deployed model is: its architecture and parameters, and what ONNX Runtime answers on both splits."""
    session = runtime.open_session(path)
    return {
        "student": dict(candidate.policy.student) or "teacher",
        "bits": sorted({layer.weight_bits for _, layer in candidate.policy.layers}),
        "parameters": int(candidate.values["parameters"]),
        "bytes": path.stat().st_size,
        "validation": runtime.score(session, task, "validation").to_json(),
        "test": runtime.score(session, task, "test").to_json(),
    }


def judged(teacher: dict[str, Any], student: dict[str, Any], ratio: float) -> dict[str, dict[str, Any]]:
    """The bars, and whether they are reached; accuracies of validation and test data alike."""
    kept = min(student[split]["value"] / teacher[split]["value"] for split in ("validation", "test"))
    share, speed = student["parameters"] / teacher["parameters"], 1 / ratio
    return {
        "share of the parameters": {"value": round(share, 3), "bar": SHARE, "reached": share <= SHARE},
        "times as fast": {"value": round(speed, 2), "bar": SPEED, "reached": speed >= SPEED},
        "share of the accuracy": {"value": round(kept, 3), "bar": KEPT, "reached": kept >= KEPT},
    }


def measured(result: kp.Result, task: kp.Task, run: Path, seconds: float) -> dict[str, Any]:
    """Teacher and picked students, deployed and timed against each other."""
    (baseline,) = result.baselines[TEACHER]
    first = kp.export(baseline, run / "deploy" / "teacher").path
    found: dict[str, Any] = {"teacher": facts_of(baseline, first, task)}
    for name, floats in (("student", False), ("student in floats", True)):
        candidate = pick(result, floats)
        if candidate is None:
            continue
        path = kp.export(candidate, run / "deploy" / name.replace(" ", "-")).path
        comparison = kp.compare_latency(first, path, seconds=seconds)
        facts = facts_of(candidate, path, task)
        bars = judged(found["teacher"], facts, comparison.ratio.value)
        found[name] = {**facts, "latency": comparison.to_json(), "bars": bars}
    return found


def main() -> int:
    """Train, search, measure, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", choices=("own", "auto"), default="own")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=250, help="of training each student")
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing two models")
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.fresh:
        shutil.rmtree(arguments.run, ignore_errors=True)
    start = time.monotonic()
    task = make_task(arguments.run)
    result = search(task, arguments.students, arguments.trials, arguments.steps, arguments.run)
    found = measured(result, task, arguments.run, arguments.seconds)
    settings = {key: value for key, value in vars(arguments).items() if key != "run"}
    content = {"settings": settings, "seconds": round(time.monotonic() - start), "by words": by_words(), **found}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    for name in ("student", "student in floats"):
        for bar, told in found.get(name, {}).get("bars", {}).items():
            print(f"{'reached' if told['reached'] else 'MISSED '}  {name}, {bar}: {told['value']} (bar {told['bar']})")
    return 0 if "student" in found and all(bar["reached"] for bar in found["student"]["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
