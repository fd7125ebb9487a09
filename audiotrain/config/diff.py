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


def flat(config: Mapping, prefix: str = "") -> dict:
    """Nested settings under dotted names.

    >>> flat({"model": {"width": 2}, "seed": 1})
    {'model.width': 2, 'seed': 1}
    """
    found = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found
