"""Split a corpus into train, valid and test by group, the same way on every run.

What the data say (a split column, folders called train and test) is kept. Other groups are ordered
by a hash of seed and name; a saved split is reused, and only new groups are placed.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from audiotrain.datasets.items import AnyItem, Corpus, Problem
from audiotrain.utils.files import write

SPLITS = ("train", "valid", "test")


def split(
    corpus: Corpus[AnyItem],
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    path: str | os.PathLike | None = None,
) -> dict[str, list[AnyItem]]:
    """Items by "train", "valid" and "test", all items of a group in one of them.

    `fractions` of the groups go to the three. A split that the data name stays as it is, but where
    they name train and no valid, a part of train becomes valid; so of test, where they name a split
    of all items. With `path`, a JSON file, the split
    is saved there and reused: groups keep their place, new ones are placed by their hash.
    ValueError when `path` holds a split of other settings.
    """
    fractions = _checked(fractions)
    declared = {item.split for item in corpus.items if item.split}
    places = _saved(Path(path), seed, fractions) if path and Path(path).exists() else {}
    first_run = not places
    named = {item.group: item.split for item in reversed(corpus.items) if item.split}
    groups = {item.group for item in corpus.items}
    free = groups - set(named)
    wanted = [
        fraction if name == "train" or name not in declared else 0.0
        for name, fraction in zip(SPLITS, fractions, strict=True)
    ]
    places |= _place(free - set(places), wanted, seed, first_run)
    carved = {"valid", *([] if free else ["test"])} - declared
    if carved:
        trained = {group for group, name in named.items() if name == "train"}
        taken = [
            fraction if name == "train" or name in carved else 0.0
            for name, fraction in zip(SPLITS, fractions, strict=True)
        ]
        places |= _place(trained - set(places), taken, seed, first_run)
    parts: dict[str, list[AnyItem]] = {name: [] for name in SPLITS}
    for item in corpus.items:
        place = places.get(item.group)
        own = item.split or named.get(item.group) or place
        is_carved = item.split == "train" and place in {"valid", "test"} - declared
        parts[place if is_carved else own].append(item)
    if path:
        _save(Path(path), seed, fractions, places, parts)
    return parts


def join_groups(items: Sequence[AnyItem], keys: Iterable[Hashable]) -> list[AnyItem]:
    """The items, those of equal keys in one group, which all others of their groups join.

    The keys are in the order of the items; None is equal to nothing.
    """
    home: dict[str, str] = {}  # group -> the group that it joins
    first: dict[Hashable, str] = {}

    def root(group: str) -> str:
        while group in home:
            group = home[group]
        return group

    for item, key in zip(items, keys, strict=True):
        if key is not None:
            mine, its = root(item.group), root(first.setdefault(key, item.group))
            if mine != its:
                home[mine] = its
    return [replace(item, group=root(item.group)) for item in items] if home else list(items)


def join_spans(items: Sequence[AnyItem]) -> tuple[list[AnyItem], list[Problem]]:
    """The items, spans of one recording in one group, and a problem for each recording that was in
    several: its spans sound alike, so they may not be in several parts of a split."""
    groups: dict[Hashable, dict[str, str]] = defaultdict(dict)  # recording -> group -> an item
    for item in items:
        if item.audio is not None:
            groups[item.audio].setdefault(item.group, item.id)
    problems = [
        Problem(
            "recordings in several groups, which are taken as one",
            ", ".join(f"{name} in {group}" for group, name in own.items()),
        )
        for own in groups.values()
        if len(own) > 1
    ]
    return join_groups(items, [item.audio for item in items]), problems


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    fractions = tuple(float(fraction) for fraction in fractions)
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"split fractions: found {fractions}, expected three for {', '.join(SPLITS)} that add "
            "up to 1"
        )
    return fractions


def _place(
    groups: Iterable[str], fractions: Sequence[float], seed: int, first_run: bool
) -> dict[str, str]:
    """Split by group: exact shares of the hashed order at first, later by the hash alone."""
    total = sum(fractions)
    if not total:
        return dict.fromkeys(groups, "train")
    train, valid, test = (fraction / total for fraction in fractions)
    order = sorted(groups, key=lambda group: (_hash(seed, group), group))
    if first_run:
        tests = _share(len(order), test)
        valids = _share(len(order), valid)
        if len(order) == 2 and tests and valids:
            tests = 0
        valids = min(valids, max(0, len(order) - tests - bool(train)))
        tests = min(tests, max(0, len(order) - valids - bool(train)))
        bounds = (tests, tests + valids)
        numbers: Sequence[float] = range(len(order))
    else:
        bounds, numbers = (test, test + valid), [_hash(seed, group) for group in order]
    return {
        group: "test" if number < bounds[0] else "valid" if number < bounds[1] else "train"
        for group, number in zip(order, numbers, strict=True)
    }


def _share(count: int, fraction: float) -> int:
    """At least one of two or more, if any is wanted."""
    return max(round(count * fraction), 1) if fraction and count > 1 else 0


def _hash(seed: int, group: str) -> float:
    """A number in [0, 1) that depends on nothing but seed and name."""
    digest = hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _saved(path: Path, seed: int, fractions: tuple[float, ...]) -> dict[str, str]:
    try:
        content = json.loads(path.read_text("utf-8"))
        places = dict(content["groups"])
        settings = (content["seed"], tuple(content["fractions"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a saved split: {error!r}; delete it to split anew") from None
    if settings != (seed, fractions):
        raise ValueError(
            f"{path}: found a split of seed {settings[0]} and fractions {settings[1]}, expected "
            f"{seed} and {fractions}; delete it to split anew"
        )
    if unknown := sorted(set(places.values()) - set(SPLITS)):
        raise ValueError(f"{path}: found split {unknown[0]!r}, expected one of {', '.join(SPLITS)}")
    return places


def _save(
    path: Path,
    seed: int,
    fractions: tuple[float, ...],
    places: dict[str, str],
    parts: dict[str, list[AnyItem]],
) -> None:
    """Places of all groups ever seen, so that a file that comes back finds its own."""
    content = {
        "seed": seed,
        "fractions": fractions,
        "groups": dict(sorted(places.items())),
        "items": {name: [item.id for item in items] for name, items in parts.items()},
    }
    text = json.dumps(content, indent=1) + "\n"
    if not path.exists() or path.read_text("utf-8") != text:
        write(path, text)
