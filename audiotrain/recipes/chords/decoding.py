"""From a model's logits to chords in time: the most likely chord of each frame, or Viterbi.

Posteriors of a frame are log-probabilities (385,) of CHORDS (N, and each type on each root) and of
bass notes. A chord with a bass note is one state of the Viterbi decoder. A switch from any state to
any other costs the same, so a step is one comparison with the best state of all.

Viterbi decoding maximises the expected score (minimum Bayes risk), not the probability: where a
seventh has probability .28, major .32 and sus4 .4, major is right by most of UTILITY_METRICS. A
metric that leaves a chord out counts as wrong, so sus2 is chosen only where its probability is half
as large again as that of major.

Where confidences stay low for a while, such as in speech, applause and drums alone, there is N.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial

import mir_eval
import numpy as np
from scipy import special
from scipy.special import logsumexp

from audiotrain.music.chord_classes import HEAD_SIZES, IGNORE
from audiotrain.music.chord_classes import decode as label_of
from audiotrain.utils.errors import UserError

BLOCK = 1024  # frames that Viterbi decides at once; it looks AHEAD further frames before it does
AHEAD = 128
UTILITY_METRICS = ("majmin", "tetrads", "mirex")  # mir_eval's, whose mean is a chord's utility
EXACT_SHARE = 0.1  # of the utility, for exactly the right chord: the metrics take 7 and 9 for one
MIN_UTILITY = 1e-9  # of an impossible chord
# Confidence times seconds that it costs to begin or end a passage of N in place of unsure chords:
# five seconds of speech, whose confidence is .05, are enough for one, three at a recording's end.
REJECTION_COST = 0.3
# Of `min_confidence`: a passage of a recording that has music elsewhere is likelier to be music. On
# 36 validation songs it loses nothing of majmin, and 1 in its place .0009.
PASSAGE_SHARE = 0.75

TYPES, ROOTS, BASSES = HEAD_SIZES
CHORDS = np.array(
    [(0, IGNORE)] + [(t, r) for t in range(1, TYPES) for r in range(ROOTS)], np.int16
)  # (type, root)
STATES = np.array(
    [(0, IGNORE, IGNORE)] + [(t, r, b) for t, r in CHORDS[1:] for b in range(BASSES)], np.int16
)
WIDTH = len(CHORDS) + BASSES

log_softmax = partial(special.log_softmax, axis=-1)


def log_probabilities(logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """(…, 385) log-probabilities of CHORDS and of bass notes, side by side, from a model's logits.

    "chord_type" gives the probability of N. The type given the root is "chord_type_of_root"
    (…, 12, 32) where the model has it, else "chord_type" for every root.
    """
    root = log_softmax(np.asarray(logits["root"], np.float32))
    types = np.asarray(logits["chord_type"], np.float32)
    given = np.asarray(logits.get("chord_type_of_root", types[..., None, :]), np.float32)
    any_root = log_softmax(types)
    roots = logsumexp(any_root[..., 1:], -1)[..., None] + root
    chords = (roots[..., None] + log_softmax(given[..., 1:])).swapaxes(-1, -2)
    chords = chords.reshape(*root.shape[:-1], len(CHORDS) - 1)
    bass = log_softmax(np.asarray(logits["bass_note"], np.float32))
    return np.concatenate([any_root[..., :1], chords, bass], axis=-1)


def split(posteriors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chords' (…, 373) and the bass notes' (…, 12) of `log_probabilities`."""
    return posteriors[..., : len(CHORDS)], posteriors[..., len(CHORDS) :]


def by_type(chords: np.ndarray) -> np.ndarray:
    """Log-probabilities (…, 31, 12) of types on roots, of those (…, 373) of CHORDS."""
    return chords[..., 1:].reshape(*chords.shape[:-1], TYPES - 1, ROOTS)


def heads_of(posteriors: np.ndarray) -> np.ndarray:
    """Log-probabilities (…, 56) by head, in the order of HEADS, from those of `log_probabilities`:
    types over all roots, roots over all types given that there is a chord, bass notes."""
    chords, bass = split(posteriors)
    types = logsumexp(by_type(chords), -1)
    roots = log_softmax(logsumexp(by_type(chords), -2))
    return np.concatenate([chords[..., :1], types, roots, bass], axis=-1)


def split_heads(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three heads of log-probabilities (…, 56) by `heads_of`: types (…, 32), roots (…, 12) and
    bass notes (…, 12)."""
    chord_type, root, bass = np.split(heads, [TYPES, TYPES + ROOTS], axis=-1)
    return chord_type, root, bass


def offset_types(posteriors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Log-probabilities (…, 385) after adding offsets (32,) to those of the chords of each type."""
    chords, bass = split(posteriors)
    return np.concatenate([log_softmax(chords + offsets[CHORDS[:, 0]]), bass], axis=-1)


def argmax(posteriors: np.ndarray) -> np.ndarray:
    """The most likely chord and bass note, (frames, 3) int16, of log-probabilities (frames, 385);
    N, without root and bass, where it is more likely than all chords together."""
    chords, bass = split(posteriors)
    is_none = chords[:, 0] > logsumexp(chords[:, 1:], -1)
    best = CHORDS[np.where(is_none, 0, 1 + chords[:, 1:].argmax(-1))]
    notes = np.where(best[:, 0] > 0, bass.argmax(-1), IGNORE)
    return np.column_stack([best, notes]).astype(np.int16)


@cache
def utility_matrix() -> np.ndarray:
    """(372, 372): the score, 0 to 1, of naming the chord of a column when that of the row is true,
    by UTILITY_METRICS and EXACT_SHARE; chords as in CHORDS, without N."""
    labels = [label_of((*chord, chord[1])) for chord in CHORDS[1:].tolist()]
    on_c, roots = labels[::ROOTS], np.arange(ROOTS)  # one root is enough: the metrics transpose
    pairs = labels * len(on_c), [label for label in on_c for _ in labels]
    metrics = [getattr(mir_eval.chord, name)(*pairs) for name in UTILITY_METRICS]
    scores = np.maximum(metrics, 0).mean(0)  # -1 where a metric leaves the true chord out
    scores = scores.reshape(len(on_c), -1, ROOTS)[:, :, (roots[:, None] - roots) % ROOTS]
    matrix = scores.transpose(1, 2, 0, 3).reshape(len(labels), -1)
    return ((1 - EXACT_SHARE) * matrix + EXACT_SHARE * np.eye(len(labels))).astype(np.float32)


def state_scores(posteriors: np.ndarray) -> np.ndarray:
    """Logarithm (frames, states) of the expected utility of each chord times the probability of its
    bass note, from log-probabilities (frames, 385).

    The score of N relates to the best chord's as the probability of N relates to that of all chords
    together: so N is not chosen merely because it is unclear which chord sounds, as one dies away.
    """
    chords, bass = split(posteriors)
    utility = np.log(np.exp(chords[:, 1:]) @ utility_matrix() + MIN_UTILITY)
    states = (utility[:, :, None] + bass[:, None, :]).reshape(len(posteriors), len(STATES) - 1)
    any_chord = np.maximum(logsumexp(chords[:, 1:], -1), math.log(MIN_UTILITY))
    none = chords[:, 0] - any_chord + utility.max(-1) + bass.max(-1)
    return np.concatenate([none[:, None], states], axis=1)


def viterbi_states(scores: np.ndarray, cost: float, before: np.ndarray | None = None):
    """The path (frames,) with the largest sum of scores less `cost` for each change of state.

    scores (frames, states); `before` (states,) are the sums of paths up to the frame before.

    >>> viterbi_states(np.array([[2.0, 0], [0, 1], [2, 0]]), cost=0.1).tolist()
    [0, 1, 0]
    >>> viterbi_states(np.array([[2.0, 0], [0, 1], [2, 0]]), cost=1.0).tolist()
    [0, 0, 0]
    """
    frames, states = scores.shape
    switched = np.zeros((frames, states), bool)
    best_before = np.zeros(frames, np.int64)
    total = np.zeros(states, np.float32) if before is None else before.astype(np.float32)
    for frame in range(frames):
        best = int(total.argmax())
        moved = total[best] - cost
        np.greater(moved, total, out=switched[frame])
        best_before[frame] = best
        total = np.maximum(total, moved) + scores[frame]
        total -= total.max()
    path = np.empty(frames, np.int64)
    path[-1] = int(total.argmax())
    for frame in range(frames - 1, 0, -1):
        now = path[frame]
        path[frame - 1] = best_before[frame] if switched[frame, now] else now
    return path


def decode_stream(
    pieces: Iterable[np.ndarray], cost: float | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(log-probabilities (frames, 385), their classes (frames, 3)) of consecutive pieces of
    log-probabilities, in constant memory.

    `cost` None decodes by argmax; a number is the Viterbi decoder's cost of a switch. It decides
    BLOCK frames once it has received AHEAD more, which is far longer than a chord. ValueError for a
    negative cost, from the first piece on.
    """
    if cost is None:
        yield from ((piece, argmax(piece)) for piece in pieces)
        return
    if cost < 0:
        raise UserError(f"switching cost {cost}, expected 0 or more")
    waiting, before = np.zeros((0, WIDTH), np.float32), None
    for piece in itertools.chain(pieces, [None]):
        if piece is not None:
            waiting = np.concatenate([waiting, piece])
        while len(waiting) >= BLOCK + AHEAD or (piece is None and len(waiting)):
            frames = len(waiting) if piece is None else BLOCK
            path = viterbi_states(state_scores(waiting[: frames + AHEAD]), cost, before)[:frames]
            yield waiting[:frames], STATES[path]
            waiting = waiting[frames:]
            before = np.full(len(STATES), -2 * cost - 1e3, np.float32)
            before[path[-1]] = 0


def decode(posteriors: np.ndarray, cost: float | None) -> np.ndarray:
    """Classes (frames, 3) of a whole song's log-probabilities (frames, 385). ValueError for a
    negative cost."""
    decoded = [classes for _, classes in decode_stream([posteriors], cost)]
    return np.concatenate([np.zeros((0, 3), np.int16), *decoded])


def confidences(posteriors: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Probability (frames,) of the decoded chords, classes (frames, 3), by log-probabilities
    (frames, 385)."""
    chords, bass = split(posteriors)
    frames = np.arange(len(posteriors))
    chord_type, root, note = classes.T.astype(int)
    is_none = chord_type == 0
    number = np.where(is_none, 0, 1 + (chord_type - 1) * ROOTS + root)
    bass_logs = np.where(is_none, 0.0, bass[frames, np.where(is_none, 0, note)])
    return np.exp(chords[frames, number] + bass_logs)


def is_rejected(
    confidences: np.ndarray, is_chord: np.ndarray, min_confidence: float, frame_seconds: float
) -> np.ndarray:
    """Return which frames (frames,) have chords that are too unsure, so that N is better: speech,
    applause, noise, drums alone.

    `confidences` (frames,) are those of the decoded labels, `is_chord` (frames,) is False where
    these are N. It is the reject option of Chow (1970, doi:10.1109/TIT.1970.1054406), for passages:
    first those whose confidence is below PASSAGE_SHARE of `min_confidence`, then all, where the
    rest of the recording is below `min_confidence`. One of 0 rejects nothing.

    >>> confidences = np.repeat([0.05, 0.7, 0.05, 0.6], [80, 40, 10, 40])  # 8 s of speech, music
    >>> rejected = is_rejected(confidences, np.ones(170, bool), 0.2, frame_seconds=0.1)
    >>> np.flatnonzero(np.diff(rejected)).tolist()
    [79]
    """
    if not min_confidence or not len(confidences):
        return np.zeros(len(confidences), bool)

    def gains(least: float) -> np.ndarray:
        """What naming each frame's chord gains; N in its place gains 0."""
        return np.where(is_chord, (confidences - least) * frame_seconds, 0.0)

    rejected = unsure_passages(gains(PASSAGE_SHARE * min_confidence))
    by_frame = gains(min_confidence)
    is_all_unsure = by_frame[~rejected].sum() <= 0 and by_frame.sum() < -REJECTION_COST
    return np.ones_like(rejected) if is_all_unsure else rejected


def unsure_passages(gains: np.ndarray) -> np.ndarray:
    """Return the frames (frames,) without which the sum of `gains` (frames,) is largest, less
    REJECTION_COST for each beginning and end of a passage but the end of the recording."""
    # The best passages change only where gains change their sign, so runs of them are enough.
    firsts = np.flatnonzero(np.append(True, np.diff(gains > 0)))
    sums = np.add.reduceat(gains, firsts)
    scores, before = np.stack([sums, np.zeros_like(sums)], axis=1), np.array([0, -REJECTION_COST])
    path = viterbi_states(scores, REJECTION_COST, before)
    return np.repeat(path == 1, np.diff(firsts, append=len(gains)))
