"""Contrastive losses on a batch of pairs: symmetric InfoNCE (CLIP, CLAP) and SigLIP's.

Embeddings (pairs, width) are of any length, their cosines count; all is computed in float32.
"""

import math
from collections.abc import Callable

import mlx.core as mx

Gather = Callable[[mx.array], mx.array]
Result = tuple[mx.array, dict[str, mx.array]]
Blended = tuple[mx.array, mx.array]  # second groups (pairs, ...), shares of the first (pairs,)


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
    divided by its pairs. Zhai et al. 2023, arXiv:2303.15343.
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

    return bounded(_float(log_scale))


def _float(number) -> mx.array:
    return mx.array(number).astype(mx.float32)


def _compare(audio, text, groups, blended, gather) -> tuple[mx.array, mx.array]:
    """Cosines (audio, text) of all pairs, and how much of the audio is what the text says: 1.0
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
