"""Which label file belongs to which recording, by their names.

Names are paths relative to the data folder, with `/` between the parts. The surest rule goes first:
same folder and stem; same path but for one folder (`audio/a/x.mp3`, `chords/a/x.lab`); the only
recording in a folder of its own (`0004/audio.flac`, `0004/salami_chords.txt`); same stem anywhere,
if no other recording has it; the same words in folder and stem, if no other recording has them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from audiotrain.datasets.paths import one_form

LABEL_PREFERENCE = (".lab", ".jams", ".csv", ".tsv", ".txt", ".json")
# Label files named by their kind and not by the song, the most detailed first.
GENERIC_STEMS = (
    *("salami_chords", "full", "chords", "chord", "chord_midi", "chord_audio", "majmin7inv"),
    *("majmininv", "majmin7", "majmin", "harmony", "labels", "annotation", "annotations"),
)
# What datasets add to a song's name for a kind of recording or of label.
_ADDED = re.compile(
    r"(\.(wav|flac|ogg|mp3|m4a|mid|midi)|[ _.-](mic|mix|hex|hex_cln|mono|stereo|audio|"
    r"chords?|chord_?labels?|labels?|annotations?|full))$"
)
Keys = Callable[[str], list[tuple[str, ...]]]


class Pairs(NamedTuple):
    """`labels`: label file by recording; `second`: (recording, a further label file of it);
    `ambiguous`: label files in different folders by recording, none of which is preferred.
    """

    labels: dict[str, str]
    second: list[tuple[str, str]]
    ambiguous: dict[str, list[str]]


def pair(songs: Iterable[str], labels: Iterable[str]) -> Pairs:
    """Pair recordings with label files; a label file may belong to several recordings."""
    songs = list(songs)
    pairs = Pairs({}, [], {})
    song_folders = {_folder(song) for song in songs}
    free = set(labels)
    for keys, only_apart, only_one in _RULES:
        candidates = {
            label for label in free if not (only_apart and _folder(label) in song_folders)
        }
        anywhere = only_apart and only_one
        rivals = songs if anywhere else [s for s in songs if s not in pairs.labels]
        fit = _fitting(songs, pairs) if anywhere else lambda song, label: True
        _apply(keys, only_one, fit, rivals, candidates, pairs)
        free -= set(pairs.labels.values()) | {label for _, label in pairs.second}
    for song in pairs.labels:
        pairs.ambiguous.pop(song, None)
    return pairs


def preference(label: str) -> tuple:
    """Sort key of label files of one song: those called chords first, then by format."""
    path = PurePosixPath(label.lower())
    generic = GENERIC_STEMS.index(path.stem) if path.stem in GENERIC_STEMS else 0
    return "chord" not in str(path), LABEL_PREFERENCE.index(path.suffix), generic, label


def _fitting(songs: list[str], pairs: Pairs) -> Callable[[str, str], bool]:
    """Whether a recording's folder and a label's may belong together, as earlier pairs show.

    Where several folders have recordings of the same names (`dog/1.wav`, `cat/1.wav`), the labels
    in a folder belong to the recordings of those folders that have some of them already.
    """
    folders: dict[str, set[str]] = defaultdict(set)  # of recordings, by stem
    for song in songs:
        folders[_stem(song)[0][0]].add(_folder(song))
    numbered = set().union(*(names for names in folders.values() if len(names) > 1))
    paired: dict[str, set[str]] = defaultdict(set)  # folders of recordings by that of their labels
    for song, label in pairs.labels.items():
        paired[_folder(label)].add(_folder(song))

    def fit(song: str, label: str) -> bool:
        known, folder = paired.get(_folder(label)), _folder(song)
        return not known or folder in known or folder not in numbered

    return fit


def _apply(
    keys: Keys,
    only_one: bool,
    fit: Callable[[str, str], bool],
    songs: list[str],
    labels: set[str],
    pairs: Pairs,
) -> None:
    """Pair recordings and labels of the same key; recordings that have a label count, too."""
    index: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for label in labels:
        for key in keys(label):
            index[key].append(label)
    crowd = Counter(key for song in songs for key in keys(song))
    twins = Counter((key, _name(song)) for song in songs for key in keys(song))
    for song in songs:
        if song in pairs.labels:
            continue
        fitting = {
            label
            for key in keys(song)
            for label in index.get(key, ())
            if not (only_one and crowd[key] > 1)
            and twins[key, _name(song)] == 1
            and fit(song, label)
        }
        if not fitting:
            continue
        midi = song.lower().endswith((".mid", ".midi"))
        best, *others = sorted(
            fitting, key=lambda label: (midi != ("midi" in label), *preference(label))
        )
        named = [label for label in fitting if "chord" in label.lower()] or list(fitting)
        if len({_folder(label) for label in named}) > 1:
            pairs.ambiguous.setdefault(song, sorted(fitting))
            continue
        pairs.labels[song] = best
        pairs.second.extend((song, label) for label in others)


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _name(name: str) -> str:
    return PurePosixPath(name).name


def _beside(name: str) -> list[tuple[str, ...]]:
    return [tuple(str(PurePosixPath(one_form(name).casefold()).with_suffix("")).split("/"))]


def _words(keys: Keys) -> Keys:
    """The same rule on the words of names alone: `The_Band/01_-_Song` is `The Band/01 Song`."""

    def keys_of_words(name: str) -> list[tuple[str, ...]]:
        return [tuple(" ".join(re.findall(r"[^\W_]+", part)) for part in key) for key in keys(name)]

    return keys_of_words


def _but_one_folder(name: str) -> list[tuple[str, ...]]:
    (parts,) = _beside(name)
    return [parts] + [parts[:i] + parts[i + 1 :] for i in range(len(parts) - 1)]


def _alone(name: str) -> list[tuple[str, ...]]:
    """The folder, for recordings and for label files that are named by their kind."""
    path = PurePosixPath(name.casefold())
    is_label = path.suffix in LABEL_PREFERENCE
    return [] if is_label and path.stem not in GENERIC_STEMS else [path.parent.parts]


def _stem(name: str) -> list[tuple[str, ...]]:
    return [_beside(name)[0][-1:]]


def _plain(keys: Keys) -> Keys:
    """The same rule on names without what datasets add to them (`x_mic.wav`, `x_chords.lab`)."""

    def plain_keys(name: str) -> list[tuple[str, ...]]:
        path = PurePosixPath(name.casefold())
        stem = previous = path.stem
        while (stem := _ADDED.sub("", stem)) != previous:
            previous = stem
        return keys(str(path.with_name((stem or path.stem) + path.suffix)))

    return plain_keys


# (keys, only label files in folders without recordings, only if one recording has the key)
_RULES: tuple[tuple[Keys, bool, bool], ...] = (
    (_beside, False, False),
    (_plain(_beside), False, False),
    (_but_one_folder, True, False),
    (_plain(_but_one_folder), True, False),
    (_alone, False, True),
    (_stem, True, True),
    (_plain(_stem), True, True),
    (_words(_beside), False, True),
    (_words(_but_one_folder), True, True),
)
