"""The songs of a run: found, split into train, valid and test, read or composed."""

import json
from pathlib import Path

import numpy as np

from audiotrain.datasets import items as datasets_items
from audiotrain.datasets import splits
from audiotrain.datasets.chords import corpus as chords_corpus
from audiotrain.datasets.chords import discovery
from audiotrain.datasets.chords import items as chords_items
from audiotrain.datasets.summary import PROBLEMS, tell_left_out
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import (
    Library,
    Renderings,
    Song,
    compose_songs,
    load_renderings,
)
from audiotrain.train.distributed import ranks as distributed
from audiotrain.train.distributed.ranks import Alone
from audiotrain.utils.files import write_json


def library_of(settings: TrainSettings) -> Library:
    """What makes a run's songs."""
    cache = settings.cache.expanduser()
    return Library(settings.features, cache, settings.seed, settings.soundfonts)


def prepare(
    settings: TrainSettings, library: Library, run: Path
) -> tuple[dict[str, list[list[Song]]], dict[str, chords_items.Item]]:
    """Songs, as lists of renderings, by "train", "valid" and "test"; and the items by name.

    Rank 0 splits; all ranks extract features, each of its share of the songs.
    """
    ranks = distributed.join()
    items: dict[str, chords_items.Item] = {}
    if settings.data is not None:
        listed = run / PROBLEMS if ranks.rank == 0 else None
        corpus = ranks.first_goes_first(
            lambda: find(
                settings.data, settings.selector, settings.group, settings.pop_spellings, listed
            )
        )
        items = {item.id: item for item in corpus.items}
        shares = (1 - settings.valid - settings.test, settings.valid, settings.test)
        saved = run / "split.json"
        is_new = not saved.exists()
        chosen = ranks.from_first(
            lambda: (
                given_split(settings, saved)
                or {
                    part: [item.id for item in own]
                    for part, own in splits.split(corpus, settings.seed, shares, saved).items()
                }
            )
        )
        if missing := sorted({name for own in chosen.values() for name in own} - set(items)):
            raise ValueError(f"{settings.data}: no {missing[0]}, which rank 0 or --split has")
        split = {part: [items[name] for name in own] for part, own in chosen.items()}
        tell_unnamed(settings, len(items), chosen)
        try:
            parts = load_parts(settings, library, split, listed, ranks)
        except ValueError:
            if is_new and ranks.rank == 0:
                saved.unlink()  # it is worth nothing, and would keep later songs' places
            raise
        parts["train"] += compose(settings, library, ranks)
        return parts, items
    composed = compose(settings, library, ranks)
    if given := ranks.from_first(lambda: given_split(settings, run / "split.json")):
        tell_unnamed(settings, len(composed), given)
        return parts_of(composed, given), items
    return spread(composed, settings.valid, settings.test), items


def spread(songs: list[list[Song]], valid: float, test: float) -> dict[str, list[list[Song]]]:
    """Composed songs by part, one to validate and one to test on at least, so that all parts have
    easy and hard ones: few songs drawn by chance differ more than models do."""
    count = len(songs)
    counts = [min(max(1, round(count * share)), count - 2) for share in (valid, test)]
    held = min(sum(counts), count - 1)
    tested = held * counts[1] // sum(counts)

    def kinds(own: list[Song]) -> int:
        return len({s.label.replace("X", "N") for s in own[0].segments})

    order = sorted(songs, key=lambda own: (kinds(own), own[0].name))
    parts: dict[str, list[list[Song]]] = {"train": [], "valid": [], "test": []}

    def chosen(place: int, some: int, of: int) -> bool:
        """Whether a place is one of `some` that lie evenly among `of`."""
        before, now = ((2 * n * some + of) // (2 * of) for n in (place, place + 1))
        return now > before

    number = 0  # of those held out so far
    for place, own in enumerate(order):
        name = "train"
        if chosen(place, held, count):
            name = "test" if chosen(number, tested, held) else "valid"
            number += 1
        parts[name].append(own)
    for own in parts.values():
        own.sort(key=lambda renderings: renderings[0].name)
    return parts


def given_split(settings: TrainSettings, saved: Path) -> dict[str, list[str]] | None:
    """The names by part that `settings.split` says, kept in `saved`, too; None without one."""
    if settings.split is None:
        return None
    chosen = read_split(settings.split)
    if not saved.exists():
        write_split(saved, chosen)
    return chosen


def parts_of(songs: list[list[Song]], split: dict[str, list[str]]) -> dict[str, list[list[Song]]]:
    """Songs by the part that names them. ValueError for a name that no song has."""
    named = {renderings[0].name: renderings for renderings in songs}
    if missing := sorted({name for own in split.values() for name in own} - set(named)):
        raise ValueError(f"no song {missing[0]}, which the split has: it is of other songs")
    return {part: [named[name] for name in own] for part, own in split.items()}


def read_split(path: Path) -> dict[str, list[str]]:
    """The names of a run's songs by "train", "valid" and "test". ValueError when there are none."""
    try:
        names = json.loads(path.read_text("utf-8"))["items"]
        return {part: [str(name) for name in names[part]] for part in ("train", "valid", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a run's split ({error})") from None


def write_split(path: Path, parts: dict[str, list[str]]) -> None:
    """Save names by part as `read_split` reads them."""
    write_json(path, {"items": parts})


def load_parts(
    settings: TrainSettings, library: Library, split: dict[str, list[chords_items.Item]],
    listed: Path | None = None, ranks: Alone | None = None,
) -> dict[str, list[list[Song]]]:  # fmt: skip
    """The songs of each part of a split, prepared by all `ranks`; those that cannot be read are
    named, all of them in the file `listed`. ValueError when a part is empty that may not be."""
    needed = [name for name in split if name != "train" or not settings.composed_songs]
    total = sum(map(len, split.values()))
    for name in needed:
        if not split[name]:
            raise ValueError(
                f"{settings.data}: the split of {total} recordings leaves none for {name}; "
                "expected at least one each to train, validate and test"
            )
    chosen = [
        Renderings.of(item, range(settings.renderings if name == "train" else 1))
        for name, items in split.items()
        for item in items
    ]
    loaded = iter(load_renderings(library, chosen, "reading", ranks))
    parts, problems = {}, []
    for name, items in split.items():
        results = [next(loaded) for _ in items]
        parts[name] = [songs for songs in results if not isinstance(songs, str)]
        unreadable = [problem for problem in results if isinstance(problem, str)]
        problems += unreadable
        if name in needed and not parts[name]:
            tell_left_out(problems, total, "recordings", listed)
            raise ValueError(f"none of {len(items)} {name} recordings can be read: {unreadable[0]}")
    tell_left_out(problems, total, "recordings", listed)
    return parts


def discover(
    data: Path, selector: str | None, group: str | None, pop_spellings: bool
) -> datasets_items.Corpus:
    """The labelled recordings of a folder."""
    chosen = int(selector) if selector is not None and selector.isdigit() else selector
    return chords_corpus.check(discovery.discover(data, chosen, group, pop_spellings))


def find(
    data: Path, selector: str | None, group: str | None, pop_spellings: bool,
    listed: Path | None = None,
) -> datasets_items.Corpus:  # fmt: skip
    """The labelled recordings of a folder, after `tell_data`."""
    corpus = discover(data, selector, group, pop_spellings)
    tell_data(corpus, listed)
    return corpus


def tell_data(corpus: datasets_items.Corpus, listed: Path | None = None) -> None:
    """Print what is in a folder; all that is wrong with it is in the file `listed`. ValueError when
    it has no audio."""
    print(chords_corpus.report(corpus, listed), flush=True)
    if not any(item.audio is not None for item in corpus.items):
        songs = len(corpus.items)
        raise ValueError(f"{corpus.folder}: labels of {songs} songs but no audio to train on")


def compose(
    settings: TrainSettings, library: Library, ranks: Alone | None = None
) -> list[list[Song]]:
    """The synthesised songs of a run, played by all `ranks`."""
    number = settings.composed_songs
    if not number:
        return []
    borrowed = []
    if settings.progressions is not None:
        borrowed = [
            chords_items.segments(item)
            for item in discovery.discover(settings.progressions).items
            if item.clip_label is None
        ]
    songs = compose_songs(library, number, settings.composed_seconds, borrowed, ranks)
    return [[song] for song in songs]


def tell_unnamed(settings: TrainSettings, total: int, split: dict[str, list[str]]) -> None:
    """Say how many songs `settings.split` leaves out."""
    unnamed = total - len({name for own in split.values() for name in own})
    if settings.split is not None and unnamed > 0:
        print(f"left out {unnamed} of {total} songs that --split {settings.split} does not name")


def first_renderings(songs: list[list[Song]]) -> list[Song]:
    """One rendering of each song."""
    return [renderings[0] for renderings in songs]


def first_classes(songs: list[list[Song]]) -> list[np.ndarray]:
    """The classes (frames, 3) of each song."""
    return [renderings[0].classes for renderings in songs]
