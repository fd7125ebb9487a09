"""The training module of the chord recipe: model, loss, accuracies, optimizer."""

from collections.abc import Mapping, Sequence
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from audiotrain.backend.ops import softmax
from audiotrain.config.schema import NonNegative, Positive, ShareBelowOne, validated
from audiotrain.models.chords.equivariant import types_of
from audiotrain.models.chords.model import ChordModelSettings, FrameChordModel
from audiotrain.music.chord_classes import HEAD_SIZES, HEADS, IGNORE, chord_pitch_classes
from audiotrain.recipes.chords.songs import FeatureSettings, Song
from audiotrain.train.losses import ChordRecognitionLoss, inverse_power_weights
from audiotrain.train.module import OptimizerConfig, TrainModule
from audiotrain.train.optimizers import Rule, WarmupSettings, parameter_groups
from audiotrain.utils.arrays import arrays_of


@validated(kw_only=True)
class LossSettings:
    """Weights of the heads, and smoothing and class weights of their targets."""

    chord_type_weight: NonNegative = 1.0
    """weight of the chord type's loss"""
    root_weight: NonNegative = 1.0
    """weight of the root's loss"""
    bass_weight: NonNegative = 0.5
    """weight of the bass note's loss"""
    change_weight: NonNegative = 0.5
    """weight of the loss of where chords change, of models that pool over chords"""
    label_smoothing: ShareBelowOne = 0.1
    """share of a target that goes to other classes"""
    consonant_smoothing: bool = False
    """smooth chord types towards those with common notes instead of evenly"""
    class_power: NonNegative = 0.0
    """weigh chord types by their frequency to the minus this power, 0 to 1"""
    largest_class_weight: Positive = 10.0
    """upper limit of those weights"""


@validated(kw_only=True)
class OptimizationSettings(WarmupSettings):
    """Muon for matrices of blocks and pools, AdamW for the rest; linear warm-up, cosine decay."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonal steps for the matrices of blocks and pools, AdamW for the rest; or adamw"""
    learning_rate: Positive = 2e-3
    """peak learning rate of AdamW"""
    muon_rate: Positive = 0.02
    """peak learning rate of Muon"""


class ChordTraining(TrainModule):
    """Batches {"features" (batch, frames, bins), "classes" (batch, frames, 3)} to loss and
    frame accuracies (fractions of the labelled frames). The loss of the chord type, not its
    accuracy, is given the true root (`with_root`)."""

    def __init__(
        self,
        features: FeatureSettings,
        model: ChordModelSettings,
        loss: LossSettings,
        optimization: OptimizationSettings,
        statistics: tuple[float, float],
        type_counts: np.ndarray | None = None,
    ):
        super().__init__()
        self.model = FrameChordModel(features.bins, model, features.bins_per_octave)
        self.model.trunk.feature_mean = mx.array(statistics[0])
        self.model.trunk.feature_std = mx.array(statistics[1])
        self._optimization = optimization
        self._criterion = criterion(loss, type_counts)
        self._change_weight = loss.change_weight

    def __call__(self, features: mx.array) -> dict[str, mx.array]:
        return self.model(features)

    def compute_loss(self, batch: dict) -> tuple[mx.array, dict[str, mx.array]]:
        classes = batch["classes"]
        targets = {head: classes[..., number] for number, head in enumerate(HEADS)}
        logits = self(batch["features"])
        loss, losses = self._criterion(with_root(logits, targets["root"]), targets)
        if "change" in logits:
            losses = losses | {"change_loss": change_loss(logits["change"], classes)}
            loss = loss + self._change_weight * losses["change_loss"]
        wrong = [
            (mx.argmax(logits[head], axis=-1) != targets[head]) & (targets[head] >= 0)
            for head in HEADS
        ]
        chord_acc = _share(~(wrong[0] | wrong[1] | wrong[2]), targets["chord_type"] >= 0)
        return loss, losses | {"chord_acc": chord_acc} | head_accuracies(logits, targets)

    def batch_weight(self, batch: dict) -> mx.array:
        """Labelled frames: what the means of a batch run over."""
        return (batch["classes"][..., 0] >= 0).sum()

    def configure_optimizers(self) -> OptimizerConfig:
        settings, steps = self._optimization, self.trainer.estimated_total_steps
        adamw = settings.adamw(settings.schedule(settings.learning_rate, steps))
        if settings.optimizer == "adamw":
            return OptimizerConfig(adamw, "warmup_cosine")
        muon = optim.Muon(settings.schedule(settings.muon_rate, steps), weight_decay=0.0)
        arrays = arrays_of(self.trainable_parameters())
        inner = [name for name, array in arrays.items() if _is_inner_matrix(name, array)]
        others = [name for name in arrays if name not in inner]
        groups: dict[str, Rule] = {"others": (others, adamw), "matrices": (inner, muon)}
        return OptimizerConfig(parameter_groups(self, groups), "warmup_cosine")


def _is_inner_matrix(name: str, array: mx.array) -> bool:
    """Whether Muon applies to a parameter: a matrix between two layers of the trunk (Jordan et
    al. 2024, kellerjordan.github.io/posts/muon)."""
    inside = ".blocks." in name or ".pools." in name
    return inside and array.ndim > 1 and len(array) > 1


def with_root(logits: Mapping[str, mx.array], roots: mx.array) -> dict[str, mx.array]:
    """The logits, with those of the chord type given the true roots (batch, frames), or given the
    predicted ones where a frame has no root; unchanged if the model has no types by root.

    So the model learns the probability of a type given the root, which decoding uses.
    """
    if "chord_type_of_root" not in logits:
        return dict(logits)
    true = roots[..., None] == mx.arange(HEAD_SIZES[1])
    weights = mx.where((roots >= 0)[..., None], true, softmax(logits["root"]))
    return dict(logits) | {"chord_type": types_of(weights, logits["chord_type_of_root"])}


def change_loss(logits: mx.array, classes: mx.array) -> mx.array:
    """Mean cross entropy of logits (batch, steps, pools) that a chord begins at a step.

    classes (batch, frames, 3). A step is `frames / steps` frames long and has the label of its
    middle frame; steps without a label, or after one without, are not counted.
    """
    patch = classes.shape[1] // logits.shape[1]
    middle = classes[:, patch // 2 :: patch]
    begins = (middle[:, 1:] != middle[:, :-1]).any(axis=-1)[..., None]
    known = ((middle[:, 1:, 0] >= 0) & (middle[:, :-1, 0] >= 0))[..., None]
    logits = logits[:, 1:]
    losses = nn.softplus(logits) - mx.where(begins, logits, 0.0)
    return (losses * known).sum() / (mx.maximum(known.sum(), 1) * logits.shape[-1])


def head_accuracies(
    logits: Mapping[str, mx.array], targets: Mapping[str, mx.array]
) -> dict[str, mx.array]:
    """Accuracy of each head, "<head>_acc", over targets that are not ignored.

    By head, logits (..., classes) and targets (...).
    """
    return {
        f"{head}_acc": _share(mx.argmax(logits[head], axis=-1) == targets[head], targets[head] >= 0)
        for head in HEADS
    }


def _share(right: mx.array, valid: mx.array) -> mx.array:
    return (right & valid).sum() / mx.maximum(valid.sum(), 1)


def criterion(settings: LossSettings, type_counts: np.ndarray | None) -> ChordRecognitionLoss:
    """The loss that the settings describe; `type_counts` (32,) are frames of each chord type."""
    weights, similarity = {}, {}
    if settings.class_power:
        weights["chord_type"] = mx.array(type_weights(settings, type_counts))
    if settings.consonant_smoothing:
        similarity["chord_type"] = mx.array(type_similarity())
    return ChordRecognitionLoss(
        settings.chord_type_weight,
        settings.root_weight,
        settings.bass_weight,
        settings.label_smoothing,
        weights,
        similarity,
    )


def type_weights(settings: LossSettings, type_counts: np.ndarray | None) -> np.ndarray:
    """Weights (32,) of the chord types in the loss, 1 on average over the frames counted."""
    counts = mx.array(type_counts if type_counts is not None else np.ones(HEAD_SIZES[0]))
    weights = inverse_power_weights(counts, settings.class_power, settings.largest_class_weight)
    return np.array(weights)


def type_similarity() -> np.ndarray:
    """(32, 32) float32, rows sum to 1: common notes over all notes of two chord types."""
    notes = [
        set(chord_pitch_classes(number)) if number else set() for number in range(HEAD_SIZES[0])
    ]
    jaccard = np.array(
        [[len(a & b) / max(len(a | b), 1) for b in notes] for a in notes], np.float32
    )
    jaccard[0, 0] = 1.0
    return jaccard / jaccard.sum(axis=1, keepdims=True)


def count_types(songs: Sequence[Sequence[Song]]) -> np.ndarray:
    """Frames of each chord type (32,) in the songs, of one rendering each."""
    types = np.concatenate([renderings[0].classes[:, 0] for renderings in songs])
    return np.bincount(types[types != IGNORE], minlength=HEAD_SIZES[0])
