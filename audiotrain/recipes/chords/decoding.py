"""From a model's logits to chords in time: each frame's likeliest, or Viterbi over whole chords.

Posteriors of a frame are log-probabilities (385,) of CHORDS, N and each type on each root, and of
bass notes. With a bass note a chord is one state of Viterbi's. Switching from any state to any
other costs the same, so a step is one comparison with the best state of all.

Viterbi looks for the chords that are expected to be worth most, by WORTH, rather than for the
likeliest ones (minimum Bayes risk): where a seventh is .28, major .32 and sus4 .4 likely, major is
right by most of what is compared. Comparisons leave some chords out: what WORTH can't tell is worth
less, so that sus2 is not named until it is half as likely again as major.
"""

import math
from collections.abc import Mapping
from functools import cache

import mir_eval
import numpy as np
from scipy.special import logsumexp

from audiotrain.music.chord_classes import HEAD_SIZES, IGNORE
from audiotrain.music.chord_classes import decode as label_of

BLOCK = 1024  # frames that Viterbi decides at once; it looks AHEAD further frames before it does
AHEAD = 128
WORTH = ("majmin", "tetrads", "mirex")  # mir_eval's comparisons that a chord is to be right by
EXACT = 0.1  # share of a chord's worth for being the very one: WORTH alone knows 7 and 9 as one
LEAST = 1e-9  # worth of a chord that cannot be

TYPES, ROOTS, BASSES = HEAD_SIZES
CHORDS = np.array(
    [(0, IGNORE)] + [(t, r) for t in range(1, TYPES) for r in range(ROOTS)], np.int16
)  # (type, root)
STATES = np.array(
    [(0, IGNORE, IGNORE)] + [(t, r, b) for t, r in CHORDS[1:] for b in range(BASSES)], np.int16
)
WIDTH = len(CHORDS) + BASSES


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_probabilities(logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """(…, 385) log-probabilities of CHORDS and of bass notes, side by side, of a model's logits.

    Whether there is a chord says "chord_type"; of which type it is if the root is this one, says
    "chord_type_of_root" (…, 12, 32) where there is one, else "chord_type" whatever the root.
    """
    root = log_softmax(np.asarray(logits["root"], np.float32))
    types = np.asarray(logits["chord_type"], np.float32)
    given = np.asarray(logits.get("chord_type_of_root", types[..., None, :]), np.float32)
    there = log_softmax(types)
    some = logsumexp(there[..., 1:], -1)[..., None] + root
    chords = (some[..., None] + log_softmax(given[..., 1:])).swapaxes(-1, -2)
    chords = chords.reshape(*root.shape[:-1], len(CHORDS) - 1)
    bass = log_softmax(np.asarray(logits["bass_note"], np.float32))
    return np.concatenate([there[..., :1], chords, bass], axis=-1)


def split(posteriors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chords' (…, 373) and the bass notes' (…, 12) of `log_probabilities`."""
    return posteriors[..., : len(CHORDS)], posteriors[..., len(CHORDS) :]


def by_type(chords: np.ndarray) -> np.ndarray:
    """Log-probabilities (…, 31, 12) of types on roots, of those (…, 373) of CHORDS."""
    return chords[..., 1:].reshape(*chords.shape[:-1], TYPES - 1, ROOTS)


def heads_of(posteriors: np.ndarray) -> np.ndarray:
    """Log-probabilities (…, 56) by head, in the order of HEADS, of `log_probabilities`: types
    whatever the root, roots whatever the type if there is a chord, bass notes."""
    chords, bass = split(posteriors)
    types = logsumexp(by_type(chords), -1)
    roots = log_softmax(logsumexp(by_type(chords), -2))
    return np.concatenate([chords[..., :1], types, roots, bass], axis=-1)


def split_heads(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three heads of `heads_of`."""
    chord_type, root, bass = np.split(heads, [TYPES, TYPES + ROOTS], axis=-1)
    return chord_type, root, bass


def offset_types(posteriors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Log-probabilities after adding offsets (32,) to those of the chords of each type: types and
    with them roots become likelier or less."""
    chords, bass = split(posteriors)
    return np.concatenate([log_softmax(chords + offsets[CHORDS[:, 0]]), bass], axis=-1)


def argmax(posteriors: np.ndarray) -> np.ndarray:
    """The likeliest chord and bass note, (frames, 3) int16; N, its root and bass ignored, where it
    is likelier than that there is a chord."""
    chords, bass = split(posteriors)
    none = chords[:, 0] > logsumexp(chords[:, 1:], -1)
    found = CHORDS[np.where(none, 0, 1 + chords[:, 1:].argmax(-1))]
    notes = np.where(found[:, 0] > 0, bass.argmax(-1), IGNORE)
    return np.column_stack([found, notes]).astype(np.int16)


@cache
def worths() -> np.ndarray:
    """(372, 372): how right a chord (column) is where another (row) is the true one, 0 to 1, by
    WORTH and EXACT; both as in CHORDS, without N, which nothing but N is right for."""
    labels = [label_of((*chord, chord[1])) for chord in CHORDS[1:].tolist()]
    said, roots = labels[::ROOTS], np.arange(ROOTS)  # each type on C; on other roots alike
    pairs = labels * len(said), [label for label in said for _ in labels]
    right = [getattr(mir_eval.chord, name)(*pairs) for name in WORTH]
    share = np.maximum(right, 0).mean(0)  # -1 where a comparison leaves the true chord out
    share = share.reshape(len(said), -1, ROOTS)[:, :, (roots[:, None] - roots) % ROOTS]
    table = share.transpose(1, 2, 0, 3).reshape(len(labels), -1)
    return ((1 - EXACT) * table + EXACT * np.eye(len(labels))).astype(np.float32)


def state_scores(posteriors: np.ndarray) -> np.ndarray:
    """Logarithm (frames, states) of what each chord is expected to be worth, times its bass note's
    probability.

    N has to the best chord's worth the ratio that its probability has to that of any chord at all:
    it is not named because nobody can tell which chord sounds, as one dies away.
    """
    chords, bass = split(posteriors)
    worth = np.log(np.exp(chords[:, 1:]) @ worths() + LEAST)
    states = (worth[:, :, None] + bass[:, None, :]).reshape(len(posteriors), len(STATES) - 1)
    some = np.maximum(logsumexp(chords[:, 1:], -1), math.log(LEAST))
    none = chords[:, 0] - some + worth.max(-1) + bass.max(-1)
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


class Decoder:
    """Classes of frames as their probabilities come in, with memory that does not grow.

    `cost` None decides by argmax; a number is Viterbi's cost of a change. Viterbi decides BLOCK
    frames once it has seen AHEAD more: chords are far shorter than that.
    """

    def __init__(self, cost: float | None):
        if cost is not None and cost < 0:
            raise ValueError(f"switching cost {cost}, expected 0 or more")
        self.cost = cost
        self._waiting = np.zeros((0, WIDTH), np.float32)
        self._last: int | None = None  # state of the last frame that was decided

    def add(self, posteriors: np.ndarray) -> np.ndarray:
        """Classes (frames, 3) of the frames that are decided now, in order."""
        if self.cost is None:
            return argmax(posteriors)
        self._waiting = np.concatenate([self._waiting, posteriors])
        decided = [np.zeros((0, 3), np.int16)]
        while len(self._waiting) >= BLOCK + AHEAD:
            decided.append(self._decide(BLOCK))
        return np.concatenate(decided)

    def finish(self) -> np.ndarray:
        """Classes of the frames that are left."""
        if self.cost is None or not len(self._waiting):
            return np.zeros((0, 3), np.int16)
        return self._decide(len(self._waiting))

    def _decide(self, frames: int) -> np.ndarray:
        scores = state_scores(self._waiting[: frames + AHEAD])
        before = None
        if self._last is not None:
            before = np.full(len(STATES), -2 * self.cost - 1e3, np.float32)
            before[self._last] = 0
        path = viterbi_states(scores, self.cost, before)[:frames]
        self._waiting, self._last = self._waiting[frames:], int(path[-1])
        return STATES[path]


def decode(posteriors: np.ndarray, cost: float | None) -> np.ndarray:
    """Classes (frames, 3) of a whole song's log-probabilities (frames, 385)."""
    decoder = Decoder(cost)
    return np.concatenate([decoder.add(posteriors), decoder.finish()])


def confidences(posteriors: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Probability (frames,) that the model gives to the chord that was chosen."""
    chords, bass = split(posteriors)
    frames = np.arange(len(posteriors))
    chord_type, root, note = classes.T.astype(int)
    none = chord_type == 0
    number = np.where(none, 0, 1 + (chord_type - 1) * ROOTS + root)
    logs = chords[frames, number] + np.where(none, 0.0, bass[frames, np.where(none, 0, note)])
    return np.exp(logs)
