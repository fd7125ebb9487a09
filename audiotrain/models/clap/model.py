"""CLAP (Wu et al. 2023, arXiv:2211.06687): sounds and texts to embeddings of one space.

The architectures and files are Hugging Face's ClapModel; `CLAP.from_pretrained` reads its weights.
"""

import math
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from audiotrain.backend.buffers import Buffered
from audiotrain.backend.ops import with_gradient
from audiotrain.models.clap.config import CLAPConfig
from audiotrain.models.clap.htsat import HTSAT, relative_positions
from audiotrain.models.clap.roberta import RoBERTa
from audiotrain.models.clap.weights import (
    CONFIG,
    from_hf,
    pretrained_folder,
    read_weights,
    to_hf,
    write_folder,
)
from audiotrain.models.layers import Linear
from audiotrain.utils.files import read_json_object

LARGEST_LOGIT_SCALE = 100.0


class Projection(nn.Module):
    """Linear, relu, Linear: a tower's vector to the common space."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.linear1, self.linear2 = Linear(width, embedding), Linear(embedding, embedding)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear2(nn.relu(self.linear1(x)))


class CLAP(Buffered):
    """Two towers with fresh weights; `CLAP.from_pretrained` loads trained ones.

    `audio_encoder` and `text_encoder` each have a projection. Without a config the architecture is
    that of laion/clap-htsat-unfused. What is frozen does not change in training, BatchNorm's
    statistics included.

    >>> model = CLAP(CLAPConfig.small(vocab_size=100))
    >>> outputs = model(mx.zeros((2, 1, 1001, 64)), mx.array([[0, 42, 2], [0, 2, 1]]))
    >>> outputs["logits_per_audio"].shape, outputs["text_embeds"].shape
    ((2, 2), (2, 128))
    """

    def __init__(self, config: CLAPConfig | None = None):
        super().__init__()
        self.config = config = config or CLAPConfig()
        self.audio_encoder = HTSAT(config.audio_config)
        self.audio_projection = Projection(config.audio_config.hidden_size, config.projection_dim)
        self.text_encoder = RoBERTa(config.text_config)
        self.text_projection = Projection(config.text_config.hidden_size, config.projection_dim)
        self.logit_scale_a = mx.array(math.log(config.logit_scale_init_value))
        self.logit_scale_t = mx.array(math.log(config.logit_scale_init_value))

    def __call__(
        self,
        audio: mx.array | None = None,
        input_ids: mx.array | None = None,
        attention_mask: mx.array | None = None,
        is_longer: mx.array | None = None,
    ) -> dict[str, mx.array]:
        """Similarities of all clips and texts, and their embeddings; of one side alone its
        embeddings.

        audio (clips, chunks, frames, 64 mels) in dB, or (clips, chunks, 64, frames); input_ids and
        attention_mask (texts, tokens); is_longer (clips,) for models with fusion. Gives
        logits_per_audio (clips, texts), logits_per_text (texts, clips), audio_embeds (clips,
        projection_dim) and text_embeds (texts, projection_dim). ValueError without either side.
        """
        embeddings = {}
        if audio is not None:
            embeddings["audio_embeds"] = self.embed_audio(audio, is_longer)
        if input_ids is not None:
            embeddings["text_embeds"] = self.embed_text(input_ids, attention_mask)
        if not embeddings:
            raise ValueError("audio and input_ids are None, expected one of them or both")
        if len(embeddings) == 1:
            return embeddings
        similarities = embeddings["audio_embeds"] @ embeddings["text_embeds"].T
        return {
            "logits_per_audio": similarities * logit_scale(self.logit_scale_a),
            "logits_per_text": similarities.T * logit_scale(self.logit_scale_t),
        } | embeddings

    def embed_audio(self, audio: mx.array, is_longer: mx.array | None = None) -> mx.array:
        """Embeddings of length 1, float32 (clips, projection_dim); see HTSAT for the inputs."""
        return _normalized(self.audio_projection(self.audio_encoder(audio, is_longer)))

    def embed_text(self, input_ids: mx.array, attention_mask: mx.array | None = None) -> mx.array:
        """Embeddings of length 1, float32 (texts, projection_dim); see RoBERTa for the inputs."""
        return _normalized(self.text_projection(self.text_encoder(input_ids, attention_mask)))

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "CLAP":
        """The model of a folder or of Hugging Face's hub (`laion/clap-htsat-unfused`), in eval
        mode.

        ValueError when there is none, when it is no CLAP, and when a weight is missing, unexpected
        or misshaped.
        """
        folder = pretrained_folder(name)
        config = CLAPConfig.from_dict(read_json_object(folder / CONFIG), str(folder / CONFIG))
        model = cls(config)
        file, weights = read_weights(folder)
        arrays = from_hf(weights, dict(tree_flatten(model.parameters())), str(file))
        model.update(tree_unflatten(list(arrays.items())))
        mx.eval(model.parameters())
        model.eval()
        return model

    def save_pretrained(self, folder: str | Path, source: str | Path | None = None) -> None:
        """Write config.json and model.safetensors, which Hugging Face's ClapModel reads too.

        The tokenizer's and the front end's files are copied from the folder `source`; what else is
        in `folder` stays. ValueError when it cannot be written.
        """
        arrays = to_hf(dict(tree_flatten(self.parameters())))
        arrays |= self._rebuilt(list(arrays))
        source = None if source is None else Path(source)
        write_folder(Path(folder), self.config.to_dict(), arrays, source)

    def _rebuilt(self, names: list[str]) -> dict[str, mx.array]:
        """Entries of Hugging Face's files that follow from the config, for the weights `names`."""
        window = relative_positions(self.config.audio_config.window_size).astype(np.int64)
        positions = mx.arange(self.config.text_config.max_position_embeddings).astype(mx.int64)
        arrays = {
            "text_model.embeddings.position_ids": positions[None],
            "text_model.embeddings.token_type_ids": mx.zeros_like(positions[None]),
        }
        for name in names:
            place, _, last = name.rpartition(".")
            if last == "relative_position_bias_table":
                arrays[f"{place}.relative_position_index"] = mx.array(window)
            if last == "running_var":
                arrays[f"{place}.num_batches_tracked"] = mx.array(0, mx.int64)
        return arrays


def _normalized(x: mx.array) -> mx.array:
    x = x.astype(mx.float32)
    return x * mx.rsqrt(mx.maximum(mx.square(x).sum(axis=-1, keepdims=True), 1e-24))


def _logit_scale_gradient(logarithm: mx.array, cotangent: mx.array, scale: mx.array) -> mx.array:
    held = (logarithm >= math.log(LARGEST_LOGIT_SCALE)) & (cotangent < 0)
    return mx.where(held, 0.0, cotangent * scale)


@with_gradient(_logit_scale_gradient)
def logit_scale(logarithm: mx.array) -> mx.array:
    """exp(logarithm), at most LARGEST_LOGIT_SCALE; there only descent to smaller ones goes on."""
    return mx.exp(mx.minimum(logarithm, math.log(LARGEST_LOGIT_SCALE)))
