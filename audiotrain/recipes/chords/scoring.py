"""Scores of a chord model on songs, and the decoding that has the best ones."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from audiotrain.datasets.chords.items import Item
from audiotrain.evaluation.chord_report import ChordReport
from audiotrain.evaluation.chords import aggregate_scores, chord_scores
from audiotrain.recipes.chords import decoding
from audiotrain.recipes.chords.predictor import FrameRecognizer
from audiotrain.recipes.chords.songs import Song
from audiotrain.utils.progress import progress

COSTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of a switch, that `choose_decoding` tries
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the class weights, that it tries to undo
CHOSEN_BY = (*decoding.UTILITY_METRICS, "seg")  # the metrics whose mean it maximises

Save = Callable[[Song, np.ndarray], object]  # takes a song's log-probabilities (frames, 385)


def score(
    recognizer: FrameRecognizer, songs: Sequence[Song], text: str, save: Save | None = None
) -> ChordReport:
    """The scores of all songs, with a progress bar; `save` gets the posteriors of each."""
    report = ChordReport(recognizer.switching_cost)
    for song in progress(songs, text):
        posteriors = recognizer.song_log_probabilities(recognizer.inputs(song))
        if save is not None:
            save(song, posteriors)
        seconds = song.seconds(recognizer.settings)
        end = max(seconds, song.segments[-1].end if song.segments else 0.0)
        viterbi, argmax = (
            recognizer.segments(decoding.decode(posteriors, cost), song.onsets, end)
            for cost in (recognizer.switching_cost, None)
        )
        estimates = {"viterbi": viterbi, "argmax": argmax}
        report.add_song(song.name, seconds, song.segments, estimates)
        heads = decoding.split_heads(decoding.heads_of(posteriors))
        report.add_frames(song.classes, heads, decoding.argmax(posteriors))
    return report


def recordings_of(items: Iterable[Item]) -> dict[str, dict]:
    """Where each item's recording is: {"audio", "start", "end"}, the last two in its seconds."""
    return {
        item.id: {"audio": str(item.audio.resolve()), "start": item.start, "end": item.end}
        for item in items
        if isinstance(item.audio, Path) and not item.midi
    }


def choose_decoding(
    recognizer: FrameRecognizer, songs: Sequence[Song], type_weights: np.ndarray | None = None
) -> None:
    """Choose how a recognizer decodes: the best on up to 30 songs by the mean of CHOSEN_BY.

    First, of the weights (32,) that chord types had in the loss, the share that is undone: a rare
    type trained with weight w is predicted w times too often (Menon et al. 2021, arXiv:2007.07314).
    Then the cost of a switch.
    """
    recognizer.type_offsets, recognizer.switching_cost = None, 2.0
    settings, predictions = recognizer.settings, []
    for song in progress(list(songs)[:30], "decoding"):
        posteriors = recognizer.song_log_probabilities(recognizer.inputs(song))
        predictions.append((song, posteriors.astype(np.float16)))

    def total_score(cost: float, offsets: np.ndarray) -> float:
        scores = []
        for song, values in predictions:
            posteriors = decoding.offset_types(values.astype(np.float32), offsets)
            classes = decoding.decode(posteriors, cost)
            estimate = recognizer.segments(classes, song.onsets, song.seconds(settings))
            scores.append(chord_scores(song.segments, estimate))
        corpus = aggregate_scores(scores)["corpus"]
        return float(np.nansum([corpus[name] for name in CHOSEN_BY]))

    offsets = np.zeros(decoding.TYPES, np.float32)
    if type_weights is not None:
        logs = np.log(type_weights).astype(np.float32)
        tried = progress(SHARES, "decoding")
        share = max(tried, key=lambda share: total_score(recognizer.switching_cost, -share * logs))
        offsets = recognizer.type_offsets = -share * logs
    tried = progress(COSTS, "decoding")
    recognizer.switching_cost = max(tried, key=lambda cost: total_score(cost, offsets))
