"""Split a corpus into train, valid and test by group, the same way on every run.

The splits of the data (a split column, folders called train and test) are kept. Other groups are
ordered by a hash of seed and name; a saved split is reused, and only new groups are placed.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from audiotrain.datasets.items import AnyItem, Corpus, Problem
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, write

SPLITS = ("train", "valid", "test")


def split(
    corpus: Corpus[AnyItem],
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    path: str | os.PathLike | None = None,
) -> dict[str, list[AnyItem]]:
    """Items by "train", "valid" and "test", all items of a group in one of them.

    `fractions` of the groups go to the three. Splits that the data name are kept, but where they
    name train and no valid, a part of train becomes valid; likewise test, where they name a split
    of all items. With `path`, a JSON file, the split is saved there and reused: groups keep their
    part, new ones get theirs by their hash. ValueError when `path` has a split of other settings.
    """
    fractions = _checked(fractions)
    placed = _saved(Path(path), seed, fractions) if path and Path(path).exists() else {}
    first_run = not placed
    declared = {item.group: item.split for item in reversed(corpus.items) if item.split}
    names = {item.split for item in corpus.items if item.split}
    others = {item.group for item in corpus.items} - set(declared)
    carved = {"valid", *([] if others else ["test"])} - names  # parts that are taken from train
    trained = {group for group, name in declared.items() if name == "train" and carved}
    for groups, open_parts in ((others, set(SPLITS) - names), (trained, carved)):
        shares = [
            fraction if name == "train" or name in open_parts else 0.0
            for name, fraction in zip(SPLITS, fractions, strict=True)
        ]
        placed |= _place(groups - set(placed), shares, seed, first_run)
    parts: dict[str, list[AnyItem]] = {name: [] for name in SPLITS}
    for item in corpus.items:
        part = item.split or declared.get(item.group) or placed[item.group]
        if item.split == "train" and placed.get(item.group) in {"valid", "test"} - names:
            part = placed[item.group]
        parts[part].append(item)
    if path:
        _save(Path(path), seed, fractions, placed, parts)
    return parts


def join_groups(items: Sequence[AnyItem], keys: Iterable[Hashable]) -> list[AnyItem]:
    """The items, with the groups of items of equal keys joined to one group.

    The keys are in the order of the items; None is equal to nothing.
    """
    parent: dict[str, str] = {}  # group -> the group that it joins
    first: dict[Hashable, str] = {}

    def root(group: str) -> str:
        while group in parent:
            group = parent[group]
        return group

    for item, key in zip(items, keys, strict=True):
        if key is not None:
            group, joined = root(item.group), root(first.setdefault(key, item.group))
            if group != joined:
                parent[group] = joined
    return [replace(item, group=root(item.group)) for item in items] if parent else list(items)


def join_spans(items: Sequence[AnyItem]) -> tuple[list[AnyItem], list[Problem]]:
    """The items, spans of one recording in one group, and a problem for each recording that was in
    two or more: its spans sound alike, so they belong in one part of a split."""
    groups: dict[Hashable, dict[str, str]] = defaultdict(dict)  # recording -> group -> an item
    for item in items:
        if item.audio is not None:
            groups[item.audio].setdefault(item.group, item.id)
    texts = [
        ", ".join(f"{name} in {group}" for group, name in members.items())
        for members in groups.values()
        if len(members) > 1
    ]
    kind = "recordings in several groups, which are taken as one"
    problems = [Problem(kind, text) for text in texts]
    return join_groups(items, [item.audio for item in items]), problems


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    fractions = tuple(float(fraction) for fraction in fractions)
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
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
        numbers: Sequence[float] = range(len(order))
        test, valid = tests, valids
    else:
        numbers = [_hash(seed, group) for group in order]
    return {
        group: "test" if number < test else "valid" if number < test + valid else "train"
        for group, number in zip(order, numbers, strict=True)
    }


def _share(count: int, fraction: float) -> int:
    """At least one of two or more, if any is wanted."""
    return max(round(count * fraction), 1) if fraction and count > 1 else 0


def _hash(seed: int, group: str) -> float:
    """A number in [0, 1) from seed and name."""
    digest = hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _saved(path: Path, seed: int, fractions: tuple[float, ...]) -> dict[str, str]:
    try:
        content = parse_json(path.read_text("utf-8"))
        placed = dict(content["groups"])
        settings = (content["seed"], tuple(content["fractions"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a saved split: {error!r:.200}; delete it to split anew"
        ) from None
    if settings != (seed, fractions):
        raise UserError(
            f"{path}: found a split of seed {settings[0]} and fractions {settings[1]}, expected "
            f"{seed} and {fractions}; delete it to split anew"
        )
    if unknown := sorted(set(placed.values()) - set(SPLITS)):
        raise UserError(f"{path}: found split {unknown[0]!r}, expected one of {', '.join(SPLITS)}")
    return placed


def _save(
    path: Path,
    seed: int,
    fractions: tuple[float, ...],
    placed: dict[str, str],
    parts: dict[str, list[AnyItem]],
) -> None:
    """Write the parts of all groups ever seen, so that a file that comes back has its old part."""
    content = {
        "seed": seed,
        "fractions": fractions,
        "groups": dict(sorted(placed.items())),
        "items": {name: [item.id for item in items] for name, items in parts.items()},
    }
    text = json.dumps(content, indent=1) + "\n"
    if not path.exists() or path.read_text("utf-8") != text:
        write(path, text)
