"""Songs as cached features, frame labels and onsets.

A song is a recording, a MIDI file played on random instruments, or a composed one; each becomes
log-magnitude CQT frames with margin bins at both ends.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from audiotrain.config.schema import NonNegativeInt, PositiveInt, validated
from audiotrain.datasets.chords import corpus as chords_corpus
from audiotrain.datasets.chords import discovery
from audiotrain.datasets.chords.items import Item
from audiotrain.datasets.chords.items import segments as segments_of
from audiotrain.datasets.items import Corpus
from audiotrain.datasets.splits import SPLITS
from audiotrain.datasets.summary import ProblemLog
from audiotrain.datasets.synthesis import degradation, guitar, midi, speech
from audiotrain.datasets.synthesis.songs import VERSION as SYNTHESIS
from audiotrain.datasets.synthesis.songs import SongSynthesizer
from audiotrain.features import audio as audio_files
from audiotrain.features import extract, tuning
from audiotrain.features.cache import FeatureCache
from audiotrain.features.onsets import Onsets
from audiotrain.music.segments import Segment, segments_to_frames
from audiotrain.recipes.common.preparation import prepare
from audiotrain.recipes.common.split import Incomplete, keep_readable
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.utils.errors import UserError
from audiotrain.utils.text import count

FLOOR = 1e-4  # added to magnitudes before the logarithm
ONSETS = 2  # raise it when onset strengths change
EXCERPT = 90.0  # seconds of a song that a degraded copy has
SILENCE = -80.0  # dB of FLOOR: the feature of a silent bin
NO_ONSETS = np.zeros(0, np.float16)
T = TypeVar("T")
MultipleOf12 = Annotated[int, Field(ge=12, multiple_of=12, description="a multiple of 12")]


@validated(kw_only=True)
class LabelSettings:
    """How the files of chord labels are read."""

    selector: str | None = None
    """which chord annotation of a JAMS file: a number or an annotator's name"""
    pop_spellings: bool = False
    """read Cm7b5, CM7, Csus, C°, Cø and German H too"""


@validated
class FeatureSettings:
    """The model's input: a constant-Q transform with equal steps on a logarithmic scale."""

    rate: PositiveInt = 22050
    """samples per second that audio is resampled to"""
    hop: PositiveInt = 2048
    """samples between frames"""
    bins: PositiveInt = 144
    """bins that the model takes, from C1 upwards"""
    bins_per_octave: MultipleOf12 = 24
    """bins per octave, a multiple of 12"""
    margin: NonNegativeInt = 6
    """semitones of further bins at both ends, the most that training transposes"""

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop / self.rate

    @property
    def bins_per_semitone(self) -> int:
        """Bins that a semitone moves."""
        return self.bins_per_octave // 12

    @property
    def margin_bins(self) -> int:
        """Bins of the margin at each end."""
        return self.margin * self.bins_per_semitone

    def cqt(self, margin: bool, tuning: float = 0.0) -> extract.CQTSettings:
        """The transform, with or without the margin bins, for music whose A is `tuning` semitones
        above 440 Hz."""
        c1 = extract.CQTSettings().fmin * 2 ** (tuning / 12)
        plain = extract.CQTSettings(self.rate, self.hop, self.bins, self.bins_per_octave, c1)
        if not margin:
            return plain
        bins = self.bins + 2 * self.margin_bins
        return replace(plain, bins=bins, fmin=c1 * 2 ** (-self.margin / 12))


class Song(NamedTuple):
    """Features (frames, bins + margins) float16, classes (frames, 3) int16, its labels in seconds,
    and its onset strengths (steps,); without those its chords change between frames. `missing` says
    what could not be decoded."""

    name: str
    features: np.ndarray
    classes: np.ndarray
    segments: list[Segment]
    onsets: np.ndarray = NO_ONSETS
    missing: str = ""

    def seconds(self, settings: FeatureSettings) -> float:
        """Length by its frames."""
        return len(self.features) * settings.frame_seconds


def decibels(magnitudes: np.ndarray) -> np.ndarray:
    """The model's input for CQT magnitudes: dB above 1, never below SILENCE."""
    return 20 * np.log10(magnitudes + FLOOR)


class SongLibrary:
    """Makes songs, from files or from seeds, through a cache on disk."""

    def __init__(
        self, settings: FeatureSettings, cache: Path, seed: int = 0, soundfonts: Sequence[Path] = ()
    ):
        self.settings, self.soundfonts = settings, tuple(soundfonts)
        self.synthesizer = SongSynthesizer(settings.rate, seed, soundfonts)
        extract.front_end(settings.cqt(margin=True))  # refuses bins that the rate does not reach
        self.cache = FeatureCache(cache, dtype=np.float16)
        self._borrowed: tuple[Sequence[list[Segment]], int] = ((), 0)  # with their checksum
        self.guitars = guitar.GuitarSynthesizer(settings.rate, seed)
        self._composed: dict[str, tuple] = {}  # synthesizer and arguments of its compose, by name
        clips = speech.cached_clips(self.cache, settings.rate)
        self._degrader = degradation.Degrader(settings.rate, clips, self.synthesizer.soundfonts)

    def __reduce__(self):  # for a worker process, which opens the soundfonts itself
        arguments = self.settings, self.cache.folder, self.synthesizer.seed, self.soundfonts
        return type(self), arguments

    def song(
        self, item: Item, rendering: int = 0, tuned: bool = False, onsets: bool = True
    ) -> Song:
        """A labelled recording, or a `rendering` of a MIDI file (see SongSynthesizer.play_midi).
        `tuned` estimates its tuning and moves the transform there. Songs that are only trained on
        need no `onsets`.

        AudioError or ValueError, one line with the file, when it cannot be read.
        """
        values, strengths, missing = self.extract(item, rendering, tuned, onsets)
        segments = segments_of(item, len(values) * self.settings.frame_seconds)
        return self._labelled(item.id, values, segments, strengths)._replace(missing=missing)

    def extract(
        self, item: Item, rendering: int = 0, tuned: bool = False, onsets: bool = True
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """The features and onset strengths of a `song`, and what could not be decoded of it."""
        if item.audio is None:
            raise UserError(f"{item.id}: labels without audio")
        if not item.audio.is_file():
            raise UserError(f"{item.audio}: no such file")
        key: dict[str, Any] = {}
        if item.midi:
            seed = self.synthesizer.seed if rendering else 0  # as written, nothing is random
            key["rendering"] = [SYNTHESIS, seed, rendering]
            key |= self.synthesizer.cache_key() if rendering else {}
        else:
            key["reader"] = audio_files.VERSION
        if not item.midi or item.start or item.end is not None:
            key["span"] = [item.start, item.end]
        missing = None if item.midi else audio_files.Gathered()
        values, strengths = self._features(
            item.audio,
            key,
            lambda: self.source(item, rendering, missing or audio_files.ignore),
            tuned,
            onsets,
            missing,
        )
        if item.midi:
            return values, strengths, ""
        return values, strengths, self.cache.text(item.audio, key, lambda: self._missing(item))

    def _missing(self, item: Item) -> str:
        """What cannot be decoded of a recording, which is read through."""
        missing = audio_files.Gathered()
        source = self.source(item, on_missing=missing)
        if isinstance(source, Path):
            for _ in audio_files.stream(source, self.settings.rate, on_missing=missing):
                pass
        return missing.text

    def degraded(self, item: Item, copy: int) -> Song:
        """The `copy`-th degraded copy of EXCERPT seconds of a song, without onsets: a recording as
        it is, or a MIDI file in a random tuning, half of them on random instruments."""
        rng = self._rng("degraded", item.id, copy)
        seconds = self._seconds(item)
        start = item.start + rng.uniform(0, max(0.0, seconds - EXCERPT))
        end = min(start + EXCERPT, item.start + seconds)
        excerpt = replace(item, start=start, end=end)
        labels = segments_of(excerpt, end - start)
        cents = float(rng.uniform(-1, 1) * degradation.MAXIMUM_TUNING)

        def audio() -> np.ndarray:
            if item.midi:
                assert item.audio is not None
                length = end - start
                played = self.synthesizer.play_excerpt(
                    item.audio, item.id, copy, start, length, cents
                )
            else:
                source = self.source(excerpt)
                assert isinstance(source, np.ndarray)
                played = source
            return self._degrader(played, labels, rng)

        key = self._degraded_key(labels, copy) | {"midi": [SYNTHESIS, item.id, cents]}
        key |= {"span": [start, end]}
        assert item.audio is not None
        values, _ = self._features(item.audio, key, audio, onsets=False)
        return self._labelled(item.id, values, labels, NO_ONSETS)

    def composed(
        self,
        number: int,
        seconds: float,
        borrowed: Sequence[list[Segment]],
        strummed: bool = False,
        copy: int = 0,
    ) -> Song:
        """The `number`-th song of the seed, see SongSynthesizer.compose, or, `strummed`, that of
        GuitarSynthesizer. `copy` 0 is the song as it is, others are degraded."""
        synthesizer: SongSynthesizer | guitar.GuitarSynthesizer = self.synthesizer
        version, kind, key = str(SYNTHESIS), "song", self.synthesizer.cache_key()
        if strummed:
            version, kind, synthesizer, key = f"guitar {guitar.VERSION}", "guitar", self.guitars, {}
        name, arguments = f"{kind}-{number:04d}", (number, seconds, borrowed)
        self._composed[name] = (synthesizer, arguments)
        seed, checksum = self.synthesizer.seed, self._checksum(borrowed)
        labels = synthesizer.labels(*arguments)

        def audio() -> np.ndarray:
            samples = self.audio_of(name, None)
            return self._degrader(samples, labels, self._rng(name, copy)) if copy else samples

        if copy:
            key = key | self._degraded_key(labels, copy)
        source = f"{version} {seed} {number} {seconds} {checksum}"
        values, onsets = self._features(source, key, audio, onsets=not copy)
        return self._labelled(name, values, labels, onsets)

    def _rng(self, *parts: object) -> np.random.Generator:
        return np.random.default_rng([self.synthesizer.seed, zlib.crc32(repr(parts).encode())])

    def _degraded_key(self, labels: Sequence[Segment], copy: int) -> dict[str, Any]:
        """What a degraded copy depends on besides its song."""
        versions = [degradation.VERSION, speech.VERSION, self.synthesizer.seed, copy]
        checksum = zlib.crc32(repr(labels).encode())
        return {"degraded": [*versions, checksum], **self.synthesizer.cache_key()}

    def _seconds(self, item: Item) -> float:
        """Length of an item's audio by its header, or by its MIDI file."""
        assert item.audio is not None
        if item.midi:
            end = midi.midi_seconds(item.audio) or 0.0
        else:
            end = audio_files.info(item.audio).seconds
        return max(0.0, min(end, item.end or end) - item.start)

    def audio_of(self, name: str, item: Item | None, rendering: int = 0) -> np.ndarray:
        """Samples of a composed song, or of a rendering of the item's span of a MIDI file."""
        if item is None:
            synthesizer, arguments = self._composed[name]
            return synthesizer.compose(*arguments)[0]
        assert item.audio is not None
        audio = self.synthesizer.play_midi(item.audio, item.id, rendering)
        rate = self.settings.rate
        if item.start >= len(audio) / rate:
            raise UserError(
                f"{item.audio}: span starts at {item.start:g} s, but the MIDI ends at "
                f"{len(audio) / rate:.3f} s"
            )
        last = None if item.end is None else round(item.end * rate)
        return audio[round(item.start * rate) : last]

    def source(
        self,
        item: Item,
        rendering: int = 0,
        on_missing: audio_files.OnMissing = audio_files.ignore,
    ) -> np.ndarray | Path:
        """The file of a recording; samples of a span of one, or of a rendering of a MIDI file."""
        assert item.audio is not None
        if item.midi:
            return self.audio_of(item.id, item, rendering)
        if not item.start and item.end is None:
            return item.audio
        length = None if item.end is None else item.end - item.start
        rate = self.settings.rate
        return audio_files.read(item.audio, rate, item.start, length, on_missing)

    def _checksum(self, borrowed: Sequence[list[Segment]]) -> int:
        """A checksum of labels, computed once: hundreds of songs borrow from the same ones."""
        if borrowed is not self._borrowed[0]:
            self._borrowed = (borrowed, zlib.crc32(repr(borrowed).encode()) if borrowed else 0)
        return self._borrowed[1]

    def _labelled(
        self, name: str, values: np.ndarray, segments: list[Segment], onsets: np.ndarray
    ) -> Song:
        classes = segments_to_frames(segments, len(values), self.settings.frame_seconds)
        return Song(name, values, classes, segments, onsets)

    def _features(
        self,
        source: Path | str,
        key: Mapping[str, Any],
        audio: Callable[[], np.ndarray | Path],
        tuned: bool = False,
        onsets: bool = True,
        missing: audio_files.Gathered | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-magnitude features and onset strengths of a source, computed in one pass; without
        `onsets` no strengths. `key` is what they depend on besides source and settings. What
        `missing` gathers is kept as the text of `key`."""
        settings, read = self.settings, cache(audio)
        semitones = 0.0
        if tuned:  # kept, so that recordings in tune share their features with training
            name = {**key, "tuning": tuning.VERSION, "rate": settings.rate}
            steps = self.cache.get(
                source,
                name,
                lambda: np.array([tuning.tuning_of(read(), settings.rate) / tuning.STEP]),
            )
            semitones = round(float(steps[0])) * tuning.STEP

        @cache
        def compute() -> tuple[np.ndarray, Onsets]:
            samples, detector = read(), Onsets(settings.rate, settings.hop)
            transform = settings.cqt(margin=True, tuning=semitones)
            on_samples: extract.OnSamples = detector.add if onsets else lambda samples: None
            on_missing = missing or audio_files.ignore
            bins = extract.extract(samples, transform, on_samples=on_samples, on_missing=on_missing)
            if missing is not None:
                self.cache.text(source, span, lambda: missing.text)
            return decibels(bins), detector

        span, key = key, {"floor": FLOOR, "cqt": asdict(settings.cqt(margin=True))} | dict(key)
        key |= {"tuned": semitones} if semitones else {}
        values = self.cache.get(source, key, lambda: compute()[0])
        if not onsets:
            return values, NO_ONSETS
        key = {**key, "onsets": ONSETS}
        return values, self.cache.get(source, key, lambda: compute()[1].strengths())


class Wanted(NamedTuple):
    """A song to load: the numbers of its renderings, if it is a MIDI file, how many degraded copies
    follow, and whether the tuning of the renderings is estimated."""

    item: Item
    renderings: Sequence[int] = (0,)
    degraded: int = 0
    tuned: bool = False


def load_renderings(
    library: SongLibrary,
    wanted: Sequence[Wanted | tuple[Item, Sequence[int]]],
    ranks: SingleProcess | None = None,
    workers: int | None = None,
) -> list[list[Song] | str | Incomplete]:
    """The songs of each item, of which the first has onsets, or why it cannot be read; `Incomplete`
    where a part cannot be decoded. What the
    cache lacks is extracted on all cores, shared out over the `ranks`."""
    each = [Wanted(*one) for one in wanted]
    each = [one if one.item.midi else one._replace(renderings=(0,)) for one in each]
    problems = prepare(
        partial(_extract, library),
        each,
        "reading",
        name=lambda one: str(one.item.audio),
        caches=[library.cache],
        workers=workers,
        ranks=ranks,
    )
    pairs = zip(each, problems, strict=True)
    return [problem or _whole(_songs(library, one), one.item) for one, problem in pairs]


def _whole(songs: list[Song] | str, item: Item) -> list[Song] | str | Incomplete:
    """The songs, marked where a part of their recording could not be decoded."""
    if isinstance(songs, str) or not songs[0].missing:
        return songs
    return Incomplete(songs, f"{item.audio}: {songs[0].missing}")


def _extract(library: SongLibrary, wanted: Wanted) -> str | None:
    extracted = _songs(library, wanted)
    return extracted if isinstance(extracted, str) else None


def _songs(library: SongLibrary, wanted: Wanted) -> list[Song] | str:
    """The renderings and copies of an item, or why one cannot be read."""
    item, numbers, degraded, tuned = wanted
    try:
        songs = [library.song(item, number, tuned, number == numbers[0]) for number in numbers]
        return songs + [library.degraded(item, copy) for copy in range(1, degraded + 1)]
    except UserError as error:
        return str(error)


def load_songs(
    library: SongLibrary,
    items: Sequence[Item],
    log: ProblemLog,
    rendering: int = 0,
    tuned: bool = False,
    workers: int | None = None,
    strict: bool = False,
) -> list[Song]:
    """One rendering of each item; those that cannot be read go into `log`. ValueError when none
    can be read, or when `strict` and one cannot be read whole."""
    wanted = [Wanted(item, [rendering], tuned=tuned) for item in items]
    loaded = load_renderings(library, wanted, workers=workers)
    return first_renderings(keep_readable(loaded, "songs", log, strict))


def first_renderings(songs: Sequence[Sequence[Song]]) -> list[Song]:
    """One rendering of each song."""
    return [renderings[0] for renderings in songs]


def compose_songs(
    library: SongLibrary,
    count: int,
    seconds: float,
    borrowed: Sequence[list[Segment]],
    ranks: SingleProcess | None = None,
    strummed: bool = False,
    degraded: int = 0,
) -> list[list[Song]]:
    """The first `count` composed (or `strummed`) songs, each followed by its degraded copies;
    played on all cores, shared out over the `ranks`."""
    numbers, copies = range(count), range(degraded + 1)
    prepare(
        partial(_compose, library, seconds, borrowed, strummed, copies),
        numbers,
        "composing",
        name="composed song {}".format,
        caches=[library.cache],
        ranks=ranks,
    )
    return [
        [library.composed(number, seconds, borrowed, strummed, copy) for copy in copies]
        for number in numbers
    ]


def _compose(
    library: SongLibrary,
    seconds: float,
    borrowed: Sequence[list[Segment]],
    strummed: bool,
    copies: Iterable[int],
    number: int,
) -> None:
    for copy in copies:
        library.composed(number, seconds, borrowed, strummed, copy)


# ---- the songs of a run


def discover(
    data: Path, labels: LabelSettings, log: ProblemLog, group: str | None = None
) -> Corpus[Item]:
    """The labelled recordings of a folder, after printing what is there; `log` gets all problems.
    ValueError when it has no audio."""
    number = labels.selector is not None and labels.selector.isdigit()
    selector = int(labels.selector or 0) if number else labels.selector
    corpus = discovery.discover(data, selector, group, labels.pop_spellings)
    corpus = chords_corpus.check(corpus)
    print(chords_corpus.report(corpus, log), flush=True)
    if not any(item.audio is not None for item in corpus.items):
        songs = count(len(corpus.items), "song")
        raise UserError(f"{corpus.folder}: labels of {songs} but no audio to train on")
    return corpus


def split_by_difficulty(
    songs: Sequence[list[Song]], valid: float, test: float
) -> dict[str, list[list[Song]]]:
    """Composed songs by part, one or more to validate and one or more to test on. All parts have
    easy songs (of few chords) and hard ones: of few songs chosen at random, the difficulty differs
    more than models do."""
    count = len(songs)
    counts = [min(max(1, round(count * share)), count - 2) for share in (valid, test)]
    held_out = min(sum(counts), count - 1)
    tested = held_out * counts[1] // sum(counts)

    def difficulty(renderings: list[Song]) -> tuple[int, str]:
        labels = {segment.label.replace("X", "N") for segment in renderings[0].segments}
        return len(labels), renderings[0].name

    parts = np.full(count, "train")
    parts[_evenly(held_out, count)] = np.where(_evenly(tested, held_out), "test", "valid")
    part_of = dict(zip([name for _, name in sorted(map(difficulty, songs))], parts, strict=True))
    by_name = sorted(songs, key=lambda renderings: renderings[0].name)
    return {part: [one for one in by_name if part_of[one[0].name] == part] for part in SPLITS}


def _evenly(chosen: int, count: int) -> np.ndarray:
    """(count,) bool, with `chosen` of them true, evenly spaced."""
    return np.diff((2 * np.arange(count + 1) * chosen + count) // (2 * count)) > 0


def statistics(songs: Sequence[Sequence[Song]], settings: FeatureSettings) -> tuple[float, float]:
    """Mean and standard deviation of the features of up to 200 songs."""
    margin = settings.margin_bins
    values = [
        song.features[::7, margin : margin + settings.bins].astype(np.float64)
        for song in first_renderings(songs[:: max(1, len(songs) // 200)])
    ]
    joined = np.concatenate(values)
    return float(joined.mean()), float(max(joined.std(), 1e-3))
