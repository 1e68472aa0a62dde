"""Transformers that read a text: BERT and its descendants.

The text comes as tokens, which are looked up, and as a mask to add to the scores of attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork
from kneepoint.hardware_models.zoo.transformer_blocks import attention, norm_last_block

_BERT = "Devlin et al. 2018, arXiv 1810.04805"
_DISTILBERT = "Sanh et al. 2019, arXiv 1910.01108"
_MOBILEBERT = "Sun et al. 2020, arXiv 2004.02984"
_ROBERTA = "Liu et al. 2019, arXiv 1907.11692"
_AI_HUB = "qai_hub_models: a masked language model of 384 tokens"
_VALIDATED = "Intel Neural Compressor's validated models: a classifier of 128 tokens"

_VOCABULARY = 30_522
_POSITIONS = 512

Head = Callable[[NetworkBuilder, str], str]
"""What stands behind the last layer: from (batch, tokens, width) to the output of the network."""


def text_inputs(b: NetworkBuilder, tokens: int, *, typed: bool, masked: bool) -> tuple[str, str, str]:
    """Tokens, their types and the mask; those that the network does not ask for are empty."""
    return b.input(tokens), b.input(tokens) if typed else "", b.input(1, 1, tokens) if masked else ""


def embedded(b: NetworkBuilder, tokens: str, types: str, width: int, vocabulary: int, positions: int) -> str:
    """The sum of what tokens, their types and their positions are looked up as, normalized."""
    x = b.embedding(tokens, vocabulary, width, name="words")
    if types:
        x = b.add(x, b.embedding(types, 2, width))
    return b.layer_norm(b.add_constant(x, 1, b.shape(x)[1], width, parameters=positions * width))


def bert(
    b: NetworkBuilder,
    head: Head,
    *,
    tokens: int,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    typed: bool = True,
    masked: bool = True,
    vocabulary: int = _VOCABULARY,
    positions: int = _POSITIONS,
) -> OperatorTable:
    """BERT, and what has its layers.

    Args:
        b: The builder.
        head: What stands behind the last layer.
        tokens: Of one text.
        layers: How many.
        width: Of what every token is; the feed-forward networks are four times as wide.
        heads: Of attention.
        typed: Whether tokens are of a first or a second sentence.
        masked: Whether attention leaves out some of the tokens.
        vocabulary: Tokens that are known.
        positions: Rows of the table of positions.
    """
    text, types, mask = text_inputs(b, tokens, typed=typed, masked=masked)
    x = embedded(b, text, types, width, vocabulary, positions)
    for _ in range(layers):
        x = norm_last_block(b, x, heads, 4 * width, mask)
    return b.table(head(b, x))


def classifier(b: NetworkBuilder, x: str, classes: int = 2, activation: str = "tanh") -> str:
    """Two linear layers over the first token."""
    width = b.shape(x)[-1]
    return b.linear(b.linear(b.copy(x, (width,), "Gather"), width, activation=activation), classes)


def pooler(b: NetworkBuilder, x: str) -> str:
    """What became of the first token."""
    width = b.shape(x)[-1]
    return b.linear(b.copy(x, (width,), "Gather"), width, activation="tanh")


def answer_span(b: NetworkBuilder, x: str) -> str:
    """How likely an answer starts and ends at every token."""
    return b.linear(x, 2)


def masked_words(b: NetworkBuilder, x: str) -> str:
    """How likely every word stands at every token; the last layer shares the table of words."""
    x = b.layer_norm(b.linear(x, b.shape(x)[-1], activation="gelu"))
    return b.linear(x, _VOCABULARY, name="words")


# --- MobileBERT -----------------------------------------------------------------------------------------------------


def mobilebert(b: NetworkBuilder, head: Head, *, tokens: int, typed: bool = True, masked: bool = True) -> OperatorTable:
    """MobileBERT: 24 layers of 512, whose attention and feed-forward networks work on 128.

    Args:
        b: The builder.
        head: What stands behind the last layer.
        tokens: Of one text.
        typed: Whether tokens are of a first or a second sentence.
        masked: Whether attention leaves out some of the tokens.
    """
    text, types, mask = text_inputs(b, tokens, typed=typed, masked=masked)
    x = b.embedding(text, _VOCABULARY, 128, name="words")
    following = b.copy(b.slice(x, tokens - 1), (tokens, 128), "Pad")
    preceding = b.copy(b.slice(x, tokens - 1), (tokens, 128), "Pad")
    x = b.linear(b.concat((following, x, preceding), 2), 512)
    x = b.add_constant(x, 1, tokens, 512, parameters=_POSITIONS * 512)
    x = b.add(x, b.embedding(types, 2, 512)) if types else b.add_constant(x, 1, 1, 512, parameters=2 * 512)
    x = _scaled(b, x)
    for _ in range(24):
        x = _mobilebert_layer(b, x, mask)
    return b.table(head(b, x))


def _mobilebert_layer(b: NetworkBuilder, x: str, mask: str) -> str:
    narrow = _scaled(b, b.linear(x, 128))
    shared = _scaled(b, b.linear(x, 128))
    y = b.linear(attention(b, (shared, shared, x), 128, 4, mask), 128)
    y = _scaled(b, b.add(y, narrow))
    for _ in range(4):
        y = _scaled(b, b.add(b.linear(b.linear(y, 512, activation="relu"), 128), y))
    return _scaled(b, b.add(b.linear(y, 512), x))


def _scaled(b: NetworkBuilder, x: str) -> str:
    """What stands in place of a norm: a product with one number, and a sum with another, for every feature."""
    width = b.shape(x)[-1]
    return b.add_constant(b.mul_constant(x, width), width)


def first_token(b: NetworkBuilder, x: str) -> str:
    """A linear layer over the first token."""
    return b.linear(b.copy(x, (b.shape(x)[-1],), "Gather"), 2)


def mobilebert_masked_words(b: NetworkBuilder, x: str) -> str:
    """How likely every word stands at every token; of the 512 features, 128 meet a copy of the table of words."""
    return b.linear(b.layer_norm(b.linear(x, 512, activation="relu")), _VOCABULARY)


# --- the zoo --------------------------------------------------------------------------------------------------------

_LARGE = partial(bert, layers=24, width=1024, heads=16)
_DISTILLED = partial(bert, layers=6, typed=False)
_HUB_NOTE = "published rows take one token's scores at the end; a compiler may compute them for that token alone"

NETWORKS = (
    ZooNetwork("BERT-base seq128", "BERT", partial(bert, head=classifier, tokens=128), _BERT, (), 110e6, 11.25e9, 0.01),
    ZooNetwork("BERT-large seq128", "BERT", partial(_LARGE, head=classifier, tokens=128), _BERT, (), 335.1e6),
    ZooNetwork(
        "BERT-Large SQuAD 384", "BERT", partial(_LARGE, head=answer_span, tokens=384), _BERT,
        ("BERT-Large SQuAD (MLPerf bert-99, seq<=384)",), 334e6,
        note="built for 384 tokens; most texts of the data are far shorter, and where a runtime leaves padding out, "
        "as TensorRT does, a published latency is the mean over their lengths", comparable=False,
    ),
    ZooNetwork(
        "Bert-Base-Uncased-Hf", "BERT", partial(bert, head=masked_words, tokens=384, typed=False),
        f"{_BERT}; {_AI_HUB}", (), 110e6, note=_HUB_NOTE,
    ),
    ZooNetwork(
        "Distil-Bert-Base-Uncased-Hf", "BERT", partial(_DISTILLED, head=masked_words, tokens=384),
        f"{_DISTILBERT}; {_AI_HUB}", (), 67e6, note=_HUB_NOTE,
    ),
    ZooNetwork(
        "Mobile-Bert-Uncased-Google", "MobileBERT", partial(mobilebert, head=mobilebert_masked_words, tokens=384,
        typed=False), f"{_MOBILEBERT}; {_AI_HUB}", note=_HUB_NOTE,
    ),
    ZooNetwork(
        "BERT base MRPC", "BERT", partial(bert, head=classifier, tokens=128), f"{_BERT}; {_VALIDATED}",
        ("BERT base uncased MRPC (HuggingFace)",), 110e6, 11.25e9, 0.01,
    ),
    ZooNetwork(
        "DistilBERT base MRPC", "BERT", partial(_DISTILLED, head=partial(classifier, activation="relu"),
        tokens=128), f"{_DISTILBERT}; {_VALIDATED}", ("DistilBERT base uncased SST-2 (HuggingFace)",), 66e6,
    ),
    ZooNetwork(
        "Mobile bert MRPC", "MobileBERT", partial(mobilebert, head=first_token, tokens=128),
        f"{_MOBILEBERT}; {_VALIDATED}", ("MobileBERT seq128",), 25.3e6, 2.85e9, 0.06,
    ),
    ZooNetwork(
        "Roberta base MRPC", "BERT", partial(bert, head=classifier, tokens=128, typed=False, vocabulary=50_265,
        positions=514), f"{_ROBERTA}; {_VALIDATED}", (), 125e6,
    ),
)  # fmt: skip
