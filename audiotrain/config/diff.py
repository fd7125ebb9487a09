"""Nested settings as flat rows, and the differences of two."""

from collections.abc import Mapping
from typing import Any

ABSENT = "-"


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple]:
    """Dotted name -> both values, for settings that differ; "-" where one has no such setting.

    >>> differences({"seed": 1, "rate": 0.5}, {"seed": 2, "rate": 0.5, "width": 8})
    {'seed': (1, 2), 'width': ('-', 8)}
    """
    names = dict.fromkeys([*first, *second])
    pairs = {name: (first.get(name, ABSENT), second.get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def flat(config: Mapping, prefix: str = "", deepest: int | None = None) -> dict[str, Any]:
    """Nested settings under dotted names; lists are values. ValueError for more than `deepest`
    levels.

    >>> flat({"model": {"width": 2}, "seed": 1})
    {'model.width': 2, 'seed': 1}
    """
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            leaves[name] = value
        elif deepest is not None and name.count(".") >= deepest:
            raise ValueError(f"{name[:60]}… is nested more than {deepest} deep")
        else:
            leaves |= flat(value, f"{name}.", deepest)
    return leaves
