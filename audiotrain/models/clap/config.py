"""Sizes of a CLAP model, with the names and defaults of Hugging Face's config.json.

What only Hugging Face's code needs is ignored when read; what would be another model is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, TypeVar

from pydantic import Field

from audiotrain.config.schema import Positive, ShareBelowOne, validated
from audiotrain.utils.errors import UserError

# What every model here is, and what other values in a config.json would be: another model.
FIXED_AUDIO = {
    "hidden_act": "gelu",
    "flatten_patch_embeds": True,
    "enable_patch_layer_norm": True,
    "patch_embed_input_channels": 1,
    "projection_hidden_act": "relu",
}
SQUARES = ("patch_size", "patch_stride")  # written as a side or as [side, side]
FIXED_TEXT = {"hidden_act": "gelu", "type_vocab_size": 1, "projection_hidden_act": "relu"}
# Bounds far above what a model has: a damaged file could ask for more than any memory holds.
Size = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=1000)]
Config = TypeVar("Config")


@validated
class HTSATConfig:
    """The audio tower; the defaults are HTSAT-tiny without fusion. ValueError, a line for each
    value that cannot be, and for sizes that do not fit each other."""

    num_mel_bins: Size = 64
    """mel bins of a frame"""
    spec_size: Annotated[int, Field(ge=1, le=4096)] = 256
    """height and width of the image that the spectrogram is folded to"""
    window_size: Size = 8
    """patches along each side of an attention window"""
    patch_size: Size = 4
    """mel bins and frames along each side of a patch; patches do not overlap"""
    patch_embeds_hidden_size: Size = 96
    """width of the first stage; each later one is twice as wide"""
    depths: Annotated[tuple[Count, ...], Field(min_length=1)] = (2, 2, 6, 2)
    """blocks of each stage"""
    num_attention_heads: tuple[Size, ...] = (4, 8, 16, 32)
    """heads of each stage"""
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    """width inside a feed-forward over the stage's"""
    qkv_bias: bool = True
    """whether query, key and value have a bias"""
    enable_fusion: bool = False
    """whether clips longer than 10 s bring three crops beside the whole (aff_2d)"""
    aff_block_r: Size = 4
    """by what the fusion's channels are reduced"""
    hidden_dropout_prob: ShareBelowOne = 0.1
    """dropout after a feed-forward"""
    attention_probs_dropout_prob: ShareBelowOne = 0.0
    """dropout of attention weights, and after attention"""
    drop_path_rate: ShareBelowOne = 0.0
    """share of examples that skip the last block's branches in training; earlier blocks, fewer"""
    layer_norm_eps: Positive = 1e-5
    """added to the variance in a block's layer norms"""

    def __post_init__(self):
        if len(self.depths) != len(self.num_attention_heads):
            raise UserError(
                f"depths={self.depths} and num_attention_heads={self.num_attention_heads}, "
                "expected as many heads as stages"
            )
        if self.spec_size % self.num_mel_bins or self.num_mel_bins % self.patch_size:
            raise UserError(
                f"spec_size={self.spec_size}, num_mel_bins={self.num_mel_bins}, "
                f"patch_size={self.patch_size}, expected each to be a multiple of the next"
            )
        smallest, rest = divmod(self.spec_size, self.patch_size << (len(self.depths) - 1))
        if rest or smallest % self.window_size:
            side, halvings = self.spec_size // self.patch_size, len(self.depths) - 1
            raise UserError(
                f"{side} patches a side, halved {halvings} times, "
                f"expected multiples of window_size={self.window_size}"
            )
        for width, heads in zip(self.widths, self.num_attention_heads, strict=True):
            if width % heads:
                raise UserError(
                    f"a stage of width {width} and {heads} heads, expected a multiple of its heads"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.patch_embeds_hidden_size << stage for stage in range(len(self.depths)))

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage."""
        return self.widths[-1]

    @property
    def frames(self) -> int:
        """Frames that the image holds; shorter spectrograms are stretched to it."""
        return self.spec_size * self.spec_size // self.num_mel_bins


@validated
class RoBERTaConfig:
    """The text tower; the defaults are RoBERTa-base. ValueError, a line for each value that cannot
    be, and for a width that its heads do not divide."""

    vocab_size: Size = 50265
    """number of tokens"""
    hidden_size: Size = 768
    """width"""
    num_hidden_layers: Count = 12
    """number of layers"""
    num_attention_heads: Size = 12
    """heads of a layer"""
    intermediate_size: Size = 3072
    """width inside a feed-forward"""
    max_position_embeddings: Size = 514
    """tokens of the longest text, and two more"""
    pad_token_id: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """token that fills up short texts"""
    hidden_dropout_prob: ShareBelowOne = 0.1
    """dropout after attention, feed-forward and embeddings"""
    attention_probs_dropout_prob: ShareBelowOne = 0.1
    """dropout of attention weights"""
    layer_norm_eps: Positive = 1e-12
    """added to the variance in layer norms"""

    def __post_init__(self):
        width, heads = self.hidden_size, self.num_attention_heads
        if width % heads:
            raise UserError(f"hidden_size={width} is not a multiple of num_attention_heads={heads}")

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text."""
        return self.max_position_embeddings - self.pad_token_id - 1


@validated
class CLAPConfig:
    """Both towers and the projections; the defaults are laion/clap-htsat-unfused."""

    audio_config: HTSATConfig = field(default_factory=HTSATConfig)
    text_config: RoBERTaConfig = field(default_factory=RoBERTaConfig)
    projection_dim: Size = 512
    """numbers of an embedding"""
    logit_scale_init_value: Positive = 1 / 0.07
    """what similarities are multiplied with at first"""

    @classmethod
    def small(cls, vocab_size: int = 4096) -> "CLAPConfig":
        """A model to train from scratch on a CPU: the audio tower has 2.3 M
        parameters and patches of 80 ms."""
        audio = HTSATConfig(
            patch_size=8,
            patch_embeds_hidden_size=64,
            depths=(2, 2, 2),
            num_attention_heads=(2, 4, 8),
        )
        text = RoBERTaConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=80,
        )
        return cls(audio, text, projection_dim=128)

    @classmethod
    def from_dict(cls, values: Mapping, place: str = "config.json") -> "CLAPConfig":
        """The config of a config.json's content, sparse or verbose.

        ValueError naming `place` for what is not a CLAP model, or one that is not supported.
        """
        kind = values.get("model_type", "clap")
        if kind != "clap":
            raise UserError(f"{place}: model_type={kind!r}, expected 'clap'")
        audio, text = (_section(values, name, place) for name in ("audio_config", "text_config"))
        sides = {name: _one_side(audio[name]) for name in SQUARES if name in audio}
        audio = {**audio, **sides}
        fusion = audio.get("fusion_type")
        if audio.get("enable_fusion") and fusion not in (None, "aff_2d"):
            raise UserError(f"{place}: fusion_type={fusion!r}, expected 'aff_2d'")
        _refuse_other(values, {"projection_hidden_act": "relu"}, place)
        _refuse_other(audio, FIXED_AUDIO, place)
        _refuse_other(text, FIXED_TEXT, place)
        sound = _made(HTSATConfig, audio, f"{place}: audio_config: ")
        towers = {
            "audio_config": sound,
            "text_config": _made(RoBERTaConfig, text, f"{place}: text_config: "),
        }
        derived = {"patch_stride": sound.patch_size, "hidden_size": sound.hidden_size}
        _refuse_other(audio, derived, place)
        return _made(cls, {**values, **towers}, f"{place}: ")

    def to_dict(self) -> dict:
        """The content of a config.json that Hugging Face's ClapModel reads."""
        audio, text = asdict(self.audio_config), asdict(self.text_config)
        audio |= FIXED_AUDIO | {
            "model_type": "clap_audio_model",
            "hidden_size": self.audio_config.hidden_size,
            "patch_stride": [self.audio_config.patch_size] * 2,
            "fusion_type": "aff_2d" if self.audio_config.enable_fusion else None,
            "projection_dim": self.projection_dim,
        }
        text |= FIXED_TEXT | {
            "model_type": "clap_text_model",
            "projection_dim": self.projection_dim,
        }
        return {
            "architectures": ["ClapModel"],
            "model_type": "clap",
            "projection_dim": self.projection_dim,
            "projection_hidden_act": "relu",
            "logit_scale_init_value": self.logit_scale_init_value,
            "audio_config": audio,
            "text_config": text,
        }


def _section(values: Mapping, name: str, place: str) -> Mapping:
    section = values.get(name) or {}
    if not isinstance(section, Mapping):
        raise UserError(f"{place}: {name}={section!r:.40}, expected an object")
    return section


def _made(kind: type[Config], values: Mapping[str, Any], prefix: str) -> Config:
    """A config of the values that it has fields for; `prefix` begins a ValueError, one line."""
    known = {name: value for name, value in values.items() if name in kind.__annotations__}
    try:
        return kind(**known)
    except UserError as error:
        raise UserError(prefix + "; ".join(str(error).splitlines())) from None


def _one_side(size):
    """4 of [4, 4]; anything else as it is."""
    square = isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]
    return size[0] if square else size


def _refuse_other(values: Mapping, expected: Mapping, place: str) -> None:
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise UserError(f"{place}: {name}={values[name]!r}, expected {value!r}")
