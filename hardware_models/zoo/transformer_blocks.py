"""What transformers for texts and for images have in common (Vaswani et al. 2017, arXiv 1706.03762)."""

from __future__ import annotations

from kneepoint.hardware_models.zoo.builder import NetworkBuilder


def heads_of(b: NetworkBuilder, x: str, heads: int) -> str:
    """(batch, tokens, width) to (batch, tokens, heads, width of a head)."""
    tokens, width = b.shape(x)[1:]
    return b.view(x, tokens, heads, width // heads)


def attention(b: NetworkBuilder, inputs: tuple[str, str, str], width: int, heads: int, mask: str = "") -> str:
    """Several heads of attention, up to the linear layer that mixes them.

    The operators come in the order in which PyTorch's scaled dot product is exported.

    Args:
        b: The builder.
        inputs: What queries, keys and values are computed from: (batch, tokens, any width) each.
        width: Of all heads together.
        heads: How many.
        mask: Added to the scores: (batch, 1, 1, tokens); empty for none.

    Returns:
        (batch, tokens, width).
    """
    query, key, value = inputs
    queries = b.transpose(heads_of(b, b.linear(query, width), heads), 0, 2, 1, 3)
    keys = heads_of(b, b.linear(key, width), heads)
    values = b.transpose(heads_of(b, b.linear(value, width), heads), 0, 2, 1, 3)
    scores = b.matmul(b.scale(queries), b.transpose(keys, 0, 2, 3, 1))
    if mask:
        scores = b.add(scores, mask)
    context = b.transpose(b.matmul(b.softmax(scores), values), 0, 2, 1, 3)
    return b.view(context, b.shape(context)[1], width)


def self_attention(b: NetworkBuilder, x: str, heads: int, mask: str = "") -> str:
    """Attention of tokens to each other, and the linear layer that mixes its heads."""
    width = b.shape(x)[-1]
    return b.linear(attention(b, (x, x, x), width, heads, mask), width)


def feed_forward(b: NetworkBuilder, x: str, hidden: int, activation: str = "gelu") -> str:
    """Two linear layers over every token."""
    return b.linear(b.linear(x, hidden, activation=activation), b.shape(x)[-1])


def norm_last_block(b: NetworkBuilder, x: str, heads: int, hidden: int, mask: str = "") -> str:
    """Attention and a feed-forward network, each added to its input and normalized, as in BERT."""
    x = b.layer_norm(b.add(self_attention(b, x, heads, mask), x))
    return b.layer_norm(b.add(feed_forward(b, x, hidden), x))


def norm_first_block(b: NetworkBuilder, x: str, heads: int, hidden: int) -> str:
    """Attention and a feed-forward network, each over normalized tokens and added to them, as in ViT."""
    x = b.add(self_attention(b, b.layer_norm(x), heads), x)
    return b.add(feed_forward(b, b.layer_norm(x), hidden), x)
