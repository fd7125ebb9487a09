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
# It takes the first of these below which N takes no more than that of the time of labelled chords.
# The chords of speech, applause and drums alone have confidences of .03 to .17, of songs .28 up.
MIN_CONFIDENCES, MOST_LOST = (0.2, 0.15, 0.1, 0.05), 0.002
CHOSEN_BY = (*decoding.UTILITY_METRICS, "seg")  # the metrics whose mean it maximises

Save = Callable[[Song, np.ndarray], object]  # takes a song's log-probabilities (frames, 385)


def score(
    recognizer: FrameRecognizer, songs: Sequence[Song], text: str, save: Save | None = None
) -> ChordReport:
    """The scores of all songs, with a progress bar; `save` gets the posteriors of each."""
    report = ChordReport(recognizer.switching_cost, recognizer.min_confidence)
    for song in progress(songs, text):
        posteriors = recognizer.song_log_probabilities(recognizer.inputs(song))
        if save is not None:
            save(song, posteriors)
        seconds = song.seconds(recognizer.settings)
        end = max(seconds, song.segments[-1].end if song.segments else 0.0)
        viterbi, argmax = (
            recognizer.segments(classes, song.onsets, end)
            for classes in (recognizer.decode(posteriors), decoding.decode(posteriors, None))
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
    Then the cost of a switch. Then the confidence below which passages become N.
    """
    recognizer.type_offsets, recognizer.switching_cost, recognizer.min_confidence = None, 2.0, 0.0
    settings, predictions = recognizer.settings, []
    for song in progress(list(songs)[:30], "decoding"):
        posteriors = recognizer.song_log_probabilities(recognizer.inputs(song))
        predictions.append((song, posteriors.astype(np.float16)))

    def corpus(offsets: np.ndarray) -> dict[str, float]:
        scores = []
        for song, values in predictions:
            classes = recognizer.decode(decoding.offset_types(values.astype(np.float32), offsets))
            estimate = recognizer.segments(classes, song.onsets, song.seconds(settings))
            scores.append(chord_scores(song.segments, estimate))
        return aggregate_scores(scores)["corpus"]

    def total_score(cost: float, offsets: np.ndarray) -> float:
        recognizer.switching_cost = cost
        scores = corpus(offsets)
        return float(np.nansum([scores[name] for name in CHOSEN_BY]))

    offsets = np.zeros(decoding.TYPES, np.float32)
    if type_weights is not None:
        logs = np.log(type_weights).astype(np.float32)
        tried = progress(SHARES, "decoding")
        share = max(tried, key=lambda share: total_score(recognizer.switching_cost, -share * logs))
        offsets = recognizer.type_offsets = -share * logs
    tried = progress(COSTS, "decoding")
    recognizer.switching_cost = max(tried, key=lambda cost: total_score(cost, offsets))
    recognizer.min_confidence = choose_min_confidence(recognizer, predictions, offsets)


def choose_min_confidence(
    recognizer: FrameRecognizer,
    predictions: Sequence[tuple[Song, np.ndarray]],
    offsets: np.ndarray,
) -> float:
    """Return the first of MIN_CONFIDENCES that takes no more than MOST_LOST of the chords, right or
    wrong, of songs with their log-probabilities (frames, 385); 0 for a model that is that unsure of
    music, too."""
    lost, frames = np.zeros(len(MIN_CONFIDENCES)), 0
    for song, values in predictions:
        posteriors = decoding.offset_types(values.astype(np.float32), offsets)
        classes = decoding.decode(posteriors, recognizer.switching_cost)
        sure, is_chord = decoding.confidences(posteriors, classes), classes[:, 0] > 0
        labelled = is_chord & (song.classes[: len(classes), 0] > 0)
        frames += int(labelled.sum())
        seconds = recognizer.settings.frame_seconds
        for number, least in enumerate(MIN_CONFIDENCES):
            lost[number] += decoding.is_rejected(sure, is_chord, least, seconds)[labelled].sum()
    few_lost = (
        least for least, n in zip(MIN_CONFIDENCES, lost, strict=True) if n <= MOST_LOST * frames
    )
    return next(few_lost, 0.0)
