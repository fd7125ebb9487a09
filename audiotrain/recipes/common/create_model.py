"""create_model: an untrained model by its name and sizes.

It stands among the recipes since it knows models and training modules, which do not know each
other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.nn as nn

from audiotrain.config.import_path import called
from audiotrain.models.chords import ChordRecognitionModel
from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.models.clap.config import HTSATConfig, RoBERTaConfig
from audiotrain.models.classifiers import EmbeddingClassifier, MelClassifier, TextClassifier
from audiotrain.train.declarative.modules import HeadModule
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import nearest


def create_model(name: str, **sizes: Any) -> nn.Module:
    """An untrained model; `sizes` are its arguments, by default those of the published models.

    - `chords`: ChordRecognitionModel(d_model=, num_blocks=, ...), raw audio to three heads
    - `clap`: CLAP, of CLAPConfig's audio_config=, text_config=, ...
    - `bert_with_head`: a RoBERTa tower over tokens, of RoBERTaConfig's vocab_size=,
      hidden_size=, ...
    - `mel_with_head`: an HTSAT tower over log-mel spectrograms, of HTSATConfig's sizes
    - `table_with_head`: one or two linear layers over rows of numbers; width=, hidden=, dropout=

    Those with a head are TrainModules, which create_trainer takes without a loss: `head_type` is
    binary_classification (the default), multiclass_classification, multilabel_classification or
    regression, `num_labels` the number of classes or labels; see HeadModule. ValueError for an
    unknown name or size.

    >>> create_model("table_with_head", width=8, hidden=16).parameter_counts()
    (177, 161)
    """
    if name not in MODELS:
        hint = nearest(name, MODELS)
        raise UserError(f"create_model: found {name!r}{hint}, expected one of {', '.join(MODELS)}")
    return MODELS[name](**sizes)


def _with_head(
    tower: Callable[..., nn.Module],
    head_type: str = "binary_classification",
    num_labels: int | None = None,
    **sizes: Any,
) -> HeadModule:
    has_classes = head_type in ("multiclass_classification", "multilabel_classification")
    if has_classes != (num_labels is not None):
        expected = "the number of classes or labels" if has_classes else "none"
        raise UserError(f"num_labels is {num_labels} for {head_type!r}, expected {expected}")
    return HeadModule(tower(num_labels or 1, **sizes), head_type)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "chords": partial(called, ChordRecognitionModel, "create_model"),
    "clap": lambda **sizes: CLAP(CLAPConfig(**sizes)),
    "bert_with_head": partial(
        _with_head, lambda outputs, **sizes: TextClassifier(RoBERTaConfig(**sizes), outputs)
    ),
    "mel_with_head": partial(
        _with_head, lambda outputs, **sizes: MelClassifier(HTSATConfig(**sizes), outputs)
    ),
    "table_with_head": partial(
        _with_head,
        lambda outputs, **sizes: called(
            EmbeddingClassifier, "create_model", classes=outputs, **sizes
        ),
    ),
}
