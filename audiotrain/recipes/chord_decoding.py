"""From logits of the three heads to chords in time: argmax by frame, or Viterbi over whole chords.

A chord is one state (type, root, bass); N is a single state. Switching from any state to any other
costs the same, so a step of Viterbi is one comparison with the best state of all.
"""

from collections.abc import Mapping

import numpy as np

from audiotrain.harmony import HEAD_SIZES, HEADS

BLOCK = 1024  # frames that Viterbi decides at once; it looks AHEAD further frames before it does
AHEAD = 128

TYPES, ROOTS, BASSES = HEAD_SIZES
STATES = np.array(
    [(0, -100, -100)]
    + [(t, r, b) for t in range(1, TYPES) for r in range(ROOTS) for b in range(BASSES)],
    np.int16,
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_probabilities(logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """(frames, 32 + 12 + 12) log-probabilities of the heads side by side, in the order of HEADS."""
    return np.concatenate([log_softmax(np.asarray(logits[head], np.float32)) for head in HEADS], -1)


def split_heads(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three heads of `log_probabilities`."""
    chord_type, root, bass = np.split(heads, [TYPES, TYPES + ROOTS], axis=-1)
    return chord_type, root, bass


def offset_types(heads: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Log-probabilities after adding offsets (32,) to the logits of the chord types."""
    heads = heads.copy()
    heads[..., :TYPES] = log_softmax(heads[..., :TYPES] + offsets)
    return heads


def argmax(heads: np.ndarray) -> np.ndarray:
    """The likeliest class of each head, (frames, 3) int16; root and bass ignored where N is."""
    classes = np.stack([part.argmax(-1) for part in split_heads(heads)], -1).astype(np.int16)
    classes[classes[:, 0] == 0, 1:] = -100
    return classes


def state_scores(heads: np.ndarray) -> np.ndarray:
    """Joint log-probability (frames, states) of every chord.

    N has no root and bass; it takes those of the likeliest ones, so that without a switching cost
    the best state is `argmax`.
    """
    chord_type, root, bass = split_heads(heads)
    chords = (
        chord_type[:, 1:, None, None] + root[:, None, :, None] + bass[:, None, None, :]
    ).reshape(len(heads), -1)
    none = chord_type[:, 0] + root.max(-1) + bass.max(-1)
    return np.concatenate([none[:, None], chords], axis=1)


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
        self._waiting = np.zeros((0, TYPES + ROOTS + BASSES), np.float32)
        self._last: int | None = None  # state of the last frame that was decided

    def add(self, heads: np.ndarray) -> np.ndarray:
        """Classes (frames, 3) of the frames that are decided now, in order."""
        if self.cost is None:
            return argmax(heads)
        self._waiting = np.concatenate([self._waiting, heads])
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


def decode(heads: np.ndarray, cost: float | None) -> np.ndarray:
    """Classes (frames, 3) of a whole song's log-probabilities (frames, 56)."""
    decoder = Decoder(cost)
    return np.concatenate([decoder.add(heads), decoder.finish()])


def confidences(heads: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Probability (frames,) that the model gives to the chord that was chosen."""
    parts = split_heads(heads)
    frames = np.arange(len(heads))
    known = np.maximum(classes, 0)
    logs = [part[frames, known[:, head]] for head, part in enumerate(parts)]
    chord = classes[:, 0] > 0
    return np.exp(logs[0] + np.where(chord, logs[1] + logs[2], 0.0))
