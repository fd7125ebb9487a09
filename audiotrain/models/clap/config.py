"""Sizes of a CLAP model, with the names and defaults of Hugging Face's config.json.

What only Hugging Face's code needs is ignored when read; what would be another model is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

# What every model here is, and what other values in a config.json would be: another model.
FIXED_AUDIO = {
    "hidden_act": "gelu",
    "flatten_patch_embeds": True,
    "enable_patch_layer_norm": True,
    "patch_embed_input_channels": 1,
    "projection_hidden_act": "relu",
}
FIXED_TEXT = {"hidden_act": "gelu", "type_vocab_size": 1, "projection_hidden_act": "relu"}
# Far above what a model has; more is a damaged file, which no memory could hold.
LARGEST = {"spec_size": 4096, "depths": 1000, "num_hidden_layers": 1000}
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")


@dataclass(frozen=True)
class HTSATConfig:
    """The audio tower; the defaults are HTSAT-tiny without fusion."""

    num_mel_bins: int = 64
    """mel bins of a frame"""
    spec_size: int = 256
    """height and width of the image that the spectrogram is folded to"""
    window_size: int = 8
    """patches along each side of an attention window"""
    patch_size: int = 4
    """mel bins and frames along each side of a patch; patches do not overlap"""
    patch_embeds_hidden_size: int = 96
    """width of the first stage; each later one is twice as wide"""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """blocks of each stage"""
    num_attention_heads: tuple[int, ...] = (4, 8, 16, 32)
    """heads of each stage"""
    mlp_ratio: float = 4.0
    """width inside a feed-forward over the stage's"""
    qkv_bias: bool = True
    """whether query, key and value have a bias"""
    enable_fusion: bool = False
    """whether clips longer than 10 s bring three crops beside the whole (aff_2d)"""
    aff_block_r: int = 4
    """by what the fusion's channels are reduced"""
    hidden_dropout_prob: float = 0.1
    """dropout after a feed-forward"""
    attention_probs_dropout_prob: float = 0.0
    """dropout of attention weights, and after attention"""
    drop_path_rate: float = 0.0
    """share of examples that skip the last block's branches in training; earlier blocks, fewer"""
    layer_norm_eps: float = 1e-5
    """added to the variance in a block's layer norms"""

    def __post_init__(self):
        _check_numbers(self, "audio_config")
        if len(self.depths) != len(self.num_attention_heads):
            raise ValueError(
                f"audio_config: depths={self.depths} and num_attention_heads="
                f"{self.num_attention_heads}, expected as many heads as stages"
            )
        if self.spec_size % self.num_mel_bins or self.num_mel_bins % self.patch_size:
            raise ValueError(
                f"audio_config: spec_size={self.spec_size}, num_mel_bins={self.num_mel_bins}, "
                f"patch_size={self.patch_size}, expected each to be a multiple of the next"
            )
        smallest, rest = divmod(self.spec_size, self.patch_size << (len(self.depths) - 1))
        if rest or smallest % self.window_size:
            raise ValueError(
                f"audio_config: {self.spec_size // self.patch_size} patches a side, halved "
                f"{len(self.depths) - 1} times, expected multiples of "
                f"window_size={self.window_size}"
            )
        for width, heads in zip(self.widths, self.num_attention_heads, strict=True):
            if width % heads:
                raise ValueError(
                    f"audio_config: a stage of width {width} and {heads} heads, expected a "
                    "multiple of its heads"
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


@dataclass(frozen=True)
class RoBERTaConfig:
    """The text tower; the defaults are RoBERTa-base."""

    vocab_size: int = 50265
    """number of tokens"""
    hidden_size: int = 768
    """width"""
    num_hidden_layers: int = 12
    """number of layers"""
    num_attention_heads: int = 12
    """heads of a layer"""
    intermediate_size: int = 3072
    """width inside a feed-forward"""
    max_position_embeddings: int = 514
    """tokens of the longest text, and two more"""
    pad_token_id: int = 1
    """token that fills up short texts"""
    hidden_dropout_prob: float = 0.1
    """dropout after attention, feed-forward and embeddings"""
    attention_probs_dropout_prob: float = 0.1
    """dropout of attention weights"""
    layer_norm_eps: float = 1e-12
    """added to the variance in layer norms"""

    def __post_init__(self):
        _check_numbers(self, "text_config")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"text_config: hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}"
            )

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text."""
        return self.max_position_embeddings - self.pad_token_id - 1


@dataclass(frozen=True)
class CLAPConfig:
    """Both towers and the projections; the defaults are laion/clap-htsat-unfused."""

    audio_config: HTSATConfig = field(default_factory=HTSATConfig)
    text_config: RoBERTaConfig = field(default_factory=RoBERTaConfig)
    projection_dim: int = 512
    """numbers of an embedding"""
    logit_scale_init_value: float = 1 / 0.07
    """what similarities are multiplied with at first"""

    def __post_init__(self):
        _check_numbers(self, "config")

    @classmethod
    def small(cls, vocab_size: int = 4096) -> "CLAPConfig":
        """A model to train from scratch on a CPU: 2.3 M parameters hear, patches are 80 ms long."""
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
            raise ValueError(f"{place}: model_type={kind!r}, expected 'clap'")
        audio, text = (_section(values, name, place) for name in ("audio_config", "text_config"))
        fusion = audio.get("fusion_type")
        if audio.get("enable_fusion") and fusion not in (None, "aff_2d"):
            raise ValueError(f"{place}: fusion_type={fusion!r}, expected 'aff_2d'")
        _refuse_other(values, {"projection_hidden_act": "relu"}, place)
        _refuse_other(audio, FIXED_AUDIO, place)
        _refuse_other(text, FIXED_TEXT, place)
        try:
            config = cls(
                HTSATConfig(**_known(audio, HTSATConfig)),
                RoBERTaConfig(**_known(text, RoBERTaConfig)),
                **{
                    name: values[name]
                    for name in ("projection_dim", "logit_scale_init_value")
                    if name in values
                },
            )
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        patch = config.audio_config.patch_size
        _refuse_other(
            {name: _one_side(value) for name, value in audio.items() if name == "patch_stride"},
            {"patch_stride": patch},
            place,
        )
        _refuse_other(audio, {"hidden_size": config.audio_config.hidden_size}, place)
        return config

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
        raise ValueError(f"{place}: {name}={section!r:.40}, expected an object")
    return section


def _known(values: Mapping, kind: type) -> dict:
    """The values that `kind` has fields for; lists become tuples, a square its side."""
    names = {field.name for field in fields(kind)}
    known = {name: value for name, value in values.items() if name in names}
    for name, value in known.items():
        if name == "patch_size":
            value = _one_side(value)
        known[name] = tuple(value) if isinstance(value, list) else value
    return known


def _one_side(size):
    """4 of [4, 4]; anything else as it is."""
    square = isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]
    return size[0] if square else size


def _refuse_other(values: Mapping, expected: Mapping, place: str) -> None:
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise ValueError(f"{place}: {name}={values[name]!r}, expected {value!r}")


def _check_numbers(config, section: str) -> None:
    """ValueError naming the first setting that is not a number of its kind."""
    for setting in fields(config):
        value = getattr(config, setting.name)
        several = value if isinstance(value, tuple) else (value,)
        if setting.type in (int, tuple[int, ...]):
            lowest = 0 if setting.name == "pad_token_id" else 1
            highest = LARGEST.get(setting.name, 1_000_000)
            right = all(type(v) is int and lowest <= v <= highest for v in several)
            right = right and isinstance(value, tuple) == (setting.type is not int) and several
            kind = "a whole number" if setting.type is int else "whole numbers"
            expected = f"{kind}, {lowest} up to {highest}"
        elif setting.name in RATES:
            right, expected = isinstance(value, int | float) and 0 <= value < 1, "0 <= rate < 1"
        elif setting.type is float:
            right, expected = isinstance(value, int | float) and value > 0, "a number above 0"
        else:
            right, expected = isinstance(value, setting.type), setting.type.__name__
        if not right:
            raise ValueError(f"{section}: {setting.name}={value!r}, expected {expected}")
