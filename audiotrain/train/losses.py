"""Losses on logits and class numbers, and contrastive losses on batches of pairs.

Class numbers below 0 are ignored; one that is no class makes the loss NaN, so that the step is
skipped. Embeddings (pairs, width) of any length are compared by their cosines. All losses are
computed in float32.
"""

import math
from collections.abc import Callable, Mapping

import mlx.core as mx

from audiotrain.backend.ops import logsumexp

Gather = Callable[[mx.array], mx.array]
Result = tuple[mx.array, dict[str, mx.array]]
Blended = tuple[mx.array, mx.array]  # second groups (pairs, ...), shares of the first (pairs,)


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
    Computed in float32. ValueError unless 0 <= label_smoothing < 1.

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

    Called with logits (..., classes) and targets (...) by head it gives (loss, {"chord_type_loss",
    "root_loss", "bass_note_loss"}), all scalars. `class_weights` (classes,) and `similarity`
    (classes, classes) by head are those of `masked_cross_entropy`. ValueError for a negative
    weight of a head, and, when called, unless 0 <= label_smoothing < 1.
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
        weighted = [weight * losses[f"{head}_loss"] for head, weight in self.weights.items()]
        return sum(weighted[1:], weighted[0]), losses


def inverse_power_weights(counts: mx.array, power: float, largest: float) -> mx.array:
    """Class weights (counts / mean count) ** -power, at most `largest`, then scaled to a mean of 1
    over the data: (classes,), as `counts` is.

    Classes without data get the largest weight. Power 0 is no weighting, 1 gives every class the
    same total weight.
    """
    share = counts.astype(mx.float32) / mx.maximum(counts.sum(), 1) * counts.size
    weights = mx.minimum(mx.power(mx.maximum(share, 1e-9), -power), largest)
    return weights / mx.maximum((weights * share).sum() / counts.size, 1e-9)


class ContrastiveLoss:
    """Symmetric InfoNCE: each audio finds its text among the batch's, and each text its audio.

    Called with embeddings of pairs it gives (loss, {"audio_acc", "text_acc"}), scalars; the
    accuracies are shares whose nearest is a match. `logit_scale` multiplies the cosines: a scalar
    array, or one for the audio's and one for the texts' logits (two scalars, as CLAP has them).
    `groups` (pairs, ...) are integers: pairs whose rows are equal (of captions' tokens, of a
    clip's number) match each other, too, and share a row's target evenly. Audio that is two sounds
    at once has a second group in `blended`, (groups (pairs, ...), share (pairs,) of the first):
    its target is the captions of both, by their shares. Radford et al. 2021, arXiv:2103.00020; van
    den Oord et al. 2018, arXiv:1807.03748; Tokozume et al. 2018, arXiv:1711.10282.

    Ranks share their negatives by `gather`, called with the embeddings and the groups, which gives
    the rows of all ranks. The loss is then that of the whole batch on each rank. Where gradients
    are averaged over ranks, as the training step does, the gradient of `gather` must be that of a
    rank's own rows times the number of ranks; that of the logit scale is right as it is.

    ValueError unless both embeddings have one shape (pairs, width), for `groups` without a row for
    each pair, and for `blended` without `groups`.

    >>> pairs = mx.eye(4)
    >>> loss, metrics = ContrastiveLoss()(pairs, pairs, mx.array(0.0))
    >>> round(loss.item(), 4), round(math.log(4), 4), metrics["audio_acc"].item()
    (1.3863, 1.3863, 1.0)
    """

    def __init__(self, gather: Gather | None = None):
        self.gather = gather

    def __call__(
        self,
        audio: mx.array,
        text: mx.array,
        logit_scale: mx.array | tuple[mx.array, mx.array],
        groups: mx.array | None = None,
        blended: Blended | None = None,
    ) -> Result:
        cosines, matches = _compare(audio, text, groups, blended, self.gather)
        scales = logit_scale if isinstance(logit_scale, tuple) else (logit_scale, logit_scale)
        losses = [
            _cross_entropy(_float(scale) * side, shares / shares.sum(axis=1, keepdims=True))
            for scale, side, shares in zip(
                scales, (cosines, cosines.T), (matches, matches.T), strict=True
            )
        ]
        return (losses[0] + losses[1]) / 2, _accuracies(cosines, matches)


class SigLIPLoss:
    """Every audio and every text of the batch as a yes or no: do they match?

    Called as ContrastiveLoss, with `logit_bias`, a scalar array that is added to the scaled
    cosines (-10 at first, for most pairs do not match). The sum over a batch's comparisons is
    divided by its pairs. ValueError as ContrastiveLoss. Zhai et al. 2023, arXiv:2303.15343.
    """

    def __init__(self, gather: Gather | None = None):
        self.gather = gather

    def __call__(
        self,
        audio: mx.array,
        text: mx.array,
        logit_scale: mx.array,
        logit_bias: mx.array,
        groups: mx.array | None = None,
        blended: Blended | None = None,
    ) -> Result:
        cosines, matches = _compare(audio, text, groups, blended, self.gather)
        logits = _float(logit_scale) * cosines + _float(logit_bias)
        loss = (mx.logaddexp(0.0, logits) - matches * logits).sum() / len(cosines)
        return loss, _accuracies(cosines, matches)


def bounded_exp(log_scale: mx.array, largest: float = 100.0) -> mx.array:
    """exp(log_scale), but `largest` at most: the logit scale of CLIP and CLAP.

    At the bound the gradient is 0 where it would lead beyond, and passes where it leads back.
    """
    bound = math.log(largest)

    @mx.custom_function
    def bounded(log_scale):
        return mx.exp(mx.minimum(log_scale, bound))

    @bounded.vjp
    def bounded_vjp(log_scale, cotangent, output):
        return mx.where((log_scale >= bound) & (cotangent < 0), 0.0, cotangent * output)

    scale = bounded(_float(log_scale))
    assert isinstance(scale, mx.array)
    return scale


def _float(number) -> mx.array:
    return mx.array(number).astype(mx.float32)


def _compare(audio, text, groups, blended, gather) -> tuple[mx.array, mx.array]:
    """Cosines (audio, text) of all pairs, and the share of the audio that each text describes: 1.0
    where they match, 0.0 elsewhere, a share where the audio is blended."""
    if audio.ndim != 2 or audio.shape != text.shape:
        raise ValueError(
            f"embeddings of audio {tuple(audio.shape)} and text {tuple(text.shape)}, "
            f"expected two of the same (pairs, width)"
        )
    if groups is None and blended is not None:
        raise ValueError("blended pairs without groups, expected the groups of all captions")
    if groups is not None and (groups.ndim == 0 or len(groups) != len(audio)):
        raise ValueError(f"groups {tuple(groups.shape)}, expected a row for each of {len(audio)}")
    if gather is not None:
        audio, text = gather(audio), gather(text)
        groups = None if groups is None else gather(groups)
        blended = None if blended is None else tuple(map(gather, blended))
    cosines = _unit(audio) @ _unit(text).T
    if groups is None:
        return cosines, mx.eye(len(cosines))
    matches = _equal(groups, groups)
    if blended is None:
        return cosines, matches
    second, share = blended
    share = _float(share)[:, None]
    return cosines, share * matches + (1 - share) * _equal(second, groups)


def _equal(rows: mx.array, others: mx.array) -> mx.array:
    """1.0 where a row of the one equals a row of the other, else 0.0: (rows, others)."""
    rows, others = (array.reshape(len(array), -1) for array in (rows, others))
    return (rows[:, None] == others[None]).all(axis=-1).astype(mx.float32)


def _unit(embeddings: mx.array) -> mx.array:
    embeddings = embeddings.astype(mx.float32)
    squares = mx.square(embeddings).sum(axis=-1, keepdims=True)
    return embeddings * mx.rsqrt(mx.maximum(squares, 1e-24))


def _cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Mean over rows; targets (rows, columns) are shares that add up to 1 in each row."""
    return (mx.logsumexp(logits, axis=1) - (logits * targets).sum(axis=1)).mean()


def _accuracies(cosines: mx.array, matches: mx.array) -> dict[str, mx.array]:
    return {
        name: mx.take_along_axis(matches, mx.argmax(side, axis=1)[:, None], axis=1).mean()
        for name, side in (("audio_acc", cosines), ("text_acc", cosines.T))
    }
