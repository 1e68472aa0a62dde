"""The benchmark of the text classifier: batches, students that inherit, and its bars."""

from __future__ import annotations

import torch

from benchmarks.text_classifier import LENGTH, Split, TrainingBatches, build, inherit, judged
from kneepoint.tasks.documentation import PACKAGES, Document
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.vocabulary import PADDING, UNKNOWN, Vocabulary

TEXT = "words that stand for themselves " * 3


def made_split(count: int) -> Split:
    documents = [Document(TEXT, PACKAGES[index % len(PACKAGES)], "module") for index in range(count)]
    return Split.of(documents, Vocabulary.of([TEXT], 20))


def test_batches_hold_every_text() -> None:
    batches = made_split(70).batches()
    assert [len(labels) for _, labels in batches] == [64, 6]
    assert batches[0][0]["input_ids"].shape == (64, LENGTH)


def test_training_hides_words_and_never_padding() -> None:
    split = made_split(130)
    with seeded(0):
        first, second = list(TrainingBatches(split))
    hidden = first[0]["input_ids"] == UNKNOWN
    assert 0.05 < float(hidden.float().sum() / first[0]["attention_mask"].sum()) < 0.4
    assert bool((first[0]["input_ids"][first[0]["attention_mask"] == 0] == PADDING).all())
    assert len(TrainingBatches(split)) == 2
    assert not torch.equal(first[0]["input_ids"], second[0]["input_ids"])


def test_a_student_starts_with_what_it_shares() -> None:
    teacher = build(layers=2, hidden=16, heads=2, ffn=32)
    student = inherit(teacher, layers=1, hidden=16, heads=2, ffn=8).state_dict()
    own = teacher.state_dict()
    embedding, narrower = (
        "distilbert.embeddings.word_embeddings.weight",
        "distilbert.transformer.layer.0.ffn.lin1.weight",
    )
    assert torch.equal(student[embedding], own[embedding])
    assert student[narrower].shape != own[narrower].shape


def test_bars_take_the_worse_of_both_splits() -> None:
    def model(parameters: int, validation: float, test: float) -> dict[str, object]:
        return {"parameters": parameters, "validation": {"value": validation}, "test": {"value": test}}

    bars = judged(model(100, 0.8, 0.8), model(50, 0.8, 0.75), ratio=0.5)
    assert {name: bar["reached"] for name, bar in bars.items()} == {
        "share of the parameters": True,
        "times as fast": True,
        "share of the accuracy": False,
    }
    assert bars["share of the accuracy"]["value"] == 0.938
