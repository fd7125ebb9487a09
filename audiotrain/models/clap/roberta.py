"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): tokens (batch, tokens) to one vector a text.

Between its layers tokens are rows (batch * tokens, width), which avoids many views of arrays.
"""

import mlx.core as mx
import mlx.nn as nn

from audiotrain.backend.ops import attend, gelu, map_batch
from audiotrain.models.clap.config import RoBERTaConfig
from audiotrain.models.layers import LayerNorm, Linear

MASKED = -1e9  # added to the scores of tokens that are not looked at


class Embeddings(nn.Module):
    """Words, their positions and a constant, normed: (batch, tokens) to (batch, tokens, width)."""

    def __init__(self, config: RoBERTaConfig):
        super().__init__()
        self.pad_token_id = config.pad_token_id
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(1, width)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(self, input_ids: mx.array) -> mx.array:
        words = (input_ids != self.pad_token_id).astype(mx.int32)
        positions = mx.cumsum(words, axis=1) * words + self.pad_token_id
        x = self._words(input_ids) + self.position_embeddings(positions)
        x = x + self.token_type_embeddings.weight[0].astype(x.dtype)
        return self.dropout(self.norm(x))

    def _words(self, input_ids: mx.array) -> mx.array:
        """Embeddings of words, NaN for unknown token numbers: MLX would read beyond the table."""
        last = self.word_embeddings.weight.shape[0] - 1
        known = mx.clip(input_ids, 0, last)
        x = self.word_embeddings(known)
        return mx.where((known == input_ids)[..., None], x, mx.array(mx.nan, x.dtype))


class SelfAttention(nn.Module):
    """Multi-head self-attention, added to its input, then normed; of the first `count` tokens.

    `bias` (batch, 1, 1, tokens) is added to the scores of tokens.
    """

    def __init__(self, config: RoBERTaConfig):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key = Linear(width, width), Linear(width, width)
        self.value, self.output = Linear(width, width), Linear(width, width)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        rate = config.attention_probs_dropout_prob
        self.weights_dropout = nn.Dropout(rate) if rate else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(self, x: mx.array, bias: mx.array, count: int | None = None) -> mx.array:
        batch, tokens, width = bias.shape[0], bias.shape[-1], x.shape[-1]
        queries = x
        if count is not None:
            queries = x.reshape(batch, tokens, width)[:, :count].reshape(-1, width)
        query, key, value = (
            linear(rows).reshape(batch, -1, self.heads, width // self.heads).swapaxes(1, 2)
            for linear, rows in ((self.query, queries), (self.key, x), (self.value, x))
        )
        mixed = attend(query, key, value, bias, self.weights_dropout)
        mixed = mixed.swapaxes(1, 2).reshape(-1, width)
        return self.norm(queries + self.dropout(self.output(mixed)))


class Layer(nn.Module):
    """Attention, then a feed-forward with GELU, each added to its input and normed; of the first
    `count` tokens."""

    def __init__(self, config: RoBERTaConfig):
        super().__init__()
        width = config.hidden_size
        self.attention = SelfAttention(config)
        self.intermediate = Linear(width, config.intermediate_size)
        self.output = Linear(config.intermediate_size, width)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(self, x: mx.array, bias: mx.array, count: int | None = None) -> mx.array:
        x = self.attention(x, bias, count)
        return self.norm(x + self.dropout(self.output(gelu(self.intermediate(x)))))


class RoBERTa(nn.Module):
    """The text tower: a text's vector is tanh of a Linear of its first token's.

    >>> tower = RoBERTa(RoBERTaConfig(vocab_size=99, hidden_size=8, num_attention_heads=2))
    >>> tower(mx.array([[0, 42, 2, 1]])).shape
    (1, 8)
    """

    def __init__(self, config: RoBERTaConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.pooler = Linear(config.hidden_size, config.hidden_size)

    def __call__(self, input_ids: mx.array, attention_mask: mx.array | None = None) -> mx.array:
        """input_ids (batch, tokens) and attention_mask (batch, tokens), 1 where a token is looked
        at (None: everywhere but at padding), to (batch, hidden_size).

        ValueError for token numbers that the model does not have, and for texts too long.
        """
        input_ids = mx.array(input_ids)
        if input_ids.ndim != 2 or not 0 < input_ids.shape[1] <= self.config.max_tokens:
            raise ValueError(
                f"input_ids of shape {input_ids.shape}, expected (batch, tokens) with 1 to "
                f"{self.config.max_tokens} tokens"
            )
        check_tokens(input_ids, self.config.vocab_size)
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        bias = mx.where(mx.array(attention_mask) != 0, 0.0, MASKED)[:, None, None]
        return map_batch(self._tower, self.embeddings(input_ids), bias)

    def _tower(self, x: mx.array, bias: mx.array) -> mx.array:
        *layers, last = self.layers
        x = x.reshape(-1, x.shape[-1])
        for layer in layers:
            x = layer(x, bias)
        return mx.tanh(self.pooler(last(x, bias, count=1)))  # the first token is all it takes


def check_tokens(input_ids: mx.array, vocab_size: int) -> None:
    """ValueError when a token number is not in 0..vocab_size-1.

    Inside a compiled function numbers cannot be read, and such a token makes its text's embedding
    NaN.
    """
    try:
        lowest, highest = int(input_ids.min()), int(input_ids.max())
    except ValueError:  # MLX: no reading inside a trace
        return
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(
            f"token {wrong} in input_ids, expected 0 to {vocab_size - 1} (vocab_size={vocab_size})"
        )
