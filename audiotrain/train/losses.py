"""Losses on logits and class numbers. Targets below 0 (IGNORE) count nowhere; a target that is
no class makes the loss NaN, so that nothing is learned from it."""

from collections.abc import Mapping

import mlx.core as mx

from audiotrain.backend.ops import logsumexp


def masked_cross_entropy(
    logits: mx.array,
    targets: mx.array,
    label_smoothing: float = 0.0,
    class_weights: mx.array | None = None,
    similarity: mx.array | None = None,
) -> mx.array:
    """Mean cross entropy of the targets that are not negative; 0 when there are none.

    logits (..., classes), targets (...) integers. The smoothed share of a target goes to all
    classes evenly, or as the rows of `similarity` (classes, classes) say (each sums to 1).
    `class_weights` (classes,) weigh each target, and the mean is over the weights (as PyTorch's).
    Computed in float32.

    >>> logits = mx.array([[0.0, 0.0], [9.0, 0.0]])
    >>> round(masked_cross_entropy(logits, mx.array([1, -100])).item(), 4)
    0.6931
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing}, expected 0 <= label_smoothing < 1")
    logits = logits.astype(mx.float32)
    valid = (targets >= 0).astype(mx.float32)
    chosen = mx.clip(targets, 0, logits.shape[-1] - 1)  # past them MLX reads and writes anything
    normalizer = logsumexp(logits)
    loss = normalizer - mx.take_along_axis(logits, chosen[..., None], axis=-1)[..., 0]
    if label_smoothing:
        if similarity is None:
            smooth = normalizer - logits.mean(axis=-1)
        else:
            smooth = normalizer - (logits * similarity[chosen]).sum(axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * smooth
    loss = mx.where(targets < logits.shape[-1], loss, mx.nan)
    weights = valid if class_weights is None else valid * class_weights[chosen]
    return (loss * weights).sum() / mx.maximum(weights.sum(), 1e-9)


class ChordRecognitionLoss:
    """Weighted sum of the three heads' smoothed, masked cross entropies.

    Called with logits and targets by head it gives (loss, {"chord_type_loss", "root_loss",
    "bass_note_loss"}), all scalars. `class_weights` and `similarity` by head are those of
    `masked_cross_entropy`.
    """

    def __init__(
        self,
        chord_type_weight: float = 1.0,
        root_weight: float = 1.0,
        bass_weight: float = 0.5,
        label_smoothing: float = 0.1,
        class_weights: Mapping[str, mx.array] | None = None,
        similarity: Mapping[str, mx.array] | None = None,
    ):
        self.weights = {
            "chord_type": chord_type_weight,
            "root": root_weight,
            "bass_note": bass_weight,
        }
        for head, weight in self.weights.items():
            if weight < 0:
                raise ValueError(f"weight of {head} is {weight}, expected 0 or more")
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights or {}
        self.similarity = similarity or {}

    def __call__(
        self, logits: Mapping[str, mx.array], targets: Mapping[str, mx.array]
    ) -> tuple[mx.array, dict[str, mx.array]]:
        losses = {
            f"{head}_loss": masked_cross_entropy(
                logits[head],
                targets[head],
                self.label_smoothing,
                self.class_weights.get(head),
                self.similarity.get(head),
            )
            for head in self.weights
        }
        total = sum(weight * losses[f"{head}_loss"] for head, weight in self.weights.items())
        return total, losses


def inverse_power_weights(counts: mx.array, power: float, largest: float) -> mx.array:
    """Class weights (counts / mean count) ** -power, at most `largest`, then scaled to a mean of 1
    over the data.

    Classes never seen get the most. Power 0 is no weighting, 1 weighs every class the same.
    """
    share = counts.astype(mx.float32) / mx.maximum(counts.sum(), 1) * counts.size
    weights = mx.minimum(mx.power(mx.maximum(share, 1e-9), -power), largest)
    return weights / mx.maximum((weights * share).sum() / counts.size, 1e-9)
